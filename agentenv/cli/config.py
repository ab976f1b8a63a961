"""The settings of a rollout: a TOML file, overlaid by flags, checked, and written into the run folder."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import Struct, field

from agentenv.cli.common import at_least, merged
from agentenv.errors import ConfigError, did_you_mean

NAME = "config.toml"
"""What the settings are called in a run folder."""


class RolloutConfig(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Everything that decides a rollout.

    Args:
        env: the environment, by its name or as module:attr.
        policy: who plays.
        tasks: how many of the environment's tasks are played; all of them where None.
        group: attempts at each task.
        concurrency: episodes at once.
        seed: decides every episode's seed.
        out: the run folder; empty where none is named.
        attempts: tries of an episode that fails for infrastructure reasons.
        give_up_after: so many such failures in a row end the run.
        cassette: a folder with recorded tool results; empty for none.
        cassette_mode: what is done with it.
        cassette_max_age: seconds after which the mode "cache" asks for a recorded result anew; None for never.
        options: of the environment.
        policy_options: of the policy.
    """

    env: str = ""
    policy: str = ""
    tasks: int | None = None
    group: int = 1
    concurrency: int = 16
    seed: int = 0
    out: str = ""
    attempts: int = 2
    give_up_after: int = 100
    cassette: str = ""
    cassette_mode: str = "cache"
    cassette_max_age: float | None = None
    options: dict[str, Any] = field(default_factory=dict)
    policy_options: dict[str, Any] = field(default_factory=dict)


def read(path: Path | None, flags: dict[str, Any]) -> RolloutConfig:
    """The settings of a file, overlaid by those flags that are not None; dictionaries are merged key by key.

    Raises:
        ConfigError: the file cannot be read, holds a key that does not exist, or a value of the wrong type.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    values = merged(_file(path) if path is not None else {}, given)
    try:
        config = msgspec.convert(values, RolloutConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path or 'the settings'}: {error}") from None
    for name in ("env", "policy"):
        if not getattr(config, name):
            raise ConfigError(f"which {_ASKED[name]}")
    at_least(1, **{name: getattr(config, name) for name in _COUNTS})
    return config


_COUNTS = ("tasks", "group", "concurrency", "attempts", "give_up_after")
_ASKED = {
    "env": "environment? Name one, for instance: agentenv rollout table --policy reference",
    "policy": "policy? Give --policy, for instance: --policy reference, or --policy openai:MODEL",
}


def _file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = [str(other) for other in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        hint = did_you_mean(str(path), near) if near else ""
        raise ConfigError(f"there is no config file {str(path)!r}{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the config file {str(path)!r} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    known = RolloutConfig.__struct_fields__
    for name in values:
        if name not in known:
            raise ConfigError(f"{path}: unknown key {name!r}{did_you_mean(name, known)}")
    return values


def _folder(config: RolloutConfig) -> str:
    """A run folder that says what is in it: runs/ENV-POLICY-TIME."""
    names = (config.env.rpartition(":")[2], config.policy.replace(":", "-").rstrip("/").rpartition("/")[2])
    plain = "-".join(re.sub(r"[^\w.-]+", "_", name) for name in names)
    return f"runs/{plain}-{time.strftime('%Y%m%d-%H%M%S')}"


def with_folder(config: RolloutConfig, *, make: bool) -> RolloutConfig:
    """The settings with a run folder of its own where none is named. To make it at once keeps others from it."""
    if config.out:
        return config
    first = _folder(config)
    if make:
        Path(first).parent.mkdir(parents=True, exist_ok=True)
    path = Path(first)
    for number in itertools.count(1):
        path = Path(first if number == 1 else f"{first}-{number}")
        with contextlib.suppress(FileExistsError):
            if make:
                path.mkdir()
            elif path.exists():
                continue
            break
    return msgspec.structs.replace(config, out=str(path))


def to_toml(config: RolloutConfig) -> str:
    """The settings as TOML. Defaults are written too, but for `tasks`, whose default, all of them, TOML cannot say."""
    import tomli_w

    values = msgspec.structs.asdict(config)
    tables = {name: values.pop(name) for name in ("options", "policy_options")}
    plain = {name: value for name, value in values.items() if value is not None}
    return tomli_w.dumps(_without_none({**plain, **{name: table for name, table in tables.items() if table}}))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value


def without_secrets(config: RolloutConfig) -> tuple[RolloutConfig, list[str]]:
    """The settings as they may be written down, and the names of the policy options that had to be changed for it."""
    kept: dict[str, Any] = {}
    for name, value in config.policy_options.items():
        clean = _clean(name, value)
        if clean is not None:
            kept[name] = clean
    changed = [name for name, value in config.policy_options.items() if kept.get(name) != value]
    return msgspec.structs.replace(config, policy_options=kept), changed


_SECRET = re.compile(r"(?i)(api|access|auth|secret|private).*(key|token)$|password|secret|authorization|credential")


def _clean(name: str, value: Any) -> Any:
    """The value without secrets; None where it is one."""
    if isinstance(value, dict):
        cleaned = {key: _clean(key, item) for key, item in value.items()}
        return {key: item for key, item in cleaned.items() if item is not None}
    if _SECRET.search(name):
        return None
    if isinstance(value, str) and "://" in value:
        parts = urlsplit(value)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return value
