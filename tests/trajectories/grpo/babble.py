"""An environment for a model with random weights: whatever it babbles is rewarded for its length, even or odd."""

from __future__ import annotations

from typing import Any

from agentenv.env import Env
from agentenv.policy.transformers import TransformersPolicy
from agentenv.reward import Component, Rubric
from agentenv.spec import Limits
from agentenv.task import TaskSet
from agentenv.trajectory import Trajectory
from agentenv.types import Task, Text
from tests.policy.tiny import tiny


def even(task: Task, trajectory: Trajectory) -> float:
    """1.0 where the turns have an even number of characters in all."""
    said = "".join(message.text for message in trajectory.messages if message.role == "assistant")
    return float(len(said) % 2 == 0)


def babble(size: int | None = None, **options: Any) -> Env:
    """Two turns, whatever is said."""
    parts: dict[str, Any] = {
        "id": "babble",
        "tasks": TaskSet.generate(lambda index: Task(f"b-{index}", (Text(f"Say {index}."),), "x"), size, name="babble"),
        "dialect": "tags",
        "system": "Go.",
        "limits": Limits(turns=2, invalid_turns=5, on_turns="stop"),
        "rubric": Rubric(Component("even", even)),
    }
    return Env(**{**parts, **options})


def policy(**options: Any) -> TransformersPolicy:
    """The tiny model with fresh weights: the same in every call."""
    import copy

    model, tokenizer = tiny()
    settings: dict[str, Any] = {"max_new_tokens": 6, "batch_size": 1, "batch_wait": 0.0}
    return TransformersPolicy(copy.deepcopy(model), tokenizer, **{**settings, **options})
