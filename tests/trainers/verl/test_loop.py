"""The environment inside verl's own rollout worker: tokens, masks, log-probabilities, rewards and records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import agentenv
from agentenv.policy import make_policy
from agentenv.rollout import play
from tests.trainers.trl import seeing
from tests.trainers.verl.worker import END, Rollout, Server, saved, scores

pytestmark = pytest.mark.filterwarnings("default")  # of the trainer's own libraries
EASY: dict[str, Any] = {"seed": 3, "difficulty": 1}


async def demonstrated(name: str, count: int, **options: Any) -> list[list[str]]:
    """The demonstrator's turns in the first tasks."""
    env = agentenv.make(name, **options)
    records = [await play(env.clone(), make_policy("reference"), task) for task in env.tasks.take(count)]
    return [[node.message.text + END for node in r.path() if node.origin == "sampled"] for r in records]


async def test_tokens_masks_and_rewards(tmp_path: Path) -> None:
    network, tokens = saved(tmp_path / "model")
    [turns] = await demonstrated("table", 1, **EASY)
    guess, silence = ["<answer>no idea</answer>" + END], [turns[0], "I do not know." + END, "Still." + END]
    expected = {"".join(turns): (1.0, "answer"), "".join(guess): (0.0, "answer"), "".join(silence): (0.0, "invalid")}
    server = Server(tokens, [turns, guess, silence], network)
    out = await Rollout(tmp_path, "table", server, tmp_path / "model", 1, **EASY).play([0, 0, 0])
    found = {}
    for i, ids in enumerate(out.batch["responses"]):
        written = tokens.decode(ids[out.batch["response_mask"][i].bool()])
        found[written] = (float(out.batch["rm_scores"][i].sum()), out.non_tensor_batch["stop_reason"][i])
        whole = tokens.decode(ids[out.batch["attention_mask"][i, -ids.shape[0] :].bool()])
        assert ("<tool_response>" in whole) == ("<tool_call>" in written)
        assert "<tool_response>" not in written
    assert found == expected


async def test_log_probabilities_are_those_of_one_forward_pass(tmp_path: Path) -> None:
    network, tokens = saved(tmp_path / "model")
    turns = await demonstrated("table", 1, **EASY)
    out = await Rollout(tmp_path, "table", Server(tokens, turns, network), tmp_path / "model", 1, **EASY).play([0])
    batch = {name: tensor[0] for name, tensor in out.batch.items()}
    width = batch["responses"].shape[0]
    kept = batch["attention_mask"].bool()
    prompt = batch["input_ids"][:-width][kept[:-width]].tolist()
    response = batch["responses"][kept[-width:]].tolist()
    again = scores(network, prompt, response)
    mask = batch["response_mask"][: len(response)].tolist()
    assert sum(mask) > 20
    for own, given, sampled in zip(again, batch["rollout_log_probs"].tolist(), mask, strict=False):
        assert given == pytest.approx(own, abs=1e-4) if sampled else given == 0.0


async def test_what_has_no_room_ends_the_episode_unseen(tmp_path: Path) -> None:
    _, tokens = saved(tmp_path / "model")
    long = "<think>" + "a " * 700 + "</think>"
    [[call, *_]] = await demonstrated("table", 1, **EASY)
    rollout = Rollout(tmp_path, "table", Server(tokens, [[long + call, "never asked"]]), tmp_path / "model", 1, **EASY)
    out = await rollout.play([0])
    assert out.non_tensor_batch["stop_reason"].tolist() in (["max_tokens"], ["length"])
    assert out.batch["response_mask"].sum() > 600
    assert "tool_response" not in tokens.decode(out.batch["responses"][0])


async def test_an_unscored_episode_is_left_out_of_the_loss_and_says_so(tmp_path: Path) -> None:
    _, tokens = saved(tmp_path / "model")
    [[call, *_]] = await demonstrated("table", 1, **EASY)
    server = Server(tokens, [[call, "aborted"], [call, "aborted"]])
    out = await Rollout(tmp_path, "table", server, tmp_path / "model", 1, **EASY).play([0])
    assert out.batch["response_mask"].sum() == 0
    assert out.non_tensor_batch["unscored"].tolist() == [1.0]


async def test_a_server_that_never_answers_stops_the_run(tmp_path: Path) -> None:
    _, tokens = saved(tmp_path / "model")
    rollout = Rollout(tmp_path, "table", Server(tokens, [["aborted"]] * 2), tmp_path / "model", 1, **EASY)
    with pytest.raises(agentenv.errors.InfrastructureError, match="aborted the request"):
        await rollout.play([0])


async def test_episodes_are_kept(tmp_path: Path) -> None:
    _, tokens = saved(tmp_path / "model")
    turns = await demonstrated("table", 1, **EASY)
    rollout = Rollout(
        tmp_path, "table", Server(tokens, [*turns, *[list(t) for t in turns]]), tmp_path / "model", 1, **EASY
    )
    await rollout.play([0, 0])
    [folder] = (tmp_path / "records").iterdir()
    run = agentenv.load(folder)
    assert [record.group.index for record in run] == [0, 1]
    assert {record.policy.model for record in run} == {"step-3"}
    assert all(node.tokens for record in run for node in record.path() if node.origin == "sampled")


async def test_stop_strings_are_sent(tmp_path: Path) -> None:
    _, tokens = saved(tmp_path / "model")
    server = Server(tokens, [["<answer>x</answer>" + END]])
    options: dict[str, Any] = {**EASY, "dialect": "tags"}
    await Rollout(tmp_path, "table", server, tmp_path / "model", 1, **options).play([0])
    [(_, _, sampling)] = server.asked
    env = agentenv.make("table", **options)
    assert sampling.get("stop", []) == list(env.dialect.stop)


async def test_pictures_of_prompts_and_tools_are_aligned(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    small = {"seed": 1, "difficulty": 1, "size": [1536, 1024], "first_view": 256}
    [turns] = await demonstrated("zoom", 1, **small)
    processor = seeing.processor()
    server = Server(processor.tokenizer, [turns])
    rollout = Rollout(tmp_path, "zoom", server, tmp_path / "model", 1, processor, **small)
    out = await rollout.play([0])
    assert out.batch["rm_scores"].sum() == 1.0
    pictures = [count for _, count, _ in server.asked]
    assert pictures == list(range(1, len(turns) + 1))
    grid = out.non_tensor_batch["multi_modal_inputs"][0]["image_grid_thw"]
    pads = (out.batch["input_ids"][0] == processor.image_token_id).sum()
    assert len(grid) == len(turns)
    assert int(pads) == int(grid.prod(dim=1).sum()) // 4
    width = out.batch["responses"].shape[1]
    shown = out.batch["input_ids"][0, -width:] == processor.image_token_id
    assert int((shown * out.batch["response_mask"][0]).sum()) == 0


async def test_a_text_model_refuses_pictures(tmp_path: Path) -> None:
    _, tokens = saved(tmp_path / "model")
    small = {"seed": 1, "difficulty": 1, "size": [1536, 1024], "first_view": 256}
    rollout = Rollout(tmp_path, "zoom", Server(tokens, []), tmp_path / "model", 1, **small)
    with pytest.raises(agentenv.errors.InfrastructureError, match="Multimodal inputs require"):
        await rollout.play([0])
