"""Which attempts of a group count: overlong and broken ones, groups in which all are equal, and drawing new ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
from msgspec import Struct

from agentenv.errors import UsageError
from agentenv.trajectories.grpo.advantages import Rewards, zero_variance
from agentenv.trajectory import Trajectory
from agentenv.types import StopReason

Treatment = Literal["keep", "mask", "drop"]
_CHOICES = ("keep", "mask", "drop")


class Rules(Struct, frozen=True):
    """What becomes of attempts that did not come to an end of their own.

    "keep" trains on them as on any other; "mask" leaves them out of the loss but in the group's statistics, as Mini-o3
    does with episodes that ran out of turns, so that running out is neither learned nor punished; "drop" leaves them
    out of both. Unscored attempts, whose reward is None, are always left out of both.

    Args:
        masked: episodes that a budget of the environment marked (`Limits.on_turns="mask"` and its like).
        overlong: other episodes that ran into a limit.
        broken: episodes that ended because too many turns could not be read.

    Raises:
        UsageError: a treatment that does not exist.
    """

    masked: Treatment = "mask"
    overlong: Treatment = "keep"
    broken: Treatment = "keep"

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if getattr(self, name) not in _CHOICES:
                raise UsageError(f"{name}={getattr(self, name)!r}: must be one of {', '.join(_CHOICES)}")


class Member(NamedTuple):
    """What of an attempt counts: its reward in the group's statistics (None: not at all); is it trained on?"""

    reward: float | None
    trained: bool


def judged(record: Trajectory, rules: Rules | None = None) -> Member:
    """What of a record counts in its group.

    Args:
        record: an attempt; its outcome None while it is being played.
        rules: what becomes of attempts without an end of their own.
    """
    outcome = record.outcome
    if outcome is None or outcome.reward is None:
        return Member(None, False)
    treatment = _treatment(record, rules or Rules())
    return Member(None if treatment == "drop" else outcome.reward, treatment == "keep")


def _treatment(record: Trajectory, rules: Rules) -> Treatment:
    outcome = record.outcome
    assert outcome is not None
    if outcome.masked:
        return rules.masked
    if outcome.stop_reason == StopReason.INVALID.value:
        return rules.broken
    return rules.overlong if outcome.truncated else "keep"


G = TypeVar("G")


class Contested(Struct, Generic[G]):
    """Groups in which something can be learned.

    Args:
        groups: those kept.
        drawn: how many were drawn for them.
        equal: how many of those had equal rewards.
        wanted: how many groups were asked for.
    """

    groups: list[G]
    drawn: int
    equal: int
    wanted: int

    @property
    def full(self) -> bool:
        """Whether as many were found as were asked for."""
        return len(self.groups) >= self.wanted


def contested(
    groups: Iterable[G], wanted: int, *, most: int | None = None, rewards: Callable[[G], Rewards] | None = None
) -> Contested[G]:
    """Draw groups until enough of them have rewards that differ ("dynamic sampling").

    Source: DAPO, arXiv 2503.14476, section 3.2. A group with equal rewards has no advantage and only dilutes the batch.

    Args:
        groups: are drawn one at a time, so that an iterator over rollouts plays no more than is needed.
        wanted: how many groups to keep.
        most: so many are drawn at most; by default ten times as many as are wanted.
        rewards: of a group; by default its records' rewards.

    Returns:
        What was found: fewer than wanted (`full` is False) where the bound was reached or the groups ran out.

    Raises:
        UsageError: a number that makes no sense.
    """
    bound = 10 * wanted if most is None else most
    if wanted < 1 or bound < wanted:
        raise UsageError(f"wanted={wanted} groups out of at most {bound}: at least 1, and no more than the bound")
    found: Contested[G] = Contested([], 0, 0, wanted)
    for group in groups:
        found.drawn += 1
        if zero_variance((rewards or _rewards)(group)):
            found.equal += 1
        else:
            found.groups.append(group)
        if found.full or found.drawn >= bound:
            break
    return found


def drawn(size: int, first: int, count: int, seed: int) -> list[int]:
    """Places in an endless sequence that goes through all of a set, round after round, each in an order of its own.

    The same for the same arguments, so that an interrupted run goes on where it was.

    Args:
        size: of the set.
        first: place in the sequence.
        count: how many places from there.
        seed: of the orders.
    """
    rounds = range(first // size, (first + count - 1) // size + 1)
    orders = {number: np.random.default_rng([seed, number]).permutation(size) for number in rounds}
    return [int(orders[place // size][place % size]) for place in range(first, first + count)]


def _rewards(group: Any) -> Rewards:
    own: Sequence[float | None] | None = getattr(group, "rewards", None)
    return own if own is not None else [record.reward for record in group]
