"""The first view of a video: sparse frames with their times, as parts of a prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from agentenv.dialects import neutralise
from agentenv.errors import UsageError
from agentenv.media import EpisodeMedia, media_store
from agentenv.task import TaskSet
from agentenv.tools.image import Output
from agentenv.tools.video import Budget, ClipSettings, DecodePool, Sampling, first_view, qwen_indices
from agentenv.tools.video.clip import Timestamps
from agentenv.types import Image, Part, Task, Text, Video, count_images


class FirstView(Struct, frozen=True, forbid_unknown_fields=True):
    """What a policy is shown of a video before it asks for more.

    Args:
        sampling: which frames, out of the whole video.
        budget: how large they are.
        timestamps: how the policy learns their times: "none", "before" each frame, or "burnt" into it.
        form: "video" is one `Video` part with its frames, which a policy is sent as images or as a video, as it can;
            "frames" are images in the prompt, for every policy; "none" shows nothing but what the caption says.
    """

    sampling: Sampling = Sampling(fps=1.0, max_frames=16)
    budget: Budget = Budget(Output(max_pixels=320 * 320, max_upscale=1.0), 1024 * 320 * 320)
    timestamps: Timestamps = "before"
    form: Literal["video", "frames", "none"] = "video"

    def times(self, duration: float, fps: float, frames: int) -> list[float]:
        """Seconds at which a video is looked at.

        Args:
            duration: of the video in seconds.
            fps: its average rate.
            frames: how many it has; used by the rule "qwen", which chooses frames by number.

        Raises:
            UsageError: the rule "qwen" wants more frames than there are.
        """
        if self.form == "none":
            return []
        if self.sampling.rule == "time":
            return list(self.sampling.times(0.0, duration))
        least, most = self.sampling.min_frames, self.sampling.max_frames
        places = qwen_indices(frames, fps, fps=self.sampling.fps, min_frames=least, max_frames=most)
        return [place / fps for place in places]


View = FirstView | Callable[[Task], FirstView]
"""One first view for all tasks, or a function that chooses it for each."""


def view_parts(video: Video, view: FirstView, pool: DecodePool | None = None) -> tuple[Part, ...]:
    """The parts that show a video of the process's store at first; see `FirstView`.

    Raises:
        DataError: the video cannot be decoded.
        StoreError: it is not in the store.
        MissingExtraError: the extra `video` is not installed.
    """
    if view.form == "none":
        return ()
    kept = ClipSettings(view.sampling, view.budget, view.timestamps)
    seen = first_view(media_store(), None, video, kept, pool=pool)
    return (seen,) if view.form == "video" else seen.as_frames()


# -- tasks -------------------------------------------------------------------------------------------------------------

Caption = Callable[[Video, int], str]
"""What is said of a video before its first view: of the video, and of the number of frames that are shown."""


def caption(video: Video, frames: int) -> str:
    """The usual caption: name, length, size, and how many frames follow."""
    shown = f" {frames} frames of it:" if frames else ""
    return f"{video.handle}: {video.duration:g} seconds, {video.width} x {video.height} pixels.{shown}\n"


def shown(
    tasks: TaskSet, view: View | None = None, say: Caption | None = caption, pool: DecodePool | None = None
) -> TaskSet:
    """The tasks as they are asked: videos named and shown by their first view, control text made harmless.

    Args:
        tasks: prompts of videos and text. Videos keep their place.
        view: what is shown of each video.
        say: what is said before it; None for nothing.
        pool: the processes that decode.

    With the forms "frames" and "none" the videos stand in `metadata["videos"]`; `episode_media` finds them there.
    """

    def show(task: Task) -> Task:
        chosen = view(task) if callable(view) else view or FirstView()
        return show_task(task, chosen, say, pool)

    return tasks.map(show)


def show_task(task: Task, view: FirstView, say: Caption | None = caption, pool: DecodePool | None = None) -> Task:
    """One task as it is asked; see `shown`."""
    parts: list[Part] = []
    videos: list[Video] = []
    images = 0
    for part in task.prompt:
        if isinstance(part, Video):
            videos.append(replace(part, handle=f"video_{len(videos) + 1}"))
            seen = view_parts(videos[-1], view, pool)
            parts += [Text(say(videos[-1], count_images(seen))), *seen] if say is not None else seen
        elif isinstance(part, Image):
            images += 1
            parts.append(replace(part, handle=f"image_{images}"))
        else:
            parts.append(Text(neutralise(part.text)[0]) if isinstance(part, Text) else part)
    if not videos:
        raise UsageError(f"task {task.id!r} has no video to look at")
    # Where the prompt does not hold the videos themselves, the tools must be told of them.
    kept = {} if view.form == "video" else {"videos": [msgspec.to_builtins(video) for video in videos]}
    return replace(task, prompt=tuple(parts), metadata={**task.metadata, **kept})


def videos_of(task: Task) -> list[Video]:
    """The videos of a task that `shown` has prepared, with their handles; those of its prompt where it was not."""
    kept = task.metadata.get("videos")
    if kept is None:
        return [part for part in task.prompt if isinstance(part, Video)]
    return [msgspec.convert(video, Video) for video in kept]


def episode_media(task: Task, **options: Any) -> EpisodeMedia:
    """What the tools of an episode may name: the task's videos, and images of its prompt that are no frames of them."""
    images = [part for part in task.prompt if isinstance(part, Image) and (part.derived or {}).get("op") != "frame"]
    return EpisodeMedia([*videos_of(task), *images], **options)
