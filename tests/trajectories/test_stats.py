from __future__ import annotations

import itertools
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agentenv.trajectories import Run
from agentenv.trajectories.stats import interval, pass_at_k, percentiles
from agentenv.trajectory import Score, ToolRun
from tests.trajectories.records import record


def test_figures_of_a_run() -> None:
    records = [record(f"t-{task}", sample, float(sample < task)) for task in range(3) for sample in range(2)]
    records.append(record("t-9", 0, None, stop="env_error", error_kind="timeout"))
    records[0].tool_runs.append(ToolRun("c", "find", 1, 2, cache="hit", seconds=1.0))
    stats = Run(records).stats()
    assert (stats.episodes, stats.tasks, stats.groups, stats.unscored, stats.problems) == (7, 4, 4, 1, 0)
    assert stats.reward is not None
    assert (stats.reward.mean, stats.reward.method, stats.reward.n) == (0.5, "wilson", 6)
    assert stats.pass_at == {1: 0.5, 2: pytest.approx(2 / 3)}
    assert {name: count for name, count in stats.pass_rates.items() if count} == {"0": 1, "(0.4, 0.5]": 1, "1": 1}
    assert stats.zero_variance == pytest.approx(2 / 3)
    assert stats.stop_reasons == {"answer": 6, "env_error": 1}
    assert stats.turns == {"p50": 2.0, "p90": 2.0, "p99": 2.0, "mean": 2.0}
    assert stats.tools["look"].kinds == {"timeout": 1}
    assert stats.tools["look"].error_rate == pytest.approx(1 / 7)
    assert (stats.tools["find"].cached, stats.tools["find"].seconds) == (1, 1.0)
    assert stats.cost == pytest.approx(7 * 0.031)
    data = json.loads(stats.to_json())
    assert data["pass_at"] == {"1": 0.5, "2": pytest.approx(2 / 3)}
    text = str(stats)
    assert "wilson, n=6" in text
    assert "tool look: 7 calls, 14.3% errors (timeout 1), 0 cached" in text
    assert "67% with equal rewards" in text
    assert "cost      0.2170 USD" in text


def test_an_environment_says_by_which_component_an_attempt_passes() -> None:
    """A discount takes a right answer below 1, a bonus a wrong one above it."""
    records = [record("t-0", sample, reward) for sample, reward in enumerate((0.91, 1.4, None))]
    for one, right in zip(records, (1.0, 0.0, 1.0), strict=True):
        assert one.outcome is not None
        one.env = replace(one.env, passes="accuracy")
        one.outcome = replace(one.outcome, rewards={"accuracy": Score(right)})
    run = Run(records)
    assert run.column("passed") == [True, False, None]
    assert run.groups()[0].passes == [True, False, None]
    assert (run.stats().pass_at[1], run.stats().passes) == (0.5, ["accuracy"])
    assert "(by accuracy)" in str(run.stats())
    by_reward = Run(records, pass_at=0.9)
    assert (by_reward.column("passed"), by_reward.stats().passes) == ([True, True, None], [""])
    assert "(by" not in str(by_reward.stats())


def test_a_reward_of_another_rubric_passes_by_itself() -> None:
    one = record(reward=0.5)
    one.env = replace(one.env, passes="accuracy")
    assert Run([one, record(reward=1.0)]).column("passed") == [False, True]


def test_what_is_no_share_has_a_median() -> None:
    records = [record(f"t-{number}") for number in range(5)]
    for one, km in zip(records, (0.5, 2.0, 40.0, 9000.0, None), strict=True):
        assert one.outcome is not None
        one.outcome = replace(one.outcome, rewards={"km": Score(km, 0.0), "near": Score(float((km or 9) < 3), 0.0)})
    stats = Run(records).stats()
    assert stats.medians == {"km": 21.0}
    assert "normal, n=4, median 21" in str(stats)
    assert json.loads(stats.to_json())["medians"] == {"km": 21.0}


def test_an_empty_run_and_one_without_rewards() -> None:
    empty = Run([]).stats()
    assert (empty.episodes, empty.reward, empty.pass_at, empty.zero_variance, empty.turns) == (0, None, {}, None, {})
    assert str(empty).startswith("episodes  0")
    assert Run([record(reward=None, calls=[], tool_runs=[])]).stats().cost == 0


def test_wilson_by_hand() -> None:
    """Nine of ten at 95 %: the interval that textbooks give."""
    found = interval([1.0] * 9 + [0.0])
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    sure = interval([1.0] * 4)
    assert sure is not None
    assert sure.high == 1.0
    assert sure.low < 0.6


def test_the_normal_interval_covers_the_mean() -> None:
    source = random.Random(0)
    hits = 0
    for _ in range(400):
        found = interval([source.uniform(0, 1) for _ in range(50)])
        assert found is not None
        assert found.method == "normal"
        hits += found.low <= 0.5 <= found.high
    assert 0.91 < hits / 400 < 0.98
    single = interval([0.3, None])
    assert single is not None
    assert (single.low, single.high) == (float("-inf"), float("inf"))
    assert interval([None]) is None


@given(st.lists(st.booleans(), min_size=1, max_size=7))
def test_pass_at_k_by_trying_all_draws(passes: list[bool]) -> None:
    for k, value in pass_at_k([[*passes, None]]).items():
        draws = list(itertools.combinations(passes, k))
        assert value == pytest.approx(sum(any(draw) for draw in draws) / len(draws))


def test_percentiles_are_nearest_rank() -> None:
    assert percentiles([float(i) for i in range(1, 101)]) == {"p50": 50.0, "p90": 90.0, "p99": 99.0, "mean": 50.5}
    assert percentiles([3.0, None]) == {"p50": 3.0, "p90": 3.0, "p99": 3.0, "mean": 3.0}


@pytest.mark.parametrize(("passed", "of", "name"), [(1, 10, "(0.0, 0.1]"), (3, 10, "(0.2, 0.3]"), (19, 20, "(0.9, 1)")])
def test_pass_rate_histogram(passed: int, of: int, name: str) -> None:
    stats = Run([record("t", i, float(i < passed)) for i in range(of)]).stats()
    assert {key: count for key, count in stats.pass_rates.items() if count} == {name: 1}


def test_a_tool_that_was_never_called_has_no_errors() -> None:
    from agentenv.trajectories.stats import ToolStats

    assert ToolStats().error_rate == 0.0
