"""The real Qwen BPE, from the wheel of qwen-agent, and the chat templates of TRL's wheel."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="chat templates need transformers (extra: local)")

_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
_PLAIN = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]


def packaged(package: str, path: str) -> Path:
    """A file of an installed package, which is not imported."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / path


@cache
def qwen() -> Any:
    """The tokenizer of the Qwen models: 151,643 byte-level tokens and their control tokens."""
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    made = TikTokenConverter(str(packaged("qwen_agent", "utils/qwen.tiktoken")), pattern=_PATTERN).converted()
    made.add_special_tokens(_CONTROL)
    made.add_tokens(_PLAIN)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>", name_or_path="Qwen/Qwen3-8B"
    )


ENDS = (
    *("<|END_OF_TURN_TOKEN|>", "<|END_RESPONSE|>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "<turn|>"),
    *("<|user|>", "<|observation|>", "<end_of_turn>", "</s>"),
    *("<|return|>", "<|call|>", "<|end|>", "<end_of_utterance>", "<|eot_id|>", "<|eot|>"),
)
"""Tokens that end turns of other families than Qwen's."""


@cache
def qwen_of_all_families() -> Any:
    """Qwen's tokenizer with the end tokens of all families, so that it can be used with any template."""
    from transformers import PreTrainedTokenizerFast

    made = PreTrainedTokenizerFast(
        tokenizer_object=qwen().backend_tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token="<s>"
    )
    made.add_tokens(list(ENDS), special_tokens=True)
    return made


@cache
def templates() -> dict[str, str]:
    """The chat templates of TRL's wheel, by name."""
    folder = packaged("trl", "chat_templates")
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.jinja"))}


@cache
def qwen_renderer(name: str) -> Any:
    """The renderer of a Qwen template."""
    from agentenv.tokens.template import TemplateRenderer

    return TemplateRenderer(qwen(), templates()[name], name=name)
