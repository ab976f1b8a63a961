"""Mini-o3: zooms by relative boxes in `<grounding>`, into any earlier observation; over-turn episodes are masked.

Source: `constants.py`, `function_tools.py` and `vllm_async_engine.py` of Mini-o3/Mini-o3 at 8654dbf (arXiv 2509.07969).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentenv.env import Env
from agentenv.envs.presets._common import Variant, asked, compose, flat, given_tasks, known, rule, side_by_side, zooms
from agentenv.envs.rewards import JudgeModel, judged, tag_format
from agentenv.reward import Component, Rubric
from agentenv.spec import Limits
from agentenv.task import TaskSet
from agentenv.tools.image import CropRules, Frame, Naming, Output, image_zoom_tool
from agentenv.trajectory import Trajectory

FRAME = Frame.of("relative_1", rounding="truncate")
SYSTEM = (
    "You are a helpful assistant that answers a question about an image. Write your thinking between <think> and"
    " </think>. When something is not clear, zoom into a region by writing"
    ' <grounding>{"bbox_2d": [x0, y0, x1, y1], "source": "original_image"}</grounding>. (x0, y0) is the top left and'
    " (x1, y1) the bottom right corner of the region, where the width and the height of the image are 1.0 each. The"
    " source is the image that you zoom into: 'original_image' or 'observation_i'. When you are sure of the final"
    " answer, put it between <answer> and </answer>."
)
GO_ON = (
    ".\nGo on with your thinking between <think> and </think>. You may zoom further into the original image or any"
    " observation with <grounding> and </grounding>. Once you are sure, give the final answer between <answer> and"
    " </answer>."
)
TRY_AGAIN = (
    ".\nRead the error information, change your call, and go on with your thinking between <think> and </think>."
)
SHOWN = Output(min_pixels=40_000, max_pixels=2_000_000, max_side=1 << 16, max_upscale=1000.0)
TOKENS = 32_768 - 2_000


def mini_o3(
    *,
    source: str | TaskSet = "scenes",
    difficulty: int | None = None,
    split: str = "train",
    variant: Variant = "strict",
    scoring: Variant | None = None,
    turns: int = 6,
    judge: JudgeModel = None,
    limits: Limits | Mapping[str, Any] | None = None,
    seed: int = 0,
    render_mode: str | None = None,
) -> Env:
    """Make the Mini-o3 environment.

    Args:
        source: "scenes" (generated), what the zoom environment reads ("vstar:FOLDER" ...), or a `TaskSet` whose prompts
            are one image and a question.
        difficulty: of the generated scenes, 1 to 5; None mixes them.
        split: of the generated scenes, "train" or "test".
        variant: "upstream" numbers an observation by the turn, which is one off after each failed call: it announces
            Observation 2 when only observation_1 can be named. "strict" gives the number that can be named.
        scoring: which scorer is rewarded; as the variant by default. Upstream takes the last `<answer>` of the flat
            transcript.
        turns: 6 as in training, 12 as in the published evaluation, or more.
        judge: a model that judges answers; the rules of `rewards` where there is none.
        limits: budgets of the episode; what is given replaces the preset's field by field. A call in the last turn, one
            above 12 images (the original among them), or an observation within 2,000 tokens of the end masks the
            episode: it stays in its group's statistics and out of the loss.
        seed: of the generator, and of the tasks that `reset` draws.
        render_mode: "ansi" or None.
    """
    known("variant", variant, Variant)
    known("scoring", scoring or variant, Variant)
    steps = zooms(FRAME, "grounding", source="original_image")
    number = "{next}" if variant == "upstream" else "{observation}"
    told = "After the above Action {action}, here is the the zoom-in image (Observation " + number + "):\n{}" + GO_ON
    grounding = image_zoom_tool(
        FRAME,
        name="grounding",
        crop=CropRules(max_aspect=199.999),
        output=SHOWN,
        naming=Naming(image="source"),
        text="",
    )
    return compose(
        id="mini-o3",
        tasks=asked(given_tasks(source, seed, difficulty, split), "{question}", SHOWN, steps),
        tools=[grounding],
        dialect="private_tag",
        dialect_options={
            "block": "",
            "result": told,
            "error": "ERROR occurs during grounding. Error Information: {}" + TRY_AGAIN,
            "quiet": True,
        },
        system=SYSTEM,
        limits=limits,
        default_limits=Limits(
            turns=turns,
            calls_per_turn=1,
            extra_calls="last",
            images=11,
            tokens=TOKENS,
            invalid_turns=turns,
            on_turns="mask",
            on_images="mask",
            on_tokens="mask",
            no_call="stop",
        ),
        rubric=_rubric(scoring or variant, judge),
        frame="relative_1",
        seed=seed,
        render_mode=render_mode,
        aliases={"original_image": "image_1", "observation_0": "image_1"},
    )


def _rubric(scoring: str, judge: JudgeModel) -> Rubric:
    form = tag_format("(?:think grounding )*think answer ", ("think", "grounding", "answer"))
    judges = judged(judge, rule=rule), judged(judge, rule=rule, answer_of=_last_answer)
    return Rubric(
        *side_by_side("accuracy", *judges, 1.0, scoring),
        Component("format", form, 0.0),
    )


def _last_answer(trajectory: Trajectory) -> str | None:
    _, found, rest = flat(trajectory).rpartition("<answer>")
    return rest.partition("</answer>")[0].strip() if found else None
