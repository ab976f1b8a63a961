"""The decoding process: reads a request and a descriptor of the video, answers with frames, until its host is gone.

It opens no file itself. A host that dies, or forgets it, cannot leave it running: between requests the socket says so,
and within one an alarm does.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from agentenv.errors import DataError
from agentenv.tools._child import LARGEST_REQUEST, alarm, exactly, limit, send
from agentenv.tools.video.backends import take_with
from agentenv.tools.video.container import Descriptor, Limits, VideoInfo
from agentenv.tools.video.decode import probe, stamps, take
from agentenv.tools.video.shape import Shape, shaped


class Request(Struct, frozen=True):
    """What a worker is asked: "probe", "stamps" or "frames" (of which `times`, `shape` and `backend` speak)."""

    kind: str
    limits: Limits
    seconds: float
    times: tuple[float, ...] = ()
    shape: Shape | None = None
    backend: str = "pyav"


class Reply(Struct, frozen=True):
    """What it answers; `error` is a sentence about the video. `spans` are (start, end, stamps)."""

    error: str = ""
    info: VideoInfo | None = None
    shown: tuple[int, ...] = ()
    pictures: dict[int, bytes] = {}
    spans: tuple[tuple[int, int | None, list[int]], ...] = ()
    stamps: bytes = b""


_requests = msgspec.msgpack.Decoder(Request)
_encode = msgspec.msgpack.Encoder().encode


def answer(request: Request, descriptor: int) -> Reply:
    """Do what is asked with the video behind a descriptor."""
    file = Descriptor(descriptor)
    try:
        if request.kind == "probe":
            return Reply(info=probe(file, request.limits))
        if request.kind == "stamps":
            info, found = stamps(file, request.limits)
            return Reply(info=info, stamps=found.tobytes())
        return _frames(file, request, descriptor)
    except DataError as error:
        return Reply(error=str(error))


def _frames(file: Descriptor, request: Request, descriptor: int) -> Reply:
    shape = request.shape or Shape(0, 0)

    def keep(frame: Any, seconds: float) -> bytes:
        return shaped(frame, shape, seconds)

    if request.backend == "pyav":
        got = take(file, request.times, keep, request.limits)
    else:
        got = take_with(request.backend, descriptor, request.times, shape, request.limits)
    spans = tuple((span.start, span.end, list(span.stamps)) for span in got.spans)
    return Reply("", got.info, got.shown, got.pictures, spans)


def serve(control: socket.socket, alarm: Callable[[float], None]) -> None:
    """Answer requests until the other side closes.

    Args:
        control: each message is four bytes of length and a body; a request brings one descriptor along.
        alarm: set to a request's deadline before it is worked on, and to 0.0 after.
    """
    while True:
        head, descriptors, _, _ = socket.recv_fds(control, 4, 1)
        if len(head) < 4 or not descriptors:
            return
        try:
            request = _requests.decode(exactly(control, int.from_bytes(head, "little"), LARGEST_REQUEST))
            alarm(request.seconds)
            reply = _encode(answer(request, descriptors[0]))
            alarm(0.0)
        finally:
            os.close(descriptors[0])
        send(control, reply)


def main(descriptor: int, memory: int) -> None:
    """Serve on an inherited socket, with limits on memory, files and their sizes."""
    limit(memory, files=64)
    with socket.socket(fileno=descriptor) as control, contextlib.suppress(EOFError, OSError):
        serve(control, alarm)
    sys.exit(0)
