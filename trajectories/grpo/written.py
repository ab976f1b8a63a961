"""Token streams of records that have none: demonstrations, for supervised training."""

from __future__ import annotations

from typing import Any

from agentenv.dialects import make_dialect
from agentenv.dialects.base import Turn
from agentenv.errors import UsageError
from agentenv.tokens import Segment
from agentenv.trajectory import Node, Trajectory
from agentenv.types import Message, Tokens


def written(record: Trajectory, renderer: Any, *, native_dialect: str = "hermes") -> list[Segment]:
    """A record's conversation as token ids, just as a policy with this renderer would have built it up.

    What the demonstrator wrote is tokenised once and never again; the ids are marked as not exact. A turn that ends in
    a string at which engines stop sampling has no end token of its own, as in a rollout; every other one has.

    Args:
        record: an episode.
        renderer: of the model (`TransformersPolicy.renderer`, or a `TemplateRenderer`).
        native_dialect: how the model writes calls where the record's travelled beside the text.

    Raises:
        UsageError: the model's chat template does not only append.
        PolicyError: it cannot render the conversation.
    """
    native = record.env.dialect == "native"
    dialect = make_dialect(
        native_dialect if native else record.env.dialect, record.env.tools, **_options(record, native)
    )
    end = renderer.encoded(renderer.close)[-1:]
    segments: list[Segment] = []
    ids: list[int] = []
    new: list[Message] = []
    for index in record.indices():
        node = record.nodes[index]
        if node.origin != "sampled":
            new.append(node.message)
            continue
        if segments:
            last = len(segments[-1].ids)
            added: Tokens | str = renderer.bridge(ids, last, new, record.env.tools, native=native)
        else:
            added = renderer.prompt(new, record.env.tools, native=native)
        if isinstance(added, str):
            raise UsageError(f"record {record.id} cannot be written token by token: {added}")
        text = _text(node, dialect, native)
        said = renderer.encoded(text)
        said += () if text.endswith(tuple(dialect.stop)) and dialect.stop else end
        segments.append(Segment(added.ids, False, media=added.media, exact=False, node=index))
        segments.append(Segment(said, True, exact=False, node=index))
        ids += (*added.ids, *said)
        new = []
    return segments


def _options(record: Trajectory, native: bool) -> dict[str, Any]:
    return {} if native else record.env.dialect_options


def _text(node: Node, dialect: Any, native: bool) -> str:
    message = node.message
    if native:
        text: str = dialect.write(Turn(message.text, message.reasoning, message.calls)).text
        return text
    return message.text if message.raw is None else message.raw
