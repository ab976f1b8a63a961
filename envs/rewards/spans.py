"""Windows of time in rewards: overlap, the windows that an episode looked at, and a window as the answer.

A window is (start, end) in seconds with start < end. The truth is `task.evidence["spans"]`, a list of [start, end].
What was looked at is read from the calls as they were decoded, never from text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from agentenv.envs.rewards.answers import within_length
from agentenv.errors import UnknownNameError
from agentenv.reward import EpisodeReward
from agentenv.trajectory import ToolRun, Trajectory
from agentenv.types import Image, Task, ToolCall, Video

Window = tuple[float, float]
Windows = Iterable[Sequence[float]]
Which = Literal["last", "best", "union"]
"""Of the windows that an episode looked at: the last; for each span the best one; all of them taken together."""

_TIME = r"(?:(?:(\d{1,3}):)?(\d{1,3}):)?(\d{1,9}(?:\.\d{1,9})?)"
_UNIT = r"\s*(?:s|sec|secs|second|seconds)?\b"
_BETWEEN = r"\s*>?\s*(?:,|-|\u2013|\u2014|~|to|and|until|till)\s*<?\s*"
_PAIR = re.compile(rf"(?<![\w.:-]){_TIME}{_UNIT}{_BETWEEN}{_TIME}(?![\d:]|\.\d){_UNIT}", re.IGNORECASE)
_FRAMES = ("frame", "frame_zoom")


# -- arithmetic --------------------------------------------------------------------------------------------------------


def merged(windows: Windows) -> list[Window]:
    """The union of windows as disjoint ones, in order. Empty and turned ones vanish; what touches is joined.

    >>> merged([(4, 6), (1, 3), (2, 4), (9, 8)])
    [(1.0, 6.0)]
    """
    found: list[Window] = []
    for start, end in sorted((float(one[0]), float(one[1])) for one in windows):
        if end <= start:
            continue
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def seconds(windows: Windows) -> float:
    """How long the union of windows is."""
    return math.fsum(end - start for start, end in merged(windows))


def shared_seconds(a: Windows, b: Windows) -> float:
    """How long the times are that lie in the union of `a` and in the union of `b`."""
    other = merged(b)
    return math.fsum(max(0.0, min(x[1], y[1]) - max(x[0], y[0])) for x in merged(a) for y in other)


def temporal_iou(windows: Windows, spans: Windows) -> float:
    """Intersection over union of two sets of times, 0 to 1. Two empty sets have 0.

    For one window and one span that overlap this is LongVT's |P and G| / (max of the ends - min of the starts)
    (`vl_agent.py:229-454`, arXiv 2511.20785).

    >>> temporal_iou([(0, 10)], [(5, 15)]), temporal_iou([(0, 2), (4, 6)], [(0, 6)])
    (0.3333333333333333, 0.6666666666666666)
    """
    looked, wanted = merged(windows), merged(spans)
    shared = shared_seconds(looked, wanted)
    union = seconds(looked) + seconds(wanted) - shared
    return min(1.0, shared / union) if union > 0 else 0.0


def temporal_recall(windows: Windows, spans: Windows) -> float:
    """The share of the spans that the windows cover, 0 to 1; 0 without spans. A window of everything has 1.

    >>> temporal_recall([(0, 1000)], [(5, 15)])
    1.0
    """
    wanted = seconds(spans)
    return min(1.0, shared_seconds(windows, spans) / wanted) if wanted > 0 else 0.0


# -- what an episode looked at -----------------------------------------------------------------------------------------


def spans_of(task: Task) -> list[Window]:
    """The task's evidence spans; empty where it has none."""
    spans = task.evidence.get("spans")
    return [] if spans is None else [(float(start), float(end)) for start, end in spans]


def windows_of(
    trajectory: Trajectory, *, start: str = "start", end: str = "end", tools: Sequence[str] = (), failed: bool = False
) -> list[Window]:
    """The windows that the policy asked to see, in the order of the calls.

    Args:
        trajectory: the episode.
        start: the argument that holds a window's start, in seconds.
        end: the argument that holds its end.
        tools: which tools count; any that has both arguments, where none is named.
        failed: count calls that failed too, and those whose result was rolled back, so never seen.
    """
    found = []
    for run in trajectory.tool_runs:
        seen = run.error_kind is None and not trajectory.nodes[run.node].rolled_back
        if (not tools or run.name in tools) and (seen or failed):
            window = window_in(arguments(trajectory, run), start, end)
            found += [window] if window is not None else []
    return found


def arguments(trajectory: Trajectory, run: ToolRun) -> dict[str, Any]:
    """What a call was given, as it was decoded; empty where it could not be."""
    calls: tuple[ToolCall, ...] = trajectory.nodes[run.call_node].message.calls
    return next((call.arguments or {} for call in calls if call.id == run.call_id), {})


def window_in(given: dict[str, Any], start: str = "start", end: str = "end") -> Window | None:
    """The window of a call's arguments; None where a bound is missing, is no number, or the window is empty."""
    first, last = _number(given.get(start)), _number(given.get(end))
    return (first, last) if first is not None and last is not None and first < last else None


def _number(value: Any) -> float | None:
    """A bound as tools take it: a number, or a number in quotation marks."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def window_iou(which: Which = "last", **where: Any) -> EpisodeReward:
    """A component: temporal IoU of the windows that were looked at with the evidence spans.

    Args:
        which: "last": the last window against all spans together. "best": for each span the window that fits it best,
            and the mean of these; many calls can be spent on guessing, so calls must be limited. "union": all windows
            together against all spans together.
        where: `start`, `end`, `tools`, `failed` of `windows_of`.

    Returns:
        A component with values from 0 to 1; None where the task has no evidence spans.
    """
    return _against_spans(temporal_iou, which, where)


def window_recall(which: Which = "last", **where: Any) -> EpisodeReward:
    """As `window_iou`, of the share of the spans that was covered.

    Known to be hacked: the wider a window, the higher its recall, and a policy learns to ask for everything. LongVT
    measured 21.6 mIoU on Charades with recall as the reward, 27.2 with IoU and 21.2 with neither (arXiv 2511.20785).
    """
    return _against_spans(temporal_recall, which, where)


def _against_spans(measure: Callable[[Windows, Windows], float], which: str, where: dict[str, Any]) -> EpisodeReward:
    if which not in ("last", "best", "union"):
        raise UnknownNameError("choice of windows", which, ("last", "best", "union"))

    def component(task: Task, trajectory: Trajectory) -> float | None:
        spans = spans_of(task)
        if not spans:
            return None
        looked = windows_of(trajectory, **where)
        if which == "best":
            best = (max((measure([one], [span]) for one in looked), default=0.0) for span in spans)
            return math.fsum(best) / len(spans)
        return measure(looked[-1:] if which == "last" else looked, spans)

    return component


def moments(trajectory: Trajectory) -> list[float]:
    """The times of all frames that tools showed to the policy, in seconds, in order."""
    found: list[float] = []
    for run in trajectory.tool_runs:
        if run.error_kind is None and not trajectory.nodes[run.node].rolled_back:
            for part in run.parts or trajectory.nodes[run.node].message.parts:
                if isinstance(part, Video):
                    found += part.times
                elif isinstance(part, Image) and (part.derived or {}).get("op") in _FRAMES:
                    found.append(float((part.derived or {})["time"]))
    return found


def spans_seen(task: Task, trajectory: Trajectory) -> float | None:
    """The share of the evidence spans of which some tool showed a frame, whichever tool; None without spans.

    It can be raised by looking at everything, so it is for the record, not for a reward.
    """
    spans, times = spans_of(task), moments(trajectory)
    if not spans:
        return None
    return sum(any(start <= time <= end for time in times) for start, end in spans) / len(spans)


# -- windows as answers ------------------------------------------------------------------------------------------------


def answered_windows(text: str | None) -> list[Window]:
    """The windows that an answer names: "[12.5, 20]", "12.5 to 20 seconds", "01:05 - 01:20", "3 s and 5 s".

    >>> answered_windows("It happens from 12.5 s to 20 s."), answered_windows("at 12 seconds")
    ([(12.5, 20.0)], [])
    """
    if text is None or len(text) > 20_000:
        return []
    found = [(_clock(*pair[:3]), _clock(*pair[3:])) for pair in _PAIR.findall(" ".join(text.split()))]
    return [window for window in found if window[0] < window[1]]


def _clock(hours: str, minutes: str, rest: str) -> float:
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(rest)


def answer_iou(task: Task, trajectory: Trajectory) -> float | None:
    """A component: temporal IoU of the windows that the answer names with the evidence spans; None without spans.

    An answer of 1,000 characters or more has 0. Source: `compute_score_time_r1` of LongVT, `vl_agent.py`.
    """
    spans = spans_of(task)
    if not spans:
        return None
    return temporal_iou(answered_windows(trajectory.answer), spans) if within_length(trajectory.answer) else 0.0
