"""What renders a conversation as token ids: the protocols, and messages in the form that chat templates take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from agentenv.errors import PolicyError
from agentenv.types import Image, MediaSpan, Message, Part, Table, Text, Tokens, ToolCall, ToolSpec, Video


class Eyes(Protocol):
    """What a model makes of media: which placeholder stands for one, and how many tokens it takes."""

    tokens: dict[str, int]
    """The placeholder's id by kind of medium."""

    def look(self, part: Image | Video) -> MediaSpan:
        """The medium as a span, its offset 0.

        Raises:
            PolicyError: the model cannot take it, or its bytes are not to be had.
        """
        ...

    def safe(self, text: str) -> str:
        """The text with the model's own placeholders made harmless, whoever wrote them."""
        ...


class Renderer(Protocol):
    """Renders conversations as collapsed token ids, append only."""

    eyes: Eyes | None
    """What the model makes of media; None where it takes none."""
    ends: frozenset[int]
    """Tokens that end a turn when a model samples them."""

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the ids, as records carry it."""
        ...

    def decoded(self, ids: Sequence[int]) -> str:
        """The text of sampled ids, without the token that ended the turn."""
        ...

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, native: bool) -> Tokens:
        """A whole conversation and the opening of the model's turn.

        Raises:
            PolicyError: it cannot be rendered.
        """
        ...

    def bridge(
        self, before: Sequence[int], sampled: int, new: Sequence[Message], tools: Sequence[ToolSpec], *, native: bool
    ) -> Tokens | str:
        """What follows sampled ids: the end of the turn where it was not sampled, the new messages, and the opening of
        the model's turn.

        Args:
            before: all ids so far.
            sampled: how many of them, at their end, are the last turn.
            new: the messages that followed.
            tools: of the observation.
            native: calls travel beside the text, and results in messages of role tool.

        Returns:
            The ids to append, or why it cannot be known what they are.

        Raises:
            PolicyError: the messages cannot be rendered.
        """
        ...


def chat(
    messages: Sequence[Message], *, native: bool, safe: Callable[[str], str] = str, lists: bool = False
) -> list[dict[str, Any]]:
    """Messages as chat templates take them.

    Args:
        messages: of a conversation.
        native: calls travel beside the text, and results in messages of role tool; otherwise results are user turns.
        safe: makes text harmless (see `Eyes.safe`).
        lists: the content of every message is a list, also where it is all text.
    """
    return [_message(message, native, safe, lists) for message in messages]


def media_of(messages: Sequence[Message]) -> list[Image | Video]:
    """The images and videos of a conversation, in order."""
    return [part for message in messages for part in message.parts if isinstance(part, (Image, Video))]


def opened(parts: Sequence[Part], video: Literal["frames", "video"]) -> tuple[Part, ...]:
    """Parts as a model is shown them: clips as their frames, or as videos.

    Raises:
        PolicyError: a video comes without frames.
    """
    shown: list[Part] = []
    for part in parts:
        if not isinstance(part, Video):
            shown.append(part)
            continue
        if not part.frames:
            name = part.handle or part.sha256[:12]
            raise PolicyError(f"the video {name} comes without frames; the environment chooses those (tools.video)")
        shown += part.as_frames() if video == "frames" else part.as_video()
    return tuple(shown)


def _message(message: Message, native: bool, safe: Callable[[str], str], lists: bool) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.role, "content": _content(message.parts, safe, lists)}
    if message.role == "tool":
        made |= {"tool_call_id": message.call_id, "name": message.name} if native else {"role": "user"}
    elif native and message.calls:
        made["tool_calls"] = [_call(call, safe) for call in message.calls]
    if native and message.role == "assistant" and message.reasoning:
        made["reasoning_content"] = safe(message.reasoning)
    return made


def _content(parts: Sequence[Part], safe: Callable[[str], str], lists: bool) -> str | list[dict[str, Any]]:
    if not lists and all(isinstance(part, (Text, Table)) for part in parts):
        return safe("".join(part.text for part in parts if isinstance(part, (Text, Table))))
    return [_item(part, safe) for part in parts or (Text(""),)]


def _item(part: Part, safe: Callable[[str], str]) -> dict[str, Any]:
    if isinstance(part, (Text, Table)):
        return {"type": "text", "text": safe(part.text)}
    return {"type": "image" if isinstance(part, Image) else "video"}


def _call(call: ToolCall, safe: Callable[[str], str]) -> dict[str, Any]:
    """A call with its arguments decoded, as templates want them; those that do not decode are wrapped in an object."""
    arguments = call.arguments if call.arguments is not None else {"invalid_arguments": call.arguments_raw}
    function = {"name": call.name, "arguments": _made_safe(arguments, safe)}
    return {"id": call.id, "type": "function", "function": function}


def _made_safe(value: Any, safe: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return safe(value)
    if isinstance(value, dict):
        return {safe(key): _made_safe(item, safe) for key, item in value.items()}
    return [_made_safe(item, safe) for item in value] if isinstance(value, (list, tuple)) else value
