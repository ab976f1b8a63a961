"""Invariants of records over random episodes with pictures: a real Qwen-VL processor, forged markers, broken calls.

The numbers are those of the list that the design keeps: I7 media, I9 calls and results, I10 arguments, I11 round trip,
I14 forged markers, I16 the same bytes each time. I1 to I6 stand in `test_templates`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="a processor of pictures needs torch (extra: local)")

import agentenv
from agentenv import tokens as t
from agentenv.policy.rendering import load_renderer
from agentenv.rollout import play
from agentenv.spec import Limits
from agentenv.trajectory import Trajectory
from agentenv.types import Image
from tests.policy.tiny_vision import tiny_vision
from tests.tokens.monkey import Monkey, odd_split
from tests.trajectories.camera import camera

PAD = "<|image_pad|>"
FORGED = (PAD, "<|im_end|>", "<|im_start|>assistant", "</tool_response>", "<tool_call>", "<image>", "\ud83d", "é€😀")
DIALECTS = ("hermes", "private_tag", "tags", "json_turn")
Asked = tuple[str, Any]
"""A call: of `snap` with a seed, or of `note` with a text."""


def written(dialect: str, asked: Sequence[Asked]) -> str:
    """A turn with these calls."""
    made = [(name, value, {"seed" if name == "snap" else "text": value}) for name, value in asked]
    if dialect == "json_turn":
        return json.dumps({"thought": "so", "actions": [{"name": n, "arguments": given} for n, _, given in made]})
    if dialect == "hermes":
        calls = [json.dumps({"name": name, "arguments": given}) for name, _, given in made]
        return "".join(f"<tool_call>{call}</tool_call>" for call in calls)
    tags = [(name, value if dialect == "tags" else json.dumps(given)) for name, value, given in made]
    return "".join(f"<{name}>{body}</{name}>" for name, body in tags)


def photographer(said: Sequence[str]) -> Monkey:
    """Says this, then the answer, two characters a token or so: pads that it spells out are never a placeholder."""
    _, processor = tiny_vision("qwen3-vl")
    words = processor.tokenizer
    texts = [text.encode("utf-8", "replace").decode() for text in (*said, "<answer>x</answer>")]
    turns = [((*odd_split(text, 2, words), words.eos_token_id), "stop") for text in texts]
    return Monkey(load_renderer(processor, renderer="template"), turns)


def turns(dialect: str) -> st.SearchStrategy[list[str]]:
    asked = st.one_of(
        st.tuples(st.just("snap"), st.one_of(st.integers(0, 3), st.just("x"))),
        st.tuples(st.just("note"), st.sampled_from(FORGED)),
    )
    called = st.lists(asked, min_size=1, max_size=3).map(lambda made: written(dialect, made))
    broken = called.map(lambda text: text[: len(text) // 2])
    return st.lists(st.one_of(called, broken, st.sampled_from(FORGED), st.just("")), min_size=1, max_size=4)


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
    asked: list[str] = []
    for node in record.path():
        if node.message.role == "assistant":
            asked = [call.id for call in node.message.calls]
            for call in node.message.calls:
                bare = record.env.dialect == "tags"  # a lone argument is written as it is
                assert call.error or bare or json.loads(call.arguments_raw) == call.arguments
        elif node.message.role == "tool":
            assert node.message.call_id in asked
            asked = asked[asked.index(node.message.call_id) + 1 :]
    answered = [node.message.call_id for node in record.nodes if node.message.role == "tool"]
    assert len(answered) == len(set(answered))


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_pictures_calls_and_results_are_what_the_record_says(dialect: str, data: Any) -> None:
    said = data.draw(turns(dialect))
    env = camera(dialect=dialect, limits=Limits(turns=5, invalid_turns=9))
    record = await play(env, photographer(said), env.tasks[0])
    assert record.outcome is not None
    assert record.outcome.error is None
    media(record)
    linked(record)
    again = Trajectory.from_json(record.to_json())
    assert again == record
    assert again.to_json() == record.to_json()


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_pictures_reach_the_stream_in_each_dialect(dialect: str) -> None:
    env = camera(dialect=dialect)
    record = await play(env, photographer([written(dialect, [("snap", seed)]) for seed in (1, 2)]), env.tasks[0])
    (segments,) = t.streams(record)
    assert sum(len(segment.media) for segment in segments) == 3
    media(record)


@pytest.mark.parametrize("form", ["tokens", "trl-sft", "jsonl"])
def test_an_export_has_the_same_bytes_each_time(form: str, tmp_path: Path) -> None:
    said = [written("hermes", [("snap", 1)]), written("hermes", [("snap", 2), ("note", PAD)])]
    run = agentenv.rollout(camera(), photographer(said), tasks=1, group=2)
    for name in ("first", "second"):
        run.export(form, tmp_path / name)
    first, second = (
        {p.name: p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()} for n in ("first", "second")
    )
    assert first == second
    assert len(first) > 1
