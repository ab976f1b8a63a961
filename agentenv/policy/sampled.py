"""Token ids and log-probabilities as engines give them, seen to be what they must be."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

_LARGEST_ID = 2**31 - 1
_LEAST = -sys.float_info.max
_ROUNDING = 0.01  # nats above 0 that half precision may make of a sure thing


def token_ids(name: str, value: Any) -> tuple[int, ...]:
    """The token ids in the field `name`.

    Raises:
        ValueError: it is something else; the text names the field.
    """
    if value is None:
        raise ValueError(f"{name} is absent")
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{name} is {_described(value)}, and no list of token ids")
    if not value:
        raise ValueError(f"{name} is empty")
    if set(map(type, value)) == {int} and min(value) >= 0 and max(value) <= _LARGEST_ID:
        return tuple(value)
    return tuple(_token_id(name, one) for one in value)


def log_probabilities(name: str, values: Sequence[Any], count: int) -> tuple[float, ...]:
    """The log-probabilities of `count` tokens in the field `name`, at most 0.

    Raises:
        ValueError: there are more or fewer, or one is no finite number or above 0; the text names the field.
    """
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} log-probabilities for {count} tokens")
    if set(map(type, values)) == {float} and max(values) <= 0 and math.isfinite(sum(values)):
        return tuple(values)
    return tuple(_log_probability(name, value) for value in values)


def listed(value: Any) -> list[Any]:
    """A list that an engine gave; an empty one where it gave something else."""
    return value if isinstance(value, list) else []


def _token_id(name: str, value: Any) -> int:
    if isinstance(value, Integral) and not isinstance(value, bool) and 0 <= int(value) <= _LARGEST_ID:
        return int(value)
    raise ValueError(f"{name} holds {_described(value)}, which is no token id")


def _log_probability(name: str, value: Any) -> float:
    real = isinstance(value, Real) and not isinstance(value, bool)
    number: Any = value if real else math.nan
    if _LEAST <= number <= _ROUNDING:
        return min(0.0, float(number))
    raise ValueError(f"{name} holds {_described(value)}, which is no log-probability")


def _described(value: Any) -> str:
    """A value as an error text names it: how it is written where that is short, else what it is."""
    written = repr(value)
    return written if len(written) <= 40 else f"a {type(value).__name__}"
