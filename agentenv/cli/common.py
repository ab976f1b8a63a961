"""What several commands need: options as `key=value`, environments by name, output that is safe to show."""

from __future__ import annotations

import contextlib
import errno
import inspect
import logging
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from agentenv.errors import AgentEnvError, ConfigError, UsageError
from agentenv.spec import pairs as pairs

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from agentenv.env import Env
    from agentenv.policy.base import Policy

Options = Annotated[list[str], Parameter(name=["--option", "-o"], negative=())]
Files = Annotated[tuple[str, ...], Parameter(negative=())]
Flag = Annotated[bool, Parameter(negative=())]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Player:
    """Which policy plays.

    Args:
        policy: reference, weak, random, human, scripted:FILE, replay:RUN, openai:MODEL, vllm:MODEL, sglang:MODEL,
            vllm_engine:PATH or transformers:PATH.
        base_url: address of the model's server; short for -P base_url=URL.
        policy_option: an option of the policy, as key=value (TOML). Repeatable.
    """

    policy: Annotated[str | None, Parameter(name=["--policy", "-p"])] = None
    base_url: str | None = None
    policy_option: Annotated[tuple[str, ...], Parameter(name=["--policy-option", "-P"], negative=())] = ()

    @property
    def options(self) -> dict[str, Any]:
        """The options of the policy."""
        given = pairs(self.policy_option, "--policy-option")
        return given if self.base_url is None else given | {"base_url": self.base_url}


NOBODY = Player()

# C0 and C1 controls but line end and tab, and the marks that turn the direction of text.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


_ROWS_TOLD, _ROW_WIDTH = 3, 300


def printable(text: str) -> str:
    """Text of a model or a tool, made unable to drive the terminal: control characters show as escapes.

    >>> printable(f"red: {chr(27)}[31m") == "red: " + chr(92) + "x1b[31m"
    True
    """
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text.replace("\r\n", "\n"))


def at_least(least: int, **given: int | None) -> None:
    """Refuse numbers that are too small; None stands for one that was not given.

    Raises:
        UsageError: one of them is below `least`; the message names it.
    """
    for name, value in given.items():
        if value is not None and value < least:
            raise UsageError(f"{name} must be at least {least}, not {value}")


def usable_folder(path: Path) -> None:
    """Make sure that a folder can be written to, or made, before long work is done for it.

    Raises:
        UsageError: it, or what should be above it, is a file.
        PermissionError: it may not be written to.
    """
    for place in (path, *path.absolute().parents):
        if not os.path.lexists(place):
            continue
        if not place.is_dir():
            raise UsageError(f"{place} is a file; a folder is needed there")
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "no permission to write there", str(place))
        return


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two dictionaries as one, inner ones likewise; where both have a value, that of `above` counts.

    >>> merged({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 4}})
    {'a': 1, 'b': {'c': 4, 'd': 3}}
    """
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def make_env(name: str, options: dict[str, Any]) -> Env:
    """An environment by its name, or by "module:attr", for which modules in the working directory count too.

    Raises:
        UsageError: as `agentenv.make`; also where an option is missing.
    """
    from agentenv.registry import make

    factory = find_factory(name)
    try:
        inspect.signature(factory).bind(**{**preset_options(name), **options})
    except TypeError as error:
        if "missing" in str(error):
            raise ConfigError(f"environment {name!r}: {error}; set it with -o key=value") from None
    try:
        return make(name, **options)
    except AgentEnvError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"environment {name!r}{_with(options)}: {error}") from error


def _with(options: Mapping[str, Any]) -> str:
    return f" (with {', '.join(options)})" if options else ""


def find_factory(name: str) -> Any:
    """The function that makes the environment called `name`.

    Raises:
        UsageError: there is no such environment.
    """
    from agentenv.registry import load_object

    return load_object(entry_point(name))


def entry_point(name: str) -> str:
    """Where the environment called `name` is made: "module:attr".

    Raises:
        UnknownNameError: there is no such environment.
    """
    from agentenv.errors import UnknownNameError
    from agentenv.registry import registrations

    if ":" in name:
        see_working_directory()
        return name
    known = registrations()
    short = name.removeprefix("agentenv/").removesuffix("-v0")
    if short not in known:
        raise UnknownNameError("environment", name, known)
    return known[short].entry_point


def preset_options(name: str) -> dict[str, Any]:
    """The options that a registered name stands for."""
    from agentenv.registry import registrations

    known = registrations().get(name.removeprefix("agentenv/").removesuffix("-v0"))
    return dict(known.kwargs) if known else {}


def see_working_directory() -> None:
    """Let modules of the working directory be imported, as `python -m` does: the console script's path lacks it."""
    if os.getcwd() not in sys.path:  # noqa: PTH109
        sys.path.insert(0, os.getcwd())  # noqa: PTH109


def make_player(spec: str, options: dict[str, Any]) -> Policy:
    """A policy by its name.

    Raises:
        UsageError: as `agentenv.make_policy`.
    """
    from agentenv.policy import make_policy

    try:
        return make_policy(spec, **options)
    except AgentEnvError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"policy {spec!r}{_with(options)}: {error}") from error


@contextlib.contextmanager
def complaints(quiet: bool = False) -> Iterator[None]:
    """Show each distinct warning of the library once, and at the end how often it came again; nothing if quiet."""
    logger, handler = logging.getLogger("agentenv"), _Complaints(quiet)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.sum_up()


class _Complaints(logging.Handler):
    """Tells messages apart by their form and their last argument: which episode it was matters little."""

    def __init__(self, quiet: bool) -> None:
        super().__init__(logging.WARNING)
        self._quiet = quiet
        self._seen: Counter[tuple[str, str]] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        last = str(record.args[-1]) if isinstance(record.args, tuple) and record.args else ""
        key = (str(record.msg), last)
        self._seen[key] += 1
        if self._seen[key] == 1 and not self._quiet:
            note(self.format(record))

    def sum_up(self) -> None:
        for (form, last), count in self._seen.items():
            if count > 1 and not self._quiet:
                note(f"({count - 1:,} more like it: {last or form})")


def console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr; lines are as long as the terminal, and 120 characters where there is none."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else 120
    return Console(stderr=stderr, width=width, highlight=False)


def table(*columns: str, title: str = "", right: Sequence[str] = ()) -> Table:
    """A plain table; the columns named in `right` are aligned to the right."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return made


def say(text: str = "") -> None:
    """One line on stdout, made safe."""
    sys.stdout.write(printable(text) + "\n")


def note(text: str) -> None:
    """One line on stderr, made safe."""
    sys.stderr.write(printable(text) + "\n")


def skipped(env: Env) -> dict[str, Any]:
    """How many rows of the environment's data set could not be read so far, and what was wrong with the first ones."""
    rows = env.tasks.skipped
    return {"skipped": len(rows), "skipped_rows": [str(row) for row in rows[:_ROWS_TOLD]]}


def note_skipped(env: Env) -> None:
    """Tell of the rows that could not be read, if there are any."""
    found = skipped(env)
    if found["skipped"]:
        rows = "\n".join(f"  {row[:_ROW_WIDTH]}" for row in found["skipped_rows"])
        note(f"{plural(found['skipped'], 'row')} of the data set skipped, for instance:\n{rows}")


def print_json(value: Any) -> None:
    """A value as indented JSON on stdout; what is not plain data stands as its repr."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value, enc_hook=repr), indent=2).decode() + "\n")


def number(value: float | None, digits: int = 3) -> str:
    """A figure for people: "-" where there is none.

    >>> number(None), number(3.0), number(0.12345), number(12345.6)
    ('-', '3', '0.123', '12,346')
    """
    if value is None or not math.isfinite(value):
        return "-" if value is None else str(value)
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}f}"


def plural(count: int, noun: str) -> str:
    """A number with its noun.

    >>> plural(1, "task"), plural(2, "task")
    ('1 task', '2 tasks')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
