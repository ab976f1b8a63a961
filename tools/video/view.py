"""What a policy is shown of a video before it asks for more."""

from __future__ import annotations

from msgspec.structs import replace

from agentenv.errors import DataError, ToolError
from agentenv.media import DecodeCache, MediaStore
from agentenv.tools.video.clip import ClipSettings, _chosen, _clip, _times
from agentenv.tools.video.pool import DecodePool
from agentenv.tools.video.reader import VideoReader
from agentenv.types import Video


def first_view(
    store: MediaStore,
    cache: DecodeCache | None,
    video: Video,
    settings: ClipSettings | None = None,
    *,
    pool: DecodePool | None = None,
) -> Video:
    """A video with the frames by which a policy first sees it, spread over all of it; tools read the file itself.

    Args:
        store: where the file is, and where the frames go.
        cache: where frames are shared; the process's cache by default.
        video: as `put_video` gives it.
        settings: `sampling`, `budget` and `timestamps` of the frames; their `naming`, `text` and `result` do not apply.
        pool: the processes that decode; the process's pool by default.

    Returns:
        The video under its own handle, with `times` and `frames`. A policy sends them as images or as a video.

    Raises:
        DataError: the video cannot be read.
        StoreError: it is not in the store.
    """
    kept = settings or ClipSettings()
    reader = VideoReader(store, cache, pool)
    info = reader.info(video.sha256)
    window = (0.0, info.duration)
    try:
        times = _times(reader, video, info, kept.sampling, window, None, None) if info.duration > 0 else (0.0,)
        frames = _chosen(reader, video, info, times, kept)
    except ToolError as error:  # it took too long, or has too few frames for the rule
        raise DataError(f"the video cannot be shown: {error}") from None
    return replace(_clip(store, video, frames, kept, window), handle=video.handle, of="")
