"""Options that all generators of tasks have, checked alike."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from agentenv.errors import UnknownNameError, UsageError

SPLITS = ("train", "test")


def check_drawing(split: str, difficulty: int | None, levels: Collection[int]) -> None:
    """Refuse a split or a difficulty that a generator does not have.

    Raises:
        UnknownNameError: there is no such split.
        UsageError: there is no such difficulty.
    """
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    if difficulty is not None and difficulty not in levels:
        raise UsageError(f"difficulty is {min(levels)} to {max(levels)}, not {difficulty!r}")


def chosen_kinds(kinds: str | Iterable[str] | None, known: Iterable[str]) -> tuple[str, ...]:
    """The kinds of question that are asked for, in the generator's order; all of them where nothing is said.

    Raises:
        UnknownNameError: there is no such kind.
        UsageError: none is chosen.
    """
    there = tuple(known)
    if kinds is None:
        return there
    asked = {kinds} if isinstance(kinds, str) else set(kinds)
    for kind in sorted(asked):
        if kind not in there:
            raise UnknownNameError("kind of question", kind, there)
    if not asked:
        raise UsageError(f"no kind of question is chosen; there are: {', '.join(there)}")
    return tuple(kind for kind in there if kind in asked)
