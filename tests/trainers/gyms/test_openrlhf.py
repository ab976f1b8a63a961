"""OpenRLHF's executor, called as its engine worker calls it, and read as its sampler reads it."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from agentenv.errors import InfrastructureError, UsageError
from tests.trainers.gyms.playing import EASY, SEEN, demonstrated
from tests.trainers.trl import seeing
from tests.trainers.trl.tiny import template, tokenizer

pytest.importorskip("openrlhf", reason="tests/trainers/run.sh installs it")
pytestmark = pytest.mark.filterwarnings("default")  # of the trainer's own libraries
END = "<|im_end|>"


class Engine:
    """Stands in for OpenRLHF's engine: gives written turns as ids, each with the log-probability -0.5."""

    def __init__(self, tokens: Any, turns: Sequence[str], finish: str = "stop") -> None:
        self.tokens, self.turns, self.finish = tokens, list(turns), finish
        self.asked: list[tuple[list[int], int, Any]] = []

    async def generate(self, ids: list[int], params: Any, multi_modal_data: Any = None) -> Any:
        self.asked.append((ids, len((multi_modal_data or {}).get("image", ())), params))
        text = self.turns.pop(0)
        if text == "broken":
            raise RuntimeError("the engine is gone")
        made = self.tokens(text, add_special_tokens=False)["input_ids"]
        logprobs = [{token: SimpleNamespace(logprob=-0.5)} for token in made]
        return SimpleNamespace(
            outputs=[SimpleNamespace(token_ids=made, text=text, finish_reason=self.finish, logprobs=logprobs)]
        )


async def executed(engine: Engine, source: Any, name: str, options: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What the executor gives for the first row."""
    from agentenv.trainers.openrlhf import AgentExecutor, openrlhf_rows

    [row] = openrlhf_rows(name, 1, **options)
    params = SimpleNamespace(logprobs=more.get("logprobs", 1), max_tokens=more.get("max_tokens"))
    found: dict[str, Any] = await AgentExecutor().execute(
        row["prompt"], row["label"], params, more.get("max_length", 8192), source, engine
    )
    return found


async def test_tokens_ranges_and_reward() -> None:
    tokens = tokenizer(template("qwen2_5"))
    [turns] = await demonstrated("table", 1, **EASY)
    engine = Engine(tokens, [turn + END for turn in turns])
    response = await executed(engine, tokens, "table", EASY)
    ids = response["observation_tokens"]
    assert response["reward"] == response["scores"] == 1.0
    assert [tokens.decode(ids[a:b]) for a, b in response["action_ranges"]] == [turn + END for turn in turns]
    for asked, _, _ in engine.asked:
        assert ids[: len(asked)] == asked, "each prompt is the beginning of what is trained on"
    sampled = {i for a, b in response["action_ranges"] for i in range(a, b)}
    assert all(value == (-0.5 if i in sampled else 0.0) for i, value in enumerate(response["rollout_log_probs"]))
    assert not response["truncated"]


async def test_pictures_come_with_their_tensors() -> None:
    processor = seeing.processor()
    [turns] = await demonstrated("zoom", 1, **SEEN)
    engine = Engine(processor.tokenizer, [turn + END for turn in turns])
    response = await executed(engine, processor, "zoom", SEEN)
    assert response["reward"] == 1.0
    assert [count for _, count, _ in engine.asked] == list(range(1, len(turns) + 1))
    for asked, count, _ in engine.asked:
        assert asked.count(processor.image_token_id) == count, "one placeholder a picture"
    grid = response["mm_train_inputs"]["image_grid_thw"]
    assert len(grid) == len(turns)
    assert response["observation_tokens"].count(processor.image_token_id) == int(grid.prod(dim=1).sum()) // 4


async def test_limits_and_failures() -> None:
    tokens = tokenizer(template("qwen2_5"))
    [turns] = await demonstrated("table", 1, **EASY)
    response = await executed(Engine(tokens, ["well"], "length"), tokens, "table", EASY, logprobs=None, max_tokens=5)
    assert response["truncated"]
    assert response["rollout_log_probs"] is None
    with pytest.raises(InfrastructureError, match="could not be scored"):
        await executed(Engine(tokens, [turns[0] + END, "broken"]), tokens, "table", EASY)
    with pytest.raises(UsageError, match="no room"):
        await executed(Engine(tokens, []), tokens, "table", EASY, max_length=16)
