"""Video files of data sets: found when a row is read, opened and named when its task is asked for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from agentenv.errors import DataError
from agentenv.media import media_store
from agentenv.tools.video import put_video
from agentenv.types import Part, Task, Video

FOLDERS = ("videos", "video", "data", "all_videos", "Charades_v1_480", "Charades_v1", "longvila_videos")
"""Where data sets keep their videos, beside their file or below the folder above it."""
ENDINGS = ("", ".mp4", ".mkv", ".webm", ".mov", ".avi")
_PENDING = "file:"
_lock = threading.Lock()
_opened: dict[Path, Video] = {}
_LONGEST = 1024


def find_video(name: object, base: Path, folder: Path | None = None) -> Path:
    """The file that a row means.

    Args:
        name: a path below one of the folders, with or without its ending, or a "file://" address. Of a path from
            another machine only the file's own name counts.
        base: the folder of the data set's file.
        folder: the folder of its videos; by default `base` is tried, and each of `FOLDERS` below it and below
            the one above it.

    Raises:
        DataError: it is no path, or there is no such file in any of the folders.
    """
    if not isinstance(name, str) or not name.strip() or len(name) > _LONGEST or "\0" in name:
        raise DataError(f"a video is the path of a file, not {name!r:.60}")
    path = name.strip().removeprefix("file://").replace("\\", "/")
    beside = [base, *(top / below for top in (base, base.parent) for below in FOLDERS)]
    roots = beside if folder is None else [folder]
    for wanted in dict.fromkeys((path.lstrip("/"), path.rpartition("/")[2])):
        for root in roots:
            for ending in ENDINGS:
                file = root / f"{wanted}{ending}"
                if file.is_file() and file.resolve().is_relative_to(root.resolve()):
                    return file
    where = f"in {folder}" if folder is not None else f"near {base}"
    raise DataError(f"there is no video {name!r:.120} {where}")


def pending(file: Path, check: bool = False) -> Video:
    """A video that is not opened yet; `load` does that.

    Args:
        file: where it is.
        check: open it now, only to see that it can be.

    Raises:
        DataError: it cannot be opened.
    """
    if check:
        put_video(media_store(), file)
    return Video(f"{_PENDING}{file.resolve()}", "", 0, 0, 0.0, 0.0)


def load(task: Task) -> Task:
    """The task with its files opened: each is probed, and read once to be named.

    Raises:
        DataError: one cannot be read as a video.
        StoreError: one cannot be read.
    """
    return replace(task, prompt=tuple(map(_loaded, task.prompt)))


def _loaded(part: Part) -> Part:
    if not isinstance(part, Video) or not part.sha256.startswith(_PENDING):
        return part
    file = Path(part.sha256.removeprefix(_PENDING))
    with _lock:
        known = _opened.get(file)
    if known is not None and media_store().path(known.sha256) == file:
        return known
    video = put_video(media_store(), file)
    with _lock:
        _opened[file] = video
    return video


def videos_in(value: object) -> Sequence[object]:
    """The videos that a column holds: one, or a list; each a path, or an object with `video`, `path` or `url`."""
    several = value if isinstance(value, (list, tuple)) else [value]
    return [_path_of(one) for one in several]


def _path_of(value: object) -> object:
    if not isinstance(value, dict):
        return value
    found = next((value[key] for key in ("video", "path", "url", "video_url") if value.get(key)), None)
    return _path_of(found) if isinstance(found, dict) else found
