"""Which frames of a window are looked at: times, or indices as the Qwen-VL utilities choose them. Arithmetic only."""

from __future__ import annotations

import math
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from agentenv.errors import ConfigError, ToolError, ToolErrorKind, UsageError
from agentenv.tools.image.boxes import Output

_FACTOR = 2  # Qwen-VL models merge frames two by two
_ROUNDING = 1e-6


class Sampling(Struct, frozen=True, forbid_unknown_fields=True):
    """How frames are chosen within a window.

    Args:
        rule: "time" takes the frames shown at evenly spaced times, whatever the frame rate does; "qwen" takes the
            frame numbers that qwen_vl_utils takes (see `qwen_indices`).
        fps: frames a second where a call does not say.
        min_frames: least number, where the rate would give fewer.
        max_frames: greatest number, above which they are spread over the window.
        even: make their number even (the "qwen" rule always does).
        outside: times before the start or after the end of the video: "clamp" them, or "error"; "clamp_end" clamps
            those after the end only.
    """

    rule: Literal["time", "qwen"] = "time"
    fps: float = 1.0
    min_frames: int = 1
    max_frames: int = 32
    even: bool = False
    outside: Literal["clamp", "error", "clamp_end"] = "clamp"

    def __post_init__(self) -> None:
        if not 0 < self.fps <= 1000 or not 1 <= self.min_frames <= self.max_frames <= 1024:
            raise ConfigError("sampling: fps lies between 0 and 1000, and 1 <= min_frames <= max_frames <= 1024")
        if (self.even or self.rule == "qwen") and self.max_frames < _FACTOR:
            raise ConfigError("sampling: an even number of frames is at least 2")

    def window(self, start: float, end: float, duration: float) -> tuple[float, float]:
        """The window in seconds that is looked at.

        Raises:
            ToolError: of kind `invalid_arguments`: it is empty, or leaves the video and the rule refuses that.
        """
        if end <= start:
            raise _invalid(f"The window is empty: its end, {end:g} s, is not after its start, {start:g} s.")
        if start >= duration > 0:
            raise _invalid(f"The window starts at {start:g} s, but the video ends at {duration:g} s.")
        if (self.outside != "clamp" and start < 0) or (self.outside == "error" and end > duration):
            raise _invalid(f"The window {start:g} to {end:g} s leaves the video, which lasts from 0 to {duration:g} s.")
        start, end = max(0.0, start), min(end, duration) if duration > 0 else end
        if end <= start:
            raise _invalid("The window lies before the start of the video.")
        return start, end

    def times(self, start: float, end: float, fps: float | None = None, frames: int | None = None) -> tuple[float, ...]:
        """Times in seconds at which a window is looked at, for the rule "time".

        At a rate: `start`, `start + 1/fps` and so on, before `end`. For a number (and where the rate gives more than
        `max_frames` or fewer than `min_frames`): the middles of so many equal parts of the window.
        """
        wanted = max(1, math.ceil((end - start) * (fps or self.fps) - _ROUNDING)) if frames is None else frames
        count = min(max(wanted, self.min_frames if frames is None else 1), self.max_frames)
        if self.even:
            count = max(_FACTOR, count - count % _FACTOR)
        if frames is None and count == wanted:
            return tuple(start + place / (fps or self.fps) for place in range(count))
        return tuple(start + (place + 0.5) * (end - start) / count for place in range(count))


def qwen_indices(
    total: int,
    video_fps: float,
    start: float | None = None,
    end: float | None = None,
    *,
    fps: float = 2.0,
    frames: int | None = None,
    min_frames: int = 4,
    max_frames: int = 768,
) -> list[int]:
    """Frame numbers of a window as qwen_vl_utils chooses them, index for index.

    The first is ceil(start * video_fps), the last min(floor(end * video_fps), total - 1); between them an even number
    is spread, and rounded half to even. Source: `vision_process.py` of qwen_vl_utils 0.0.14.

    Args:
        total: frames of the video.
        video_fps: its average rate.
        start: of the window in seconds; None for the video's.
        end: of the window in seconds; None for the video's.
        fps: frames a second that are wanted.
        frames: how many, instead of a rate.
        min_frames: least number, rounded up to an even one.
        max_frames: greatest number, rounded down to an even one.

    Raises:
        UsageError: the window holds fewer than two frames, or fewer than are wanted.
    """
    first, last = 0, total - 1
    longest = total / video_fps
    if start is not None:
        first = math.ceil(max(0.0, min(start, longest)) * video_fps)
    if end is not None:
        last = min(math.floor(max(0.0, min(end, longest)) * video_fps), total - 1)
    if first >= last and (start is not None or end is not None):
        raise UsageError(f"the window holds fewer than two frames at {video_fps:g} frames a second")
    return _spread(first, last, _even_count(last - first + 1, video_fps, fps, frames, min_frames, max_frames))


def _even_count(held: int, video_fps: float, fps: float, frames: int | None, least: int, most: int) -> int:
    if frames is not None:
        count = round(frames / _FACTOR) * _FACTOR
    else:
        low = math.ceil(least / _FACTOR) * _FACTOR
        high = math.floor(most / _FACTOR) * _FACTOR
        count = math.floor(min(min(max(held / video_fps * fps, low), high), held) / _FACTOR) * _FACTOR
    if not _FACTOR <= count <= held:
        raise UsageError(f"the window holds {held} frames; {max(count, _FACTOR)} are wanted")
    return count


def _spread(first: int, last: int, count: int) -> list[int]:
    """Whole numbers evenly from first to last, in the single precision of the original, from both ends inwards."""
    import numpy as np

    low, high = np.float32(first), np.float32(last)
    step = (high - low) / np.float32(count - 1)
    places = np.arange(count)
    # The original adds and multiplies with one rounding, as double precision does for numbers of this size.
    upward = (float(low) + float(step) * places).astype(np.float32)
    downward = (float(high) - float(step) * (count - 1 - places)).astype(np.float32)
    return [int(value) for value in np.rint(np.where(places < count // 2, upward, downward))]


class Budget(Struct, frozen=True, forbid_unknown_fields=True):
    """How large the frames of one call are.

    Args:
        output: size of a frame and its file ("JPEG" or "PNG"); its `filter` and `engine` do not apply.
        total_pixels: of all frames of a call together: many frames are made smaller.
    """

    output: Output = Output(max_pixels=448 * 448, max_upscale=1.0)
    total_pixels: int = 32 * 320 * 320

    def size(self, width: int, height: int, count: int) -> tuple[int, int]:
        """Width and height, in pixels, of each of `count` frames of a video of that size."""
        most = max(1, self.total_pixels // max(1, count))
        output = self.output
        if output.resize is not None:
            rule = output.resize
            least = min(rule.min_pixels, max(1, most))
            output = replace(output, resize=replace(rule, min_pixels=least, max_pixels=min(rule.max_pixels, most)))
        else:
            least = min(output.min_pixels, most)
            output = replace(output, min_pixels=least, max_pixels=min(output.max_pixels, most))
        return output.size(width, height)


def _invalid(text: str) -> ToolError:
    return ToolError(text, ToolErrorKind.INVALID_ARGUMENTS)
