"""Things that are made once and then only read: in a cache folder, under a key, by whichever process comes first.

A folder appears under its final name only when it is whole. Processes that want the same one wait for the first to have
made it; one that dies leaves a folder behind that the next sweeps away.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, TypeVar

from agentenv.errors import StoreError

logger = logging.getLogger("agentenv")
T = TypeVar("T")

Progress = Callable[[str, int, "int | None"], None]
"""(what is being done, how much of it is done, how much there is or None)."""


def cache_folder(*names: str) -> Path:
    """Where things may be kept that can be made again: `AGENTENV_CACHE`, else `XDG_CACHE_HOME/agentenv`, else
    `~/.cache/agentenv`.
    """
    given = os.environ.get("AGENTENV_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given or Path(base) / "agentenv").expanduser().joinpath(*names)


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, made by `make` where it is not there.

    Args:
        folder: its final place.
        make: fills an empty folder that it is given; called by one process at a time.

    Raises:
        StoreError: it cannot be written.
    """
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            if not folder.is_dir():
                _make(folder, make)
    except OSError as error:
        text = (
            f"the index {folder.name} cannot be written: {error}; AGENTENV_CACHE names another folder for all of them"
        )
        raise StoreError(text) from error
    return folder


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    started = time.monotonic()
    unfinished = folder.with_name(folder.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that died
    unfinished.mkdir()
    try:
        make(unfinished)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    unfinished.rename(folder)
    logger.info("made %s in %.1f s", folder.name, time.monotonic() - started)


@contextmanager
def whole(folder: Path) -> Iterator[None]:
    """Opening what stands in a folder: any failure says that it is damaged, and what to do.

    Raises:
        StoreError: it is.
    """
    try:
        yield
    except (OSError, ValueError, sqlite3.Error) as error:
        raise StoreError(f"the index {folder} is damaged ({error}): delete that folder, and it is made anew") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with folder.with_name(folder.name + ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not folder.is_dir():
                logger.warning("another process makes the search data %s; this one waits for it", folder.name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


class ShownProgress:
    """A `Progress` on standard error: a line that renews itself in a terminal, one every few seconds elsewhere.

    Work that is done within the first `every` seconds is not shown.
    """

    def __init__(self, every: float = 5.0, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._every = every
        self._next = time.monotonic() + (0.5 if self._live else every)
        self._shown = False

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Show it, if it is time."""
        now = time.monotonic()
        if now < self._next and not (self._shown and done == total):
            return
        self._next = now + (0.2 if self._live else self._every)
        count = f"{done:,}" if total is None else f"{done:,} of {total:,}"
        ending = "\n" if not self._live or done == total else ""
        self._stream.write(("\r" if self._live else "") + f"{what}: {count}{ending}")
        self._stream.flush()
        self._shown = done != total


def counted(items: Iterable[T], what: str, total: int | None, progress: Progress, every: int = 1000) -> Iterator[T]:
    """The items; every so many of them, and at the end, `progress` is told."""
    done = 0
    for item in items:
        yield item
        done += 1
        if done % every == 0:
            progress(what, done, total)
    progress(what, done, done)
