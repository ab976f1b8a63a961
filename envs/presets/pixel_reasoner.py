r"""Pixel-Reasoner: zooms by relative boxes in hermes calls, into earlier crops too, and answers in \boxed{}.

Videos are shown as 16 frames, of which `select_frames` shows some larger. Source: `experience_maker.py` of
TIGER-AI-Lab/Pixel-Reasoner at a3a6c3a5 (arXiv 2505.15966).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agentenv.env import Env
from agentenv.envs.presets._common import (
    Crops,
    Variant,
    adapted,
    asked,
    compose,
    given_tasks,
    known,
    restated,
    rule,
    zooms,
)
from agentenv.envs.presets._video import asked_videos
from agentenv.envs.rewards import JudgeModel, boxed, curiosity, judged, spans_of, unless_last_call_failed
from agentenv.envs.video.answers import video_match
from agentenv.envs.video.source import video_tasks
from agentenv.envs.video.view import FirstView, videos_of
from agentenv.errors import ToolError, ToolErrorKind, UsageError
from agentenv.media import EpisodeMedia
from agentenv.reward import Component, Rubric
from agentenv.spec import Limits
from agentenv.task import TaskSet
from agentenv.tool import Tool
from agentenv.tools.image import CropRules, Frame, Naming, Output, SmartResize, image_zoom_tool
from agentenv.tools.video import Budget, ClipSettings, Sampling, VideoNaming, video_frames_tool
from agentenv.types import Image, Task

TOOL = "crop_image_normalized"
FRAME = Frame.of("relative_1")
SYSTEM = "You are a helpful assistant."
FORM = (
    "\n\nLook at the image carefully before you answer. Where something is too small to be seen, zoom in with"
    " **crop_image_normalized**. Reason step by step, and put your final answer within \\boxed{}."
)
SELECT = "select_frames"
VIDEO_FORM = (
    "\n\nThe video is shown as frames, which are numbered from 1. Look at them carefully before you answer. Where"
    " something is too small to be seen, look at up to 8 frames more closely with **select_frames**. Reason step by"
    " step, and put your final answer within \\boxed{}."
)
VIEW = FirstView(Sampling(min_frames=16, max_frames=16), timestamps="none", form="frames")
CLOSER = ClipSettings(
    Sampling(max_frames=8),
    Budget(Output(max_pixels=768 * 768), 8 * 768 * 768),
    "none",
    VideoNaming(video="", times="target_frames"),
    "Here are the selected frames (Frame Size: {width}x{height}, Numbered 1 to {count}):",
    frames_first=False,
)
OUTPUT = {
    "train": Output(resize=SmartResize(28, 4 * 28 * 28, 5120 * 28 * 28), filter="bicubic"),
    "eval": Output(resize=SmartResize(28, 256 * 28 * 28, 5120 * 28 * 28), filter="bicubic"),
}


def pixel_reasoner(
    *,
    source: str | TaskSet = "scenes",
    difficulty: int | None = None,
    split: str = "train",
    variant: Variant = "strict",
    crops: Crops = "train",
    curious: bool = True,
    video: bool = False,
    judge: JudgeModel = None,
    limits: Limits | Mapping[str, Any] | None = None,
    seed: int = 0,
    render_mode: str | None = None,
) -> Env:
    """Make the Pixel-Reasoner environment.

    Args:
        source: "scenes" (generated), what the zoom environment reads ("vstar:FOLDER" ...), or a `TaskSet` whose prompts
            are images and a question.
        difficulty: of the generated scenes, 1 to 5; None mixes them.
        split: of the generated scenes, "train" or "test".
        variant: "upstream" guesses the unit of a box: where one number is 1 or more, all four are taken as pixels, so
            that [0.5, 0.5, 1, 1] gives the top left corner. "strict" takes fractions as fractions.
        crops: least size of a crop as in "train" (4 * 28 * 28 px) or "eval" (256 * 28 * 28 px).
        curious: pay the bonus for curiosity, which is known only for a whole group: an episode by itself is then
            unscored. False for evaluation.
        video: the prompts of `source` hold videos, which are shown as 16 frames; `select_frames` is offered too, and
            curiosity is that for videos. The frames' sizes are ours: at most 320 x 320 pixels at first, 768 x 768 when
            selected. There are no generated tasks for this, since films hide what is asked from all 16 frames.
        judge: a model that judges answers; the rules of `rewards` where there is none.
        limits: budgets of the episode; what is given replaces the preset's field by field. The released loop counts so
            that a fourth call still runs; the stated limit of three holds here.
        seed: of the generator, and of the tasks that `reset` draws.
        render_mode: "ansi" or None.
    """
    known("variant", variant, Variant)
    known("crops", crops, Crops)
    if video and source == "scenes":
        raise UsageError("pixel-reasoner: with video=True, give a source of videos, not the generated scenes")
    if video:
        tasks = asked_videos(video_tasks(source), "{question}" + VIDEO_FORM, VIEW, _frame_steps)
    else:
        steps = zooms(FRAME, TOOL, target_image=1)
        tasks = asked(given_tasks(source, seed, difficulty, split), "{question}" + FORM, steps=steps)
    return compose(
        id="pixel-reasoner",
        tasks=tasks,
        tools=[_crop(variant, crops), *([_select()] if video else [])],
        dialect="hermes",
        dialect_options={
            "answer": "text",
            "result": "\n{}",
            "error": "\nExecution error:\n{}\n",
            "quiet": True,
        },
        system=SYSTEM,
        limits=limits,
        default_limits=Limits(
            turns=4,
            calls=3,
            calls_per_turn=1,
            extra_calls="last",
            tokens=12 * 1024 - 200,
            invalid_turns=4,
            on_calls="stop",
            no_call="stop",
        ),
        rubric=_rubric(judge, curious, video),
        frame="relative_1",
        seed=seed,
        render_mode=render_mode,
        bind=_with_frames if video else None,
    )


def _with_frames(task: Task) -> dict[str, Any]:
    """The video, and the frames of its first view as images that can be cropped."""
    images = [part for part in task.prompt if isinstance(part, Image)]
    return {"media": EpisodeMedia([*videos_of(task), *images])}


def _first_frames(images: Iterable[Image]) -> list[float]:
    """The times of the frames of the first view, in seconds."""
    given = (image.derived or {} for image in images if not image.handle.startswith("observation_"))
    return [float(derived["time"]) for derived in given if derived.get("op") == "frame"]


def _frame_steps(task: Task) -> list[dict[str, Any]]:
    """What an expert does: selects the frames that lie in the evidence spans, or the one nearest to each."""
    times = _first_frames(part for part in task.prompt if isinstance(part, Image))
    chosen: set[int] = set()
    for start, end in spans_of(task):
        within = {number for number, time in enumerate(times, 1) if start <= time <= end}
        middle = (start + end) / 2
        chosen |= within or {min(range(1, len(times) + 1), key=lambda number: abs(times[number - 1] - middle))}
    return [{"tool": SELECT, "arguments": {"target_frames": sorted(chosen)[:8]}}] if chosen else []


def _select() -> Tool:
    frames = {
        "type": "array",
        "description": "Numbers of the frames to look at, from 1 to 16; at most 8 of them.",
        "items": {"type": "integer"},
    }
    return restated(
        adapted(video_frames_tool(CLOSER, name=SELECT), numbered),
        "Select frames of the video and look at them more closely.",
        {"type": "object", "properties": {"target_frames": frames}, "required": ["target_frames"]},
    )


def numbered(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments with frames by time instead of by number.

    Raises:
        ToolError: there is no frame of such a number.
    """
    times, chosen = _first_frames(given["media"].images), given["target_frames"]
    wrong = [number for number in chosen if number not in range(1, len(times) + 1)]
    if wrong:
        text = f"There is no frame {wrong[0]:g}; frames are numbered 1 to {len(times)}."
        raise ToolError(text, ToolErrorKind.INVALID_ARGUMENTS)
    return {**given, "target_frames": [times[int(number) - 1] for number in chosen]}


def _crop(variant: str, crops: str) -> Tool:
    made = image_zoom_tool(
        FRAME,
        name=TOOL,
        crop=CropRules(padding=0.1, padding_of="image", min_side=29),
        output=OUTPUT[crops],
        naming=Naming(image="target_image", first_index=1),
        text="Here is the cropped image (Image Size: {width}x{height}):",
        image_first=False,
    )
    if variant == "upstream":
        made = adapted(made, guessed_unit)
    image = "Number of the image to crop, from 1 to the number of images; 1 is the original image."
    properties = {
        "bbox_2d": {
            "type": "array",
            "description": "Bounding box of the area to zoom into. Its values lie within [0.0,1.0].",
            "items": {"type": "number"},
        },
        "target_image": {"type": "number", "description": image},
    }
    return restated(
        made,
        "Zoom into an image by a bounding box, for objects or text that are too small to be seen.",
        {"type": "object", "properties": properties, "required": ["bbox_2d", "target_image"]},
    )


def guessed_unit(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments with the box as upstream takes it: in pixels as soon as one number is 1 or more.

    Source: `experience_maker.py:1150-1167`, copied into verl-tool.
    """
    box = given["bbox_2d"]
    if all(value < 1 for value in box):
        return given
    image = given["media"].at(given["target_image"], 1)
    sides = (image.width, image.height) * 2
    return {**given, "bbox_2d": [value / side for value, side in zip(box, sides, strict=True)]}


def _rubric(judge: JudgeModel, curious: bool, video: bool) -> Rubric:
    kind, match = ("video", video_rule) if video else ("image", rule)
    return Rubric(
        Component("accuracy", unless_last_call_failed(judged(judge, rule=match))),
        Component("curiosity", curiosity(kind), float(curious), scope="group"),
        passes="accuracy",
    )


def video_rule(text: str | None, reference: Any, metadata: Mapping[str, Any] | None = None) -> float:
    r"""The rule of the video environment, for what stands in `\boxed{}` where there is one."""
    return video_match((boxed(text) or text) if text is not None else None, reference, metadata)
