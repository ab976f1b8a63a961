"""Encoded films: into the media store, and at most once for ever with a folder."""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress
from pathlib import Path

import msgspec

from agentenv.envs.video.encode import encode, encoded_by
from agentenv.envs.video.film import FPS, SIZE, Film
from agentenv.errors import DataError
from agentenv.media import media_store
from agentenv.tools.search.build import cache_folder
from agentenv.types import Video

MOST_BYTES = 4 << 30
"""What the folder of films may hold; the least recently used go first."""
_ELSE = "give another folder for films, or none"
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
        data = _read(file) if file is not None else None
    if data is None:
        data = encode(film)
        with suppress(*() if must else (DataError,)):
            if file is not None:
                _keep(file, data)
    video = Video(store.put_bytes(data), "video/mp4", *SIZE, film.duration, float(FPS))
    with _lock:
        if len(_known) >= _KNOWN_MOST:
            _known.clear()
        _known[key] = video
    return video


def _read(file: Path) -> bytes | None:
    """The bytes of a file, which counts as used; None where there is none."""
    try:
        data = file.read_bytes()
        with suppress(OSError):  # somebody else's folder can be read and not touched
            os.utime(file)
        return data
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"the film cannot be read: {error.strerror}; {_ELSE}", str(file)) from None


def _keep(file: Path, data: bytes) -> None:
    """Write the whole file under its name, or nothing."""
    part = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(file)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise DataError(f"the film cannot be kept: {error.strerror}; {_ELSE}", str(file)) from None
    _trim(file.parent, MOST_BYTES)


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
