"""What a chat template leaves out of a conversation.

Templates differ, and change by revision: some drop what a policy thought, some know no tools, some refuse two calls in
one turn, and none of them says so. Here a conversation is rendered with each of its texts replaced by a mark; a mark
that is not in the result is a text that a model would never be trained on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from agentenv.errors import MissingExtraError, UsageError
from agentenv.trajectories.formats.base import Row
from agentenv.trajectories.formats.conversation import UnfitError

LOSSES = {
    "reasoning": "left out on request, or by the chat template",
    "content": "the chat template leaves out what the policy says in some of its turns",
    "calls": "the chat template leaves out calls, or writes arguments that are JSON text as a quoted string",
    "results": "the chat template leaves out results of tools",
    "tools": "the chat template does not list the tools",
    "prompt": "the chat template leaves out a system or a user text",
    "images": "the chat template leaves out pictures",
    "order": "the chat template moves a text behind the message that followed it",
}
"""What a template can lose, by the name that reports and `allow_loss` use."""

_FRAME = re.compile(r"(<[\w|]+>\s*)?(.*?)(\s*</[\w|]+>)?", re.DOTALL)
_KINDS = {"assistant": "content", "tool": "results"}


class Mark(Struct, frozen=True):
    """A mark in place of a text: what kind of loss it would be, of which message (-1: the tools)."""

    text: str
    loss: str
    message: int


class Probe:
    """Renders conversations with one chat template, as transformers does, to see what is left of them.

    Args:
        source: the template: a Jinja file, or the folder of a tokenizer (or its tokenizer_config.json).

    Raises:
        UsageError: there is no template.
        MissingExtraError: transformers is not installed.
    """

    def __init__(self, source: str) -> None:
        self._template = _template(Path(source))
        self._render = _renderer()

    def losses(self, row: Row) -> set[str]:
        """What of a row's messages and tools is lost, by the names of `LOSSES`.

        Raises:
            UnfitError: the template refuses the conversation.
        """
        marking = _Marking()
        messages = [marking.message(index, message) for index, message in enumerate(row["messages"])]
        tools = [marking.tool(tool) for tool in row["tools"]]
        text = self._rendered(messages, tools)
        places = {mark: text.find(mark.text) for mark in marking.marks}
        found = {mark.loss for mark, place in places.items() if place < 0}
        if any(self._rendered(fewer, tools) == text for fewer in _one_picture_fewer(messages)):
            found.add("images")
        return found if _in_order(places) else {*found, "order"}

    def _rendered(self, messages: list[Row], tools: list[Row]) -> str:
        tokens = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "")
        try:
            texts, _ = self._render([messages], tools=tools or None, chat_template=self._template, **tokens)
        except Exception as error:  # whatever a template raises, or runs into
            raise UnfitError(f"the chat template refuses it: {str(error) or type(error).__name__}") from None
        return str(texts[0])


def _one_picture_fewer(messages: list[Row]) -> Iterator[list[Row]]:
    """The conversation without its first picture or video, without its second, and so on."""
    for index, message in enumerate(messages):
        parts = message["content"] if isinstance(message["content"], list) else []
        for place, part in enumerate(parts):
            if part["type"] != "text":
                less = {**message, "content": parts[:place] + parts[place + 1 :]}
                yield [*messages[:index], less, *messages[index + 1 :]]


class _Marking:
    """Replaces texts by marks, and keeps those in order."""

    def __init__(self) -> None:
        self.marks: list[Mark] = []

    def _mark(self, loss: str, message: int) -> str:
        self.marks.append(Mark(f"Zq{len(self.marks)}qZ", loss, message))
        return self.marks[-1].text

    def message(self, index: int, message: Row) -> Row:
        """A message with marks for its texts. The tags that frame a text stay, since templates look for them."""
        marked = dict(message)
        if message.get("reasoning_content"):
            marked["reasoning_content"] = self._mark("reasoning", index)
        if isinstance(message["content"], str):
            marked["content"] = self._text(message["content"], message["role"], index)
        else:
            marked["content"] = [self._part(part, message["role"], index) for part in message["content"]]
        if "tool_calls" in message:
            marked["tool_calls"] = [self._call(call, index) for call in message["tool_calls"]]
        return marked

    def _text(self, text: str, role: str, index: int) -> str:
        thought, ended, said = text.rpartition("</think>")
        return self._framed(thought, "reasoning", index) + ended + self._framed(said, _KINDS.get(role, "prompt"), index)

    def _part(self, part: Row, role: str, index: int) -> Row:
        if part["type"] != "text":
            return {"type": part["type"], part["type"]: ""}
        return {**part, "text": self._text(part["text"], role, index)}

    def _framed(self, text: str, loss: str, index: int) -> str:
        match = _FRAME.fullmatch(text)
        before, inner, after = match.groups(default="") if match else ("", text, "")
        return f"{before}{self._mark(loss, index)}{after}" if inner.strip() else text

    def _call(self, call: Row, index: int) -> Row:
        function = call["function"]
        keys = function["arguments"] if isinstance(function["arguments"], dict) else {"key": None}
        name, arguments = self._mark("calls", index), {key: self._mark("calls", index) for key in keys}
        if isinstance(function["arguments"], dict):
            return {**call, "function": {"name": name, "arguments": arguments}}
        text = json.dumps(arguments)
        self.marks.append(Mark(text, "calls", index))
        return {**call, "function": {"name": name, "arguments": text}}

    def tool(self, tool: Row) -> Row:
        """A tool with a mark for its description."""
        return {**tool, "function": {**tool["function"], "description": self._mark("tools", -1)}}


def _in_order(places: dict[Mark, int]) -> bool:
    """Whether what is left of each message stands behind all that is left of the one before it."""
    reached, last = -1, -1
    for message, first, final in _extents(places):
        if message > last and first < reached:
            return False
        reached, last = max(reached, final), message
    return True


def _extents(places: dict[Mark, int]) -> Iterator[tuple[int, int, int]]:
    extents: dict[int, list[int]] = {}
    for mark, place in places.items():
        if place >= 0 and mark.message >= 0:
            extents.setdefault(mark.message, []).append(place)
    yield from ((message, min(found), max(found)) for message, found in extents.items())


def _template(path: Path) -> str:
    if path.is_dir():
        jinja = path / "chat_template.jinja"
        path = jinja if jinja.is_file() else path / "tokenizer_config.json"
    try:
        text = path.read_text(encoding="utf-8")
        return _configured(json.loads(text)) if path.suffix == ".json" else text
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"no chat template in {path}: {type(error).__name__}: {error}") from None


def _configured(config: Any) -> str:
    template = config["chat_template"]
    named = template if isinstance(template, str) else {entry["name"]: entry["template"] for entry in template}
    return named if isinstance(named, str) else str(named["default"])


def _renderer() -> Callable[..., Any]:
    try:
        import jinja2  # noqa: F401 # transformers asks for it only when it renders
        from transformers.utils.chat_template_utils import render_jinja_template
    except ImportError:
        raise MissingExtraError("transformers", "local", "looking at a chat template") from None
    renderer: Callable[..., Any] = render_jinja_template
    return renderer
