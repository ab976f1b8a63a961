"""Episodes as conversations that a trainer's chat template can render: every call and every result in its own place.

A text dialect writes calls into the assistant's text and results into user turns. Here they are taken apart again:
calls from the message's own list, results from the tool runs, and the visible text by the dialect that once read the
turn.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence
from functools import lru_cache

import msgspec
from msgspec import Struct

from agentenv.dialects import Dialect, Turn, make_dialect
from agentenv.errors import UsageError
from agentenv.spec import EnvSpec, Texts
from agentenv.trajectory import Node, ToolRun, Trajectory
from agentenv.types import Action, Image, Message, Part, Text, ToolCall, ToolSpec, Video

# What a turn may hold that its parts do not say again: text behind a forged result, an answer beside a call ...
_LOSSY = frozenset({
    "answer_with_call", "call_in_text", "control_text", "cut_answer", "forged_result", "native_call", "oversized",
    "several_answers", "too_many_calls",
})  # fmt: skip


class Said(Struct):
    """One message of a conversation.

    Args:
        role: system, user, assistant or tool.
        text: its text.
        reasoning: what the policy thought before it.
        calls: its calls, all of them readable.
        name: of a tool result, the tool.
        call_id: of a tool result, the call.
        parts: text, images and videos in their order, where there are any pictures; empty where all is text.
    """

    role: str
    text: str
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    name: str = ""
    call_id: str = ""
    parts: tuple[Part, ...] = ()


class UnfitError(Exception):
    """The episode cannot be put into this form; the text is the reason."""


def rendered(record: Trajectory) -> list[Said]:
    """The conversation in plain turns, with calls and results as the dialect wrote them.

    Raises:
        UnfitError: it holds calls that were made beside the text.
    """
    said = []
    for index in record.indices():
        message = record.nodes[index].message
        if message.role == "tool" or (message.calls and _native(record.env)):
            raise UnfitError("calls were made beside the text: only the structured mode can show them")
        beside = message.role == "assistant" and not _within(message.reasoning, message.text)
        said.append(_said(message.role, message.parts, message.reasoning if beside else ""))
    return said


def _native(spec: EnvSpec) -> bool:
    try:
        return _dialect(spec).native
    except UnfitError:
        return False


def _within(reasoning: str, text: str) -> bool:
    return all(line in text for line in reasoning.splitlines())


def structured(record: Trajectory, unreadable: str = "skip") -> tuple[list[Said], set[str]]:
    """The conversation with calls and results apart from the text, and the kinds of changes that were made to it.

    Args:
        record: the episode.
        unreadable: turns whose calls could not be read make the episode unfit ("skip"), or stay as their plain text,
            and what they were answered with as plain user turns ("text").

    Raises:
        UnfitError: it holds an unreadable turn, or a call in its middle that was never answered.
    """
    said: list[Said] = []
    changes: set[str] = set()
    steps = record.indices()
    runs = _runs(record, set(steps))
    shown = {run.node for members in runs.values() for run in members}
    dialect = _dialect(record.env)
    for index in steps:
        node = record.nodes[index]
        if node.message.role == "assistant":
            _unanswered(said)
            said += _turn(record, index, runs.get(index, ()), dialect, unreadable, changes)
        elif index in shown:
            said += [Said("user", notice) for notice in [_notice(node.message, record.env.texts)] if notice]
        elif node.message.role == "system" and node.origin == "env":
            said += [Said("system", record.env.system)] if record.env.system else []
        else:
            said.append(_said(node.message.role, node.message.parts))
    return said, changes


def one_call_a_turn(said: Sequence[Said]) -> list[Said]:
    """The conversation with a turn for each call, its result behind it. Text and reasoning stay with the first.

    A last turn whose calls were never run stays as it is.
    """
    single: list[Said] = []
    index = 0
    while index < len(said):
        message = said[index]
        results = said[index + 1 : index + 1 + len(message.calls)]
        whole = [result.call_id for result in results] == [call.id for call in message.calls]
        if len(message.calls) > 1 and whole:
            turns = [message, *(Said(message.role, "") for _ in results[1:])]
            for turn, call, result in zip(turns, message.calls, results, strict=True):
                single += [msgspec.structs.replace(turn, calls=(call,)), result]
        else:
            single += [message, *results]
        index += 1 + len(results)
    return single


def with_tools(said: Sequence[Said], tools: Sequence[ToolSpec]) -> list[Said]:
    """The conversation with the tools in its system message, to the letter as Qwen's chat templates put them there."""
    block, _, _how_to_answer = make_dialect("hermes", tools).instructions().rpartition("\n\n")
    first = said[0] if said and said[0].role == "system" else None
    head = f"{first.text}\n\n{block}" if first is not None else block
    return [Said("system", head), *said[first is not None :]]


def _runs(record: Trajectory, steps: set[int]) -> dict[int, list[ToolRun]]:
    runs: dict[int, list[ToolRun]] = {}
    for run in record.tool_runs:
        if run.node in steps and run.call_node in steps:
            runs.setdefault(run.call_node, []).append(run)
    return runs


def _unanswered(said: Sequence[Said]) -> None:
    """Refuse to go on after calls that have no result: no chat template expects that, and none would show it well."""
    answered = set()
    for message in reversed(said):
        if message.role == "assistant":
            # Ids are unique within a turn only: an engine may count from 0 again in the next one.
            if any(call.id not in answered for call in message.calls):
                raise UnfitError("a call in its middle has no result")
            return
        answered.add(message.call_id)


def _turn(
    record: Trajectory, index: int, runs: Sequence[ToolRun], dialect: Dialect, unreadable: str, changes: set[str]
) -> Iterator[Said]:
    node = record.nodes[index]
    turn = _read(record, index, dialect)
    if _is_unreadable(node.message, turn):
        if unreadable == "skip":
            raise UnfitError("a turn that could not be read as it stands")
        changes.add("unreadable turn kept as text")
        yield _said("assistant", node.message.parts, "" if not dialect.native else node.message.reasoning)
        shown = [record.nodes[place].message for place in sorted({run.node for run in runs})]
        yield from (_said("user", message.parts) for message in shown)
        return
    if "text_after_call" in turn.flags:
        changes.add("text after a call moved before it")
    yield Said("assistant", _content(node.message, turn, dialect), node.message.reasoning, node.message.calls)
    for run in runs:
        result = _said("tool", _result(record, run, dialect))
        yield msgspec.structs.replace(result, name=run.name, call_id=run.call_id)


def _read(record: Trajectory, index: int, dialect: Dialect) -> Turn:
    message = record.nodes[index].message
    if dialect.native:
        flags = next((call.flags for call in record.calls if call.node == index), ())
        return Turn(message.text, message.reasoning, message.calls, flags=flags)
    finish = next((call.finish_reason for call in record.calls if call.node == index), "stop")
    return dialect.parse(Action(message.text, finish_reason=finish))


def _is_unreadable(message: Message, turn: Turn) -> bool:
    return turn.error is not None or any(call.error for call in message.calls) or bool(_LOSSY & set(turn.flags))


def _content(message: Message, turn: Turn, dialect: Dialect) -> str:
    if dialect.native or turn.answer is None or turn.answer.strip() == turn.content.strip():
        return turn.content
    return "\n".join(piece for piece in (turn.content, turn.answer) if piece)


def _result(record: Trajectory, run: ToolRun, dialect: Dialect) -> tuple[Part, ...]:
    """What the tool gave, as the policy saw it, without the dialect's frame."""
    node: Node = record.nodes[run.node]
    if run.parts or (dialect.native and node.message.role == "user"):
        return run.parts if dialect.native else _apart(run.parts)
    notice = _notice(node.message, record.env.texts)
    return node.message.parts[:-1] if notice else node.message.parts


def _apart(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The parts of a result with texts in a row a line apart, as text dialects show them."""
    placed: list[Part] = []
    for part in parts:
        if placed and not isinstance(part, (Image, Video)) and not isinstance(placed[-1], (Image, Video)):
            placed.append(Text("\n"))
        placed.append(part)
    return tuple(placed)


def _notice(message: Message, texts: Texts) -> str:
    """What the environment said itself at the end of a message with results; empty where it said nothing."""
    last = message.parts[-1] if message.role == "user" and message.parts else None
    text = getattr(last, "text", "")
    if text.startswith("\n") and _notices(texts).fullmatch(text, 1):
        return str(text[1:])
    return ""


@lru_cache(maxsize=64)
def _pattern(templates: tuple[str, ...]) -> re.Pattern[str]:
    pieces = []
    for template in templates:
        fields = string.Formatter().parse(template)
        pieces.append("".join(re.escape(text) + (".*" if name is not None else "") for text, name, _, _ in fields))
    return re.compile("|".join(pieces), re.DOTALL)


def _notices(texts: Texts) -> re.Pattern[str]:
    return _pattern((texts.hint, texts.force, texts.invalid, texts.no_call))


def _said(role: str, parts: Sequence[Part], reasoning: str = "") -> Said:
    text = "".join(part.text for part in parts if not isinstance(part, (Image, Video)))
    shows = any(isinstance(part, (Image, Video)) for part in parts)
    return Said(role, text, reasoning, parts=tuple(parts) if shows else ())


_DIALECTS: dict[str, Dialect] = {}


def _dialect(spec: EnvSpec) -> Dialect:
    key = msgspec.json.encode((spec.dialect, spec.dialect_options, spec.tools), order="sorted").decode()
    if key not in _DIALECTS:
        try:
            _DIALECTS[key] = make_dialect(spec.dialect, spec.tools, **spec.dialect_options)
        except UsageError as error:
            raise UnfitError(f"its dialect cannot be made here: {error}") from None
    return _DIALECTS[key]
