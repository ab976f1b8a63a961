"""Pictures in exports: files beside the data set, data URIs, or bytes in a column, where they were seen.

Clips are written as their frames, or as videos for trainers that take those.
"""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from agentenv.errors import StoreError
from agentenv.trajectories.formats.base import Row
from agentenv.trajectories.formats.beside import FOLDER, VIDEOS, Beside
from agentenv.trajectories.formats.conversation import Said, UnfitError
from agentenv.trajectories.media import RunMedia
from agentenv.trajectory import Trajectory
from agentenv.types import Image, Part, Text, Video

_ENDINGS = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "image/gif": "gif", "image/bmp": "bmp"}
_ENDINGS |= {"video/mp4": "mp4", "video/x-matroska": "mkv", "video/webm": "webm", "video/mp2t": "ts"}
_ENDINGS |= {"video/x-msvideo": "avi", "video/quicktime": "mov", "video/mpeg": "mpg"}

# What processors of vision models replace by pixels. In a text, it would take the pixels of the next picture. <img>
# alone is no such thing (it is how MMSearch-R1 and DeepMMSearch-R1 name the picture); with an address in it, it is.
_TAKEN_FOR_PIXELS = re.compile(
    r"<\|(?:image_pad|video_pad|vision_start|vision_end|vision_pad|image|video|image_\d+)\|>|</?(?:image|video)>|<img>[^<]{1,4096}</img>"
    r"|<(?:start|end)_of_image>|<image_soft_token>|<IMG_CONTEXT>|\[IMG(?:_BREAK|_END)?\]"
)


VideoForm = Literal["frames", "reference", "list"]


def safe(text: str) -> str:
    """A text that no processor would take for a picture.

    Raises:
        UnfitError: one would.
    """
    if _TAKEN_FOR_PIXELS.search(text):
        raise UnfitError("a text in it would be taken for a picture")
    return text


class Pictures:
    """Turns an episode's messages into content that holds its pictures.

    Args:
        media: gives their bytes.
        files: where files beside the data set are written.
        form: "files", "uri" or "column" (see `SftOptions`).
        root: put before the paths of files.
        video: how clips are written: "frames", "reference" or "list" (see `SftOptions`).
    """

    def __init__(
        self,
        media: RunMedia,
        files: Beside,
        form: Literal["files", "uri", "column"],
        root: str = "",
        video: VideoForm = "frames",
    ) -> None:
        self._media, self._files, self._form, self._video = media, files, form, video
        self._root = root.rstrip("/") + "/" if root else ""

    def content(self, said: Said, column: list[Row]) -> list[Row]:
        """The content of a message as a list of parts, none of them empty; no parts where it says nothing.

        Args:
            said: the message.
            column: takes the bytes, in the form "column".

        Raises:
            UnfitError: a picture is missing, or a text would be taken for one.
        """
        items: list[Row] = []
        parts = [piece for part in said.parts or (Text(said.text),) for piece in self._opened(part)]
        for is_text, run in itertools.groupby(parts, lambda part: not isinstance(part, (Image, Video))):
            if not is_text:
                items += [self._item(part, column) for part in run]
            elif text := "".join(getattr(part, "text", "") for part in run):
                items.append({"type": "text", "text": safe(text)})
        return items

    def _opened(self, part: Part) -> tuple[Part, ...]:
        if not isinstance(part, Video):
            return (part,)
        if not part.frames and self._video != "reference":
            raise UnfitError("a video of it comes without frames")
        return part.as_frames() if self._video == "frames" else part.as_video()

    def _item(self, part: Part, column: list[Row]) -> Row:
        if isinstance(part, Video):
            return self.film(part)
        assert isinstance(part, Image)
        if self._form == "column":
            column.append({"bytes": self._bytes(part.sha256), "path": None})
            return {"type": "image"}
        return {"type": "image", "image": self.address(part)}

    def address(self, image: Image) -> str:
        """Where a row finds a picture: the path of a file that is written, or a data URI."""
        data = self._bytes(image.sha256)
        if self._form == "uri":
            return f"data:{image.mime};base64,{base64.b64encode(data).decode()}"
        return self._file(FOLDER, f"{image.sha256}.{_ENDINGS.get(image.mime, 'img')}", data)

    def film(self, clip: Video) -> Row:
        """A clip as `qwen_vl_utils.fetch_video` reads it (0.0.14): the file with a window and a rate, or the frames."""
        if self._video == "list" or len(set(clip.frames)) == 1:
            rate = {"sample_fps": round(clip.rate, 6)} if clip.rate else {}
            return {"type": "video", "video": [self.address(image) for image in clip.images()], **rate}
        item: Row = {"type": "video", "video": self.source(clip)}
        if clip.of or clip.start > 0:
            item |= {"video_start": clip.start, "video_end": clip.duration if clip.end is None else clip.end}
        if clip.frames:
            item |= {"nframes": len(clip.frames), "resized_height": clip.height, "resized_width": clip.width}
        return item

    def source(self, clip: Video) -> str:
        """The path of the video file, which is written.

        Raises:
            UnfitError: it is nowhere to be found, or damaged.
        """
        try:
            data = self._media.large(clip.sha256)
            return self._file(VIDEOS, f"{clip.sha256}.{_ENDINGS.get(clip.mime, 'video')}", data)
        except StoreError:
            raise UnfitError(_NO_VIDEO) from None

    def _bytes(self, name: str) -> bytes:
        try:
            return self._media.get(name)
        except StoreError:
            raise UnfitError("a picture of it is missing or damaged") from None

    def _file(self, folder: str, name: str, data: bytes | Path) -> str:
        return self._root + self._files.put(f"{folder}/{name[:2]}/{name}", data)


_NO_VIDEO = "a video of it is not at hand, or damaged: see run.save_videos() and rollout --videos, or write its frames"


def seen(record: Trajectory) -> list[str]:
    """SHA-256 of the pictures that the policy saw, frames of clips among them, in the order in which it saw them."""
    return list(_names(part for index in record.indices() for part in record.nodes[index].message.parts))


def _names(parts: Iterable[Part]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, Video):
            yield from part.frames
        elif isinstance(part, Image):
            yield part.sha256


def holds_pictures(record: Trajectory) -> bool:
    """Whether the policy was shown any picture."""
    return any(isinstance(part, (Image, Video)) for node in record.nodes for part in node.message.parts)


def holds_videos(record: Trajectory) -> bool:
    """Whether the policy was shown any video or clip as one part."""
    return any(isinstance(part, Video) for node in record.nodes for part in node.message.parts)


def check_order(record: Trajectory, said: Iterable[Said]) -> None:
    """Refuse a conversation whose pictures are not those that the policy saw, all of them and in that order.

    Raises:
        UnfitError: they are not.
    """
    if list(_names(part for message in said for part in message.parts)) != seen(record):
        raise UnfitError("its results hold other pictures than the policy saw")
