"""Files beside a data set, named by their content."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from agentenv.errors import StoreError

FOLDER = "images"
"""Where pictures lie that rows name by their path."""

VIDEOS = "videos"
"""Where videos lie that rows name by their path."""

MEDIA = "media"
"""Where they lie under their bare SHA-256, as in a run folder."""

_PIECE = 1 << 20


class Beside:
    """Files that an export writes beside its data file, each content once, none of them half.

    Args:
        folder: of the export.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._named: dict[str, None] = {}
        self._made: list[Path] = []

    @property
    def count(self) -> int:
        """How many different files the data set names."""
        return len(self._named)

    def put(self, name: str, data: bytes | Path) -> str:
        """Write a file whose name says its content, unless it is there, and give the name back.

        Args:
            name: its path from the folder of the export; the last part begins with its SHA-256.
            data: its bytes, or a file that holds them, which may be too large for memory.

        Raises:
            StoreError: the file cannot be read, or holds something else than its name says.
        """
        place = self.folder / name
        if name in self._named:
            return name
        if not (place.is_file() and place.stat().st_size == _size(data)):
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary = place.with_name(f".{place.name[:16]}.{os.getpid()}")
            try:
                _fill(temporary, data, place.name[:64])
                temporary.replace(place)
            finally:
                temporary.unlink(missing_ok=True)
            self._made.append(place)
        self._named[name] = None
        return name

    @contextmanager
    def row(self) -> Iterator[None]:
        """A row and its files: what is written in it is taken away where the row comes to nothing."""
        named, made = len(self._named), len(self._made)
        try:
            yield
        except BaseException:
            for name in list(islice(self._named, named, None)):
                del self._named[name]
            for place in self._made[made:]:
                place.unlink(missing_ok=True)
            del self._made[made:]
            self._tidy()
            raise

    def undo(self) -> None:
        """Take away what was written: the export failed."""
        for place in self._made:
            place.unlink(missing_ok=True)
        self._tidy()

    def prune(self) -> None:
        """Take away what an earlier export wrote and this one does not name, and nothing else."""
        for top in (FOLDER, VIDEOS, MEDIA):
            for place in (self.folder / top).glob("??/*"):
                ours = re.fullmatch(r"[0-9a-f]{64}(\.\w+)?", place.name) and place.name[:2] == place.parent.name
                if ours and f"{top}/{place.parent.name}/{place.name}" not in self._named:
                    place.unlink()
        self._tidy()

    def _tidy(self) -> None:
        for top in (FOLDER, VIDEOS, MEDIA):
            for folder in (*(self.folder / top).glob("??"), self.folder / top):
                if folder.is_dir() and not any(folder.iterdir()):
                    shutil.rmtree(folder)


def _size(data: bytes | Path) -> int:
    if isinstance(data, bytes):
        return len(data)
    try:
        return data.stat().st_size
    except OSError as error:
        raise _unreadable(data, error) from None


def _fill(place: Path, data: bytes | Path, sha256: str) -> None:
    if isinstance(data, bytes):
        place.write_bytes(data)
        return
    try:
        source = data.open("rb")
    except OSError as error:
        raise _unreadable(data, error) from None
    digest = hashlib.sha256()
    with source, place.open("wb") as file:
        while piece := source.read(_PIECE):
            digest.update(piece)
            file.write(piece)
    if digest.hexdigest() != sha256:
        raise StoreError(f"media {sha256[:12]} is damaged: its content is not what its name says")


def _unreadable(place: Path, error: OSError) -> StoreError:
    return StoreError(f"media {place.name[:12]} cannot be read: {error.strerror}")
