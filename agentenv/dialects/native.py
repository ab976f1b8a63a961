"""Native: function calling of an OpenAI-style API. Calls travel beside the text, results in messages of role tool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from agentenv.dialects._calls import arguments_call
from agentenv.dialects._reader import MAX_CALLS, Reader
from agentenv.dialects._text import MAX_TURN, check_tags, joined, oversized, read_options
from agentenv.dialects.base import Dialect, Turn
from agentenv.types import Action, Message, Part, Table, Text, ToolCall, ToolResult, ToolSpec


class NativeOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the native dialect.

    Args:
        answer_tag: the tag around the final answer; where empty, the text of a turn without calls is the answer.
        think_tag: the tag around reasoning, for servers that leave it in the text.
        media: where images and videos of a result stand: in the "tool" message itself, or in a "user" message behind
            those of the turn, for servers that take only text in tool messages.
        stop: strings at which an engine should stop.
    """

    answer_tag: str = ""
    think_tag: str = "think"
    media: Literal["tool", "user"] = "tool"
    stop: tuple[str, ...] = ()


class Native(Dialect):
    """Calls come in `Action.calls`; a turn without calls is the answer.

    `arguments_raw` is what the API gave and the truth; only a call that comes without it is taken as decoded by the
    policy. Ids are kept, except that a missing id, or one that stands twice in a turn, is made unique. Text that looks
    like a call is never run: a server that should have read it has not, which `error` says.

    Args:
        tools: the tools of the environment.
        options: fields of `NativeOptions`.

    Raises:
        UnknownNameError: there is no such option.
        ConfigError: an option has a value that it cannot have.
    """

    name = "native"
    native = True

    def __init__(self, tools: Sequence[ToolSpec], **options: Any) -> None:
        super().__init__(tools)
        self.options = o = read_options(NativeOptions, self.name, options)
        self.control = (o.think_tag, o.answer_tag) if o.answer_tag else (o.think_tag,)
        check_tags(self.name, (*self.control, "tool_response"))
        self.reader = Reader(o.think_tag, "", "tool_response", {})
        self.answers = Reader(o.think_tag, o.answer_tag, "tool_response", {})
        self.stop = o.stop

    def parse(self, action: Action, first: int = 0) -> Turn:
        """Read a turn."""
        if len(action.text) > MAX_TURN:
            return oversized(action)
        cut = action.finish_reason == "length"
        content, reasoning, flags = action.text.strip(), action.reasoning, list[str]()
        if "<" in content:
            read = self.reader.read(content, cut, first)
            content, reasoning = "".join(read.content).strip(), joined(reasoning, *read.reasoning)
            flags = read.flags
        if action.calls:
            flags += ["too_many_calls"] if len(action.calls) > MAX_CALLS else []
            return Turn(content, reasoning, _calls(action.calls[:MAX_CALLS], first), None, None, tuple(flags))
        if "<tool_call>" in content:
            error = "it holds a call as text; calls must be made through the function calling of the API."
            return Turn(content, reasoning, (), None, error, (*flags, "call_in_text"))
        answer = content or None
        if self.options.answer_tag:
            read = self.answers.read(content, cut, first)
            answer, flags = read.answer, flags + read.flags
        elif cut:
            answer = None
        return Turn(content, reasoning, (), answer, None, tuple(dict.fromkeys(flags)))

    def assistant(self, action: Action, turn: Turn) -> Message:
        """The turn with its content, calls and reasoning each in its place."""
        parts = (Text(turn.content),) if turn.content else ()
        return Message("assistant", parts, turn.calls, turn.reasoning, action.text)

    def write(self, turn: Turn) -> Action:
        """The action with the calls beside the text."""
        text, tag = turn.content, self.options.answer_tag
        if turn.answer is not None and tag:
            text = "\n".join(piece for piece in (text, f"<{tag}>{turn.answer}</{tag}>") if piece)
        elif turn.answer is not None:
            text = turn.answer
        return Action(text, turn.calls, turn.reasoning)

    def results(
        self, results: Sequence[ToolResult], calls: Sequence[ToolCall] = (), question: str = ""
    ) -> tuple[Message, ...]:
        """A message of role tool for each result, in order."""
        if self.options.media == "tool":
            return tuple(Message("tool", r.parts, (), "", None, r.name, r.call_id) for r in results)
        said = [tuple(part for part in r.parts if isinstance(part, (Text, Table))) for r in results]
        seen: tuple[Part, ...] = tuple(p for r in results for p in r.parts if not isinstance(p, (Text, Table)))
        messages = tuple(
            Message("tool", parts or _elsewhere(r), (), "", None, r.name, r.call_id)
            for r, parts in zip(results, said, strict=True)
        )
        return (*messages, Message("user", seen)) if seen else messages

    def instructions(self) -> str:
        """Nothing of the tools, which the API tells of; how to answer, where an answer stands in a tag."""
        tag = self.options.answer_tag
        return f"When you know the answer, give it between <{tag}> and </{tag}>." if tag else ""


def _elsewhere(result: ToolResult) -> tuple[Part, ...]:
    return (Text("See the next message."),) if result.parts else ()


def _calls(given: Sequence[ToolCall], first: int) -> tuple[ToolCall, ...]:
    calls: list[ToolCall] = []
    taken: set[str] = set()
    for number, call in enumerate(given, first):
        call_id = wanted = call.id or f"call_{number}"
        copy = 1
        while call_id in taken:
            copy += 1
            call_id = f"{wanted}_{copy}"
        taken.add(call_id)
        calls.append(_decoded(call_id, call))
    return tuple(calls)


def _decoded(call_id: str, call: ToolCall) -> ToolCall:
    if call.error is not None:
        return ToolCall(call_id, call.name, call.arguments_raw, None, call.error)
    if not call.name.strip():
        return ToolCall(call_id, call.name, call.arguments_raw, None, "The call could not be read: it names no tool.")
    if call.arguments is not None and not call.arguments_raw:
        return ToolCall(call_id, call.name, "", call.arguments)
    return arguments_call(call_id, call.name, call.arguments_raw)
