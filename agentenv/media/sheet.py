"""Frames of a video for people: side by side, small, each under its time."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

from agentenv.errors import DataError
from agentenv.media.pictures import decode
from agentenv.types import Image

_LINE = 16  # pixels above a frame for its time


def contact_sheet(
    frames: Sequence[Image],
    load: Callable[[str], bytes],
    *,
    most: int = 24,
    across: int = 4,
    width: int = 320,
) -> tuple[bytes, int, int]:
    """Pictures in rows, frames under their times, as a JPEG. Where there are too many, some are left out, evenly.

    Args:
        frames: frames of a video, whose times stand in `derived`; or any images.
        load: gives their bytes by SHA-256.
        most: frames that are shown; the first and the last are always among them.
        across: frames in a row.
        width: of a frame on the sheet, in pixels, where it is not smaller.

    Returns:
        The file, its width and its height in pixels.

    Raises:
        DataError: there are no frames, or one cannot be decoded.
        StoreError: `load` does not have one.
        MissingExtraError: Pillow is not installed.
    """
    if not frames:
        raise DataError("there are no frames to show")
    chosen = [frames[number] for number in _spread(len(frames), max(2, most))]
    pictures = [decode(load(frame.sha256)) for frame in chosen]
    wide = min(width, max(picture.width for picture in pictures))
    sizes = [(wide, max(1, round(picture.height * wide / picture.width))) for picture in pictures]
    times = [(frame.derived or {}).get("time") for frame in chosen]
    line = 0 if times.count(None) == len(times) else _LINE
    high, across = max(tall for _, tall in sizes) + line, min(across, len(chosen))
    from PIL import Image as Pillow
    from PIL import ImageDraw

    whole = Pillow.new("RGB", (across * wide, -(-len(chosen) // across) * high), "black")
    pen = ImageDraw.Draw(whole)
    for number, (time, picture, size) in enumerate(zip(times, pictures, sizes, strict=True)):
        x, y = number % across * wide, number // across * high
        if time is not None:
            pen.text((x + 3, y + 2), f"{float(time):.1f} s", fill="white")
        whole.paste(picture.resize(size), (x, y + line))
    file = io.BytesIO()
    whole.save(file, "JPEG", quality=85)
    return file.getvalue(), *whole.size


def _spread(count: int, most: int) -> list[int]:
    """At most so many of the numbers below `count`, evenly, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]
