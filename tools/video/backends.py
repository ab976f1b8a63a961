"""Other decoders behind the same process and timer: decord and torchcodec, for those who must have their frames.

Both are given a file by its descriptor and open it themselves. What they get wrong stands in `tools/README.md`; the
module `decode` does not. A video's header is read by PyAV in any case.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from bisect import bisect_right
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Literal, get_args

from agentenv.errors import DataError, MissingExtraError, UnknownNameError, UsageError
from agentenv.tools.video.container import EPSILON, HEAD_BYTES, Descriptor, Limits, VideoInfo, sniff
from agentenv.tools.video.decode import Taken, probe
from agentenv.tools.video.shape import Shape, finished

Backend = Literal["pyav", "decord", "torchcodec"]


def check_backend(backend: str) -> None:
    """Whether a decoder can be used here; nothing is imported.

    Raises:
        UnknownNameError: there is none of that name.
        MissingExtraError: it is not installed.
        UsageError: decord2 is installed, which takes decord's name and gives wrong frames.
    """
    if backend not in get_args(Backend):
        raise UnknownNameError("video backend", backend, get_args(Backend))
    if find_spec("av") is None:
        raise MissingExtraError("av", "video", "decoding video")
    if backend != "pyav" and find_spec(backend) is None:
        raise MissingExtraError(backend, backend, f"decoding video with {backend}")
    if backend == "decord" and _installed("decord2"):
        raise UsageError(
            "decord2 is installed, which imports as decord and returns wrong frames on a busy machine; uninstall it and"
            " install decord, or use the backend pyav"
        )


def _installed(distribution: str) -> bool:
    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False


def take_with(backend: str, descriptor: int, times: Sequence[float], shape: Shape, limits: Limits) -> Taken:
    """The frames shown at some times, as `decode.take` gives them, by another decoder.

    Args:
        backend: "decord" or "torchcodec".
        descriptor: of the video, open for reading.
        times: seconds from its first frame on, in any order.
        shape: what is kept of a frame.
        limits: what is refused.

    Raises:
        DataError: the video cannot be read, or the call asks for too much.
    """
    if len(times) > limits.frames:
        raise DataError(f"{len(times)} frames asked for; at most {limits.frames} at once")
    file = Descriptor(descriptor)
    sniff(file.read(HEAD_BYTES))
    info = probe(file, limits)
    read = {"decord": _decord, "torchcodec": _torchcodec}[backend]
    try:
        found = read(f"/proc/self/fd/{descriptor}", info, times, shape, limits)
    except DataError:
        raise
    except Exception as error:  # each has errors of its own, which derive from nothing narrower
        raise DataError(f"{backend} cannot decode the video: {type(error).__name__}") from None
    stamps = [info.start + round(seconds * info.time_base[1] / info.time_base[0]) for seconds, _ in found]
    pictures = {stamp: finished(pixels, shape, seconds) for stamp, (seconds, pixels) in zip(stamps, found, strict=True)}
    return Taken(info, tuple(stamps), pictures, ())


Found = list[tuple[float, Any]]
"""For each time: when the frame shown then begins, in seconds, and its pixels (height, width, 3), upright."""


def _decord(path: str, info: VideoInfo, times: Sequence[float], shape: Shape, limits: Limits) -> Found:
    if info.format == "mpegts":
        raise DataError("decord gives wrong frames of MPEG-TS, or hangs; use the backend pyav")
    os.environ.setdefault("PATH", "")  # which it reads to find its library, and a worker has no environment
    decord = importlib.import_module("decord")
    decord.logging.set_level(decord.logging.QUIET)
    # It scales while it decodes, but turned pictures into the size of those that are not.
    scaled = shape.box is None and not info.rotation
    size = {"width": shape.width, "height": shape.height} if scaled else {}
    reader = decord.VideoReader(path, num_threads=limits.threads, **size)
    starts = [float(start) for start, _ in reader.get_frame_timestamp(range(len(reader)))]
    starts = [start - starts[0] for start in starts]
    places = [max(0, bisect_right(starts, time + EPSILON) - 1) for time in times]
    batch = reader.get_batch(places).asnumpy()
    return [(starts[place], pixels) for place, pixels in zip(places, batch, strict=True)]


def _torchcodec(path: str, info: VideoInfo, times: Sequence[float], shape: Shape, limits: Limits) -> Found:
    tempfile.tempdir = tempfile.tempdir or "/"  # torch asks for a folder for files, and a worker may write none
    decoders = importlib.import_module("torchcodec.decoders")
    reader = decoders.VideoDecoder(path, seek_mode="exact", num_ffmpeg_threads=limits.threads)
    begin, end = reader.metadata.begin_stream_seconds, reader.metadata.end_stream_seconds
    last = reader.get_frame_at(len(reader) - 1)  # where the file does not say how long it is shown, no time means it
    played = [max(begin, begin + time + EPSILON) for time in times]
    batch = reader.get_frames_played_at([time for time in played if time < end] or [begin])
    within = iter(zip(batch.pts_seconds, batch.data, strict=True))
    found = [next(within) if time < end else (last.pts_seconds, last.data) for time in played]
    return [(float(second) - begin, pixels.permute(1, 2, 0).contiguous().numpy()) for second, pixels in found]
