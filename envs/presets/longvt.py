"""LongVT: looks again at windows of a long video with `crop_video`; accuracy, format and temporal IoU in equal parts.

Source: `mcp_server.py`, `video_tools.py`, `vl_agent.py` and `lmms_lab_recipe.py` of EvolvingLMMs-Lab/LongVT at 08d755b9
(arXiv 2511.20785).
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

from msgspec.structs import replace

from agentenv.env import Env
from agentenv.envs.presets._common import Variant, compose, flat, known, rewarded, side_by_side
from agentenv.envs.presets._video import (
    END,
    START,
    TOOL,
    as_crop_video,
    asked_videos,
    bound,
    crop_steps,
    given_videos,
    right,
    with_frames,
)
from agentenv.envs.rewards import (
    JudgeModel,
    answer_iou,
    tag_format,
    temporal_iou,
    temporal_recall,
    tool_used,
    window_in,
    window_iou,
    window_recall,
    within_length,
)
from agentenv.envs.rewards.judge import CANDIDATE
from agentenv.envs.rewards.spans import Windows
from agentenv.envs.video.view import FirstView
from agentenv.reward import Component, EpisodeReward, Rubric
from agentenv.spec import Limits
from agentenv.task import TaskSet
from agentenv.tool import Tool
from agentenv.tools.image import Output, SmartResize
from agentenv.tools.video import LONGVT, Budget, Sampling, video_clip_tool
from agentenv.trajectory import Trajectory
from agentenv.types import Task

Recipe = Literal["iou", "recall", "tool", "plain", "default", "grounding", "eval"]
Schema = Literal["rl", "eval"]

SYSTEM = "You are a helpful assistant."
FORM = (
    "{question}\nThink first, call **crop_video** where a part of the video must be seen more closely, and then answer."
    " Keep strictly to this form: <think>...</think> <tool_call>...</tool_call> (if tools are needed)"
    " <answer>...</answer>. The Video path for this video is: {path}"
)
FACTOR, PIXELS = 28, 224 * 224
TOKENS = 36_000 + 16_384
WEIGHTS: dict[str, tuple[float, float, float]] = {
    "iou": (1.0, 1.0, 1.0),
    "recall": (1.0, 1.0, 1.0),
    "tool": (1.0, 1.0, 1.0),
    "plain": (1.0, 1.0, 0.0),
    "default": (0.8, 0.2, 0.0),
    "grounding": (0.0, 1.0, 1.0),
    "eval": (0.9, 0.1, 0.0),
}
"""Of accuracy, format and the third part of each recipe."""

PARTLY = f"""\
Below are a question, its reference answer and the answer of a candidate. Decide how far the candidate's answer means \
the same as the reference: fully (1), in part (0.5), or not (0).

- Wording, case and order of words do not matter; the facts do.
- In part means: what it says is right, but something that the reference says is missing.
- An answer that says something wrong beside what is right, or names several alternatives, does not match.
{CANDIDATE}End with one line: "Verdict: 1", "Verdict: 0.5" or "Verdict: 0"."""
EXAMPLES = (
    ("What does the man put into the bag?", "a red scarf and a camera", "A camera and a red scarf.", 1.0),
    ("What does the man put into the bag?", "a red scarf and a camera", "A camera.", 0.5),
    ("What does the man put into the bag?", "a red scarf and a camera", "A camera and a book.", 0.0),
    ("How many cars pass before the bus?", "4", "four", 1.0),
    ("How many cars pass before the bus?", "4", "four or five", 0.0),
    ("What is written on the door at the end?", "NO ENTRY", "The door says \u201cno entry\u201d.", 1.0),
    ("Why does the dog stop?", "It hears a whistle from the house.", "It hears a whistle.", 0.5),
)
"""Question, reference, candidate, verdict: what the judge is shown first. Our own; there are seven upstream too."""

_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_OPENED = re.compile(r"<(think|tool_call|answer)>")
_ORDER = re.compile(r"think (?:tool_call think )*answer ")
_PLAIN = re.compile(r"\s*<think>.*?</think>\s*<answer>.*?</answer>\s*", re.DOTALL)


def longvt(
    *,
    source: str | TaskSet = "films",
    difficulty: int | None = 3,
    split: str = "train",
    videos: str | None = None,
    variant: Variant = "strict",
    scoring: Variant | None = None,
    recipe: Recipe = "iou",
    schema: Schema = "rl",
    clamp_end: bool | None = None,
    frames: int = 512,
    first_view: Literal["video", "frames"] = "video",
    judge: JudgeModel = None,
    limits: Limits | Mapping[str, Any] | None = None,
    seed: int = 0,
    render_mode: str | None = None,
) -> Env:
    """Make the LongVT environment.

    Args:
        source: "films" (generated), what the video environment reads ("charades:FILE" ...), or a `TaskSet` whose
            prompts are one video and a question. The time reward reads `evidence["spans"]`; tasks without spans are
            unscored by it, so take the recipe "plain" for them.
        difficulty: of the generated films, 1 to 5; None mixes them. Films of 1 and 2 are too short to hide anything
            from a frame a second, so take fewer `frames` with them.
        split: of the generated films, "train" or "test".
        videos: of a data set, the folder of its videos; by default it is looked for beside the file.
        variant: "upstream" refuses windows that end after the video and paths other than the one that was told, and
            ends the episode with the fifth call. "strict" clamps the end, takes any path as the one video (media are
            bound, no path is ever opened), and lets the policy answer after the fifth call.
        scoring: which scorers are rewarded; as the variant by default. Upstream counts the window of a call that
            failed, reads calls out of the text with Python's syntax (a call with null, true or false is passed over for
            the one before), counts tags over all turns together, and takes "0.5" anywhere in the judge's reply for a
            half. The other scorers are recorded beside them.
        recipe: "iou": accuracy + format + IoU of the last window, the published reward. "recall": its recall instead,
            which is known to be hacked by wide windows. "tool": 1 for a tool used with an answer that is not wrong.
            "plain": accuracy + format. "default": .8 and .2 of these. "grounding": IoU of an answered [start, end] +
            format. "eval": .9 accuracy + .1 format, the judge asked only where the rules do not say yes.
        schema: of `crop_video`: no argument is required ("rl"), or all are ("eval", as the demonstration has it).
        clamp_end: whether a window may end after the video; as the variant by default.
        frames: most frames of the first view, at one a second: 512 in training, 768 in the published evaluation.
        first_view: "video" as one part, as in SFT, or "frames" as separate images, as in RL.
        judge: a model that judges answers (upstream Qwen2.5-72B at temperature 0.3); rules where there is none.
        limits: budgets of the episode; what is given replaces the preset's field by field. The tokens are the sum of
            the published prompt (36,000) and response (16,384), frames counted as Qwen2.5-VL does.
        seed: of the generator, and of the tasks that `reset` draws.
        render_mode: "ansi" or None.
    """
    for what, value, names in (
        ("variant", variant, Variant),
        ("scoring", scoring or variant, Variant),
        ("recipe", recipe, Recipe),
        ("schema", schema, Schema),
        ("first_view", first_view, Literal["video", "frames"]),
    ):
        known(what, value, names)
    view = _view(frames, first_view)
    clamps = variant == "strict" if clamp_end is None else clamp_end
    return compose(
        id="longvt",
        tasks=asked_videos(given_videos(source, seed, difficulty, split, (view,), videos), FORM, view, crop_steps),
        tools=[crop_video(variant, schema, clamps)],
        dialect="hermes",
        dialect_options={"error": "<tool_response>\nTool execution failed: {}\n</tool_response>"},
        system=SYSTEM,
        limits=limits,
        default_limits=Limits(
            turns=5,
            calls=5,
            tokens=TOKENS,
            invalid_turns=0,
            on_calls="spent" if variant == "upstream" else "stop",
            no_call="stop",
        ),
        rubric=_rubric(scoring or variant, recipe, judge),
        frame="seconds",
        seed=seed,
        render_mode=render_mode,
        bind=bound,
        count=with_frames(FACTOR),
    )


def _view(frames: int, form: Literal["video", "frames"]) -> FirstView:
    output = Output(resize=SmartResize(FACTOR, FACTOR * FACTOR, PIXELS, "qwen_vl_utils"))
    return FirstView(Sampling("qwen", 1.0, 1, frames), Budget(output, frames * PIXELS), "none", form)


def crop_video(variant: str, schema: str, clamp_end: bool) -> Tool:
    """The tool as LongVT's checkpoints know it; see `longvt` for the arguments."""
    settings = replace(
        LONGVT,
        sampling=replace(LONGVT.sampling, outside="clamp_end" if clamp_end else "error"),
        naming=replace(LONGVT.naming, unknown="only" if variant == "strict" else "error"),
    )
    return as_crop_video(video_clip_tool(settings, name=TOOL), required=schema == "eval")


# -- rewards -----------------------------------------------------------------------------------------------------------


def _rubric(scoring: str, recipe: str, judge: JudgeModel) -> Rubric:
    accuracy, form, third = WEIGHTS[recipe]
    partly: dict[str, Any] = {} if recipe == "eval" else {"instructions": PARTLY, "examples": EXAMPLES}
    strict = right(judge, first_rule=recipe == "eval", **partly)
    upstream = right(judge, first_rule=recipe == "eval", read=verdict_upstream, **partly)
    wellformed = tag_format("think (?:tool_call think )*answer ", ("think", "tool_call", "answer"))
    parts = [
        *side_by_side("accuracy", strict, upstream, accuracy, scoring),
        *side_by_side("format", wellformed, format_upstream, form, scoring),
    ]
    where: dict[str, Any] = {"start": START, "end": END, "tools": (TOOL,)}
    if recipe == "iou":
        parts += side_by_side("time", window_iou(**where), time_upstream(temporal_iou), third, scoring)
    elif recipe == "recall":
        parts += side_by_side("time", window_recall(**where), time_upstream(temporal_recall), third, scoring)
    elif recipe == "tool":
        parts += side_by_side("tool", tool_used(TOOL), response_seen, third, scoring, gate="accuracy")
    elif recipe == "grounding":
        parts.append(Component("grounding", answer_iou, third))
    return Rubric(*parts, passes=rewarded("accuracy", scoring))


def verdict_upstream(reply: str) -> float | None:
    """A judge's verdict as upstream finds it: "0.5" anywhere in the reply, else (our guess) a "1", else a "0"."""
    return next((float(mark) for mark in ("0.5", "1", "0") if mark in reply), None)


def format_upstream(task: Task, trajectory: Trajectory) -> float:
    """1.0 where, in the flat transcript, tags balance by number, and the opening ones come in LongVT's order."""
    text = flat(trajectory)
    even = all(text.count(f"<{tag}>") == text.count(f"</{tag}>") for tag in ("think", "tool_call", "answer"))
    if not even or text.count("<answer>") != 1 or not within_length(trajectory.answer):
        return 0.0
    if "<tool_call>" not in text:
        return float(_PLAIN.fullmatch(text) is not None)
    return float(_ORDER.fullmatch("".join(f"{tag} " for tag in _OPENED.findall(text))) is not None)


def response_seen(task: Task, trajectory: Trajectory) -> float:
    """1.0 where the flat transcript holds a `<tool_response>`, be it of a call that failed."""
    return float("<tool_response>" in flat(trajectory))


def time_upstream(measure: Callable[[Windows, Windows], float]) -> EpisodeReward:
    """The time reward as upstream's code has it, by a measure of windows against spans.

    0.0 without a `<tool_response>`, and where the truth is not one Python list of two numbers (an array is not).
    """

    def component(task: Task, trajectory: Trajectory) -> float:
        spans, text = task.evidence.get("spans"), flat(trajectory)
        one = isinstance(spans, list) and len(spans) == 1 and isinstance(spans[0], list) and len(spans[0]) == 2
        if not one or not response_seen(task, trajectory):
            return 0.0
        windows = (_window_upstream(body) for body in reversed(_CALL.findall(text)))
        last = next((window for window in windows if window is not None), None)
        return 0.0 if last is None else measure([last], task.evidence["spans"])

    return component


def _window_upstream(body: str) -> tuple[float, float] | None:
    """The window of a call's text read as a Python literal: JSON's null, true and false make it unreadable."""
    if len(body) > 10_000:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know
            call = ast.literal_eval(body.strip())
        return window_in(call["arguments"], START, END) if call["name"] == TOOL else None
    except (ValueError, SyntaxError, TypeError, LookupError, AttributeError, MemoryError, RecursionError):
        return None
