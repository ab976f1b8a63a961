"""What the adapters share: an environment in another dialect, its opening, and observations as content blocks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from os import PathLike
from typing import Any

from msgspec.structs import replace

from agentenv.env import Env
from agentenv.errors import ConfigError, MissingExtraError, PolicyError, UsageError
from agentenv.policy.vision import picture
from agentenv.registry import make
from agentenv.spec import EnvSpec
from agentenv.trajectories.run import Sink, open_sink
from agentenv.trajectory import Group, PolicyInfo, Trajectory
from agentenv.types import Image, Message, Observation, Part, Task, Text, Video


def world(env: str | Env, options: dict[str, Any]) -> Env:
    """The environment that an adapter was asked for: made by its name, or given.

    Raises:
        UsageError: a finished environment came with options.
    """
    if not isinstance(env, Env):
        return make(env, **options)
    if options:
        raise UsageError(f"an Env takes no more options: {', '.join(options)}")
    return env


def in_dialect(env: Env, dialect: str, **options: Any) -> Env:
    """The same environment, played in another dialect; its spec and so its hash say so."""
    if env.env_spec.dialect == dialect and env.env_spec.dialect_options == options:
        return env
    spec, rules = env.env_spec, env.rules
    twin = Env(
        id=spec.id,
        tasks=env.tasks,
        tools=tuple(rules.tools.values()),
        dialect=dialect,
        dialect_options=options,
        system=spec.system,
        limits=rules.limits,
        texts=rules.texts,
        rubric=env.rubric,
        bind=env._bind,
        version=spec.version,
        frame=spec.frame,
        count=rules.count,
    )
    return twin.made_by(spec.id, spec.entry_point, spec.kwargs) if spec.entry_point else twin


def chosen(env: Env, tasks: int | Iterable[Task] | None) -> list[Task]:
    """The tasks that are trained on: so many of the environment's, these, or all of a set that has an end.

    Raises:
        UsageError: the set is endless and no number was given, or there is none.
    """
    if tasks is None and env.tasks.infinite:
        raise UsageError("the environment's tasks are endless: say how many to train on, for instance tasks=1000")
    if isinstance(tasks, int) and tasks < 1:
        raise UsageError(f"tasks={tasks}: at least one is needed to train on")
    found = list(islice(env.tasks, tasks)) if tasks is None or isinstance(tasks, int) else list(tasks)
    if not found:
        raise UsageError(f"nothing to train on: {env.tasks.describe_skipped()}")
    return found


class Records:
    """The run folder of a training run, in which the same task is played again and again by a changing policy.

    Attempts at a task are numbered through all steps, and the policy's model says at which step it was, so that a group
    is what one step sampled.

    Args:
        out: the folder; None keeps nothing.
        resume: go on in an existing one.
        env: whose episodes they are.
        policy: who plays, without its step.
        settings: of the run, for the folder's manifest.
    """

    def __init__(
        self, out: str | PathLike[str] | None, resume: bool, env: EnvSpec, policy: PolicyInfo, settings: dict[str, Any]
    ) -> None:
        self._out, self._resume, self._env, self._policy, self._settings = out, resume, env, policy, settings
        self._sink: Sink | None = None
        self._attempts: Counter[str] = Counter()

    def number(self, members: Sequence[Trajectory], step: int) -> None:
        """Make records of one task a group of a step."""
        self._open()
        for record in members:
            task = record.task.id
            record.group = Group(f"{task}@{step}", self._attempts[task], len(members))
            record.policy = replace(self._policy, model=f"step-{step}")
            self._attempts[task] += 1

    def write(self, records: Iterable[Trajectory]) -> None:
        """Keep numbered records."""
        self._open()
        if self._sink is not None:
            for record in records:
                self._sink.write(record)

    def close(self) -> None:
        """Make everything durable and unlock the folder. A later record opens it again."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.close()
            self._resume = True

    def _open(self) -> None:
        if self._out is None or self._sink is not None:
            return
        self._sink = open_sink(
            self._out, resume=self._resume, spec=self._env, policy=self._policy, settings=self._settings
        )
        for task, index in self._sink.done():
            self._attempts[task] = max(self._attempts[task], index + 1)


def opening(env: Env, task: Task) -> Observation:
    """What a policy sees first of a task. Nothing is left open."""
    twin = env.clone()
    try:
        return twin.start(task)
    finally:
        twin.close()


def blocks(parts: Sequence[Part], load: Any = None) -> list[dict[str, Any]]:
    """Parts as the content blocks of chat templates, with decoded pictures: {"type": "image", "image": PIL.Image}.

    Args:
        parts: text, tables, images, and videos of which frames are there.
        load: gives the bytes of a picture by its SHA-256; the process's media store by default.

    Raises:
        PolicyError: a picture cannot be read, or a video has no frames to show.
    """
    made: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, Image):
            made.append({"type": "image", "image": picture(part, load)})
        elif isinstance(part, Video):
            if not part.frames:
                raise PolicyError("trainers take pictures: a video comes without frames, which the environment chooses")
            made += blocks(part.as_frames(), load)
        else:
            made.append({"type": "text", "text": part.text})
    return made


def has_media(messages: Iterable[Message]) -> bool:
    """Whether anything but text stands in the messages."""
    return any(isinstance(part, (Image, Video)) for message in messages for part in message.parts)


def said(message: Message) -> tuple[Part, ...]:
    """The parts of a message, at least one."""
    return message.parts or (Text(""),)


def require(package: str, tested: tuple[str, str], extra: str) -> str:
    """The version of a trainer, which must lie within what this adapter was tested with.

    Args:
        package: its name on the package index.
        tested: the lowest version, and the first one that is too new.
        extra: which extra brings it.

    Raises:
        MissingExtraError: it is not installed.
        ConfigError: it is too old or too new; its loop may have changed in ways that lose tokens silently.
    """
    try:
        found = version(package)
    except PackageNotFoundError:
        raise MissingExtraError(package, extra, f"this adapter of {package}") from None
    _within(package, found, tested, "give check_version=False")
    return found


@cache
def loaded_by(package: str, tested: tuple[str, str]) -> None:
    """As `require`, for an adapter that the trainer loads itself, so that nobody can give it an argument.

    A trainer that runs from a folder, not installed, has no version to be held against. Where the environment variable
    AGENTENV_CHECK_VERSION is 0, any version passes.

    Args:
        package: the trainer's name on the package index.
        tested: the lowest version, and the first one that is too new.

    Raises:
        ConfigError: it is too old or too new.
    """
    try:
        found = version(package)
    except PackageNotFoundError:
        return
    if os.environ.get("AGENTENV_CHECK_VERSION") != "0":
        _within(package, found, tested, "set AGENTENV_CHECK_VERSION=0")


def _within(package: str, found: str, tested: tuple[str, str], way_out: str) -> None:
    low, high = tested
    if not _numbers(low) <= _numbers(found) < _numbers(high):
        raise ConfigError(
            f"{package} {found} was not tested with this adapter, which wants >={low},<{high}: install such a version,"
            f" or {way_out} and compare the loss mask of a few samples yourself"
        )


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split("+")[0].split(".")[:3]
    return (*(int(part) for part in parts if part.isdigit()), 0, 0, 0)[:3]
