"""The environment inside TRL's own GRPO loop: prompts, tools, rewards, masks and records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import agentenv
from agentenv.trainers.trl import TRLSpec
from tests.trainers.trl.playing import END, Scripted, seeing_trainer, trainer, turns_of

pytestmark = pytest.mark.filterwarnings("default")  # of the trainer's own libraries


@pytest.fixture
def spec(tmp_path: Path) -> TRLSpec:
    return TRLSpec("table", tasks=2, seed=3, difficulty=1, out=tmp_path / "run")


async def scripts(spec: TRLSpec) -> dict[str, list[Any]]:
    """Two rollouts a task: one that looks the answer up, one that guesses."""
    guess = [f"I guess.\n\nno idea{END}"]
    return {id: [await turns_of(spec, task), list(guess)] for id, task in spec.tasks.items()}


def trained(spec: TRLSpec, tmp_path: Path, script: dict[str, list[Any]], **changes: Any) -> Scripted:
    made = trainer(spec, tmp_path / "model", **changes)
    made.play(script)
    spec.close()
    return made


async def test_a_step_rewards_what_the_environment_rewards(spec: TRLSpec, tmp_path: Path) -> None:
    script = await scripts(spec)
    made = trained(spec, tmp_path, script)
    run = agentenv.load(tmp_path / "run")
    assert len(run) == 4
    by_task = {id: sorted((r.reward or 0.0) for r in run if r.task.id == id) for id in spec.tasks}
    assert set(map(tuple, by_task.values())) == {(0.0, 1.0)}
    logged = made._logs["rewards"]["table_reward"]
    assert sorted(logged) == [0.0, 0.0, 1.0, 1.0]
    shown = made.state.log_history[0]
    assert shown["agentenv/denotation"] == pytest.approx(0.5)
    assert shown["tools/failure_frequency"] == 0.0


async def test_records_hold_what_the_model_wrote(spec: TRLSpec, tmp_path: Path) -> None:
    script = await scripts(spec)
    trained(spec, tmp_path, script)
    for record in agentenv.load(tmp_path / "run"):
        assert record.env.dialect == "native"
        assert record.policy.name == "trl"
        assert record.policy.model == "step-0"
        if record.reward == 1.0:
            calls = [call for node in record.path() for call in node.message.calls]
            assert calls
            assert all(record.tool_runs[i].error_kind is None for i in range(len(calls)))
        else:
            assert "I guess." in record.messages[-1].text


async def test_only_sampled_tokens_are_trained(spec: TRLSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[dict[str, Any]] = []
    honest = Scripted._generate_and_score_completions

    def seen(self: Scripted, inputs: Any) -> Any:
        batches.append(honest(self, inputs))
        return batches[-1]

    monkeypatch.setattr(Scripted, "_generate_and_score_completions", seen)
    script = await scripts(spec)
    made = trained(spec, tmp_path, script)
    written = sorted("".join(turns) for rollouts in script.values() for turns in rollouts)
    [batch] = batches
    kept = batch["completion_mask"] * batch["tool_mask"]
    found = [made._tokenizer.decode(ids[mask.bool()]) for ids, mask in zip(batch["completion_ids"], kept, strict=True)]
    assert sorted(found) == written


async def test_no_room_for_a_result_ends_the_episode_without_it(tmp_path: Path) -> None:
    spec = TRLSpec("table", tasks=1, seed=3, difficulty=1, out=tmp_path / "run")
    [(id, task)] = spec.tasks.items()
    turns = await turns_of(spec, task)
    trained(spec, tmp_path, {id: [list(turns), list(turns)]}, max_completion_length=60, per_device_train_batch_size=2)
    for record in agentenv.load(tmp_path / "run"):
        assert record.stop_reason == "max_tokens"
        assert record.reward == 0.0


async def test_an_episode_that_is_over_says_so(tmp_path: Path) -> None:
    limits = {"calls": 1, "on_calls": "stop"}
    spec = TRLSpec("table", tasks=1, seed=3, difficulty=1, out=tmp_path / "run", limits=limits)
    [(id, task)] = spec.tasks.items()
    first, *_ = await turns_of(spec, task)
    made = trained(spec, tmp_path, {id: [[first, first, f"too late{END}"]] * 2}, per_device_train_batch_size=2)
    said = [made._tokenizer.decode(ids) for ids in made.prompts]
    assert any("The episode is over" in text for text in said)
    assert {record.stop_reason for record in agentenv.load(tmp_path / "run")} == {"max_calls"}


async def test_pictures_of_prompts_and_tools_reach_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[dict[str, Any]] = []
    honest = Scripted._generate_and_score_completions

    def seen(self: Scripted, inputs: Any) -> Any:
        batches.append(honest(self, inputs))
        return batches[-1]

    monkeypatch.setattr(Scripted, "_generate_and_score_completions", seen)
    spec = TRLSpec("zoom", tasks=1, seed=1, difficulty=1, size=(1536, 1024), first_view=256, out=tmp_path / "run")
    [(id, task)] = spec.tasks.items()
    turns = await turns_of(spec, task)
    made = seeing_trainer(spec, tmp_path / "model", per_device_train_batch_size=2)
    made.play({id: [list(turns), list(turns)]})
    spec.close()
    [batch] = batches
    record = agentenv.load(tmp_path / "run")[0]
    assert record.reward == 1.0
    pictures = [part for message in record.messages for part in message.parts if isinstance(part, agentenv.Image)]
    assert len(pictures) >= 2
    assert batch["num_images"] == [len(pictures)] * 2
    merged = batch["image_grid_thw"].prod(dim=1).sum().item() // 4
    pads = made._image_pad_token_id
    ids = [*batch["prompt_ids"].flatten().tolist(), *batch["completion_ids"].flatten().tolist()]
    assert ids.count(pads) == merged
    kept = (batch["completion_mask"] * batch["tool_mask"]).bool()
    for row, mask in zip(batch["completion_ids"], kept, strict=True):
        assert made._tokenizer.decode(row[mask]) == "".join(turns), "only what was sampled is trained, and no picture"


async def test_a_batch_in_which_no_tool_returned_a_picture(tmp_path: Path) -> None:
    spec = TRLSpec(
        "zoom", tasks=1, seed=1, size=(1536, 1024), first_view=256, tools=("image_zoom", "image_info"),
        out=tmp_path / "run",
    )  # fmt: skip
    look = f'<tool_call>\n{{"name": "image_info", "arguments": {{}}}}\n</tool_call>{END}'
    made = seeing_trainer(spec, tmp_path / "model", per_device_train_batch_size=2)
    made.play({id: [[look, f"red{END}"], [look, f"blue{END}"]] for id in spec.tasks})
    spec.close()
    for record in agentenv.load(tmp_path / "run"):
        assert [run.name for run in record.tool_runs] == ["image_info"]
        assert record.stop_reason == "answer"
