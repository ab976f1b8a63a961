"""The worker's end of `reading`: reads documents in a process that may crash, spin, or be killed."""

from __future__ import annotations

import contextlib
import logging
import resource
import signal
import socket
import sys

import msgspec
from msgspec import Struct

from agentenv.errors import DataError, MissingExtraError
from agentenv.tools.web.readable import Readable, read_html, read_pdf

_LARGEST = 64 << 20


class Request(Struct, frozen=True):
    """A document to be read, and the seconds that it may take."""

    kind: str
    body: bytes
    url: str
    charset: str
    seconds: float
    heuristics: bool = True


class Reply(Struct, frozen=True):
    """What came of it. `missing` are the arguments of a `MissingExtraError`."""

    found: Readable | None = None
    error: str = ""
    missing: tuple[str, str, str] | None = None


def answer(request: Request) -> Reply:
    """Read a document."""
    try:
        if request.kind == "pdf":
            return Reply(read_pdf(request.body))
        return Reply(read_html(request.body, request.url, request.charset, request.heuristics))
    except MissingExtraError as error:
        return Reply(missing=(error.package, error.extra, error.why))
    except (DataError, RecursionError, MemoryError) as error:
        return Reply(error=str(error) or f"it cannot be read ({type(error).__name__})")


def main(descriptor: int, memory: int) -> None:
    """Serve on an inherited socket until the other side closes, with limits on memory and files."""
    logging.disable()
    for kind, limit in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        resource.setrlimit(kind, (limit, limit))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the host
    decode, encode = msgspec.msgpack.Decoder(Request).decode, msgspec.msgpack.Encoder().encode
    with socket.socket(fileno=descriptor) as control, contextlib.suppress(EOFError, OSError):
        while True:
            request = decode(exactly(control, int.from_bytes(exactly(control, 4), "little")))
            signal.setitimer(signal.ITIMER_REAL, request.seconds)  # its default action ends the process
            reply = encode(answer(request))
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            control.sendall(len(reply).to_bytes(4, "little") + reply)
    sys.exit(0)


def exactly(control: socket.socket, size: int) -> bytes:
    """So many bytes.

    Raises:
        EOFError: the other side has closed, or wants to send more than is sane.
        TimeoutError: the socket's timeout has passed.
    """
    if size > _LARGEST:
        raise EOFError
    data = bytearray()
    while len(data) < size:
        more = control.recv(min(1 << 20, size - len(data)))
        if not more:
            raise EOFError
        data += more
    return bytes(data)
