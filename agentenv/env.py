"""The environment: a task set, tools, a dialect, limits and a rubric, played turn by turn.

`Env` is a `gymnasium.Env`: `reset` and `step` for everyone who knows Gymnasium, `areset` and `astep` for rollouts. All
rules stand in `episode`; this module only runs what the episode asks for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
from msgspec.structs import replace

from agentenv.calling import arun_call, run_call, wait_for
from agentenv.dialects import make_dialect
from agentenv.ending import TERMINATED, UNSCORED, last_step
from agentenv.episode import Episode
from agentenv.errors import ResetNeededError, UsageError
from agentenv.reward import Rubric, Scored
from agentenv.rules import Rules, TokenCount, estimate_tokens
from agentenv.snapshot import Snapshot, resume, take
from agentenv.spaces import ActionSpace, ObservationSpace
from agentenv.spec import EnvSpec, Limits, Texts, check_limits, check_mode, check_texts
from agentenv.task import TaskSet
from agentenv.tool import Tool, tool_names
from agentenv.trajectory import ErrorInfo, Group, Outcome, PolicyInfo, Trajectory, error_info, new_id, recorded
from agentenv.types import (
    Action,
    Message,
    Observation,
    ResetResult,
    StepResult,
    StopReason,
    Task,
    Text,
    ToolResult,
)

if TYPE_CHECKING:
    from agentenv.cassette import Cassette
    from agentenv.media import EpisodeMedia

logger = logging.getLogger("agentenv")

Bind = Callable[[Task], Mapping[str, Any]]
"""Makes, for a task, what its tools are bound to, by parameter name. What has a `close` is closed at the end."""


class Env(gymnasium.Env[Observation, "str | Action"]):
    """A tool-use environment. Compose one of these parts; never subclass to add a tool.

    Args:
        id: its name, for instance "table".
        tasks: what is asked.
        tools: what the policy may call.
        dialect: how calls and results are written: a name (see `agentenv.dialects`) with `dialect_options`.
        system: the system prompt; the dialect's tool instructions are added to it.
        limits: budgets and what happens when they are spent.
        texts: what the environment says outside tool results.
        rubric: how the answer is rewarded.
        bind: makes the objects that tools are bound to, from the task. Unless it makes them, `media` is an
            `agentenv.media.EpisodeMedia` of the task's prompt and `question` its text.
        version: raised whenever the same actions may lead to another result.
        frame: the coordinate frame of all boxes, where there are any; it is part of the spec.
        count: tokens of a message; an estimate by default (see `rules.estimate_tokens`, `agentenv.tokens.counter`).
        seed: shuffles nothing by itself: the seed from which `reset` draws tasks.
        render_mode: "ansi" or None.

    The reward of `step` is 0.0 until the episode ends, then the rubric's total without the components that need a
    whole group; NaN where it is unscored (and `info["unscored"]` is True). `info` of the last step carries
    stop_reason, answer and rewards; the record is `trajectory`. It is not in `info`, whose values Gymnasium's checker
    compares: two records are never equal.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012  (Gymnasium's own form)

    def __init__(
        self,
        *,
        id: str,
        tasks: TaskSet,
        tools: Sequence[Tool] = (),
        dialect: str = "hermes",
        dialect_options: Mapping[str, Any] | None = None,
        system: str = "",
        limits: Limits | None = None,
        texts: Texts | None = None,
        rubric: Rubric | None = None,
        bind: Bind | None = None,
        version: str = "0",
        frame: str = "",
        count: TokenCount = estimate_tokens,
        seed: int = 0,
        render_mode: str | None = None,
    ) -> None:
        by_name = tool_names(tools)
        specs = tuple(tool.spec for tool in by_name.values())
        options = dict(dialect_options or {})
        self.tasks, self.render_mode = tasks, check_mode(render_mode, self.metadata["render_modes"])
        self.dialect = make_dialect(dialect, specs, **options)
        self.rubric = rubric or Rubric()
        self._bind, self._seed = bind, seed
        self._cassette: Cassette | None = None
        self._uses = frozenset(name for tool in by_name.values() for name in tool.bound)
        head = "\n\n".join(text for text in (system, self.dialect.instructions()) if text)
        limits, texts = limits or Limits(), texts or Texts()
        check_limits(limits, by_name)
        check_texts(texts, by_name)
        opening = Message("system", (Text(head),)) if head else None
        self.rules = Rules(self.dialect, by_name, limits, texts, opening, count, options)
        played = (dialect, options, system, limits, texts, frame)
        self.env_spec = EnvSpec(
            id, version, "", {}, specs, *played, self.rubric.spec(), repr(tasks), self.rubric.passes
        )
        self._spec_hash = self.env_spec.hash
        self.action_space = ActionSpace(self.dialect, specs)
        self.observation_space = ObservationSpace(self.rules)
        self._forget()

    def _forget(self) -> None:
        self.episode: Episode | None = None
        self._resources: Mapping[str, Any] = {}
        self._media: EpisodeMedia | None = None
        self._started = 0.0
        self._draws = 0

    # -- Gymnasium ----------------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> ResetResult:
        """Start an episode.

        Args:
            seed: fixes which task is drawn, now and in the resets that follow.
            options: {"task": Task | task id | index} plays that task instead of drawing one; "group" (a
                `trajectory.Group`), "policy" (a `trajectory.PolicyInfo`) and "seed" go into the record.

        Raises:
            UnknownNameError: there is no such task.
        """
        if seed is not None or not self._draws:
            super().reset(seed=self._seed if seed is None else seed)
        options = options or {}
        unknown = set(options) - {"task", "group", "policy", "seed"}
        if unknown:
            raise UsageError(f"reset: unknown option {sorted(unknown)[0]!r}; known: task, group, policy, seed")
        task = options.get("task")
        if task is None:
            task = self.tasks.draw(self.np_random)
        elif not isinstance(task, Task):
            task = self.tasks[task]
        self._draws += 1
        observation = self.start(
            task,
            seed=options.get("seed", seed or 0),
            group=options.get("group"),
            policy=options.get("policy"),
        )
        return ResetResult(observation, {"task": task.id})

    def step(self, action: str | Action) -> StepResult:
        """Take one turn of the policy: a string (the model's text) or an `Action`.

        Raises:
            ResetNeededError: before the first reset, or after the end.
        """
        episode = self._playing()
        calls = episode.act(as_action(action))
        if calls and self._cassette is not None:
            results = wait_for(self._cassette.arun_all(self.rules.tools, calls, self._resources, episode))
        else:
            results = [run_call(self.rules.tools[call.name], call, self._resources) for call in calls] if calls else ()
        observation = self._observe(episode, results)
        if episode.stop is None:
            return StepResult(observation, 0.0, False, False, {})
        self.finish()
        return last_step(observation, episode.trajectory, self.rubric.late)

    async def areset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> ResetResult:
        """As `reset`."""
        return self.reset(seed=seed, options=options)

    async def astep(self, action: str | Action) -> StepResult:
        """As `step`; the calls of the turn run concurrently."""
        episode = self._playing()
        calls = episode.act(as_action(action))
        if not calls:
            results: Sequence[ToolResult] = ()
        elif self._cassette is not None:
            results = await self._cassette.arun_all(self.rules.tools, calls, self._resources, episode)
        elif len(calls) == 1:
            results = (await arun_call(self.rules.tools[calls[0].name], calls[0], self._resources),)
        else:
            tools = self.rules.tools
            results = await asyncio.gather(*(arun_call(tools[call.name], call, self._resources) for call in calls))
        observation = self._observe(episode, results)
        if episode.stop is None:
            return StepResult(observation, 0.0, False, False, {})
        await self.afinish()
        return last_step(observation, episode.trajectory, self.rubric.late)

    def render(self) -> str | None:
        """The conversation so far as text, in render mode "ansi"."""
        if self.render_mode != "ansi":
            return None
        messages = self.episode.messages if self.episode else []
        return "\n\n".join(f"[{message.role}]\n{message.text}" for message in messages)

    def close(self) -> None:
        """Give back what the episode's tools were bound to."""
        self._release()
        super().close()

    def use_cassette(self, cassette: Cassette | None) -> Env:
        """Let tool calls go through a cassette (None: no longer). It is part of no spec; later copies share it."""
        self._cassette = cassette
        return self

    # -- the episode --------------------------------------------------------------------------------------------------

    def start(
        self, task: Task, *, seed: int = 0, group: Group | None = None, policy: PolicyInfo | None = None
    ) -> Observation:
        """Start an episode of `task`: `reset` without drawing. Used by rollouts."""
        self._release()
        record = Trajectory(
            new_id(),
            recorded(task),
            self.env_spec,
            self._spec_hash,
            policy or _UNKNOWN_POLICY,
            group or Group(task.id),
            seed,
            time.time(),
        )
        self.episode = episode = Episode(self.rules, task, record)
        self._started = now = time.monotonic()
        observation = episode.begin(now)
        try:
            self._open(task)
        except BaseException:
            episode.end(StopReason.ENV_ERROR)
            raise
        return observation

    @property
    def trajectory(self) -> Trajectory:
        """The record of the episode that is, or was last, played."""
        return self._playing().trajectory

    def _playing(self) -> Episode:
        if self.episode is None:
            raise ResetNeededError("call reset() before step()")
        return self.episode

    def finish(self, error: ErrorInfo | None = None) -> Trajectory:
        """Score the ended episode, close its record and give back its resources."""
        record = self._closed(error)
        if record.outcome and record.outcome.stop_reason not in UNSCORED:
            try:
                self._keep_score(record, self.rubric.score(self._playing().task, record))
            except Exception as failed:
                self._unscorable(record, failed)
        self._release()
        return record

    async def afinish(self) -> Trajectory:
        """As `finish`, for rubrics with async components."""
        if not self.rubric.is_async:
            return self.finish()
        record = self._closed(None)
        if record.outcome and record.outcome.stop_reason not in UNSCORED:
            try:
                self._keep_score(record, await self.rubric.ascore(self._playing().task, record))
            except Exception as failed:
                self._unscorable(record, failed)
        self._release()
        return record

    def _closed(self, error: ErrorInfo | None) -> Trajectory:
        """The record with its outcome, as yet unscored: components read the answer from there."""
        episode = self._playing()
        record, stop = episode.trajectory, episode.stop
        assert stop is not None
        record.seconds = time.monotonic() - self._started
        ended = stop in TERMINATED
        record.outcome = Outcome(stop.value, ended, not ended, None, {}, episode.answer, episode.masked, error)
        return record

    @staticmethod
    def _keep_score(record: Trajectory, scored: Scored) -> None:
        assert record.outcome is not None
        metrics = {"turns": float(len(record.calls)), "calls": float(len(record.tool_runs))}
        record.outcome = replace(
            record.outcome, reward=scored.reward, rewards=scored.scores, metrics=metrics, steps=scored.steps
        )

    def _unscorable(self, record: Trajectory, failed: Exception) -> None:
        logger.warning("the rubric of environment %r failed: %r", self.env_spec.id, failed)
        assert record.outcome is not None
        self._playing().stop = StopReason.ENV_ERROR
        ending = {"stop_reason": StopReason.ENV_ERROR.value, "terminated": False, "truncated": True}
        record.outcome = replace(record.outcome, **ending, error=error_info(failed))

    def abort(self, reason: StopReason, error: BaseException | None = None) -> Trajectory:
        """End the episode from outside and close its record, unscored."""
        self._playing().end(reason)
        return self.finish(None if error is None else error_info(error))

    def _open(self, task: Task) -> None:
        """Make what the tools of an episode are bound to; tools that look at media get the episode's own."""
        if self._bind is not None:
            self._resources = self._bind(task)
        if "question" in self._uses:
            self._resources = {"question": Message("user", task.prompt).text, **self._resources}
        if "media" in self._uses:
            from agentenv.media import EpisodeMedia

            self._media = media = self._resources.get("media") or EpisodeMedia(task.prompt)
            media.deferred = True  # calls of a turn run at once: handles are given in the order of the calls
            self._resources = {**self._resources, "media": media}

    def _observe(self, episode: Episode, results: Sequence[ToolResult]) -> Observation:
        if self._media is not None:
            results = [self._media.admit(result) for result in results]
        return episode.observe(results, time.monotonic())

    def _release(self) -> None:
        resources, self._resources, self._media = self._resources, {}, None
        for resource in {id(resource): resource for resource in resources.values()}.values():
            close = getattr(resource, "close", None)
            if close is None:
                continue
            try:
                close()
            except Exception:  # the others must be given back, and the episode's outcome stands
                logger.exception("a resource of environment %r could not be closed", self.env_spec.id)

    # -- snapshots and copies -----------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The state of the episode as plain data that can be kept, pickled and restored, in this process or another.

        What tools are bound to is made anew from the task, so a tool must not keep state of an episode in it.
        """
        return take(self._playing(), time.monotonic() - self._started)

    def restore(self, snapshot: Snapshot) -> Observation:
        """Go on from a snapshot of this environment. The record gets an id of its own and says where it came from.

        Raises:
            UsageError: the snapshot was taken from an environment with another spec.
        """
        now = time.monotonic()
        episode = resume(self.rules, snapshot, now)
        spec, made_of = self._spec_hash, episode.trajectory
        if made_of.env_hash != spec:
            raise UsageError(f"the snapshot is of {made_of.env.id!r} with spec {made_of.env_hash}, not {spec}")
        self._release()
        self.episode, self._started = episode, now - snapshot.elapsed
        if snapshot.stop is None:
            self._open(snapshot.task)
            if self._media is not None:
                self._media.restore(part for message in episode.messages for part in message.parts)
        return episode.observation(now)

    def fork(self) -> Env:
        """A copy of this environment in the same state, whose episode goes its own way from here."""
        twin = self.clone()
        twin.restore(self.snapshot())
        return twin

    def clone(self) -> Env:
        """Another environment of the same parts, without an episode. Cheap: everything immutable is shared."""
        twin: Env = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._forget()
        return twin

    def made_by(self, id: str, entry_point: str, kwargs: Mapping[str, Any]) -> Env:
        """Note in the spec how `agentenv.make` made this environment, so that a record can rebuild it."""
        self.env_spec = replace(self.env_spec, id=id, entry_point=entry_point, kwargs=dict(kwargs))
        self._spec_hash = self.env_spec.hash
        return self


def as_action(action: str | Action) -> Action:
    """The action that a string stands for."""
    if isinstance(action, Action):
        return action
    if isinstance(action, str):
        return Action(action)
    raise UsageError(f"an action is a string or an agentenv.Action, not {type(action).__name__}")


_UNKNOWN_POLICY = PolicyInfo("unknown")
