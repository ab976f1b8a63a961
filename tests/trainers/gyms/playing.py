"""Turns of the demonstrator, which the trainers' own loops are given instead of a model's."""

from __future__ import annotations

from typing import Any

import agentenv
from agentenv.policy import make_policy
from agentenv.rollout import play

EASY: dict[str, Any] = {"seed": 3, "difficulty": 1}
SEEN: dict[str, Any] = {"seed": 1, "difficulty": 1, "size": [1536, 1024], "first_view": 256}


async def demonstrated(name: str, count: int, **options: Any) -> list[list[str]]:
    """The demonstrator's turns in the first tasks."""
    env = agentenv.make(name, **options)
    records = [await play(env.clone(), make_policy("reference"), task) for task in env.tasks.take(count)]
    return [[node.message.text for node in r.path() if node.origin == "sampled"] for r in records]
