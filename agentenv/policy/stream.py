"""Reading an answer while it is made: server-sent events of chat completion chunks, put together to one choice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import aiohttp
import msgspec

from agentenv.errors import PolicyError
from agentenv.policy.http import LARGEST, TransientError, decoded, said


async def read_stream(
    answer: aiohttp.ClientResponse, on_delta: Callable[[str], None] | None, clean: Callable[[str], str]
) -> dict[str, Any]:
    """The choice that the chunks add up to, in the shape of an answer that was not streamed, with `usage` beside.

    Args:
        answer: the open response.
        on_delta: called with each piece of visible text.
        clean: makes a server's text fit to be shown.

    Raises:
        TransientError: the stream broke before anything was shown.
        PolicyError: it broke later: another try would show the text twice.
    """
    choice = _Choice(on_delta)
    try:
        async for data in _events(answer):
            try:
                choice.add(data, clean)
            except (TypeError, AttributeError, KeyError):  # a list where there should be an object, and so on
                raise TransientError("a piece of the stream is no piece of an answer") from None
    except (TransientError, aiohttp.ClientError, TimeoutError, OSError) as error:
        if choice.shown:
            raise PolicyError(f"the stream broke off: {clean(str(error) or type(error).__name__)}") from None
        raise
    if choice.finish is None:
        broken = "the stream ended before the turn did"
        raise PolicyError(broken) if choice.shown else TransientError(broken)
    return choice.whole()


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    """The decoded `data:` lines up to [DONE]. Lines are cut here: aiohttp's own reader refuses long ones."""
    rest, size = b"", 0
    async for chunk in answer.content.iter_any():
        size += len(chunk)
        if size > LARGEST:
            raise PolicyError(f"the server's answer is longer than {LARGEST // 2**20} MiB")
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            data = line.strip().removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
            if data == b"[DONE]":
                return
            if data:
                yield _decoded(data)


def _decoded(data: bytes) -> Any:
    try:
        return decoded(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise TransientError(f"a piece of the stream is not JSON ({error})") from None


class _Choice:
    """The first choice of a stream, growing."""

    def __init__(self, on_delta: Callable[[str], None] | None) -> None:
        self.on_delta, self.shown = on_delta, False
        self.finish: str | None = None
        self.stop_reason: Any = None
        self.usage: Any = None
        self.text: list[str] = []
        self.reasoning: dict[str, list[str]] = {}
        self.calls: dict[int, dict[str, Any]] = {}
        self.ids: list[Any] = []
        self.prompt: Any = None
        self.logprobs: list[Any] = []

    def add(self, data: Any, clean: Callable[[str], str]) -> None:
        if not isinstance(data, dict):
            raise TransientError("a piece of the stream is not an object")
        if data.get("error"):
            raise TransientError(clean(said(msgspec.json.encode(data))))
        self.usage = data.get("usage") or self.usage
        self.prompt = data.get("prompt_token_ids") or self.prompt
        choices = data.get("choices") or ()
        for choice in choices[:1]:
            self.finish = choice.get("finish_reason") or self.finish
            self.stop_reason = choice.get("stop_reason", choice.get("matched_stop")) or self.stop_reason
            self.ids += _items(choice.get("token_ids"))
            self.logprobs += _items((choice.get("logprobs") or {}).get("content"))
            self._delta(choice.get("delta") or {})

    def _delta(self, delta: dict[str, Any]) -> None:
        piece = delta.get("content")
        if piece:
            self.text.append(piece)
            if self.on_delta:
                self.shown = True
                self.on_delta(piece)
        for field in ("reasoning_content", "reasoning"):
            if delta.get(field):
                self.reasoning.setdefault(field, []).append(delta[field])
        for item in delta.get("tool_calls") or ():
            self._call(item)

    def _call(self, item: dict[str, Any]) -> None:
        """A piece of a call: the name comes once, the arguments in pieces."""
        call = self.calls.setdefault(item.get("index", len(self.calls)), {"function": {"name": "", "arguments": ""}})
        function = item.get("function") or {}
        if item.get("id"):
            call["id"] = item["id"]
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""

    def whole(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self.text)}
        message |= {field: "".join(pieces) for field, pieces in self.reasoning.items()}
        if self.calls:
            message["tool_calls"] = [self.calls[index] for index in sorted(self.calls)]
        choice = {"message": message, "finish_reason": self.finish, "usage": self.usage}
        if self.prompt is not None:
            choice["prompt_token_ids"] = self.prompt
        if self.ids:
            choice |= {"token_ids": self.ids, "logprobs": {"content": self.logprobs}}
        return choice if self.stop_reason is None else {**choice, "stop_reason": self.stop_reason}


def _items(piece: Any) -> Sequence[Any]:
    """What a chunk adds to a list. Anything but a list becomes an item that whoever reads the whole must refuse."""
    return piece if isinstance(piece, list) else () if piece is None else ([piece],)
