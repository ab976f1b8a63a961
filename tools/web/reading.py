"""Reading documents from outside in processes of their own: parsers hold the interpreter for up to a third of a second,
and a document that is built to do so can crash one, or keep it busy for ever.

Workers start when they are first needed, are replaced when they die, and die with their host; a forked child starts
its own.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from concurrent.futures import ThreadPoolExecutor

from agentenv.errors import MissingExtraError, ToolError, ToolErrorKind
from agentenv.tools._child import Child, Gone
from agentenv.tools.web._reader import Reply, Request
from agentenv.tools.web.readable import Readable

_WORKER, _LARGEST_REPLY = "agentenv.tools.web._reader", 64 << 20
_RECYCLE = 2000


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
        self._idle: list[Child[Reply]] = []
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
            return worker.ask(request, request.seconds)
        except TimeoutError:
            raise _too_slow(self.seconds) from None
        except Gone as gone:
            if gone.late:
                raise _too_slow(self.seconds) from None
            raise ToolError("This document cannot be read: the reader broke down on it.") from None
        finally:
            self._give(worker)

    def _take(self) -> Child[Reply]:
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.alive:
                    return worker
                worker.kill()
        return Child(_WORKER, Reply, memory=self.memory, largest=_LARGEST_REPLY, doing="reading")

    def _give(self, worker: Child[Reply]) -> None:
        with self._lock:
            if worker.alive and worker.calls < _RECYCLE and self._threads is not None:
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
            worker.forget()
        self._renew()


def _too_slow(seconds: float) -> ToolError:
    return ToolError(f"This document could not be read within {seconds:g} seconds.", ToolErrorKind.TIMEOUT)


_SHARED = Reader()
os.register_at_fork(after_in_child=_SHARED._after_fork)
atexit.register(_SHARED.close)


def shared_reader() -> Reader:
    """The reader of this process."""
    return _SHARED
