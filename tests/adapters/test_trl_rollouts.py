"""Rollouts of ours for TRL, without its training step: what tests/trainers/trl plays inside the trainer itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv import Image, Limits, Task, TaskSet, Text
from agentenv.errors import ConfigError
from agentenv.trainers.trl import TRLSpec
from agentenv.trainers.trl_rollouts import Rollouts, TRLPolicy, renderer_of, stopped
from tests.adapters.test_trl import sums
from tests.trainers.trl.tiny import template, tokenizer

END = "<|im_end|>"
CALL = '<tool_call>\n{"name": "double", "arguments": {"x": 2}}\n</tool_call>' + END


class Engine:
    """The parts of a trainer that a rollout function uses; each rollout writes the same turns."""

    def __init__(self, spec: TRLSpec, *turns: str, logprobs: bool = False, **more: Any) -> None:
        self._tokenizer = self.processing_class = tokenizer(template("qwen3"))
        self.chat_template, self.eos_token_ids = None, [self._tokenizer.eos_token_id]
        self.max_completion_length, self.use_vllm, self.vllm_mode = 512, False, "colocate"
        self.vllm_tensor_parallel_size = 1
        self.state, self.accelerator = SimpleNamespace(global_step=5), SimpleNamespace(num_processes=1)
        self.__dict__.update(more)
        self.turns, self.logprobs = turns, logprobs
        self.environments = [spec.environment_factory() for _ in range(2)]
        for world in self.environments:
            world.reset(task="t0")

    def _generate_single_turn(self, prompts: list[list[int]], *_: Any, **__: Any) -> Any:
        said = [self.turns[self._tokenizer.decode(ids).count("<|im_start|>assistant") - 1] for ids in prompts]
        ids = [self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in said]
        return ids, [[-0.5] * len(row) for row in ids] if self.logprobs else None


def spec_of(limits: Limits | None = None) -> TRLSpec:
    return TRLSpec(sums(limits), native=False, check_version=False)


async def test_what_trl_is_given() -> None:
    spec = spec_of()
    engine = Engine(spec, CALL, "<answer>4</answer>" + END, logprobs=True)
    out = Rollouts(spec)([None, None], engine)
    for ids, mask, logprobs in zip(out["completion_ids"], out["env_mask"], out["logprobs"], strict=True):
        kept = [token for token, sampled in zip(ids, mask, strict=True) if sampled]
        assert engine._tokenizer.decode(kept) == CALL + "<answer>4</answer>" + END
        assert [value for value, sampled in zip(logprobs, mask, strict=True) if not sampled] == [0.0] * mask.count(0)
    rewards = await spec.reward_funcs[0](completions=[[], []], environments=engine.environments)
    assert rewards == [1.0, 1.0]


def test_no_log_probabilities() -> None:
    spec = spec_of()
    assert Rollouts(spec)([None, None], Engine(spec, "<answer>4</answer>" + END))["logprobs"] is None


def test_a_turn_that_fills_the_budget_is_cut() -> None:
    spec = spec_of()
    out = Rollouts(spec)([None, None], Engine(spec, "so " * 50, max_completion_length=20, logprobs=True))
    assert [len(ids) for ids in out["completion_ids"]] == [20, 20]


def test_masked_episodes_train_nothing() -> None:
    spec = spec_of(Limits(turns=1, on_turns="mask"))
    out = Rollouts(spec)([None, None], Engine(spec, CALL))
    assert sum(map(sum, out["env_mask"])) == 0


def test_an_engine_that_fails() -> None:
    spec = spec_of()
    out = Rollouts(spec)([None, None], Engine(spec))
    assert out["env_mask"] == [[0], [0]]


def test_misuse() -> None:
    with pytest.raises(ConfigError, match="native=False"):
        Rollouts(TRLSpec(sums(), check_version=False))
    spec = spec_of()
    several = Engine(spec, CALL, accelerator=SimpleNamespace(num_processes=2))
    with pytest.raises(ConfigError, match="colocate"):
        Rollouts(spec)([None, None], several)
    edited = Engine(spec, CALL)
    edited._tokenizer.chat_template += "{# mine #}"
    with pytest.raises(ConfigError, match="only appends"):
        renderer_of(edited)


async def test_pictures_are_refused() -> None:
    spec = spec_of()
    policy = TRLPolicy(Engine(spec, CALL), renderer_of(Engine(spec, CALL)), 1)
    task = Task("p", (Text("what?"), Image("0" * 64, "image/png", 4, 4)))
    spec.env.tasks = TaskSet.of([task])
    with pytest.raises(Exception, match=r"picture|image|media"):
        await policy.begin(task, seed=0).act(spec.env.start(task))
    await policy.close()


@given(st.text(alphabet="ab<>", max_size=30))
def test_a_stop_string_is_found_where_it_is_complete(text: str) -> None:
    ids = [ord(letter) for letter in text]
    found = stopped(ids, ["<a>", "bb"], lambda kept: "".join(map(chr, kept)))
    ends = [text.find(stop) + len(stop) for stop in ("<a>", "bb") if stop in text]
    assert found == (min(ends) if ends else None)
