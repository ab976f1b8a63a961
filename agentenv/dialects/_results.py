"""Results of tools, written into the parts of a message."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from agentenv.errors import ConfigError
from agentenv.types import Image, Message, Part, Table, Text, ToolResult, is_stamp

_FIELD = re.compile(r"\{(?:action|next|observation|call|question)\}")
_NONE: Mapping[str, str] = {}
_LAST_DIGITS = re.compile(r"(\d+)\Z")


class Frame(NamedTuple):
    """What stands before and after a result."""

    before: str
    after: str

    @classmethod
    def of(cls, text: str, what: str) -> Frame:
        """The frame that `text` writes, with {} for the result.

        Raises:
            ConfigError: the text does not hold {} exactly once.
        """
        before, found, after = text.partition("{}")
        if not found or "{}" in after:
            raise ConfigError(f"{what}: the form of a result must hold {{}} once, and {text!r} does not")
        return cls(before, after)


class Frames:
    """How the results of a turn are written into one user message.

    Args:
        dialect: name of the dialect, for error messages.
        tag: the tag around a result.
        form: how a result is written, with {} for its content; made of `tag` where empty.
        forms: the same for single tools, by tool name.
        media: "inline", "before" or "after" the text of the result.
        error: the form of failed calls; that of any other result where empty.
        quiet: calls that were not run since the turn held too many are not answered, where another one is.

    Forms may hold numbers, the call and the question; see `TextOptions.result`.

    Raises:
        ConfigError: a form does not hold {} exactly once.
    """

    def __init__(
        self,
        dialect: str,
        tag: str,
        form: str,
        forms: dict[str, str],
        media: str,
        error: str = "",
        quiet: bool = False,
    ) -> None:
        self.frame = Frame.of(form or f"<{tag}>\n{{}}\n</{tag}>", f"dialect {dialect}")
        self.frames = {tool: Frame.of(text, f"dialect {dialect}") for tool, text in forms.items()}
        self.error = Frame.of(error, f"dialect {dialect}") if error else None
        self.media, self.quiet = media, quiet
        self._plain = not forms and not error and not _FIELD.search(form)
        written = "".join((form, error, *forms.values()))
        self.repeats = "{call}" in written or "{question}" in written

    def messages(
        self, results: Sequence[ToolResult], calls: Mapping[str, str] = _NONE, question: str = ""
    ) -> tuple[Message, ...]:
        """The message that shows `results`; none for none. `calls` are the calls as text by their ids."""
        if len(results) == 1 and self._plain:
            parts = results[0].parts
            if len(parts) == 1 and isinstance(parts[0], Text):
                return (Message("user", (Text(self.frame[0] + parts[0].text + self.frame[1]),)),)
        if self.quiet:
            results = [result for result in results if result.error_kind != "limit"] or results
        if not results:
            return ()
        told = [self._told(result, calls.get(result.call_id, ""), question) for result in results]
        return (Message("user", framed([parts for parts, _ in told], [frame for _, frame in told], self.media)),)

    def _told(self, result: ToolResult, call: str, question: str) -> tuple[tuple[Part, ...], Frame]:
        failed = self.error if result.error_kind is not None else None
        frame = failed or self.frames.get(result.name, self.frame)
        if not self._plain:
            frame = Frame(*(_filled(text, result, call, question) for text in frame))
        if failed and frame.after.startswith("."):  # the form brings the full stop
            return tuple(_unstopped(part) for part in result.parts), frame
        return result.parts, frame


def _filled(text: str, result: ToolResult, call: str, question: str) -> str:
    number = _LAST_DIGITS.search(result.call_id)
    action = int(number[1]) if number else 0
    handle = next((part.handle for part in result.parts if isinstance(part, Image)), "")
    seen = _LAST_DIGITS.search(handle)
    fields = {"{action}": str(action), "{next}": str(action + 1), "{observation}": seen[1] if seen else ""}
    fields |= {"{call}": call, "{question}": question}
    return _FIELD.sub(lambda found: fields[found[0]], text)


def _unstopped(part: Part) -> Part:
    return replace(part, text=part.text.rstrip(".")) if isinstance(part, Text) else part


def framed(results: Sequence[tuple[Part, ...]], frames: Sequence[Frame], media: str) -> tuple[Part, ...]:
    """The parts of all results, each in its frame, a line apart; neighbouring texts become one part."""
    flat: list[Part | str] = []
    for number, (parts, frame) in enumerate(zip(results, frames, strict=True)):
        flat += ["\n" if number else "", frame.before, *_placed(parts, media), frame.after]
    return _merged(flat)


def _placed(parts: tuple[Part, ...], media: str) -> list[Part | str]:
    """The parts with tables as text and media where they belong, the times of frames with them.

    Two texts in a row stand a line apart.
    """
    if media != "inline":
        said = [part for part in parts if isinstance(part, (Text, Table)) and not is_stamp(part.text)]
        seen = [part for part in parts if not isinstance(part, (Text, Table)) or is_stamp(part.text)]
        parts = (*seen, *said) if media == "before" else (*said, *seen)
    placed: list[Part | str] = []
    for part in parts:
        if not isinstance(part, (Text, Table)):
            placed.append(part)
            continue
        if placed and isinstance(placed[-1], str):
            placed.append("\n")
        placed.append(part.text)
    return placed


def _merged(flat: Sequence[Part | str]) -> tuple[Part, ...]:
    merged: list[Part] = []
    texts: list[str] = []
    for item in flat:
        if isinstance(item, str):
            texts.append(item)
            continue
        if text := "".join(texts):
            merged.append(Text(text))
        texts.clear()
        merged.append(item)
    if text := "".join(texts):
        merged.append(Text(text))
    return tuple(merged)
