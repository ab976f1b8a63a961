"""Thyme: writes Python that crops, turns and computes; the code runs in a sandbox whose output is shown.

Source: `eval/utils.py`, `sandbox.py` and `agent_rm.py` of yfzhang114/Thyme at b9285b7a (arXiv 2508.11630). Upstream the
output is put back into the same assistant turn; here it comes in a user turn, which is the same text up to the tokens
that change the role. Code is sampled at temperature 0 there (GRPO-ATS): that is the engine's to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from agentenv.env import Env
from agentenv.envs.presets._common import Crops, Variant, asked, compose, flat, given_tasks, known, rule, side_by_side
from agentenv.envs.presets.picture_code import FOLDER, TOOL, path_of, picture_code_tool
from agentenv.envs.rewards import Judge, JudgeModel, choice, judged, normal, number, tag_format, written
from agentenv.reward import Component, Rubric
from agentenv.spec import Limits
from agentenv.task import TaskSet
from agentenv.trajectory import Trajectory
from agentenv.types import Image, Task

SYSTEM = (
    "You are a helpful assistant.\n\n"
    "Solve the problem step by step. Where it helps, write Python code that works on the image (crops a region,"
    " resizes, rotates, changes the contrast) or computes something. A sandbox runs the code, and the processed image"
    " or the result comes back between <sandbox_output> and </sandbox_output>. Write code in this form:\n"
    "<code>\n```python\n# your code\n```\n</code>\n"
    "End the code by printing the path of the processed image, or the result. The sandbox has Pillow, numpy and pandas."
)
FORM = (
    "{question}\n\n"
    'Image path: "' + FOLDER + '/image_1.{suffix}"\n'
    'Image size: "{size}"\n\n'
    "Keep strictly to this form:\n"
    "<think>Your reasoning, with any code, stands here.</think>\n"
    "<answer>Your final answer stands here.</answer>"
)
CONSISTENT = """\
Here are the end of a solution and a final answer to the same question. Does the solution come to that answer? Whether \
the answer is right does not matter.

{examples}Question: {question}
End of the solution: {reference}
Final answer: {answer}

End with one line, "Verdict: 1" where the solution comes to this answer and "Verdict: 0" where it does not."""
_STREAM = re.compile(r"(?:(?!</think>).)*</think>\s<answer>(?:(?!</answer>).)*</answer>", re.DOTALL)
_CODE = re.compile(r"<code>.*?(?:</code>|\Z)", re.DOTALL)
_DIGIT = re.compile(r"\d")
_TAIL = 500


def thyme(
    *,
    source: str | TaskSet = "scenes",
    difficulty: int | None = None,
    split: str = "train",
    scoring: Variant = "strict",
    rounds: Crops = "train",
    judge: JudgeModel = None,
    limits: Limits | Mapping[str, Any] | None = None,
    seed: int = 0,
    render_mode: str | None = None,
) -> Env:
    """Make the Thyme environment.

    Args:
        source: "scenes" (generated), what the zoom environment reads ("vstar:FOLDER" ...), or a `TaskSet` whose prompts
            are one image and a question.
        difficulty: of the generated scenes, 1 to 5; None mixes them.
        split: of the generated scenes, "train" or "test".
        scoring: which format check is rewarded: "upstream" wants exactly one blank between thinking and answer, and
            counts tags in the sandbox's output too. The other one is recorded beside it.
        rounds: of code: 4 as in "train", 5 as in "eval".
        judge: a model that judges answers, and whether they follow from the thinking; rules where there is none.
        limits: budgets of the episode; what is given replaces the preset's field by field.
        seed: of the generator, and of the tasks that `reset` draws.
        render_mode: "ansi" or None.

    Raises:
        MissingExtraError: pandas, which comes with the sandbox, is not installed.
        UsageError: this host cannot confine the code.
    """
    known("scoring", scoring, Variant)
    known("rounds", rounds, Crops)
    calls = 4 if rounds == "train" else 5
    return compose(
        id="thyme",
        tasks=asked(given_tasks(source, seed, difficulty, split), FORM, steps=_steps),
        tools=[picture_code_tool()],
        dialect="code",
        dialect_options={
            "block": "",
            "result": "<sandbox_output>{}</sandbox_output>",
            # The models write code within <think>, so that tag must not hide it here.
            "think_tag": "private_thought",
            "both": "answer",
            "stop": ["</code>", "</answer>"],
            "quiet": True,
            "bare": True,
        },
        system=SYSTEM,
        limits=limits,
        default_limits=Limits(
            turns=calls + 1,
            calls=calls,
            calls_per_turn=1,
            extra_calls="first",
            images=10,
            invalid_turns=calls,
            on_calls="stop",
            on_images="stop",
            no_call="stop",
        ),
        rubric=_rubric(scoring, judge),
        frame="pixels_original",
        seed=seed,
        render_mode=render_mode,
    )


def _steps(task: Task, image: Image) -> list[dict[str, Any]]:
    """What an expert does: cuts each evidence box out, with some room, and enlarges it."""
    steps = []
    for index, box in enumerate(task.evidence["boxes"]):
        room = 0.3 * min(box[2] - box[0], box[3] - box[1]) + 8
        around = (*(int(value - room) for value in box[:2]), *(int(value + room) for value in box[2:]))
        lines = (
            "from PIL import Image",
            f'image = Image.open("{path_of(image)}")',
            f"crop = image.crop({around})",
            "crop = crop.resize((4 * crop.width, 4 * crop.height))",
            f'processed_path = "{FOLDER}/temp_processed_images/crop_{index}.jpg"',
            "crop.save(processed_path)",
            "print(processed_path)",
        )
        thought = "The details are too small to be read, so I cut this place out and enlarge it."
        steps.append({"tool": TOOL, "arguments": {"code": "\n".join(lines)}, "thought": thought})
    return steps


def _rubric(scoring: str, judge: JudgeModel) -> Rubric:
    form = tag_format("think answer ", ("think", "answer"), across=True)
    return Rubric(
        Component("accuracy", judged(judge, rule=rule)),
        *side_by_side("format", form, format_upstream, 0.5, scoring),
        Component("consistency", follows if judge is None else _judged_to_follow(judge), 0.5, gate="accuracy"),
        passes="accuracy",
    )


def format_upstream(task: Task, trajectory: Trajectory) -> float:
    """1.0 where the flat transcript is thinking, one blank, and an answer, each tag once. Source: `format_check`."""
    text = flat(trajectory)
    once = all(text.count(tag) == 1 for tag in ("<think>", "</think>", "<answer>", "</answer>"))
    return float(once and _STREAM.fullmatch(text) is not None)


def _thinking(trajectory: Trajectory) -> str:
    """The last 500 characters of the thinking, its code left out."""
    thought = "\n".join(written(trajectory)).partition("</think>")[0].replace("<think>", "")
    return _CODE.sub("", thought).strip()[-_TAIL:]


def follows(task: Task, trajectory: Trajectory) -> float:
    """0.0 where the last 500 characters of the thinking come to another option or number than the answer, else 1.0.

    The rule beside upstream's judge, for answers that are right, so never empty. It sees contradictions only: thinking
    that says neither way counts as consistent.
    """
    answer, thought = trajectory.answer or "", _thinking(trajectory)
    if f" {normal(answer)} " in f" {normal(thought)} ":
        return 1.0
    options = task.metadata.get("options") or ()
    meant, chosen = choice(answer, options), choice(thought, options)
    if options and meant and chosen:
        return float(meant == chosen)
    if not _DIGIT.search(thought):  # "one more look" is no number that was reached
        return 1.0
    return float(number(answer) in (None, number(thought)))


def _judged_to_follow(policy: JudgeModel) -> Callable[..., Any]:
    judge = judged(policy, instructions=CONSISTENT, examples=())
    assert isinstance(judge, Judge)

    async def consistency(task: Task, trajectory: Trajectory) -> float | None:
        """Whether a judge finds that the thinking comes to the answer; None without a verdict."""
        question, answer = str(task.metadata.get("question", "")), trajectory.answer or ""
        return await judge.compare(question, _thinking(trajectory), answer)

    return consistency
