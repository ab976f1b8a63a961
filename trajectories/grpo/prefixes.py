"""Where the tokens of a batch go: which pieces of which sequences stand in which row, and what goes on from what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from agentenv.trajectories.grpo.samples import Sample
from agentenv.types import MediaSpan


class Piece(NamedTuple):
    """A stretch of a sequence in a row.

    Args:
        sample: index of the sequence.
        start: its first token.
        stop: the token after its last one.
        parent: index in the row of the piece that it goes on from, -1 where it starts a sequence.
        also: further sequences that have just this stretch.
    """

    sample: int
    start: int
    stop: int
    parent: int = -1
    also: tuple[int, ...] = ()


def padded(samples: Sequence[Sample], row_tokens: int) -> list[list[Piece]]:
    """A row for each sequence."""
    return [[Piece(index, 0, len(sample.ids))] for index, sample in enumerate(samples)]


def packed(samples: Sequence[Sample], row_tokens: int) -> list[list[Piece]]:
    """Sequences one after the other, each whole, in the first row that has room for it."""
    rows: list[list[Piece]] = []
    room: list[int] = []
    for index, sample in enumerate(samples):
        size = len(sample.ids)
        place = next((number for number, left in enumerate(room) if left >= size or not row_tokens), len(rows))
        if place == len(rows):
            rows.append([])
            room.append(row_tokens)
        rows[place].append(Piece(index, 0, size))
        room[place] -= size
    return rows


def shared(samples: Sequence[Sample], row_tokens: int) -> list[list[Piece]]:
    """Rows of neighbours; what sequences of a row have in common from the start is there once."""
    rows: list[list[int]] = []
    room = 0
    for index, sample in enumerate(samples):
        new = len(sample.ids) - (_common(samples, [index - 1, index], 0) if rows else 0)
        if not rows or (row_tokens and new > room):
            rows.append([])
            room, new = row_tokens, len(sample.ids)
        rows[-1].append(index)
        room -= new
    return [_tree(samples, members) for members in rows]


def _tree(samples: Sequence[Sample], members: list[int]) -> list[Piece]:
    """The sequences as a tree: a piece for each stretch that some of them have in common."""
    tree: list[Piece] = []
    waiting = [(part, 0, -1) for part in _parted(samples, members, 0, moved=True)][::-1]
    while waiting:
        members, start, parent = waiting.pop()
        stop = _common(samples, members, start)
        if stop > start:
            tree.append(Piece(members[0], start, stop, parent, tuple(members[1:])))
            parent = len(tree) - 1
        waiting += [(part, stop, parent) for part in _parted(samples, members, stop, moved=stop > start)][::-1]
    return tree


def _common(samples: Sequence[Sample], members: list[int], start: int) -> int:
    """Up to where all of them are the same, in tokens and media, and no two learn from the same token."""
    first = samples[members[0]]
    stop = min(len(samples[index].ids) for index in members)
    if len(members) == 1:
        return stop
    learners = np.zeros(stop - start, np.int32)
    for index in members:
        other = samples[index]
        differs = np.flatnonzero(other.ids[start:stop] != first.ids[start:stop])
        stop = start + int(differs[0]) if len(differs) else stop
        learners = learners[: stop - start] + other.mask[start:stop]
        stop = min(stop, _same_media(first, other, start, stop))
    contested = np.flatnonzero(learners[: stop - start] > 1)
    return start + int(contested[0]) if len(contested) else stop


def _same_media(first: Sample, other: Sample, start: int, stop: int) -> int:
    """Up to where both show the same media: tokens of a picture look alike, whatever the picture."""
    for ours, theirs in zip(_within(first, start, stop), _within(other, start, stop), strict=False):
        if ours != theirs:
            return min(ours.offset, theirs.offset)
    return stop


def _within(sample: Sample, start: int, stop: int) -> list[MediaSpan]:
    return [span for span in sample.media if start <= span.offset < stop]


def _parted(samples: Sequence[Sample], members: list[int], at: int, *, moved: bool) -> list[list[int]]:
    """Those that go on beyond `at`, parted by how they do."""
    parts: dict[object, list[int]] = {}
    for index in members:
        sample = samples[index]
        if at >= len(sample.ids):
            continue
        shown = next((span for span in sample.media if span.offset == at), None)
        alone = index if sample.mask[at] and not moved else None
        parts.setdefault((int(sample.ids[at]), shown, alone), []).append(index)
    return list(parts.values())
