"""Processes that work on what strangers made, and can be killed: the host's end, and what their own end has in common.

Messages are four bytes of length and a body. A child dies with its host, which closes the socket, and ends itself at a
request's deadline, native code or not; the host kills it a little later.
"""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from agentenv.errors import WorkerError

_PROGRAM = (
    "import importlib, json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "importlib.import_module(sys.argv[2]).main(int(sys.argv[3]), int(sys.argv[4]))"
)
_START_SECONDS, _GRACE_SECONDS = 30.0, 1.0
LARGEST_REQUEST = 64 << 20
"""Bytes of a message to a child; more than is sane."""

Reply = TypeVar("Reply")

_encode = msgspec.msgpack.Encoder().encode


class Gone(Exception):
    """A child died during a call. `late`: its own alarm ended it."""

    def __init__(self, late: bool) -> None:
        super().__init__("its alarm ended it" if late else "it died")
        self.late = late


class Child(Generic[Reply]):
    """The host's end of one process.

    Args:
        module: what it runs: `main(descriptor, memory)` of this module.
        replies: the type of what it answers.
        memory: address space of the process, in bytes.
        largest: bytes of an answer; a child that wants to send more counts as dead.
        doing: what it is for, said where it cannot start.

    Raises:
        WorkerError: it cannot start.
    """

    def __init__(self, module: str, replies: type[Reply], *, memory: int, largest: int, doing: str) -> None:
        self.calls, self._largest = 0, largest
        self._replies = msgspec.msgpack.Decoder(replies)
        self.socket, theirs = socket.socketpair()
        with theirs:
            path = json.dumps([place or str(Path.cwd()) for place in sys.path])
            program = [sys.executable, "-I", "-c", _PROGRAM, path, module, str(theirs.fileno()), str(memory)]
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
                raise WorkerError(f"no {doing} process could be started: {error.strerror}") from None

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self.socket.fileno() >= 0 and self.process.poll() is None

    def ask(self, request: msgspec.Struct, seconds: float, descriptor: int | None = None) -> Reply:
        """Ask and wait; the child is dead after any exception.

        Args:
            request: what its module understands.
            seconds: what the request itself may take.
            descriptor: of an open file, which is handed over.

        Raises:
            TimeoutError: the seconds have passed.
            Gone: it died.
        """
        self.calls += 1
        start = _START_SECONDS if self.calls == 1 else 0.0
        try:
            return self._ask(_encode(request), time.monotonic() + seconds + _GRACE_SECONDS + start, descriptor)
        except TimeoutError:
            self.kill()
            raise
        except (OSError, EOFError, msgspec.DecodeError) as error:
            self.kill()
            raise Gone(self.process.returncode == -signal.SIGALRM) from error
        except BaseException:  # Ctrl-C between question and answer would leave the answer to the next question
            self.kill()
            raise

    def _ask(self, body: bytes, deadline: float, descriptor: int | None) -> Reply:
        head = len(body).to_bytes(4, "little")
        self.socket.settimeout(deadline - time.monotonic())
        if descriptor is None:
            self.socket.sendall(head)
        else:
            socket.send_fds(self.socket, [head], [descriptor])
        self.socket.sendall(body)
        size = int.from_bytes(exactly(self.socket, 4, 4, deadline), "little")
        return self._replies.decode(exactly(self.socket, size, self._largest, deadline))

    def kill(self) -> None:
        """End it at once."""
        self.socket.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()

    def forget(self) -> None:
        """In a forked process: let go of it without ending it."""
        self.socket.close()
        self.process.returncode = 0  # so that nobody here waits for it


def exactly(control: socket.socket, size: int, largest: int, deadline: float | None = None) -> bytearray:
    """So many bytes.

    Raises:
        EOFError: the other side has closed, or wants to send more than `largest`.
        TimeoutError: the deadline, by `time.monotonic`, has passed, however steadily bytes come.
    """
    if size > largest:
        raise EOFError
    data, at = bytearray(size), 0
    view = memoryview(data)
    while at < size:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            control.settimeout(left)
        got = control.recv_into(view[at:])
        if not got:
            raise EOFError
        at += got
    return data


# -- the child's own end ----------------------------------------------------------------------------------------------


def send(control: socket.socket, body: bytes) -> None:
    """A message to the other side."""
    control.sendall(len(body).to_bytes(4, "little") + body)


def limit(memory: int, files: int = 0) -> None:
    """Take at most so many bytes of address space, write no file, and hold at most so many open (0: no limit)."""
    limits = {resource.RLIMIT_AS: memory, resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0}
    if files:
        limits[resource.RLIMIT_NOFILE] = files
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the host


def alarm(seconds: float) -> None:
    """End this process in so many seconds; 0.0: no longer."""
    signal.setitimer(signal.ITIMER_REAL, seconds)  # its default action ends the process, native code or not
