"""Reading documents from outside in processes of their own: parsers hold the interpreter for up to a third of a second,
and a document that is built to do so can crash one, or keep it busy for ever.

Workers start when they are first needed, are replaced when they die, and die with their host; a forked child starts
its own.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from agentenv.errors import MissingExtraError, ToolError, ToolErrorKind, WorkerError
from agentenv.tools.web._reader import Reply, Request, exactly
from agentenv.tools.web.readable import Readable

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from agentenv.tools.web._reader import main; main(int(sys.argv[2]), int(sys.argv[3]))"
)
_START_SECONDS, _GRACE_SECONDS = 30.0, 1.0
_RECYCLE = 2000

_encode = msgspec.msgpack.Encoder().encode
_replies = msgspec.msgpack.Decoder(Reply)


class _Worker:
    """The host's end of one process."""

    def __init__(self, memory: int) -> None:
        self.calls = 0
        self.socket, theirs = socket.socketpair()
        with theirs:
            path = json.dumps([place or str(Path.cwd()) for place in sys.path])
            program = [sys.executable, "-I", "-c", _PROGRAM, path, str(theirs.fileno()), str(memory)]
            try:
                self.process = subprocess.Popen(
                    program,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env={},  # what a parser may be tricked into telling, it must not know
                    cwd="/",
                )
            except OSError as error:
                self.socket.close()
                raise WorkerError(f"no reading process could be started: {error.strerror}") from None

    def call(self, request: Request) -> Reply:
        """Ask and wait; the worker is dead after any exception."""
        self.calls += 1
        try:
            body = _encode(request)
            start = _START_SECONDS if self.calls == 1 else 0.0
            self.socket.settimeout(request.seconds + _GRACE_SECONDS + start)
            self.socket.sendall(len(body).to_bytes(4, "little") + body)
            return _replies.decode(exactly(self.socket, int.from_bytes(exactly(self.socket, 4), "little")))
        except BaseException:
            self.kill()
            raise

    @property
    def usable(self) -> bool:
        return self.socket.fileno() >= 0 and self.calls < _RECYCLE and self.process.poll() is None

    def kill(self) -> None:
        self.socket.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


class Reader:
    """Reading processes, handed out one document at a time.

    Args:
        size: how many there may be; two by default, as a page takes some milliseconds.
        seconds: what one document may take.
        memory: address space of a process, in bytes.
        heuristics: see `readable.read_html`.
    """

    def __init__(self, size: int = 2, seconds: float = 10.0, memory: int = 2 << 30, *, heuristics: bool = True) -> None:
        self.size, self.seconds, self.memory, self.heuristics = size, seconds, memory, heuristics
        self._renew()

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._threads: ThreadPoolExecutor | None = None

    async def read(self, kind: str, body: bytes, url: str, charset: str = "") -> Readable:
        """The readable part of a document, without keeping the event loop from its work.

        Args:
            kind: "html" or "pdf".
            body: the document.
            url: its address.
            charset: what its server called its encoding.

        Raises:
            ToolError: of kind `failed`: it cannot be read; `timeout`: not in time.
            MissingExtraError: a package is missing that reads such documents.
            WorkerError: no process could be started.
        """
        request = Request(kind, body, url, charset, self.seconds, self.heuristics)
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self.size, "agentenv-reader")
            threads = self._threads
        reply = await asyncio.get_running_loop().run_in_executor(threads, self._call, request)
        if reply.missing is not None:
            raise MissingExtraError(*reply.missing)
        if reply.found is None:
            raise ToolError(f"This document cannot be read: {reply.error}.")
        return reply.found

    def _call(self, request: Request) -> Reply:
        worker = self._take()
        try:
            return worker.call(request)
        except TimeoutError:
            raise _too_slow(self.seconds) from None
        except (OSError, EOFError, msgspec.DecodeError):
            if worker.process.returncode == -14:  # its own alarm came first
                raise _too_slow(self.seconds) from None
            raise ToolError("This document cannot be read: the reader broke down on it.") from None
        finally:
            self._give(worker)

    def _take(self) -> _Worker:
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.usable:
                    return worker
                worker.kill()
        return _Worker(self.memory)

    def _give(self, worker: _Worker) -> None:
        with self._lock:
            if worker.usable and self._threads is not None:
                self._idle.append(worker)
                return
        worker.kill()

    def close(self) -> None:
        """End all workers; a document being read is finished first."""
        with self._lock:
            threads, self._threads = self._threads, None
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()
        if threads is not None:
            threads.shutdown(wait=False)

    def _after_fork(self) -> None:
        for worker in self._idle:
            worker.socket.close()
            worker.process.returncode = 0  # the parent's child: nobody here waits for it
        self._renew()


def _too_slow(seconds: float) -> ToolError:
    return ToolError(f"This document could not be read within {seconds:g} seconds.", ToolErrorKind.TIMEOUT)


_SHARED = Reader()
os.register_at_fork(after_in_child=_SHARED._after_fork)
atexit.register(_SHARED.close)


def shared_reader() -> Reader:
    """The reader of this process."""
    return _SHARED
