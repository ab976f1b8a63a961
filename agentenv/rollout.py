"""Playing: one episode, a group of attempts at one task, or many tasks at once, recorded and resumable.

A bad rollout is data: whatever goes wrong inside one episode ends that episode with its reason and never the run.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any, Protocol

from msgspec.structs import replace

from agentenv.cassette import Cassette, open_cassette
from agentenv.ending import UNSCORED
from agentenv.env import Env
from agentenv.errors import InfrastructureError, PolicyError, UsageError
from agentenv.jobs import Job, chosen_tasks, jobs_left
from agentenv.policy import make_policy
from agentenv.policy.base import Policy
from agentenv.policy.scripted import Player
from agentenv.registry import load_object, make
from agentenv.reward import total
from agentenv.trajectory import Group, Trajectory
from agentenv.types import StopReason, Task

if TYPE_CHECKING:
    from agentenv.trajectories.run import Run

logger = logging.getLogger("agentenv")

_SLOW_SECONDS = 0.05  # that making a task may hold up the event loop


class Progress(Protocol):
    """Who is told how a run goes on. All calls come from the event loop's thread."""

    def start(self, total: int | None, done: int) -> None:
        """The run begins: so many episodes in all (None: unknown), so many of them were done before."""

    def episode(self, trajectory: Trajectory) -> None:
        """An episode was recorded; where its reward depends on its group, the group is complete."""

    def stop(self) -> None:
        """The run ended, by itself or not."""


def episode_seed(seed: int, task: Task, sample: int) -> int:
    """The seed of one attempt: 31 bits that depend on the run's seed, the task and the attempt, and on nothing else."""
    text = f"{seed}/{task.id}/{task.seed}/{sample}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big") >> 1


async def play(
    env: Env,
    policy: Policy,
    task: Task,
    *,
    seed: int = 0,
    sample: int = 0,
    group: int = 1,
) -> Trajectory:
    """Play one episode to its end and return its record. Raises nothing that the episode caused.

    Args:
        env: is reset to `task`; one environment plays one episode at a time.
        policy: who plays.
        task: what is played.
        seed: the run's seed, from which the episode's is derived.
        sample: which attempt at the task this is, from 0.
        group: how many attempts at the task there are.
    """
    own_seed = episode_seed(seed, task, sample)
    try:
        observation = env.start(task, seed=own_seed, group=Group(task.id, sample, group), policy=policy.info)
        actor = policy.begin(task, seed=own_seed, sample=sample)
        while True:
            try:
                action = await actor.act(observation)
            except Exception as error:
                raise _PolicyFailed(error) from error
            step = await env.astep(action)
            if step.terminated or step.truncated:
                return env.trajectory
            observation = step.observation
    except _PolicyFailed as failed:
        return env.abort(StopReason.POLICY_ERROR, failed.error)
    except PolicyError as error:  # of begin()
        return env.abort(StopReason.POLICY_ERROR, error)
    except Exception as error:
        return env.abort(StopReason.ENV_ERROR, error)
    except asyncio.CancelledError:
        env.abort(StopReason.CANCELLED)
        raise


class _PolicyFailed(Exception):
    """Whatever a policy raised: its engine's failure, or a bug of its own. Neither says anything about the model."""

    def __init__(self, error: Exception) -> None:
        self.error = error


async def play_group(env: Env, policy: Policy, task: Task, size: int, *, seed: int = 0) -> list[Trajectory]:
    """Play `size` attempts at one task at once, with seeds of their own, and score what needs the whole group."""
    attempts = (play(env.clone(), policy, task, seed=seed, sample=i, group=size) for i in range(size))
    return score_group(env, task, await asyncio.gather(*attempts))


def score_group(env: Env, task: Task, group: Sequence[Trajectory]) -> list[Trajectory]:
    """The attempts with the rubric's group components filled in. Unscored attempts are left as they are."""
    members = [t for t in group if t.outcome is not None and not StopReason(t.outcome.stop_reason).unscored]
    if not env.rubric.has_group_scope or not members:
        return list(group)
    filled = env.rubric.score_group(task, members, [t.outcome.rewards for t in members if t.outcome])
    for member, scores in zip(members, filled, strict=True):
        assert member.outcome is not None
        member.outcome = replace(member.outcome, rewards=scores, reward=total(scores))
    return list(group)


class _Groups:
    """Scores a group when its last attempt is done, where the rubric needs that. Every record is kept at once."""

    def __init__(
        self, env: Env, size: int, keep: Callable[[Trajectory], None], rescored: Callable[[Trajectory], None]
    ) -> None:
        self._env, self._size, self._keep, self._rescored = env, size, keep, rescored
        self._waiting: dict[str, list[Trajectory]] = {}

    def add(self, task: Task, trajectory: Trajectory) -> None:
        self._keep(trajectory)
        if not self._env.rubric.has_group_scope:
            return
        members = self._waiting.setdefault(task.id, [])
        members.append(trajectory)
        if len(members) == self._size:
            members = self._waiting.pop(task.id)
            try:
                members = score_group(self._env, task, members)
            except Exception:
                logger.exception("the group of task %s stays unscored: its rewards could not be computed", task.id)
            for member in members:
                self._rescored(member)


async def play_many(
    env: Env,
    policy: Policy,
    jobs: Iterable[Job],
    keep: Callable[[Trajectory], None],
    *,
    rescored: Callable[[Trajectory], None] | None = None,
    group: int = 1,
    concurrency: int = 16,
    seed: int = 0,
    attempts: int = 1,
    give_up_after: int = 100,
) -> None:
    """Play jobs, `concurrency` at a time, and hand each finished record to `keep`, in the order in which they finish.

    Args:
        env: is cloned for each worker.
        policy: plays all of them.
        jobs: tasks with attempt numbers, drawn lazily.
        keep: called with every record, from the event loop's thread.
        rescored: called with a record again, when its group is complete and its group rewards are known; `keep` by
            default.
        group: attempts a task, for the records and for group-scoped rewards.
        concurrency: episodes at once.
        seed: the run's seed.
        attempts: how often an episode that failed for infrastructure reasons is played before its failure is kept.
        give_up_after: so many infrastructure failures in a row end the run; three that no new try can cure do, too.

    Raises:
        PolicyError: the policy cannot play at all (see `Policy.ready`).
        InfrastructureError: the run was given up; everything recorded so far is kept.
    """
    run = _Many(
        env, policy, iter(jobs), _Groups(env, group, keep, rescored or keep), group, seed, attempts, give_up_after
    )
    try:
        with _seldom_collecting():
            async with asyncio.TaskGroup() as workers:
                for _ in range(concurrency):
                    workers.create_task(run.work())
    except BaseExceptionGroup as failed:  # the workers share one cause: what ended the first of them
        raise failed.exceptions[0] from None


@contextmanager
def _seldom_collecting() -> Iterator[None]:
    """Let the garbage collector look for cycles less often than by default.

    Thousands of live episodes are a million small objects, which it would walk again and again to find no cycle among
    them: half of the CPU time of 4,096 episodes at once (measured).
    """
    before = gc.get_threshold()
    gc.set_threshold(max(before[0], 50_000), max(before[1], 20), max(before[2], 50))
    try:
        yield
    finally:
        gc.set_threshold(*before)


@dataclass
class _Many:
    """The workers of one `play_many`."""

    env: Env
    policy: Policy
    jobs: Iterator[Job]
    groups: _Groups
    group: int
    seed: int
    attempts: int
    give_up_after: int
    failures: int = 0
    slow: bool = False
    drawing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def work(self) -> None:
        """Play jobs until none is left."""
        env = self.env.clone()
        played = 0
        while (job := await self._job()) is not None:
            if not played:
                await self.policy.ready()
            task, sample = job
            record = await self._attempt(env, task, sample)
            self.groups.add(task, record)
            played += 1
            if played % 16 == 0:
                # An instant policy never waits: without this the loop would serve nobody else, Ctrl-C included.
                await asyncio.sleep(0)
        env.close()

    async def _job(self) -> Job | None:
        """The next job. Tasks that take long to make (a film is encoded) are made beside the loop, one at a time."""
        if self.slow:
            async with self.drawing:
                return await asyncio.to_thread(next, self.jobs, None)
        started = time.perf_counter()
        job = next(self.jobs, None)
        self.slow = time.perf_counter() - started > _SLOW_SECONDS
        return job

    async def _attempt(self, env: Env, task: Task, sample: int) -> Trajectory:
        attempt = 0
        while True:
            attempt += 1
            record = await play(env, self.policy, task, seed=self.seed, sample=sample, group=self.group)
            assert record.outcome is not None
            if record.outcome.stop_reason not in UNSCORED:
                self.failures = 0
                return record
            error = record.outcome.error
            hopeless = error is not None and error.permanent
            self.failures += 1
            if self.failures >= (min(3, self.give_up_after) if hopeless else self.give_up_after):
                self.groups.add(task, record)
                raise _given_up(self.failures, record)
            logger.warning("episode %s/%d failed (try %d): %s", task.id, sample, attempt, error)
            if hopeless or attempt >= self.attempts:
                return record


def _given_up(failures: int, record: Trajectory) -> InfrastructureError:
    text = (record.outcome and record.outcome.error) or "no message"
    return InfrastructureError(f"{failures} episodes in a row failed for infrastructure reasons; the last one: {text}")


async def arollout(
    env: str | Env,
    policy: str | Policy | Player,
    *,
    tasks: int | Iterable[Task] | None = None,
    group: int = 1,
    concurrency: int = 16,
    seed: int = 0,
    out: str | PathLike[str] | None = None,
    resume: bool = False,
    attempts: int = 2,
    give_up_after: int = 100,
    progress: Progress | None = None,
    settings: Mapping[str, Any] | None = None,
    cassette: str | PathLike[str] | Cassette | None = None,
    cassette_mode: str = "cache",
    **env_options: Any,
) -> Run:
    """Play an environment and return the recorded run; see `rollout`."""
    if group < 1 or concurrency < 1 or attempts < 1:
        raise UsageError("group, concurrency and attempts must be at least 1")
    if env_options and isinstance(env, Env):
        raise UsageError(f"an Env takes no more options: {', '.join(env_options)}")
    world = env if isinstance(env, Env) else make(env, **env_options)
    player = make_policy(policy)
    tape = open_cassette(cassette, cassette_mode)
    if tape is not None:
        world = world.clone().use_cassette(tape)
    chosen = chosen_tasks(world.tasks, tasks)
    if not chosen and tasks != 0:
        raise UsageError(f"nothing to play: {world.tasks.describe_skipped()}")
    about = {"group": group, "seed": seed, "concurrency": concurrency, "attempts": attempts, **(settings or {})}
    sink = _open_sink(out, resume, world, player, about, len(chosen))
    done = sink.done(scored=world.rubric.has_group_scope)
    if progress is not None:
        progress.start(len(chosen) * group, min(len(done), len(chosen) * group))

    def keep(record: Trajectory, final: bool = not world.rubric.has_group_scope) -> None:
        sink.write(record)
        if progress is not None and final:
            progress.episode(record)

    jobs = jobs_left(chosen, group, done, whole=world.rubric.has_group_scope)
    try:
        await play_many(
            world, player, jobs, keep, rescored=lambda record: keep(record, True),
            group=group, concurrency=concurrency, seed=seed, attempts=attempts, give_up_after=give_up_after,
        )  # fmt: skip
    finally:
        sink.close()
        if progress is not None:
            progress.stop()
        if not isinstance(policy, Policy):
            await player.close()
        if not isinstance(env, Env):
            world.close()
        if tape is not None and tape is not cassette:
            tape.close()
    run: Run = sink.run()
    return run


def rollout(env: str | Env, policy: str | Policy | Player, **options: Any) -> Run:
    """Play an environment and return the recorded run.

    Args:
        env: an environment, or its name; further keyword arguments are then its options.
        policy: a policy, its name (see `agentenv.make_policy`), or a function of the observation.
        tasks: how many of the environment's tasks, or which; all of them by default.
        group: attempts at each task, each with a seed of its own.
        concurrency: episodes at once.
        seed: decides every episode's seed.
        out: the run folder; without one the run is kept in memory.
        resume: go on in an existing run folder, playing only what is missing or failed for infrastructure reasons.
        attempts: tries of an episode that fails for infrastructure reasons.
        give_up_after: so many such failures in a row end the run; what was recorded is kept.
        progress: who is told how it goes (see `Progress`).
        settings: more facts for the run folder's manifest.
        cassette: a folder in which tool results are recorded, or from which they come: see `agentenv.cassette`.
        cassette_mode: "record", "cache", "replay" or "verify".
        **options: all of the above, and the environment's own.

    Returns:
        The run: `run[0]`, `run.groups()`, `run.stats()`, `run.export(...)`; see `agentenv.trajectories.run.Run`.

    Raises:
        UsageError: an argument makes no sense, or the folder holds another run.
        PolicyError: the policy cannot play at all: its server does not answer, say.
        InfrastructureError: too many episodes in a row failed for infrastructure reasons.
    """
    playing = arollout(env, policy, **options)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(playing)
    with ThreadPoolExecutor(1) as thread:  # a notebook's loop runs already, and cannot be entered twice
        return thread.submit(asyncio.run, playing).result()


def _open_sink(
    out: str | PathLike[str] | None,
    resume: bool,
    env: Env,
    policy: Policy,
    settings: Mapping[str, Any],
    tasks: int,
) -> Any:
    """The run's store, reached by name: the ground floor imports no room."""
    opener = load_object("agentenv.trajectories.run:open_sink")
    return opener(out, resume=resume, spec=env.env_spec, policy=policy.info, settings={**settings, "tasks": tasks})
