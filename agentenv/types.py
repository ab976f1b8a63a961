"""The words that everything else speaks: parts, messages, calls, results, actions, observations.

All of it is frozen, plain data (msgspec structs): cheap to make, equal by value, written to JSON and read back without
loss. Being trees of plain data they can form no cycle, so they are kept out of the garbage collector's sight
(`gc=False`). Content is always a tuple of parts, never "a string or a list". Media stand here by reference; the bytes
live in `media`.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

from msgspec import Struct, field
from msgspec.structs import force_setattr

from agentenv.errors import UsageError
from agentenv.parts import Image, Part, Table, Text, Video, count_images, is_stamp, stamp

__all__ = [
    "Action",
    "Budget",
    "Image",
    "MediaSpan",
    "Message",
    "Observation",
    "Part",
    "ResetResult",
    "StepResult",
    "StopReason",
    "Table",
    "TableSource",
    "Task",
    "Text",
    "Tokens",
    "ToolCall",
    "ToolResult",
    "ToolSpec",
    "Usage",
    "Video",
    "count_images",
    "is_stamp",
    "stamp",
]

_PARTS = frozenset({Text, Image, Video, Table})


class ToolCall(Struct, frozen=True, gc=False, omit_defaults=True):
    """One tool call of a turn.

    `arguments_raw` is the exact text that the model wrote; `arguments` its decoded form, None where it could not be
    decoded, in which case `error` is a sentence that the model can read.
    """

    id: str
    name: str
    arguments_raw: str
    arguments: dict[str, Any] | None = None
    error: str | None = None


class Message(Struct, frozen=True, gc=False, omit_defaults=True):
    """One message of the conversation, as the policy sees it.

    Roles are system, user, assistant and tool. For an assistant turn, `parts` hold its visible content, `reasoning`
    what it thought, `calls` what it asked for, and `raw` the undecoded text from which these were read.
    """

    role: str
    parts: tuple[Part, ...]
    calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    raw: str | None = None
    name: str = ""
    call_id: str = ""

    @property
    def text(self) -> str:
        """All text of the message, media left out."""
        if len(self.parts) == 1:
            return getattr(self.parts[0], "text", "")
        return "".join(getattr(part, "text", "") for part in self.parts)


class ToolSpec(Struct, frozen=True, gc=False, omit_defaults=True):
    """What a policy is told of a tool: name, description and the JSON schema of its parameters."""

    name: str
    description: str
    parameters: dict[str, Any]
    version: str = "1"

    def openai(self) -> dict[str, Any]:
        """The tool in the shape that OpenAI-style APIs and chat templates take."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}


class ToolResult(Struct, frozen=True, gc=False, omit_defaults=True):
    """What one call came to: parts for the model, or an error text for the model with its kind.

    `usage` are the tokens of models that the tool asked itself; what they cost is part of `cost`. `data` is what the
    tool has to say for the record (JSON values only): the policy never sees it.
    """

    call_id: str
    name: str
    parts: tuple[Part, ...]
    error_kind: str | None = None
    seconds: float = 0.0
    cost: float = 0.0
    cache: str = ""
    bug: str | None = None  # the traceback of a broken tool: for the record, never for the model
    stop: bool = False  # the tool ends the episode
    usage: Usage | None = None
    data: dict[str, Any] | None = None


class Usage(Struct, frozen=True, gc=False, omit_defaults=True):
    """What a model call cost. Tokens as the engine counted them; cost in US dollars where prices are known."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


class MediaSpan(Struct, frozen=True, gc=False, omit_defaults=True):
    """Where a medium stands in token ids.

    Ids are kept collapsed: one placeholder a medium, `token` at `offset`. A forward pass needs them expanded: `length`
    tokens in its place, which are `run` where that is given and `token` repeated where it is not.

    Args:
        sha256: names the exact bytes.
        kind: "image" or "video".
        offset: index in the ids beside which this span stands.
        token: the placeholder's id.
        length: tokens of the medium when expanded; 0 where only the engine knows.
        grid: patches along (time, height, width) before merging, as the processor made them; empty where unknown.
        run: the expanded tokens, where they are more than the placeholder repeated (time stamps between frames, say).
    """

    sha256: str
    kind: str
    offset: int
    token: int
    length: int = 0
    grid: tuple[int, ...] = ()
    run: tuple[int, ...] = ()


class Tokens(Struct, frozen=True, gc=False, omit_defaults=True):
    """The tokens that one node of a record added to the stream, collapsed.

    For a sampled node they are what the model sampled, verbatim. For any other node they are what the policy's renderer
    appended since the turn before: all new messages up to the one that carries them, the end of the turn before where
    the model did not sample it, and the opening of the turn that follows.

    Args:
        ids: token ids, one placeholder a medium.
        logprobs: one for each id of a sampled node; None elsewhere, and where the engine gave none.
        exact: the engine was given, or gave, just these ids. False where they were computed later from text.
        media: where media stand in `ids`.
        version: which weights sampled them, as the engine calls them; empty where it does not say.
        fork: why the stream starts anew here, in a sentence; `ids` are then the whole prompt. Empty where they extend
            what came before.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None = None
    exact: bool = True
    media: tuple[MediaSpan, ...] = ()
    version: str = ""
    fork: str = ""


class Action(Struct, frozen=True, gc=False, omit_defaults=True):
    """One turn of a policy.

    `text` is what the model wrote. A policy that calls functions natively gives `calls` (and `text` is its content);
    otherwise calls are read out of `text` by the environment's dialect. Where the engine gave token ids they are the
    truth: `context` is what was appended to the stream before them, and `version` names the weights that sampled them.
    The finish reason is "stop", "length" (the turn was cut short) or "overflow" (the policy wrote nothing, since the
    last observation has no room in its model's context: the episode rolls it back and takes its token budget as spent).
    """

    text: str
    calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    finish_reason: str = "stop"
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    usage: Usage | None = None
    seconds: float = 0.0
    retries: int = 0
    context: Tokens | None = None
    version: str = ""


class Budget(Struct, frozen=True, gc=False, omit_defaults=True):
    """What is left to an episode; None where there is no limit. Seconds are wall-clock, tokens as counted so far."""

    turns: int | None = None
    calls: int | None = None
    images: int | None = None
    tokens: int | None = None
    seconds: float | None = None


class Observation(Struct, frozen=True, gc=False):
    """What a policy is given: the whole conversation so far, the tools it may call now, and what is left of its budget.

    `messages[new:]` are the messages that the last step added. `stop` are strings at which an engine should stop
    sampling. `dialect` and its options say how calls are written. `tokens` are those that the record has of each
    message (`Node.tokens`); empty where it has none at all.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    budget: Budget
    new: int = 0
    stop: tuple[str, ...] = ()
    dialect: str = ""
    dialect_options: dict[str, Any] = {}
    tokens: tuple[Tokens | None, ...] = ()

    def __repr__(self) -> str:
        last = self.messages[-1].text if self.messages else ""
        shown = last if len(last) <= 200 else f"{last[:197]}..."
        return f"<Observation: {len(self.messages)} messages, {len(self.tools)} tools, {self.budget}, last {shown!r}>"


class StopReason(str, Enum):
    """Why an episode ended: a closed list. `terminated` and `unscored` say what each means to a trainer."""

    ANSWER = "answer"  # the policy answered
    TOOL_STOP = "tool_stop"  # a tool ended the episode (a submit or terminate tool)
    NO_CALL = "no_call"  # neither a call nor an answer, and the environment takes that as the end
    INVALID = "invalid"  # too many turns that could not be read
    MAX_TURNS = "max_turns"
    MAX_CALLS = "max_calls"
    MAX_IMAGES = "max_images"
    MAX_TOKENS = "max_tokens"  # an observation would have overflowed and was rolled back, or the budget was spent
    MAX_SECONDS = "max_seconds"
    LENGTH = "length"  # the engine cut the last turn off and it held neither call nor answer
    CANCELLED = "cancelled"  # a person or the driver stopped it
    POLICY_ERROR = "policy_error"  # the model's engine failed
    ENV_ERROR = "env_error"  # the environment or its infrastructure failed

    @property
    def terminated(self) -> bool:
        """True where the episode came to an end of its own; every other ending is a truncation."""
        return self in _TERMINATED

    @property
    def unscored(self) -> bool:
        """True where the ending says nothing about the policy: the reward is None and `--resume` plays it again."""
        return self in _UNSCORED


_TERMINATED = frozenset({StopReason.ANSWER, StopReason.TOOL_STOP, StopReason.NO_CALL, StopReason.INVALID})
_UNSCORED = frozenset({StopReason.CANCELLED, StopReason.POLICY_ERROR, StopReason.ENV_ERROR})


class ResetResult(NamedTuple):
    """What `Env.reset` returns; unpacks like Gymnasium's pair."""

    observation: Observation
    info: dict[str, Any]


class StepResult(NamedTuple):
    """What `Env.step` returns; unpacks like Gymnasium's five."""

    observation: Observation
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


class TableSource(Struct, frozen=True, gc=False, omit_defaults=True):
    """A table that a task brings along: rows in memory, or a file that is opened when an episode first needs it.

    `sha256` identifies the content, so that all episodes of a group share one loaded copy. `types` are SQL type names
    (INTEGER, REAL, TEXT, BOOLEAN, DATE, TIMESTAMP), one a column, or empty to infer them.
    """

    name: str
    sha256: str
    columns: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    path: str = ""
    title: str = ""


class Task(Struct, frozen=True, gc=False, omit_defaults=True):
    """One immutable row of a task set.

    `prompt` is what the policy is asked (text and media); a string stands for one `Text`. `answer` is the reference
    answer, a list of strings where the answer is a set. `evidence` is whatever proves it (reference SQL, boxes, spans,
    rows) and lets `reference` play it.
    """

    id: str
    prompt: tuple[Part, ...]
    answer: Any = None
    evidence: dict[str, Any] = field(default_factory=dict)
    tables: tuple[TableSource, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        """Make a prompt of a string one of parts.

        Raises:
            UsageError: the id is no string, or the prompt no tuple of parts.
        """
        prompt: Any = self.prompt
        if type(self.id) is not str:
            raise UsageError(f"the id of a task must be a string, not {self.id!r:.60}")
        if type(prompt) is str:
            force_setattr(self, "prompt", (Text(prompt),))
        elif type(prompt) is not tuple:
            raise UsageError(f"the prompt of a task must be text or a tuple of parts, not {prompt!r:.60}")
        else:
            for part in prompt:
                if type(part) not in _PARTS:
                    raise UsageError(f"the prompt of a task must hold Text, Image, Video or Table, not {part!r:.60}")
