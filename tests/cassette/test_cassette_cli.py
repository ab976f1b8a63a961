"""`agentenv cassette`, and the flags of `agentenv rollout`."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from agentenv.cli import main
from agentenv.trajectories import load

ROLLOUT = ["rollout", "tests.worlds:sums", "--policy", "reference", "--tasks", "2", "--quiet"]


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    path = tmp_path / "tape"
    assert main([*ROLLOUT, "--out", str(tmp_path / "run"), "--cassette", str(path), "--cassette-mode", "record"]) == 0
    return path


def test_a_rollout_is_recorded_and_replayed(tape: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 'cassette_mode = "record"' in (tmp_path / "run" / "config.toml").read_text()
    again = ["--out", str(tmp_path / "again"), "--cassette", str(tape), "--cassette-mode", "replay"]
    assert main([*ROLLOUT, *again]) == 0
    assert main([*ROLLOUT[:-3], "--tasks", "3", "--quiet", *again[:1], str(tmp_path / "more"), *again[2:]]) == 1
    assert "holds no answer to add" in capsys.readouterr().err
    assert main([*ROLLOUT, "--cassette", str(tape), "--cassette-mode", "rewind", "--out", str(tmp_path / "x")]) == 2


def test_what_is_recorded_is_listed(tape: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["cassette", str(tape), "--limit", "3"]) == 0
    text = capsys.readouterr().out
    assert "8 recordings: add 8" in text
    assert text.count('{"a":') == 3
    assert main(["cassette", str(tape), "--tool", "other"]) == 0
    assert "nothing is recorded" in capsys.readouterr().out
    assert main(["cassette", str(tape), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recordings"] == {"add": 8}


def test_a_recording_may_grow_too_old(tape: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def again(name: str, *more: str) -> int:
        return main([*ROLLOUT, "--out", str(tmp_path / name), "--cassette", str(tape), *more])

    assert again("young", "--cassette-max-age", "3600") == 0
    assert {call.cache for one in load(tmp_path / "young") for call in one.tool_runs} == {"hit"}
    assert again("old", "--cassette-max-age", "0") == 0
    assert {call.cache for one in load(tmp_path / "old") for call in one.tool_runs} == {"miss"}
    assert "cassette_max_age = 0.0" in (tmp_path / "old" / "config.toml").read_text()
    assert again("x", "--cassette-max-age", "-1") == 2
    assert "0 or more, not -1.0" in capsys.readouterr().err
    assert again("x", "--cassette-max-age", "5", "--cassette-mode", "replay") == 2
    assert "in the mode cache" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_lint_fails_where_something_is_wrong(tape: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cassette", str(tape), "--lint"]) == 0
    connection = sqlite3.connect(tape / "cassette.sqlite")
    connection.execute("UPDATE recordings SET result = x'00' WHERE id = 1")
    connection.commit()
    connection.close()
    capsys.readouterr()
    assert main(["cassette", str(tape), "--lint"]) == 1
    assert "recording 1 (add): recording 1 of add is damaged" in capsys.readouterr().out
    assert main(["cassette", str(tape), "--lint", "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)) == 1
    assert main(["cassette", str(tape)]) == 0
    assert "damaged" in capsys.readouterr().out
