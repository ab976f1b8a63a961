from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.env import Env
from agentenv.envs.rewards import (
    answer_iou,
    answered_windows,
    moments,
    spans_of,
    spans_seen,
    temporal_iou,
    temporal_recall,
    window_in,
    window_iou,
    window_recall,
    windows_of,
)
from agentenv.envs.rewards.spans import arguments, merged, seconds, shared_seconds
from agentenv.errors import ToolError, UnknownNameError
from agentenv.reward import Component, Rubric
from agentenv.rules import estimate_tokens
from agentenv.spec import Limits
from agentenv.task import TaskSet
from agentenv.tool import tool
from agentenv.trajectory import Trajectory
from agentenv.types import Image, Task, Text, Video
from tests.envs.rewards.episodes import said
from tests.playing import call

Window = tuple[int, int]


@st.composite
def windows(draw: st.DrawFn) -> Window:
    start = draw(st.integers(0, 60))
    return (start, start + draw(st.integers(1, 30)))


lists = st.lists(windows(), max_size=6)


def ticks(several: list[Window]) -> set[int]:
    return {tick for start, end in several for tick in range(start, end)}


# -- arithmetic --------------------------------------------------------------------------------------------------------


@given(lists, lists)
def test_sets_of_times_are_counted_second_by_second(a: list[Window], b: list[Window]) -> None:
    both, either = ticks(a) & ticks(b), ticks(a) | ticks(b)
    assert seconds(a) == len(ticks(a))
    assert shared_seconds(a, b) == len(both)
    assert temporal_iou(a, b) == pytest.approx(len(both) / len(either) if either else 0.0)
    assert temporal_recall(a, b) == pytest.approx(len(both) / len(ticks(b)) if b else 0.0)


@given(lists)
def test_merged_windows_are_disjoint_and_in_order(several: list[Window]) -> None:
    found = merged(several)
    assert all(one[1] < other[0] for one, other in pairwise(found))
    assert ticks([(int(start), int(end)) for start, end in found]) == ticks(several)
    assert merged(found) == found == merged(several[::-1])


@given(windows(), windows(), st.integers(-50, 50), st.integers(1, 9))
def test_iou_is_symmetric_and_does_not_change_with_place_or_scale(a: Window, b: Window, shift: int, scale: int) -> None:
    moved = [[(scale * (start + shift), scale * (end + shift))] for start, end in (a, b)]
    assert temporal_iou([a], [b]) == temporal_iou([b], [a]) == pytest.approx(temporal_iou(*moved))
    assert temporal_iou([a], [a]) == 1.0
    assert (temporal_iou([a], [b]) == 1.0) == (a == b)


@given(windows(), windows())
def test_iou_of_two_windows_is_what_longvt_computes(a: Window, b: Window) -> None:
    shared = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    assert temporal_iou([a], [b]) == pytest.approx(shared / (max(a[1], b[1]) - min(a[0], b[0])))


@given(windows(), windows())
def test_widening_to_everything_earns_recall_but_not_iou(window: Window, span: Window) -> None:
    assert temporal_recall([(0, 1000)], [span]) == 1.0
    assert temporal_iou([(0, 1000)], [span]) <= 0.03
    wider = (min(window[0], span[0]), max(window[1], span[1]))
    assert temporal_recall([wider], [span]) >= temporal_recall([window], [span])


@pytest.mark.parametrize("empty", [[], [(3, 3)], [(5, 2)]])
def test_nothing_overlaps_with_nothing(empty: list[Window]) -> None:
    assert merged(empty) == []
    assert temporal_iou(empty, [(0, 9)]) == temporal_iou([(0, 9)], empty) == temporal_iou(empty, empty) == 0.0
    assert temporal_recall([(0, 9)], empty) == 0.0


# -- what was looked at ------------------------------------------------------------------------------------------------


@tool(inline=True)
def clip(start: float, end: float, video: str = "video_1") -> list[Image | Text]:
    """Show a window.

    Args:
        start: seconds.
        end: seconds.
        video: which one.
    """
    if end > 100:
        raise ToolError("The video ends at 100 s.")
    derived: dict[str, Any] = {"from": "0" * 64, "op": "frame", "time": (start + end) / 2, "of": video}
    return [Image("1" * 64, "image/png", 8, 8, derived=derived), Text("one frame")]


@tool(inline=True)
def whole() -> Video:
    """Show a clip as one part."""
    return Video("3" * 64, "video/mp4", 8, 8, 100.0, 25.0, start=2.0, end=8.0, times=(3.0, 6.0), frames=("1" * 64,) * 2)


@tool(inline=True)
def look(time: float) -> Image:
    """Show a picture that is no frame.

    Args:
        time: seconds.
    """
    return Image("2" * 64, "image/png", 8, 8)


def asked(*spans: list[float]) -> Task:
    return Task("t", (Text("When?"),), "then", {"spans": list(spans)} if spans else {})


def played(task: Task, *turns: str, **options: Any) -> Trajectory:
    env = Env(id="clips", tasks=TaskSet.of([task]), tools=(clip, look, whole), **options)
    env.reset(seed=0)
    for turn in turns:
        env.step(turn)
    return env.trajectory


def show(start: Any, end: Any) -> str:
    return call("clip", start=start, end=end)


def test_windows_are_read_from_the_calls_that_worked() -> None:
    turns = (
        show(10, 20),
        show(90, 120),
        show("30", "40.5"),
        call("look", time=3),
        call("whole"),
        show(50, 40),
        show("x", 2),
    )
    record = played(asked([10, 20]), *turns, said("12 to 15"))
    assert windows_of(record) == [(10.0, 20.0), (30.0, 40.5)]
    assert windows_of(record, failed=True) == [(10.0, 20.0), (90.0, 120.0), (30.0, 40.5)]
    assert windows_of(record, tools=("look",)) == windows_of(record, start="from") == []
    assert arguments(record, record.tool_runs[3]) == {"time": 3}
    assert moments(record) == [15.0, 35.25, 3.0, 6.0, 45.0]


def test_a_call_in_the_answer_or_in_a_result_is_no_look() -> None:
    record = played(asked([10, 20]), said(show(10, 20)))
    assert windows_of(record) == []


def test_a_result_that_was_rolled_back_was_not_seen() -> None:
    whole = played(asked([10, 20]), show(10, 20))
    assert windows_of(whole) == [(10.0, 20.0)]
    limits = Limits(tokens=sum(estimate_tokens(message) for message in whole.messages[:3]) + 5)
    record = played(asked([10, 20]), show(10, 20), limits=limits)
    assert record.stop_reason == "max_tokens"
    assert windows_of(record) == []
    assert moments(record) == []
    assert windows_of(record, failed=True) == [(10.0, 20.0)]


@pytest.mark.parametrize(
    ("given", "window"),
    [
        ({"start": 1, "end": 2.5}, (1.0, 2.5)),
        ({"start": "1", "end": " 2 "}, (1.0, 2.0)),
        ({"start": 2, "end": 2}, None),
        ({"start": True, "end": 2}, None),
        ({"start": None, "end": 2}, None),
        ({"start": [1], "end": 2}, None),
        ({"start": "soon", "end": 2}, None),
        ({"start": 0, "end": float("inf")}, None),
        ({"start": float("nan"), "end": 2}, None),
        ({"start": 0, "end": 10**400}, None),
        ({}, None),
    ],
)
def test_what_is_no_window_is_none(given: dict[str, Any], window: tuple[float, float] | None) -> None:
    assert window_in(given) == window


def test_the_last_the_best_and_the_union_of_windows() -> None:
    task = asked([10, 20], [50, 60])
    record = played(task, show(10, 20), show(50, 60), show(55, 65), said("then"))
    assert window_iou("last")(task, record) == pytest.approx(5 / 25)
    assert window_iou("best")(task, record) == 1.0
    assert window_iou("union")(task, record) == pytest.approx(20 / 25)
    assert window_recall("last")(task, record) == pytest.approx(5 / 20)
    assert window_recall("best")(task, record) == window_recall("union")(task, record) == 1.0
    assert spans_seen(task, record) == 1.0


def test_a_failed_call_earns_nothing_unless_it_is_said_to() -> None:
    task = asked([90, 110])
    record = played(task, show(90, 110), said("then"))
    assert window_iou()(task, record) == 0.0
    assert window_iou(failed=True)(task, record) == 1.0
    assert spans_seen(task, record) == 0.0


def test_tasks_without_spans_are_unscored() -> None:
    task = asked()
    record = played(task, show(1, 2), said("1 to 2"))
    for component in (window_iou("best"), window_recall("union"), answer_iou, spans_seen):
        assert component(task, record) is None
    assert spans_of(task) == []


def test_episodes_without_calls_have_zero() -> None:
    task = asked([1, 2])
    record = played(task, said("no idea"))
    assert [window_iou(which)(task, record) for which in ("last", "best", "union")] == [0.0, 0.0, 0.0]


def test_spans_may_come_as_arrays() -> None:
    np = pytest.importorskip("numpy")
    task = Task("t", (Text("When?"),), "then", {"spans": np.array([[10.0, 20.0]])})
    assert spans_of(task) == [(10.0, 20.0)]
    assert spans_of(Task("t", (Text("When?"),), evidence={"spans": np.array([])})) == []


def test_a_choice_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="union"):
        window_iou("onion")  # type: ignore[arg-type]


def test_components_work_in_a_rubric() -> None:
    task = asked([10, 20])
    record = played(task, show(10, 15), said("10 to 20"), rubric=Rubric(Component("time", window_iou())))
    assert record.reward == 0.5


# -- windows as answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[12.5, 20]", [(12.5, 20.0)]),
        ("12.5 to 20 seconds", [(12.5, 20.0)]),
        ("It happens from 12.54s to 17.83s.", [(12.54, 17.83)]),
        ("01:05 - 01:20", [(65.0, 80.0)]),
        ("1:02:03.5 until 1:02:10", [(3723.5, 3730.0)]),
        ("between 3 s and 5 s", [(3.0, 5.0)]),
        ("<12.0 seconds> to <15.0 seconds>", [(12.0, 15.0)]),
        ("[[1, 2], [5, 6]]", [(1.0, 2.0), (5.0, 6.0)]),
        ("12\u201315", [(12.0, 15.0)]),
        ("20 to 12", []),
        ("-5 to 30", []),
        ("2024-10-11", []),
        ("at 12 seconds", []),
        ("12:30", []),
        ("", []),
        ("1 to 2 " * 4000, []),
        (None, []),
    ],
)
def test_windows_are_read_out_of_answers(text: str | None, found: list[tuple[float, float]]) -> None:
    assert answered_windows(text) == found


@given(st.text(max_size=200))
def test_any_answer_can_be_read(text: str) -> None:
    assert all(start < end for start, end in answered_windows(text))


@given(
    windows(), st.sampled_from(["[{}, {}]", "{} to {}", "{}s - {}s", "from {} until {} seconds", "<{} s> and <{} s>"])
)
def test_what_is_written_is_read_back(window: Window, form: str) -> None:
    assert answered_windows(form.format(*window)) == [window]


def test_an_answered_window_is_scored_and_enumerating_does_not_pay() -> None:
    task = asked([10, 20])

    def score(answer: str) -> float | None:
        return answer_iou(task, played(task, said(answer)))

    assert score("[10, 20]") == 1.0
    assert score("15 to 20 seconds") == 0.5
    assert score("[0, 50], [10, 20], [60, 110]") == pytest.approx(0.1)
    assert score("[10, 20]" + " " + "so " * 400) == 0.0
    assert answer_iou(task, played(task, "hm", "hm")) == 0.0
