"""A policy that samples what it is given, with the real Qwen BPE."""

from __future__ import annotations

from typing import Any

from agentenv.policy.exact import Request, Sampled, TokenPolicy
from agentenv.tokens.template import TemplateRenderer
from agentenv.trajectory import PolicyInfo
from tests.tokens.qwen import qwen

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b":2}}\n</tool_call>'


class Monkey(TokenPolicy):
    """Samples what it is given: real tokens in splits of its own, cut anywhere, closed or not; then empty turns."""

    renderer: TemplateRenderer

    def __init__(self, renderer: Any, turns: list[tuple[tuple[int, ...], str]], **options: Any) -> None:
        super().__init__(renderer, **options)
        self.turns, self.prompts, self.sampled = list(turns), list[tuple[int, ...]](), list[tuple[int, ...]]()
        self.info = PolicyInfo("monkey", capture="ids_full")

    async def sample(self, request: Request) -> Sampled:
        self.prompts.append(request.prompt.ids)
        ids, finish = self.turns.pop(0) if self.turns else ((min(self.renderer.ends),), "stop")
        self.sampled.append(ids)
        return Sampled(ids, (-0.25,) * len(ids), finish, f"w{len(self.prompts)}")


def odd_split(text: str, every: int, words: Any = None) -> tuple[int, ...]:
    """Ids of a text that the tokenizer (Qwen's by default) would not choose: cut every few characters."""
    pieces = [text[n : n + every] for n in range(0, len(text), every)] if every else [text]
    words = words or qwen()
    return tuple(token for piece in pieces for token in words(piece, add_special_tokens=False)["input_ids"])


def tokens_of(
    turn: tuple[str, int, bool, int], end: int | None = None, words: Any = None
) -> tuple[tuple[int, ...], str]:
    """A turn as (ids, finish reason), of (text, characters a piece, closed, tokens lost at the end or, below 0, at the
    beginning). What is lost may be a part of a character, or of a call. A turn is closed by `end`, or by what the
    tokenizer (Qwen's by default) closes it with.
    """
    text, every, closed, lost = turn
    ids = odd_split(text, every, words)
    ids = ids[-lost:] if lost < 0 else ids[: len(ids) - lost]
    end = (words or qwen()).eos_token_id if end is None else end
    return (*ids, *((end,) if closed else ())), "length" if lost > 0 and not closed else "stop"
