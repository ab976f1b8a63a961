"""Rewards: named components with weights and gates, as pure functions of a task and its finished trajectory.

A component returns a float, or None for unscored (a judge that did not answer, a missing reference): an unscored
component makes the whole reward None, never 0; a value that is not finite (NaN, infinity) counts as None. Components
read structured turns, and of the text only what the policy wrote itself, since tool output can contain any tag. Being
pure, they can score saved trajectories again.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from msgspec import Struct

from agentenv.calling import wait_for
from agentenv.errors import UsageError, did_you_mean
from agentenv.trajectory import Score, Trajectory
from agentenv.types import Task

EpisodeReward = Callable[[Task, Trajectory], "float | None"]
StepReward = Callable[[Task, Trajectory], "Sequence[float] | None"]
GroupReward = Callable[[Task, Sequence[Trajectory]], "Sequence[float | None]"]


class Component(Struct, frozen=True):
    """One named part of a reward.

    Args:
        name: how the record calls it.
        fn: for scope "episode": (task, trajectory) -> float | None. For "step": -> one float a policy turn, whose sum
            is the value. Both may be async. For "group": (task, trajectories) -> one float | None each, computed when
            the group is complete.
        weight: factor in the total; 0 records the component without rewarding it.
        gate: name of an earlier component that must be positive, else this one counts 0.
    """

    name: str
    fn: Callable[..., Any]
    weight: float = 1.0
    gate: str = ""
    scope: Literal["episode", "step", "group"] = "episode"


class Scored(NamedTuple):
    """The reward of an episode: its total (None if a weighted component is unscored), the scores by name, and the
    per-turn values of step components.
    """

    reward: float | None
    scores: dict[str, Score]
    steps: dict[str, list[float]]


class Rubric:
    """The components of an environment's reward; the total is their weighted sum.

    Args:
        components: in the order in which they are computed; a gate must name an earlier one.
        passes: the component that says whether an attempt passed, from 1 on, where the total does not, since a format
            bonus or a discount moves it; "" for the total.

    Raises:
        UsageError: two components share a name, a gate names none of the earlier ones, or it names a group component
            although the gated one is computed for each episode by itself; `passes` names none.
    """

    def __init__(self, *components: Component, passes: str = "") -> None:
        names: list[str] = []
        late: list[str] = []
        for part in components:
            if part.name in names:
                raise UsageError(f"two reward components are called {part.name!r}")
            if part.gate and part.gate not in names:
                raise UsageError(f"component {part.name!r}: its gate {part.gate!r} is no earlier component")
            if part.scope != "group" and part.gate in late:
                raise UsageError(f"component {part.name!r}: its gate {part.gate!r} is known only for a whole group")
            names.append(part.name)
            late += [part.name] if part.scope == "group" else []
        if passes and passes not in names:
            raise UsageError(f"passes={passes!r} is no component{did_you_mean(passes, names)}")
        self.components, self.passes = components, passes
        self.is_async = any(_is_async(part.fn) for part in components)
        self.late = frozenset(part.name for part in components if part.scope == "group")
        self.has_group_scope = bool(self.late)

    def score(self, task: Task, trajectory: Trajectory) -> Scored:
        """The reward of an episode. Group components are unscored here; `score_group` fills them in."""
        if self.is_async:
            return wait_for(self.ascore(task, trajectory))
        scored = Scored(None, {}, {})
        for part in self.components:
            if not _settled(part, scored.scores):
                _take(part, part.fn(task, trajectory), scored)
        return scored._replace(reward=total(scored.scores))

    async def ascore(self, task: Task, trajectory: Trajectory) -> Scored:
        """As `score`, for rubrics with async components."""
        scored = Scored(None, {}, {})
        for part in self.components:
            if not _settled(part, scored.scores):
                value = part.fn(task, trajectory)
                _take(part, await value if inspect.isawaitable(value) else value, scored)
        return scored._replace(reward=total(scored.scores))

    def score_group(
        self, task: Task, trajectories: Sequence[Trajectory], scored: Sequence[dict[str, Score]]
    ) -> list[dict[str, Score]]:
        """The scores of every member with the group components filled in; `scored` are theirs from `score`."""
        filled = [dict(scores) for scores in scored]
        for part in self.components:
            if part.scope != "group":
                continue
            values = list(part.fn(task, trajectories))
            if len(values) != len(filled):
                raise UsageError(f"component {part.name!r} gave {len(values)} values for {len(filled)} trajectories")
            for scores, value in zip(filled, values, strict=True):
                scores[part.name] = Score(self._gated(part, _number(value), scores), part.weight)
        return filled

    @staticmethod
    def _gated(part: Component, value: float | None, scores: dict[str, Score]) -> float | None:
        if not part.gate:
            return value
        gate = scores[part.gate].value
        if gate is None:
            return None
        return value if gate > 0 else 0.0

    def spec(self) -> tuple[dict[str, Any], ...]:
        """The components as plain data, with the import path of each function."""
        return tuple(
            {"name": c.name, "fn": import_path(c.fn), "weight": c.weight, "gate": c.gate, "scope": c.scope}
            for c in self.components
        )


def _settled(part: Component, scores: dict[str, Score]) -> bool:
    """Whether a component has its score without being computed: of a group, or behind a gate that is not open.

    What a shut gate would not count is not computed either: judges cost money.
    """
    if part.scope == "group":
        scores[part.name] = Score(None, part.weight)
        return True
    gate = scores[part.gate].value if part.gate else 1.0
    if gate is not None and gate > 0:
        return False
    scores[part.name] = Score(None if gate is None else 0.0, part.weight)
    return True


def _take(part: Component, value: Any, scored: Scored) -> None:
    if part.scope == "step" and value is not None:
        values = [float(v) for v in value]
        value = _number(sum(values))
        if value is not None:
            scored.steps[part.name] = values
    scored.scores[part.name] = Score(_number(value), part.weight)


def _number(value: Any) -> float | None:
    """A component's value as records can hold it: a plain float, or None where it is not finite."""
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def total(scores: dict[str, Score]) -> float | None:
    """Weighted sum of the scores; None where one with a weight other than 0 is unscored."""
    amount = 0.0
    for score in scores.values():
        if score.weight == 0.0:
            continue
        if score.value is None:
            return None
        amount += score.weight * score.value
    return amount


def _is_async(fn: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


def import_path(fn: Callable[..., Any]) -> str:
    """Where a function stands, as module:name; for a callable object, its class."""
    named = fn if hasattr(fn, "__qualname__") else type(fn)
    return f"{named.__module__}:{named.__qualname__}"


def exact_match(task: Task, trajectory: Trajectory) -> float | None:
    """1.0 where the answer equals the reference, case and outer blanks aside; None where the task has no reference.

    Lists are compared in order, joined by ", ".
    """
    if task.answer is None:
        return None
    if trajectory.answer is None:
        return 0.0
    several = isinstance(task.answer, (list, tuple))
    reference = ", ".join(map(str, task.answer)) if several else str(task.answer)
    return float(trajectory.answer.strip().casefold() == reference.strip().casefold())
