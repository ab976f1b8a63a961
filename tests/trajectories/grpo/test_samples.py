from __future__ import annotations

import random

import numpy as np
import pytest
from msgspec.structs import replace

from agentenv.errors import UnknownNameError, UsageError
from agentenv.tokens import flat, stream
from agentenv.trajectories.grpo import Rules, advantages
from agentenv.trajectories.grpo.samples import samples, sequence, sequences, supervised
from agentenv.trajectory import Outcome, Score, Tokens
from tests.trajectories.grpo.streams import PAD, episode, group, span, spoken
from tests.trajectories.records import record


def test_the_sequence_is_the_stream() -> None:
    made = episode(random.Random(0), [1, 2, 3], turns=3)
    ids, mask, logprobs = flat(stream(made))
    (sample,) = sequences(made)
    assert sample.ids.tolist() == ids
    assert sample.mask.tolist() == [bool(value) for value in mask]
    assert logprobs is not None
    assert sample.logprobs == pytest.approx(np.array(logprobs))
    assert [(turn.node, turn.version) for turn in sample.turns] == [(1, "step-1"), (3, "step-1"), (5, "step-1")]
    for turn in sample.turns:
        assert sample.mask[turn.start : turn.stop].all()


def test_pictures_are_expanded_and_keep_their_places() -> None:
    made = spoken([[1, PAD, 2], [30], [PAD, 3], [31]])
    for index, name in ((0, "x"), (2, "y")):
        tokens = made.nodes[index].tokens
        assert tokens is not None
        place = tokens.ids.index(PAD)
        made.nodes[index] = replace(made.nodes[index], tokens=replace(tokens, media=(span(name, place),)))
    (sample,) = sequences(made)
    assert sample.ids.tolist() == [1, *[PAD] * 4, 2, 30, *[PAD] * 4, 3, 31]
    assert [(m.sha256, m.offset) for m in sample.media] == [("x", 1), ("y", 7)]
    assert np.flatnonzero(sample.mask).tolist() == [6, 12]


def test_log_probabilities_that_the_engine_did_not_give() -> None:
    made = spoken([[1, 2], [30, 31]])
    tokens = made.nodes[1].tokens
    assert tokens is not None
    made.nodes[1] = replace(made.nodes[1], tokens=replace(tokens, logprobs=None))
    (sample,) = sequences(made)
    assert np.isnan(sample.logprobs).tolist() == [False, False, True, True]


def test_turns_that_are_not_to_be_trained_on() -> None:
    made = spoken([[1], [30], [2], [31]])
    made.nodes[1] = replace(made.nodes[1], trainable=False)
    assert sequences(made)[0].mask.tolist() == [False, False, False, True]


def test_a_stream_that_forked_gives_two_sequences_and_each_turn_is_in_one() -> None:
    made = spoken([[1, 2], [30], [5, 6, 7], [31]])
    tokens = made.nodes[2].tokens
    assert tokens is not None
    made.nodes[2] = replace(made.nodes[2], tokens=replace(tokens, fork="the template dropped the thoughts"))
    first, second = sequences(made)
    assert (first.ids.tolist(), second.ids.tolist()) == ([1, 2, 30], [5, 6, 7, 31])
    assert int(first.mask.sum() + second.mask.sum()) == 2
    first, second = samples([[made, spoken([[1], [33]], 0.0, sample=1)]], "rloo")[:2]
    assert (first.advantages.max(), second.advantages.max()) == (1.0, 1.0)
    assert first.rewards.sum() + second.rewards.sum() == 1.0


def test_ids_that_were_computed_from_text_are_refused() -> None:
    made = spoken([[1], [30]])
    tokens = made.nodes[1].tokens
    assert tokens is not None
    made.nodes[1] = replace(made.nodes[1], tokens=replace(tokens, exact=False))
    with pytest.raises(UsageError, match="computed from text"):
        samples([[made]])
    assert len(samples([[made]], inexact=True)) == 1
    (sample,) = supervised(sequences(made, inexact=True))
    assert sample.advantages.tolist() == [0.0, 1.0]
    assert np.isnan(sample.logprobs).tolist() == [False, True]
    with pytest.raises(UsageError, match="lacks token ids"):
        samples([[record()]])


@pytest.mark.parametrize("method", ["grpo", "dr_grpo", "rloo"])
def test_each_token_of_the_loss_has_its_attempts_advantage(method: str) -> None:
    attempts = group(random.Random(1), 4, "t")
    wanted = advantages([attempt.reward for attempt in attempts], method)
    for sample, value, attempt in zip(samples([attempts], method), wanted, attempts, strict=True):  # type: ignore[arg-type]
        assert sample.advantages[sample.mask] == pytest.approx(value)
        assert not sample.advantages[~sample.mask].any()
        assert sample.rewards.sum() == pytest.approx(attempt.reward)
        assert np.flatnonzero(sample.rewards).tolist() in ([], [int(np.flatnonzero(sample.mask)[-1])])


def test_masked_attempts_count_in_the_statistics_and_dropped_ones_do_not() -> None:
    over = spoken([[1], [30]], 0.0, outcome=Outcome("max_turns", False, True, 0.0, masked=True))
    attempts = [spoken([[1], [31]], 1.0), spoken([[1], [32]], 1.0), over]
    kept = samples([attempts], "rloo")
    assert [sample.advantages.max() for sample in kept] == [0.5, 0.5]
    dropped = samples([attempts], "rloo", rules=Rules(masked="drop"))
    assert [sample.advantages.max() for sample in dropped] == [0.0, 0.0]
    assert len(samples([attempts], "rloo", rules=Rules(masked="keep"))) == 3


def test_unscored_attempts_are_left_out_even_without_token_ids() -> None:
    failed = record(reward=None)
    made = samples([[failed, spoken([[1], [31]], 1.0), spoken([[1], [32]], 0.0)]], "rloo")
    assert [sample.advantages[1] for sample in made] == [1.0, -1.0]
    assert samples([[failed]]) == []


def test_reinforce_pp_normalises_over_all_tokens_of_the_batch() -> None:
    groups = [group(random.Random(seed), 4, f"t{seed}") for seed in range(3)]
    made = samples(groups, "reinforce_pp")
    each = np.concatenate([sample.advantages[sample.mask] for sample in made])
    assert each.mean() == pytest.approx(0, abs=1e-5)
    assert each.std(ddof=1) == pytest.approx(1, abs=1e-4)


def test_rewards_of_turns_go_to_the_turns() -> None:
    def stepped(steps: list[float], sample: int) -> Outcome:
        return Outcome("answer", True, False, sum(steps) + 1, {"step": Score(sum(steps))}, steps={"step": steps})

    attempts = [
        spoken([[1], [30, 31], [2], [32]], outcome=stepped([1.0, 0.0], 0)),
        spoken([[1], [33], [2], [34, 35]], sample=1, outcome=stepped([0.0, 1.0], 1)),
    ]
    first, second = samples([attempts], "process_grpo", eps=0.0)
    half = 1 / np.sqrt(4 / 3)
    assert first.rewards.tolist() == pytest.approx([0, 0, 1, 0, 1])
    assert second.rewards.tolist() == pytest.approx([0, 0, 0, 0, 2])
    assert first.advantages.tolist() == pytest.approx([0, 0, 0, 0, -half], abs=1e-6)
    assert second.advantages.tolist() == pytest.approx([0, 0, 0, half, half], abs=1e-6)
    with pytest.raises(UsageError, match="components of the scope 'step'"):
        samples([[spoken([[1], [30]])]], "process_grpo")
    assert samples([[record(reward=None)]], "process_grpo") == []


def test_forked_attempts_share_turns_that_are_trained_on_once() -> None:
    root = spoken([[1], [30], [2], [31]], 1.0)
    fork = spoken([[1], [30], [2], [32]], 0.0, sample=1, forked_from=root.id)
    again = spoken([[1], [30], [2], [31]], 1.0, sample=2, forked_from=fork.id)
    other = spoken([[1], [30], [2], [33]], 0.0, sample=3)
    made = samples([[root, fork, again, other]], "branched")
    assert [sample.mask.tolist() for sample in made] == [
        [False, True, False, True],
        [False, False, False, True],
        [False, False, False, False],
        [False, True, False, True],
    ]
    assert made[0].advantages.tolist() == pytest.approx([0, 2 / 3, 0, 1])
    assert made[1].advantages.tolist() == pytest.approx([0, 0, 0, -2 / 3])
    for method in ("grpo", "reinforce_pp"):
        with pytest.raises(UsageError, match="branched"):
            samples([[root, fork]], method)
    early = spoken([[1], [35]], 0.0, forked_from=root.id)
    assert len(samples([[root, early]], "grpo")) == 2, "forked before the first turn"


def test_a_method_that_does_not_exist() -> None:
    with pytest.raises(UnknownNameError, match="reinforce_pp"):
        samples([], "reinforce")  # type: ignore[arg-type]


def test_an_empty_turn_and_no_turn() -> None:
    assert sequence([]).ids.tolist() == []
    made = spoken([[1], [], [2], [31]])
    made.nodes[1] = replace(made.nodes[1], tokens=Tokens((), ()))
    assert sequences(made)[0].mask.tolist() == [False, False, True]


def test_records_without_their_groups_are_refused() -> None:
    with pytest.raises(UsageError, match=r"give groups of records \(run.groups\(\)\), not records"):
        samples([episode(random.Random(0), [1, 2, 3], turns=1)])  # type: ignore[list-item]
    assert samples([]) == samples([[]]) == []
