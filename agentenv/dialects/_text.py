"""What the dialects that write into text have in common: options, reasoning, answers and results."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypeVar

import msgspec
from msgspec import Struct

from agentenv.dialects._reader import Call, Reader
from agentenv.dialects._results import Frames
from agentenv.dialects.base import Dialect, Turn
from agentenv.dialects.neutral import neutralise
from agentenv.errors import ConfigError, UnknownNameError, UsageError
from agentenv.types import Action, Message, ToolCall, ToolResult, ToolSpec

MAX_TURN = 2_000_000
"""Characters that a turn may have; a longer one is recorded and not read."""

_TAG = re.compile(r"[A-Za-z][\w.:-]{0,63}")
_TAG_START = re.compile(r"<(?=[/|\uff5c]|[A-Za-z][\w.:-]*>)")
_Options = TypeVar("_Options", bound=Struct)


class TextOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of every dialect that writes into text.

    Args:
        answer: "tag": the answer stands in `answer_tag`. "text": a turn without calls is the answer.
        answer_tag: the tag around the final answer.
        think_tag: the tag around reasoning. A closing tag without an opening one ends reasoning that the chat template
            opened.
        both: of a turn that holds calls and an answer, which one counts. With "call" the turn has both: its calls are
            to be run, since the answer was given before their results were known, and the answer counts only where no
            call can be run any more. With "answer" the turn has no calls.
        result_tag: the tag around a result.
        result: how a result is written, with {} for its content; made of `result_tag` where empty. Here and in the two
            that follow, {action} is the number of the call, from 0, {next} one more, {observation} the number in the
            handle of the first image that the result shows, {call} the call as indented JSON, and {question} the
            task's question.
        results: the same for single tools, by tool name.
        error: the same for calls that failed, whichever the tool; as any other result where empty.
        quiet: a call that was not run since the turn held too many is not answered, where another one is.
        block: what the system prompt says of tools and answers, instead of the dialect's own; None keeps that.
        media: where images and videos of a result stand: "inline" (as the tool put them), "before" or "after" its text.
        stop: strings at which an engine should stop, instead of the dialect's own.
    """

    answer: Literal["tag", "text"] = "tag"
    answer_tag: str = "answer"
    think_tag: str = "think"
    both: Literal["call", "answer"] = "call"
    result_tag: str = "tool_response"
    result: str = ""
    results: dict[str, str] = {}
    error: str = ""
    quiet: bool = False
    block: str | None = None
    media: Literal["inline", "before", "after"] = "inline"
    stop: tuple[str, ...] | None = None


def read_options(kind: type[_Options], dialect: str, given: dict[str, Any]) -> _Options:
    """The options of a dialect, checked.

    Raises:
        UnknownNameError: there is no such option.
        ConfigError: an option has a value that it cannot have.
    """
    for name in given:
        if name not in kind.__struct_fields__:
            raise UnknownNameError(f"option of dialect {dialect}", name, kind.__struct_fields__)
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"options of dialect {dialect}: {error}") from None


def check_tags(dialect: str, tags: Sequence[str]) -> None:
    """Refuse names that cannot stand in a tag, and tags that mean two things.

    Raises:
        ConfigError: a name is malformed, or stands twice.
    """
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise ConfigError(f"dialect {dialect}: {tag!r} cannot be the name of a tag")
        if tags.count(tag) > 1:
            raise ConfigError(f"dialect {dialect}: the tag {tag!r} means two things")


class TextDialect(Dialect):
    """Base of the dialects that write calls into text between tags.

    A call in reasoning, behind a result that the model wrote itself, or behind the end of the model's turn is not run.
    A call or an answer whose closing tag is missing counts only at the very end of a turn that was not cut off, since
    engines strip the stop string; a call in JSON also in a turn that was cut off, if its JSON is complete.

    Args:
        tools: the tools of the environment.
        options: fields of `Options`.

    Raises:
        UnknownNameError: there is no such option.
        ConfigError: an option has a value that it cannot have.
    """

    Options: ClassVar[type[TextOptions]] = TextOptions
    complete: bool = True
    """True where a call shows by itself whether it is complete (JSON), False where any text could be one."""

    def __init__(self, tools: Sequence[ToolSpec], **options: Any) -> None:
        super().__init__(tools)
        self.options = self._read(options)
        self.call_tags = self._call_tags()
        o = self.options
        answers = (o.answer_tag,) if o.answer == "tag" else ()
        check_tags(self.name, (o.think_tag, o.result_tag, *answers, *self.call_tags))
        self.control = (o.think_tag, *answers, o.result_tag, *self.call_tags)
        self.reader = Reader(o.think_tag, o.answer_tag if answers else "", o.result_tag, self._calls())
        self.frames = Frames(self.name, o.result_tag, o.result, o.results, o.media, o.error, o.quiet)
        self.stop = self._stop() if o.stop is None else o.stop

    def _read(self, options: dict[str, Any]) -> Any:
        return read_options(self.Options, self.name, options)

    def _call_tags(self) -> tuple[str, ...]:
        """Names of the tags that hold a call."""
        return ()

    def _calls(self) -> dict[str, Call]:
        """What opens a call, and how that call is told and closed."""
        return {f"<{tag}>": Call(tag, f"</{tag}>") for tag in self.call_tags}

    def _stop(self) -> tuple[str, ...]:
        return ()

    def read_call(self, tag: str, call_id: str, body: str) -> ToolCall:
        """The call that stands in `body`, between `tag`."""
        raise NotImplementedError

    def called(self, tag: str, body: str) -> str:
        """Name of the tool that an unfinished call seems to mean, empty where that cannot be told."""
        return ""

    def write_call(self, call: ToolCall) -> str:
        """The call with its tag, as the dialect writes it."""
        raise NotImplementedError

    def parse(self, action: Action, first: int = 0) -> Turn:
        """Read a turn; see the class for what is run of it."""
        if len(action.text) > MAX_TURN:
            return oversized(action)
        read = self.reader.read(action.text, action.finish_reason == "length", first, self)
        calls = tuple(read.calls)
        content = "".join(read.content).strip()
        answer = read.answer
        if answer is not None and calls:
            read.flags.append("answer_with_call")
            calls = () if self.options.both == "answer" else calls
        if self.options.answer == "text" and not calls and content and action.finish_reason != "length":
            answer = content
        reasoning = joined(action.reasoning, *read.reasoning)
        turn = Turn(content, reasoning, calls, answer, None, tuple(read.flags))
        return beside(turn) if action.calls and not calls and answer is None else turn

    def write(self, turn: Turn) -> Action:
        """The canonical text of `turn`: reasoning, content, calls, answer."""
        o = self.options
        pieces = [f"<{o.think_tag}>\n{turn.reasoning}\n</{o.think_tag}>\n"] if turn.reasoning else []
        pieces += [turn.content] if turn.content else []
        pieces += [self.write_call(call) for call in turn.calls]
        if turn.answer is not None and o.answer == "tag":
            pieces.append(f"<{o.answer_tag}>{turn.answer}</{o.answer_tag}>")
        elif turn.answer is not None and turn.answer != turn.content:
            pieces.append(turn.answer)
        return Action("\n".join(pieces))

    def results(
        self, results: Sequence[ToolResult], calls: Sequence[ToolCall] = (), question: str = ""
    ) -> tuple[Message, ...]:
        """One user message with all results of a turn, in order."""
        if not self.frames.repeats:
            return self.frames.messages(results)
        told = {call.id: json_text({"name": call.name, "arguments": call.arguments}, indent=2) for call in calls}
        return self.frames.messages(results, told, neutralise(question, self.control)[0])

    def instructions(self) -> str:
        """The dialect's block, or the one that was given."""
        block: str | None = self.options.block
        return self._instructions() if block is None else block

    def _instructions(self) -> str:
        """How the dialect itself tells of tools and answers."""
        return self.how_to_answer()

    def how_to_answer(self) -> str:
        """The sentence of the instructions that says how to answer."""
        if self.options.answer == "text":
            return "When you know the answer, give it in a turn without any call."
        return (
            f"When you know the answer, give it between <{self.options.answer_tag}> and </{self.options.answer_tag}>."
        )


def joined(*pieces: str) -> str:
    """Pieces of reasoning, without outer white space, a line apart."""
    return "\n".join(stripped for piece in pieces if (stripped := piece.strip()))


def oversized(action: Action) -> Turn:
    """What a turn says that is too long to be read."""
    size = len(action.text)
    error = f"it has {size} characters, of which {MAX_TURN} are allowed."
    return Turn("", action.reasoning, (), None, error, ("oversized",))


def beside(turn: Turn) -> Turn:
    """`turn`, whose calls came beside its text although the dialect writes them into the text."""
    error = "calls must be written into the text here, and yours came beside it."
    return msgspec.structs.replace(turn, error=error, flags=(*turn.flags, "native_call"))


def writable(call: ToolCall) -> dict[str, Any]:
    """The arguments of a call that is to be written.

    Raises:
        UsageError: the call has none, so it could not be read back.
    """
    if call.arguments is None:
        raise UsageError(f"a call of {call.name!r} without arguments cannot be written: {call.error}")
    return call.arguments


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON as chat templates write it; a "<" that would begin a tag is escaped, so that it cannot end the call.

    Raises:
        UsageError: the value is not JSON (a NaN, an object of an unknown kind).
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"arguments that are not JSON cannot be written: {error}") from None
    return _TAG_START.sub(r"\\u003c", text)
