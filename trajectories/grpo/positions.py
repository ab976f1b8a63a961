"""Position ids in plain NumPy: one number a token, or Qwen-VL's three (time, height, width)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agentenv.errors import UsageError
from agentenv.types import MediaSpan

Ints = NDArray[np.int64]


def mrope(ids: Ints, spans: Sequence[MediaSpan], merge: int = 2) -> Ints:
    """Multimodal rotary positions of one expanded sequence, as Qwen2-VL, Qwen2.5-VL and Qwen3-VL count them.

    Text counts up by one in all three rows. The tokens of an image of (t, h, w) patches have their place in the grid of
    (t, h / merge, w / merge), added to the position at which the image starts; what follows it goes on at the start
    plus the longer of the grid's sides. A video whose tokens hold more than the placeholder (time stamps between its
    frames, as Qwen3-VL writes them) is a row of images.

    Source: Qwen2-VL, arXiv 2409.12191, section 2.1; the tests hold it against `get_rope_index` of transformers.

    Args:
        ids: shape (tokens,).
        spans: the media of the sequence in order, offsets in `ids`, each with its grid.
        merge: `spatial_merge_size` of the model.

    Returns:
        Shape (3, tokens).

    Raises:
        UsageError: a grid is not known or does not fit its tokens; or a video without time stamps between its frames,
            whose positions depend on seconds that are not in the record.
    """
    pieces: list[Ints] = []
    done, at = 0, 0
    for span in spans:
        for start, stop, grid in _frames(ids, span):
            sides = (grid[0], grid[1] // merge, grid[2] // merge)
            if stop - start != sides[0] * sides[1] * sides[2]:
                raise UsageError(
                    f"{span.kind} {span.sha256[:12]} has {stop - start} tokens, its grid {grid} has "
                    f"{sides[0] * sides[1] * sides[2]}"
                )
            pieces += (_text(at, start - done), np.indices(sides).reshape(3, -1) + (at + start - done))
            at += start - done + max(sides[1:])
            done = stop
    pieces.append(_text(at, len(ids) - done))
    return np.concatenate(pieces, axis=1)


def _text(at: int, count: int) -> Ints:
    return np.broadcast_to(np.arange(at, at + count), (3, count))


def _frames(ids: Ints, span: MediaSpan) -> list[tuple[int, int, tuple[int, ...]]]:
    """The runs of placeholders of a medium: where each starts and stops, and its grid."""
    if len(span.grid) != 3:
        raise UsageError(f"the grid of {span.kind} {span.sha256[:12]} is not in the record: no positions without it")
    if not span.run:
        if span.kind == "video":
            raise UsageError(
                f"the positions of video {span.sha256[:12]} depend on its seconds a grid, which are not in the record;"
                " have the environment show frames as images"
            )
        return [(span.offset, span.offset + span.length, span.grid)]
    inside = np.concatenate(([0], ids[span.offset : span.offset + span.length] == span.token, [0]))
    edges = np.flatnonzero(np.diff(inside)) + span.offset
    return [(int(a), int(b), (1, *span.grid[1:])) for a, b in zip(edges[::2], edges[1::2], strict=True)]
