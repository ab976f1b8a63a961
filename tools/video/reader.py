"""Frames of the videos in a store, decoded once for all who ask: by other processes, kept under the shared byte budget.

What is kept is the encoded frame, under the video's hash, the frame's stamp and the shape: members of a group who ask
for the same moments pay neither decoding nor encoding again. Which stamp a time means is learned with each group of
pictures that is read, so that later calls know before they decode whether a frame is there.
"""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from array import array
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct, field

from agentenv.errors import AgentEnvError, DataError
from agentenv.media import DecodeCache, MediaStore, decode_cache
from agentenv.tools.video._worker import Reply, Request
from agentenv.tools.video.container import Limits, VideoInfo
from agentenv.tools.video.decode import Span
from agentenv.tools.video.pool import DecodePool, decode_pool
from agentenv.tools.video.shape import Shape
from agentenv.types import Video

_KNOWN_VIDEOS = 64
_KNOWN_TICKS = 20_000
_OVERHEAD = 300  # bytes of a kept frame beside its data


class Frame(Struct, frozen=True):
    """A frame: when it is shown (seconds from the first frame on), its size, and its file (or rows, for "RGB")."""

    stamp: int
    seconds: float
    width: int
    height: int
    data: bytes


class _Flight(Struct):
    """A decode under way: the times it covers, and its end."""

    low: int
    high: int
    ticks: frozenset[int]
    done: Future[None] = field(default_factory=Future)


class _Learned:
    """What is known of one video's stamps."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.spans: dict[int, Span] = {}
        self.ticks: dict[int, int] = {}

    def shown(self, ticks: int) -> int | None:
        """The stamp of the frame shown at a time, None where that is not known."""
        place = bisect_right(self.starts, ticks) - 1
        found = self.spans[self.starts[place]].shown(ticks) if place >= 0 else None
        return self.ticks.get(ticks) if found is None else found

    def learn(self, reply: Reply, ticks: Sequence[int]) -> None:
        """Keep what a worker found out."""
        for start, end, stamps in reply.spans:
            if start not in self.spans:
                insort(self.starts, start)
            self.spans[start] = Span(start, end, array("q", stamps))
        if len(self.ticks) > _KNOWN_TICKS:
            self.ticks.clear()
        self.ticks.update(zip(ticks, reply.shown, strict=True))


class _Book:
    """What this process has learned of videos, and the decodes under way."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Start anew: a forked child may have inherited a lock that nobody will ever give back."""
        self.lock = threading.Lock()
        self.learned: OrderedDict[str, _Learned] = OrderedDict()
        self.flights: dict[tuple[str, Shape], list[_Flight]] = {}

    def of(self, sha256: str) -> _Learned:
        """What is known of a video; to be called with the lock held."""
        known = self.learned.setdefault(sha256, _Learned())
        self.learned.move_to_end(sha256)
        if len(self.learned) > _KNOWN_VIDEOS:
            self.learned.popitem(last=False)
        return known


_BOOK = _Book()
os.register_at_fork(after_in_child=_BOOK.renew)


class VideoReader:
    """Reads videos of a store.

    Args:
        store: where their bytes are.
        cache: where frames are kept; the process's cache by default.
        pool: the processes that decode; the process's pool by default.
        limits: what is refused.

    Thread-safe; what it knows is shared by all readers of the process.

    All methods raise DataError (the video is broken or refused), ToolError (decoding took too long or crashed),
    StoreError (it is not in the store), WorkerError and MissingExtraError.
    """

    def __init__(
        self,
        store: MediaStore,
        cache: DecodeCache | None = None,
        pool: DecodePool | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.store, self.limits = store, limits or Limits()
        self.cache = cache if cache is not None else decode_cache()
        self.pool = pool if pool is not None else decode_pool()

    def _known(self, sha256: str) -> str:
        """What frames of a video are known by: those of one decoder must not be taken for another's."""
        return sha256 if self.pool.backend == "pyav" else f"{self.pool.backend}/{sha256}"

    def info(self, sha256: str) -> VideoInfo:
        """What the header of a video says."""
        known: VideoInfo | None = self.cache.peek(("video", sha256))
        if known is not None:
            return known
        with self._open(sha256) as descriptor:
            return self.cache.get(
                ("video", sha256), lambda: _probed(self.pool, self.limits, descriptor), lambda _: _OVERHEAD
            )

    def stamps(self, sha256: str) -> array[int]:
        """The stamps of all its frames in order; reads the whole file once, decoding nothing."""
        known: array[int] | None = self.cache.peek(("stamps", sha256))
        if known is not None:
            return known
        with self._open(sha256) as descriptor:

            def read() -> array[int]:
                return array("q", self.pool.call(Request("stamps", self.limits, 0.0), descriptor).stamps)

            return self.cache.get(("stamps", sha256), read, lambda found: 8 * len(found))

    def frames(self, sha256: str, times: Sequence[float], shape: Shape) -> list[Frame]:
        """The frames shown at some times, one a time, in their order.

        Args:
            sha256: the video.
            times: seconds from its first frame on. Those after its end mean its last frame.
            shape: size and encoding.
        """
        info = self.info(sha256)
        wanted = [max(info.ticks(time), info.start) for time in times]
        have: dict[int, Frame] = {}
        while True:
            missing = self._missing(sha256, shape, wanted, have)
            if not missing:
                return [have[ticks] for ticks in wanted]
            flight, mine = self._board(sha256, shape, missing)
            if mine:
                have.update(self._fly(sha256, shape, info, missing, flight))
            else:
                _wait(flight, missing)

    def _missing(self, sha256: str, shape: Shape, wanted: list[int], have: dict[int, Frame]) -> list[int]:
        """Look up what is kept; gives the times of what is not."""
        with _BOOK.lock:
            known = _BOOK.of(self._known(sha256))
            stamps = {ticks: known.shown(ticks) for ticks in wanted if ticks not in have}
        for ticks, stamp in stamps.items():
            found = None if stamp is None else self.cache.peek(("frame", self._known(sha256), stamp, shape))
            if found is not None:
                have[ticks] = found
        return sorted(ticks for ticks in stamps if ticks not in have)

    def _board(self, sha256: str, shape: Shape, missing: list[int]) -> tuple[_Flight, bool]:
        """The decode under way that overlaps these times, or a new one, which is the caller's to do."""
        with _BOOK.lock:
            flights = _BOOK.flights.setdefault((self._known(sha256), shape), [])
            for flight in flights:
                if flight.low <= missing[-1] and missing[0] <= flight.high:
                    return flight, False
            mine = _Flight(missing[0], missing[-1], frozenset(missing))
            flights.append(mine)
            return mine, True

    def _fly(self, sha256: str, shape: Shape, info: VideoInfo, missing: list[int], flight: _Flight) -> dict[int, Frame]:
        try:
            got = self._decode(sha256, shape, info, missing)
        except BaseException as error:
            self._land(sha256, shape, flight)
            flight.done.set_exception(error)
            raise
        self._land(sha256, shape, flight)
        flight.done.set_result(None)
        return got

    def _land(self, sha256: str, shape: Shape, flight: _Flight) -> None:
        with _BOOK.lock:
            flights = _BOOK.flights.get((self._known(sha256), shape), [])
            if flight in flights:
                flights.remove(flight)
            if not flights:
                _BOOK.flights.pop((self._known(sha256), shape), None)

    def _decode(self, sha256: str, shape: Shape, info: VideoInfo, missing: list[int]) -> dict[int, Frame]:
        numerator, denominator = info.time_base
        times = tuple((ticks - info.start) * numerator / denominator for ticks in missing)
        with self._open(sha256) as descriptor:
            reply = self.pool.call(Request("frames", self.limits, 0.0, times, shape), descriptor)
        frames = {
            stamp: self._kept(sha256, shape, Frame(stamp, info.seconds(stamp), shape.width, shape.height, data))
            for stamp, data in reply.pictures.items()
        }
        with _BOOK.lock:
            _BOOK.of(self._known(sha256)).learn(reply, missing)
        return {ticks: frames[stamp] for ticks, stamp in zip(missing, reply.shown, strict=True)}

    def _kept(self, sha256: str, shape: Shape, frame: Frame) -> Frame:
        key = ("frame", self._known(sha256), frame.stamp, shape)
        return self.cache.get(key, lambda: frame, lambda kept: len(kept.data) + _OVERHEAD)

    @contextmanager
    def _open(self, sha256: str) -> Iterator[int]:
        place = self.store.path(sha256)
        if place is not None:
            descriptor = os.open(place, os.O_RDONLY)
            try:
                yield descriptor
            finally:
                os.close(descriptor)
            return
        # Bytes that are only in memory are handed on as a file that is only in memory.
        held = self.cache.get(("file", sha256), lambda: _Held(self.store.get(sha256)), lambda file: file.size)
        yield held.descriptor


def _wait(flight: _Flight, missing: list[int]) -> None:
    """Wait for another's decode. Its failure is also that of whoever asks for nothing else."""
    error = flight.done.exception()
    if isinstance(error, AgentEnvError) and flight.ticks.issuperset(missing):
        raise error


def _probed(pool: DecodePool, limits: Limits, descriptor: int) -> VideoInfo:
    info = pool.call(Request("probe", limits, 0.0), descriptor).info
    if info is None:
        raise DataError("the video says nothing of itself")
    return info


class _Held:
    """Bytes as an unnamed file, gone with this object."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self.descriptor = _unnamed()
        weakref.finalize(self, os.close, self.descriptor)
        with open(self.descriptor, "wb", closefd=False) as file:
            file.write(data)


def _unnamed() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("agentenv-video")
    descriptor, name = tempfile.mkstemp(prefix="agentenv-video-")
    Path(name).unlink()
    return descriptor


def put_video(
    store: MediaStore, source: bytes | Path, *, pool: DecodePool | None = None, limits: Limits | None = None
) -> Video:
    """Keep a video.

    Args:
        store: where.
        source: its bytes; or where it is, and there it stays: the store only names it (`MediaStore.put_file`).
        pool: the processes that look at it; the process's pool by default.
        limits: what is refused.

    Returns:
        The video by reference: displayed width and height in pixels, duration in seconds, average frames a second.

    Raises:
        DataError: it cannot be read as a video.
        StoreError: it cannot be written.
    """
    pool = pool if pool is not None else decode_pool()
    if isinstance(source, Path):
        info = _probed_file(source, pool, limits or Limits())
        sha256 = store.put_file(source)
    else:
        held = _Held(source)  # its descriptor lives as long as it does
        info = _probed(pool, limits or Limits(), held.descriptor)
        sha256 = store.put_bytes(source)
    return Video(sha256, info.mime, info.width, info.height, info.duration, info.fps)


def _probed_file(file: Path, pool: DecodePool, limits: Limits) -> VideoInfo:
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"the video cannot be read: {error.strerror}", str(file)) from None
    try:
        return _probed(pool, limits, descriptor)
    finally:
        os.close(descriptor)
