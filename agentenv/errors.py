"""Every error of agentenv, in one tree.

    AgentEnvError
    |-- UsageError (ValueError)          the caller asked for something that cannot be; the text says what to do
    |   |-- UnknownNameError             no such environment, tool, column, key ...; names the nearest right one
    |   |-- ConfigError                  a setting or a config file is wrong
    |   |-- ResetNeededError             step() before reset(), or after the episode has ended
    |   `-- MissingExtraError            an optional dependency is absent; names the extra to install
    |-- DataError                        a row of a data set is malformed; carries file and line
    |-- ToolError                        a tool refused or failed; its text is *for the model*
    `-- InfrastructureError              the world broke, not the model: the episode is unscored, never rewarded 0
        |-- PolicyError                  the model server did not answer, or answered nonsense, after all retries
        |-- WorkerError                  a worker process could not be started or died for no reason of the model's
        `-- StoreError                   a record could not be written or read

A tool raises `ToolError` for whatever the model should read and may correct. Any other exception that leaves a tool is
a bug of the tool: it is recorded with its traceback, and the model is shown one neutral sentence.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import Enum


class ToolErrorKind(str, Enum):
    """Why a tool call gave no result; recorded beside the text that the model was shown."""

    INVALID_CALL = "invalid_call"  # the call could not be parsed
    UNKNOWN_TOOL = "unknown_tool"
    INVALID_ARGUMENTS = "invalid_arguments"  # parsed, but not what the schema asks for
    REFUSED = "refused"  # understood and not allowed (write access, a second statement, a private address ...)
    LIMIT = "limit"  # a budget of the episode or of the tool is spent
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"  # a service outside did not answer usefully; the same call may succeed later
    FAILED = "failed"  # ran and failed for a reason the model can act on (no such column ...)
    DENIED = "denied"  # a person said no
    BUG = "bug"  # the tool itself is broken


class AgentEnvError(Exception):
    """Base of all errors raised on purpose by agentenv."""


class UsageError(AgentEnvError, ValueError):
    """The caller asked for something that cannot be done."""


class UnknownNameError(UsageError):
    """A name that is not known; the message names the nearest ones that are.

    Args:
        kind: what was looked up, for instance "environment".
        name: the name that was asked for.
        known: all names that would have been right.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        super().__init__(f"unknown {kind} {name!r}{did_you_mean(name, self.known)}")

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, list[str]]]:
        return type(self), (self.kind, self.name, self.known)


class ConfigError(UsageError):
    """A setting, or a configuration file, is wrong."""


class ResetNeededError(UsageError):
    """`step` was called before `reset`, or after the episode had ended."""


class MissingExtraError(UsageError, ImportError):
    """An optional dependency is not installed.

    Args:
        package: the package that could not be imported.
        extra: the extra of agentenv-gym that brings it; "" where it is installed alone, without what it depends on.
        why: what it is needed for.
    """

    def __init__(self, package: str, extra: str, why: str) -> None:
        self.package, self.extra, self.why = package, extra, why
        how = f"'agentenv-gym[{extra}]'" if extra else f"--no-deps {package}"
        super().__init__(f"{why} needs the package {package!r}: pip install {how}")

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str]]:
        return type(self), (self.package, self.extra, self.why)


class DataError(AgentEnvError):
    """A row of a data set is malformed.

    Args:
        why: what is wrong with it.
        file: the file it stands in.
        line: its line (text formats) or row (columnar formats), counted from 1.
    """

    def __init__(self, why: str, file: str = "", line: int = 0) -> None:
        self.why, self.file, self.line = why, file, line
        place = (f"{file}:{line}: " if line else f"{file}: ") if file else f"row {line}: " if line else ""
        super().__init__(place + why)

    def __reduce__(self) -> tuple[type[DataError], tuple[str, str, int]]:
        return type(self), (self.why, self.file, self.line)


class ToolError(AgentEnvError):
    """A tool refused or failed. The text is written for the model: what was wrong and what would be right."""

    def __init__(self, text: str, kind: ToolErrorKind = ToolErrorKind.FAILED) -> None:
        self.kind = ToolErrorKind(kind)
        super().__init__(text)

    def __reduce__(self) -> tuple[type[ToolError], tuple[str, ToolErrorKind]]:
        return type(self), (str(self), self.kind)


class InfrastructureError(AgentEnvError):
    """Something outside the model's reach broke; the episode is unscored and may be played again."""


class PolicyError(InfrastructureError):
    """A policy's engine did not answer usefully, after all retries.

    Args:
        message: what happened.
        permanent: trying again would fail again: a wrong key, an unknown model.
    """

    def __init__(self, message: str = "", *, permanent: bool = False) -> None:
        self.permanent = permanent
        super().__init__(message)


class WorkerError(InfrastructureError):
    """A worker process could not be started, or died through no fault of the model's code."""


class StoreError(InfrastructureError):
    """A record could not be written or read."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error sentence that names the nearest known names, or all of them when few.

    >>> did_you_mean("tabel", ["table", "zoom"])
    '; did you mean "table"?'
    >>> did_you_mean("x", ["table", "zoom"])
    '; known: table, zoom'
    """
    options = sorted(known)
    near = difflib.get_close_matches(name, options, n=3, cutoff=0.6)
    if near:
        return "; did you mean " + " or ".join(f'"{n}"' for n in near) + "?"
    if not options:
        return "; none is known"
    shown = ", ".join(options[:12])
    return f"; known: {shown}" + (f" and {len(options) - 12} more" if len(options) > 12 else "")
