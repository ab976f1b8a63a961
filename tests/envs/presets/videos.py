"""A task over a small real video, for the presets that look at videos."""

from __future__ import annotations

from functools import cache
from typing import Any

import agentenv
from agentenv.env import Env
from agentenv.media import media_store
from agentenv.task import TaskSet
from agentenv.tools.video import put_video
from agentenv.trajectory import Trajectory
from agentenv.types import Task, Text, Video, count_images
from tests.envs.presets.transcripts import hermes
from tests.tools.video import clips

QUESTION = "Which number is shown at three seconds?"
SPAN = [2.0, 6.0]


@cache
def film() -> Video:
    """Ten seconds, 250 frames, each with its number drawn in."""
    return put_video(media_store(), clips.video("mp4")[0])


def one_video(**fields: Any) -> TaskSet:
    """One task over the film; the answer is 75, seen from 2 to 6 seconds."""
    given: dict[str, Any] = {"answer": "75", "evidence": {"video": "video_1", "spans": [SPAN]}}
    return TaskSet.of([Task("film", (film(), Text(QUESTION)), **{**given, **fields})])


def made(name: str, **options: Any) -> Env:
    """The preset over the one task, made the way a user makes it."""
    return agentenv.make(name, **{"source": one_video(), **options})


def crop(start: Any, end: Any, path: str = "video_1.mp4") -> str:
    """A thought and a call of `crop_video`."""
    return hermes("crop_video", video_path=path, start_time=start, end_time=end)


def right(text: str = "75") -> str:
    """A thought and an answer."""
    return f"<think>I saw it.</think>\n<answer>{text}</answer>"


def frames(env: Env) -> list[int]:
    """How many frames each turn of the user shows."""
    return [count_images(m.parts) for m in env.trajectory.messages if m.role == "user"]


def values(record: Trajectory) -> dict[str, float | None]:
    """The scores by name."""
    assert record.outcome is not None
    return {name: score.value for name, score in record.outcome.rewards.items()}
