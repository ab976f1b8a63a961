"""The worker's end of `reading`: reads documents in a process that may crash, spin, or be killed."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys

import msgspec
from msgspec import Struct

from agentenv.errors import DataError, MissingExtraError
from agentenv.tools._child import LARGEST_REQUEST, alarm, exactly, limit, send
from agentenv.tools.web.readable import Readable, read_html, read_pdf


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
    limit(memory)
    decode, encode = msgspec.msgpack.Decoder(Request).decode, msgspec.msgpack.Encoder().encode
    with socket.socket(fileno=descriptor) as control, contextlib.suppress(EOFError, OSError):
        while True:
            size = int.from_bytes(exactly(control, 4, 4), "little")
            request = decode(exactly(control, size, LARGEST_REQUEST))
            alarm(request.seconds)
            reply = encode(answer(request))
            alarm(0.0)
            send(control, reply)
    sys.exit(0)
