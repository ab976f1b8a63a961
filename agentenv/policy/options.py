"""Checking what a policy was given: a wrong value is said when the policy is made, not episode by episode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from agentenv.errors import ConfigError


def check_number(
    name: str,
    value: Any,
    low: float,
    high: float = math.inf,
    *,
    above: bool = False,
    whole: bool = False,
    optional: bool = False,
    endless: bool = False,
) -> None:
    """See that an option is a number within its bounds.

    Args:
        name: of the option.
        value: what it was given.
        low: the least value that it may have.
        high: the largest.
        above: `low` itself is too little.
        whole: it must be an integer.
        optional: it may be None.
        endless: it may be infinite.

    Raises:
        ConfigError: it is something else; the message names the option, its value and what it may be.
    """
    if optional and value is None:
        return
    kinds: tuple[type, ...] = (int,) if whole else (int, float)
    right = isinstance(value, kinds) and not isinstance(value, bool)
    if right and value >= low and not (above and value == low) and value <= high and (endless or math.isfinite(value)):
        return
    least = f"above {low:g}" if above else f"of at least {low:g}"
    most = "" if high == math.inf else f" and at most {high:g}"
    kind = "a whole number" if whole else "a number"
    raise ConfigError(f"{name}={value!r}: expected {kind} {least}{most}{', or None' if optional else ''}")


def check_flags(**flags: Any) -> None:
    """See that options are True or False.

    Raises:
        ConfigError: one of them is something else, for instance the text "no".
    """
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ConfigError(f"{name}={value!r}: expected True or False")


def check_choice(name: str, value: Any, known: Sequence[str]) -> None:
    """See that an option is one of a few words.

    Raises:
        ConfigError: it is none of them.
    """
    if value not in known:
        raise ConfigError(f"{name}={value!r}: expected {' or '.join(repr(word) for word in known)}")
