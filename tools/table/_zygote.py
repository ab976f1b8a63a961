"""The program of the pandas worker: one process that has pandas loaded, and forks a confined child for every call.

Started by `_pandas_worker` with two descriptors, the control socket and a pidfd of the host. It never runs foreign code
itself: it keeps tables, forks, kills at the deadline and reaps. Messages from the host are a header (kind, length) and
a body; the only answer on the control socket is one line after the start. A call brings two descriptors along:

    result   the child alone holds it and writes one JSON object to it; whatever comes out of there is untrusted
    leash    stays here: says how the child ended, and once the host shuts its side the child is killed

The process ends when the control socket or the host itself is gone; the children die with it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import pkgutil
import select
import signal
import socket
import struct
import sys
import time
from typing import Any, NamedTuple

HEADER = struct.Struct("<cI")
_STDLIB = """
abc array ast base64 bisect calendar cmath collections.abc colorsys contextlib copy csv dataclasses datetime decimal
difflib enum fractions functools graphlib hashlib heapq hmac html io itertools json keyword locale math numbers
operator pprint queue random re secrets statistics string struct textwrap time traceback types typing unicodedata
urllib.parse uuid warnings weakref xml.etree.ElementTree zlib zoneinfo encodings.ascii encodings.base64_codec
encodings.big5 encodings.cp1250 encodings.cp1251 encodings.cp1252 encodings.cp437 encodings.euc_jp encodings.euc_kr
encodings.gb18030 encodings.gbk encodings.hex_codec encodings.idna encodings.iso8859_1 encodings.iso8859_15
encodings.iso8859_2 encodings.koi8_r encodings.latin_1 encodings.punycode encodings.raw_unicode_escape
encodings.rot_13 encodings.shift_jis encodings.unicode_escape encodings.utf_16 encodings.utf_16_be encodings.utf_16_le
encodings.utf_32 encodings.utf_7 encodings.utf_8_sig
"""
# Of pandas and numpy everything is loaded before the doors close, but for what tables have no use for.
_UNLOADED = """
tests testing conftest f2py distutils _pyinstaller plotting __main__ sas pytables stata spss clipboard typing
"""


class Settings(NamedTuple):
    """What the host asks for, once, at the start. Sizes in bytes."""

    memory: int
    output: int
    layers: list[str]
    preload: list[str]
    paths: list[str]


class Child(NamedTuple):
    """One call in flight: process id, a descriptor that becomes readable when it ends, its leash, its deadline."""

    pid: int
    pidfd: int
    leash: socket.socket
    deadline: float


class Server:
    """Tables by key, children in flight, and the loop that serves them."""

    def __init__(self, control: socket.socket, host: int, settings: Settings, confine: Any, execute: Any) -> None:
        self.control, self.host, self.settings = control, host, settings
        self.confine, self.execute = confine, execute
        self.tables: dict[str, Any] = {}
        self.children: dict[int, Child] = {}  # by each of their two descriptors
        self.poll = select.poll()
        self.poll.register(control, select.POLLIN)
        self.poll.register(host, select.POLLIN)

    def serve(self) -> None:
        """Serve until the host is gone."""
        while True:
            for fd, _ in self.poll.poll(self._patience()):
                if fd == self.host or (fd == self.control.fileno() and not self._read_message()):
                    return
                if fd in self.children:  # its pidfd: it has ended; or its leash: the host let go
                    self._end(self.children[fd], timeout=False)
            now = time.monotonic()
            for child in [child for fd, child in self.children.items() if fd == child.pidfd and child.deadline <= now]:
                self._end(child, timeout=True)

    def _patience(self) -> float | None:
        if not self.children:
            return None
        left = min(child.deadline for child in self.children.values()) - time.monotonic()
        return max(0.0, left) * 1000 + 1

    def _read_message(self) -> bool:
        header, fds = _receive_header(self.control)
        if not header:
            return False
        kind, length = HEADER.unpack(header)
        body = _receive(self.control, length)
        if kind == b"T":
            self._keep_table(body)
        elif kind == b"D":
            self.tables.pop(body.decode(), None)
        else:
            self._start(json.loads(body), *fds)
        return True

    def _keep_table(self, body: bytes) -> None:
        size = int.from_bytes(body[:2], "little")
        key = body[2 : 2 + size].decode()
        try:
            self.tables[key] = self.execute.frame(body[2 + size :])
        except Exception as error:  # a table that pandas cannot hold must not end the calls of others
            self.tables[key] = error

    def _start(self, request: dict[str, Any], result: int, leash_fd: int) -> None:
        leash = socket.socket(fileno=leash_fd)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._be_child(request, result, leash, parent)
        os.close(result)
        child = Child(pid, os.pidfd_open(pid), leash, time.monotonic() + request["seconds"])
        for fd in (child.pidfd, leash.fileno()):
            self.children[fd] = child
            self.poll.register(fd, select.POLLIN)

    def _be_child(self, request: dict[str, Any], result: int, leash: socket.socket, parent: int) -> None:
        try:
            names: list[tuple[str, str]] = request["tables"]
            tables = {name: self.tables[key] for name, key in names}
            for table in tables.values():
                if isinstance(table, Exception):
                    raise table
            self.tables.clear()  # what other episodes brought is none of this child's business
            self._confine(request, result, leash, parent)
        except Exception as error:
            # Only here, before foreign code has run, may the child speak through the trusted channel.
            leash.send(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode() + b"\n")
            os._exit(1)
        leash.close()
        self.execute.answer(result, request["code"], tables, request["first"], self.settings.output)

    def _confine(self, request: dict[str, Any], result: int, leash: socket.socket, parent: int) -> None:
        with contextlib.suppress(OSError):  # where memory runs out for all, this one goes first
            os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"1000")
        self.confine.close_files_except({0, 1, 2, result, leash.fileno()})
        self.confine.lock_down(
            memory_bytes=self.settings.memory,
            cpu_seconds=request["seconds"] + 1,
            layers=self.settings.layers,
            parent_pid=parent,
        )

    def _end(self, child: Child, *, timeout: bool) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        status = os.waitpid(child.pid, 0)[1]
        for fd in (child.pidfd, child.leash.fileno()):
            self.poll.unregister(fd)
            del self.children[fd]
        os.close(child.pidfd)
        report = {"timeout": timeout, "exit": os.waitstatus_to_exitcode(status)}
        with contextlib.suppress(OSError):
            child.leash.send(json.dumps(report).encode() + b"\n")
        child.leash.close()


def _receive_header(control: socket.socket) -> tuple[bytes, list[int]]:
    header, fds, _, _ = socket.recv_fds(control, HEADER.size, 2)
    while header and len(header) < HEADER.size:
        header += _receive(control, HEADER.size - len(header))
    return header, fds


def _receive(control: socket.socket, length: int) -> bytes:
    body = bytearray(length)
    view = memoryview(body)
    while view:
        count = control.recv_into(view)
        if not count:
            os._exit(0)  # the host went away in the middle of a message
        view = view[count:]
    return bytes(body)


def _load_beside(name: str) -> Any:
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.py")  # noqa: PTH100,PTH118,PTH120
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _preload(settings: Settings) -> None:
    import numpy
    import pandas

    unloaded = _UNLOADED.split()
    for package in (pandas, numpy):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.", onerror=lambda name: None):
            if not any(part in unloaded for part in module.name.split(".")):
                with contextlib.suppress(Exception):  # parts whose optional dependency is absent
                    importlib.import_module(module.name)
    for name in [*_STDLIB.split(), *settings.preload]:
        importlib.import_module(name)


def main() -> None:
    """Load, say so, serve."""
    control, host = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", ARROW_DEFAULT_MEMORY_POOL="system")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    header, _ = _receive_header(control)
    settings = Settings(**json.loads(_receive(control, HEADER.unpack(header)[1])))
    sys.path += settings.paths
    try:
        confine, execute = _load_beside("confine"), _load_beside("_execute")
        _preload(settings)
        execute.prepare()
    except Exception as error:
        control.sendall(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        return
    control.sendall(json.dumps({"error": ""}).encode() + b"\n")
    Server(control, host, settings, confine, execute).serve()


if __name__ == "__main__":
    main()
    os._exit(0)
