from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from agentenv.errors import UsageError
from agentenv.trajectories.grpo import Member, Rules, contested, judged
from agentenv.trajectories.grpo.groups import drawn
from agentenv.trajectories.run import Run
from agentenv.trajectory import Outcome, Trajectory
from agentenv.types import StopReason
from tests.trajectories.records import record


def ended(stop: StopReason, reward: float | None = 0.5, *, masked: bool = False) -> Trajectory:
    return record(outcome=Outcome(stop.value, stop.terminated, not stop.terminated, reward, masked=masked))


def test_mini_o3_masks_over_turn_episodes_but_keeps_them_in_the_statistics() -> None:
    over = ended(StopReason.MAX_TURNS, 0.0, masked=True)
    assert judged(over) == Member(0.0, trained=False)
    assert judged(over, Rules(masked="drop")) == Member(None, trained=False)
    assert judged(over, Rules(masked="keep")) == Member(0.0, trained=True)


@pytest.mark.parametrize(
    ("stop", "rule"),
    [(StopReason.LENGTH, "overlong"), (StopReason.MAX_TURNS, "overlong"), (StopReason.INVALID, "broken")],
)
def test_overlong_and_broken_episodes_by_choice(stop: StopReason, rule: str) -> None:
    assert judged(ended(stop)) == Member(0.5, trained=True)
    assert judged(ended(stop), Rules(**{rule: "mask"})) == Member(0.5, trained=False)  # type: ignore[arg-type]
    assert judged(ended(stop), Rules(**{rule: "drop"})) == Member(None, trained=False)  # type: ignore[arg-type]


def test_unscored_episodes_never_count() -> None:
    everything = Rules("keep", "keep", "keep")
    assert judged(ended(StopReason.POLICY_ERROR, None), everything) == Member(None, trained=False)
    assert judged(record(outcome=None), everything) == Member(None, trained=False)
    assert judged(ended(StopReason.ANSWER)) == Member(0.5, trained=True)


def test_a_treatment_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="overlong='zero': must be one of keep, mask, drop"):
        Rules(overlong="zero")  # type: ignore[arg-type]


def test_groups_of_equal_rewards_are_drawn_again() -> None:
    drawn = []

    def groups() -> Iterator[list[float]]:
        for number in range(100):
            drawn.append(number)
            yield [1.0, float(number % 3 == 0)]

    found: Any = contested(groups(), 2, rewards=lambda group: group)
    assert (len(found.groups), found.drawn, found.equal, found.full) == (2, 3, 1, True)
    assert drawn == [0, 1, 2], "no more is played than is needed"


def test_the_bound_on_drawing_again() -> None:
    equal = [[1.0, 1.0]] * 50
    found = contested(equal, 2, most=5, rewards=lambda group: group)
    assert (found.groups, found.drawn, found.equal, found.full) == ([], 5, 5, False)
    assert contested(equal, 2, rewards=lambda group: group).drawn == 20
    assert contested([], 2).drawn == 0
    with pytest.raises(UsageError, match="at least 1"):
        contested(equal, 0)
    with pytest.raises(UsageError, match="no more than the bound"):
        contested(equal, 3, most=2)


def test_a_set_is_gone_through_in_rounds() -> None:
    whole = drawn(5, 0, 20, seed=3)
    assert [sorted(whole[i : i + 5]) for i in range(0, 20, 5)] == [[0, 1, 2, 3, 4]] * 4
    assert whole[:5] != whole[5:10]
    assert drawn(5, 7, 6, seed=3) == whole[7:13]
    assert drawn(5, 0, 0, seed=3) == []


def test_groups_of_a_run_and_lists_of_records() -> None:
    run = Run([record(task, sample, float(task == "a" and sample == 0)) for task in "abc" for sample in range(3)])
    whole = contested(run.groups(), 3)
    listed = contested([list(group) for group in run.groups()], 3)
    assert (whole.drawn, whole.equal) == (listed.drawn, listed.equal) == (3, 2)
