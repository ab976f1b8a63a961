"""Processes that decode, and can be killed: FFmpeg on a hostile file may crash or spin, and no thread can be stopped.

Workers start when they are first needed, up to one a core, are replaced when they die and after some hundred requests,
and die with their host; a forked child starts its own. A call has a worker to itself and is synchronous.
"""

from __future__ import annotations

import atexit
import os
import threading

import msgspec

from agentenv.errors import DataError, ToolError, ToolErrorKind, UsageError, WorkerError
from agentenv.tools._child import Child, Gone
from agentenv.tools.video._worker import Reply, Request
from agentenv.tools.video.backends import Backend, check_backend

_WORKER, _LARGEST_REPLY = "agentenv.tools.video._worker", 1 << 30


class DecodePool:
    """Decoding processes, handed out one call at a time.

    Args:
        size: how many there may be; by default one a core, 8 at most.
        seconds: what one call may take.
        memory: address space of a process, in bytes; by default 4 GiB, and 32 for torchcodec, as torch reserves much.
        recycle: calls after which a process is replaced.
        backend: who decodes: "pyav", or "decord" or "torchcodec", whose faults stand in `tools/README.md`.
    """

    def __init__(
        self,
        size: int = 0,
        seconds: float = 30.0,
        memory: int = 0,
        recycle: int = 500,
        backend: Backend = "pyav",
    ) -> None:
        if size < 0 or seconds <= 0 or memory < 0 or recycle < 1:
            raise UsageError("a decoding pool needs positive settings")
        self.size = size or max(1, min(8, os.cpu_count() or 1))
        self.seconds, self.recycle, self.backend = seconds, recycle, backend
        self.memory = memory or (32 << 30 if backend == "torchcodec" else 4 << 30)
        self._renew()

    def _renew(self) -> None:
        self._free = threading.Condition()
        self._idle: list[Child[Reply]] = []
        self._count = 0
        self._closed = False

    def call(self, request: Request, descriptor: int) -> Reply:
        """Ask one of the workers.

        Args:
            request: its `seconds` are set here.
            descriptor: of the video, open for reading.

        Raises:
            DataError: what the worker found wrong with the video.
            ToolError: of kind `timeout`: it took too long and was killed; `failed`: it crashed on this video.
            WorkerError: no worker could be started.
            MissingExtraError: PyAV, or the backend, is not installed.
        """
        request = msgspec.structs.replace(request, seconds=self.seconds, backend=self.backend)
        worker = self._take()
        try:
            reply = worker.ask(request, request.seconds, descriptor)
        except TimeoutError:
            raise self._too_slow() from None
        except Gone as gone:
            if gone.late:
                raise self._too_slow() from None
            raise ToolError("The video cannot be decoded: the decoder broke down on it.") from None
        finally:
            self._give(worker)
        if reply.error:
            raise DataError(reply.error)
        return reply

    def _too_slow(self) -> ToolError:
        text = f"The video could not be decoded within {self.seconds:g} seconds."
        return ToolError(text, ToolErrorKind.TIMEOUT)

    def _take(self) -> Child[Reply]:
        with self._free:
            while True:
                if self._closed:
                    raise WorkerError("the decoding pool is closed")
                if self._idle:
                    worker = self._idle.pop()
                    if worker.alive:
                        return worker
                    worker.kill()
                    self._count -= 1
                    continue
                if self._count < self.size:
                    self._count += 1
                    break
                self._free.wait()
        try:
            check_backend(self.backend)  # asked here, but only the worker loads it
            return Child(_WORKER, Reply, memory=self.memory, largest=_LARGEST_REPLY, doing="decoding")
        except BaseException:
            self._release()
            raise

    def _release(self) -> None:
        with self._free:
            self._count -= 1
            self._free.notify()

    def _give(self, worker: Child[Reply]) -> None:
        usable = worker.alive and worker.calls < self.recycle
        with self._free:
            if usable and not self._closed:
                self._idle.append(worker)
                self._free.notify()
                return
        worker.kill()
        self._release()

    def processes(self) -> list[int]:
        """Process ids of the idle workers, for diagnosis."""
        with self._free:
            return [worker.process.pid for worker in self._idle]

    def close(self) -> None:
        """End all workers; a call under way ends its own when it is done."""
        with self._free:
            self._closed = True
            idle, self._idle = self._idle, []
            self._count -= len(idle)
            self._free.notify_all()
        for worker in idle:
            worker.kill()

    def _after_fork(self) -> None:
        for worker in self._idle:
            worker.forget()
        self._renew()


_SHARED: dict[str, DecodePool] = {"pyav": DecodePool()}
_LOCK = threading.Lock()


def decode_pool(backend: Backend = "pyav") -> DecodePool:
    """The pool of this process for a backend; its `size`, `seconds`, `memory`, `recycle` can be set before it is used.

    Raises:
        UnknownNameError: there is no such backend.
        MissingExtraError: it is not installed.
        UsageError: what is installed under its name is not accepted.
    """
    if backend not in _SHARED:
        check_backend(backend)
    with _LOCK:
        return _SHARED.setdefault(backend, DecodePool(backend=backend))


def _after_fork() -> None:
    global _LOCK
    _LOCK = threading.Lock()
    for pool in _SHARED.values():
        pool._after_fork()


def _close() -> None:
    for pool in _SHARED.values():
        pool.close()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_close)
