"""The study on tables: SmolLM2-135M writes SQL and reads the answer off the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import agentenv
from agentenv.env import Env
from tests.policy.smollm import smollm_folder


def env(split: str) -> Env:
    """Look-ups and counts over one table of 30 countries; what is asked never occurs in both splits."""
    return agentenv.make(
        "table",
        difficulty=1,
        kinds=["lookup", "count"],
        split=split,
        tools=["table_query"],
        dialect="tags",
        system="Answer with the tool.",
        limits={"turns": 3, "on_turns": "stop"},
    )


def model(out: Path, seed: int) -> Path:
    return smollm_folder()


def expert() -> agentenv.Policy:
    return agentenv.make_policy("reference", say="nowhere")


_COMMON = {"dtype": "bfloat16", "max_new_tokens": 48, "play_batch": 32, "row_tokens": 1100, "save_every": 4}
STUDY: dict[str, Any] = {
    "env": env,
    "model": model,
    "expert": expert,
    "shown": 64,
    "held_out": 192,
    "cold": {**_COMMON, "steps": 8, "batch": 8, "learning_rate": 1e-4, "warmup": 3},
    "learn": {**_COMMON, "steps": 36, "groups": 8, "group": 4, "learning_rate": 3e-5, "warmup": 2, "method": "rloo"},
}
