"""What an episode may name: handles for the pictures and videos that it was given or that its tools returned."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterable, Mapping
from typing import TypeVar

from msgspec.structs import replace

from agentenv.errors import ToolError, ToolErrorKind, UsageError, did_you_mean
from agentenv.media.cache import DecodeCache, decode_cache
from agentenv.media.store import MediaStore, media_store
from agentenv.types import Image, Part, Text, ToolResult, Video

Media = Image | Video
M = TypeVar("M", bound=Image | Video)

# Noncharacters of Unicode: no text holds them, and where a model writes them anyway they name nothing.
_PROVISIONAL = re.compile("\ufdd0[0-9]+\ufdd1")


class EpisodeMedia:
    """The media of one episode, by handle: `image_1`, `video_1` as given, `observation_1` as tools returned them.

    A model names handles; it never writes a path. Handles are given in order and never used twice, so the same calls
    lead to the same handles.

    Args:
        given: the task's media, in the order of its prompt.
        store: where their bytes are; the process's store by default.
        cache: where their pixels are kept; the process's cache by default.
        aliases: other names for handles, for instance {"original_image": "image_1"}.
        deferred: calls of a turn run at once, so what tools return gets its handle only in `admit`, in the order of
            the calls. The environment sets it; without it `add` numbers at once.

    Thread-safe.
    """

    def __init__(
        self,
        given: Iterable[Part] = (),
        *,
        store: MediaStore | None = None,
        cache: DecodeCache | None = None,
        aliases: Mapping[str, str] | None = None,
        deferred: bool = False,
    ) -> None:
        self.store = store if store is not None else media_store()
        self.cache = cache if cache is not None else decode_cache()
        self.aliases = dict(aliases or {})
        self.deferred = deferred
        self._lock = threading.RLock()
        self._tickets = itertools.count(1)
        self._by_handle: dict[str, Media] = {}
        self._given = 0
        self._observed = 0
        counts = {Image: 0, Video: 0}
        for part in given:
            if isinstance(part, (Image, Video)):
                counts[type(part)] += 1
                kind = "image" if isinstance(part, Image) else "video"
                self._enter(part, f"{kind}_{counts[type(part)]}")
                self._given += 1

    def _enter(self, part: M, handle: str) -> M:
        part = replace(part, handle=handle)
        self._by_handle[handle] = part
        return part

    # -- looking up -------------------------------------------------------------------------------------------------

    @property
    def handles(self) -> tuple[str, ...]:
        """All handles, the task's first, then observations in order."""
        with self._lock:
            return tuple(self._by_handle)

    @property
    def images(self) -> tuple[Image, ...]:
        """All images in the order of `handles`."""
        with self._lock:
            return tuple(part for part in self._by_handle.values() if isinstance(part, Image))

    @property
    def observed(self) -> tuple[Media, ...]:
        """What tools returned, in order."""
        with self._lock:
            return tuple(self._by_handle.values())[self._given :]

    def resolve(self, handle: str) -> Image:
        """The image under a handle or an alias.

        Raises:
            ToolError: of kind `invalid_arguments`: there is none, or it is a video; names the handles that there are.
        """
        part = self.find(handle)
        if isinstance(part, Image):
            return part
        images = ", ".join(image.handle for image in self.images) or "none"
        raise ToolError(f"{handle!r} is a video, not an image; images: {images}", ToolErrorKind.INVALID_ARGUMENTS)

    def find(self, handle: str) -> Media:
        """The image or video under a handle or an alias; see `resolve`."""
        name = handle.strip()
        with self._lock:
            part = self._by_handle.get(self.aliases.get(name, name))
        if part is not None:
            return part
        shown = name if len(name) <= 60 else name[:57] + "..."
        text = f"There is no image or video {shown!r}{did_you_mean(name[:200], self._names())}"
        raise ToolError(text, ToolErrorKind.INVALID_ARGUMENTS)

    def _names(self) -> list[str]:
        with self._lock:
            return [*self._by_handle, *(name for name, handle in self.aliases.items() if handle in self._by_handle)]

    def at(self, index: int, first: int = 0) -> Image:
        """The image at a place in `images`, counted from `first` (0 or 1).

        Raises:
            ToolError: of kind `invalid_arguments`: there is no such place; says which there are.
        """
        images = self.images
        if first <= index < first + len(images):
            return images[index - first]
        places = f"{first} to {first + len(images) - 1}" if images else "none"
        raise ToolError(f"There is no image {index}; known: {places}", ToolErrorKind.INVALID_ARGUMENTS)

    # -- adding -----------------------------------------------------------------------------------------------------

    def add(self, part: M) -> M:
        """Enter an image or a video that a tool made, whose bytes are in the store.

        Returns:
            The same with its handle. Where handles are deferred it is a provisional one, which `admit` replaces in
            the part and in the texts of the same result.
        """
        with self._lock:
            if self.deferred:
                return replace(part, handle=f"\ufdd0{next(self._tickets)}\ufdd1")
            return self._number(part)

    def _number(self, part: M) -> M:
        self._observed += 1
        return self._enter(part, f"observation_{self._observed}")

    def admit(self, result: ToolResult) -> ToolResult:
        """Give a result's images and videos their handles, in its order. To be called in the order of the calls.

        What the episode knows already keeps its handle; provisional handles in texts become the final ones.
        """
        if result.error_kind is not None or not any(isinstance(part, (Image, Video)) for part in result.parts):
            return result
        names: dict[str, str] = {}
        with self._lock:
            parts: list[Part] = [self._admitted(part, names) for part in result.parts]
        if names:
            parts = [
                replace(part, text=_PROVISIONAL.sub(lambda m: names.get(m[0], ""), part.text))
                if isinstance(part, Text)
                else part
                for part in parts
            ]
        return replace(result, parts=tuple(parts))

    def _admitted(self, part: Part, names: dict[str, str]) -> Part:
        if not isinstance(part, (Image, Video)):
            return part
        known = self._by_handle.get(part.handle)
        if known is not None and _same(known, part):
            return part
        final: Media = self._number(part)
        if part.handle:
            names[part.handle] = final.handle
        return final

    # -- the middle of an episode -----------------------------------------------------------------------------------

    def snapshot(self) -> tuple[Media, ...]:
        """What tools returned so far, as plain data for `restore`."""
        return self.observed

    def restore(self, observed: Iterable[Part]) -> None:
        """Enter again what tools had returned, for instance all parts of a record in order; replaces what is there.

        Of the parts given, only media whose handle is an observation's count. Numbering goes on after the highest.

        Raises:
            UsageError: an observation appears under two contents.
        """
        with self._lock:
            for handle in [part.handle for part in self.observed]:
                del self._by_handle[handle]
            self._observed = 0
            for part in observed:
                match = re.fullmatch(r"observation_([1-9][0-9]{0,8})", getattr(part, "handle", ""))
                if match is None or not isinstance(part, (Image, Video)):
                    continue
                known = self._by_handle.setdefault(part.handle, part)
                if not _same(known, part):
                    raise UsageError(f"the record gives {part.handle} to two different contents")
                self._observed = max(self._observed, int(match[1]))

    def __repr__(self) -> str:
        return f"<EpisodeMedia {', '.join(self.handles) or 'empty'}>"


def _same(one: Media, other: Media) -> bool:
    """Whether two parts show the same: two clips of one video do not."""
    return (one.sha256, getattr(one, "frames", ())) == (other.sha256, getattr(other, "frames", ()))
