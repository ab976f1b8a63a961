"""Counting what a conversation costs a model, for an environment's limits: its own tokens, not an estimate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from agentenv.errors import PolicyError
from agentenv.tokens.renderer import Renderer, opened
from agentenv.tokens.template import TemplateRenderer
from agentenv.types import Message, Text, Tokens, ToolSpec

_ASKED = Message("user", (Text("?"),))


def counter(source: Any, *, tools: Sequence[ToolSpec] = ()) -> Callable[[Message], int]:
    """Counts the tokens of messages as a model takes them: `make("zoom", count=counter(policy))`.

    Each message counts with what the chat template writes around it, images and clips by the model's own processor. The
    messages of a conversation that opens with a system message add up to the whole prompt, up to the opening of the
    model's next turn; where several messages answer one turn, each counts that opening.

    Args:
        source: a policy that works with token ids, its renderer (`agentenv.policy.rendering.load_renderer` makes one of
            a folder or a processor), or a tokenizer with a chat template, which takes text only.
        tools: of an environment in the native dialect; the prompt lists them, and the system message counts them.

    Returns:
        Tokens of a message. It raises PolicyError where the model cannot take the message.

    Raises:
        ConfigError: the tokenizer has no chat template, or one that cannot be used.
    """
    found = getattr(source, "renderer", source)
    renderer: Renderer = found if hasattr(found, "bridge") else TemplateRenderer(found, forks=True)
    return _Counter(renderer, tuple(tools))


class _Counter:
    def __init__(self, renderer: Renderer, tools: tuple[ToolSpec, ...]) -> None:
        self._renderer, self._tools = renderer, tools
        self._ends = sorted(renderer.ends)

    def __call__(self, message: Message) -> int:
        seen = self._renderer.eyes.tokens if self._renderer.eyes is not None else {}
        message = replace(message, parts=opened(message.parts, "video" if "video" in seen else "frames"))
        if message.role == "assistant":
            return self._turn(message)
        if message.role == "system":
            return self._prompt(message, _ASKED) - self._added(_ASKED)
        return self._added(message)

    def _turn(self, turn: Message) -> int:
        """A turn that nobody counted when it was sampled: what it adds between a question and what follows."""
        follows = [Message("tool", (Text("?"),), name=call.name, call_id=call.id) for call in turn.calls]
        follows = follows if self._tools and follows else [_ASKED]
        return self._prompt(_ASKED, turn, *follows) - self._prompt(_ASKED) - self._added(*follows)

    def _prompt(self, *messages: Message) -> int:
        return _length(self._renderer.prompt(messages, self._tools, native=bool(self._tools)))

    def _added(self, *messages: Message) -> int:
        """What messages add after a turn that has ended."""
        native = bool(self._tools)
        added: Tokens | str = ""
        for end in self._ends:  # some end a text and not a turn: nothing is known to follow those
            added = self._renderer.bridge((end, end), 1, messages, self._tools, native=native)
            if isinstance(added, Tokens):
                return _length(added)
        if native and messages[0].role == "tool":
            raise PolicyError(f"the tokens of a result cannot be counted: {added}")
        return _length(self._renderer.prompt(messages, (), native=native))  # the template is not one that only appends


def _length(tokens: Tokens) -> int:
    return len(tokens.ids) + sum(max(span.length - 1, 0) for span in tokens.media)
