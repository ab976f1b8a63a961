"""Bytes by their SHA-256: in memory, in a folder, or found in other folders.

A folder holds `media/ab/<sha256>`, as run folders do. A file appears under its name only when it is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import shutil
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

from agentenv.errors import DataError, StoreError
from agentenv.media.pictures import ImageInfo, ImageLimits, decode, probe
from agentenv.types import Image

_NAME = re.compile(r"[0-9a-f]{64}")
_NUMBERS = itertools.count()
_MOST_INFOS = 4096
_MOST_FILES = 100_000


class MediaStore:
    """Content-addressed bytes. Thread-safe; several processes may share a folder.

    Args:
        folder: a run folder (or any other) in whose `media/` everything put is written. Without it, bytes are kept in
            memory up to `max_bytes`; the least recently used move to a temporary folder that goes with the process.
        roots: other folders of the same layout, where bytes are looked for.
        max_bytes: memory for bytes; 0 keeps none. With a folder it is a cache of what was read or written.
        max_spill: bytes of the temporary folder, above which the oldest are forgotten for good.
        sync: make each file survive a power cut before `put` returns.
        limits: what pictures are refused.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        roots: Iterable[str | os.PathLike[str]] = (),
        max_bytes: int = 128 << 20,
        max_spill: int = 8 << 30,
        sync: bool = False,
        limits: ImageLimits | None = None,
    ) -> None:
        self.folder = None if folder is None else Path(folder) / "media"
        self.max_bytes, self.max_spill, self.sync = max_bytes, max_spill, sync
        self.limits = limits or ImageLimits()
        self._roots = [Path(root) / "media" for root in roots]
        self._memory: OrderedDict[str, bytes] = OrderedDict()
        self._spilled: OrderedDict[str, int] = OrderedDict()
        self._infos: OrderedDict[str, ImageInfo] = OrderedDict()
        self._files: dict[str, tuple[Path, _State]] = {}
        self._in_memory = self._in_spill = 0
        self._spill_folder: Path | None = None
        self._lock = threading.RLock()

    # -- putting ----------------------------------------------------------------------------------------------------

    def put(self, data: bytes, mime: str | None = None, *, verify: bool = False) -> Image:
        """Keep a picture.

        Args:
            data: the file.
            mime: what its source called it. Only for the error text: the first bytes decide what it is.
            verify: decode it as well, so that damaged pixels are found now and not when they are first looked at.

        Returns:
            The picture by reference, with its displayed width and height.

        Raises:
            DataError: it is not a picture that can be read (see `probe`).
            StoreError: it cannot be written.
        """
        try:
            info = probe(data, self.limits)
            if verify:
                decode(data, 1, self.limits)
        except DataError as error:
            raise DataError(f"{error} (it was called {mime!r})" if mime else str(error)) from None
        return Image(self.put_bytes(data), info.mime, info.width, info.height)

    def put_encoded(self, data: bytes, mime: str, width: int, height: int) -> Image:
        """Keep a picture that this process has just encoded itself: what is said of it is believed."""
        return Image(self.put_bytes(data), mime, width, height)

    def put_bytes(self, data: bytes) -> str:
        """Keep any bytes and give their SHA-256 in hex.

        Raises:
            StoreError: they cannot be written.
        """
        name = hashlib.sha256(data).hexdigest()
        if self.folder is not None:
            _write(self.folder, name, data, self.sync)
        self._remember(name, data)
        return name

    def put_file(self, path: str | os.PathLike[str]) -> str:
        """Keep a file where it lies, and give its SHA-256 in hex: for files that are too large to be held twice.

        It is read once to be named. A file that is changed after that is not found any more, until it is put again.

        Raises:
            StoreError: it cannot be read.
        """
        place = Path(path).resolve()
        try:
            state = _state(place)
            if (name := _NAMED.get((place, state))) is None:
                with place.open("rb") as file:
                    name = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise StoreError(f"the file {place} cannot be read: {error.strerror}") from None
        with self._lock:
            if len(_NAMED) >= _MOST_FILES:
                _NAMED.clear()
            _NAMED[place, state] = name
            self._files[name] = (place, state)
        return name

    def _remember(self, name: str, data: bytes) -> None:
        with self._lock:
            if name in self._memory:
                self._memory.move_to_end(name)
                return
            self._memory[name] = data
            self._in_memory += len(data)
            while self._in_memory > self.max_bytes:
                oldest, dropped = self._memory.popitem(last=False)
                self._in_memory -= len(dropped)
                if self.folder is None and self._on_disk(oldest) is None:
                    self._spill(oldest, dropped)

    def _spill(self, name: str, data: bytes) -> None:
        if self._spill_folder is None:
            self._spill_folder = Path(tempfile.mkdtemp(prefix="agentenv-media-"))
            self._remove = weakref.finalize(self, _remove, self._spill_folder, os.getpid())
        _write(self._spill_folder, name, data, False)
        self._spilled[name] = len(data)
        self._in_spill += len(data)
        while self._in_spill > self.max_spill:
            oldest, size = self._spilled.popitem(last=False)
            self._in_spill -= size
            _place(self._spill_folder, oldest).unlink(missing_ok=True)

    # -- getting ----------------------------------------------------------------------------------------------------

    def get(self, sha256: str) -> bytes:
        """The bytes under a name.

        Raises:
            StoreError: there are none, or the file does not hold what its name says.
        """
        with self._lock:
            data = self._memory.get(sha256)
            if data is not None:
                self._memory.move_to_end(sha256)
                return data
        place = self.path(sha256)
        if place is None:
            raise StoreError(f"no media {sha256[:12]} in {self!r}")
        data = _read(place)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StoreError(f"media {sha256[:12]} is damaged: its content is not what its name says")
        self._remember(sha256, data)
        return data

    def info(self, sha256: str) -> ImageInfo:
        """The header of a picture; those of the last few thousand are remembered.

        Raises:
            StoreError: there is no such media.
            DataError: it is not a picture that can be read.
        """
        with self._lock:
            found = self._infos.get(sha256)
        if found is None:
            found = probe(self.get(sha256), self.limits)
            with self._lock:
                self._infos[sha256] = found
                if len(self._infos) > _MOST_INFOS:
                    self._infos.popitem(last=False)
        return found

    def path(self, sha256: str) -> Path | None:
        """The file that holds the bytes, None where only memory does, or nothing. For the host, never for a model.

        Raises:
            StoreError: that is not a SHA-256 in hex.
        """
        with self._lock:
            return self._on_disk(sha256)

    def _on_disk(self, name: str) -> Path | None:
        if not _NAME.fullmatch(name):
            raise StoreError(f"not a SHA-256 in hex: {name[:80]!r}")
        for folder in (self.folder, *self._roots, self._spill_folder):
            if folder is not None and (place := _place(folder, name)).is_file():
                return place
        kept = self._files.get(name)
        return kept[0] if kept is not None and _unchanged(*kept) else None

    def __contains__(self, sha256: str) -> bool:
        with self._lock:
            return sha256 in self._memory or self._on_disk(sha256) is not None

    def add_root(self, folder: str | os.PathLike[str]) -> None:
        """Look for bytes in the `media/` of this folder too: a run that is read, a task set that ships its pictures."""
        root = Path(folder) / "media"
        with self._lock:
            if root not in self._roots:
                self._roots.append(root)

    def save(self, names: Iterable[str], folder: str | os.PathLike[str], *, sync: bool = False) -> int:
        """Copy media into the `media/` of a folder, before a record that names them is written there.

        Args:
            names: SHA-256 of each; those that are there already cost one look.
            folder: the run folder.
            sync: make them survive a power cut.

        Returns:
            How many were written.

        Raises:
            StoreError: one is not in this store, or cannot be written.
        """
        target = Path(folder) / "media"
        missing = [name for name in dict.fromkeys(names) if not _place(target, name).is_file()]
        for name in missing:
            kept = self._files.get(name)
            if kept is not None and _unchanged(*kept):  # it may be too large to be read into memory
                _write(target, name, kept[0], sync)
            else:
                _write(target, name, self.get(name), sync)
        return len(missing)

    def close(self) -> None:
        """Forget what is in memory and remove the temporary folder. What is in `folder` stays."""
        with self._lock:
            self._memory.clear()
            self._spilled.clear()
            self._files.clear()
            self._in_memory = self._in_spill = 0
            if self._spill_folder is not None:
                self._remove()
                self._spill_folder = None

    def __repr__(self) -> str:
        return f"<MediaStore {'in memory' if self.folder is None else self.folder.parent}>"


_State = tuple[int, int]
_NAMED: dict[tuple[Path, _State], str] = {}
"""Names of files that were read once, by place, size and time of the last change."""


def _state(place: Path) -> _State:
    stat = place.stat()
    return stat.st_size, stat.st_mtime_ns


def _unchanged(place: Path, state: _State) -> bool:
    try:
        return _state(place) == state
    except OSError:
        return False


def _place(folder: Path, name: str) -> Path:
    return folder / name[:2] / name


def _read(place: Path) -> bytes:
    try:
        return place.read_bytes()
    except OSError as error:
        raise StoreError(f"media {place.name[:12]} cannot be read: {error.strerror}") from None


def _write(folder: Path, name: str, data: bytes | Path, sync: bool) -> None:
    """Write a whole file under its name, or nothing. A file that is there already is believed to be whole.

    Args:
        folder: where.
        name: its SHA-256.
        data: its bytes, or a file that holds them.
        sync: make it survive a power cut.
    """
    place = _place(folder, name)
    if place.is_file():
        return
    temporary = place.with_name(f".{name[:16]}.{os.getpid()}.{next(_NUMBERS)}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            if isinstance(data, Path):
                with data.open("rb") as source:
                    shutil.copyfileobj(source, file, 1 << 20)
            else:
                file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(place)
        if sync:
            _sync_folder(place.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(f"media cannot be written to {folder}: {error.strerror}") from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked child, which shares the folder with its parent
        shutil.rmtree(folder, ignore_errors=True)


class _Process:
    """Which store this process uses."""

    def __init__(self) -> None:
        self.store = MediaStore()

    def after_fork(self) -> None:
        """Fresh locks: a forked child may have inherited locks that nobody will ever give back."""
        self.store._lock = threading.RLock()


_PROCESS = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_PROCESS.after_fork)


def media_store() -> MediaStore:
    """The store of this process, in memory unless `use_media_store` set another."""
    return _PROCESS.store


def use_media_store(store: MediaStore) -> None:
    """Make this the store of the process. Episodes that have begun keep the one that they began with."""
    _PROCESS.store = store
