"""The record of an episode: an append-only graph of messages, with everything needed to explain, re-score and train on
it.

A node points at its parent; an episode that never forked is a path. Nothing is rewritten: an observation that was
rolled back, or an assistant turn that a branch left behind, stays as a node off the path. What stands in
`Node.message` is what the policy saw or wrote, to the letter. Structured results stand beside it in `tool_runs`, so
that exporters can render them for a trainer without parsing text.
"""

from __future__ import annotations

import base64
import hashlib
import random
import time
import traceback
from functools import lru_cache
from html import escape
from typing import Any

import msgspec
from msgspec import Struct, field

from agentenv.errors import AgentEnvError, InfrastructureError, StoreError
from agentenv.spec import EnvSpec
from agentenv.types import Action, Image, Message, Part, Task, ToolResult, Usage, Video
from agentenv.types import Tokens as Tokens

SCHEMA = "agentenv.trajectory/1"


class Node(Struct, frozen=True, gc=False, omit_defaults=True):
    """One message and where it came from.

    Args:
        message: what the policy saw or wrote.
        parent: index of the parent node, -1 for the root.
        origin: task, env, sampled, injected, edited or copied. Only sampled nodes were written by the policy.
        rolled_back: the observation would have overflowed: the policy never saw it.
        trainable: False keeps a sampled node out of the loss; None leaves it to the exporter.
        tokens: what this node added to the stream, where the policy's engine works with token ids.
    """

    message: Message
    parent: int
    origin: str
    rolled_back: bool = False
    trainable: bool | None = None
    tokens: Tokens | None = None


class ModelCall(Struct, frozen=True, gc=False, omit_defaults=True):
    """One call of the policy: the node that it made and what it took."""

    node: int
    finish_reason: str = "stop"
    seconds: float = 0.0
    usage: Usage | None = None
    retries: int = 0
    flags: tuple[str, ...] = ()
    error: str | None = None


class ToolRun(Struct, frozen=True, gc=False, omit_defaults=True):
    """One tool call as it was run: `call_node` holds the call, `node` shows its result, `parts` are the tool's own."""

    call_id: str
    name: str
    call_node: int
    node: int
    parts: tuple[Part, ...] = ()
    error_kind: str | None = None
    seconds: float = 0.0
    cost: float = 0.0
    cache: str = ""
    bug: str | None = None
    cut: int = 0  # characters that the observation budget removed
    neutralised: int = 0  # control strings in outside text that were made harmless
    usage: Usage | None = None  # tokens of models that the tool asked; their cost is part of `cost`
    data: dict[str, Any] | None = None  # what the tool says for the record and the policy never saw


class Score(Struct, frozen=True, gc=False, omit_defaults=True):
    """One named reward component. `value` None is unscored, which is never 0."""

    value: float | None
    weight: float = 1.0


class ErrorInfo(Struct, frozen=True, gc=False, omit_defaults=True):
    """An error that ended an episode: its type, its message and, for bugs, the traceback.

    `permanent` says that trying again would fail again (a wrong key, an unknown model).
    """

    type: str
    message: str
    trace: str = ""
    permanent: bool = False

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


class Outcome(Struct, frozen=True, gc=False, omit_defaults=True):
    """How an episode ended. `reward` is the weighted sum of the scores; None where it is unscored."""

    stop_reason: str
    terminated: bool
    truncated: bool
    reward: float | None = None
    rewards: dict[str, Score] = field(default_factory=dict)
    answer: str | None = None
    masked: bool = False
    error: ErrorInfo | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    steps: dict[str, list[float]] = field(default_factory=dict)  # per-turn values of step-scoped components


class PolicyInfo(Struct, frozen=True, gc=False, omit_defaults=True):
    """Who played: policy name, model and settings. Never a key, never a header."""

    name: str
    model: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    capture: str = "text"


class Group(Struct, frozen=True, gc=False, omit_defaults=True):
    """Which attempt at a task this is: `index` of `size` attempts, all with the same `id`."""

    id: str
    index: int = 0
    size: int = 1


class Trajectory(Struct):
    """The record of one episode. Grows while it is played; `outcome` is set once, at the end.

    `task` carries the reference answer, evidence and metadata; its prompt stands in the first nodes, and its tables are
    named by hash. `times` are seconds: when it started (Unix time) and how long policy, tools and the whole took.
    """

    id: str
    task: Task
    env: EnvSpec
    env_hash: str
    policy: PolicyInfo
    group: Group
    seed: int
    started: float
    nodes: list[Node] = field(default_factory=list)
    calls: list[ModelCall] = field(default_factory=list)
    tool_runs: list[ToolRun] = field(default_factory=list)
    outcome: Outcome | None = None
    seconds: float = 0.0
    forked_from: str = ""
    schema: str = SCHEMA
    labels: dict[str, Any] = field(default_factory=dict)

    @property
    def reward(self) -> float | None:
        """The total reward, None while unscored."""
        return self.outcome.reward if self.outcome else None

    @property
    def stop_reason(self) -> str | None:
        """Why it ended, None while it is being played."""
        return self.outcome.stop_reason if self.outcome else None

    @property
    def answer(self) -> str | None:
        """The policy's final answer, None where it gave none."""
        return self.outcome.answer if self.outcome else None

    def indices(self, leaf: int | None = None) -> list[int]:
        """Indices of the nodes that the policy saw or wrote, from the root to `leaf`: by default the last one that was
        not rolled back.
        """
        at = len(self.nodes) - 1 if leaf is None else leaf
        while leaf is None and at >= 0 and self.nodes[at].rolled_back:
            at -= 1
        steps: list[int] = []
        while at >= 0:
            steps.append(at)
            at = self.nodes[at].parent
        return steps[::-1]

    def path(self, leaf: int | None = None) -> list[Node]:
        """The nodes at `indices`."""
        return [self.nodes[index] for index in self.indices(leaf)]

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation: the messages along `path`."""
        return tuple(node.message for node in self.path())

    def chain(self, leaf: int | None = None) -> list[str]:
        """A digest for each node of `path`: SHA-256 of its message, its tokens and of all that stands before it.

        A record only grows, so the digests up to a sampled turn stay what they were when it was taken, in the record
        and in every fork of it.
        """
        digest, found = hashlib.sha256(), []
        for node in self.path(leaf):
            digest.update(_encoded((node.message, node.tokens)))
            found.append(digest.hexdigest())
        return found

    def usage(self) -> Usage:
        """Tokens and cost of all model calls, plus what the tools cost."""
        usages = [call.usage for call in self.calls if call.usage]
        return Usage(
            sum(u.prompt_tokens for u in usages),
            sum(u.completion_tokens for u in usages),
            sum(u.cost for u in usages) + sum(run.cost for run in self.tool_runs),
        )

    def __repr__(self) -> str:
        ending = f"{self.stop_reason}, reward {self.reward}" if self.outcome else "being played"
        return f"<Trajectory of {self.task.id} by {self.policy.name}: {len(self.calls)} turns, {ending}>"

    def _repr_html_(self) -> str:
        """The conversation for notebooks: everything escaped, nothing loaded, the system prompt folded.

        Of pictures whose bytes this process holds, those of a message stand in one small row, frames under their times.
        """
        rows = []
        for message in self.messages:
            text = f"<pre style='white-space:pre-wrap;margin:0'>{escape(message.text or '(media)')}</pre>"
            text += _pictures_html(message)
            if message.role == "system":
                text = f"<details><summary>{len(message.text)} characters</summary>{text}</details>"
            rows.append(f"<tr style='text-align:left'><th>{escape(message.role)}</th><td>{text}</td></tr>")
        return f"<div><b>{escape(repr(self)[1:-1])}</b><table>{''.join(rows)}</table></div>"

    def to_json(self) -> bytes:
        """The record as one line of JSON, without a line end. Lone surrogates, which UTF-8 lacks, become U+FFFD."""
        return _encoded(self)

    @staticmethod
    def from_json(line: bytes | str) -> Trajectory:
        """Read a record back.

        Raises:
            StoreError: the line is not a record of a schema that this version reads.
        """
        try:
            record = _DECODER.decode(line)
        except msgspec.DecodeError as error:
            raise StoreError(f"not a trajectory record: {error}") from None
        if record.schema != SCHEMA:
            raise StoreError(f"record of schema {record.schema!r}; this version reads {SCHEMA!r}")
        return record


def _pictures_html(message: Message) -> str:
    """The pictures of a message as one row, in the page itself; how many there are, where they cannot be shown."""
    shown = [image for part in message.parts if isinstance(part, (Image, Video)) for image in _images(part)]
    if not shown:
        return ""
    from agentenv.media import contact_sheet, media_store

    name = f"{len(shown)} picture{'s' * (len(shown) != 1)}"
    try:
        data, _, _ = contact_sheet(shown, media_store().get, most=6, across=6, width=128)
    except AgentEnvError:
        return f"<div>({name})</div>"
    return f"<img alt='{name}' src='data:image/jpeg;base64,{base64.b64encode(data).decode()}'>"


def _images(part: Image | Video) -> tuple[Image, ...]:
    return part.images() if isinstance(part, Video) else (part,)


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Trajectory)
_RANDOM = random.SystemRandom()
_IDS = random.Random(_RANDOM.getrandbits(128))


def _encoded(value: Any) -> bytes:
    try:
        return _ENCODER.encode(value)
    except UnicodeEncodeError:
        return _ENCODER.encode(_without_surrogates(msgspec.to_builtins(value)))


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_surrogates(item) for item in value]
    return value


def new_id() -> str:
    """A 128-bit identifier in hex that sorts by creation time: 48 bits of milliseconds, 80 random bits."""
    return f"{time.time_ns() // 1_000_000:012x}{_IDS.getrandbits(80):020x}"


def recorded(task: Task) -> Task:
    """A task as records carry it: without its prompt (the nodes have it) and rows (tables are named by hash)."""
    if not task.tables:
        return msgspec.structs.replace(task, prompt=())
    return _recorded(_ById(task))


class _ById:
    """A task as a cache key, by identity: tasks hold dicts and cannot be hashed."""

    __slots__ = ("task",)

    def __init__(self, task: Task) -> None:
        self.task = task

    def __hash__(self) -> int:
        return id(self.task)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and other.task is self.task


@lru_cache(maxsize=64)
def _recorded(key: _ById) -> Task:
    tables = tuple(msgspec.structs.replace(table, rows=(), path="") for table in key.task.tables)
    return msgspec.structs.replace(key.task, prompt=(), tables=tables)


def error_info(error: BaseException) -> ErrorInfo:
    """An error as the record keeps it. Its traceback is kept only for bugs, where it helps."""
    if isinstance(error, InfrastructureError):
        permanent = bool(getattr(error, "permanent", False))
        return ErrorInfo(type(error).__name__, str(error)[:4000], permanent=permanent)
    return ErrorInfo(type(error).__name__, str(error)[:4000], "".join(traceback.format_exception(error))[-8000:])


def sampled(message: Message, parent: int, action: Action) -> Node:
    """The node of a turn that the policy wrote."""
    if action.token_ids is None:
        return Node(message, parent, "sampled")
    return Node(message, parent, "sampled", tokens=Tokens(action.token_ids, action.logprobs, version=action.version))


def tool_run(result: ToolResult, call_node: int, node: int, shown: bool, cut: int, neutralised: int) -> ToolRun:
    """The run of one call; its parts are left out where the message at `node` already shows just them."""
    return ToolRun(
        result.call_id,
        result.name,
        call_node,
        node,
        () if shown else result.parts,
        result.error_kind,
        result.seconds,
        result.cost,
        result.cache,
        result.bug,
        cut,
        neutralised,
        result.usage,
        result.data,
    )
