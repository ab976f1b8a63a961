"""Rendering by the package `renderers`, which knows the token formats of some model families by heart. Text only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentenv.errors import ConfigError, MissingExtraError, PolicyError
from agentenv.tokens.renderer import Eyes, chat, media_of
from agentenv.types import Message, Tokens, ToolSpec


class PackageRenderer:
    """Renders with the package `renderers`.

    Args:
        tokenizer: of the model.
        name: of the package's renderer, for instance "qwen3"; by default the one that it has for the tokenizer's name.

    Raises:
        MissingExtraError: the package is not installed.
        ConfigError: it has no renderer of this name, or for this tokenizer.
    """

    eyes: Eyes | None = None

    def __init__(self, tokenizer: Any, name: str = "") -> None:
        try:
            from renderers import config_from_name, create_renderer
        except ImportError:
            raise MissingExtraError("renderers", "renderers", f"the renderer {name!r}") from None
        try:
            config: Any = config_from_name(name) if name else None
            self._own: Any = create_renderer(tokenizer, config)
            self.ends = frozenset(self._own.get_stop_token_ids())
        except (ValueError, KeyError, ImportError, AttributeError, AssertionError) as error:
            raise ConfigError(f"the package 'renderers' has no renderer {name!r} for this tokenizer: {error}") from None
        self.tokenizer, self._name = tokenizer, type(self._own).__name__
        if not self.ends:
            raise ConfigError(f"the tokenizer lacks the tokens with which {self._name} ends a turn")

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the ids, as records carry it."""
        from importlib.metadata import version

        return {"renderer": self._name, "renderers": version("renderers")}

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, native: bool) -> Tokens:
        """See `Renderer.prompt`."""
        self._only_text(messages)
        return Tokens(tuple(self._own.render_ids(_chat(messages, native), **_with(tools, native), **_OPENED)))

    def bridge(
        self, before: Sequence[int], sampled: int, new: Sequence[Message], tools: Sequence[ToolSpec], *, native: bool
    ) -> Tokens | str:
        """See `Renderer.bridge`."""
        self._only_text(new)
        ids, start = list(before), len(before) - sampled
        made = self._own.bridge_to_next_turn(ids[:start], ids[start:], _chat(new, native), **_with(tools, native))
        if made is None:
            return f"{self._name} cannot prove what follows this turn"
        if list(made.token_ids[: len(ids)]) != ids:
            return f"{self._name} would cut off tokens that were sampled"
        return Tokens(tuple(made.token_ids[len(ids) :]))

    def decoded(self, ids: Sequence[int]) -> str:
        """See `Renderer.decoded`."""
        kept = ids[:-1] if ids and ids[-1] in self.ends else ids
        text: str = self.tokenizer.decode(list(kept), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _only_text(self, messages: Sequence[Message]) -> None:
        for part in media_of(messages):
            kind = type(part).__name__.lower()
            text = f"this policy is text-only; {kind} part found (renderer='template' may take it)"
            raise PolicyError(text, permanent=True)


_OPENED: dict[str, Any] = {"add_generation_prompt": True}


def _chat(messages: Sequence[Message], native: bool) -> list[dict[str, Any]]:
    return chat(messages, native=native)


def _with(tools: Sequence[ToolSpec], native: bool) -> dict[str, Any]:
    return {"tools": [tool.openai() for tool in tools] if native and tools else None}


def knows(tokenizer: Any) -> bool:
    """Whether the package is installed and has a renderer for a tokenizer of this name."""
    try:
        from renderers.base import MODEL_RENDERER_MAP
    except ImportError:
        return False
    return getattr(tokenizer, "name_or_path", "") in MODEL_RENDERER_MAP
