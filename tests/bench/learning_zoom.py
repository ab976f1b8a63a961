"""The study on pictures: a small Qwen3-VL with random weights learns where to zoom, and what the crop shows.

A picture of 256 x 256 px is a board of two by two squares. One has a red frame, which the first view of 64 px shows;
each has a pattern of one or two pixels, which the first view turns into an even grey. Asked is for the pattern
in the frame: one of eight, so a guess is right in an eighth of the episodes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import agentenv
from agentenv.env import Env
from agentenv.media import media_store
from agentenv.task import TaskSet
from agentenv.types import Task, Text
from tests.policy import tiny_vision

SIDE, SQUARE = 256, 128
PATTERNS: dict[str, Callable[[Any, Any], Any]] = {
    "rows": lambda x, y: y // 2,
    "columns": lambda x, y: x // 2,
    "falls": lambda x, y: (x - y) // 2,
    "climbs": lambda x, y: (x + y) // 2,
    "checks": lambda x, y: x // 2 + y // 2,
    "lines": lambda x, y: y,
    "bars": lambda x, y: x,
    "dots": lambda x, y: x + y,
}
"""Of each pixel its stripe: those of even number are dark."""
QUESTION = f"Which pattern is in the red frame: {', '.join(PATTERNS)}?"
FIRST = {"train": 0, "test": 10_000_000}
_DARK, _LIGHT = 78, 178


def pattern(name: str) -> Any:
    """A square of a pattern, shape (128, 128), its mean the grey of the board."""
    y, x = np.indices((SQUARE, SQUARE))
    return np.where(PATTERNS[name](x, y) % 2 == 0, _DARK, _LIGHT)


def board(rng: Random) -> tuple[bytes, tuple[int, int], str]:
    """A picture as PNG, column and row of the framed square, and its pattern."""
    from PIL import Image

    pixels = np.full((SIDE, SIDE, 3), (_DARK + _LIGHT) // 2, np.uint8)
    places = rng.sample(range(4), 4)
    names = [rng.choice(list(PATTERNS)) for _ in places]
    for place, name in zip(places, names, strict=True):
        top, left = place // 2 * SQUARE, place % 2 * SQUARE
        pixels[top : top + SQUARE, left : left + SQUARE] = pattern(name)[:, :, None]
    top, left = places[0] // 2 * SQUARE, places[0] % 2 * SQUARE
    framed = pixels[top : top + SQUARE, left : left + SQUARE]
    for edge in (framed[:12], framed[-12:], framed[:, :12], framed[:, -12:]):
        edge[:] = (220, 30, 30)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue(), (places[0] % 2, places[0] // 2), names[0]


def seen_first(name: str) -> list[int]:
    """The grey values of a pattern in a first view, which is smaller by four."""
    from PIL import Image

    square = Image.fromarray(pattern(name).astype(np.uint8)).resize(
        (SQUARE // 4, SQUARE // 4), Image.Resampling.LANCZOS
    )
    return np.asarray(square)[4:-4, 4:-4].ravel().tolist()


def task(index: int) -> Task:
    """Task `index`, with the zoom of an expert as its evidence."""
    data, (column, row), name = board(Random(f"board/{index}"))
    box = [500 * column, 500 * row, 500 * column + 500, 500 * row + 500]
    step = {"tool": "image_zoom", "arguments": {"bbox_2d": box, "image": "image_1"}}
    return Task(f"board-{index}", (media_store().put(data), Text(QUESTION)), name, {"steps": [step]})


def env(split: str) -> Env:
    """The zoom environment over boards; no board occurs in both splits."""
    return agentenv.make(
        "zoom",
        source=TaskSet.generate(lambda index: task(FIRST[split] + index), None, name=f"boards-{split}"),
        first_view=64,
        output={"min_pixels": 128 * 128, "max_pixels": 128 * 128},
        dialect="tags",
        system="Answer with the tool.",
        limits={"turns": 3, "on_turns": "stop"},
    )


def model(out: Path, seed: int) -> Path:
    """The folder with the random model and its processor, whose words are those of the environment."""
    import torch

    folder = out / "base"
    if not (folder / "config.json").exists():
        seen = agentenv.rollout(env("train"), expert(), tasks=40)
        words = [message.raw or message.text for record in seen for message in record.messages]
        torch.manual_seed(seed)
        made, processor = tiny_vision.qwen3_vl(
            tiny_vision.tokenizer(words, 700),
            {
                "hidden_size": 128,
                "intermediate_size": 384,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
                "head_dim": 32,
                "initializer_range": 0.05,
                "tie_word_embeddings": True,
            },
            {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "out_hidden_size": 128},
            [4, 6, 6],
            128 * 128,
        )
        # Places must be told apart beside pixels of full contrast; pretrained towers have learned that.
        torch.nn.init.normal_(made.model.visual.pos_embed.weight, std=0.5)
        made.save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


def expert() -> agentenv.Policy:
    return agentenv.make_policy("reference", say="nowhere")


_COMMON = {"max_new_tokens": 48, "play_batch": 64, "row_tokens": 1024, "save_every": 10}
STUDY: dict[str, Any] = {
    "env": env,
    "model": model,
    "expert": expert,
    "shown": 800,
    "held_out": 192,
    "cold": {**_COMMON, "steps": 60, "batch": 16, "learning_rate": 1e-3, "warmup": 30},
    "learn": {**_COMMON, "steps": 40, "groups": 8, "group": 8, "learning_rate": 2e-4, "warmup": 3, "method": "rloo"},
}
