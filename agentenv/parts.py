"""Parts: what messages are made of. Text and tables as they are read, media by reference."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import zip_longest
from typing import Any, Union

from msgspec import Struct
from msgspec.structs import replace


class Text(Struct, frozen=True, gc=False, tag="text", omit_defaults=True):
    """Text, exactly as the policy saw it or wrote it."""

    text: str


class Image(Struct, frozen=True, gc=False, tag="image", omit_defaults=True):
    """An image by reference. `sha256` names the exact bytes; `derived` says how it was made from its parent."""

    sha256: str
    mime: str
    width: int
    height: int
    handle: str = ""
    derived: dict[str, Any] | None = None


class Video(Struct, frozen=True, gc=False, tag="video", omit_defaults=True):
    """A video, or a clip of one, by reference.

    `sha256`, `duration` (seconds) and `fps` (on average) are those of the file. What a policy sees of it are `frames`,
    hashes of images of `width` x `height` pixels, each shown at one of `times`, in seconds from the file's first frame;
    `start` and `end` are the window that they were chosen from. Without frames the part is the file alone, and width
    and height are the file's.

    `timestamps` says how a policy learns the times where it is shown the frames as images: "before" (see `stamp`),
    "burnt" into them, or "none". `of` is the handle of the video from which a clip was made.
    """

    sha256: str
    mime: str
    width: int
    height: int
    duration: float
    fps: float
    handle: str = ""
    start: float = 0.0
    end: float | None = None
    times: tuple[float, ...] = ()
    frames: tuple[str, ...] = ()
    frame_mime: str = "image/jpeg"
    timestamps: str = "none"
    of: str = ""

    @property
    def rate(self) -> float:
        """Frames a second of what is shown; 0 where that is less than two frames."""
        span = self.times[-1] - self.times[0] if self.times else 0.0
        return (len(self.times) - 1) / span if span > 0 else 0.0

    def images(self) -> tuple[Image, ...]:
        """The frames as images, without handles. `derived` holds `from`, `op` ("frame"), `time` and `of`.

        A frame whose time a record from elsewhere does not tell has no `time`.
        """
        about: dict[str, Any] = {"from": self.sha256, "op": "frame", "of": self.of or self.handle}
        told = [{**about, "time": time} for time in self.times[: len(self.frames)]]
        told += [about] * (len(self.frames) - len(told))
        return tuple(
            Image(frame, self.frame_mime, self.width, self.height, derived=derived)
            for frame, derived in zip(self.frames, told, strict=True)
        )

    def as_frames(self) -> tuple[Text | Image, ...]:
        """The frames as separate images, each with its time before it where `timestamps` says so."""
        if self.timestamps != "before":
            return self.images()
        parts: list[Text | Image] = []
        for time, image in zip_longest(self.times[: len(self.frames)], self.images()):
            parts += [image] if time is None else [Text(stamp(time)), image]
        return tuple(parts)

    def as_video(self) -> tuple[Text | Video, ...]:
        """The clip for a model that sees videos. Where its frames would have had times before them, the window that
        they span stands before it, since not every engine writes the times of a video into the prompt. A single frame
        becomes two, since video models take frames in pairs (Qwen3-VL's processor refuses one).
        """
        film = replace(self, times=self.times * 2, frames=self.frames * 2) if len(self.frames) == 1 else self
        if self.timestamps != "before" or not self.times:
            return (film,)
        return Text(stamp(self.times[0], self.times[-1])), film


def stamp(seconds: float, last: float | None = None) -> str:
    """How the time of a frame is written before it, in the words of Qwen3-VL's processor, or a window before a video.

    >>> stamp(12), stamp(2.04, 5)
    ('<12.0 seconds>', '<2.0 to 5.0 seconds>')
    """
    return f"<{seconds:.1f} seconds>" if last is None else f"<{seconds:.1f} to {last:.1f} seconds>"


def is_stamp(text: str) -> bool:
    """Whether a text is a time that `stamp` wrote; it belongs to the picture behind it."""
    return _STAMP.fullmatch(text) is not None


_STAMP = re.compile(r"<\d+\.\d (?:to \d+\.\d )?seconds>")


class Table(Struct, frozen=True, gc=False, tag="table", omit_defaults=True):
    """Rows that a tool returned.

    `text` is the rendering that the policy reads; `columns` and `rows` are the same result as data, for viewers and
    scorers. `total_rows` is the true number of rows of the result, of which `rows` may be only the first; -1 where it
    is not known.
    """

    text: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    total_rows: int
    query: str = ""


Part = Union[Text, Image, Video, Table]


def count_images(parts: Iterable[Part]) -> int:
    """How many images a policy is shown: each frame of a video is one."""
    return sum(len(part.frames) if isinstance(part, Video) else isinstance(part, Image) for part in parts)
