"""What a dialect is: the way in which calls, results and answers are written in text.

The same episode can be played in any dialect. A dialect is made for a list of tools and holds no state, so one serves
any number of episodes. Parsing is total: whatever a model emits becomes calls or a readable error, and nothing raises.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from msgspec import Struct

from agentenv.types import Action, Message, Text, ToolCall, ToolResult, ToolSpec


class Turn(Struct, frozen=True, gc=False, omit_defaults=True):
    """What a policy's turn says, read out of its text.

    Args:
        content: the visible text, without reasoning and calls.
        reasoning: what stands in the thinking tags.
        calls: the calls, in order; one that could not be decoded has `error` set and `arguments` None.
        answer: the final answer, None where the turn gives none.
        error: why the turn as a whole could not be read, as a sentence for the model.
        flags: what curation should know: "forged_result" (the model wrote a tool result itself), "call_in_reasoning",
            "text_after_call", "control_text" ...
    """

    content: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    answer: str | None = None
    error: str | None = None
    flags: tuple[str, ...] = ()


class Dialect(ABC):
    """Base of the dialects.

    Args:
        tools: the tools of the environment.
    """

    name: ClassVar[str] = ""
    native: ClassVar[bool] = False
    """True where calls travel beside the text (function calling), and results in messages of role tool."""
    control: tuple[str, ...] = ()
    """Names of the tags that mean something in this dialect, which outside text must not forge."""
    stop: tuple[str, ...] = ()
    """Strings at which an engine should stop sampling; each is kept in the text."""

    def __init__(self, tools: Sequence[ToolSpec]) -> None:
        self.tools = tuple(tools)

    @abstractmethod
    def parse(self, action: Action, first: int = 0) -> Turn:
        """Read a turn. `first` numbers its first call: ids are call_<n>, unless the engine gave its own."""

    def assistant(self, action: Action, turn: Turn) -> Message:
        """The turn as it stands in the conversation: text dialects keep the model's own text to the letter."""
        return Message("assistant", (Text(action.text),), turn.calls, turn.reasoning, action.text)

    @abstractmethod
    def write(self, turn: Turn) -> Action:
        """The action that says `turn`, as a policy would write it; `parse` reads it back. For demonstrators."""

    @abstractmethod
    def results(
        self, results: Sequence[ToolResult], calls: Sequence[ToolCall] = (), question: str = ""
    ) -> tuple[Message, ...]:
        """The messages that show the results of one turn's calls.

        Forms of results may repeat a call, or the task's question (`metadata["question"]`).
        """

    @abstractmethod
    def instructions(self) -> str:
        """The block of the system prompt that tells of the tools and how to call them; empty for native."""

    def notice(self, text: str) -> Message:
        """A message of the environment that answers no call: a hint, an error, a forced answer."""
        return Message("user", (Text(text),))
