"""Whether an answer to a video task is right."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agentenv.envs.rewards import Judge, JudgeModel, RuleJudge, judged, rule_match
from agentenv.envs.rewards.spans import answered_windows, temporal_iou
from agentenv.envs.zoom.answers import zoom_match
from agentenv.trajectory import Trajectory
from agentenv.types import Task

_LONGEST = 2000
_WORD = re.compile(r"[^\W_]+")


def video_match(text: str | None, reference: Any, metadata: Mapping[str, Any] | None = None) -> float:
    """How right an answer is, 0.0 to 1.0. Never raises, whatever the text.

    By `metadata["answer_type"]`: a "span" is the temporal IoU of the window that the answer names with the reference,
    [start, end] in seconds or a list of such; a "sequence" must be the same words in the same order; a "colour" must be
    the only one of the task's colours that is named; a "code" and an "integer" go by `zoom_match`; anything else by
    `rewards.rule_match`.
    """
    kind = (metadata or {}).get("answer_type")
    if text is None or len(text) > _LONGEST or kind not in ("span", "sequence", "colour", "code", "integer"):
        return rule_match(text, reference, metadata)
    if kind == "span":
        windows = [reference] if reference and not isinstance(reference[0], (list, tuple)) else reference
        return temporal_iou(answered_windows(text), windows)
    if kind == "sequence":
        return float(_words(text) == _words(str(reference)))
    if kind == "colour":
        named = set(_words(text)) & set((metadata or {}).get("colours") or [str(reference)])
        return float(named == {str(reference)})
    return zoom_match(text, reference, metadata)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def accuracy(judge: JudgeModel = None) -> Callable[[Task, Trajectory], float | Awaitable[float | None] | None]:
    """A component: `video_match`, and a judge's verdict on what it does not find right. Spans are never judged.

    Args:
        judge: the judge's model (see `rewards.judged`); None for the rule alone.
    """
    by_rule = RuleJudge(video_match)
    judging = judged(judge, rule=video_match, first_rule=True)
    if not isinstance(judging, Judge):
        return by_rule

    async def component(task: Task, trajectory: Trajectory) -> float | None:
        if task.metadata.get("answer_type") == "span":
            return by_rule(task, trajectory)
        return await judging(task, trajectory)

    return component
