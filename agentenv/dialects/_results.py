"""Results of tools, written into the parts of a message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agentenv.errors import ConfigError
from agentenv.types import Message, Part, Table, Text, ToolResult, is_stamp


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

    Raises:
        ConfigError: a form does not hold {} exactly once.
    """

    def __init__(self, dialect: str, tag: str, form: str, forms: dict[str, str], media: str) -> None:
        self.frame = Frame.of(form or f"<{tag}>\n{{}}\n</{tag}>", f"dialect {dialect}")
        self.frames = {tool: Frame.of(text, f"dialect {dialect}") for tool, text in forms.items()}
        self.media = media

    def messages(self, results: Sequence[ToolResult]) -> tuple[Message, ...]:
        """The message that shows `results`; none for none."""
        if len(results) == 1 and not self.frames:
            parts = results[0].parts
            if len(parts) == 1 and isinstance(parts[0], Text):
                return (Message("user", (Text(self.frame[0] + parts[0].text + self.frame[1]),)),)
        if not results:
            return ()
        frames = [self.frames.get(result.name, self.frame) for result in results]
        return (Message("user", framed([result.parts for result in results], frames, self.media)),)


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
