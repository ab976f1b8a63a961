"""The host's side of the pandas worker: starts `_zygote.py`, sends it tables and calls, reads what comes back."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import hashlib
import importlib.util
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agentenv.errors import UsageError, WorkerError
from agentenv.tools.table import confine
from agentenv.tools.table.code_outcome import CodeTable

FOLDER = Path(__file__).resolve().parent
_HEADER = struct.Struct("<cI")
_START_SECONDS = 120.0  # a cold file system may need long to load pandas
_SEND_SECONDS = 60.0
_PLAIN = {int, float, str, bool, bytes, type(None)}
_TIMES = {datetime.datetime, datetime.date, type(None)}


class WorkerGoneError(Exception):
    """The worker died or broke under a call; the call may be tried again on another one."""


class Status(msgspec.Struct):
    """What the worker says of a child that has ended: by deadline, by exit code or minus signal, or never let loose."""

    timeout: bool = False
    exit: int = 0
    error: str = ""


class Packed:
    """A table with the key under which the worker keeps it; its bytes are made only where they are needed."""

    def __init__(self, table: CodeTable) -> None:
        self._table = table
        self._body = b"" if table.key else pack(table.columns, table.rows)
        self.key = f"given {table.key}" if table.key else hashlib.blake2b(self._body, digest_size=20).hexdigest()

    def body(self) -> bytes:
        """The table as the worker reads it."""
        return self._body or pack(self._table.columns, self._table.rows)


class Leash:
    """The host's end of one call's trusted channel: closing its sending side has the worker kill the child."""

    def __init__(self, end: socket.socket) -> None:
        self._end: socket.socket | None = end

    def fileno(self) -> int:
        """The descriptor, for `poll`; -1 when settled."""
        return -1 if self._end is None else self._end.fileno()

    def let_go(self) -> None:
        """Have the child killed, if it still lives; returns at once."""
        if self._end is not None:
            with contextlib.suppress(OSError):
                self._end.shutdown(socket.SHUT_WR)

    def __del__(self) -> None:
        if self._end is not None:
            self._end.close()

    def settle(self, patience: float) -> Status | None:
        """Wait until the child is gone, and say how it ended; None where the worker never told."""
        if self._end is None:
            return None
        end, self._end = self._end, None
        with end:
            end.settimeout(patience)
            try:
                said = end.recv(4096)
            except OSError:
                return None
        # A child that was never let loose says why, and its worker may have reported its end before we look.
        first = said.partition(b"\n")[0]
        return msgspec.json.decode(first, type=Status) if first else None


class Worker:
    """One warm pandas process and what it holds. All methods may be called from any thread."""

    def __init__(self, settings: dict[str, Any], bwrap: str, cache_bytes: int) -> None:
        self._owner, self._cache_bytes = os.getpid(), cache_bytes
        self._held: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        host = os.pidfd_open(self._owner)
        program = [sys.executable, "-P", "-s", str(FOLDER / "_zygote.py"), str(theirs.fileno()), str(host)]
        try:
            self._process = subprocess.Popen(
                [*_prefix(bwrap, settings["paths"]), *program],
                env={"PYTHONHASHSEED": "0"},  # sets print in the same order in every run; nothing else is passed on
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), host),
                start_new_session=True,  # a Ctrl-C in the terminal is the host's to handle
            )
        finally:
            theirs.close()
            os.close(host)
        self._greet(settings)

    @property
    def pid(self) -> int:
        """Process id of what was started: the worker, or the bubblewrap around it."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether it can be used: not ended, and not another process's (after a fork of the host)."""
        return self._owner == os.getpid() and self._control.fileno() >= 0 and self._process.poll() is None

    def start(self, request: dict[str, Any], tables: Iterable[Packed]) -> tuple[int, Leash]:
        """Start a call; returns the descriptor to read its answer from, and its leash.

        Raises:
            WorkerGoneError: the worker is dead.
        """
        result, theirs = os.pipe()
        ours, other = socket.socketpair()
        body = json.dumps(request).encode()
        try:
            with self._lock:
                self._send_tables(tables)
                message = _HEADER.pack(b"R", len(body)) + body
                sent = socket.send_fds(self._control, [message], [theirs, other.fileno()])
                self._control.sendall(message[sent:])
        except OSError as error:
            os.close(result)
            ours.close()
            self.close()
            raise WorkerGoneError from error
        finally:
            os.close(theirs)
            other.close()
        return result, Leash(ours)

    def close(self) -> None:
        """End it, and wait until it has ended."""
        self._control.close()
        if self._owner != os.getpid():
            self._process.returncode = 0  # another process's child: nothing to wait for here
            return
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _greet(self, settings: dict[str, Any]) -> None:
        self._control.settimeout(_START_SECONDS)
        try:
            self._send(b"C", json.dumps(settings).encode())
            with self._control.makefile("rb") as answers:
                line = answers.readline()
        except OSError as error:
            line = json.dumps({"error": f"no answer: {error}"}).encode()
        why = json.loads(line)["error"] if line else "it ended before it was ready"
        if why:
            self._process.kill()
            self.close()
            raise WorkerError(f"the pandas worker did not start: {why}")
        self._control.settimeout(_SEND_SECONDS)

    def _send_tables(self, tables: Iterable[Packed]) -> None:
        wanted = {table.key: table for table in tables}
        for key, table in wanted.items():
            if key not in self._held:
                name, body = key.encode(), table.body()
                self._send(b"T", len(name).to_bytes(2, "little") + name + body)
                self._held[key] = len(body)
            self._held.move_to_end(key)
        while sum(self._held.values()) > self._cache_bytes and (oldest := next(iter(self._held))) not in wanted:
            self._send(b"D", oldest.encode())
            del self._held[oldest]

    def _send(self, kind: bytes, body: bytes) -> None:
        self._control.sendall(_HEADER.pack(kind, len(body)) + body)


def collect(result: int, leash: Leash, most: int, patience: float) -> bytes:
    """Read a child's answer until it closes the pipe, has ended, or has said more than `most` bytes.

    Raises:
        WorkerGoneError: nothing happened for longer than any call may take.
    """
    raw = bytearray()
    end = time.monotonic() + patience
    poll = select.poll()
    for fd in (result, leash.fileno()):
        poll.register(fd, select.POLLIN)
    while len(raw) <= most:
        ready = {fd for fd, _ in poll.poll(max(0.0, end - time.monotonic()) * 1000)}
        if not ready:
            raise WorkerGoneError
        if result not in ready:
            break  # the child has ended, and everything it wrote is read
        chunk = os.read(result, 1 << 16)
        if not chunk:
            break
        raw += chunk
    return bytes(raw)


def package_folders(names: Iterable[str]) -> list[str]:
    """The folders from which the packages are imported here, which an isolated interpreter may not search by itself."""
    specs = [importlib.util.find_spec(name.partition(".")[0]) for name in names]
    places = [Path(spec.origin).resolve() for spec in specs if spec is not None and spec.origin and spec.has_location]
    return list(dict.fromkeys(str(place.parents[1 if place.name == "__init__.py" else 0]) for place in places))


def pack(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """A table as bytes: names, which columns are dates or times, and the values column by column.

    Raises:
        UsageError: the rows are not all as long as the list of columns.
    """
    if any(len(row) != len(columns) for row in rows):
        raise UsageError(f"every row of a table must have as many values as it has columns ({len(columns)})")
    data: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in columns]
    times = []
    for index, column in enumerate(data):
        kinds = set(map(type, column))
        if kinds <= _PLAIN:
            continue
        if kinds <= _TIMES:
            times.append(index)
        data[index] = [_plain(value) for value in column]
    content = (list(columns), times, data)
    try:
        return b"M" + msgspec.msgpack.encode(content)
    except OverflowError:  # integers of more than 64 bits
        return b"J" + json.dumps(content, default=str).encode()


def _plain(value: Any) -> Any:
    if value is None or type(value) in _PLAIN:
        return value
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    item = getattr(value, "item", None)  # numpy's scalars
    native = item() if callable(item) else value
    return native if type(native) in _PLAIN else str(native)


def _prefix(bwrap: str, folders: Iterable[str]) -> list[str]:
    if not bwrap:
        return []
    return confine.bwrap_command(bwrap, [sys.prefix, sys.base_prefix, FOLDER, *folders])
