"""A person at a terminal as the policy."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from typing import TextIO

import msgspec

from agentenv.dialects.base import Dialect, Turn
from agentenv.errors import PolicyError, UsageError, did_you_mean
from agentenv.policy.base import Policy
from agentenv.policy.writing import Writer
from agentenv.trajectory import PolicyInfo
from agentenv.types import Action, Image, Message, Observation, Part, ToolCall, ToolSpec, Video

HELP = """Write your turn; an empty line ends it. Or, in one line:
  /TOOL {"argument": "value"}   call a tool; a tool with one text argument takes it bare: /TOOL some text
  /answer TEXT                  give the final answer
  /tools                        show the tools
  /help, /quit                  this page; give up"""

Reader = Callable[[str], Awaitable[str]]
"""Shows a prompt and returns one line without its line end; raises EOFError where there are no more."""


Frames = tuple[Image, ...]
"""Frames of one video, in order; `derived["time"]` of each says when it is shown."""


class PersonLeftError(PolicyError):
    """The person gave up: end of input, or /quit. The episode is unscored."""


class HumanPolicy(Policy):
    """Shows a person what is new and reads their turn.

    Episodes that run at once take turns at the terminal. Ctrl-C is not caught.

    Args:
        read: reads a line; the terminal by default.
        write: shows text; the terminal by default.
        dialect: the dialect of /TOOL and /answer; the one that the observation names by default.
        look: shows an image, or frames of a video together, behind the text of the message; by default they are only
            named.
    """

    info = PolicyInfo("human")

    def __init__(
        self,
        read: Reader | None = None,
        write: Callable[[str], None] | None = None,
        *,
        dialect: Dialect | None = None,
        look: Callable[[Image | Frames], None] | None = None,
    ) -> None:
        self._read = read or LineReader(sys.stdin, sys.stdout)
        self._write = write or _to_terminal
        self._look = look
        self._writer = Writer(dialect)
        self._turn = asyncio.Lock()
        self._greeted = False

    async def act(self, observation: Observation) -> Action:
        """One turn of the person's.

        Raises:
            PersonLeftError: they gave up.
        """
        async with self._turn:
            if not self._greeted:
                self._greeted = True
                self._write(HELP)
            for message in observation.messages[observation.new :]:
                if message.role != "assistant":
                    self._show(message)
            try:
                return await self._action(observation)
            except EOFError:
                raise PersonLeftError("the person at the terminal gave up") from None

    def _show(self, message: Message) -> None:
        self._write(shown(message))
        if self._look is not None:
            for seen in pictures(message.parts):
                self._look(seen)

    async def _action(self, observation: Observation) -> Action:
        while True:
            line = await self._read("> ")
            if line.startswith("/"):
                action = self._command(line[1:], observation)
                if action is not None:
                    return action
            elif line.strip():
                return Action(await self._rest(line))

    async def _rest(self, line: str) -> str:
        lines = [line]
        while True:
            try:
                line = await self._read("  ")
            except EOFError:
                return "\n".join(lines)
            if not line.strip():
                return "\n".join(lines)
            lines.append(line)

    def _command(self, line: str, observation: Observation) -> Action | None:
        word, _, rest = line.partition(" ")
        if word == "quit":
            raise EOFError
        if word in ("help", "tools"):
            self._write(HELP if word == "help" else "\n".join(map(_described, observation.tools)) or "(no tools now)")
            return None
        dialect = self._writer(observation)
        if word == "answer":
            return dialect.write(Turn(answer=rest.strip()))
        for tool in observation.tools:
            if tool.name == word:
                return self._called(dialect, tool, rest.strip())
        known = [tool.name for tool in observation.tools]
        self._write(f"There is no command or tool /{word}{did_you_mean(word, [*known, 'answer', 'tools', 'quit'])}")
        return None

    def _called(self, dialect: Dialect, tool: ToolSpec, text: str) -> Action | None:
        try:
            return dialect.write(Turn(calls=(_call(tool, text),)))
        except UsageError as error:
            self._write(f"That cannot be said here: {error}")
            return None


class LineReader:
    """Reads lines of a stream without holding up the event loop.

    A daemon thread waits for the line, so that neither Ctrl-C nor the end of the program waits for Enter. A line that
    nobody waited for any more is given to the next one who asks.
    """

    def __init__(self, source: TextIO, sink: TextIO) -> None:
        self._source, self._sink = source, sink
        self._pending: Future[str] | None = None

    async def __call__(self, prompt: str) -> str:
        self._sink.write(prompt)
        self._sink.flush()
        if self._pending is None:
            self._pending = Future()
            threading.Thread(target=self._wait, args=(self._pending,), daemon=True).start()
        line = await asyncio.shield(asyncio.wrap_future(self._pending))
        self._pending = None
        if not line:
            raise EOFError
        return line.rstrip("\r\n")

    def _wait(self, pending: Future[str]) -> None:
        try:
            pending.set_result(self._source.readline())
        except (OSError, ValueError):  # closed, or not a terminal any more: the same as its end
            pending.set_result("")


def shown(message: Message) -> str:
    """A message as plain lines: who speaks, then the text, with media named in brackets."""
    lines = [getattr(part, "text", None) or named(part) for part in message.parts]
    who = f"{message.role} ({message.name})" if message.name else message.role
    return f"[{who}]\n" + "\n".join(lines)


def named(part: object) -> str:
    """An image or a video in brackets, by its handle, with the times of its frames; nothing for any other part."""
    if not isinstance(part, (Image, Video)):
        return ""
    times = ", ".join(f"{time:.1f}" for time in part.times) if isinstance(part, Video) else ""
    frames = f", frames at {times} seconds" if times else ""
    return f"[{type(part).__name__.lower()} {part.handle or part.sha256[:12]}, {part.width} x {part.height}{frames}]"


def pictures(parts: Iterable[Part]) -> list[Image | Frames]:
    """What parts show: each image, and frames of one video that follow each other together."""
    found: list[Image | Frames] = []
    for part in parts:
        frames = part.images() if isinstance(part, Video) else (part,) if isinstance(part, Image) else ()
        source = _source(frames[0]) if frames else ""
        last = found[-1] if found else ()
        if source and isinstance(last, tuple) and last and _source(last[0]) == source:
            found[-1] = (*last, *frames)
        elif frames:
            found.append(frames if source else frames[0])
    return found


def _source(image: Image) -> str:
    """The video of which an image is a frame; "" for any other image."""
    derived = image.derived or {}
    return str(derived.get("from", "")) if derived.get("op") == "frame" else ""


def _described(tool: ToolSpec) -> str:
    names = ", ".join(tool.parameters.get("properties", {}))
    return f"/{tool.name} ({names}): {tool.description}"


def _call(tool: ToolSpec, text: str) -> ToolCall:
    properties = tool.parameters.get("properties", {})
    texts = [name for name, schema in properties.items() if schema.get("type") == "string"]
    required = tool.parameters.get("required", [])
    if text and not text.startswith("{") and (len(properties) == 1 or len(required) == 1) and texts:
        name = required[0] if len(required) == 1 else texts[0]
        text = msgspec.json.encode({name: text}).decode()
    try:
        arguments = msgspec.json.decode(text or "{}", type=dict)
    except msgspec.DecodeError as error:
        return ToolCall("", tool.name, text, None, f"The arguments are not a JSON object: {error}.")
    return ToolCall("", tool.name, text or "{}", arguments)


def _to_terminal(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
