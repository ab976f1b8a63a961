"""How an episode ends, in the terms of Gymnasium."""

from __future__ import annotations

from typing import Any

from agentenv.reward import total
from agentenv.trajectory import Trajectory
from agentenv.types import Observation, StepResult, StopReason

TERMINATED = frozenset(reason for reason in StopReason if reason.terminated)
UNSCORED = frozenset(reason.value for reason in StopReason if reason.unscored)


def last_step(observation: Observation, record: Trajectory, late: frozenset[str]) -> StepResult:
    """The result of the last step. Components that only a whole group can have (`late`) are left out of its reward."""
    outcome = record.outcome
    assert outcome is not None
    known = outcome.reward
    if late and outcome.stop_reason not in UNSCORED:
        known = total({name: score for name, score in outcome.rewards.items() if name not in late})
    info: dict[str, Any] = {
        "stop_reason": outcome.stop_reason,
        "answer": outcome.answer,
        "rewards": {name: score.value for name, score in outcome.rewards.items()},
        "unscored": known is None,
    }
    reward = float("nan") if known is None else known
    return StepResult(observation, reward, outcome.terminated, outcome.truncated, info)
