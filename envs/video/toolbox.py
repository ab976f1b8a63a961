"""Video tools by name, and the steps that an expert takes with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agentenv.errors import UnknownNameError
from agentenv.spec import settings
from agentenv.tool import Tool
from agentenv.tools.image import Frame
from agentenv.tools.video import (
    ClipSettings,
    DecodePool,
    video_clip_tool,
    video_frames_tool,
    video_info_tool,
    video_zoom_tool,
)
from agentenv.types import Task

Clips = ClipSettings | Mapping[str, Any] | None

NAMES = ("video_clip", "video_frames", "video_zoom", "video_info")
_LEAST = 2  # frames of each span
_THOUGHTS = (
    "The frames shown so far do not tell; I look at the part where it happens.",
    "Another part has to be looked at too.",
)


def video_tools(
    names: Iterable[str], clips: Clips = None, frame: str | Frame = "relative_1000", pool: DecodePool | None = None
) -> list[Tool]:
    """Video tools.

    Args:
        names: which, out of `NAMES`.
        clips: what clips and frames look like; the tools' own settings by default.
        frame: the coordinate frame of the boxes of video_zoom.
        pool: the processes that decode; the process's pool by default.

    Raises:
        UnknownNameError: there is no such tool; the nearest is named.
        ConfigError: a setting that does not exist, or of the wrong type.
    """
    kept = settings(ClipSettings, clips, ClipSettings())
    make: dict[str, Callable[[], Tool]] = {
        "video_clip": lambda: video_clip_tool(kept, pool=pool),
        "video_frames": lambda: video_frames_tool(None if clips is None else kept, pool=pool),
        "video_zoom": lambda: video_zoom_tool(frame, pool=pool),
        "video_info": lambda: video_info_tool(pool=pool),
    }
    chosen = list(names)
    for name in chosen:
        if name not in make:
            raise UnknownNameError("video tool", name, make)
    return [make[name]() for name in chosen]


def clip_steps(
    task: Task,
    *,
    tool: str = "video_clip",
    start: str = "start",
    end: str = "end",
    video: str = "video",
    fps: str = "fps",
    least: float = 0.0,
    **more: Any,
) -> list[dict[str, Any]]:
    """What an expert does: one clip for each evidence span.

    Args:
        task: its `evidence["spans"]` are [start, end] in seconds.
        tool: name of the clip tool.
        start: its argument for the start of the window.
        end: its argument for the end.
        video: its argument for the video, "" where it has none.
        fps: its argument for a rate, "" where it has none; given where a span is shorter than two seconds.
        least: seconds that a window has at least; shorter spans are widened around their middle.
        more: further arguments of each call.

    Returns:
        Steps that the `reference` policy plays: {"tool", "arguments", "thought"}.
    """
    handle = task.evidence.get("video", "video_1")
    steps = []
    for number, span in enumerate(task.evidence.get("spans") or ()):
        low, high = _widened(span[0], span[1], least)
        seconds = span[1] - span[0]
        arguments: dict[str, Any] = {video: handle} if video else {}
        arguments |= {start: low, end: high}
        if fps and seconds < _LEAST:
            arguments[fps] = math.ceil(_LEAST / max(seconds, 0.1))
        steps.append({"tool": tool, "arguments": arguments | more, "thought": _THOUGHTS[min(number, 1)]})
    return steps


def _widened(low: float, high: float, least: float) -> tuple[float, float]:
    room = max(0.0, least - (high - low)) / 2
    start = max(0.0, low - room)
    return round(start, 3), round(max(high + room, start + least), 3)
