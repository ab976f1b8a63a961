"""agentenv's own rollouts inside TRL's trainer: exact tokens, masks, stop strings, budgets, and tools that overlap."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import agentenv
from agentenv import Component, Env, Rubric, Task, TaskSet, Text
from agentenv.policy import make_policy
from agentenv.reward import exact_match
from agentenv.rollout import play
from agentenv.trainers.trl import TRLSpec
from agentenv.trainers.trl_rollouts import Rollouts
from tests.trainers.trl.playing import END, settings
from tests.trainers.trl.tiny import model, template, tokenizer

trl: Any = pytest.importorskip("trl", reason="tests/trainers/run.sh installs it")
pytestmark = pytest.mark.filterwarnings("default")  # of the trainer's own libraries


class Told(trl.GRPOTrainer):  # type: ignore[misc]
    """A trainer whose samples are given, each rollout's turns in order; everything else is the trainer's own.

    Attributes:
        batch: what the trainer makes of the rollouts.
        sizes: how many turns each generation was asked for.
    """

    def told(self, script: Sequence[tuple[str, Sequence[str]]]) -> None:
        """Train one step; each rollout is a text of its prompt with its turns."""
        self.waiting = [(mark, list(turns)) for mark, turns in script]
        self.live: list[tuple[list[int], list[str]]] = []
        self.sizes = list[int]()
        self.train()

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        self.sizes.append(len(prompt_ids))
        return [self._turn(ids) for ids in prompt_ids], None

    def _turn(self, ids: list[int]) -> list[int]:
        text = self._tokenizer.decode(ids)
        turn = text.count("<|im_start|>assistant") - 1
        if turn == 0:
            turns = self.waiting.pop(next(i for i, (mark, _) in enumerate(self.waiting) if mark in text))[1]
        else:  # the rollout that was asked with the beginning of these ids, and said how they go on
            asked = next(i for i, (seen, _) in enumerate(self.live) if ids[: len(seen)] == seen)
            turns = self.live.pop(asked)[1]
        made: list[int] = self._tokenizer(turns[turn], add_special_tokens=False)["input_ids"]
        self.live.append(([*ids, *made[:8]], turns))  # a stop string may cut the rest
        return made

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        self.batch = super()._generate_and_score_completions(inputs)
        return self.batch


def trainer(spec: TRLSpec, out: Path, kind: Any = Told, **changes: Any) -> Any:
    tokens = tokenizer(template("qwen3"))
    config = trl.GRPOConfig(**settings(out, **spec.config(**changes)))
    arguments = spec.trainer_arguments(rollouts=Rollouts(spec, wait=0.3))
    return kind(model=model(tokens), processing_class=tokens, args=config, **arguments)


def sampled(made: Any) -> list[str]:
    """What is trained of each rollout, as text."""
    batch = made.batch
    kept = (batch["completion_mask"] * batch["tool_mask"]).bool()
    return [made._tokenizer.decode(ids[mask]) for ids, mask in zip(batch["completion_ids"], kept, strict=True)]


async def demonstrated(spec: TRLSpec) -> tuple[str, list[str]]:
    """A text of the first task's prompt, and the demonstrator's turns in it."""
    [task] = spec.tasks.values()
    record = await play(spec.env.clone(), make_policy("reference"), task)
    return agentenv.Message("user", task.prompt).text[-40:], [
        n.message.text + END for n in record.path() if n.origin == "sampled"
    ]


@pytest.mark.parametrize("dialect", ["hermes", "tags"])
async def test_any_dialect_token_by_token(tmp_path: Path, dialect: str) -> None:
    options: dict[str, Any] = {"seed": 3, "difficulty": 1, "dialect": dialect}
    spec = TRLSpec("table", tasks=1, native=False, out=tmp_path / "run", **options)
    mark, turns = await demonstrated(spec)
    made = trainer(spec, tmp_path / "model", per_device_train_batch_size=2)
    made.told([(mark, turns), (mark, ["<answer>no idea</answer>" + END])])
    spec.close()
    assert sorted(made._logs["rewards"]["table_reward"]) == [0.0, 1.0]
    guess = "<answer>no idea</answer>" + END
    kept = ["".join(turns), guess]
    if dialect == "tags":  # its stop strings end a turn: what was written behind them is not kept
        kept = [text.replace(END, "") for text in kept]
    assert sorted(sampled(made)) == sorted(kept)
    whole = [made._tokenizer.decode(ids) for ids in made.batch["completion_ids"]]
    assert sum("<tool_response>" in text or "<result>" in text or "information>" in text for text in whole) == 1
    run = agentenv.load(tmp_path / "run")
    assert {record.policy.model for record in run} == {"step-0"}
    assert [record.group.index for record in run] == [0, 1]


async def test_what_was_written_behind_a_stop_string_is_not_kept(tmp_path: Path) -> None:
    env = sums(stops=True)
    spec = TRLSpec(env, tasks=1, native=False)
    made = trainer(spec, tmp_path / "model", per_device_train_batch_size=2)
    call = '<double>{"x": 2}</double>'
    made.told([("2 * 2?", [call + "<result>5</result> so 5" + END, "<answer>4</answer>" + END])] * 2)
    assert list(made._logs["rewards"]["sums_reward"]) == [1.0, 1.0]
    assert all("so 5" not in text for text in sampled(made))


async def test_what_has_no_room_ends_the_episode(tmp_path: Path) -> None:
    spec = TRLSpec("table", tasks=1, native=False, out=tmp_path / "run", seed=3, difficulty=1)
    mark, turns = await demonstrated(spec)
    made = trainer(spec, tmp_path / "model", per_device_train_batch_size=2, max_completion_length=100)
    made.told([(mark, turns), (mark, ["so " * 200 + END])])
    spec.close()
    assert {record.stop_reason for record in agentenv.load(tmp_path / "run")} <= {"max_tokens", "length"}
    assert made.batch["completion_ids"].shape[1] <= 100


class Seats:
    """How many calls ran at once at most."""

    def __init__(self) -> None:
        self.now = self.most = 0


SEATS = Seats()


@agentenv.tool(timeout=10.0)
async def slow(x: int) -> str:
    """Twice a number, after a while.

    Args:
        x: the number.
    """
    SEATS.now += 1
    SEATS.most = max(SEATS.most, SEATS.now)
    await asyncio.sleep(0.3)
    SEATS.now -= 1
    return str(2 * x)


@agentenv.tool(inline=True)
def double(x: int) -> str:
    """Twice a number.

    Args:
        x: the number.
    """
    return str(2 * x)


def sums(stops: bool = False) -> Env:
    tasks = TaskSet.of([Task("t0", (Text("2 * 2?"),), "4")])
    options: dict[str, Any] = {"dialect": "tags"} if stops else {}
    rubric = Rubric(Component("right", exact_match))
    return Env(id="sums", tasks=tasks, tools=[double if stops else slow], rubric=rubric, **options)


async def test_tools_of_all_rollouts_run_at_once(tmp_path: Path) -> None:
    spec = TRLSpec(sums(), tasks=1, native=False)
    made = trainer(spec, tmp_path / "model", per_device_train_batch_size=16, num_generations=16)
    call = '<tool_call>\n{"name": "slow", "arguments": {"x": 2}}\n</tool_call>' + END
    made.told([("2 * 2?", [call, "<answer>4</answer>" + END])] * 16)
    assert SEATS.most == 16
    assert made.sizes == [16, 16]


async def test_an_engine_that_fails_trains_nothing(tmp_path: Path) -> None:
    class Broken(Told):
        def _generate_single_turn(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("out of memory")

    spec = TRLSpec(sums(), tasks=1, native=False)
    made = trainer(spec, tmp_path / "model", Broken, per_device_train_batch_size=2)
    made.told([])
    assert sampled(made) == ["", ""]


async def test_a_real_model_samples(tmp_path: Path) -> None:
    spec = TRLSpec("table", tasks=2, native=False, seed=3, difficulty=1, out=tmp_path / "run", limits={"turns": 2})
    made = trainer(spec, tmp_path / "model", trl.GRPOTrainer, max_completion_length=40)
    made.train()
    spec.close()
    run = agentenv.load(tmp_path / "run")
    assert len(run) == 4
    for record in run:
        for node in record.path():
            if node.origin == "sampled":
                assert node.tokens is not None
                assert node.tokens.version == "0"
