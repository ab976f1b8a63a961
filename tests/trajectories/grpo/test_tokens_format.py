"""The format tokens: the stream of a record, as it is, in JSON lines and in Parquet."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from agentenv.media import media_store
from agentenv.tokens import flat, stream
from agentenv.trajectories.grpo import Rules, advantages
from agentenv.trajectories.run import Run
from agentenv.trajectory import Trajectory
from tests.pictures import encoded, scene
from tests.trajectories.grpo.streams import PAD, group, span, spoken
from tests.trajectories.records import record


def exported(records: list[Trajectory], out: Path, **options: Any) -> tuple[Any, list[dict[str, Any]]]:
    report = Run(records).export("tokens", out, **options)
    return report, [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]


def seeing(name: str) -> Trajectory:
    made = spoken([[1, PAD, 2], [30]])
    tokens = made.nodes[0].tokens
    assert tokens is not None
    made.nodes[0] = replace(made.nodes[0], tokens=replace(tokens, media=(span(name, 1),)))
    return made


def test_rows_hold_the_stream_and_the_advantages(tmp_path: Path) -> None:
    attempts = group(random.Random(0), 4, "t")
    report, rows = exported(attempts, tmp_path, method="rloo")
    wanted = advantages([attempt.reward for attempt in attempts], "rloo")
    assert report.written == 4
    for row, attempt, value in zip(rows, attempts, wanted, strict=True):
        ids, mask, logprobs = flat(stream(attempt))
        assert (row["id"], row["input_ids"], row["response_mask"]) == (attempt.id, ids, mask)
        assert row["logprobs"] == pytest.approx(logprobs)
        assert row["advantages"] == pytest.approx([mark * (value or 0.0) for mark in mask])
        assert set(row["versions"]) == {"step-1"}


def test_pictures_lie_beside_and_ids_are_expanded_or_collapsed(tmp_path: Path) -> None:
    shown = media_store().put(encoded(scene(), "PNG"))
    report, (row,) = exported([seeing(shown.sha256)], tmp_path / "a")
    assert row["input_ids"] == [1, PAD, PAD, PAD, PAD, 2, 30]
    assert (row["media"][0]["offset"], row["media"][0]["grid"]) == (1, [1, 4, 4])
    assert (tmp_path / "a" / row["media"][0]["path"]).read_bytes() == media_store().get(shown.sha256)
    assert report.media == 1
    _, (row,) = exported([seeing(shown.sha256)], tmp_path / "b", media="collapsed")
    assert (row["input_ids"], row["response_mask"]) == ([1, PAD, 2, 30], [0, 0, 0, 1])
    report, _ = exported([seeing("0" * 64)], tmp_path / "c", on_loss="note")
    assert report.dropped == {"media": 1}


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    odd = [spoken([[1], [30]], 1.0), spoken([[1], [31] * 9], 0.0, sample=1), spoken([[1], [32]], None, sample=2)]
    equal = [spoken([[1], [30]], task="u"), record("v")]
    report, rows = exported([*odd, *equal], tmp_path, max_tokens=5, zero_variance=False, rules=Rules(overlong="drop"))
    assert len(rows) == report.written == 1
    reasons = dict(report.skipped)
    assert reasons[odd[1].id] == "longer than 5 tokens"
    assert reasons[odd[2].id] == "unscored, masked or dropped by the rules"
    assert {reasons[attempt.id] for attempt in equal} == {"group with equal rewards"}
    report, rows = exported([record("v")], tmp_path / "text")
    assert rows == []
    assert "lacks token ids" in report.skipped[0][1]


def test_unknown_log_probabilities_and_parquet(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow (extra: data)")
    made = spoken([[1], [30, 31]])
    tokens = made.nodes[1].tokens
    assert tokens is not None
    made.nodes[1] = replace(made.nodes[1], tokens=replace(tokens, logprobs=None))
    Run([made]).export("tokens", tmp_path, container="parquet")
    (row,) = pq.read_table(tmp_path / "train.parquet").to_pylist()
    assert (row["input_ids"], row["logprobs"]) == ([1, 30, 31], [0.0, None, None])
