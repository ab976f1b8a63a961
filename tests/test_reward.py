from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.errors import UsageError
from agentenv.policy import make_policy
from agentenv.reward import Component, Rubric, exact_match, import_path, total
from agentenv.rollout import play, play_group, score_group
from agentenv.task import TaskSet
from agentenv.trajectory import Score, Trajectory
from agentenv.types import Task, Text
from tests.playing import answer, call, last, steps
from tests.worlds import sums


def constant(value: Any) -> Any:
    return lambda task, trajectory: value


def rewarded(*components: Component) -> Any:
    """The reward of an episode answered rightly, and its record."""
    env = sums(rubric=Rubric(*components))
    result = last(env, call(a=1, b=2), answer(str(env.tasks[17].answer)))
    assert Trajectory.from_json(env.trajectory.to_json()) == env.trajectory
    return result.reward, env.trajectory


def test_the_total_is_the_weighted_sum_and_the_parts_are_kept_apart() -> None:
    reward, record = rewarded(Component("right", exact_match, 0.8), Component("half", constant(0.5), 0.4))
    assert reward == pytest.approx(1.0)
    assert record.outcome.rewards == {"right": Score(1.0, 0.8), "half": Score(0.5, 0.4)}


@pytest.mark.parametrize(
    ("gate", "expected"), [(1.0, 1.5), (0.001, 0.501), (0.0, 0.0), (-1.0, -1.0), (None, None)], ids=str
)
def test_a_gate_must_be_positive(gate: float | None, expected: float | None) -> None:
    reward, record = rewarded(Component("gate", constant(gate)), Component("extra", constant(0.5), gate="gate"))
    assert record.reward == expected
    assert math.isnan(reward) == (expected is None)


def test_gates_can_be_chained() -> None:
    chain = (
        Component("a", constant(0.0), 0),
        Component("b", constant(1.0), gate="a"),
        Component("c", constant(1.0), gate="b"),
    )
    _, record = rewarded(*chain)
    assert [s.value for s in record.outcome.rewards.values()] == [0.0, 0.0, 0.0]


def test_what_passes_is_one_of_the_components() -> None:
    right = Component("right", exact_match)
    assert (Rubric(right).passes, Rubric(right, passes="right").passes) == ("", "right")
    with pytest.raises(UsageError, match=r"passes='rihgt' is no component; did you mean \"right\""):
        Rubric(right, passes="rihgt")


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_unscored_is_never_zero(value: float | None) -> None:
    reward, record = rewarded(Component("right", exact_match), Component("judge", constant(value)))
    assert math.isnan(reward)
    assert record.reward is None
    assert record.outcome.rewards["judge"] == Score(None)
    assert record.outcome.rewards["right"] == Score(1.0)


def test_an_unscored_component_without_weight_does_no_harm() -> None:
    reward, _ = rewarded(Component("right", exact_match), Component("judge", constant(None), weight=0.0))
    assert reward == 1.0


@pytest.mark.parametrize("value", [True, 1, 1.0])
def test_whatever_is_a_number_counts_as_a_float(value: Any) -> None:
    import numpy

    for kind in (value, numpy.float32(value), numpy.int64(value), numpy.bool_(value)):
        reward, record = rewarded(Component("x", constant(kind)))
        assert (reward, type(record.reward)) == (1.0, float)


def test_step_components_give_one_value_a_turn() -> None:
    def per_turn(task: Task, trajectory: Trajectory) -> list[float]:
        return [0.25 * (i + 1) for i in range(len(trajectory.calls))]

    reward, record = rewarded(Component("process", per_turn, 2.0, scope="step"))
    assert reward == 1.5
    assert record.outcome.steps == {"process": [0.25, 0.5]}
    assert record.outcome.rewards["process"] == Score(0.75, 2.0)


@pytest.mark.parametrize("values", [None, [math.nan, 1.0]])
def test_unscored_steps(values: Any) -> None:
    _, record = rewarded(Component("process", constant(values), scope="step"))
    assert record.reward is None
    assert record.outcome.steps == {}


def rank(task: Task, group: Sequence[Trajectory]) -> list[float]:
    """Fewer turns than the others are better."""
    turns = [len(t.calls) for t in group]
    return [float(sum(mine < other for other in turns)) for mine in turns]


def test_group_components_wait_for_the_group() -> None:
    env = sums(rubric=Rubric(Component("right", exact_match), Component("rank", rank, scope="group")))
    record = asyncio.run(play(env, make_policy("reference"), env.tasks[0]))
    assert (record.reward, record.outcome and record.outcome.rewards["rank"]) == (None, Score(None))
    group = asyncio.run(play_group(env, make_policy("weak", skill=0.5), env.tasks[0], 8))
    assert all(t.outcome and t.outcome.rewards["rank"].value is not None for t in group)
    assert [t.reward for t in group] == [total(t.outcome.rewards) for t in group if t.outcome], (
        "the total counts the group's part"
    )
    assert len({t.reward for t in group}) > 1


def test_an_unscored_attempt_is_left_out_of_its_group() -> None:
    seen: list[int] = []

    def count(task: Task, group: Sequence[Trajectory]) -> list[float]:
        seen.append(len(group))
        return [1.0] * len(group)

    env = sums(rubric=Rubric(Component("count", count, scope="group")))
    group = asyncio.run(play_group(env, make_policy("reference"), env.tasks[0], 3))
    assert group[1].outcome is not None
    from msgspec.structs import replace

    group[1].outcome = replace(group[1].outcome, stop_reason="policy_error", reward=None, rewards={})
    again = score_group(env, env.tasks[0], group)
    assert seen == [3, 2]
    assert [t.reward for t in again] == [1.0, None, 1.0]


def test_a_group_component_must_answer_for_every_attempt() -> None:
    env = sums(rubric=Rubric(Component("short", lambda task, group: [1.0], scope="group")))
    with pytest.raises(UsageError, match=r"'short' gave 1 values for 2"):
        asyncio.run(play_group(env, make_policy("reference"), env.tasks[0], 2))


def test_a_group_component_can_be_gated_and_can_gate_another() -> None:
    rubric = Rubric(
        Component("right", constant(0.0)),
        Component("rank", lambda task, group: [1.0] * len(group), gate="right", scope="group"),
        Component("more", lambda task, group: [1.0] * len(group), gate="rank", scope="group"),
    )
    env = sums(rubric=rubric)
    (record,) = asyncio.run(play_group(env, make_policy("reference"), env.tasks[0], 1))
    assert record.reward == 0.0


@pytest.mark.parametrize(
    ("components", "why"),
    [
        ([Component("a", exact_match), Component("a", exact_match)], "two reward components"),
        ([Component("a", exact_match, gate="b"), Component("b", exact_match)], "no earlier component"),
        ([Component("a", exact_match, gate="a")], "no earlier component"),
        ([Component("g", rank, scope="group"), Component("a", exact_match, gate="g")], "whole group"),
    ],
)
def test_a_rubric_that_makes_no_sense_is_refused(components: list[Component], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Rubric(*components)


def test_saved_records_can_be_scored_again() -> None:
    env = sums(rubric=Rubric(Component("right", exact_match, 0.5), Component("short", short, gate="right")))
    for turns in ([answer("80")], [call(a=1, b=2), answer("0")], [call(a=1, b=2)] * 10):
        env.reset(options={"task": "sum-0"})
        for turn in turns:
            env.step(turn)
        saved = Trajectory.from_json(env.trajectory.to_json())
        assert saved.outcome is not None
        assert env.rubric.score(saved.task, saved) == (saved.reward, saved.outcome.rewards, saved.outcome.steps)


def short(task: Task, trajectory: Trajectory) -> float:
    return 1.0 / len(trajectory.calls)


@pytest.mark.parametrize(
    ("reference", "given", "expected"),
    [
        ("Paris", " paris ", 1.0),
        ("STRASSE", "straße", 1.0),
        ("Paris", "Paris, France", 0.0),
        (["a", "B"], "A, b", 1.0),
        (["a", "b"], "b, a", 0.0),
        ([], "", 1.0),
        (42, "42", 1.0),
        (2.5, "2.5", 1.0),
        ("", "", 1.0),
        ("x", "", 0.0),
        (None, "", None),
    ],
)
def test_exact_match(reference: Any, given: str, expected: float | None) -> None:
    env = sums(tasks=TaskSet.of([Task("t", (Text("?"),), reference)]))
    last(env, answer(given))
    assert env.trajectory.reward == expected


def test_no_answer_is_wrong() -> None:
    env = sums()
    steps(env, "", "")
    assert (env.trajectory.answer, env.trajectory.reward) == (None, 0.0)


def test_the_rubric_as_plain_data() -> None:
    class Judge:
        def __call__(self, task: Task, trajectory: Trajectory) -> float:
            return 1.0

    rubric = Rubric(Component("a", exact_match), Component("j", Judge(), 0.5, "a", "episode"))
    first, second = rubric.spec()
    assert first == {
        "name": "a",
        "fn": "agentenv.reward:exact_match",
        "weight": 1.0,
        "gate": "",
        "scope": "episode",
    }
    assert second["fn"].endswith("Judge")
    assert import_path(short) == f"{__name__}:short"


_SCORES = st.dictionaries(
    st.text(max_size=3), st.builds(Score, st.none() | st.floats(-9, 9), st.sampled_from([0.0, 0.5, 1.0, -1.0]))
)


@given(_SCORES)
def test_total(scores: dict[str, Score]) -> None:
    counted = [s for s in scores.values() if s.weight]
    if any(s.value is None for s in counted):
        assert total(scores) is None
    else:
        assert total(scores) == pytest.approx(sum(s.weight * (s.value or 0.0) for s in counted))
