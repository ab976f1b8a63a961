"""Tesseract on pictures as a policy is shown them: at a sign's place, and all of a picture."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps

from agentenv.media import media_store
from agentenv.types import Image
from tests.envs.zoom.readers import Picture, letters, ocr

HIGH = 64
"""Pixels to which a sign is enlarged before it is read."""

INSETS = (0.0, 0.05, 0.12)


def in_latin(text: str) -> str:
    """The Latin letters and the digits of a text, without marks; "" where there are none."""
    return letters("".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)))


def opened(image: Image) -> Picture:
    """The pixels that the policy was shown."""
    return Pillow.open(io.BytesIO(media_store().get(image.sha256))).convert("RGB")


def strips(shown: Image, crop: Image, box: Sequence[int]) -> list[Picture]:
    """The part of a shown picture in which a sign of the scene stands, as a reader would have it: large, dark on light.

    Args:
        shown: the first view, or the crop itself.
        crop: a crop that holds the sign.
        box: of the sign, in pixels of the scene.
    """
    picture = opened(shown)
    assert crop.derived is not None
    left, top, right, bottom = region = (0, 0, *crop.derived["size"]) if shown is not crop else crop.derived["box"]
    scale = picture.width / (right - left), picture.height / (bottom - top)
    x1, y1, x2, y2 = ((edge - region[i % 2]) * scale[i % 2] for i, edge in enumerate(box))
    return [
        _upright(picture, (x1 + i * (y2 - y1), y1 + i * (y2 - y1), x2 - i * (y2 - y1), y2 - i * (y2 - y1)))
        for i in INSETS
    ]


def _upright(picture: Picture, box: tuple[float, float, float, float]) -> Picture:
    size = round(HIGH * (box[2] - box[0]) / (box[3] - box[1])), HIGH
    cut = ImageOps.autocontrast(picture.resize(size, Pillow.Resampling.LANCZOS, box=box).convert("L"), cutoff=2)
    grey = np.asarray(cut)
    board = int(np.median(grey))
    cut = ImageOps.invert(cut) if board < 128 else cut
    return ImageOps.expand(cut, 20, fill=max(board, 255 - board))


def read_strips(groups: Sequence[Sequence[Picture]]) -> list[str]:
    """What is read in any version of each sign."""
    flat = [strip for group in groups for strip in group]
    pages = iter(zip(ocr(flat, 6), ocr(flat, 7), strict=True))
    return [" ".join(" ".join(next(pages)) for _ in group) for group in groups]


def read_pages(images: Sequence[Image]) -> list[str]:
    """What is read in all of each picture, as it is and three times as large."""
    views = [opened(image) for image in images]
    large = [view.resize((3 * view.width, 3 * view.height), Pillow.Resampling.BICUBIC) for view in views]
    return [" ".join(both) for both in zip(ocr(views, 11), ocr(large, 11), strict=True)]
