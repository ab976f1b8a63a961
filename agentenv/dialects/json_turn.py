"""JSON turn: the whole turn is one JSON object, `{"thought": ..., "actions": [{"name": ..., "arguments": {...}}]}`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from agentenv.dialects._calls import SHAPE, NotReadError, json_call, read_fields
from agentenv.dialects._reader import MAX_CALLS, border_flags, without_ends
from agentenv.dialects._results import Frames
from agentenv.dialects._text import MAX_TURN, beside, check_tags, joined, json_text, oversized, read_options, writable
from agentenv.dialects.base import Dialect, Turn
from agentenv.types import Action, Message, ToolCall, ToolResult, ToolSpec

_ACTIONS: msgspec.json.Decoder[list[Raw]] = msgspec.json.Decoder(list[Raw])


class JsonTurnOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the JSON turn dialect.

    Args:
        thought: the key of the reasoning.
        actions: the key of the calls.
        terminate: the name of the action that gives the answer.
        ans: the argument of that action that is the answer.
        both: of a turn that holds calls and an answer, which one counts; see `TextOptions`.
        result_tag, result, results, media, stop: see `TextOptions`.
    """

    thought: str = "thought"
    actions: str = "actions"
    terminate: str = "Terminate"
    ans: str = "ans"
    both: Literal["call", "answer"] = "call"
    result_tag: str = "observation"
    result: str = ""
    results: dict[str, str] = {}
    media: Literal["inline", "before", "after"] = "inline"
    stop: tuple[str, ...] = ()


class JsonTurn(Dialect):
    """The turn as one JSON object, bare or in a fence; anything before or after it makes the turn unreadable.

    An action called `Terminate` gives the answer: `{"name": "Terminate", "arguments": {"ans": ...}}`. An answer that is
    not a string is taken as its JSON text.

    Args:
        tools: the tools of the environment.
        options: fields of `JsonTurnOptions`.

    Raises:
        UnknownNameError: there is no such option.
        ConfigError: an option has a value that it cannot have.
    """

    name = "json_turn"

    def __init__(self, tools: Sequence[ToolSpec], **options: Any) -> None:
        super().__init__(tools)
        self.options = o = read_options(JsonTurnOptions, self.name, options)
        check_tags(self.name, (o.result_tag,))
        self.control = (o.result_tag,)
        self.frames = Frames(self.name, o.result_tag, o.result, o.results, o.media)
        self.stop = o.stop

    def parse(self, action: Action, first: int = 0) -> Turn:
        """Read a turn; one that is not a JSON object of the right shape has `error` set and runs nothing."""
        if len(action.text) > MAX_TURN:
            return oversized(action)
        try:
            turn = self._read(_unfenced(without_ends(action.text)), action, first)
        except NotReadError as error:
            flags = border_flags(action.text, self.options.result_tag)
            turn = Turn("", action.reasoning, (), None, f"{error}. {self._shape()}", flags)
        return beside(turn) if action.calls and not turn.calls and turn.answer is None else turn

    def _read(self, text: str, action: Action, first: int) -> Turn:
        fields = read_fields(text, MAX_TURN)
        thought = _text_of(fields.get(self.options.thought))
        try:
            items = _ACTIONS.decode(fields.get(self.options.actions, b"[]"))
        except msgspec.MsgspecError:
            raise NotReadError(f'"{self.options.actions}" must be a list of {SHAPE}') from None
        flags = ["too_many_calls"] if len(items) > MAX_CALLS else []
        calls: list[ToolCall] = []
        answers: list[str] = []
        for item in items[:MAX_CALLS]:
            call = json_call(f"call_{first + len(calls)}", bytes(item).decode())
            ends = call.name == self.options.terminate and call.error is None
            calls += self._terminate(call, answers) if ends else [call]
        flags += ["several_answers"] if len(answers) > 1 else []
        answer = answers[-1] if answers else None
        if answer is not None and calls:
            flags.append("answer_with_call")
            calls = [] if self.options.both == "answer" else calls
        return Turn("", joined(action.reasoning, thought), tuple(calls), answer, None, tuple(flags))

    def _terminate(self, call: ToolCall, answers: list[str]) -> list[ToolCall]:
        """Take the answer out of the action that gives it; the call with an error where it gives none."""
        arguments = call.arguments or {}
        if self.options.ans not in arguments:
            error = f'{call.name} needs the argument "{self.options.ans}", which is the answer.'
            return [ToolCall(call.id, call.name, call.arguments_raw, None, error)]
        value = arguments[self.options.ans]
        answers.append(value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        return []

    def write(self, turn: Turn) -> Action:
        """The turn as one JSON object. `content` has no place in it."""
        actions = [{"name": call.name, "arguments": writable(call)} for call in turn.calls]
        if turn.answer is not None:
            actions += [{"name": self.options.terminate, "arguments": {self.options.ans: turn.answer}}]
        return Action(json_text({self.options.thought: turn.reasoning, self.options.actions: actions}))

    def results(
        self, results: Sequence[ToolResult], calls: Sequence[ToolCall] = (), question: str = ""
    ) -> tuple[Message, ...]:
        """One user message with all results of a turn, in order."""
        return self.frames.messages(results)

    def instructions(self) -> str:
        """The shape of a turn, the tools, and how to answer."""
        o = self.options
        tools = "\n".join(json.dumps(tool.openai()["function"], ensure_ascii=False) for tool in self.tools)
        end = f'{{"name": "{o.terminate}", "arguments": {{"{o.ans}": <answer>}}}}'
        actions = f"These are the actions that you can name:\n{tools}\n\n" if tools else ""
        return f"{self._shape()}\n\n{actions}When you know the answer, give it as your only action: {end}"

    def _shape(self) -> str:
        turn = f'{{"{self.options.thought}": "...", "{self.options.actions}": [{SHAPE}, ...]}}'
        return f"Write your whole turn as one JSON object: {turn}"


def _text_of(raw: Raw | None) -> str:
    """A JSON string's text; any other JSON as it stands."""
    if raw is None:
        return ""
    try:
        return msgspec.json.decode(raw, type=str)
    except (msgspec.MsgspecError, ValueError):
        return bytes(raw).decode()


def _unfenced(text: str) -> str:
    text = text.strip()
    for fence in ("```json", "```"):
        if text.startswith(fence) and text.endswith("```") and len(text) >= len(fence) + 3:
            return text[len(fence) : -3].strip()
    return text
