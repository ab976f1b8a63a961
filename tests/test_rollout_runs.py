"""Whole runs: in memory and in a folder, resumed, interrupted and killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import agentenv
from agentenv.errors import InfrastructureError, PolicyError, UnknownNameError, UsageError
from agentenv.policy import ReferencePolicy, make_policy
from agentenv.policy.base import Policy
from agentenv.reward import Component, Rubric
from agentenv.trajectory import Trajectory
from agentenv.types import Action, Observation, Task
from tests.conftest import ROOT
from tests.playing import answer, check_record
from tests.worlds import sum_task, sums

BY_NAME = "tests.worlds:sums"


class Flaky(Policy):
    """Answers; fails in the episodes of the tasks in `down`."""

    def __init__(self, *down: str) -> None:
        self.down, self.played = down, list[str]()

    def begin(self, task: Task, *, seed: int, sample: int = 0) -> Policy:
        self.played.append(f"{task.id}/{sample}")
        return _One(task.id in self.down)

    async def act(self, observation: Observation) -> Action:
        raise AssertionError


class _One(Policy):
    def __init__(self, down: bool) -> None:
        self.down = down

    async def act(self, observation: Observation) -> Action:
        if self.down:
            raise PolicyError("down")
        return Action(answer("1"))


class Watches:
    """A progress that counts."""

    def __init__(self) -> None:
        self.started: tuple[int | None, int] | None = None
        self.seen: list[Trajectory] = []
        self.stopped = 0

    def start(self, total: int | None, done: int) -> None:
        self.started = (total, done)

    def episode(self, trajectory: Trajectory) -> None:
        self.seen.append(trajectory)

    def stop(self) -> None:
        self.stopped += 1


def content(run: Any) -> list[Any]:
    found = [(r.task.id, r.group.index, r.seed, r.messages, r.reward) for r in run]
    return sorted(found, key=lambda item: item[:2])


def test_a_run_in_memory() -> None:
    run = agentenv.rollout(BY_NAME, "reference", tasks=5, group=2, seed=3, size=9)
    assert len(run) == 10
    assert {r.reward for r in run} == {1.0}
    assert sorted(r.group.index for r in run) == [0] * 5 + [1] * 5
    assert len(run.groups()) == 5
    for record in run:
        check_record(record)
    assert content(run) == content(agentenv.rollout(sums(9), make_policy("reference"), tasks=5, group=2, seed=3))


def test_which_tasks_are_played() -> None:
    def played(**options: Any) -> list[str]:
        return sorted({r.task.id for r in agentenv.rollout(sums(4), "reference", **options)})

    assert played() == ["sum-0", "sum-1", "sum-2", "sum-3"]
    assert played(tasks=2) == ["sum-0", "sum-1"]
    assert played(tasks=99) == ["sum-0", "sum-1", "sum-2", "sum-3"]
    assert played(tasks=[sum_task(7), sum_task(8)]) == ["sum-7", "sum-8"]
    assert played(tasks=sums(4).tasks.skip(3)) == ["sum-3"]
    assert played(tasks=0) == []
    assert len(agentenv.rollout(sums(None), "reference", tasks=3)) == 3


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"group": 0}, "at least 1"),
        ({"concurrency": 0}, "at least 1"),
        ({"attempts": 0}, "at least 1"),
        ({"tasks": -1}, "tasks"),
        ({"nonsense": 3}, "nonsense"),
    ],
)
def test_arguments_that_make_no_sense(options: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        agentenv.rollout(sums(), "reference", **options)
    with pytest.raises(UsageError, match="endless"):
        agentenv.rollout(sums(None), "reference")
    with pytest.raises(UnknownNameError, match='did you mean "reference"'):
        agentenv.rollout(sums(), "referense")


class Asleep(ReferencePolicy):
    """Cannot play yet."""

    async def ready(self) -> None:
        raise PolicyError("the server sleeps")


def test_a_policy_that_cannot_play_ends_the_run_before_its_first_episode(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(PolicyError, match="the server sleeps"):
        agentenv.rollout(sums(3), Asleep(), out=out)
    assert len(agentenv.load(out)) == 0
    assert len(agentenv.rollout(sums(3), ReferencePolicy(), out=out, resume=True)) == 3
    assert len(agentenv.rollout(sums(3), Asleep(), out=out, resume=True)) == 3  # nothing is left to play


def test_progress_hears_of_every_episode_once() -> None:
    def rank(task: Task, group: Any) -> list[float]:
        return [1.0] * len(group)

    for rubric in (None, Rubric(Component("rank", rank, scope="group"))):
        watch = Watches()
        agentenv.rollout(sums(3, rubric=rubric), "reference", group=2, progress=watch)
        assert watch.started == (6, 0)
        assert watch.stopped == 1
        assert len({r.id for r in watch.seen}) == 6
        assert len(watch.seen) == 6


def test_a_rollout_can_be_started_where_a_loop_runs_already() -> None:
    async def notebook() -> int:
        return len(agentenv.rollout(sums(3), "reference"))

    assert asyncio.run(notebook()) == 3


def test_resuming_plays_what_is_missing_or_failed_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = Flaky("sum-1")
    agentenv.rollout(sums(3), first, group=2, out=folder, attempts=1)
    assert len(first.played) == 6
    second = Flaky()
    watch = Watches()
    run = agentenv.rollout(sums(5), second, tasks=3, group=2, out=folder, resume=True, attempts=1, progress=watch)
    assert sorted(second.played) == ["sum-1/0", "sum-1/1"]
    assert watch.started == (6, 4)
    assert len(run) == 6
    assert {r.stop_reason for r in run} == {"answer"}
    third = Flaky()
    again = agentenv.rollout(sums(3), third, group=2, out=folder, resume=True)
    assert third.played == []
    assert content(again) == content(run) == content(agentenv.load(folder))


def test_a_resumed_run_equals_one_that_was_never_broken_off(tmp_path: Path) -> None:
    whole = agentenv.rollout(sums(6), "random", group=2, seed=4, out=tmp_path / "whole")
    agentenv.rollout(sums(6), "random", tasks=3, group=2, seed=4, out=tmp_path / "part")
    rest = agentenv.rollout(sums(6), "random", group=2, seed=4, out=tmp_path / "part", resume=True)
    assert content(rest) == content(whole)


def test_group_rewards_of_a_resumed_run_are_of_whole_groups(tmp_path: Path) -> None:
    def rank(task: Task, group: Any) -> list[float]:
        return [float(len(group))] * len(group)

    def world() -> Any:
        return sums(3, rubric=Rubric(Component("rank", rank, scope="group")))

    folder = tmp_path / "run"
    with pytest.raises(InfrastructureError):
        agentenv.rollout(
            world(), Flaky("sum-1", "sum-2"), group=3, out=folder, attempts=1, give_up_after=2, concurrency=1
        )
    run = agentenv.rollout(world(), Flaky(), group=3, out=folder, resume=True)
    assert sorted(r.reward or 0.0 for r in run) == [3.0] * 9


def test_a_folder_that_holds_another_run_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    agentenv.rollout(sums(3), "reference", out=folder, seed=1)
    with pytest.raises(UsageError, match="resume"):
        agentenv.rollout(sums(3), "reference", out=folder, seed=1)
    for other in ({"env": sums(3, version="2")}, {"policy": "random"}, {"seed": 2}):
        options: dict[str, Any] = {"env": sums(3), "policy": "reference", "seed": 1, **other}
        with pytest.raises(UsageError):
            agentenv.rollout(options.pop("env"), options.pop("policy"), out=folder, resume=True, **options)
    assert len(agentenv.load(folder)) == 3


_LONG = """
import asyncio, sys
sys.path.insert(0, {root!r})
import agentenv
from agentenv.policy.base import Policy
from agentenv.types import Action
from tests.worlds import sums

class Slow(Policy):
    async def act(self, observation):
        await asyncio.sleep(0.01)
        return Action("<answer>1</answer>")

print("go", flush=True)
try:
    agentenv.rollout(sums(None), Slow(), tasks=100_000, out=sys.argv[1], concurrency=4)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL], ids=lambda s: s.name)
def test_a_run_that_is_broken_off_keeps_what_was_done(sent: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-c", _LONG.format(root=str(ROOT)), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as playing:
        assert playing.stdout is not None
        assert playing.stdout.readline() == "go\n"
        while playing.poll() is None and not ((folder / "store.json").exists() and len(agentenv.load(folder)) > 5):
            time.sleep(0.1)
        os.kill(playing.pid, sent)
        told, failed = playing.communicate(timeout=20)
    if sent is signal.SIGINT:
        assert (told, playing.returncode, failed) == ("interrupted\n", 130, "")
    kept = agentenv.load(folder)
    assert len(kept) > 5
    assert {r.stop_reason for r in kept} == {"answer"}
    ids = {r.task.id for r in kept}
    assert len(ids) == len(kept)
    assert ids >= {f"sum-{i}" for i in range(len(kept) - 8)}, "only the episodes in flight are lost"
    for record in kept:
        check_record(record)
