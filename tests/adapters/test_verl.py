"""The data set and the settings for verl; the loop itself plays in verl's own worker, in tests/trainers/verl."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import agentenv
from agentenv import UsageError
from agentenv.errors import ConfigError
from agentenv.trainers.verl import _main, verl_rows, write


def test_a_row_names_its_environment_and_task() -> None:
    [row, other] = verl_rows("table", 2, seed=3, difficulty=1)
    assert row["agent_name"] == "agentenv"
    assert row["data_source"] == "agentenv/table"
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    named = json.loads(row["extra_info"]["agentenv"])
    env = agentenv.make("table", **json.loads(row["extra_info"]["agentenv_options"]))
    task = env.tasks[named["task"]]
    assert json.loads(row["reward_model"]["ground_truth"]) == task.answer
    assert other["extra_info"]["index"] == 1


def test_no_marker_is_left_that_verl_would_take_for_a_picture() -> None:
    [row] = verl_rows("zoom", 1, seed=1, size=[1536, 1024], first_view=256)
    assert "<" not in "".join(message["content"] for message in row["prompt"])


def test_what_is_written(tmp_path: Path) -> None:
    lines = write(tmp_path / "data", "table", 3, records="runs/verl", seed=3)
    table = pq.read_table(tmp_path / "data" / "train.parquet")
    assert table.num_rows == 3
    assert (tmp_path / "data" / "agentenv.yaml").read_text().splitlines() == [
        "- name: agentenv", "  _target_: agentenv.trainers.verl_loop.AgentEnvLoop", '  records: "runs/verl"',
    ]  # fmt: skip
    assert f"data.train_files={tmp_path / 'data' / 'train.parquet'}" in lines
    assert "data.max_response_length=8192" in lines


def test_the_command_prints_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--option", "difficulty=2", "--option", "split=test"]
    assert _main(["table", "--tasks", "2", "--out", str(tmp_path), *options]) == 0
    assert "python -m verl.trainer.main_ppo" in capsys.readouterr().out
    [row, _] = pq.read_table(tmp_path / "train.parquet").to_pylist()
    assert json.loads(row["extra_info"]["agentenv_options"]) == {"difficulty": 2, "split": "test"}
    with pytest.raises(UsageError, match="NAME=VALUE"):
        _main(["table", "--out", str(tmp_path), "--option", "difficulty"])


def test_misuse() -> None:
    with pytest.raises(ConfigError, match="native dialect"):
        verl_rows("table", 1, dialect="native")
    with pytest.raises(UsageError, match="endless"):
        verl_rows("table")
    with pytest.raises(UsageError, match="plain data"):
        verl_rows("table", 1, limits=agentenv.Limits(turns=3))
