"""The tools: frames of a window, frames at times, what there is. Times are seconds from a video's first frame on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from msgspec import Struct
from msgspec.structs import replace
from pydantic import Field

from agentenv.errors import ConfigError, DataError, ToolError, ToolErrorKind, UsageError
from agentenv.media import EpisodeMedia, MediaStore
from agentenv.tool import Tool
from agentenv.tools.image.boxes import Output
from agentenv.tools.image.resize import SmartResize
from agentenv.tools.image.zoom import _tool
from agentenv.tools.video.container import VideoInfo
from agentenv.tools.video.pool import DecodePool
from agentenv.tools.video.reader import Frame, VideoReader
from agentenv.tools.video.sampling import Budget, Sampling, qwen_indices
from agentenv.tools.video.shape import Shape
from agentenv.types import Image, Part, Text, Video

Timestamps = Literal["none", "before", "burnt"]
"""How a model learns when a frame is shown: not at all, `<12.0 seconds>` before each, or written into the picture."""

_Seconds = Annotated[float, Field(allow_inf_nan=False)]
_MOST_TIMES = 64


class VideoNaming(Struct, frozen=True, forbid_unknown_fields=True):
    """How the arguments are called, and how a call names a video.

    Args:
        video: the argument for the video; "" for none: the tool always works on `only`.
        start: the argument for the start of a window, in seconds.
        end: the argument for its end.
        fps: the argument for a rate; "" for none.
        frames: the argument for a number of frames; "" for none.
        times: the argument for single times.
        only: the handle that is meant where a call names none, or one that is not known.
        unknown: a name that is no handle: an "error", or taken as `only` (systems whose models copy a path).
        required: the schema says which arguments must be given; where it does not, a call without them is refused.
    """

    video: str = "video"
    start: str = "start"
    end: str = "end"
    fps: str = "fps"
    frames: str = "frames"
    times: str = "times"
    only: str = "video_1"
    unknown: Literal["error", "only"] = "error"
    required: bool = True


class ClipSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that decides what a clip looks like.

    Args:
        sampling: which frames.
        budget: how large they are.
        timestamps: how the model learns their times.
        naming: the names of the arguments.
        text: what is said beside the frames, with {source}, {count}, {start}, {end}, {duration} and the {width} and
            {height} of a frame; "" for nothing.
        frames_first: the frames stand before the text, or after it.
        handles: frames get names, by which image tools take them.
        result: the clip is "frames", an image each, or one "video": a `Video` with those frames and one handle, which
            policies and exports show either way.
    """

    sampling: Sampling = Sampling()
    budget: Budget = Budget()
    timestamps: Timestamps = "before"
    naming: VideoNaming = VideoNaming()
    text: str = "{source}: {count} frames from {start} to {end} seconds."
    frames_first: bool = True
    handles: bool = True
    result: Literal["frames", "video"] = "frames"

    def __post_init__(self) -> None:
        try:
            self.text.format(**dict.fromkeys(_FIELDS, 1))
        except (KeyError, ValueError, IndexError) as error:
            names = ", ".join(f"{{{name}}}" for name in _FIELDS)
            raise ConfigError(f"the text {self.text!r} may hold {names} ({type(error).__name__}: {error})") from None


_FIELDS = ("source", "count", "start", "end", "duration", "width", "height")

LONGVT = ClipSettings(
    Sampling("qwen", 1.0, 1, 128, outside="error"),
    Budget(Output(format="PNG", resize=SmartResize(28, 28 * 28, 224 * 224, "qwen_vl_utils")), 128 * 224 * 224),
    "none",
    VideoNaming("video_path", "start_time", "end_time", "", "", unknown="only", required=False),
    "The tool executed successfully. Here are the processed result",
    handles=False,
)
"""`crop_video` of LongVT: one frame a second as qwen_vl_utils samples it, PNG, no times; windows are not clamped."""


def video_clip_tool(
    settings: ClipSettings | None = None,
    *,
    name: str = "video_clip",
    description: str = "",
    pool: DecodePool | None = None,
    timeout: float = 60.0,
) -> Tool:
    """A tool that shows a window of a video as frames.

    Args:
        settings: see `ClipSettings`; `LONGVT` (under the name "crop_video") for that system's.
        name: what the model calls the tool.
        description: what the model reads of it.
        pool: the processes that decode; the process's pool by default.
        timeout: seconds.

    The tool binds `media` (an `EpisodeMedia`). Each frame is an `Image` whose `derived` holds `from` (the video's
    hash), `op` ("frame"), `time` (seconds at which it is shown) and `of` (the video's handle).
    """
    kept = settings or ClipSettings()
    names = kept.naming

    def run(media: EpisodeMedia, **given: Any) -> list[Part]:
        video = _named(media, names, given)
        start, end = _bounds(given, names)
        reader = VideoReader(media.store, media.cache, pool)
        info = _read(lambda: reader.info(video.sha256))
        start, end = kept.sampling.window(start, end, info.duration)
        fps, frames = given.get(names.fps), given.get(names.frames)
        times = _times(reader, video, info, kept.sampling, (start, end), fps, frames)
        return _shown(media, reader, video, info, times, kept, start, end)

    arguments = _video_argument(names)
    default = ... if names.required else None
    hint = _Seconds if names.required else _optional(_Seconds)
    arguments |= {
        names.start: (hint, default, "start of the window, in seconds from the start of the video"),
        names.end: (hint, default, f"end of the window, in seconds; {_RULES[kept.sampling.outside]}"),
    }
    if names.fps:
        rate = _optional(Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)])
        arguments[names.fps] = (rate, None, f"frames a second; {kept.sampling.fps:g} if neither is given")
    if names.frames:
        number = _optional(Annotated[int, Field(ge=1, le=kept.sampling.max_frames)])
        most = kept.sampling.max_frames
        arguments[names.frames] = (number, None, f"instead: how many frames, spread over the window, at most {most}")
    return _tool(run, name, description or _CLIP, arguments, (kept,), timeout)


def video_frames_tool(
    settings: ClipSettings | None = None,
    *,
    name: str = "video_frames",
    description: str = "",
    pool: DecodePool | None = None,
    timeout: float = 60.0,
) -> Tool:
    """A tool that shows the frames at given times. The arguments are those of `video_clip_tool`."""
    kept = settings or ClipSettings(text="{source}: {count} frames.")
    names = kept.naming
    most = min(_MOST_TIMES, kept.sampling.max_frames)

    def run(media: EpisodeMedia, **given: Any) -> list[Part]:
        video = _named(media, names, given)
        reader = VideoReader(media.store, media.cache, pool)
        info = _read(lambda: reader.info(video.sha256))
        times = [float(time) for time in given[names.times]]
        rule = kept.sampling.outside
        wrong = [time for time in times if (time < 0 and rule != "clamp") or (time > info.duration and rule == "error")]
        if wrong:
            text = f"{wrong[0]:g} s is outside of the video, which lasts from 0 to {info.duration:g} s."
            raise ToolError(text, ToolErrorKind.INVALID_ARGUMENTS)
        times = [min(max(time, 0.0), info.duration) for time in times]
        return _shown(media, reader, video, info, times, kept, min(times), max(times))

    arguments = _video_argument(names)
    hint = Annotated[list[_Seconds], Field(min_length=1, max_length=most)]
    doc = f"times in seconds from the start of the video, at most {most}; {_RULES[kept.sampling.outside]}"
    arguments[names.times] = (hint, ..., doc)
    return _tool(run, name, description or _FRAMES, arguments, (kept,), timeout)


def video_info_tool(*, name: str = "video_info", pool: DecodePool | None = None, timeout: float = 60.0) -> Tool:
    """A tool that lists the videos of the episode: name, duration, frame rate, size, sound."""

    def run(media: EpisodeMedia) -> str:
        reader = VideoReader(media.store, media.cache, pool)
        videos = [part for part in map(media.find, media.handles) if isinstance(part, Video) and not part.of]
        return "\n".join(_line(video, reader) for video in videos) or "There are no videos."

    return _tool(run, name, _INFO, {}, (), timeout)


def _line(video: Video, reader: VideoReader) -> str:
    try:
        info = reader.info(video.sha256)
    except DataError as error:
        return f"{video.handle}: cannot be read: {error}"
    sound = "with sound, which cannot be heard here" if info.audio else "without sound"
    return (
        f"{video.handle}: {info.duration:.2f} seconds, {info.fps:.4g} frames a second, "
        f"{info.width} x {info.height} pixels, {sound}"
    )


# -- what the tools share ---------------------------------------------------------------------------------------------


def _optional(hint: Any) -> Any:
    return hint | None


def _video_argument(names: VideoNaming) -> dict[str, tuple[Any, Any, str]]:
    if not names.video:
        return {}
    doc = f"which video, by its name, for instance {names.only}"
    return {names.video: (str, ..., doc) if names.required else (str | None, None, doc)}


def _named(media: EpisodeMedia, names: VideoNaming, given: dict[str, Any]) -> Video:
    handle = given.get(names.video) if names.video else names.only
    if handle is None or not handle.strip():
        raise ToolError(f"Argument {names.video!r} is missing.", ToolErrorKind.INVALID_ARGUMENTS)
    try:
        part = media.find(handle)
    except ToolError:
        if names.unknown == "error":
            raise
        part = media.find(names.only)
    if isinstance(part, Video):
        return part
    videos = [name for name in media.handles if isinstance(media.find(name), Video)]
    text = f"{handle!r} is an image, not a video; videos: {', '.join(videos) or 'none'}"
    raise ToolError(text, ToolErrorKind.INVALID_ARGUMENTS)


def _bounds(given: dict[str, Any], names: VideoNaming) -> tuple[float, float]:
    for name in (names.start, names.end):
        if given[name] is None:
            raise ToolError(f"Argument {name!r} is missing.", ToolErrorKind.INVALID_ARGUMENTS)
    if given.get(names.fps) is not None and given.get(names.frames) is not None:
        text = f"Give either {names.fps!r} or {names.frames!r}, not both."
        raise ToolError(text, ToolErrorKind.INVALID_ARGUMENTS)
    return given[names.start], given[names.end]


def _times(
    reader: VideoReader,
    video: Video,
    info: VideoInfo,
    sampling: Sampling,
    window: tuple[float, float],
    fps: float | None,
    frames: int | None,
) -> Sequence[float]:
    if sampling.rule == "time":
        return sampling.times(*window, fps, frames)
    stamps = _read(lambda: reader.stamps(video.sha256))
    try:
        places = qwen_indices(
            len(stamps),
            info.fps or 1.0,
            *window,
            fps=fps or sampling.fps,
            frames=frames,
            min_frames=sampling.min_frames,
            max_frames=sampling.max_frames,
        )
    except UsageError as error:
        raise ToolError(f"The window cannot be shown: {error}.", ToolErrorKind.INVALID_ARGUMENTS) from None
    return [info.seconds(stamps[place]) for place in places]


def _shown(
    media: EpisodeMedia,
    reader: VideoReader,
    video: Video,
    info: VideoInfo,
    times: Sequence[float],
    kept: ClipSettings,
    start: float,
    end: float,
) -> list[Part]:
    frames = _read(lambda: _chosen(reader, video, info, times, kept))
    clip = _clip(media.store, video, frames, kept, (start, end))
    parts: list[Part] = [media.add(clip)] if kept.result == "video" else [*clip.as_frames()]
    if kept.handles and kept.result == "frames":
        parts = [media.add(part) if isinstance(part, Image) else part for part in parts]
    if not kept.text:
        return parts
    numbers = {"start": f"{start:g}", "end": f"{end:g}", "duration": f"{info.duration:g}"}
    numbers |= {"width": str(clip.width), "height": str(clip.height)}
    said = Text(kept.text.format(source=clip.of, count=len(frames), **numbers))
    return [*parts, said] if kept.frames_first else [said, *parts]


def _chosen(
    reader: VideoReader, video: Video, info: VideoInfo, times: Sequence[float], kept: ClipSettings
) -> list[Frame]:
    """The frames at some times, each of the size that the budget leaves it."""
    output = kept.budget.output
    size = kept.budget.size(info.width, info.height, len(times))
    shape = Shape(*size, output.format, output.quality, kept.timestamps == "burnt")
    frames = reader.frames(video.sha256, times, shape)
    return _distinct(frames, kept.sampling.even) if kept.sampling.rule == "time" else frames


def _distinct(frames: list[Frame], even: bool) -> list[Frame]:
    """Each frame once, where several times fall on it; with `even` the last is left out, or the only one repeated."""
    found = list({frame.stamp: frame for frame in frames}.values())
    if not even or len(found) % 2 == 0:
        return found
    return found[:-1] if len(found) > 1 else found * 2


def _clip(
    store: MediaStore, video: Video, frames: Sequence[Frame], kept: ClipSettings, window: tuple[float, float]
) -> Video:
    return replace(
        video,
        width=frames[0].width,
        height=frames[0].height,
        handle="",
        start=window[0],
        end=window[1],
        times=tuple(frame.seconds for frame in frames),
        frames=tuple(store.put_bytes(frame.data) for frame in frames),
        frame_mime=f"image/{kept.budget.output.format.lower()}",
        timestamps=kept.timestamps,
        of=video.of or video.handle,
    )


def _read(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except DataError as error:
        raise ToolError(f"The video cannot be shown: {error}.") from None


_RULES = {
    "clamp": "times outside of the video are moved to its start or end",
    "error": "times outside of the video are refused",
    "clamp_end": "a time after the end of the video is moved to its end",
}
_CLIP = "Look at a part of a video more closely: frames of the window between two times are shown to you."
_FRAMES = "Look at a video at given times: the frame that is shown at each of them."
_INFO = "List the videos that there are: their names, durations, frame rates and sizes."
