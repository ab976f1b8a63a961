"""Models of random weights that vLLM can serve, saved with their tokenizers, and an environment that suits them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentenv.spec import Limits
from tests.policy.tiny_vision import TEMPLATE
from tests.policy.tiny_vision import tokenizer as words
from tests.worlds import sums

ENDS = range(60, 300)
"""Tokens that end a turn too, since a model of random weights hardly ever samples its one end token."""


def retrying(**options: Any) -> Any:
    """An environment that asks again and again, so that there are several turns."""
    return sums(limits=Limits(turns=3, invalid_turns=9), **options)


def text_model(folder: Path) -> Path:
    """A Qwen3 of some 100,000 weights."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = words()
    torch.manual_seed(0)
    config = Qwen3Config(**_text(tokenizer), rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def vision_model(folder: Path) -> Path:
    """A Qwen3-VL of as many, with the processor of the real ones."""
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from agentenv.policy.vision import image_only

    tokenizer = words()
    torch.manual_seed(0)
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")
    }
    ids |= {f"{kind}_token_id": tokenizer.convert_tokens_to_ids(f"<|{kind}_pad|>") for kind in ("image", "video")}
    rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "mrope_interleaved": True, "rope_theta": 1e4}
    eyes: dict[str, Any] = {"depth": 2, "hidden_size": 64, "intermediate_size": 96, "num_heads": 2, "patch_size": 16}
    eyes |= {"out_hidden_size": 64, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    config = Qwen3VLConfig(text_config={**_text(tokenizer), "rope_parameters": rope}, vision_config=eyes, **ids)
    Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    images = Qwen2VLImageProcessorPil(
        patch_size=16, temporal_patch_size=2, merge_size=2, size={"shortest_edge": 1024, "longest_edge": 16384}
    )
    image_only(Qwen3VLProcessor)(images, tokenizer, chat_template=TEMPLATE).save_pretrained(folder)
    video = '{"video_processor_type": "Qwen3VLVideoProcessor", "patch_size": 16, "temporal_patch_size": 2,'
    video += ' "merge_size": 2, "size": {"shortest_edge": 4096, "longest_edge": 32768}}'
    (folder / "video_preprocessor_config.json").write_text(video)
    return folder


def _text(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 4096,
        "initializer_range": 0.2,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
