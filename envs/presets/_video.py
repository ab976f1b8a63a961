"""What the presets for videos share: tasks under a first view, the path that a model copies, what frames cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from inspect import isawaitable
from typing import Any

from msgspec.structs import replace

from agentenv.dialects import neutralise
from agentenv.envs.presets._common import restated
from agentenv.envs.rewards import JudgeModel, judged
from agentenv.envs.rewards.judge import Rule
from agentenv.envs.video.answers import video_match
from agentenv.envs.video.source import FILMS, video_tasks
from agentenv.envs.video.toolbox import clip_steps
from agentenv.envs.video.view import FirstView, View, episode_media, show_task
from agentenv.rules import TokenCount, estimate_tokens
from agentenv.task import TaskSet
from agentenv.tool import Tool
from agentenv.trajectory import Trajectory
from agentenv.types import Image, Message, Part, Task, Text, Video

PATH = "video_1.mp4"
"""What a task's video is called where a system tells its models a path. No such file exists."""

TOOL, START, END = "crop_video", "start_time", "end_time"

ONE_MOMENT = ("read-code", "which-scene", "count", "state", "when-card", "when-lamp")
"""Kinds of film question that a single window proves."""

_FIELD = re.compile(r"\{(question|path)\}")


def given_videos(
    source: str | TaskSet,
    seed: int,
    difficulty: int | None,
    split: str,
    views: Sequence[FirstView],
    videos: str | None = None,
) -> TaskSet:
    """Generated films that hide what is asked from these views, or what the video environment reads.

    Raises:
        UnknownNameError: there is no such source.
    """
    if source != FILMS:
        return video_tasks(source, videos=videos)
    return video_tasks(source, seed=seed, difficulty=difficulty, kinds=ONE_MOMENT, split=split, views=views)


def asked_videos(tasks: TaskSet, form: str, view: View, steps: Callable[[Task], list[dict[str, Any]]]) -> TaskSet:
    """The tasks as a system asks them: the first view of each video, then the text of `form`.

    Args:
        tasks: prompts of a video and text.
        form: what the user says, with {question} and the {path} of the video.
        view: what is shown of a video, for all tasks or chosen for each.
        steps: what an expert does for the task's evidence spans, given the task under its first view, for the
            `reference` policy to play.
    """

    def ask(task: Task) -> Task:
        question = neutralise("\n".join(part.text for part in task.prompt if isinstance(part, Text)).strip())[0]
        looked = replace(task, prompt=tuple(part for part in task.prompt if not isinstance(part, Text)))
        shown = show_task(looked, view(task) if callable(view) else view, None)
        fields = {"question": question, "path": PATH}
        prompt: tuple[Part, ...] = (*shown.prompt, Text(_FIELD.sub(lambda found: fields[found[1]], form)))
        evidence: Mapping[str, Any] = task.evidence
        if evidence.get("spans") is not None and "steps" not in evidence:
            evidence = {**evidence, "steps": steps(shown)}
        metadata = {"question": question, **shown.metadata}
        return replace(task, prompt=prompt, evidence=dict(evidence), metadata=metadata)

    return tasks.map(ask)


def as_crop_video(tool: Tool, required: bool = False) -> Tool:
    """The tool as checkpoints of LongVT and ParaVT know it.

    Args:
        tool: a tool with the three arguments.
        required: the schema says that all of them must be given.
    """
    properties = {
        "video_path": {"type": "string", "description": "Path of the video."},
        START: {"type": "number", "description": "Start of the window, in seconds."},
        END: {"type": "number", "description": "End of the window, in seconds."},
    }
    schema = {"type": "object", "properties": properties, "required": list(properties) if required else []}
    return restated(tool, "Crop a video to a specified duration.", schema)


def crop_steps(task: Task) -> list[dict[str, Any]]:
    """What an expert does with `crop_video`: one call for each evidence span."""
    return clip_steps(task, tool=TOOL, start=START, end=END, video="", fps="", video_path=PATH)


def bound(task: Task) -> dict[str, Any]:
    """What the tools are bound to: the task's video, under its handle and its path, and the question."""
    return {"media": episode_media(task, aliases={PATH: "video_1"}), "question": task.metadata.get("question", "")}


def is_span(task: Task) -> bool:
    """Whether the answer is a window of time, which is no matter of judgement."""
    return bool(task.metadata.get("answer_type") == "span")


def right(
    judge: JudgeModel, rule: Rule = video_match, measured: Callable[[Task], bool] = is_span, **options: Any
) -> Callable[[Task, Trajectory], Any]:
    """An accuracy component: a judge where one is configured, else the rule.

    Args:
        judge: the judge's model, as `rewards.judged` takes it.
        rule: (answer, reference, metadata) -> 0..1. That of the video environment gives the temporal IoU of a span.
        measured: which tasks the rule decides even where there is a judge.
        options: of `rewards.judged`.
    """
    measure = judged(rule=rule)
    if judge is None:
        return measure
    ask = judged(judge, rule=rule, **options)

    async def judged_or_measured(task: Task, trajectory: Trajectory) -> float | None:
        """What the judge says, None without a verdict; or what the rule measures."""
        value: Any = (measure if measured(task) else ask)(task, trajectory)
        score: float | None = await value if isawaitable(value) else value
        return score

    return judged_or_measured


def with_frames(factor: int) -> TokenCount:
    """Tokens of a message as `estimate_tokens` has it, plus what its frames take.

    An image takes (width / factor) * (height / factor), rounded up, plus its two marks; two frames of a video part take
    what one image takes.

    Args:
        factor: pixels along a side of what one token sees: 28 for Qwen2.5-VL, 32 for Qwen3-VL.
    """

    def tokens(width: int, height: int) -> int:
        return -(-width // factor) * -(-height // factor) + 2

    def count(message: Message) -> int:
        total = estimate_tokens(message)
        for part in message.parts:
            if isinstance(part, Image):
                total += tokens(part.width, part.height)
            elif isinstance(part, Video):
                total += -(-len(part.frames) // 2) * tokens(part.width, part.height)
        return total

    return count
