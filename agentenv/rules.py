"""What all episodes of an environment share: its parts, what can be known of its limits beforehand, and how a tool's
result becomes what a policy may see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from agentenv.dialects import neutralise
from agentenv.dialects.base import Dialect
from agentenv.spec import Limits, Texts
from agentenv.tool import Tool
from agentenv.trajectory import Trajectory
from agentenv.types import Budget, Image, Message, Part, StopReason, Table, Text, ToolResult, Video

TokenCount = Callable[[Message], int]

LIMIT_NAMES = {
    StopReason.MAX_TURNS: "turns",
    StopReason.MAX_CALLS: "tool calls",
    StopReason.MAX_IMAGES: "images",
    StopReason.MAX_TOKENS: "tokens",
    StopReason.MAX_SECONDS: "time",
}


def estimate_tokens(message: Message) -> int:
    """Tokens of a message where no tokenizer is given: a quarter of its characters, rounded up, plus four."""
    return 4 + -(-len(message.text) // 4)


class Rules:
    """What all episodes of an environment share.

    Args:
        dialect: how calls and results are written, with the options that it was made with.
        tools: by name.
        limits: budgets.
        texts: what the environment says outside tool results.
        system: the opening message, None for none.
        count: tokens of a message.
        dialect_options: what observations tell of the dialect's options.
    """

    def __init__(
        self,
        dialect: Dialect,
        tools: Mapping[str, Tool],
        limits: Limits,
        texts: Texts,
        system: Message | None,
        count: TokenCount = estimate_tokens,
        dialect_options: dict[str, Any] | None = None,
    ) -> None:
        self.dialect_options = dialect_options or {}
        self.dialect, self.tools, self.limits, self.texts = dialect, tools, limits, texts
        self.specs = tuple(tool.spec for tool in tools.values())
        self.system, self.count = system, count
        self.control = dialect.control
        self.counted = limits.tokens is not None
        self.free_calls = limits.calls is None and not limits.calls_per_tool and limits.calls_per_turn != 0
        self.failed_free = bool(limits.calls_per_tool) and limits.failed_calls == "free"
        others = (limits.calls, limits.images, limits.tokens, limits.seconds)
        self.budgets: tuple[Budget, ...] | None = None
        if limits.turns is not None and limits.turns <= 1000 and others == (None,) * 4:
            # One turn more than the limit: the forced one.
            self.budgets = tuple(Budget(max(0, limits.turns - used)) for used in range(limits.turns + 2))

    def clean(self, result: ToolResult, images: int) -> tuple[ToolResult, int, int]:
        """A result as the policy may see it: control text made harmless, long text cut, images given their handles.

        Args:
            result: what the tool returned.
            images: how many images tools have returned before in the episode.

        Returns:
            The result, how many characters were cut, and how many control strings were made harmless.
        """
        parts: list[Part] = []
        cut = harmless = 0
        same = True
        most, before = self.limits.observation_tokens, ""
        for part in result.parts:
            if isinstance(part, (Text, Table)):
                text, changed = neutralise(part.text, self.control)
                harmless += changed
                if most is not None:
                    shown = max(0, self.fit(before + text, most) - len(before))
                    before += text
                    if shown < len(text):
                        cut += len(text) - shown
                        text = text[:shown] + self.texts.cut.format(shown=shown, total=len(text))
                if text is not part.text:
                    part, same = replace(part, text=text), False
            elif isinstance(part, Image):
                images += 1
                if not part.handle:
                    part, same = replace(part, handle=f"observation_{images}"), False
            else:
                images += len(part.frames)
            parts.append(part)
        if same:
            return result, 0, 0
        return replace(result, parts=tuple(parts)), cut, harmless

    def hints(self, left: int, record: Trajectory) -> list[str]:
        """What is said in the last turns: how many are left, and in the turn before them what was not used so far."""
        last = self.limits.hint_turns
        if left <= last:
            return [self.texts.hint.format(left=left)]
        used = {run.name for run in record.tool_runs if run.error_kind is None}
        return [text for tool, text in self.texts.unused.items() if tool not in used] if left == last + 1 else []

    def fit(self, text: str, tokens: int) -> int:
        """How many characters of a text, from its beginning, have room in so many tokens."""
        if self.count is estimate_tokens:
            return min(len(text), 4 * tokens)
        room = tokens + self.count(_result(""))  # what is written around a result is no part of it
        low, high = 0, min(len(text), 4 * tokens + 4)
        while high < len(text) and self.count(_result(text[:high])) <= room:
            low, high = high, min(len(text), 2 * high)  # never the whole of a long text, which takes its time
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.count(_result(text[:middle])) <= room
            low, high = (middle, high) if fits else (low, middle - 1)
        return low


def _result(text: str) -> Message:
    return Message("tool", (Text(text),))


def with_handles(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """A prompt whose images and videos without a handle are called image_1, image_2 ..., video_1 ..., in order."""
    if all(part.__class__ is Text for part in parts):
        return parts
    named: list[Part] = []
    for part in parts:
        if isinstance(part, (Image, Video)) and not part.handle:
            kind = type(part)
            part = replace(part, handle=f"{kind.__name__.lower()}_{1 + sum(isinstance(p, kind) for p in named)}")
        named.append(part)
    return tuple(named)


class Counters(Struct):
    """What an episode has used so far. Plain data, so that a snapshot is a copy."""

    turns: int = 0
    calls: int = 0
    images: int = 0
    tokens: int = 0
    invalid: int = 0
    per_tool: dict[str, int] = {}
    started: float = 0.0
