"""AReaL's own engine and executor over our workflow; a server on loopback answers its requests as SGLang does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agentenv.errors import InfrastructureError
from tests.policy.token_server import TokenServer, token_server
from tests.trainers.gyms.playing import EASY, SEEN, demonstrated
from tests.trainers.trl import seeing
from tests.trainers.trl.tiny import template, tokenizer

pytestmark = pytest.mark.filterwarnings("default")  # of the trainer's own libraries
END = "<|im_end|>"
WORKFLOW = "agentenv.trainers.areal.AgentEnvWorkflow"


def script(tokens: Any, turns: Sequence[str]) -> Callable[[list[int]], list[int]]:
    """Gives the turn that comes next in a prompt; many episodes are served at once."""
    begins = tokens.convert_tokens_to_ids("<|im_start|>")
    [name] = tokens("assistant", add_special_tokens=False)["input_ids"][:1]

    def says(ids: list[int]) -> list[int]:
        asked = sum(pair == (begins, name) for pair in pairwise(ids))
        made: list[int] = tokens(turns[asked - 1] + END, add_special_tokens=False)["input_ids"]
        return made

    return says


@asynccontextmanager
async def engine(kind: str = "sglang") -> AsyncIterator[tuple[Any, TokenServer]]:
    """AReaL's engine for a kind of server, and the server that it asks."""
    from areal.api.cli_args import InferenceEngineConfig
    from areal.engine.sglang_remote import RemoteSGLangEngine
    from areal.engine.vllm_remote import RemotevLLMEngine

    made = {"sglang": RemoteSGLangEngine, "vllm": RemotevLLMEngine}[kind](
        InferenceEngineConfig(
            backend=f"{kind}:d1", consumer_batch_size=8, max_head_offpolicyness=8, check_trajectory_format=True
        )
    )
    async with token_server([]) as server:
        await asyncio.to_thread(made.initialize, addr=f"127.0.0.1:{server.port}")
        try:
            yield made, server
        finally:
            await asyncio.to_thread(made.destroy)


async def played(engine: Any, name: str, options: dict[str, Any], group: int = 1, **given: Any) -> Any:
    """What the executor gives for the first row."""
    from areal.api.cli_args import GenerationHyperparameters

    from agentenv.trainers.areal import areal_rows

    [row] = areal_rows(name, 1, **options)
    settings = GenerationHyperparameters(max_new_tokens=512, max_tokens=8192)
    task = engine.submit(row, WORKFLOW, {"gconfig": settings, **given}, group_size=group)
    return await asyncio.to_thread(engine.wait_for_task, task, 60)


async def test_a_group() -> None:
    from areal.utils import stats_tracker

    tokens = tokenizer(template("qwen2_5"))
    [turns] = await demonstrated("table", 1, **EASY)
    async with engine() as (areal, server):
        server.script = script(tokens, turns)
        areal.set_version(4)
        found = await played(areal, "table", EASY, 2, tokenizer=tokens)
    assert {tensor.shape for name, tensor in found.items() if name != "rewards"} == {found["input_ids"].shape}
    assert found["rewards"].tolist() == [1.0, 1.0]
    assert found["attention_mask"].all()
    for row in range(2):
        ids, mask = found["input_ids"][row], found["loss_mask"][row].bool()
        assert tokens.decode(ids[mask]) == "".join(turn + END for turn in turns)
        assert found["logprobs"][row].tolist() == [-0.5 if one else 0.0 for one in mask]
        assert found["versions"][row].tolist() == [4 if one else -1 for one in mask]
        for body in server.turns:
            assert ids[: len(body["input_ids"])].tolist() == body["input_ids"], "what is trained on is what was asked"
    assert len(server.turns) == 2 * len(turns)
    assert len(areal._engine.rid_to_address) == 2, "the turns of an episode go to one server"
    logged = stats_tracker.export_all()
    assert (logged["rollout/reward"], logged["rollout/num_turns"]) == (1.0, len(turns))


async def test_weights_that_change_within_a_turn_are_told_apart() -> None:
    """AReaL breaks requests off, changes the weights and lets the turn go on where it was."""
    tokens = tokenizer(template("qwen2_5"))
    [turns] = await demonstrated("table", 1, **EASY)
    whole = script(tokens, turns)
    async with engine() as (areal, server):

        def says(ids: list[int]) -> list[int]:
            made, asked = whole(ids), len(server.turns)
            areal.set_version(int(asked > 1))
            return made[:3] if asked == 1 else made[3:] if asked == 2 else made

        def break_off(answer: dict[str, Any]) -> None:
            if len(server.turns) == 1:
                answer["meta_info"]["finish_reason"] = {"type": "abort"}

        server.script, server.spoil = says, break_off
        found = await played(areal, "table", EASY, tokenizer=tokens)
    mask = found["loss_mask"][0].bool()
    assert tokens.decode(found["input_ids"][0][mask]) == "".join(turn + END for turn in turns)
    assert found["versions"][0][mask].tolist() == [0] * 3 + [1] * (int(mask.sum()) - 3)
    assert found["rewards"].tolist() == [1.0]


async def test_pictures() -> None:
    processor = seeing.processor()
    [turns] = await demonstrated("zoom", 1, **SEEN)
    async with engine() as (areal, server):
        server.script = script(processor.tokenizer, turns)
        found = await played(areal, "zoom", SEEN, 2, tokenizer=processor.tokenizer, processor=processor)
    assert found["rewards"].tolist() == [1.0, 1.0]
    assert sorted(len(body["image_data"]) for body in server.turns) == sorted([*range(1, len(turns) + 1)] * 2)
    for body in server.turns:
        assert body["input_ids"].count(processor.image_token_id) == len(body["image_data"]), "one placeholder a picture"
    for ids, kinds, seen in zip(
        found["input_ids"], found["mm_token_type_ids"], found["multi_modal_input"], strict=True
    ):
        grid = seen["image_grid_thw"]
        assert len(grid) == len(turns)
        places = ids == processor.image_token_id
        assert int(places.sum()) == int(grid.prod(dim=1).sum()) // 4
        assert kinds.bool().equal(places)
        assert len(seen["pixel_values"]) == int(grid.prod(dim=1).sum())


def spelled(tokens: Any, text: str) -> list[int]:
    """Ids that decode to a text, which the tokenizer would not write: each character on its own."""
    ids = [id for one in text for id in tokens(one, add_special_tokens=False)["input_ids"]]
    end = tokens(END, add_special_tokens=False)["input_ids"]
    assert tokens.decode(ids) == text
    assert tokens(text, add_special_tokens=False)["input_ids"] != ids
    return [*ids, *end]


async def test_what_was_sampled_is_not_tokenised_again() -> None:
    tokens = tokenizer(template("qwen2_5"))
    [turns] = await demonstrated("table", 1, **EASY)
    async with engine() as (areal, server):
        usual, odd = script(tokens, turns), spelled(tokens, turns[0])
        server.script = lambda ids: odd if len(server.turns) == 1 else usual(ids)
        found = await played(areal, "table", EASY, tokenizer=tokens)
    assert found["rewards"].tolist() == [1.0]
    start = len(server.turns[0]["input_ids"])
    assert found["input_ids"][0][start : start + len(odd)].tolist() == odd
    assert found["loss_mask"][0][start : start + len(odd)].all()


async def test_where_sglang_would_with_pictures_the_episode_is_left_out() -> None:
    processor = seeing.processor()
    [turns] = await demonstrated("zoom", 1, **SEEN)
    async with engine() as (areal, server):
        usual, odd = script(processor.tokenizer, turns), spelled(processor.tokenizer, turns[0])
        server.script = lambda ids: odd if len(server.turns) == 1 else usual(ids)
        found = await played(areal, "zoom", SEEN, 2, tokenizer=processor.tokenizer, processor=processor)
    assert found["rewards"].tolist() == [1.0], "the other one of the group is kept"
    assert len(server.turns) == 1 + len(turns)


async def test_episodes_without_a_picture_join_those_with_some() -> None:
    processor = seeing.processor()
    [turns] = await demonstrated("table", 1, **EASY)
    async with engine() as (areal, server):
        areal.config.check_trajectory_format = False  # it takes no empty entry; AReaL's trainers do
        server.script = script(processor.tokenizer, turns)
        found = await played(areal, "table", EASY, 1, tokenizer=processor.tokenizer, processor=processor)
    assert found["multi_modal_input"] == [{}]
    assert not found["mm_token_type_ids"].any()


async def test_what_cannot_be_scored_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from agentenv.trainers import exact

    tokens = tokenizer(template("qwen2_5"))
    [turns] = await demonstrated("table", 1, **EASY)
    monkeypatch.setattr(exact, "reward_of", lambda *_: None)
    async with engine() as (areal, server):
        server.script = script(tokens, turns)
        assert await played(areal, "table", EASY, tokenizer=tokens) is None


async def test_what_areal_does_not_send_to_vllm_is_refused() -> None:
    from areal.api.cli_args import GenerationHyperparameters

    from agentenv.trainers.areal import AgentEnvWorkflow, areal_rows

    processor = seeing.processor()
    async with engine("vllm") as (areal, _):
        workflow = AgentEnvWorkflow(GenerationHyperparameters(), processor.tokenizer, processor)
        for name, options, lacking in (("zoom", SEEN, "pictures"), ("table", {**EASY, "dialect": "tags"}, "stop")):
            with pytest.raises(InfrastructureError, match=rf"ConfigError: AReaL sends vLLM no {lacking}"):
                await workflow.arun_episode(areal, areal_rows(name, 1, **options)[0])


async def test_a_tokenizer_is_loaded_in_the_worker(tmp_path: Path) -> None:
    tokens = tokenizer(template("qwen2_5"))
    tokens.save_pretrained(tmp_path)
    [turns] = await demonstrated("table", 1, **EASY)
    async with engine() as (areal, server):
        server.script = script(tokens, turns)
        found = await played(areal, "table", EASY, tokenizer=str(tmp_path))
    assert found["rewards"].tolist() == [1.0]
