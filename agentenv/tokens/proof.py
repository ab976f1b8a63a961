"""Proving that a chat template only ever appends, with conversations whose every text is a mark.

A template may write what came before in another way once a message follows: thoughts are dropped from earlier turns, an
empty thinking block stands in the last turn only, results are joined with what follows. Whatever was sampled would then
not be what the model is shown next, and a suffix taken from one conversation would not fit another.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from agentenv.errors import ConfigError, PolicyError

Chat = list[dict[str, Any]]
"""Messages in the form that chat templates take."""

Write = Callable[..., str]
_MARK = "Zq{}qZ"
_SAID = _MARK.format("said")
_TOOL = {
    "type": "function",
    "function": {
        "name": "probe",
        "description": _MARK.format("tool"),
        "parameters": {"type": "object", "properties": {"value": {"type": "string"}}, "required": ["value"]},
    },
}


def stand_in(new: Chat) -> Chat:
    """A question and a turn after which `new` may come: with the calls that it answers first, or with text."""
    answered = list(itertools.takewhile(lambda message: message["role"] == "tool", new))
    calls = [_call(message["name"], message["tool_call_id"]) for message in answered]
    turn = _said("assistant", "", tool_calls=calls) if calls else _said("assistant", _SAID)
    return [_said("user", "?"), turn]


def kind_of(new: Chat) -> str:
    """What follows a turn: "tool" (one result), "tools" (several results) or "user" (anything with a user message)."""
    if not new or any(message["role"] != "tool" for message in new):
        return "user"
    return "tool" if len(new) == 1 else "tools"


class Turns:
    """Finds the end of a turn in what a template wrote.

    Args:
        write: writes a conversation with the template.
        ends: the texts of the tokens that end a turn.

    Attributes:
        close: what the template writes to end a turn.

    Raises:
        ConfigError: it writes nothing there that a model could sample, or leaves out what the model said.
    """

    def __init__(self, write: Write, ends: Sequence[str]) -> None:
        self.write, self.ends = write, ends
        last = self._tail(stand_in([]))
        followed = self._tail([*stand_in([]), _said("user", "?")])
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(last, followed, strict=False))
        self.close = self._closing("".join(char for char, _ in same), last, followed)

    def _tail(self, messages: Chat) -> str:
        try:
            text = self.write(messages)
        except PolicyError as error:
            raise ConfigError(f"{error}: give one that takes a plain conversation (chat_template=...)") from None
        if _SAID not in text:
            raise ConfigError(
                "the chat template leaves out what the model says, so no turn can follow another: give one that writes"
                " all messages (chat_template=...)"
            )
        return text[text.rindex(_SAID) + len(_SAID) :]

    def _closing(self, tail: str, last: str, followed: str) -> str:
        cut = self._end(tail, 0)
        close = tail[:cut] if cut >= 0 else tail[: tail.find(">") + 1] or tail.strip()
        if "<" in close and ">" not in close:
            first, then = (text[: text.find(">") + 1] for text in (last, followed))
            raise ConfigError(f"the chat template ends a turn with {first!r}, but with {then!r} once a message follows")
        if not close:
            raise ConfigError(
                "the chat template writes nothing at the end of a turn, so it cannot be told whether a turn has ended;"
                " the package 'renderers' knows some such models (renderer=...)"
            )
        return close

    def after(self, text: str) -> str | None:
        """What stands after the stand-in's turn, the end of the turn included; None where that is not found."""
        place = text.rfind(_SAID)
        if place < 0:
            return None
        place += len(_SAID)
        cut = place if text.startswith(self.close, place) else self._end(text, place, first=True)
        return None if cut < 0 else text[cut:]

    def _end(self, text: str, start: int, *, first: bool = False) -> int:
        """Where the first end token from `start` on ends, or (`first`) begins; -1 where there is none."""
        found = [(place, end) for end in self.ends if (place := text.find(end, start)) >= 0]
        if not found:
            return -1
        place, end = min(found)
        return place if first else place + len(end)

    def before(self, text: str) -> str:
        """What stands up to the last end of a turn, that included."""
        return text[: text.rfind(self.close) + len(self.close)] if self.close in text else ""


class Case(Struct, frozen=True):
    """A conversation that ends in a turn, and what follows it.

    Args:
        what: the turn, in words.
        context: the conversation up to it.
        follows: what follows, in words.
        new: the same as messages.
        shown: marks that must stand in the conversation up to the turn.
    """

    what: str
    context: Chat
    follows: str
    new: Chat
    shown: tuple[str, ...] = ()


Reasons = dict[tuple[bool, str], str]
"""Why no suffix is certain, by whether calls are native and by `kind_of`; empty where it is."""


def proven(write: Write, turns: Turns) -> Reasons:
    """What a template is proven for, and why not where it is not."""
    reasons: Reasons = {}
    suffixes: dict[str, tuple[str, str]] = {}
    for native in (False, True):
        tools = [_TOOL] if native else None
        for case in _cases(native):
            key = (native, kind_of(case.new))
            reasons[key] = reasons.get(key) or _broken(write, turns, case, tools, suffixes)
        suffixes.clear()
    for kind in ("tools", "user"):  # what cannot be done with one result cannot be done with more
        reasons[True, kind] = reasons[True, kind] or (reasons[True, "tool"] if kind == "tools" else "")
    return reasons


def _broken(
    write: Write,
    turns: Turns,
    case: Case,
    tools: list[dict[str, Any]] | None,
    suffixes: dict[str, tuple[str, str]],
) -> str:
    try:
        before = turns.before(write(case.context, tools))
        whole = write([*case.context, *case.new], tools, opened=True)
        taken = turns.after(write([*stand_in(case.new), *case.new], tools, opened=True))
    except PolicyError as error:
        return str(error)
    lost = [mark for mark in case.shown if mark not in before]
    if lost:
        what = (
            "leaves out the tools" if _MARK.format("tool") in lost else "leaves out calls, or ends no turn after them"
        )
        return f"the chat template {what}"
    if not whole.startswith(before):
        return f"the chat template writes {case.what} in another way once {case.follows} follows it"
    suffix = whole[len(before) :]
    places = [suffix.find(mark) for message in case.new for mark in _marks(message["content"])]
    if min(places) < 0:
        return f"the chat template leaves out {case.follows}"
    if places != sorted(places):
        return f"the chat template changes the order of {case.follows}"
    first, same = suffixes.setdefault(case.follows, (case.what, suffix))
    if same != suffix:
        return f"the chat template writes {case.follows} in another way after {case.what} than after {first}"
    if taken is None or not taken.endswith(suffix) or turns.before(taken[: len(taken) - len(suffix)]) == "":
        return f"the chat template does not end a turn before {case.follows}"
    return ""


def _marks(text: str) -> Iterator[str]:
    for piece in text.split("Zq")[1:]:
        yield "Zq" + piece.split("qZ")[0] + "qZ"


def _cases(native: bool) -> Iterator[Case]:
    for what, context, calls in _contexts(native):
        shown = (_MARK.format("tool"), *(call["function"]["arguments"]["value"] for call in calls)) if calls else ()
        for follows, new in _continuations(calls):
            yield Case(what, context, follows, new, shown)


def _contexts(native: bool) -> Iterator[tuple[str, Chat, list[dict[str, Any]]]]:
    asked = [_said("user", _MARK.format("asked"))]
    plain = _said("assistant", _MARK.format("plain"))
    thought = f"<think>\n{_MARK.format('thought')}\n</think>\n\n{_MARK.format('plain')}"
    yield "a turn of text", [*asked, plain], []
    yield "a later turn of text", [*asked, plain, _said("user", _MARK.format("more")), plain], []
    yield "a turn with thoughts", [*asked, _said("assistant", thought)], []
    yield "an empty turn", [*asked, _said("assistant", "")], []
    if not native:
        return
    one = [_call("probe", "call_0", _MARK.format("one"))]
    two = [*one, _call("probe", "call_1", _MARK.format("two"))]
    called, result = _said("assistant", "", tool_calls=one), _result(0, one[0])
    reasoned = _said("assistant", "", tool_calls=one, reasoning_content=_MARK.format("thought"))
    yield "a call", [*asked, called], one
    yield "a call with text", [*asked, _said("assistant", _MARK.format("plain"), tool_calls=one)], one
    yield "a later call", [*asked, called, result, called], one
    yield "a call with thoughts", [*asked, reasoned], one
    yield "two calls", [*asked, _said("assistant", "", tool_calls=two)], two


def _continuations(calls: list[dict[str, Any]]) -> Iterator[tuple[str, Chat]]:
    notice = _said("user", _MARK.format("notice"))
    if not calls:
        yield "a user message", [notice]
        wrapped = f"<tool_response>\n{_MARK.format('result')}\n</tool_response>"
        yield "a result in a user message", [_said("user", wrapped)]
        return
    results = [_result(number, call) for number, call in enumerate(calls)]
    what = "the result of a tool" if len(results) == 1 else f"the results of {len(results)} tools"
    yield what, results
    if len(results) == 1:
        yield f"{what} and a user message", [*results, notice]


def _call(name: str, call_id: str, value: str = _SAID) -> dict[str, Any]:
    function = {"name": name or "probe", "arguments": {"value": value}}
    return {"id": call_id or "call_0", "type": "function", "function": function}


def _result(number: int, call: dict[str, Any]) -> dict[str, Any]:
    return _said("tool", _MARK.format(f"result{number}"), name="probe", tool_call_id=call["id"])


def _said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}
