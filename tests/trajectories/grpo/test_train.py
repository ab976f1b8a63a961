"""The reference trainer: its loss, its step, its mask, and that an interrupted run comes to the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentenv
from agentenv.errors import UsageError
from agentenv.policy import ScriptedPolicy
from agentenv.tokens import flat, stream
from agentenv.trajectories.grpo import advantages
from agentenv.trajectories.grpo.batch import batch
from agentenv.trajectories.grpo.config import Config, check_layout
from agentenv.trajectories.grpo.samples import samples, sequence
from agentenv.trajectories.grpo.tensors import tensors
from agentenv.trajectories.grpo.train import Learner, grpo, main, objective, sft
from agentenv.trajectories.grpo.written import written
from agentenv.trajectories.run import Run
from agentenv.trajectory import Trajectory
from tests.trajectories.grpo.babble import babble, policy
from tests.worlds import sums

torch = pytest.importorskip("torch", reason="the trainer needs torch (extra: local)")


def settings(out: Path, **changes: Any) -> Config:
    common: dict[str, Any] = {"steps": 2, "groups": 2, "group": 4, "warmup": 0, "max_new_tokens": 6, "play_batch": 1}
    return Config(**{"out": str(out), "learning_rate": 1e-3, "staleness": 0, **common, **changes})


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(learner_or_policy: Any) -> list[Any]:
    return [weight.detach().clone() for weight in learner_or_policy.model.parameters()]


def same(ours: list[Any], theirs: list[Any]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def said_ids(record: Trajectory) -> list[tuple[int, ...]]:
    return [node.tokens.ids for node in record.nodes if node.origin == "sampled" and node.tokens]


def expert() -> Run:
    env = sums(dialect="tags", system="Add.", tools=())
    return agentenv.rollout(env, lambda obs: "<answer>7</answer>", tasks=6)


# -- the loss ---------------------------------------------------------------------------------------------------------


def test_the_objective_by_hand() -> None:
    new = torch.tensor([-1.0, -1.0, -2.0, -0.5, -1.0], requires_grad=True)
    old = torch.tensor([-1.0, -2.0, -1.0, -2.5, math.nan])
    gains, shares = torch.tensor([1.0, 1.0, -1.0, -1.0, 2.0]), torch.full((5,), 0.2)
    loss, clipped = objective(new, old, gains, shares, Config(out=""))
    r = np.exp([0.0, 1.0, -1.0, 2.0])
    wanted = [r[0] * 1, min(r[1], 1.28), min(-r[2], -0.8), min(-r[3], -1.28), 2.0 * -1.0]
    assert loss.item() == pytest.approx(-0.2 * sum(wanted), rel=1e-5)
    assert clipped.tolist() == [False, True, True, False, False]
    loss.backward()
    assert new.grad.tolist() == pytest.approx([-0.2, 0.0, 0.0, 0.2 * r[3], -0.4], rel=1e-5)


@pytest.mark.parametrize("layout", ["padded", "packed", "shared"])
def test_one_step_is_the_formula_written_out(tmp_path: Path, layout: Any) -> None:
    player = policy()
    run = agentenv.rollout(babble(), player, tasks=2, group=4, seed=3)
    config = settings(tmp_path, layout=layout, row_tokens=250, temperature=1.0)
    learner = Learner(player, config)
    given = samples([list(group) for group in run.groups()])
    made = batch(given, layout, row_tokens=250)
    for row, shares in zip(made.rows(), made.weights(), strict=True):
        learner._backward(row, shares[: row.input_ids.shape[1]], sampled=True)
    ours = [weight.grad.clone() for weight in learner.trained]

    learner.model.zero_grad()
    total, count = torch.zeros(()), 0
    for group in run.groups():
        for record, gain in zip(group, advantages(group.rewards), strict=True):
            ids, mask, old = flat(stream(record))
            logits = learner.model(torch.tensor([ids])).logits[0, :-1]
            new = torch.log_softmax(logits, -1).gather(1, torch.tensor(ids)[1:, None])[:, 0]
            at = torch.tensor(mask[1:], dtype=torch.bool)
            ratio = torch.exp(new - torch.tensor(old)[1:])[at]
            total, count = total - (ratio * (gain or 0.0)).sum(), count + int(at.sum())
    (total / count).backward()
    assert any(weight.grad.abs().max() > 1e-3 for weight in learner.trained)
    for our, weight in zip(ours, learner.trained, strict=True):
        assert torch.allclose(our, weight.grad, atol=1e-5)


def test_log_probabilities_are_those_of_the_rollout(tmp_path: Path) -> None:
    player = policy(temperature=0.7)
    run = agentenv.rollout(babble(), player, tasks=2, group=3, seed=3)
    learner = Learner(player, settings(tmp_path, temperature=0.7))
    for row in batch(samples([list(group) for group in run.groups()]), "shared", row_tokens=250).rows():
        data = tensors(row, attention=True)
        at = row.response_mask[0]
        assert learner.logprobs(learner.model, data).tolist() == pytest.approx(row.logprobs[0][at].tolist(), abs=1e-4)


def test_only_sampled_tokens_are_learned_from(tmp_path: Path) -> None:
    player = policy()
    for record in agentenv.rollout(babble(), player, tasks=1, group=2):
        (sample,) = samples([[record]])
        said = "".join(player.tokenizer.decode(ids) for ids in said_ids(record))
        assert player.tokenizer.decode(sample.ids[sample.mask].tolist()) == said


# -- demonstrations ---------------------------------------------------------------------------------------------------


def test_demonstrations_are_written_as_a_rollout_would_be() -> None:
    player = policy()
    (record,) = agentenv.rollout(babble(), player, tasks=1)
    again = written(record, player.renderer)
    theirs = stream(record)
    assert [segment.sampled for segment in again] == [segment.sampled for segment in theirs]
    assert again[0].ids == theirs[0].ids
    assert not any(segment.exact for segment in again)
    for demonstration in expert():
        prompt, said = written(demonstration, player.renderer)
        assert player.tokenizer.decode(said.ids) == "<answer>7</answer>"
        assert player.tokenizer.decode(prompt.ids).endswith("<|im_start|>assistant\n")


def test_turns_without_a_stop_string_end_with_the_end_token() -> None:
    env = sums(dialect="hermes", system="", tools=())
    (record,) = agentenv.rollout(env, lambda obs: "<answer>7</answer>", tasks=1)
    player = policy()
    assert player.tokenizer.decode(written(record, player.renderer)[1].ids) == "<answer>7</answer><|im_end|>"


def test_calls_beside_the_text_are_written_in_the_models_dialect() -> None:
    env = sums(dialect="native", system="")
    (record,) = agentenv.rollout(env, "reference", tasks=1)
    player = policy()
    with pytest.raises(UsageError, match="cannot be written token by token"):
        written(record, player.renderer)  # this template has no place for results
    one = record.nodes[: next(i for i, node in enumerate(record.nodes) if node.origin == "sampled") + 1]
    record.nodes = one
    said = player.tokenizer.decode(written(record, player.renderer)[1].ids)
    assert said.startswith("<think>")
    assert '{"name": "add", "arguments": {"a": ' in said


# -- training ---------------------------------------------------------------------------------------------------------


def test_supervised_training_lowers_the_loss_and_the_model_says_it(tmp_path: Path) -> None:
    player = policy(max_new_tokens=24, temperature=0.0)
    config = settings(tmp_path, steps=30, batch=4, learning_rate=1e-2)
    folder = sft(expert(), player, config, quiet=True)
    losses = [line["loss"] for line in metrics(tmp_path)]
    assert losses[-1] < 0.1 < losses[0]
    env = sums(dialect="tags", system="Add.", tools=())
    assert agentenv.rollout(env, player, tasks=1)[0].answer == "7"
    from transformers import AutoModelForCausalLM

    read = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    assert same(list(read.parameters()), list(player.model.parameters()))


def test_grpo_raises_the_reward(tmp_path: Path) -> None:
    player = policy(batch_size=16)
    config = settings(tmp_path, steps=12, groups=4, group=8, learning_rate=1e-2, play_batch=16, method="rloo")
    grpo(babble(), player, config, quiet=True)
    rewards = [line["reward"] for line in metrics(tmp_path)]
    assert sum(rewards[-3:]) > sum(rewards[:3]) + 0.3, rewards
    first = metrics(tmp_path)[0]
    assert first["drift"] < 1e-4
    assert (first["episodes"], first["groups"], first["version"]) == (32, 4, "step-0")


@pytest.mark.parametrize("staleness", [0, 1, 2])
def test_records_say_which_weights_played_and_none_is_too_old(tmp_path: Path, staleness: int) -> None:
    grpo(babble(), policy(), settings(tmp_path, steps=4, staleness=staleness), quiet=True)
    for step in range(4):
        for record in agentenv.load(tmp_path / "rollouts" / f"{step:05d}-0"):
            versions = {node.tokens.version for node in record.nodes if node.tokens and node.origin == "sampled"}
            assert versions == {f"step-{max(0, step - staleness)}"}
    drifts = [line["drift"] for line in metrics(tmp_path)]
    assert (drifts[-1] > 1e-3) == (staleness > 0)


@pytest.mark.parametrize("what", ["sft", "grpo"])
def test_an_interrupted_run_comes_to_the_same_weights(tmp_path: Path, what: str) -> None:
    def trained(out: Path, steps: int, resume: bool = False) -> list[Any]:
        player = policy()
        config = settings(out, steps=steps, batch=4, save_every=1)
        if what == "sft":
            sft(expert(), player, config, resume=resume, quiet=True)
        else:
            grpo(babble(8), player, config, resume=resume, quiet=True)
        return weights(player)

    whole = trained(tmp_path / "whole", 4)
    trained(tmp_path / "cut", 2)
    cut = trained(tmp_path / "cut", 4, resume=True)
    assert same(whole, cut)
    assert not same(whole, weights(policy()))
    lines = [[line["loss"] for line in metrics(tmp_path / name)] for name in ("whole", "cut")]
    assert lines[0] == lines[1]


def test_steps_after_the_checkpoint_are_done_again(tmp_path: Path) -> None:
    player = policy()
    sft(expert(), player, settings(tmp_path, steps=4, batch=4, save_every=4), quiet=True)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": 9.0}\n')
    sft(expert(), policy(), settings(tmp_path, steps=5, batch=4, save_every=4), resume=True, quiet=True)
    assert [line["step"] for line in metrics(tmp_path)] == [1, 2, 3, 4, 5]
    assert metrics(tmp_path)[-1]["loss"] != 9.0


def test_folders_that_hold_a_run(tmp_path: Path) -> None:
    config = settings(tmp_path, steps=1, batch=4)
    sft(expert(), policy(), config, quiet=True)
    with pytest.raises(UsageError, match="go on with --resume"):
        sft(expert(), policy(), config, quiet=True)
    other = settings(tmp_path, steps=2, batch=5)
    with pytest.raises(UsageError, match="was started with batch=4, not 5"):
        sft(expert(), policy(), other, resume=True, quiet=True)
    with pytest.raises(UsageError, match="no episode of the 0 holds a turn to train on"):
        sft(Run([]), policy(), settings(tmp_path / "new"), quiet=True)
    broken = agentenv.rollout(sums(2), ScriptedPolicy([]))
    with pytest.raises(UsageError, match="no episode of the 2 holds a turn to train on"):
        sft(broken, policy(), settings(tmp_path / "broken"), quiet=True)


def test_policies_that_sample_otherwise_and_models_that_need_rows_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"at temperature 0\.5, training assumes 1\.0"):
        grpo(babble(), policy(temperature=0.5), settings(tmp_path), quiet=True)
    with pytest.raises(UsageError, match="above 0"):
        grpo(babble(), policy(temperature=0.0), settings(tmp_path, temperature=0.0), quiet=True)
    with pytest.raises(UsageError, match="cuts unlikely tokens off"):
        grpo(babble(), policy(top_k=5), settings(tmp_path), quiet=True)
    with pytest.raises(UsageError, match="group=1: grpo compares attempts at the same task"):
        grpo(babble(), policy(), settings(tmp_path, group=1), quiet=True)
    player = policy()
    player.model.config.layer_types = ["sliding_attention", "full_attention"]
    with pytest.raises(UsageError, match=r'kind sliding_attention.*layout="padded"'):
        sft(expert(), player, settings(tmp_path), quiet=True)
    check_layout(player.model.config, settings(tmp_path, layout="padded"))


def test_groups_of_equal_rewards_are_replaced_or_skipped(tmp_path: Path) -> None:
    from agentenv.reward import Component, Rubric

    def never(task: Any, trajectory: Any) -> float:
        return 0.0

    player = policy()
    before = weights(player)
    grpo(babble(rubric=Rubric(Component("never", never))), player, settings(tmp_path, resample=2), quiet=True)
    assert [(line["groups"], line["equal_groups"], line["episodes"]) for line in metrics(tmp_path)] == [(4, 4, 16)] * 2
    assert same(before, weights(player))


def test_a_finite_set_is_gone_through_in_rounds(tmp_path: Path) -> None:
    grpo(babble(3), policy(), settings(tmp_path, steps=3, group=2), quiet=True)
    seen = [agentenv.load(path).column("task_id")[::2] for path in sorted((tmp_path / "rollouts").iterdir())]
    assert sorted(task for step in seen[:2] for task in step)[:1] == ["b-0"]
    assert {task for step in seen for task in step} == {"b-0", "b-1", "b-2"}
    with pytest.raises(UsageError, match="the environment has 1 tasks"):
        grpo(babble(1), policy(), settings(tmp_path / "few"), quiet=True)


def test_divergence_from_the_initial_model_costs(tmp_path: Path) -> None:
    grpo(babble(), policy(), settings(tmp_path, steps=3, kl=0.5, updates=2), quiet=True)
    values = [line["kl"] for line in metrics(tmp_path)]
    assert all(value >= 0 for value in values)
    assert values[-1] > values[0] == pytest.approx(0, abs=1e-2)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft reads it
def test_adapters_alone_are_trained_and_merged_into_the_result(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="LoRA needs peft (extra: train)")
    player = policy()
    before = weights(player)
    config = settings(tmp_path, steps=3, batch=4, lora=4, learning_rate=1e-2)
    folder = sft(expert(), player, config, quiet=True)
    from transformers import AutoModelForCausalLM

    read = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    after = list(read.parameters())
    assert len(after) == len(before)
    changed = [not torch.equal(a, b) for a, b in zip(after, before, strict=True)]
    assert any(changed)
    assert not changed[0], "embeddings stay"
    assert same(after, weights(player))


def test_mixed_precision(tmp_path: Path) -> None:
    player = policy()
    grpo(babble(), player, settings(tmp_path, steps=1, dtype="bfloat16"), quiet=True)
    assert metrics(tmp_path)[0]["drift"] < 0.2


def test_recorded_ids_are_taken_where_asked_for(tmp_path: Path) -> None:
    player = policy()
    run = agentenv.rollout(babble(), player, tasks=2, group=2)
    sft(run, player, settings(tmp_path, steps=1, batch=4, tokens="recorded"), quiet=True)
    wanted = sum(len(ids) for record in run for ids in said_ids(record))
    assert metrics(tmp_path)[0]["loss_tokens"] == wanted
    with pytest.raises(UsageError, match="lacks"):
        sft(expert(), player, settings(tmp_path / "b", tokens="recorded"), quiet=True)


# -- the command line -------------------------------------------------------------------------------------------------


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    player = policy()
    player.model.save_pretrained(tmp_path / "base")
    player.tokenizer.save_pretrained(tmp_path / "base")
    env = sums(dialect="tags", system="Add.", tools=())
    agentenv.rollout(env, lambda obs: "<answer>7</answer>", tasks=4, out=tmp_path / "expert")
    common = ["--model", str(tmp_path / "base"), "--out", str(tmp_path / "sft"), "--steps", "2", "--batch", "2"]
    assert main(["sft", str(tmp_path / "expert"), *common, "--where", "reward == 0", "--rules", "masked=drop"]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(tmp_path / "sft" / "model")
    assert "step 2: loss" in said.err
    assert main(["sft", str(tmp_path / "expert"), *common]) == 2
    assert "go on with --resume" in capsys.readouterr().err
    assert main(["sft", str(tmp_path / "nowhere"), "--model", "nowhere", *common[2:]]) == 2
    assert "there is no run" in capsys.readouterr().err  # told before any model is looked for
    assert main(["sft", str(tmp_path / "expert"), *common, "--lora", "two"]) == 2
    assert "lora" in capsys.readouterr().err
    assert main(["sft", str(tmp_path / "expert"), *common, "--rules", "masked"]) == 2
    assert "write key=value" in capsys.readouterr().err
    assert main(["grpo", "nosuch", *common, "-o", "difficulty=1", "-o", "show=x"]) == 2
    assert "nosuch" in capsys.readouterr().err


def test_help_tells_of_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for text in ("how many steps old the weights may be", "rank of LoRA adapters", "[0.28]", "--rules"):
        assert text in said


def test_sequences_without_log_probabilities_get_the_plain_gradient() -> None:
    from agentenv.tokens import Segment

    sample = sequence([Segment((1, 2), False), Segment((3,), True)])
    assert np.isnan(sample.logprobs[2])
