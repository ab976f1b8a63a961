"""Encoded films: into the media store, and at most once for ever with a folder."""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress
from pathlib import Path

import msgspec

from agentenv.envs._kept import keep, read_kept
from agentenv.envs.video.encode import encode, encoded_by
from agentenv.envs.video.film import FPS, SIZE, Film
from agentenv.errors import DataError
from agentenv.media import media_store
from agentenv.tools.search.build import cache_folder
from agentenv.types import Video

MOST_BYTES = 4 << 30
"""What the folder of films may hold; the least recently used go first."""
_WHAT = "the film"
_KNOWN_MOST = 65_536
_known: dict[str, Video] = {}
_lock = threading.Lock()


def default_cache() -> Path:
    """The folder in which films are kept: `films` in the library's cache (see `tools.search.build.cache_folder`)."""
    return cache_folder("films")


def recipe(film: Film) -> str:
    """What a film is known by, in hex: a hash of all that decides its bytes."""
    return hashlib.sha256(msgspec.json.encode((encoded_by(), film))).hexdigest()


def film_video(film: Film, cache: Path | None = None, must: bool = True) -> Video:
    """The film as a video of the process's media store, encoded if neither the store nor the folder has it.

    Args:
        film: what it shows.
        cache: a folder that holds `<recipe>.mp4`, and where what was encoded is added. Several processes may share it:
            a file appears under its name only when it is whole.
        must: a folder that cannot be used is an error; else nothing is kept.

    Raises:
        DataError: the folder cannot be written or read.
        MissingExtraError: PyAV or Pillow is not installed.
    """
    key, store = recipe(film), media_store()
    with _lock:
        known = _known.get(key)
    if known is not None and known.sha256 in store:
        return known
    file = None if cache is None else cache / f"{key}.mp4"
    data: bytes | None = None
    with suppress(*() if must else (DataError,)):
        data = read_kept(file, _WHAT) if file is not None else None
    if data is None:
        data = encode(film)
        with suppress(*() if must else (DataError,)):
            if file is not None:
                keep(file, data, _WHAT)
                _trim(file.parent, MOST_BYTES)
    video = Video(store.put_bytes(data), "video/mp4", *SIZE, film.duration, float(FPS))
    with _lock:
        if len(_known) >= _KNOWN_MOST:
            _known.clear()
        _known[key] = video
    return video


def _trim(folder: Path, most: int) -> None:
    """Remove the films that were not used for longest, where there are too many; others may be doing the same."""
    films = []
    for file in folder.glob("*.mp4"):
        with suppress(OSError):
            stat = file.stat()
            films.append((stat.st_mtime, stat.st_size, file))
    left = sum(size for _, size, _ in films)
    for _, size, file in sorted(films):
        if left <= most:
            return
        with suppress(OSError):
            file.unlink()
        left -= size
