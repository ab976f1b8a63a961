"""DeepEyes: zooms by pixel boxes in hermes calls; +1.2 where a crop was used and the answer is right.

Source: `visual_toolbox_v2.py`, `prompt.py` and `vl_agent.py` of Visual-Agent/DeepEyes at 6c5e7967 (arXiv 2505.14362).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from agentenv.env import Env
from agentenv.envs.presets._common import (
    Crops,
    Variant,
    asked,
    box_schema,
    compose,
    flat,
    given_tasks,
    known,
    last_answer_anywhere,
    restated,
    rewarded,
    rule,
    side_by_side,
    zooms,
)
from agentenv.envs.rewards import JudgeModel, judged, tag_format, tool_used
from agentenv.reward import Rubric
from agentenv.spec import Limits
from agentenv.task import TaskSet
from agentenv.tool import Tool
from agentenv.tools.image import CropRules, Frame, Naming, Output, SmartResize, image_rotate_tool, image_zoom_tool
from agentenv.trajectory import Trajectory
from agentenv.types import Image, Task

TOOL = "image_zoom_in_tool"
FRAME = Frame.of("pixels_shown", seen="qwen2.5-vl", rounding="truncate")
SYSTEM = "You are a helpful assistant."
FORM = (
    "\nThink first, call **image_zoom_in_tool** where a closer look is needed, and then answer. Keep strictly to this"
    " form: <think>...</think> <tool_call>...</tool_call> (if tools are needed) <answer>...</answer>"
)
WHOLE = Output(max_pixels=1 << 26, max_side=1 << 16, format="PNG")
OUTPUT = {"train": WHOLE, "eval": Output(resize=SmartResize(28, 4 * 28 * 28, 16384 * 28 * 28), filter="bicubic")}
WEIGHTS = {"visual": (0.8, 0.2, 1.2), "math": (1.2, 0.4, 0.0)}


def deepeyes(
    *,
    source: str | TaskSet = "scenes",
    difficulty: int | None = None,
    split: str = "train",
    variant: Variant = "strict",
    scoring: Variant | None = None,
    rows: Literal["visual", "math"] = "visual",
    size: Literal["7b", "32b"] = "7b",
    crops: Crops = "train",
    rotate: bool = False,
    judge: JudgeModel = None,
    limits: Limits | Mapping[str, Any] | None = None,
    seed: int = 0,
    render_mode: str | None = None,
) -> Env:
    """Make the DeepEyes environment.

    Args:
        source: "scenes" (generated), what the zoom environment reads ("vstar:FOLDER" ...), or a `TaskSet` whose prompts
            are one image and a question.
        difficulty: of the generated scenes, 1 to 5; None mixes them.
        split: of the generated scenes, "train" or "test".
        variant: "upstream" keeps the schema's `required: ["bbox"]`, although the argument is called bbox_2d.
        scoring: which scorer is rewarded; as the variant by default. The other one is recorded beside it.
        rows: "visual": 0.8 accuracy + 0.2 format + 1.2 tool; "math": 1.2 accuracy + 0.4 format. The format score, 0
            or -1, is recorded as `malformed`, 0 or 1, with the weight negated.
        size: of the model, which decides the turns: 5 for "7b", 20 for "32b". A turn may have 10,240 tokens, which is
            the engine's to hold.
        crops: "train": as they are cut; "eval": resized as Qwen2.5-VL's processor does.
        rotate: offer `image_rotate_tool` as well.
        judge: a model that judges answers (upstream Qwen2.5-72B); the rules of `rewards` where there is none.
        limits: budgets of the episode; what is given replaces the preset's field by field.
        seed: of the generator, and of the tasks that `reset` draws.
        render_mode: "ansi" or None.
    """
    known("variant", variant, Variant)
    known("scoring", scoring or variant, Variant)
    known("rows", rows, Literal["visual", "math"])
    known("size", size, Literal["7b", "32b"])
    known("crops", crops, Crops)
    turns = 5 if size == "7b" else 20
    return compose(
        id="deepeyes",
        tasks=asked(given_tasks(source, seed, difficulty, split), "{question}" + FORM, steps=zooms(FRAME, TOOL)),
        tools=[_zoom(variant, crops), *([_rotate(crops)] if rotate else [])],
        dialect="hermes",
        dialect_options={
            "result": "<tool_response>{}" + FORM + "</tool_response>",
            "error": "Error: {}",
            "media": "before",
            "both": "answer",
            "quiet": True,
        },
        system=SYSTEM,
        limits=limits,
        default_limits=Limits(
            turns=turns,
            calls_per_turn=1,
            extra_calls="last",
            images=32,
            on_images="stop",
            invalid_turns=turns,
            no_call="stop",
        ),
        rubric=_rubric(scoring or variant, rows, judge),
        frame="pixels_shown",
        seed=seed,
        render_mode=render_mode,
    )


def _zoom(variant: str, crops: str) -> Tool:
    made = image_zoom_tool(
        FRAME,
        name=TOOL,
        crop=CropRules(min_side=31, below_min="error", max_aspect=100),
        output=OUTPUT[crops],
        naming=Naming(image="", only="image_1", label="label"),
        text="",
    )
    box = "Region to zoom into, as [x1, y1, x2, y2]: (x1, y1) is its top left corner, (x2, y2) its bottom right corner."
    if variant == "strict":
        box += " In pixels of the image as you see it."
    properties = {
        "bbox_2d": box_schema(box),
        "label": {"type": "string", "description": "Name of the object in the region (optional)."},
    }
    required = ["bbox"] if variant == "upstream" else ["bbox_2d"]
    return restated(
        made,
        "Zoom into a region of the image: it is cropped by a bounding box, with an optional label of the object.",
        {"type": "object", "properties": properties, "required": required},
    )


def _rotate(crops: str) -> Tool:
    made = image_rotate_tool(
        name="image_rotate_tool",
        direction="counterclockwise",
        keep_size=True,
        output=OUTPUT[crops],
        naming=Naming(image="", only="image_1"),
        text="",
    )
    angle = {"type": "integer", "description": "Degrees to rotate by, for instance 90, 180 or 270."}
    schema = {"type": "object", "properties": {"angle": angle}, "required": ["angle"]}
    return restated(made, "Rotate the image by an angle.", schema)


def _rubric(scoring: str, rows: str, judge: JudgeModel) -> Rubric:
    accuracy, form, tool = WEIGHTS[rows]
    malformed = tag_format("(?:think |answer )*", ("think", "answer"), ok=0.0, bad=1.0)
    judges = judged(judge, rule=rule), judged(judge, rule=rule, answer_of=last_answer_anywhere)
    return Rubric(
        *side_by_side("accuracy", *judges, accuracy, scoring),
        *side_by_side("malformed", malformed, malformed_upstream, -form, scoring),
        *side_by_side("tool", tool_used(), image_seen, tool, scoring, gate="accuracy"),
        passes=rewarded("accuracy", scoring),
    )


def malformed_upstream(task: Task, trajectory: Trajectory) -> float:
    """0.0, or 1.0 where tags do not balance in the flat transcript or the last answer has 1,000 characters or more.

    The tags of the observations' template are counted with the model's own.
    """
    text = flat(trajectory)
    after = text.rpartition("</think>")[2]
    pairs = ((text, "think"), (after, "answer"))
    even = all(where.count(f"<{tag}>") == where.count(f"</{tag}>") for where, tag in pairs)
    return 0.0 if even and len(last_answer_anywhere(trajectory)) < 1000 else 1.0


def image_seen(task: Task, trajectory: Trajectory) -> float:
    """1.0 where any image was shown after the prompt: upstream counts image tokens, whichever tool they came from."""
    path = trajectory.path()
    first = next((i for i, node in enumerate(path) if node.origin == "sampled"), len(path))
    return float(any(isinstance(part, Image) for node in path[first:] for part in node.message.parts))
