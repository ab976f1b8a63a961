from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from agentenv.env import Env
from agentenv.errors import DataError, InfrastructureError, PolicyError, StoreError, WorkerError
from agentenv.policy import make_policy
from agentenv.policy.base import Policy
from agentenv.reward import Component, Rubric, exact_match
from agentenv.rollout import episode_seed, play, play_group, play_many
from agentenv.spec import Limits
from agentenv.tool import tool
from agentenv.trajectory import Trajectory
from agentenv.types import Action, Observation, StopReason, Task
from tests.playing import answer, call, check_record
from tests.worlds import add, sum_task, sums


class Calls(Policy):
    """Does what a function says; `before` is awaited first."""

    def __init__(self, turn: Callable[[Observation], str | Action], wait: float = 0.0) -> None:
        self.turn, self.wait = turn, wait

    async def act(self, observation: Observation) -> Any:
        if self.wait:
            await asyncio.sleep(self.wait)
        return self.turn(observation)


class Fails(Policy):
    """Fails in the episodes that `when` names (by task id and the how-manieth begin of it), else answers."""

    def __init__(self, error: Exception, when: Callable[[str, int], bool]) -> None:
        self.error, self.when = error, when
        self.begun: dict[str, int] = {}

    def begin(self, task: Task, *, seed: int, sample: int = 0) -> Policy:
        count = self.begun[task.id] = self.begun.get(task.id, -1) + 1
        if self.when(task.id, count):
            return Calls(self._raise)
        return Calls(lambda observation: answer("1"))

    def _raise(self, observation: Observation) -> str:
        raise self.error

    async def act(self, observation: Observation) -> Action:
        raise AssertionError


def many(env: Env, policy: Policy, tasks: int = 20, **options: Any) -> list[Trajectory]:
    kept: list[Trajectory] = []
    jobs = ((env.tasks[i], sample) for i in range(tasks) for sample in range(options.get("group", 1)))
    asyncio.run(play_many(env, policy, jobs, kept.append, **options))
    return kept


def content(record: Trajectory) -> Any:
    return (record.task.id, record.group.index, record.seed, record.messages, record.reward, record.stop_reason)


def by_job(records: list[Trajectory]) -> list[Any]:
    return sorted(map(content, records), key=lambda c: (c[0], c[1]))


# -- seeds and order


def test_a_seed_depends_on_run_task_and_attempt_and_on_nothing_else() -> None:
    task = sum_task(3)
    assert episode_seed(0, task, 0) == episode_seed(0, sum_task(3), 0)
    others = [episode_seed(1, task, 0), episode_seed(0, sum_task(4), 0), episode_seed(0, task, 1)]
    others.append(episode_seed(0, Task("sum-3", task.prompt, seed=1), 0))
    assert len({episode_seed(0, task, 0), *others}) == 5
    assert all(0 <= seed < 2**31 for seed in others)
    assert episode_seed(0, task, 0) == 1653499276, "equal in every process and version: run folders are resumed by it"


@pytest.mark.parametrize("policy", ["random", "weak"])
def test_what_is_played_does_not_depend_on_concurrency_or_order(policy: str) -> None:
    env = sums()
    runs = [many(env, make_policy(policy), group=3, concurrency=n, seed=7) for n in (1, 5, 60)]
    assert by_job(runs[0]) == by_job(runs[1]) == by_job(runs[2])
    assert by_job(runs[0]) != by_job(many(env, make_policy(policy), group=3, seed=8))
    assert len({r.id for r in runs[0]}) == 60
    for record in runs[0]:
        check_record(record)
    kept: list[Trajectory] = []
    jobs = [(env.tasks[i], sample) for sample in (2, 0, 1) for i in reversed(range(20))]
    asyncio.run(play_many(env, make_policy(policy), jobs, kept.append, group=3, seed=7))
    assert by_job(kept) == by_job(runs[0])


def test_attempts_of_a_group_have_seeds_of_their_own() -> None:
    env = sums()
    group = asyncio.run(play_group(env, make_policy("random"), env.tasks[0], 6, seed=3))
    assert [t.group.index for t in group] == list(range(6))
    assert {t.group.id for t in group} == {"sum-0"}
    assert {t.group.size for t in group} == {6}
    assert len({t.seed for t in group}) == 6
    assert len({repr(t.messages) for t in group}) > 1
    alone = asyncio.run(play(env, make_policy("random"), env.tasks[0], seed=3, sample=4, group=6))
    assert content(alone) == content(group[4])


def test_episodes_run_at_once_and_no_more_than_allowed() -> None:
    running: list[int] = [0, 0]

    class Counts(Policy):
        async def act(self, observation: Observation) -> Action:
            running[0] += 1
            running[1] = max(running)
            await asyncio.sleep(0.002)
            running[0] -= 1
            return Action(answer("1"))

    assert len(many(sums(), Counts(), concurrency=7)) == 20
    assert running[1] == 7


def test_records_are_handed_over_as_they_finish() -> None:
    order: list[str] = []

    class Slow(Policy):
        def begin(self, task: Task, *, seed: int, sample: int = 0) -> Policy:
            return Calls(lambda observation: answer("1"), 0.05 if task.id == "sum-0" else 0.001)

        async def act(self, observation: Observation) -> Action:
            raise AssertionError

    env = sums()
    jobs = ((task, 0) for task in env.tasks.take(4))
    asyncio.run(play_many(env, Slow(), jobs, lambda record: order.append(record.task.id), concurrency=2))
    assert order == ["sum-1", "sum-2", "sum-3", "sum-0"]


# -- what goes wrong


def test_a_policy_that_fails_leaves_an_unscored_record() -> None:
    env = sums()
    record = asyncio.run(play(env, Fails(PolicyError("the server is down"), lambda task, n: True), env.tasks[0]))
    assert record.outcome is not None
    assert (record.stop_reason, record.reward, record.outcome.truncated) == ("policy_error", None, True)
    assert record.outcome.error is not None
    assert (record.outcome.error.type, record.outcome.error.message) == ("PolicyError", "the server is down")
    assert record.outcome.error.trace == "", "no bug, no traceback"


@pytest.mark.parametrize("error", [KeyError("bug"), WorkerError("gone"), MemoryError()], ids=repr)
def test_a_policy_that_breaks_is_to_blame_itself(error: Exception) -> None:
    env = sums()
    record = asyncio.run(play(env, Fails(error, lambda task, n: True), env.tasks[0]))
    assert record.outcome is not None
    assert record.outcome.error is not None
    assert (record.stop_reason, record.outcome.error.type) == ("policy_error", type(error).__name__)
    assert bool(record.outcome.error.trace) == (not isinstance(error, InfrastructureError))


def test_a_policy_that_returns_rubbish_does_not_stop_the_others() -> None:
    env = sums()
    records = many(env, Calls(lambda observation: 3))  # type: ignore[arg-type,return-value]
    assert {r.stop_reason for r in records} == {"env_error"}
    assert len(records) == 20


@pytest.mark.parametrize("error", [KeyError("no table"), WorkerError("no worker")], ids=repr)
def test_an_environment_that_cannot_start_a_task_records_that_and_goes_on(error: Exception) -> None:
    def bind(task: Task) -> dict[str, Any]:
        if task.id == "sum-3":
            raise error
        return {}

    records = many(sums(bind=bind), make_policy("reference"))
    broken = [r for r in records if r.stop_reason != "answer"]
    assert [(r.task.id, r.stop_reason, r.reward) for r in broken] == [("sum-3", "env_error", None)]
    assert len(records) == 20
    assert [n.message.role for n in broken[0].nodes] == ["system", "user"]


def test_a_tool_whose_infrastructure_breaks_ends_its_episode_unscored() -> None:
    @tool(inline=True, name="add")
    def gone(a: int, b: int) -> str:
        """Add.

        Args:
            a: one.
            b: two.
        """
        raise WorkerError("the worker died")

    env = sums(tools=(gone,))
    record = asyncio.run(play(env, make_policy("reference"), env.tasks[0]))
    assert (record.stop_reason, record.reward) == ("env_error", None)
    assert record.outcome is not None
    assert record.outcome.error is not None
    assert record.outcome.error.message == "the worker died"


def test_a_rubric_that_breaks_for_one_task_does_not_stop_the_others() -> None:
    def fragile(task: Task, record: Trajectory) -> float:
        return 1.0 / (task.id != "sum-5")

    records = many(sums(rubric=Rubric(Component("fragile", fragile))), make_policy("reference"))
    assert len(records) == 20
    assert [r.task.id for r in records if r.stop_reason == "env_error"] == ["sum-5"]


def test_an_infrastructure_failure_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    policy = Fails(PolicyError("hiccup"), lambda task, n: task == "sum-2" and n == 0)
    with caplog.at_level(logging.WARNING, "agentenv"):
        records = many(sums(), policy, attempts=2)
    assert {r.stop_reason for r in records} == {"answer"}
    assert len(records) == 20
    assert "sum-2" in caplog.text


def test_a_failure_that_stays_is_recorded_once() -> None:
    policy = Fails(PolicyError("down"), lambda task, n: task == "sum-2")
    records = many(sums(), policy, attempts=3)
    assert policy.begun["sum-2"] == 2
    assert [r.stop_reason for r in records if r.task.id == "sum-2"] == ["policy_error"]
    assert len(records) == 20


def test_a_bad_answer_is_not_tried_again() -> None:
    policy = Fails(PolicyError(""), lambda task, n: False)
    assert {r.reward for r in many(sums(), policy, attempts=5)} == {0.0}
    assert set(policy.begun.values()) == {0}


@pytest.mark.parametrize("concurrency", [1, 4])
def test_so_many_failures_in_a_row_end_the_run(concurrency: int) -> None:
    kept: list[Trajectory] = []
    env = sums(200)
    policy = Fails(PolicyError("down"), lambda task, n: int(task[4:]) >= 10)
    jobs = ((task, 0) for task in env.tasks)
    with pytest.raises(InfrastructureError, match=r"7 episodes in a row.*PolicyError: down"):
        asyncio.run(play_many(env, policy, jobs, kept.append, give_up_after=7, concurrency=concurrency))
    assert len([r for r in kept if r.stop_reason == "answer"]) == 10
    assert len([r for r in kept if r.stop_reason == "policy_error"]) >= 7


def test_failures_that_are_not_in_a_row_do_not() -> None:
    policy = Fails(PolicyError("down"), lambda task, n: int(task[4:]) % 2 == 0)
    assert len(many(sums(), policy, give_up_after=2, concurrency=1)) == 20


def test_a_broken_task_source_or_store_says_what_it_is() -> None:
    def rows() -> Any:
        yield sum_task(0), 0
        raise DataError("no answer", "tasks.jsonl", 2)

    kept: list[Trajectory] = []
    with pytest.raises(DataError, match=r"tasks\.jsonl:2"):
        asyncio.run(play_many(sums(), make_policy("reference"), rows(), kept.append, concurrency=3))
    assert [r.stop_reason for r in kept] in (["answer"], [])

    def full(record: Trajectory) -> None:
        raise StoreError("disk full")

    with pytest.raises(StoreError, match="disk full"):
        asyncio.run(play_many(sums(), make_policy("reference"), [(sum_task(0), 0)] * 9, full, concurrency=3))


def test_a_cancelled_run_keeps_only_whole_episodes() -> None:
    kept: list[Trajectory] = []
    closed: list[int] = []

    class Resource:
        def close(self) -> None:
            closed.append(1)

    opened: list[Resource] = []

    def bind(task: Task) -> dict[str, Any]:
        opened.append(Resource())
        return {"resource": opened[-1]}

    async def run() -> None:
        enough = asyncio.Event()

        def keep(record: Trajectory) -> None:
            kept.append(record)
            if len(kept) == 10:
                enough.set()

        env = sums(None, bind=bind)
        jobs = ((task, 0) for task in env.tasks)
        playing = asyncio.create_task(
            play_many(env, Calls(lambda observation: call(a=1, b=1), 0.001), jobs, keep, concurrency=8)
        )
        await enough.wait()
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing

    asyncio.run(run())
    assert {r.stop_reason for r in kept} == {StopReason.MAX_TURNS.value}
    assert all(len(r.calls) == 10 for r in kept)
    assert len(opened) > len(kept)
    assert len(closed) == len(opened)


def test_group_rewards_are_filled_in_when_the_group_is_complete() -> None:
    def rank(task: Task, group: Any) -> list[float]:
        return [float(i) for i in range(len(group))]

    env = sums(rubric=Rubric(Component("right", exact_match), Component("rank", rank, scope="group")))
    kept = many(env, make_policy("reference"), 3, group=4, concurrency=5)
    final = {r.id: r for r in kept}
    assert len(final) == 12
    for task in ("sum-0", "sum-1", "sum-2"):
        assert sorted(r.reward or 0.0 for r in final.values() if r.task.id == task) == [1.0, 2.0, 3.0, 4.0]


def test_a_group_reward_that_breaks_leaves_its_group_unscored_and_does_not_stop_the_others() -> None:
    def fragile(task: Task, group: Any) -> list[float]:
        return [1.0 / (task.id != "sum-1")] * len(group)

    env = sums(rubric=Rubric(Component("fragile", fragile, scope="group")))
    final = {r.id: r for r in many(env, make_policy("reference"), 3, group=2)}
    assert sorted((r.task.id, r.reward) for r in final.values() if r.reward) == [
        *[("sum-0", 1.0)] * 2,
        *[("sum-2", 1.0)] * 2,
    ]
    assert [r.reward for r in final.values() if r.task.id == "sum-1"] == [None, None]


def test_what_was_recorded_says_who_played() -> None:
    env = sums()
    record = asyncio.run(play(env, make_policy("random", seed=4), env.tasks[2], seed=9, sample=1, group=2))
    assert (record.policy.name, record.policy.settings["seed"]) == ("random", 4)
    assert (record.seed, record.group.index, record.group.size) == (episode_seed(9, env.tasks[2], 1), 1, 2)
    assert Trajectory.from_json(record.to_json()) == record


def test_limits_hold_in_a_rollout() -> None:
    env = sums(limits=Limits(turns=2), tools=(add,))
    records = many(env, Calls(lambda observation: call(a=1, b=1)))
    assert {(r.stop_reason, len(r.calls)) for r in records} == {("max_turns", 2)}


def test_tasks_that_take_long_to_make_are_made_beside_the_loop() -> None:
    made_by: list[int] = []

    def make(number: int, seconds: float) -> Task:
        time.sleep(seconds)
        made_by.append(threading.get_ident())
        return sum_task(number)

    for seconds in (0.1, 0.0):  # the first tells which it is
        made_by.clear()
        records: list[Trajectory] = []
        jobs = ((make(number, seconds), 0) for number in range(6))
        asyncio.run(play_many(sums(), make_policy("reference"), jobs, records.append, concurrency=3))
        assert sorted(record.task.id for record in records) == [f"sum-{number}" for number in range(6)]
        beside = [ident != threading.get_ident() for ident in made_by]
        assert beside[0] is False
        assert not seconds or beside[1:] == [True] * 5
