"""Files beside a data set, named by their content."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

FOLDER = "images"
"""Where pictures lie that rows name by their path."""

VIDEOS = "videos"
"""Where videos lie that rows name by their path."""

MEDIA = "media"
"""Where they lie under their bare SHA-256, as in a run folder."""


class Beside:
    """Files that an export writes beside its data file, each content once, none of them half.

    Args:
        folder: of the export.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._named: set[str] = set()
        self._made: list[Path] = []

    @property
    def count(self) -> int:
        """How many different files the data set names."""
        return len(self._named)

    def put(self, name: str, data: bytes) -> str:
        """Write a file whose name says its content, unless it is there, and give the name back."""
        place = self.folder / name
        if name in self._named:
            return name
        self._named.add(name)
        if not (place.is_file() and place.stat().st_size == len(data)):
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary = place.with_name(f".{place.name[:16]}.{os.getpid()}")
            temporary.write_bytes(data)
            temporary.replace(place)
            self._made.append(place)
        return name

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
