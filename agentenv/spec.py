"""The plain data that an environment is made of: limits, texts and the spec that every record carries."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from agentenv.errors import ConfigError, UnknownNameError, UsageError, did_you_mean
from agentenv.types import ToolSpec

S = TypeVar("S", bound=Struct)

AtLimit = Literal["stop", "force", "error", "mask"]
"""What happens when a budget is spent.

stop: the episode ends. force: tools are switched off and the policy gets one more turn to answer. error: the call gets
an error text and the episode goes on. mask: as stop, and the trajectory is marked to be left out of the loss.
"""


_Natural = Annotated[int, Meta(ge=0)]
_Positive = Annotated[int, Meta(ge=1)]


class Limits(Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """Budgets of an episode, and what happens when each is spent. None means no limit.

    Args:
        turns: turns of the policy.
        calls: tool calls in all.
        calls_per_turn: calls that are run of one turn; `extra_calls` says what becomes of the others.
        calls_per_tool: calls of a tool by its name; `failed_calls` says whether those that failed count.
        images: images that tools may return in all.
        observation_tokens: tokens that one tool result may have; a longer text is cut and says so.
        tokens: tokens of the whole conversation; an observation that would overflow it is rolled back.
        seconds: wall-clock time of the whole episode, model and tools together.
        invalid_turns: turns that could not be read and get another try, in a row.
        hint_turns: in the last so many turns the policy is told how many are left.
        extra_calls: of the calls above `calls_per_turn`: keep the "first" ones, the "last" ones, or answer the rest
            with an "error".
        failed_calls: towards `calls_per_tool` calls that ran and failed "count", or are "free".
        on_turns, on_calls, on_calls_per_tool, on_images, on_tokens, on_seconds: see `AtLimit`. With "spent" for calls
            the episode ends with the call that spends the budget, so without a turn to answer.
        no_call: a turn with neither call nor answer is the "answer", gets another try ("retry"), or is a "stop".
    """

    turns: _Positive | None = 10
    calls: _Natural | None = None
    calls_per_turn: _Positive | None = None
    calls_per_tool: dict[str, _Natural] = field(default_factory=dict)
    images: _Natural | None = None
    observation_tokens: _Positive | None = None
    tokens: _Positive | None = None
    seconds: Annotated[float, Meta(gt=0)] | None = None
    invalid_turns: _Natural = 1
    hint_turns: _Natural = 0
    extra_calls: Literal["first", "last", "error"] = "error"
    failed_calls: Literal["count", "free"] = "count"
    on_turns: Literal["stop", "force", "mask"] = "stop"
    on_calls: AtLimit | Literal["spent"] = "error"
    on_calls_per_tool: AtLimit = "error"
    on_images: AtLimit = "error"
    on_tokens: Literal["stop", "force", "mask"] = "stop"
    on_seconds: Literal["stop", "force", "mask"] = "stop"
    no_call: Literal["answer", "retry", "stop"] = "retry"


class Texts(Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """What the environment says to the policy outside tool results. Fields in braces are filled in.

    Args:
        hint: in the last `hint_turns` turns; {left} turns are left.
        force: the forced last turn, when {limit} is spent. Where it is empty, the last observation stands alone.
        invalid: a turn that could not be read; {error} says why.
        no_call: a turn with neither call nor answer.
        limit: the result of a call that a budget forbids; {limit} names it.
        cut: ends a tool result that was cut; {shown} and {total} are characters.
        unused: by tool, what is said in the turn before the last `hint_turns` ones if it gave no result so far.
        joint: what stands between a result and such a text behind it.
    """

    hint: str = "({left} turns left.)"
    force: str = "The limit on {limit} is reached and no tool can be called any more. Give your final answer now."
    invalid: str = "Your last turn could not be read: {error}"
    no_call: str = "Your last turn held neither a tool call nor an answer. Call a tool, or give your final answer."
    limit: str = "This call was not run: the limit on {limit} is reached."
    cut: str = "\n[cut: {shown} of {total} characters shown]"
    unused: dict[str, str] = field(default_factory=dict)
    joint: str = "\n"


class EnvSpec(Struct, frozen=True, gc=False, omit_defaults=True):
    """Everything that decides how an environment behaves, as plain data.

    It is written into every record with its hash. `entry_point` and `kwargs` rebuild the environment (`agentenv.make`
    does); the other fields say what they amounted to when the record was made.
    """

    id: str
    version: str
    entry_point: str = ""
    kwargs: dict[str, Any] = field(default_factory=dict)
    tools: tuple[ToolSpec, ...] = ()
    dialect: str = "hermes"
    dialect_options: dict[str, Any] = field(default_factory=dict)
    system: str = ""
    limits: Limits = Limits()
    texts: Texts = Texts()
    frame: str = ""
    rubric: tuple[dict[str, Any], ...] = ()
    tasks: str = ""
    passes: str = ""  # the component of the rubric that says whether an attempt passed; "" for the reward

    @property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical JSON of all fields."""
        return canonical_hash(self)[:16]


def settings(kind: type[S], value: S | Mapping[str, Any] | None, default: S) -> S:
    """A settings struct: as it is, or `default` with the fields that plain data (of a config file, say) name changed.

    Args:
        kind: the struct.
        value: a struct, which stands for itself as a whole; a mapping of fields; or None for `default`.
        default: where the fields come from that a mapping does not name.

    Raises:
        ConfigError: a field that does not exist (the nearest is named) or a value of the wrong type.
    """
    if not isinstance(value, Mapping):
        return default if value is None else value
    title = kind.__name__.lower()
    for name in value:
        if name not in kind.__struct_fields__:
            raise ConfigError(f"{title} has no field {name!r}{did_you_mean(name, kind.__struct_fields__)}")
    try:
        return msgspec.convert({**msgspec.structs.asdict(default), **value}, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{title}: {str(error).removeprefix(f'{title}: ')}") from None


def pairs(given: Iterable[str], what: str = "--option") -> dict[str, Any]:
    """`key=value` arguments as a dictionary; a value that is not TOML is taken as text, a dot in a key nests.

    >>> pairs(["level=3", "dialect=native", 'ids=["a", "b"]', "limits.turns=5"])
    {'level': 3, 'dialect': 'native', 'ids': ['a', 'b'], 'limits': {'turns': 5}}

    Raises:
        UsageError: an argument is not of this form, or a key comes twice.
    """
    found: dict[str, Any] = {}
    for item in given:
        key, equals, value = item.partition("=")
        *path, last = (step.strip().replace("-", "_") for step in key.split("."))
        if not equals or not all(step.isidentifier() for step in (*path, last)):
            raise UsageError(f"{what} {item!r}: write key=value, for instance dialect=native")
        inner = found
        for step in path:
            inner = inner.setdefault(step, {})
            if not isinstance(inner, dict):
                raise UsageError(f"{what} {item!r}: {step!r} has a value already")
        if last in inner:
            raise UsageError(f"{what} {key!r} is given twice")
        inner[last] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        read = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return read["value"] if len(read) == 1 else text


def canonical_hash(value: Any) -> str:
    """SHA-256, in hex, of the JSON of `value` with sorted keys."""
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


_FIELDS_OF = {
    "hint": ("left",),
    "force": ("limit",),
    "invalid": ("error",),
    "limit": ("limit",),
    "cut": ("shown", "total"),
}


def check_limits(limits: Limits, tools: Iterable[str] = ()) -> None:
    """Refuse limits that make no sense, before anything is played.

    Raises:
        ConfigError: a value has the wrong type, is too small or is none of the allowed words.
        UnknownNameError: `calls_per_tool` names none of the tools.
    """
    for part in msgspec.structs.fields(limits):
        try:
            msgspec.convert(getattr(limits, part.name), part.type)
        except msgspec.ValidationError as error:
            raise ConfigError(f"limits: {part.name}: {error}") from None
    for name in limits.calls_per_tool:
        if name not in tools:
            raise UnknownNameError("tool in limits.calls_per_tool", name, tools)


def check_mode(mode: str | None, modes: Sequence[str]) -> str | None:
    """The render mode, if there is such a one.

    Raises:
        UsageError: there is none.
    """
    if mode is not None and mode not in modes:
        raise UsageError(f"render_mode={mode!r}: it is {', '.join(modes)} or none")
    return mode


def check_texts(texts: Texts, tools: Iterable[str] = ()) -> None:
    """Refuse texts that cannot be filled in.

    Raises:
        ConfigError: a text holds a brace that is none of its fields.
        UnknownNameError: `unused` names none of the tools.
    """
    for name in texts.unused:
        if name not in tools:
            raise UnknownNameError("tool in texts.unused", name, tools)
    for name in texts.__struct_fields__:
        if name == "unused":
            continue
        fields = _FIELDS_OF.get(name, ())
        try:
            getattr(texts, name).format(**dict.fromkeys(fields, 1))
        except (KeyError, ValueError, IndexError) as error:
            known = ", ".join(f"{{{key}}}" for key in fields) or "no field"
            why = f"it may hold {known}, and any other brace is written twice ({type(error).__name__}: {error})"
            raise ConfigError(f"texts: {name}: {why}") from None
