"""Models that see images, with random weights, made from their configurations; their processors are the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest

from agentenv.media import media_store
from agentenv.types import Image

pytest.importorskip("torch", reason="local models need torch (extra: local)")
pytest.importorskip("transformers", reason="local models need transformers (extra: local)")
pytest.importorskip("PIL", reason="images need Pillow (extra: image)")

_SPECIAL = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
_SPECIAL += ["<|video_pad|>", "<image>"]
_TEXTS = ("what is written on the small sign of the image", "tool_call answer name") * 20
_PART = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' %}IMAGE"
    "{% elif c.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATE = _PART.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
DROPPING = _PART.replace("IMAGE", "{% if m.role != 'tool' %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}")
"""Drops images of results, as templates of several published models do."""

LISTS_ONLY = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
    "{% if c['type'] == 'image' %}<image>\n{% elif c['type'] == 'text' %}{{ c['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Writes nothing of a content that is one string, as LLaVA's does."""


@cache
def tiny_vision(kind: str) -> tuple[Any, Any]:
    """A model and its processor; the kind is qwen3-vl, qwen2.5-vl or llava."""
    import torch

    torch.manual_seed(0)
    return {"qwen3-vl": _qwen3, "qwen2.5-vl": _qwen25, "llava": _llava}[kind]()


def picture(width: int, height: int, seed: int = 0) -> Image:
    """A picture of noise, in the store of this process."""
    import io

    import numpy as np
    from PIL import Image as Pillow

    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG")
    return media_store().put(buffer.getvalue())


def tokenizer(texts: Sequence[str] = _TEXTS, size: int = 420) -> Any:
    """A small BPE tokenizer, trained on some texts, with the tokens that Qwen-VL models need."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|pad|>", chat_template=TEMPLATE, padding_side="left"
    )


def _text_config(words: Any, sections: list[int], **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(words),
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "max_position_embeddings": 4096,
        "initializer_range": 0.3,
        "rope_parameters": {"rope_type": "default", "mrope_section": sections, "rope_theta": 1e4, **more},
        "pad_token_id": words.pad_token_id,
        "eos_token_id": words.eos_token_id,
        "bos_token_id": None,
    }


def _ids(words: Any) -> dict[str, int]:
    kinds = {"image_token": "image_pad", "video_token": "video_pad", "vision_start_token": "vision_start"}
    kinds["vision_end_token"] = "vision_end"
    return {f"{name}_id": words.convert_tokens_to_ids(f"<|{token}|>") for name, token in kinds.items()}


def _qwen3() -> tuple[Any, Any]:
    eyes = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 48}
    return qwen3_vl(tokenizer(), {"head_dim": 16}, eyes, [4, 2, 2], 64 * 64 * 4)


def qwen3_vl(
    words: Any, text: dict[str, Any], eyes: dict[str, Any], sections: list[int], most_pixels: int
) -> tuple[Any, Any]:
    """A Qwen3-VL with random weights, and its processor, for pictures of 32 x 32 px to `most_pixels` in area."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor

    eyes = {"patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0], **eyes}
    config = Qwen3VLConfig(
        text_config={**_text_config(words, sections, mrope_interleaved=True), **text}, vision_config=eyes, **_ids(words)
    )
    return Qwen3VLForConditionalGeneration(config).eval(), _processor(Qwen3VLProcessor, words, 16, most_pixels)


def _qwen25() -> tuple[Any, Any]:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

    words = tokenizer()
    eyes: dict[str, Any] = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 14}
    eyes |= {"out_hidden_size": 48, "window_size": 56, "fullatt_block_indexes": [1]}
    config = Qwen2_5_VLConfig(text_config=_text_config(words, [4, 2, 2]), vision_config=eyes, **_ids(words))
    return Qwen2_5_VLForConditionalGeneration(config).eval(), _processor(Qwen2_5_VLProcessor, words, 14)


def _processor(base: type, words: Any, patch: int, most_pixels: int = 64 * 64 * 4) -> Any:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from agentenv.policy.vision import image_only

    size = {"shortest_edge": 1024, "longest_edge": most_pixels}
    images = Qwen2VLImageProcessorPil(patch_size=patch, temporal_patch_size=2, merge_size=2, size=size)
    return image_only(base)(images, words, chat_template=TEMPLATE)


def _llava() -> tuple[Any, Any]:
    from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, Qwen3Config
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = tokenizer()
    side = {"height": 32, "width": 32}
    eyes = CLIPVisionConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
    eyes.image_size, eyes.patch_size = 32, 16
    text = _text_config(words, [])
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4}
    image = words.convert_tokens_to_ids("<image>")
    config = LlavaConfig(vision_config=eyes, text_config=Qwen3Config(**text, head_dim=16), image_token_id=image)
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=side)
    processor = LlavaProcessor(
        images,
        words,
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=LISTS_ONLY,
        num_additional_image_tokens=1,
    )
    return LlavaForConditionalGeneration(config).eval(), processor
