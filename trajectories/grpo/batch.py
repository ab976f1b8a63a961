"""Sequences to batches in plain NumPy: padded, packed, or packed with shared prefixes held once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from agentenv.errors import UnknownNameError, UsageError
from agentenv.trajectories.grpo.positions import mrope
from agentenv.trajectories.grpo.prefixes import Piece, packed, padded, shared
from agentenv.trajectories.grpo.samples import Sample
from agentenv.types import MediaSpan

Layout = Literal["padded", "packed", "shared"]
Per = Literal["token", "sequence", "constant"]
Pixels = Callable[[MediaSpan], Mapping[str, NDArray[Any]]]
"""Gives a medium's tensors by name, for instance `pixel_values` and `image_grid_thw`; their first axes are joined."""

LAYOUTS: dict[str, Callable[[Sequence[Sample], int], list[list[Piece]]]] = {
    "padded": padded,
    "packed": packed,
    "shared": shared,
}


_ALONG_TOKENS = (
    *("input_ids", "attention_mask", "response_mask", "logprobs", "advantages", "rewards", "segments"),
    *("predictors", "sources", "versions"),
)


class Batch(Struct, frozen=True):
    """A batch of plain arrays. Shapes are (rows, tokens) unless something else is said.

    Args:
        input_ids: int64.
        attention_mask: int64; 1 for tokens, 0 for padding, which stands on the right.
        response_mask: bool; the positions of the loss.
        logprobs: float32; of the policy that sampled, 0.0 off the mask, NaN where unknown.
        advantages: float32; 0.0 off the mask.
        rewards: float32; at the last token of each attempt, and of each turn that has one of its own. Where attempts
            share a token, it holds what belongs to the one that learns from it.
        position_ids: int64, (rows, tokens); with `rope="mrope"` (4, rows, tokens): the place in the sequence, then
            time, height and width, as Qwen-VL models of transformers take them.
        segments: int32; which piece of a sequence a token belongs to, -1 for padding. A token sees those of its own
            piece before it and all of the pieces that this one goes on from.
        parents: int32, (pieces,); which piece each goes on from, -1 for none.
        predictors: int64; the position in the row whose output predicts this token, -1 for the first of a sequence.
        sources: int32; which of the given samples a token belongs to; of a shared prefix, the first of them.
        versions: int32; which of `version_names` sampled the token, -1 off the turns.
        version_names: what engines call their weights.
        media: the media of each row in order, their offsets in the row.
        tensors: tensors of the media by name, those of all rows one after the other; empty without `pixels`.
        extents: by name, how long the first axis of each medium's own tensor is.
        samples: how many sequences the batch holds.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    response_mask: NDArray[np.bool_]
    logprobs: NDArray[np.float32]
    advantages: NDArray[np.float32]
    rewards: NDArray[np.float32]
    position_ids: NDArray[np.int64]
    segments: NDArray[np.int32]
    parents: NDArray[np.int32]
    predictors: NDArray[np.int64]
    sources: NDArray[np.int32]
    versions: NDArray[np.int32]
    version_names: tuple[str, ...]
    media: tuple[tuple[MediaSpan, ...], ...]
    tensors: dict[str, NDArray[Any]]
    extents: dict[str, tuple[int, ...]]
    samples: int

    @property
    def tokens(self) -> int:
        """How many tokens the batch holds, padding left out."""
        return int(self.attention_mask.sum())

    def rows(self) -> Iterator[Batch]:
        """Each row as a batch of its own, without padding: what a forward pass in small steps takes.

        `sources` and `samples` stay those of the whole batch, whose `weights` are to be cut along with it.
        """
        media = 0
        for index, spans in enumerate(self.media):
            width, here = int(self.attention_mask[index].sum()), slice(index, index + 1)
            cut = {name: getattr(self, name)[here, :width] for name in _ALONG_TOKENS}
            first, last = int(cut["segments"].min()), int(cut["segments"].max())
            cut["segments"] = cut["segments"] - first
            parents = self.parents[first : last + 1]
            cut["parents"] = np.where(parents >= 0, parents - first, -1).astype(np.int32)
            cut["position_ids"] = self.position_ids[..., here, :width]
            mine = slice(media, media + len(spans))
            media += len(spans)
            tensors, extents = {}, {}
            for name, array in self.tensors.items():
                counts = self.extents[name]
                start, extents[name] = sum(counts[: mine.start]), counts[mine]
                tensors[name] = array[start : start + sum(counts[mine])]
            yield replace(self, **cut, media=(spans,), tensors=tensors, extents=extents)

    def attention(self) -> NDArray[np.bool_]:
        """Which token sees which: shape (rows, 1, tokens, tokens), True where the first sees the second.

        A token of padding sees itself, so that no row of a softmax is empty.
        """
        count, width = len(self.parents), self.input_ids.shape[1]
        sees = np.zeros((count, count), np.bool_)
        for piece, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                sees[piece] = sees[parent]
            sees[piece, piece] = True
        real = self.segments >= 0
        seen = sees[self.segments[:, :, None], self.segments[:, None, :]] & real[:, :, None] & real[:, None, :]
        seen &= np.tri(width, dtype=np.bool_)
        seen |= np.eye(width, dtype=np.bool_) & ~real[:, :, None]
        return seen[:, None]

    def weights(
        self, per: Literal["token", "sequence", "constant"] = "token", constant: int = 0
    ) -> NDArray[np.float32]:
        """Weights of the tokens' losses, so that the batch's loss is their weighted sum.

        Args:
            per: "token" is the mean over all tokens of the loss (DAPO, arXiv 2503.14476, section 3.3); "sequence" the
                mean over sequences of the mean over their tokens (GRPO, arXiv 2402.03300, equation 3); "constant" the
                sum divided by the number of sequences and by `constant` (Dr. GRPO, arXiv 2503.20783, section 3.2).
            constant: the most tokens that a sequence can have.
        """
        mask = self.response_mask
        if per == "token":
            return (mask / max(1, int(mask.sum()))).astype(np.float32)
        if per == "constant":
            if constant < 1:
                raise UsageError(f"constant={constant}: weights per='constant' need the most tokens of a sequence")
            return (mask / (constant * max(1, self.samples))).astype(np.float32)
        if per != "sequence":
            raise UnknownNameError("way of weighting losses", per, ("token", "sequence", "constant"))
        counts = np.bincount(self.sources[mask], minlength=self.samples)
        with_loss = max(1, int((counts > 0).sum()))
        return np.where(mask, 1.0 / (np.maximum(counts, 1)[self.sources] * with_loss), 0.0).astype(np.float32)

    def __repr__(self) -> str:
        rows, width = self.input_ids.shape
        loss = int(self.response_mask.sum())
        return f"<Batch of {self.samples} sequences: {rows} x {width}, {self.tokens} tokens, {loss} in the loss>"


def batch(
    samples: Iterable[Sample],
    layout: Layout = "padded",
    *,
    row_tokens: int = 0,
    pad_id: int = 0,
    multiple: int = 1,
    rope: Literal["plain", "mrope"] = "plain",
    merge: int = 2,
    pixels: Pixels | None = None,
) -> Batch:
    """Make a batch.

    Args:
        samples: sequences, see `agentenv.trajectories.grpo.samples`.
        layout: "padded" gives each sequence a row. "packed" puts several into a row, one after the other, with position
            ids that start anew. "shared" does too, and holds what sequences of a row have in common from the start
            (system prompt, question, pictures, turns before a fork) once, so that a forward pass computes it once; it
            needs the mask of `Batch.attention`. A token that two attempts both learn from is never merged.
        row_tokens: most tokens in a packed row; a longer sequence gets a row of its own. 0: all in one row.
        pad_id: id of padding.
        multiple: rows are padded to a multiple of this.
        rope: "plain", or "mrope" for Qwen-VL models.
        merge: `spatial_merge_size` of the model, for mrope.
        pixels: gives the tensors of a medium; called once for each content.

    Raises:
        UnknownNameError: there is no such layout.
        UsageError: nothing to batch; a sequence that begins with a sampled token; or media whose positions cannot be
            told.
    """
    given = list(samples)
    if layout not in LAYOUTS:
        raise UnknownNameError("layout", layout, LAYOUTS)
    if not given:
        raise UsageError("no sequences to batch: are all attempts unscored, masked or dropped?")
    rows = LAYOUTS[layout](given, row_tokens)
    width = max(sum(piece.stop - piece.start for piece in row) for row in rows)
    return _Filled(given, rows, -(-width // multiple) * multiple, pad_id, rope, merge).batch(pixels)


class _Filled:
    """The arrays of a batch, filled piece by piece."""

    def __init__(
        self, given: list[Sample], rows: list[list[Piece]], width: int, pad_id: int, rope: str, merge: int
    ) -> None:
        shape = (len(rows), width)
        self.given, self.rows, self.rope, self.merge = given, rows, rope, merge
        self.ids = np.full(shape, pad_id, np.int64)
        self.real = np.zeros(shape, np.int64)
        self.mask = np.zeros(shape, np.bool_)
        self.floats = np.zeros((3, *shape), np.float32)
        self.positions = np.zeros((4 if rope == "mrope" else 1, *shape), np.int64)
        self.segments = np.full(shape, -1, np.int32)
        self.predictors = np.full(shape, -1, np.int64)
        self.sources = np.zeros(shape, np.int32)
        self.versions = np.full(shape, -1, np.int32)
        self.names: dict[str, int] = {}
        self.parents: list[int] = []
        self.media: list[tuple[MediaSpan, ...]] = []
        self._known: dict[int, NDArray[np.int64]] = {}
        for number, row in enumerate(rows):
            self._row(number, row)

    def _row(self, number: int, row: list[Piece]) -> None:
        at, first = 0, len(self.parents)
        ends: list[int] = []
        spans: list[MediaSpan] = []
        for piece in row:
            stop = at + piece.stop - piece.start
            self._piece(number, piece, at, stop, ends[piece.parent] - 1 if piece.parent >= 0 else -1)
            self.segments[number, at:stop] = len(self.parents)
            self.parents.append(first + piece.parent if piece.parent >= 0 else -1)
            spans += _moved(self.given[piece.sample].media, piece, at)
            ends.append(stop)
            at = stop
        self.real[number, :at] = 1
        self.media.append(tuple(spans))

    def _piece(self, row: int, piece: Piece, at: int, stop: int, before: int) -> None:
        sample, own = self.given[piece.sample], slice(piece.start, piece.stop)
        here = (row, slice(at, stop))
        self.ids[here] = sample.ids[own]
        self.positions[:, row, at:stop] = self._position_ids(piece.sample)[:, own]
        self.predictors[row, at + 1 : stop] = np.arange(at, stop - 1)
        self.predictors[row, at] = before
        self.sources[here], self.versions[here] = piece.sample, self._versions(sample, piece)
        for index in (piece.sample, *piece.also):  # of those that share a token at most one learns from it
            other = self.given[index]
            learns = other.mask[own]
            self.mask[here] |= learns
            if piece.also:
                self.sources[here] = np.where(learns, index, self.sources[here])
                self.versions[here] = np.where(learns, self._versions(other, piece), self.versions[here])
            for values, array in zip(self.floats, (other.logprobs, other.advantages, other.rewards), strict=True):
                values[here] = np.where(learns, array[own], values[here]) if piece.also else array[own]
        if before < 0 and self.mask[row, at]:
            raise UsageError(f"a sequence of group {sample.group!r} begins with a sampled token: nothing predicts it")

    def _versions(self, sample: Sample, piece: Piece) -> NDArray[np.int32]:
        """Which weights sampled each token of a piece."""
        made = np.full(piece.stop - piece.start, -1, np.int32)
        for turn in sample.turns:
            start, end = max(turn.start, piece.start), min(turn.stop, piece.stop)
            if start < end:
                made[start - piece.start : end - piece.start] = self.names.setdefault(turn.version, len(self.names))
        return made

    def _position_ids(self, index: int) -> NDArray[np.int64]:
        if index not in self._known:
            sample = self.given[index]
            plain = np.arange(len(sample.ids))[None]
            three = mrope(sample.ids, sample.media, self.merge) if self.rope == "mrope" else None
            self._known[index] = plain if three is None else np.concatenate([plain, three])
        return self._known[index]

    def batch(self, pixels: Pixels | None) -> Batch:
        return Batch(
            self.ids, self.real, self.mask, self.floats[0], self.floats[1], self.floats[2],
            self.positions if self.rope == "mrope" else self.positions[0],
            self.segments, np.array(self.parents, np.int32), self.predictors, self.sources, self.versions,
            tuple(self.names), tuple(self.media), *_tensors(self.media, pixels), len(self.given),
        )  # fmt: skip


def _moved(spans: Sequence[MediaSpan], piece: Piece, at: int) -> list[MediaSpan]:
    """The media of a piece, their offsets in the row."""
    return [
        replace(span, offset=span.offset - piece.start + at)
        for span in spans
        if piece.start <= span.offset < piece.stop
    ]


def _tensors(
    media: Sequence[Sequence[MediaSpan]], pixels: Pixels | None
) -> tuple[dict[str, NDArray[Any]], dict[str, tuple[int, ...]]]:
    """The tensors of all media in order, and how much each has of them. Those of a content are made once."""
    if pixels is None:
        return {}, {}
    made: dict[str, Mapping[str, NDArray[Any]]] = {}
    for row in media:
        for span in row:
            if span.sha256 not in made:
                made[span.sha256] = pixels(span)
    each = [made[span.sha256] for row in media for span in row]
    names = each[0] if each else ()
    extents = {name: tuple(len(tensors[name]) for tensors in each) for name in names}
    return {name: np.concatenate([tensors[name] for tensors in each]) for name in names}, extents
