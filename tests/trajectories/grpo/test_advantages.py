from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.errors import UnknownNameError, UsageError
from agentenv.trajectories.grpo import (
    METHODS,
    advantages,
    branched,
    copg,
    copg_loss,
    dr_grpo,
    grpo,
    process_grpo,
    reinforce_pp,
    rloo,
    zero_variance,
)

REWARDS = st.lists(st.one_of(st.none(), st.floats(-100, 100, width=32)), min_size=1, max_size=16)


def test_figures_by_hand() -> None:
    assert dr_grpo([1.0, 0.0, 0.0, 1.0]) == [0.5, -0.5, -0.5, 0.5]
    assert rloo([1.0, 0.0, 0.0]) == pytest.approx([1.0, -0.5, -0.5])
    assert grpo([1.0, 0.0, 0.0, 1.0], eps=0.0) == pytest.approx([0.8660254, -0.8660254, -0.8660254, 0.8660254])
    assert grpo([1.0, 0.0, 0.0, 1.0], eps=0.0, ddof=0) == pytest.approx([1.0, -1.0, -1.0, 1.0])


@given(REWARDS)
def test_grpo_as_numpy_computes_it(rewards: list[float | None]) -> None:
    scored = np.array([r for r in rewards if r is not None])
    if len(scored) < 2 or zero_variance(rewards):
        return
    expected = (scored - scored.mean()) / (scored.std(ddof=1) + 1e-4)
    got = [a for a in grpo(rewards) if a is not None]
    assert got == pytest.approx(expected.tolist(), rel=1e-6, abs=1e-6)


@given(REWARDS)
def test_rloo_is_the_reward_less_the_mean_of_the_others(rewards: list[float | None]) -> None:
    scored = [r for r in rewards if r is not None]
    if len(scored) < 2:
        return
    others = [r - (math.fsum(scored) - r) / (len(scored) - 1) for r in scored]
    assert [a for a in rloo(rewards) if a is not None] == pytest.approx(others, rel=1e-6, abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
@given(rewards=REWARDS)
def test_what_all_methods_share(method: str, rewards: list[float | None]) -> None:
    result = advantages(rewards, method)
    assert [a is None for a in result] == [r is None for r in rewards]
    known = [a for a in result if a is not None]
    assert math.fsum(known) == pytest.approx(0, abs=1e-3)
    if zero_variance(rewards):
        assert known == [0.0] * len(known)
    alone = advantages([r for r in rewards if r is not None], method)
    assert alone == known, "unscored attempts change nothing"


@pytest.mark.parametrize("method", METHODS)
def test_small_and_odd_groups(method: str) -> None:
    assert advantages([], method) == []
    assert advantages([None, None], method) == [None, None]
    assert advantages([0.7], method) == [0.0]
    assert advantages([None, 0.7], method) == [None, 0.0]
    assert advantages([1.0, 1.0, None], method) == [0.0, 0.0, None]
    nan = advantages([1.0, 0.0, math.nan], method)
    assert nan[2] is None
    assert nan[:2] == advantages([1.0, 0.0], method)


def test_zero_variance() -> None:
    assert zero_variance([None])
    assert zero_variance([0.1 + 0.2, 0.3])
    assert not zero_variance([0.3, 0.3001])
    assert statistics.pstdev([0.1 + 0.2, 0.3]) > 0


def test_unknown_method() -> None:
    with pytest.raises(UnknownNameError, match='did you mean "dr_grpo"'):
        advantages([1.0], "drgrpo")


@given(st.lists(REWARDS, min_size=1, max_size=5), st.data())
def test_reinforce_pp_as_numpy_computes_it(groups: list[list[float | None]], data: st.DataObject) -> None:
    tokens = [[data.draw(st.integers(1, 9)) for _ in rewards] for rewards in groups]
    got = reinforce_pp(groups, tokens)
    assert [[a is None for a in row] for row in got] == [[r is None for r in row] for row in groups]
    centred, counts = [], []
    for rewards, numbers in zip(groups, tokens, strict=True):
        scored = np.array([r for r in rewards if r is not None])
        centred += (scored - scored.mean() if not zero_variance(rewards) else scored * 0).tolist()
        counts += [n for n, r in zip(numbers, rewards, strict=True) if r is not None]
    if sum(counts) < 2:
        return
    each = np.repeat(centred, counts)
    expected = (np.array(centred) - each.mean()) / np.sqrt(each.var(ddof=1) + 1e-8)
    assert [a for row in got for a in row if a is not None] == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-4)


def test_reinforce_pp_counts_attempts_where_no_tokens_are_given() -> None:
    assert reinforce_pp([[1.0, 0.0], [1.0, 1.0]], eps=0.0)[1] == [0.0, 0.0]
    assert reinforce_pp([[None], [3.0]]) == [[None], [0.0]]
    assert reinforce_pp([]) == []


@given(REWARDS.filter(lambda rewards: len(rewards) > 1), st.data())
def test_without_shared_turns_branches_are_rloo(rewards: list[float | None], data: st.DataObject) -> None:
    paths = [[(i, t) for t in range(data.draw(st.integers(1, 3)))] for i in range(len(rewards))]
    for row, single in zip(branched(rewards, paths), rloo(rewards), strict=True):
        assert all(a is None if single is None else a == pytest.approx(single, rel=1e-6, abs=1e-3) for a in row)


@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=8), st.data())
def test_a_shared_turn_is_judged_by_all_that_came_of_it(rewards: list[float], data: st.DataObject) -> None:
    firsts = [data.draw(st.integers(0, 2)) for _ in rewards]
    got = branched(rewards, [[("first", first), ("own", i)] for i, first in enumerate(firsts)])
    values, of = np.array(rewards), np.array(firsts)
    for i, (first, own) in enumerate(got):
        through, beside = values[of == firsts[i]], values[of != firsts[i]]
        assert first == pytest.approx(through.mean() - beside.mean() if len(beside) else 0.0, abs=1e-6)
        assert own == pytest.approx(values[i] - np.delete(values, i).mean(), abs=1e-6)


def test_branches_and_what_they_lack() -> None:
    assert branched([1.0, None, 0.0], [["a", "x"], ["a", "y"], ["b"]]) == [[1.0, 1.0], [None, None], [-1.0]]
    with pytest.raises(UsageError, match="1 rewards for 0 branches"):
        branched([1.0], [])


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=2, max_size=6), st.floats(0, 2))
def test_copg_is_the_gradient_of_its_pairs(pairs: list[tuple[float, float]], beta: float) -> None:
    rewards, ratios = [r for r, _ in pairs], [x for _, x in pairs]
    whole = np.array(rewards) - beta * np.array(ratios)
    loss = sum((whole[i] - whole[j]) ** 2 for i in range(len(pairs)) for j in range(i + 1, len(pairs)))
    assert copg_loss(rewards, ratios, beta) == pytest.approx(loss / (len(pairs) - 1), abs=1e-9)
    step = 1e-4
    for i, advantage in enumerate(copg(rewards, ratios, beta)):
        above = copg_loss(rewards, [x + step * (i == j) for j, x in enumerate(ratios)], beta)
        below = copg_loss(rewards, [x - step * (i == j) for j, x in enumerate(ratios)], beta)
        assert advantage is not None
        assert (above - below) / (2 * step) == pytest.approx(-2 * beta * advantage, abs=1e-5)


def test_copg_leaves_out_what_is_unscored() -> None:
    assert copg([1.0, None, 0.0], [0.0, 9.0, 0.0]) == [1.0, None, -1.0]
    assert copg_loss([1.0, None], [0.0, 0.0]) == 0.0
    with pytest.raises(UsageError, match="2 rewards for 1 log-ratios"):
        copg([1.0, 0.0], [0.0])


@given(st.lists(st.lists(st.floats(-5, 5, width=32), max_size=4), min_size=1, max_size=5))
def test_rewards_of_turns_as_numpy_computes_them(steps: list[list[float]]) -> None:
    flat = np.array([value for values in steps for value in values])
    got = process_grpo(steps)
    assert [len(values) for values in got] == [len(values) for values in steps]
    if len(flat) < 2 or zero_variance(flat.tolist()):
        assert all(value == 0 for values in got for value in values)
        return
    for values, result in zip(steps, got, strict=True):
        normal = (np.array(values) - flat.mean()) / (flat.std(ddof=1) + 1e-4)
        assert result == pytest.approx(normal[::-1].cumsum()[::-1].tolist(), rel=1e-5, abs=1e-5)
