"""Token ids and log-probabilities as engines give them, seen to be what they must be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

_LARGEST_ID = 2**31 - 1
_ROUNDING = 0.01  # nats above 0 that half precision may make of a sure thing


def token_ids(name: str, value: Any) -> tuple[int, ...]:
    """The list of token ids in the field `name`.

    Raises:
        ValueError: it is something else; the text names the field.
    """
    if value is None:
        raise ValueError(f"{name} is absent")
    if not isinstance(value, list):
        raise ValueError(f"{name} is {_described(value)}, and no list of token ids")
    if not value:
        raise ValueError(f"{name} is empty")
    for one in value:
        if type(one) is not int or not 0 <= one <= _LARGEST_ID:
            raise ValueError(f"{name} holds {_described(one)}, which is no token id")
    return tuple(value)


def log_probabilities(name: str, values: Sequence[Any], count: int) -> tuple[float, ...]:
    """The log-probabilities of `count` tokens in the field `name`, at most 0.

    Raises:
        ValueError: there are more or fewer, or one is no finite number or above 0; the text names the field.
    """
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} log-probabilities for {count} tokens")
    for value in values:
        if type(value) not in (int, float) or not math.isfinite(value) or value > _ROUNDING:
            raise ValueError(f"{name} holds {_described(value)}, which is no log-probability")
    return tuple(min(0.0, float(value)) for value in values)


def _described(value: Any) -> str:
    """A value as an error text names it: how it is written where that is short, else what it is."""
    written = repr(value)
    return written if len(written) <= 40 else f"a {type(value).__name__}"
