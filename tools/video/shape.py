"""What is kept of a decoded frame: upright, scaled, encoded."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Box = tuple[float, float, float, float]


class Shape(Struct, frozen=True):
    """How frames are shown. Equal shapes of equal frames are equal bytes.

    Args:
        width: of the result, in pixels, upright.
        height: of the result.
        format: "JPEG", "PNG", or "RGB" for rows of bytes.
        quality: of JPEG.
        label: burn the time into the upper left corner.
        box: the region that is shown, as shares of the upright frame's width and height; None for all of it.
    """

    width: int
    height: int
    format: Literal["JPEG", "PNG", "RGB"] = "JPEG"
    quality: int = 85
    label: bool = False
    box: Box | None = None


def shaped(frame: Any, shape: Shape, seconds: float) -> bytes:
    """A decoded PyAV frame in a shape.

    Args:
        frame: as PyAV gives it.
        shape: what is wanted.
        seconds: when it is shown, for the label.
    """
    return _encoded(_upright(frame, shape) if shape.box is None else _region(_whole(frame), shape), shape, seconds)


def finished(pixels: Any, shape: Shape, seconds: float) -> bytes:
    """Upright pixels of a frame, of shape (height, width, 3) and any size, in a shape."""
    right = shape.box is None and pixels.shape[:2] == (shape.height, shape.width)
    return _encoded(pixels if right else _region(pixels, shape), shape, seconds)


def _encoded(pixels: Any, shape: Shape, seconds: float) -> bytes:
    if shape.format == "RGB" and not shape.label:
        data: bytes = pixels.tobytes()
        return data
    from PIL import Image

    picture = Image.fromarray(pixels)
    if shape.label:
        _write(picture, f"{seconds:.1f} s")
    return picture.tobytes() if shape.format == "RGB" else _file(picture, shape)


def _upright(frame: Any, shape: Shape) -> Any:
    turns = round(frame.rotation / 90) % 4
    width, height = (shape.height, shape.width) if turns % 2 else (shape.width, shape.height)
    pixels = frame.to_ndarray(width=width, height=height, format="rgb24")
    return _turned(pixels, turns)


def _whole(frame: Any) -> Any:
    return _turned(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)


def _region(whole: Any, shape: Shape) -> Any:
    """A region is cut out of the frame at its own size, and scaled after that."""
    import numpy as np
    from PIL import Image

    box = shape.box or (0.0, 0.0, 1.0, 1.0)
    high, wide = whole.shape[:2]
    at = (box[0] * wide, box[1] * high, box[2] * wide, box[3] * high)
    picture = Image.fromarray(whole).resize((shape.width, shape.height), Image.Resampling.BICUBIC, box=at)
    return np.asarray(picture)


def _turned(pixels: Any, turns: int) -> Any:
    import numpy as np

    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _file(picture: Picture, shape: Shape) -> bytes:
    file = io.BytesIO()
    if shape.format == "PNG":
        picture.save(file, "PNG", compress_level=1)
    else:
        picture.save(file, "JPEG", quality=shape.quality)
    return file.getvalue()


def _write(picture: Picture, text: str) -> None:
    from PIL import ImageDraw, ImageFont

    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(max(10, picture.height // 14))
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    pen.rectangle((0, 0, right - left + 4, bottom - top + 4), fill="black")
    pen.text((2 - left, 2 - top), text, fill="white", font=font)
