"""What the adapters share: an environment in another dialect, its opening, and observations as content blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from typing import Any

from agentenv.env import Env
from agentenv.errors import ConfigError, DataError, MissingExtraError, PolicyError, StoreError, UsageError
from agentenv.media import decode_cache, media_store
from agentenv.registry import make
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
    found = list(islice(env.tasks, tasks)) if tasks is None or isinstance(tasks, int) else list(tasks)
    if not found:
        raise UsageError(f"nothing to train on: {env.tasks.describe_skipped()}")
    return found


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
            raise PolicyError("trainers take pictures, not videos: have the environment show its clips as frames")
        else:
            made.append({"type": "text", "text": part.text})
    return made


def picture(image: Image, load: Any = None) -> Any:
    """A picture, decoded once a process.

    Raises:
        PolicyError: it cannot be read.
    """
    read = load or media_store().get
    try:
        return decode_cache().image(image.sha256, lambda: read(image.sha256), expect=image.width * image.height * 4)
    except (StoreError, DataError) as error:
        raise PolicyError(f"image {image.handle or image.sha256[:12]} cannot be shown: {error}") from None


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
    low, high = tested
    if not _numbers(low) <= _numbers(found) < _numbers(high):
        raise ConfigError(
            f"{package} {found} was not tested with this adapter, which wants >={low},<{high}: install such a version,"
            " or give check_version=False and compare the loss mask of a few samples yourself"
        )
    return found


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+")[0].split(".")[:3] if part.isdigit())
