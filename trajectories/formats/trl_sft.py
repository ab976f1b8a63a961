"""Conversations for supervised fine-tuning with TRL, and with whatever else reads OpenAI-style messages with tools."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from agentenv.errors import UsageError
from agentenv.trajectories.columns import passed
from agentenv.trajectories.formats.base import Format, Kind, Options, Row, Tally
from agentenv.trajectories.formats.conversation import (
    Said,
    UnfitError,
    one_call_a_turn,
    rendered,
    structured,
    with_tools,
)
from agentenv.trajectories.formats.pictures import Pictures, VideoForm, check_order, holds_pictures, holds_videos
from agentenv.trajectories.formats.templates import LOSSES, Probe
from agentenv.trajectory import Trajectory
from agentenv.types import StopReason, Table, ToolCall

if TYPE_CHECKING:
    from agentenv.trajectories.run import Run


class SftOptions(Options, frozen=True):
    """Options of trl-sft.

    Args:
        mode: "structured": calls and results stand in their own fields and the trainer's chat template writes them.
            "rendered": they stand in plain turns, as the environment's dialect wrote them.
        arguments: a call's arguments as an object, or as JSON text (the model's own, where that is JSON).
        reasoning: in the field `reasoning_content`, inline before the content between think tags, or left out.
        unreadable: an episode with a turn that could not be read is skipped, or the turn is kept as plain text.
        parallel: a turn with several calls is kept as it is, or "split" into turns with one call each, for the chat
            templates that refuse several (Llama 3.1 and 3.2) or write only the first (gpt-oss).
        template: the chat template of the model that will be trained: a Jinja file, or the folder of its tokenizer.
            Every row is rendered with it. What it leaves out counts as dropped, and an episode that it refuses is
            skipped: the trainer would stop there. (The template that TRL itself puts in its place when the loss is on
            the assistant alone leaves out no more.)
        images: where the policy was shown pictures, how rows hold them: "files" beside the data set, named by path;
            "uri", in the row itself; "column", as bytes in the column `images` of a Parquet file (rendered mode only,
            since TRL fills no placeholders in results of tools).
        image_root: put before the paths of files; without it they start at the folder of the export.
        video: how clips are written. "frames": each frame an image where it was seen, with the time before it that the
            policy saw. TRL takes nothing else; for trainers that read videos see the format qwen-messages, where
            "reference" names the file with the window, the number of frames and their size (the trainer chooses and
            decodes the frames), and "list" names the frames that the policy saw.
        min_reward: the least reward of an episode; None takes every one.
        include: endings that are left out otherwise: "masked", "length" (the engine cut the last turn off) and
            "unscored" (the infrastructure failed).
    """

    mode: Literal["structured", "rendered"] = "structured"
    arguments: Literal["dict", "json"] = "dict"
    reasoning: Literal["field", "inline", "drop"] = "field"
    unreadable: Literal["skip", "text"] = "skip"
    parallel: Literal["keep", "split"] = "keep"
    template: str = ""
    images: Literal["files", "uri", "column"] = "files"
    image_root: str = ""
    video: VideoForm = "frames"
    min_reward: float | None = None
    include: tuple[Literal["masked", "length", "unscored"], ...] = ()


def rows(run: Run, options: SftOptions, tally: Tally) -> Iterator[Row]:
    """One row an episode."""
    yield from conversations(run, options, tally, None)


def vision_rows(run: Run, options: SftOptions, tally: Tally) -> Iterator[Row]:
    """One row an episode, all of them as TRL's path for vision models takes them."""
    pictures = Pictures(run.media, tally.beside, options.images, options.image_root)
    yield from conversations(run, options, tally, pictures)


def fitted(run: Run, options: SftOptions) -> Format:
    """The format with a column `images`, by which TRL knows that a model sees, where any policy was shown a picture.

    Raises:
        UsageError: the options cannot go together.
    """
    if options.video != "frames":
        raise UsageError(
            f'format trl-sft: video="{options.video}" is not possible: TRL hands no videos to a model, and would train'
            ' on placeholders without pixels. Take video="frames", or the format qwen-messages'
        )
    if not any(holds_pictures(record) for _, record in run.records()):
        return FORMAT
    if options.images == "column" and (options.mode != "rendered" or options.container != "parquet"):
        raise UsageError('format trl-sft: images="column" needs mode="rendered" and container="parquet"')
    kind: Kind = "images" if options.images == "column" else "strings"
    return msgspec.structs.replace(FORMAT, columns={**FORMAT.columns, "images": kind}, rows=vision_rows)


def conversations(
    run: Run, options: SftOptions, tally: Tally, pictures: Pictures | None, *, trl: bool = True
) -> Iterator[Row]:
    """One row an episode.

    Args:
        run: the episodes.
        options: see there.
        tally: takes what is left out.
        pictures: writes the pictures; None where there are none.
        trl: the rows go round what TRL does not do for vision models: the tools stand in the system message, and a
            column `images` tells it that the model sees.
    """
    probe = Probe(options.template) if options.template else None
    for _, record in run.records():
        reason = unwanted(record, options.min_reward, options.include)
        if reason:
            tally.skip(record.id, reason)
            continue
        try:
            with tally.beside.row():
                row = _row(record, options, tally, probe, pictures, trl)
        except UnfitError as unfit:
            tally.skip(record.id, str(unfit))
            continue
        yield row


def unwanted(record: Trajectory, min_reward: float | None, include: Iterable[str]) -> str:
    """Why an episode is not to be learned from; empty where it is. See `SftOptions`."""
    outcome, include = record.outcome, set(include)
    if outcome is None:
        return "not finished"
    if outcome.stop_reason in _UNSCORED and "unscored" not in include:
        return f"unscored ({outcome.stop_reason})"
    if outcome.masked and "masked" not in include:
        return "masked by a budget"
    if outcome.stop_reason == StopReason.LENGTH and "length" not in include:
        return "cut off by the engine"
    if min_reward is not None and not passed(_reward(outcome.reward), min_reward):
        return f"reward below {min_reward:g}"
    if not any(node.message.role == "assistant" for node in record.path()):
        return "no turn of the policy"
    return ""


_UNSCORED = frozenset(reason.value for reason in StopReason if reason.unscored)


def _reward(reward: float | None) -> float:
    return float("-inf") if reward is None else reward


def _row(
    record: Trajectory, options: SftOptions, tally: Tally, probe: Probe | None, pictures: Pictures | None, trl: bool
) -> Row:
    changes: set[str] = set()
    if options.mode == "rendered":
        said = rendered(record)
    else:
        said, changes = structured(record, options.unreadable)
    check_order(record, said)
    if options.parallel == "split":
        together, said = len(said), one_call_a_turn(said)
        changes |= {"calls made at once split into turns"} if len(said) > together else set()
    tools = [tool.openai() for tool in record.env.tools] if options.mode == "structured" else []
    if pictures and tools and trl:
        said, tools = with_tools(said, record.env.tools), []
        changes |= {"tools written into the system message, as TRL does not pass them on to vision models"}
    column: list[Row] = []
    row = {
        "messages": [_message(message, options, pictures, column) for message in said],
        "tools": tools,
        "id": record.id,
        "task_id": record.task.id,
        "sample": record.group.index,
        "reward": record.reward,
        **({"images": column} if pictures and trl else {}),
    }
    lost = probe.losses(row) if probe else set[str]()
    tally.merge(changes)
    tally.drop({*_losses(record, said, options), *lost})
    return row


def _message(said: Said, options: SftOptions, pictures: Pictures | None, column: list[Row]) -> dict[str, Any]:
    if said.reasoning and options.reasoning == "inline":
        said = msgspec.structs.replace(said, text=f"<think>\n{said.reasoning}\n</think>\n\n{said.text}")
    content: Any = said.text if pictures is None else pictures.content(said, column)
    message: dict[str, Any] = {"role": said.role, "content": content}
    if said.reasoning and options.reasoning == "field":
        message["reasoning_content"] = said.reasoning
    if said.calls:
        message["tool_calls"] = [_call(call, options) for call in said.calls]
    if said.role == "tool":
        message |= {"tool_call_id": said.call_id, "name": said.name}
    return message


def _call(call: ToolCall, options: SftOptions) -> dict[str, Any]:
    arguments: Any = call.arguments or {}
    if options.arguments == "json":
        own = _decoded(call.arguments_raw) == arguments
        arguments = call.arguments_raw if own else json.dumps(arguments, ensure_ascii=False)
    return {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": arguments}}


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _rewritten(call: ToolCall, options: SftOptions) -> bool:
    """Whether the text in which the model wrote the arguments cannot be had back from the row."""
    arguments = call.arguments or {}
    if _decoded(call.arguments_raw) == arguments:
        return options.arguments == "dict" and call.arguments_raw != json.dumps(arguments, ensure_ascii=False)
    return call.arguments_raw not in arguments.values()


def _losses(record: Trajectory, said: list[Said], options: SftOptions) -> Iterator[str]:
    """What of this episode the row does not say."""
    steps = record.indices()
    nodes = [record.nodes[step] for step in steps]
    if options.reasoning == "drop" and any(message.reasoning for message in said):
        yield "reasoning"
    if options.mode == "structured" and any(_rewritten(call, options) for message in said for call in message.calls):
        yield "arguments_raw"
    if any(node.tokens for node in nodes):
        yield "tokens"
    turns = [node for node in nodes if node.message.role == "assistant"]
    if any(node.trainable is False or node.origin != "sampled" for node in turns):
        yield "trainable"
    if len(steps) < len(record.nodes):
        yield "branches"
    if any(isinstance(part, Table) for node in nodes for part in node.message.parts) or any(
        isinstance(part, Table) for run in record.tool_runs for part in run.parts
    ):
        yield "table_rows"
    if any(run.error_kind for run in record.tool_runs):
        yield "error_kind"
    if any(getattr(part, "derived", None) or getattr(part, "of", "") for message in said for part in message.parts):
        yield "derived"
    if options.video == "reference" and holds_videos(record):
        yield "frames"


FORMAT = Format(
    "trl-sft",
    "Conversations with tool calls for supervised fine-tuning, in the shape of OpenAI's and TRL's messages.",
    SftOptions,
    {
        "messages": "json_list",
        "tools": "json_list",
        "id": "string",
        "task_id": "string",
        "sample": "int",
        "reward": "float",
    },
    {
        **LOSSES,
        "arguments_raw": "a template writes arguments its own way; arguments='json' keeps the model's text",
        "tokens": "text is rendered and tokenised again by the trainer",
        "trainable": "there is no loss switch for a single message: turns that should not be learned from will be",
        "branches": "only the path to the last message is exported",
        "table_rows": "tables are the text that the policy read",
        "error_kind": "results do not say that they are errors, other than in their text",
        "derived": "pictures do not say how they were cut out of others, other than in texts beside them",
        "frames": "the trainer chooses frames of a video itself; video='list' names those that the policy saw",
    },
    rows,
    fitted,
)
