"""Rows of tokens of random episodes with pictures: never cut (I8), and learned from is what was sampled (I13)."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="a processor of pictures needs torch (extra: local)")

from agentenv import tokens as t
from agentenv.dialects import DIALECTS
from agentenv.rollout import play
from agentenv.spec import Limits
from agentenv.trajectories import Run
from agentenv.trajectories.formats import ExportReport
from agentenv.trajectory import Trajectory
from tests.tokens.monkey import Monkey
from tests.tokens.test_invariants import PAD, photographer, studio, turns


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), media=st.sampled_from(["expanded", "collapsed"]), most=st.just(0) | st.integers(400, 1500))
async def test_rows_are_whole_and_learn_what_was_sampled(dialect: str, data: Any, media: Any, most: int) -> None:
    policy = photographer(data.draw(turns(dialect)))
    env = studio(dialect, limits=Limits(turns=5, invalid_turns=9))
    record = await play(env, policy, env.tasks[0])
    rows, report = exported(record, media=media, max_tokens=most)
    wide = t.expanded(t.stream(record))
    length = len(t.flat(wide).ids)
    if most and length > most:
        assert (rows, report.skipped) == ([], [(record.id, f"longer than {most} tokens")])
        return
    (row,) = rows
    holds(row, record, policy, media == "expanded")


def exported(record: Trajectory, **options: Any) -> tuple[list[dict[str, Any]], ExportReport]:
    with tempfile.TemporaryDirectory() as folder:
        report = Run([record]).export("tokens", folder, **options)
        return [json.loads(line) for line in Path(report.files[0]).read_text().splitlines()], report


def holds(row: dict[str, Any], record: Trajectory, policy: Monkey, expanded: bool) -> None:
    words = policy.renderer.tokenizer
    segments = t.expanded(t.stream(record)) if expanded else t.stream(record)
    assert row["input_ids"] == t.flat(segments).ids
    labels = [token for token, own in zip(row["input_ids"], row["response_mask"], strict=True) if own]
    assert labels == [token for ids in policy.sampled for token in ids]
    bodies = [node.tokens.ids for node in record.path() if node.origin == "sampled" and node.tokens]
    assert words.decode(labels) == words.decode([token for ids in bodies for token in ids])
    pad = words.convert_tokens_to_ids(PAD)
    shown = [place for span in row["media"] for place in range(span["offset"], span["offset"] + _width(span, expanded))]
    assert shown == [place for place, token in enumerate(row["input_ids"]) if token == pad]


def _width(span: dict[str, Any], expanded: bool) -> int:
    return int(span["length"]) if expanded else 1
