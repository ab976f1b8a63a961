"""Whether an answer to a video task is right."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agentenv.envs.rewards import rule_match
from agentenv.envs.rewards.spans import answered_windows, temporal_iou
from agentenv.envs.zoom.answers import zoom_match

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
