from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import agentenv
from agentenv.errors import DataError, MissingExtraError, UnknownNameError, UsageError
from agentenv.policy.scripted import ScriptedPolicy
from agentenv.trajectories import Run, Store, load
from agentenv.trajectory import PolicyInfo, Trajectory
from tests.trajectories.records import record, turns, world


def many() -> list[Trajectory]:
    return [record(f"t-{task}", sample, float(sample < task)) for task in (10, 2, 0) for sample in (1, 0, 2)]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    with Store.create(tmp_path / "run") as store:
        for item in many():
            store.write(item)
    return load(tmp_path / "run")


def test_a_loaded_run_is_in_the_order_of_tasks_and_samples(run: Run) -> None:
    assert [(t.task.id, t.group.index) for t in run] == [(f"t-{i}", k) for i in (0, 2, 10) for k in range(3)]
    assert (len(run), run[0].task.id, run[-1].task.id, run[2:4][0].group.index) == (9, "t-0", "t-10", 2)
    assert len(run[::2]) == 5
    with pytest.raises(IndexError, match="9 episodes"):
        run[9]


def test_task_ids_with_numbers_of_any_length() -> None:
    ids = ["a-2", "a-10", "a-010x", "a", "b1", "a-" + "9" * 5000]
    with_digits = sorted(ids, key=lambda name: name)
    assert len(Run([record(name) for name in with_digits])) == len(ids)


def test_a_run_in_memory_keeps_its_order() -> None:
    records = many()
    run = Run(records)
    assert list(run) == records
    assert (run.path, run.manifest, run.problems) == (None, None, [])
    assert repr(run) == "<Run: 9 episodes, 3 tasks, mean reward 0.556>"
    assert repr(Run([])) == "<Run: 0 episodes, 0 tasks>"


def test_groups(run: Run) -> None:
    groups = run.groups()
    assert [group.task_id for group in groups] == ["t-0", "t-2", "t-10"]
    middle = groups[1]
    assert middle.rewards == [1.0, 1.0, 0.0]
    assert middle.samples == [0, 1, 2]
    assert middle.pass_rate == pytest.approx(2 / 3)
    assert [group.zero_variance for group in groups] == [True, False, True]
    assert middle.advantages("dr_grpo") == pytest.approx([1 / 3, 1 / 3, -2 / 3])
    assert [t.id for t in middle] == middle.ids
    assert (len(middle), middle[1].group.index, len(middle[:2])) == (3, 1, 2)
    assert repr(middle) == "<TrajectoryGroup toy/t-2/scripted/model-a: rewards [1.0, 1.0, 0.0]>"


def test_policies_do_not_share_a_group() -> None:
    run = Run([record(), record(reward=0.0, policy=PolicyInfo("other"))])
    assert [group.rewards for group in run.groups()] == [[1.0], [0.0]]


def test_columns() -> None:
    run = Run([record("a"), record("b", 2, None, stop="env_error", error_kind="timeout"), record("c", outcome=None)])
    row = run.to_rows()[0]
    row.pop("id")
    assert row == {
        "env": "toy", "task_id": "a", "sample": 0, "policy": "scripted", "model": "model-a", "seed": 7, "reward": 1.0,
        "passed": True, "pass_rate": 1.0, "stop_reason": "answer", "terminated": True, "truncated": False,
        "masked": False, "answer": "42", "turns": 2, "calls": 1, "tool_errors": 0, "tokens": 12, "prompt_tokens": 30,
        "cost": pytest.approx(0.031), "seconds": 2.0, "score.right": 1.0,
    }  # fmt: skip
    assert run.column("tool_errors") == [0, 1, 0]
    assert run.column("stop_reason") == ["answer", "env_error", None]
    assert run.column("score.right") == [1.0, None, None]
    assert run.column("pass_rate") == [1.0, None, None]
    with pytest.raises(UnknownNameError, match='did you mean "reward"'):
        run.column("rewrad")


def test_tokens_that_nobody_counted_are_unknown() -> None:
    assert Run([record(calls=[])]).column("tokens") == [None]


def test_a_weighted_sum_just_below_one_passes() -> None:
    assert Run([record(reward=0.1 * 3 + 0.7 - 1e-16)]).column("pass_rate") == [1.0]
    assert Run([record(reward=0.5)], pass_at=0.5).column("pass_rate") == [1.0]


def test_the_promise_of_the_design(run: Run, tmp_path: Path) -> None:
    chosen = run.filter("reward >= 1 and 0 < pass_rate < 1")
    assert [(t.task.id, t.group.index) for t in chosen] == [("t-2", 0), ("t-2", 1)]
    assert chosen.export("trl-sft", tmp_path / "sft").written == 2
    assert chosen.column("pass_rate") == pytest.approx([2 / 3, 2 / 3]), "of the whole group"


def test_filter_by_function_and_again(run: Run) -> None:
    late = run.filter(lambda t: t.group.index > 0)
    assert len(late) == 6
    assert [t.task.id for t in late.filter("reward == 0")] == ["t-0", "t-0", "t-2"]
    assert len(late.groups()[0]) == 2


def test_to_pandas(run: Run) -> None:
    frame = run.to_pandas()
    assert list(frame["task_id"][:3]) == ["t-0"] * 3
    assert frame["reward"].sum() == 5.0
    assert list(run[:0].to_pandas().columns) == run.columns.names


def test_pandas_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"agentenv-gym\[data\]"):
        run.to_pandas()


def test_html_is_escaped_and_small() -> None:
    records = [record(f"<script>alert({i})</script>", reward=None if i else 1.0) for i in range(30)]
    records[0] = record("long", outcome=None)
    html = Run(records)._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "and 10 more" in html
    assert Run([record("x" * 500)])._repr_html_().count("x") < 200


def test_load_reads_a_file_of_records(tmp_path: Path) -> None:
    records = many()
    Run(records).export("jsonl", tmp_path / "out")
    assert list(load(tmp_path / "out" / "train.jsonl")) == records
    (tmp_path / "bad.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"bad\.jsonl:1: not a trajectory"):
        load(tmp_path / "bad.jsonl")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match="neither a run folder nor"):
        load(tmp_path / "notes.txt")


def test_the_room_by_name() -> None:
    import agentenv.trajectories as room

    assert agentenv.load is room.load
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        room.nothing  # noqa: B018


async def test_a_rollout_in_memory_and_in_a_folder(tmp_path: Path) -> None:
    env = world()
    policy = ScriptedPolicy([env.dialect.write(turn) for turn in turns()], after="cycle")
    options: dict[str, Any] = {"tasks": 3, "group": 2, "seed": 1, "concurrency": 4}
    memory = await agentenv.arollout(env, policy, **options)
    assert (len(memory), memory.groups()[0].rewards) == (6, [1.0, 1.0])
    folder = await agentenv.arollout(env, policy, **options, out=tmp_path / "run")
    assert folder.column("reward") == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert folder.manifest is not None
    assert folder.manifest.settings["tasks"] == 3
    again = await agentenv.arollout(env, policy, **{**options, "group": 3}, out=tmp_path / "run", resume=True)
    assert len(again) == 9
    assert len(list((tmp_path / "run" / "journal").iterdir())) == 2
    assert again.path == tmp_path / "run"
