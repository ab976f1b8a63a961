"""Invariants of records over random episodes with pictures: a real Qwen-VL processor, forged markers, broken calls.

The numbers are those of the list that the design keeps. Here: I7 media, I9 calls and results, I10 arguments, I11 round
trip, I14 forged markers, I16 the same bytes each time. I1 to I4 and I6 are `holding.invariants`, which `test_templates`
and `test_every_template` ask for too; I5 stands in `test_append_only`, I15 in `test_drift`, I8 and I13
in `test_exports`; I8, I12 and I13 of exports as text in tests/trajectories/test_honesty.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="a processor of pictures needs torch (extra: local)")

import agentenv
from agentenv import tokens as t
from agentenv.dialects import DIALECTS
from agentenv.env import Env
from agentenv.policy.rendering import load_renderer
from agentenv.rollout import play
from agentenv.spec import Limits
from agentenv.tool import tool
from agentenv.trajectory import Trajectory
from agentenv.types import Image, StopReason, Text
from tests.playing import check_record, raw_agrees
from tests.policy.tiny_vision import tiny_vision
from tests.tokens.holding import invariants
from tests.tokens.monkey import Monkey, tokens_of
from tests.tokens.qwen import templates
from tests.tokens.turns import said, written
from tests.trajectories.camera import camera, picture

PAD = "<|image_pad|>"
FORGED = (PAD, "<|im_end|>", "<|im_start|>assistant", "</tool_response>", "<tool_call>", "<image>", "\ud83d", "é€😀")
ASKED = st.one_of(
    st.tuples(st.just("snap"), st.one_of(st.integers(0, 3), st.just("x")).map(lambda seed: {"seed": seed})),
    st.tuples(st.just("note"), st.sampled_from(FORGED).map(lambda text: {"text": text})),
)
Turn = tuple[str, int, bool, int]


@tool(inline=True)
def paint(code: str) -> list[Any]:
    """Run code that paints.

    Args:
        code: how many colours, or what to write.
    """
    return [Text(code), *(picture(seed) for seed in range(int(code) if code in "0123" else 0))]


def studio(dialect: str, **options: Any) -> Env:
    """An environment whose tools give pictures, in any dialect."""
    return camera(dialect=dialect, **({"tools": (paint,)} if dialect == "code" else {}), **options)


def photographer(turns: Sequence[Turn], room: int = 1 << 30) -> Monkey:
    """Says this, then the answer, two characters a token or so: pads that it spells out are never a placeholder."""
    _, processor = tiny_vision("qwen3-vl")
    words = processor.tokenizer
    texts = [(text.encode("utf-8", "replace").decode(), *rest) for text, *rest in (*turns, whole("<answer>x</answer>"))]
    policy = Monkey(
        load_renderer(processor, renderer="template", chat_template=templates()["qwen3_vl"]),
        [tokens_of(turn, words=words) for turn in texts],  # type: ignore[arg-type]
    )
    policy.context = room
    return policy


def whole(text: str) -> Turn:
    return (text, 2, True, 0)


def turns(dialect: str) -> st.SearchStrategy[list[Turn]]:
    lost = st.sampled_from([0, 0, 0, 1, 2, -1])
    return st.lists(st.tuples(said(dialect, ASKED), st.just(2), st.booleans(), lost), min_size=1, max_size=4)


def media(record: Trajectory) -> None:
    """I7 and I14: spans are the pictures shown, in order, as long as their grids say, and no pad stands elsewhere."""
    (segments,) = t.streams(record)
    t.check(segments)
    spans = [span for segment in segments for span in segment.media]
    shown = [part for node in record.path() for part in node.message.parts if isinstance(part, Image)]
    assert [span.sha256 for span in spans] == [part.sha256 for part in shown]
    assert all(span.length * 4 == span.grid[0] * span.grid[1] * span.grid[2] for span in spans)
    pad = tiny_vision("qwen3-vl")[1].tokenizer.convert_tokens_to_ids(PAD)
    assert t.flat(segments).ids.count(pad) == len(spans)
    wide = [t.expand(segment) for segment in segments]
    assert t.flat(wide).ids.count(pad) == sum(span.length for span in spans)
    assert [t.collapse(segment) for segment in wide] == [t.collapse(segment) for segment in segments]


def linked(record: Trajectory) -> None:
    """I9 and I10: each result answers one call of the turn before it, in order, and raw arguments are kept."""
    check_record(record)
    bare = record.env.dialect in ("tags", "code")  # a lone argument is written as it is
    for node in record.nodes:
        assert all(bare or raw_agrees(call) for call in node.message.calls)


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), room=st.one_of(st.just(1 << 30), st.integers(0, 2000)))
async def test_pictures_calls_and_results_are_what_the_record_says(dialect: str, data: Any, room: int) -> None:
    policy = photographer(data.draw(turns(dialect)), room)
    env = studio(dialect, limits=Limits(turns=5, invalid_turns=9))
    record = await play(env, policy, env.tasks[0])
    assert record.outcome is not None
    assert record.outcome.error is None
    overflowed = not record.calls or record.nodes[-1].rolled_back
    assert (record.stop_reason == StopReason.MAX_TOKENS) == overflowed
    linked(record)
    if record.calls:
        invariants(record, policy)
        media(record)
    again = Trajectory.from_json(record.to_json())
    assert again == record
    assert again.to_json() == record.to_json()


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
async def test_pictures_reach_the_stream_in_each_dialect(dialect: str) -> None:
    env = studio(dialect)
    asked: list[list[tuple[str, dict[str, Any]]]] = [[("snap", {"seed": seed})] for seed in (1, 2)]
    if dialect == "code":
        asked = [[("paint", {"code": "2"})]]
    record = await play(env, photographer([whole(written(dialect, calls)) for calls in asked]), env.tasks[0])
    (segments,) = t.streams(record)
    assert sum(len(segment.media) for segment in segments) == 3
    media(record)


@pytest.mark.parametrize("form", ["tokens", "trl-sft", "jsonl"])
def test_an_export_has_the_same_bytes_each_time(form: str, tmp_path: Path) -> None:
    asked: list[list[tuple[str, dict[str, Any]]]] = [[("snap", {"seed": 1})]]
    asked.append([("snap", {"seed": 2}), ("note", {"text": PAD})])
    policy = photographer([whole(written("hermes", calls)) for calls in asked])
    run = agentenv.rollout(camera(), policy, tasks=1, group=2)
    for name in ("first", "second"):
        run.export(form, tmp_path / name)
    first, second = (
        {p.name: p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()} for n in ("first", "second")
    )
    assert first == second
    assert len(first) > 1
