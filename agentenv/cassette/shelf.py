"""The file behind a cassette: SQLite in WAL mode, pictures beside it, and locks that die with their process."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import struct
import threading
import time
import weakref
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from agentenv.cassette.keys import Asked
from agentenv.errors import StoreError, UsageError
from agentenv.types import Image, Part, ToolResult, Video

NAME = "cassette.sqlite"
_LOCKS = "locks"
_SCHEMA = 1
_BUSY_SECONDS = 60.0
_PACKED_FROM = 2048
_TABLES = """
CREATE TABLE IF NOT EXISTS recordings (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, tool TEXT NOT NULL, version TEXT NOT NULL, arguments TEXT NOT NULL,
    at REAL NOT NULL, error TEXT, lasting INTEGER NOT NULL, result BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS recordings_by_key ON recordings (key, lasting, id);
CREATE TABLE IF NOT EXISTS uses (
    key TEXT NOT NULL, who TEXT NOT NULL, occurrence INTEGER NOT NULL, recording INTEGER NOT NULL,
    PRIMARY KEY (key, who, occurrence)) WITHOUT ROWID;
"""
_COLUMNS = "id, key, tool, version, arguments, at, error, lasting, result"

_results = msgspec.json.Decoder(ToolResult)


class Recording(Struct, frozen=True):
    """One kept result.

    Args:
        id: counts up in the order of recording.
        key, tool, version, arguments: see `Asked`.
        at: when it was recorded, as Unix time.
        error: the kind of the error, None where the call succeeded.
        lasting: another call may be given it; False for errors that may pass, which only replays show.
        packed: the result as it is stored.
    """

    id: int
    key: str
    tool: str
    version: str
    arguments: str
    at: float
    error: str | None
    lasting: bool
    packed: bytes

    @property
    def result(self) -> ToolResult:
        """The result.

        Raises:
            StoreError: it cannot be read.
        """
        try:
            data = self.packed
            return _results.decode(data if data[:1] == b"{" else zlib.decompress(data))
        except (zlib.error, msgspec.DecodeError) as error:
            raise StoreError(f"recording {self.id} of {self.tool} is damaged: {error}") from None


class Shelf:
    """The recordings of a folder. Thread-safe; many processes may read and write at once.

    What `add` has returned from survives the death of the process.

    Args:
        path: the folder; made where it is missing, unless `write` is False.
        write: whether it is to be written.

    Raises:
        UsageError: there is no cassette.
        StoreError: it cannot be opened, or is of another schema.
    """

    def __init__(self, path: str | os.PathLike[str], *, write: bool) -> None:
        self.path, self.write = Path(path), write
        self._lock = threading.RLock()
        self._pid = 0
        self._connection: sqlite3.Connection | None = None
        if not write and not (self.path / NAME).is_file():
            raise UsageError(f"there is no cassette at {self.path}; the modes record and cache make one")
        with self._open():
            pass

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The connection, of which a forked child gets its own."""
        with self._lock:
            if self._connection is None or self._pid != os.getpid():
                self._connection, self._pid = self._connected(), os.getpid()
                weakref.finalize(self, self._connection.close)
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise StoreError(f"the cassette {self.path} failed: {error}") from None

    def _connected(self) -> sqlite3.Connection:
        try:
            if not self.write:
                return self._readable()
            self.path.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self.path / NAME, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")  # a killed process loses nothing, a power cut the last ones
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                connection.execute(f"PRAGMA user_version={_SCHEMA}")
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"the cassette {self.path} cannot be opened: {error}") from None
        return self._checked(connection)

    def _readable(self) -> sqlite3.Connection:
        place = (self.path / NAME).absolute().as_uri()
        for options in ("mode=ro", "mode=ro&immutable=1"):  # the second for a folder that cannot be written at all
            connection = sqlite3.connect(
                f"{place}?{options}", uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("SELECT 1 FROM recordings LIMIT 1")
            except sqlite3.OperationalError:
                connection.close()
                continue
            return self._checked(connection)
        raise StoreError(f"the cassette {self.path} cannot be read: {NAME} is not a cassette, or not readable")

    def _checked(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        schema = connection.execute("PRAGMA user_version").fetchone()[0]
        if schema != _SCHEMA:
            connection.close()
            raise StoreError(f"the cassette {self.path} is of schema {schema}; this version reads {_SCHEMA}")
        return connection

    # -- reading ----------------------------------------------------------------------------------------------------

    def used(self, asked: Asked) -> Recording | None:
        """What this very call of this very episode was given."""
        return self._one(
            "WHERE id = (SELECT recording FROM uses WHERE key = ? AND who = ? AND occurrence = ?)",
            (asked.key, asked.who, asked.occurrence),
        )

    def newest(self, key: str) -> Recording | None:
        """The last lasting recording under a key."""
        return self._one("WHERE key = ? AND lasting ORDER BY id DESC LIMIT 1", (key,))

    def nth(self, key: str, number: int) -> Recording | None:
        """The lasting recording under a key with this number, from 0 in the order of recording."""
        return self._one("WHERE key = ? AND lasting ORDER BY id LIMIT 1 OFFSET ?", (key, number))

    def count(self, key: str) -> int:
        """How many lasting recordings there are under a key."""
        with self._open() as connection:
            found = connection.execute("SELECT count(*) FROM recordings WHERE key = ? AND lasting", (key,)).fetchone()
            return int(found[0])

    def _one(self, where: str, values: tuple[Any, ...]) -> Recording | None:
        with self._open() as connection:
            row = connection.execute(f"SELECT {_COLUMNS} FROM recordings {where}", values).fetchone()
        return None if row is None else _recording(row)

    def all(self, tool: str = "") -> Iterator[Recording]:
        """All recordings in order, or those of one tool."""
        last = 0
        while True:
            with self._open() as connection:
                rows = connection.execute(
                    f"SELECT {_COLUMNS} FROM recordings WHERE id > ? AND (? = '' OR tool = ?) ORDER BY id LIMIT 500",
                    (last, tool, tool),
                ).fetchall()
            if not rows:
                return
            for row in rows:
                last = row[0]
                yield _recording(row)

    def arguments(self, tool: str, most: int) -> list[str]:
        """Arguments that were recorded of a tool, each once, for messages."""
        with self._open() as connection:
            statement = "SELECT DISTINCT arguments FROM recordings WHERE tool = ? ORDER BY id LIMIT ?"
            return [row[0] for row in connection.execute(statement, (tool, most))]

    # -- writing ----------------------------------------------------------------------------------------------------

    def add(self, asked: Asked, result: ToolResult, *, lasting: bool) -> None:
        """Keep a result, and that this call of this episode was given it."""
        data = msgspec.json.encode(result)
        packed = zlib.compress(data, 1) if len(data) >= _PACKED_FROM else data
        row = (asked.key, asked.tool, asked.version, asked.arguments, time.time(), result.error_kind, lasting, packed)
        with self._open() as connection, _transaction(connection):
            cursor = connection.execute(
                "INSERT INTO recordings (key, tool, version, arguments, at, error, lasting, result) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            self._use(connection, asked, cursor.lastrowid)

    def use(self, asked: Asked, recording: Recording) -> None:
        """Note that this call of this episode was given a recording that others asked for."""
        with self._open() as connection, _transaction(connection):
            self._use(connection, asked, recording.id)

    @staticmethod
    def _use(connection: sqlite3.Connection, asked: Asked, recording: int | None) -> None:
        values = (asked.key, asked.who, asked.occurrence, recording)
        connection.execute("INSERT OR REPLACE INTO uses VALUES (?, ?, ?, ?)", values)

    @contextlib.asynccontextmanager
    async def alone(self, key: str) -> AsyncIterator[None]:
        """Hold the lock of a key, against all processes. The system gives it back when the process dies."""
        descriptor = os.open(self.path / _LOCKS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        place = int(key[:15], 16)  # one byte of a file that stays empty: locks may lie beyond its end
        pause = 0.002
        try:
            while not _locked(descriptor, place):
                await asyncio.sleep(pause)
                pause = min(0.05, pause * 1.5)
            yield
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = None


def media_of(parts: tuple[Part, ...]) -> list[str]:
    """SHA-256 of all pictures and videos of a result."""
    names: list[str] = []
    for part in parts:
        if isinstance(part, Image):
            names.append(part.sha256)
        elif isinstance(part, Video):
            names += (part.sha256, *part.frames)
    return names


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _recording(row: tuple[Any, ...]) -> Recording:
    id, key, tool, version, arguments, at, error, lasting, packed = row
    return Recording(id, key, tool, version, arguments, at, error, bool(lasting), packed)


def _locked(descriptor: int, place: int) -> bool:
    """Try to lock one byte. Locks of the open file, not of the process: two cassettes of one process exclude, too."""
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
    except (BlockingIOError, PermissionError):
        return False
    return True
