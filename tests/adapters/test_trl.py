"""The pieces of TRL's adapter that need no trainer; the trainer's own loop plays them in tests/trainers/trl."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import agentenv
from agentenv import Component, Env, Limits, Rubric, Task, TaskSet, Text, UsageError
from agentenv.errors import ConfigError, InfrastructureError, MissingExtraError, PolicyError
from agentenv.reward import exact_match
from agentenv.trainers import common
from agentenv.trainers.trl import TRLSpec
from agentenv.trajectory import Trajectory


@agentenv.tool(inline=True)
def double(x: int) -> str:
    """Twice a number.

    Args:
        x: the number.
    """
    if x < 0:
        raise InfrastructureError("the calculator is on fire")
    return str(2 * x)


def wordy(task: Task, trajectory: Trajectory) -> float:
    """1.0 where a turn says why it calls."""
    return float(any("because" in message.reasoning for message in trajectory.messages))


def best(task: Task, group: Any) -> list[float]:
    """1.0 for the first of a group."""
    return [float(i == 0) for i in range(len(group))]


def sums(limits: Limits | None = None, *more: Component) -> Env:
    tasks = TaskSet.of([Task("t0", (Text("2 * 2?"),), "4"), Task("t1", (Text("2 * 3?"),), "6")])
    rubric = Rubric(Component("right", exact_match), Component("why", wordy, weight=0.5), *more)
    return Env(id="sums", tasks=tasks, tools=[double], limits=limits or Limits(turns=4), rubric=rubric)


def turn(content: str = "", *calls: dict[str, Any], reasoning: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {"role": "assistant", "content": content}
    if calls:
        made["tool_calls"] = [{"type": "function", "function": {"name": "double", "arguments": c}} for c in calls]
    return {**made, "reasoning_content": reasoning} if reasoning else made


def result(text: Any) -> dict[str, Any]:
    return {"role": "tool", "name": "double", "content": text}


def spec_of(env: Env, **options: Any) -> TRLSpec:
    return TRLSpec(env, check_version=False, **options)


async def rewards(spec: TRLSpec, worlds: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
    found: list[float | None] = await spec.reward_funcs[0](completions=completions, environments=worlds, **columns)
    return found


async def test_a_rollout_of_trls_loop(tmp_path: Path) -> None:
    spec = spec_of(sums(), out=tmp_path / "run")
    world: Any = spec.environment_factory()
    assert world.reset(**spec.row(spec.tasks["t0"])) is None
    assert world.double(x=2) == "4"
    logged: dict[str, Any] = {}
    told = [turn("let me see", {"x": 2}, reasoning="because"), result("4"), turn("4")]
    columns = {
        "trainer_state": SimpleNamespace(global_step=7), "log_metric": logged.__setitem__,
        "log_extra": lambda name, values: logged.__setitem__(name, values),
    }  # fmt: skip
    assert await rewards(spec, [world], [told], **columns) == [1.5]
    spec.close()
    [record] = agentenv.load(tmp_path / "run")
    assert (record.stop_reason, record.policy.model, record.group.id) == ("answer", "step-7", "t0@7")
    first = record.path()[1].message
    assert (first.text, first.reasoning, first.calls[0].arguments) == ("let me see", "because", {"x": 2})
    assert logged["agentenv/right"] == 1.0
    assert logged["stop_reason"] == ["answer"]


async def test_attempts_are_numbered_through_the_steps(tmp_path: Path) -> None:
    for resume in (False, True):
        spec = spec_of(sums(), out=tmp_path / "run", resume=resume, tasks=1)
        world = spec.environment_factory()
        for _ in range(2):
            world.reset(task="t0")
            await rewards(spec, [world], [[turn("4")]])
            spec.close()  # what a later reward opens again
    assert [record.group.index for record in agentenv.load(tmp_path / "run")] == [0, 1, 2, 3]


async def test_what_stood_beside_a_call_counts_after_the_end_too() -> None:
    spec = spec_of(sums(Limits(turns=1)))
    world: Any = spec.environment_factory()
    world.reset(task="t0")
    assert "The episode is over" in world.double(x=2)
    assert "The episode is over" in world.double(x=2)
    told = [turn("", {"x": 2}, reasoning="because"), result("4"), turn("4")]
    assert await rewards(spec, [world], [told]) == [0.5]


async def test_endings(tmp_path: Path) -> None:
    spec = spec_of(sums(), out=tmp_path / "run")
    endings: list[tuple[list[int], list[Any], str]] = [
        ([], [], "max_turns"),
        ([2], [turn("", {"x": 2}), result("4"), turn("", {"x": 3})], "max_turns"),
        ([2], [turn("", {"x": 2})], "max_tokens"),
        ([], [turn([{"type": "text", "text": "4"}])], "answer"),  # type: ignore[arg-type]
        ([], [turn("")], "no_call"),
    ]
    for calls, told, ending in endings:
        world: Any = spec.environment_factory()
        world.reset(task="t1")
        for x in calls:
            world.double(x=x)
        await rewards(spec, [world], [told])
        assert world._env.trajectory.stop_reason == ending, told


async def test_a_broken_tool_leaves_the_rollout_unscored() -> None:
    spec = spec_of(sums())
    world: Any = spec.environment_factory()
    world.reset(task="t0")
    assert "out of order" in world.double(x=-1)
    assert "out of order" in world.double(x=1)
    assert await rewards(spec, [world], [[turn("", {"x": -1}), result("x"), turn("4")]]) == [None]
    assert world._env.trajectory.outcome.error.message == "the calculator is on fire"


async def test_group_components_see_the_whole_group() -> None:
    spec = spec_of(sums(None, Component("best", best, weight=10.0, scope="group")))
    worlds = [spec.environment_factory() for _ in range(4)]
    for i, world in enumerate(worlds):
        world.reset(task=f"t{i // 2}")
    assert await rewards(spec, worlds, [[turn("4")]] * 4) == [11.0, 1.0, 10.0, 0.0]


def test_the_data_set_and_the_settings() -> None:
    spec = spec_of(sums())
    rows = spec.train_dataset
    assert rows[1] == {"prompt": [{"role": "user", "content": "2 * 3?"}], "task": "t1"}
    assert spec.config() == {
        "max_completion_length": 8192, "remove_unused_columns": False, "max_tool_calling_iterations": 3,
    }  # fmt: skip
    assert spec.config(max_completion_length=5)["max_completion_length"] == 5
    arguments = spec.trainer_arguments()
    assert set(arguments) == {"train_dataset", "environment_factory", "reward_funcs"}
    assert "max_tool_calling_iterations" not in spec_of(sums(Limits(turns=None))).config()


def test_pictures_come_from_the_environment() -> None:
    spec = spec_of(agentenv.make("zoom", seed=1, size=(1536, 1024), first_view=256), tasks=1)
    [row] = spec.train_dataset
    assert row["prompt"][-1]["content"] == ""
    world = spec.environment_factory()
    content = world.reset(**row)
    assert content is not None
    assert {block["type"] for block in content} == {"text", "image"}
    shown = world.image_zoom(image="image_1", bbox_2d=[0, 0, 500, 500])  # type: ignore[attr-defined]
    assert [block["type"] for block in shown].count("image") == 1
    assert spec.config()["chat_template_kwargs"]["processor_kwargs"]


async def test_misuse() -> None:
    spec = spec_of(sums())
    world: Any = spec.environment_factory()
    with pytest.raises(UsageError, match="never began"):
        await rewards(spec, [world], [[turn("4")]])
    with pytest.raises(UsageError, match=r"train on spec\.train_dataset"):
        world.reset(prompt=[])
    with pytest.raises(UsageError, match="endless"):
        TRLSpec("table", check_version=False)
    with pytest.raises(UsageError, match="takes no more options"):
        spec_of(sums(), difficulty=1)
    with pytest.raises(UsageError, match="nothing to train on"):
        spec_of(sums(), tasks=[])
    with pytest.raises(UsageError, match="tasks=-1: at least one"):
        spec_of(sums(), tasks=-1)
    with pytest.raises(ConfigError, match="needs the native"):
        spec.trainer_arguments(rollouts=print)
    with pytest.raises(ConfigError, match="needs the native"):
        spec_of(sums(), native=False).trainer_arguments()


def test_a_tool_whose_name_trl_keeps_to_itself() -> None:
    @agentenv.tool
    def reset() -> str:
        """Begin again."""
        return ""

    with pytest.raises(UsageError, match="'reset'"):
        spec_of(Env(id="x", tasks=TaskSet.of([Task("t", (Text("?"),))]), tools=[reset]))


def test_versions_out_of_range(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingExtraError, match="surely-not-there"):
        common.require("surely-not-there", ("1", "2"), "trl")
    monkeypatch.setattr(common, "version", lambda name: "1.30.1+cpu")
    assert common.require("trl", ("1.16", "2"), "trl") == "1.30.1+cpu"
    with pytest.raises(ConfigError, match=r"trl 1\.30\.1\+cpu was not tested"):
        common.require("trl", ("1.16.0", "1.17.0"), "trl")


def test_another_dialect_is_another_spec() -> None:
    env = agentenv.make("table", seed=1)
    native = common.in_dialect(env, "native", answer_tag="answer")
    assert native.env_spec.hash != env.env_spec.hash
    assert native.env_spec.entry_point == env.env_spec.entry_point
    assert common.in_dialect(native, "native", answer_tag="answer") is native
    assert json.dumps(native.env_spec.kwargs) == json.dumps(env.env_spec.kwargs)


def test_a_picture_that_is_gone() -> None:
    part = agentenv.Image(hashlib.sha256(b"gone").hexdigest(), "image/png", 4, 4)
    with pytest.raises(PolicyError, match="cannot be shown"):
        common.blocks([part])
