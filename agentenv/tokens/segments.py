"""The token stream of a record, in segments: ids with their mask, log-probabilities and media.

Ids are kept collapsed, one placeholder a medium, as inference engines take them. A forward pass needs them expanded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from agentenv.errors import UsageError
from agentenv.trajectory import Trajectory
from agentenv.types import MediaSpan, Tokens


class Segment(Struct, frozen=True, gc=False, omit_defaults=True):
    """A run of tokens that came from one side.

    Args:
        ids: token ids.
        sampled: the model sampled them: the mask of every token here.
        logprobs: one for each id, where sampled and the engine gave them.
        media: where media stand in `ids`.
        version: which weights sampled them.
        exact: the engine was given, or gave, just these ids.
        node: index of the record's node that holds them; -1 where there is none.
        expanded: each medium takes all its tokens, instead of one placeholder.
    """

    ids: tuple[int, ...]
    sampled: bool
    logprobs: tuple[float, ...] | None = None
    media: tuple[MediaSpan, ...] = ()
    version: str = ""
    exact: bool = True
    node: int = -1
    expanded: bool = False


class Flat(NamedTuple):
    """A stream as one sequence, all of the same length: `mask` is 1 where the model sampled.

    `logprobs` is 0.0 where the mask is 0; None as a whole where those of a sampled token are not known.
    """

    ids: list[int]
    mask: list[int]
    logprobs: list[float] | None


def stream(trajectory: Trajectory, leaf: int | None = None) -> list[Segment]:
    """The tokens that the model saw and sampled, up to the last turn on the path to `leaf`.

    Args:
        trajectory: a record of a policy that works with token ids.
        leaf: index of a node; by default the end of the path (see `Trajectory.path`).

    Returns:
        Segments in order; their ids joined are prompt and completion of the last call. Where the stream forked on the
        way, it begins at the last fork, whose prompt is one segment that was not sampled; `streams` has the others.

    Raises:
        UsageError: the record lacks ids of some turn, or of what the engine was given before it.
    """
    return streams(trajectory, leaf)[-1]


def streams(trajectory: Trajectory, leaf: int | None = None) -> list[list[Segment]]:
    """All streams along the path to `leaf`: one, and one more for each fork. A turn is sampled in just one of them.

    Turns without ids are left out where the stream starts anew behind them: another policy wrote them.

    Raises:
        UsageError: see `stream`.
    """
    found: list[list[Segment]] = []
    lacking = ""
    given = False  # what the engine was given before the next turn is known
    for index in trajectory.indices(leaf):
        node = trajectory.nodes[index]
        tokens, sampled = node.tokens, node.origin == "sampled"
        if tokens is not None and tokens.fork:
            found.append([])
            lacking = ""
        elif sampled and (tokens is None or not given):
            lacking = lacking or _lacking(trajectory, index, tokens)
        if tokens is None or lacking:
            continue
        found = found or [[]]
        found[-1].append(_segment(tokens, sampled, index))
        given = not sampled
    if lacking or not found:
        raise UsageError(lacking or _lacking(trajectory, len(trajectory.nodes) - 1, None))
    return [segments for segments in found if any(segment.sampled for segment in segments)]


def _segment(tokens: Tokens, sampled: bool, node: int) -> Segment:
    return Segment(tokens.ids, sampled, tokens.logprobs, tokens.media, tokens.version, tokens.exact, node)


def _lacking(trajectory: Trajectory, node: int, tokens: Tokens | None) -> str:
    what = "what its engine was given before it" if tokens else "token ids"
    return (
        f"turn at node {node} of record {trajectory.id} lacks {what} (capture {trajectory.policy.capture!r}): play with"
        " a policy that works with token ids, such as vllm, sglang or transformers"
    )


def flat(segments: Iterable[Segment]) -> Flat:
    """Ids, mask and log-probabilities of all segments, joined."""
    ids: list[int] = []
    mask: list[int] = []
    logprobs: list[float] | None = []
    for segment in segments:
        count = len(segment.ids)
        ids += segment.ids
        mask += [int(segment.sampled)] * count
        if segment.sampled and segment.logprobs is None:
            logprobs = None
        elif logprobs is not None:
            logprobs += segment.logprobs if segment.sampled and segment.logprobs is not None else [0.0] * count
    return Flat(ids, mask, logprobs)


def media(segments: Iterable[Segment]) -> tuple[MediaSpan, ...]:
    """The media of all segments in order, their offsets counted from the first id of the first segment."""
    found: list[MediaSpan] = []
    start = 0
    for segment in segments:
        found += (replace(span, offset=start + span.offset) for span in segment.media)
        start += len(segment.ids)
    return tuple(found)


def expand(segment: Segment) -> Segment:
    """The segment with all tokens of each medium in the place of its placeholder, as a forward pass takes it.

    Raises:
        UsageError: it is expanded already, or a length is known to the engine only.
    """
    if segment.expanded:
        raise UsageError("these ids are expanded already; expanding them twice would garble them without an error")
    if not segment.media:
        return replace(segment, expanded=True)
    ids: list[int] = []
    spans: list[MediaSpan] = []
    done = 0
    for span in segment.media:
        if not span.length:
            raise UsageError(f"how many tokens {span.kind} {span.sha256[:12]} takes is not in the record")
        ids += segment.ids[done : span.offset]
        spans.append(replace(span, offset=len(ids)))
        ids += span.run or (span.token,) * span.length
        done = span.offset + 1
    return replace(segment, ids=(*ids, *segment.ids[done:]), media=tuple(spans), expanded=True)


def collapse(segment: Segment) -> Segment:
    """The segment with one placeholder a medium, as engines take it: the inverse of `expand`.

    Raises:
        UsageError: the ids at a span are not those of its medium.
    """
    if not segment.expanded:
        return segment
    ids: list[int] = []
    spans: list[MediaSpan] = []
    done = 0
    for span in segment.media:
        ids += segment.ids[done : span.offset]
        done = span.offset + span.length
        if segment.ids[span.offset : done] != (span.run or (span.token,) * span.length):
            raise UsageError(
                f"the ids from {span.offset} on are not the {span.length} of {span.kind} {span.sha256[:12]}"
            )
        spans.append(replace(span, offset=len(ids)))
        ids.append(span.token)
    return replace(segment, ids=(*ids, *segment.ids[done:]), media=tuple(spans), expanded=False)


def expanded(segments: Iterable[Segment]) -> list[Segment]:
    """`expand` for each segment that is not expanded."""
    return [segment if segment.expanded else expand(segment) for segment in segments]


def collapsed(segments: Iterable[Segment]) -> list[Segment]:
    """`collapse` for each segment."""
    return [collapse(segment) for segment in segments]


def check(segments: Sequence[Segment]) -> None:
    """See that segments are what they say.

    Raises:
        UsageError: a sampled segment holds media, log-probabilities are not one a token, finite and at most 0, or the
            ids at a span are not its medium's.
    """
    for index, segment in enumerate(segments):
        values = segment.logprobs
        if values is not None and (not segment.sampled or len(values) != len(segment.ids)):
            raise UsageError(f"segment {index}: {len(values)} log-probabilities for {len(segment.ids)} ids")
        if values is not None and not all(math.isfinite(value) and value <= 1e-6 for value in values):
            raise UsageError(f"segment {index}: a log-probability is not a finite number of at most 0")
        if segment.media and segment.sampled:
            raise UsageError(f"segment {index}: the model sampled a placeholder for media, which no pixels come with")
        collapse(segment)
        _check_spans(index, segment)


def _check_spans(index: int, segment: Segment) -> None:
    reached = -1
    for span in segment.media:
        if span.offset <= reached or span.offset >= len(segment.ids):
            raise UsageError(f"segment {index}: the spans of its media are not in order, or beyond its ids")
        if not segment.expanded and segment.ids[span.offset] != span.token:
            raise UsageError(f"segment {index}: id {span.offset} is not the placeholder {span.token} of {span.kind}")
        if span.run and len(span.run) != span.length:
            raise UsageError(
                f"segment {index}: {span.kind} {span.sha256[:12]} has {len(span.run)} tokens, not its length"
            )
        reached = span.offset
