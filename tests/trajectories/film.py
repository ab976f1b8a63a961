"""Episodes with a real video: a question with a first view of it, and a tool that cuts clips."""

from __future__ import annotations

from functools import cache
from typing import Any

from agentenv.dialects.base import Turn
from agentenv.env import Env
from agentenv.media import media_store
from agentenv.reward import Component, Rubric, exact_match
from agentenv.task import TaskSet
from agentenv.tools.video import Budget, ClipSettings, DecodePool, Sampling, first_view, put_video, video_clip_tool
from agentenv.trajectory import Trajectory
from agentenv.types import Image, Task, Text, Video
from tests.tools.video import clips
from tests.trajectories.records import call, played


@cache
def pool() -> DecodePool:
    return DecodePool(1, 20.0)


def settings(result: Any = "video", timestamps: Any = "before", rule: Any = "time") -> ClipSettings:
    return ClipSettings(Sampling(rule, max_frames=8), Budget(total_pixels=60_000), timestamps, result=result)


def opening(timestamps: Any = "before", name: str = "mp4") -> Video:
    """A video in the process's store, with four frames of it."""
    video = put_video(media_store(), clips.video(name)[0], pool=pool())
    few = ClipSettings(Sampling(max_frames=4), Budget(total_pixels=40_000), timestamps)
    return first_view(media_store(), None, video, few, pool=pool())


def film(
    result: Any = "video", timestamps: Any = "before", name: str = "mp4", rule: Any = "time", **options: Any
) -> Env:
    """An environment whose tool shows parts of the video that is asked about."""
    task = Task("film", (opening(timestamps, name), Text("QUESTION[0]")), "ANSWER[0]")
    parts: dict[str, Any] = {
        "id": "film",
        "tasks": TaskSet.of((task,), name="film"),
        "tools": (video_clip_tool(settings(result, timestamps, rule), pool=pool()),),
        "system": "SYSTEM[be brief]",
        "rubric": Rubric(Component("right", exact_match)),
    }
    return Env(**{**parts, **options})


def cuts(*windows: tuple[float, float]) -> list[Turn]:
    """Turns that look at these windows, one each, and answer."""
    asked = [{"video": "video_1", "start": start, "end": end} for start, end in windows]
    turns = [
        Turn("", f"THOUGHT[{n}]", (call("video_clip", str(one).replace("'", '"'), one, f"c{n}"),))
        for n, one in enumerate(asked)
    ]
    return [*turns, Turn("", "THOUGHT[end]", (), "ANSWER[0]")]


def watched(*windows: tuple[float, float], **options: Any) -> Trajectory:
    """An episode that looks at these windows and answers."""
    return played(cuts(*windows), env=film(**options))


def clips_of(record: Trajectory) -> list[Video]:
    """Its videos and clips in order."""
    return [part for message in record.messages for part in message.parts if isinstance(part, Video)]


def frames_of(record: Trajectory) -> list[str]:
    """SHA-256 of all frames that the policy was shown, in order."""
    shown: list[str] = []
    for message in record.messages:
        for part in message.parts:
            shown += part.frames if isinstance(part, Video) else [part.sha256] if isinstance(part, Image) else []
    return shown
