"""ParaVT: windows of a long video, several at once, told in words by a second model; a drawn number of frames first.

Source: EvolvingLMMs-Lab/ParaVT at cf55249e. Its prompts are not copied; what its reference leaves open is an option.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

from agentenv.env import Env
from agentenv.envs.presets._common import compose
from agentenv.envs.presets._video import (
    END,
    START,
    TOOL,
    as_crop_video,
    asked_videos,
    bound,
    crop_steps,
    given_videos,
    is_span,
    right,
)
from agentenv.envs.rewards import JudgeModel, model_of, rule_match, tag_format, tags, token_f1, tool_used, written
from agentenv.envs.video.answers import video_match
from agentenv.envs.video.view import FirstView
from agentenv.errors import ToolError, UsageError
from agentenv.media import EpisodeMedia
from agentenv.policy.base import Policy
from agentenv.reward import Component, Rubric
from agentenv.spec import Limits, canonical_hash
from agentenv.task import TaskSet
from agentenv.tool import Bound, Tool
from agentenv.tools.image import Output, SmartResize
from agentenv.tools.video import Budget, ClipSettings, Sampling, VideoNaming, video_clip_tool
from agentenv.trajectory import Trajectory
from agentenv.types import Budget as TurnBudget
from agentenv.types import Image, Message, Observation, Part, Task, Text, ToolResult, Video

SYSTEM = "You are a helpful assistant."
FORM = (
    "{question}\nThese are frames of the video, each after its time. Think first. Call **crop_video** for parts that"
    " must be seen more closely, several of them in one turn where that helps: each is watched for you and told in"
    " words. Then answer. Keep to this form: <think>...</think> <tool_call>...</tool_call> (if tools are needed)"
    " <answer>...</answer>. The Video path for this video is: {path}"
)
BUDGETS = (4, 8, 16, 32, 64)
FRAME = Output(resize=SmartResize(32, 784, 50_176, "qwen_vl_utils"))
CLIP = ClipSettings(
    Sampling("qwen", 1.0, 1, 16, outside="clamp_end"),
    Budget(FRAME, 16 * 50_176),
    "before",
    VideoNaming("video_path", START, END, "", "", unknown="only", required=False),
    "",
    handles=False,
)
WATCH = "You watch a part of a video for somebody who sees only your words. Report truthfully what is shown, and when."
ASK = (
    "These are frames of the part from {start:g} to {end:g} seconds, each after its time. The question about the whole"
    " video is: {question}\nTell in a few sentences what this part shows that bears on it: texts and numbers as they"
    " are written, colours, order, and when. Say so where it shows nothing of the kind."
)
_TASK = Task("watch", ())


def paravt(
    *,
    source: str | TaskSet = "films",
    difficulty: int | None = 3,
    split: str = "train",
    videos: str | None = None,
    budgets: Sequence[int] = BUDGETS,
    reader: JudgeModel = None,
    judge: JudgeModel = None,
    format_weight: float = 1.0,
    scale: float = 1.0,
    bias: float = 0.0,
    limits: Limits | Mapping[str, Any] | None = None,
    seed: int = 0,
    render_mode: str | None = None,
) -> Env:
    """Make the ParaVT environment.

    Args:
        source: "films" (generated), what the video environment reads, or a `TaskSet` whose prompts are one video and a
            question.
        difficulty: of the generated films, 1 to 5; None mixes them. Those of 1 and 2 are too short to hide anything
            from 64 frames.
        split: of the generated films, "train" or "test".
        videos: of a data set, the folder of its videos; by default it is looked for beside the file.
        budgets: how many frames the first view may have: one of them is drawn for each task, by its prompt alone, so
            that the tool is sometimes needed and all members of a group see the same.
        reader: the model that watches the windows and tells what they show, at most 512 tokens each; as a policy, a
            name or a mapping, as for judges. Each call's result keeps, for the record, who watched, which frames, and
            what it wrote. Where there is none, the policy is given the frames themselves, each after its time: no rule
            can tell in words what a window shows, and nothing is invented.
        judge: a model that judges answers which are no choice, span or set of words; rules where there is none.
        format_weight: of the format parts; its published value is not known.
        scale: of the whole reward. The published training has 10, with -0.2 as the bias.
        bias: added to the reward before it is scaled, as a component of its own. Neither changes a group's advantages
            once these are normalised, so the defaults leave the reward as it is.
        limits: budgets of the episode; what is given replaces the preset's field by field.
        seed: of the generator, and of the tasks that `reset` draws.
        render_mode: "ansi" or None.

    The reward is accuracy, by `metadata`: a choice where there are `options`, temporal IoU where `answer_type` is
    "span", the F1 of words where it is "words", else the judge or the rules; plus .4 where thinking was closed, .3
    where the whole flow is right, -.3 where thinking was left open; plus .1 for a call that could be read, .2 more for
    one that worked, and .5 more with an answer that is not wrong.
    """
    if not budgets or min(budgets) < 2:
        raise UsageError("budgets: at least one number of frames is needed, and each is at least 2")
    views = {frames: _view(frames) for frames in budgets}
    tasks = given_videos(source, seed, difficulty, split, tuple(views.values()), videos)
    return compose(
        id="paravt",
        tasks=asked_videos(tasks, FORM, lambda task: views[drawn(task, budgets)], crop_steps),
        tools=[crop_video(None if reader is None else model_of(reader))],
        dialect="hermes",
        dialect_options={},
        system=SYSTEM,
        limits=limits,
        default_limits=Limits(turns=3, observation_tokens=512, no_call="stop"),
        rubric=_rubric(judge, format_weight, scale, bias),
        frame="seconds",
        seed=seed,
        render_mode=render_mode,
        bind=bound,
    )


def _view(frames: int) -> FirstView:
    return FirstView(Sampling("qwen", 1.0, 1, frames), Budget(FRAME, frames * 50_176), "before")


def drawn(task: Task, budgets: Sequence[int]) -> int:
    """How many frames a task is shown first: one of `budgets`, drawn evenly, by the prompt and nothing else."""
    said = [part.sha256 if isinstance(part, (Image, Video)) else part.text for part in task.prompt]
    return random.Random(canonical_hash(said)).choice(budgets)


# -- the tool ----------------------------------------------------------------------------------------------------------


def crop_video(reader: Policy | None) -> Tool:
    """The tool: windows as `reader` tells them, or as frames where there is none."""
    clip = video_clip_tool(CLIP, name=TOOL)
    return as_crop_video(clip if reader is None else _told(clip, reader))


def _told(clip: Tool, reader: Policy) -> Tool:
    async def crop_video(
        media: Bound[EpisodeMedia],
        question: Bound[str],
        video_path: str | None = None,
        start_time: float | None = None,
        end_time: float | None = None,
    ) -> ToolResult:
        """Have a window of the video watched, and read what it shows.

        Args:
            media: bound by the environment.
            question: bound by the environment.
            video_path: path of the video.
            start_time: start of the window, in seconds.
            end_time: end of the window, in seconds.
        """
        window = {"video_path": video_path, START: start_time, END: end_time}
        frames = await asyncio.to_thread(lambda: clip.fn(media=media, **window))
        bounds = {"start": start_time, "end": end_time}  # both are there: the clip refuses a call without
        return await _watched(reader, frames, ASK.format(**bounds, question=question))

    version = f"{clip.version}+{canonical_hash([reader.info, WATCH, ASK])[:12]}"
    return Tool(crop_video, name=TOOL, timeout=300.0, version=version)


async def _watched(reader: Policy, frames: Sequence[Part], ask: str) -> ToolResult:
    """What a model says of frames. Its seed comes from what it is shown, so the same window is told the same way."""
    user = Message("user", (*frames, Text(ask)))
    images = [part for part in frames if isinstance(part, Image)]
    key = canonical_hash([ask, [image.sha256 for image in images]])
    player = reader.begin(_TASK, seed=int(key[:8], 16))
    reply = await player.act(Observation((Message("system", (Text(WATCH),)), user), (), TurnBudget(turns=1)))
    told = reply.text.rpartition("</think>")[2].strip()
    if not told:
        raise ToolError("The part was watched, but nothing was told of it.")
    times = [(image.derived or {})["time"] for image in images]
    data = {"reader": reader.info.name, "model": reader.info.model, "said": reply.text, "times": times}
    data |= {"frames": [image.sha256 for image in images], "finish_reason": reply.finish_reason}
    cost = reply.usage.cost if reply.usage is not None else 0.0
    return ToolResult("", TOOL, (Text(told),), cost=cost, usage=reply.usage, data=data)


# -- rewards -----------------------------------------------------------------------------------------------------------


def _rubric(judge: JudgeModel, form: float, scale: float, bias: float) -> Rubric:
    flow = tag_format("think (?:(?:tool_call )+think )*answer ", ("think", "tool_call", "answer"))
    own = [Component("bias", one, bias * scale)] if bias else []
    return Rubric(
        Component("accuracy", right(judge, by_type, by_rule), scale),
        Component("think_closed", think_closed, 0.4 * form * scale),
        Component("flow", flow, 0.3 * form * scale),
        Component("think_open", think_open, -0.3 * form * scale),
        Component("call_read", call_read, 0.1 * scale),
        Component("call_ran", tool_used(TOOL), 0.2 * scale),
        Component("call_helped", tool_used(TOOL), 0.5 * scale, "accuracy"),
        *own,
        passes="accuracy",
    )


def by_type(text: str | None, reference: Any, metadata: Mapping[str, Any] | None = None) -> float:
    """Accuracy by the type of task: choices, spans, sets of words, else the rules of the video environment."""
    kind = (metadata or {}).get("answer_type")
    if (metadata or {}).get("options"):
        return rule_match(text, reference, metadata)
    return token_f1(text, reference) if kind == "words" else video_match(text, reference, metadata)


def by_rule(task: Task) -> bool:
    """Whether a task's answer is a choice, a span or a set of words, so no matter of judgement."""
    return bool(task.metadata.get("options")) or is_span(task) or task.metadata.get("answer_type") == "words"


def _thinking(trajectory: Trajectory) -> list[list[str]]:
    return [tags(text, ("think",)) for text in written(trajectory)]


def think_open(task: Task, trajectory: Trajectory) -> float:
    """1.0 where some turn opens its thinking and does not close it."""
    return float(any(turn[-1:] == ["think"] for turn in _thinking(trajectory)))


def think_closed(task: Task, trajectory: Trajectory) -> float:
    """1.0 where some turn closes its thinking and none leaves it open."""
    closed = any("/think" in turn for turn in _thinking(trajectory))
    return float(closed and not think_open(task, trajectory))


def call_read(task: Task, trajectory: Trajectory) -> float:
    """1.0 where a call of the tool could be read, whatever came of it."""
    calls = (call for node in trajectory.path() for call in node.message.calls)
    return float(any(call.error is None and call.name == TOOL for call in calls))


def one(task: Task, trajectory: Trajectory) -> float:
    """1.0: what a bias is the weight of."""
    return 1.0
