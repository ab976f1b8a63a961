"""Hermes: calls as JSON between `<tool_call>` tags, the form of the Qwen models and of most systems built on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agentenv.dialects._calls import json_call, name_in
from agentenv.dialects._text import TextDialect, json_text, writable
from agentenv.dialects.base import Turn
from agentenv.types import Action, ToolCall, ToolSpec

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_DIGITS = tuple(f"call_{n}" for n in range(256))


class Hermes(TextDialect):
    """Calls as `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, any number in a turn.

    Results come back as one user message with a `<tool_response>` for each call. Reasoning stands in `<think>`, the
    answer in `<answer>`; see `TextOptions` for what can be set.

    Args:
        tools: the tools of the environment.
        options: fields of `TextOptions`.
    """

    name = "hermes"

    def __init__(self, tools: Sequence[ToolSpec], **options: Any) -> None:
        super().__init__(tools, **options)
        self._think = f"<{self.options.think_tag}>"
        self._thought = f"</{self.options.think_tag}>"
        self._answer, self._answered = f"<{self.options.answer_tag}>", f"</{self.options.answer_tag}>"

    def _call_tags(self) -> tuple[str, ...]:
        return ("tool_call",)

    def parse(self, action: Action, first: int = 0) -> Turn:
        """Read a turn. One call, with or without reasoning before it and without any other tag, takes the short way,
        and so does an answer alone.
        """
        text = action.text
        start = text.find(_OPEN)
        if start < 0:
            return self._bare_answer(action) or super().parse(action, first)
        tags = text.count("<")
        reasoning, begin = action.reasoning.strip(), 0
        if tags == 4 and text.startswith(self._think) and not reasoning:
            begin = text.find(self._thought, 0, start)
            reasoning = text[len(self._think) : begin].strip()
            begin += len(self._thought)
            tags = 2 if begin >= len(self._think) + len(self._thought) else 0
        end = text.find(_CLOSE, start)
        if tags != 2 or end < 0 or len(text) > 100_000:
            return super().parse(action, first)
        call = json_call(_DIGITS[first] if first < 256 else f"call_{first}", text[start + 11 : end])
        content = text[begin:start].strip() if start > begin else ""
        if end + 12 < len(text) and (after := text[end + 12 :]).strip():
            content = (text[begin:start] + after).strip()
            return Turn(content, reasoning, (call,), None, None, ("text_after_call",))
        return Turn(content, reasoning, (call,))

    def _bare_answer(self, action: Action) -> Turn | None:
        """The turn of a text that is an answer in its tags and holds no other tag; None for any other text."""
        text = action.text
        if not text.startswith(self._answer) or not text.endswith(self._answered) or text.count("<") != 2:
            return None
        if self.options.answer != "tag" or len(text) > 100_000:
            return None
        return Turn("", action.reasoning.strip(), (), text[len(self._answer) : -len(self._answered)].strip())

    def read_call(self, tag: str, call_id: str, body: str) -> ToolCall:
        """The call that stands in `body`."""
        return json_call(call_id, body)

    def called(self, tag: str, body: str) -> str:
        """The name that an unfinished call gives."""
        return name_in(body)

    def write_call(self, call: ToolCall) -> str:
        """The call as the chat templates of the Qwen models write it."""
        name = json.dumps(call.name, ensure_ascii=False)
        return f'{_OPEN}\n{{"name": {name}, "arguments": {json_text(writable(call))}}}\n{_CLOSE}'

    def _instructions(self) -> str:
        """The block that the Qwen chat templates put at the end of the system prompt, and how to answer."""
        if not self.tools:
            return self.how_to_answer()
        signatures = "\n".join(json.dumps(tool.openai(), ensure_ascii=False) for tool in self.tools)
        return (
            "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
            "You are provided with function signatures within <tools></tools> XML tags:\n"
            f"<tools>\n{signatures}\n</tools>\n\n"
            "For each function call, return a json object with function name and arguments within "
            "<tool_call></tool_call> XML tags:\n"
            '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>\n\n'
            + self.how_to_answer()
        )
