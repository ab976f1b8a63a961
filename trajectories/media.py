"""The pictures of recorded episodes: into the run folder before the line that names them, and out of it again.

A run folder holds them as `media/ab/<sha256>`, each content once; several processes may share it. Frames of videos are
pictures like any other. The videos themselves, which may be large, stay where they are: a record names them by hash,
and `save_videos` copies them on request.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from agentenv.errors import DataError, StoreError
from agentenv.media.store import MediaStore, media_store
from agentenv.trajectory import Trajectory
from agentenv.types import Image, Part, Video

_LOG = logging.getLogger("agentenv")
_CACHE_BYTES = 32 << 20


def images(record: Trajectory) -> list[Image]:
    """Every image of a record, frames of videos among them: of its nodes in order, then of its tool runs.

    The same content may come again.
    """
    found: list[Image] = []
    for part in _parts(record):
        if type(part) is Image:
            found.append(part)
        elif type(part) is Video:
            found += part.images()
    return found


def videos(record: Trajectory) -> list[str]:
    """SHA-256 of the video files that a record names, each once: of its videos, its clips and its single frames."""
    names: dict[str, None] = {}
    for part in _parts(record):
        if type(part) is Video:
            names[part.sha256] = None
        elif type(part) is Image and (part.derived or {}).get("op") in _FRAME_OPS:
            names[str((part.derived or {}).get("from"))] = None
    return list(names)


def _parts(record: Trajectory) -> Iterator[Part]:
    yield from (part for node in record.nodes for part in node.message.parts)
    yield from (part for run in record.tool_runs for part in run.parts)


_FRAME_OPS = ("frame", "frame_zoom")


def save(record: Trajectory, folder: Path) -> list[Path]:
    """Put the bytes of a record's images into the `media/` of a folder.

    A picture that this process does not have is left out with a warning: the episode is worth more than that.

    Args:
        record: the episode. Its pictures are in the process's store.
        folder: the run folder.

    Returns:
        The files that are new: not yet safe from a power cut.

    Raises:
        StoreError: a file could not be written.
    """
    found = images(record)
    if not found:
        return []
    names = dict.fromkeys(image.sha256 for image in found)
    new = [place for name in names if not (place := file_of(folder, name)).is_file()]
    if not new:
        return []
    store = media_store()
    made = [place for place in new if _holds(store, place.name)]
    if len(made) < len(new):
        lost = ", ".join(place.name[:12] for place in new if place not in made)
        _LOG.warning("episode %s is recorded without its pictures %s: they are nowhere to be found", record.id, lost)
    store.save([place.name for place in made], folder)
    return made


def save_videos(records: Iterable[Trajectory], folder: Path) -> tuple[int, list[str]]:
    """Put the video files that records name into the `media/` of a folder.

    Args:
        records: the episodes. Their videos are in the process's store, or there already.
        folder: the run folder.

    Returns:
        How many were copied, and the SHA-256 of those that are nowhere to be found.

    Raises:
        StoreError: a file could not be written.
    """
    names = dict.fromkeys(name for record in records for name in videos(record))
    new = [name for name in names if not file_of(folder, name).is_file()]
    store = media_store()
    held = [name for name in new if _holds(store, name)]
    return store.save(held, folder, sync=True), [name for name in new if name not in held]


def _holds(store: MediaStore, name: str) -> bool:
    try:
        return name in store
    except StoreError:  # a record from elsewhere can hold any text as a hash
        return False


def file_of(folder: Path, sha256: str) -> Path:
    """Where a folder holds the bytes of that name, if it does."""
    return folder / "media" / sha256[:2] / sha256


class RunMedia:
    """The bytes of a run's pictures, by SHA-256: out of the run folder, else out of the process's media store.

    Args:
        folder: the folder in whose `media/` they are; None where the run is in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        roots = () if folder is None else (folder,)
        self._own = MediaStore(roots=roots, max_bytes=_CACHE_BYTES)

    def get(self, sha256: str) -> bytes:
        """The bytes, which are what their name says.

        Raises:
            StoreError: there are none, or they are damaged.
        """
        for store in (self._own, media_store()):
            if sha256 in store:
                return store.get(sha256)
        raise StoreError(f"the picture {sha256[:12]} is neither in {self._place} nor in this process")

    def path(self, sha256: str) -> Path | None:
        """The file that holds the bytes, None where only memory does, or nothing."""
        return self._own.path(sha256) or media_store().path(sha256)

    def large(self, sha256: str) -> bytes | Path:
        """The file that holds the bytes, unread, or the bytes where only memory does.

        Raises:
            StoreError: there are none.
        """
        return self.path(sha256) or self.get(sha256)

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._own or sha256 in media_store()

    @property
    def _place(self) -> str:
        return "the run's memory" if self.folder is None else str(self.folder / "media")

    def __repr__(self) -> str:
        return f"<RunMedia of {self._place}>"


def check(records: Iterable[Trajectory], media: RunMedia) -> list[DataError]:
    """What is wrong with the pictures of records: one entry for each that is missing or damaged, read in full.

    Where there is a run folder, only what lies in it counts: it may be read by another process tomorrow.
    """
    problems: dict[str, DataError] = {}
    sound: set[str] = set()
    for record in records:
        for image in images(record):
            if image.sha256 in sound or image.sha256 in problems:
                continue
            try:
                _read(media, image.sha256)
            except StoreError as error:
                of = image.handle or ("a frame" if (image.derived or {}).get("op") == "frame" else "a picture")
                name = f"{of} of episode {record.id}"
                problems[image.sha256] = DataError(f"{name}: {error}")
            else:
                sound.add(image.sha256)
    return list(problems.values())


def _read(media: RunMedia, sha256: str) -> None:
    if media.folder is None:
        media.get(sha256)
    else:
        MediaStore(roots=(media.folder,), max_bytes=0).get(sha256)
