"""Rendered scenes: into the media store, at most once a process, and at most once for ever with a folder."""

from __future__ import annotations

import hashlib
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from agentenv.envs._kept import keep, read_kept
from agentenv.envs.zoom.scene import QUALITY, Scene, render
from agentenv.errors import MissingExtraError, UsageError
from agentenv.media import ImageLimits, media_store
from agentenv.types import Image

_DRAWING = 1  # raised whenever the same scene is drawn otherwise
_WHAT = "the rendered scene"
_KNOWN_MOST = 65_536
_known: dict[str, Image] = {}
_lock = threading.Lock()


@lru_cache(maxsize=1)
def drawn_by() -> str:
    """The versions that decide the bytes of a rendered scene.

    Raises:
        MissingExtraError: Pillow is not installed.
    """
    try:
        import PIL
        from PIL import features
    except ImportError:
        raise MissingExtraError("pillow", "image", "drawing scenes") from None
    parts = [str(features.version(name)) for name in ("freetype2", "libjpeg_turbo", "jpg")]
    return "/".join((str(_DRAWING), PIL.__version__, *parts, str(QUALITY)))


def recipe(scene: Scene) -> str:
    """What a scene is known by, in hex: a hash of all that decides its bytes. Where a photo lies decides nothing."""
    photo: Any = None if scene.photo is None else scene.photo.sha256
    content = msgspec.json.encode((drawn_by(), msgspec.structs.replace(scene, photo=None), photo))
    return hashlib.sha256(content).hexdigest()


def scene_image(scene: Scene, cache: Path | None = None) -> Image:
    """The scene as an image of the process's media store, rendered if neither the store nor the folder has it.

    Args:
        scene: what to draw.
        cache: a folder that holds `<recipe>.jpg`, and where what was rendered is added.

    Raises:
        UsageError: it is larger than any picture may be.
    """
    _check_size(*scene.size)
    key, store = recipe(scene), media_store()
    with _lock:
        known = _known.get(key)
    file = None if cache is None else cache / f"{key}.jpg"
    if known is not None and known.sha256 in store:
        if file is not None and not file.is_file():
            keep(file, store.get(known.sha256), _WHAT)
        return known
    data = read_kept(file, _WHAT) if file is not None else None
    if data is None:
        data = render(scene)
        if file is not None:
            keep(file, data, _WHAT)
    image = store.put_encoded(data, "image/jpeg", *scene.size)
    with _lock:
        if len(_known) >= _KNOWN_MOST:
            _known.clear()
        _known[key] = image
    return image


def _check_size(wide: int, high: int) -> None:
    most = ImageLimits()
    if wide * high > most.max_pixels or max(wide, high) > most.max_side:
        text = f"a scene of {wide} x {high} px is larger than a picture may be ({most.max_pixels:,} pixels)"
        raise UsageError(f"{text}; make first_view smaller")
