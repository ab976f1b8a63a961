"""What the tests look at: the frames that a policy is shown, and a reader that is no language model."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image as Pillow

from agentenv.media import media_store
from agentenv.tools.video import Shape, VideoReader
from agentenv.types import Image, Part, Video

Pixels = np.ndarray[Any, np.dtype[np.int16]]


def frames(parts: Iterable[Part]) -> list[tuple[float, Pillow.Image]]:
    """The frames of videos among some parts: second and picture, as the policy is sent them."""
    images = [one for part in parts for one in (part.images() if isinstance(part, Video) else (part,))]
    return [(time(one), picture(one)) for one in images if isinstance(one, Image)]


def at(video: Video, times: Sequence[float]) -> list[tuple[float, Pillow.Image]]:
    """The frames at some times, at the size of the video."""
    reader, size = VideoReader(media_store()), (video.width, video.height)
    found = reader.frames(video.sha256, times, Shape(*size, "RGB"))
    return [(frame.seconds, Pillow.frombytes("RGB", size, frame.data)) for frame in found]


def time(image: Image) -> float:
    assert image.derived is not None
    return float(image.derived["time"])


def picture(image: Image) -> Pillow.Image:
    return Pillow.open(io.BytesIO(media_store().get(image.sha256))).convert("RGB")


def cut(image: Pillow.Image, box: tuple[int, int, int, int], whole: tuple[int, int], times: int = 1) -> Pillow.Image:
    """A region, given in pixels of the film, of a frame of any size; enlarged."""
    scale = image.width / whole[0]
    region = (box[0] * scale, box[1] * scale, box[2] * scale, box[3] * scale)
    size = (times * (box[2] - box[0]), times * (box[3] - box[1]))
    return image.resize(size, Pillow.Resampling.BICUBIC, box=region)


def pixels(image: Pillow.Image) -> Pixels:
    return np.asarray(image).astype(np.int16)


def difference(one: Pillow.Image, other: Pillow.Image) -> float:
    """The largest difference of two pictures, 0 to 255, where small spots of compression are smoothed away."""
    a, b = (image.reduce(4) for image in (one, other))
    return float(np.abs(pixels(a) - pixels(b)).max())
