from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from agentenv.errors import UnknownNameError, UsageError
from agentenv.tokens import Segment
from agentenv.trajectories.grpo.batch import LAYOUTS, Batch, batch
from agentenv.trajectories.grpo.samples import Sample, samples, sequence
from agentenv.types import MediaSpan
from tests.trajectories.grpo.streams import PAD, group, span, trees


def context(made: Batch, row: int, token: int) -> list[int]:
    """What a token sees, itself included, in the order of the positions."""
    seen = np.flatnonzero(made.attention()[row, 0, token])
    positions = made.position_ids if made.position_ids.ndim == 2 else made.position_ids[0]
    assert positions[row, seen].tolist() == list(range(len(seen)))
    return [int(token) for token in made.input_ids[row, seen]]


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=60)
@given(given_samples=trees())
def test_every_token_of_the_loss_is_there_once_and_sees_its_own_past(layout: Any, given_samples: list[Sample]) -> None:
    made = batch(given_samples, layout, row_tokens=24, multiple=4)
    assert made.input_ids.shape[1] % 4 == 0
    wanted, found = [], []
    for index, sample in enumerate(given_samples):
        for place in np.flatnonzero(sample.mask):
            past = sample.ids[: place + 1].tolist()
            version = next(t.version for t in sample.turns if t.start <= place < t.stop)
            wanted.append((index, past, float(sample.advantages[place]), float(sample.logprobs[place]), version))
    for row, place in zip(*np.nonzero(made.response_mask), strict=True):
        before = made.predictors[row, place]
        past = [*context(made, row, before), int(made.input_ids[row, place])]
        assert past == context(made, row, place)
        version = made.version_names[made.versions[row, place]]
        values = (float(made.advantages[row, place]), float(made.logprobs[row, place]), version)
        found.append((int(made.sources[row, place]), past, *values))
    assert sorted(found) == sorted(wanted)
    assert made.tokens <= sum(len(sample.ids) for sample in given_samples)
    assert not made.advantages[~made.response_mask].any()
    for row, spans in enumerate(made.media):
        for medium in spans:
            assert (made.input_ids[row, medium.offset : medium.offset + medium.length] == PAD).all()


@given(trees())
def test_shared_is_never_larger_and_holds_a_lone_sequence_as_it_is(given_samples: list[Sample]) -> None:
    packed, shared = batch(given_samples, "packed"), batch(given_samples, "shared")
    assert shared.tokens <= packed.tokens
    assert packed.response_mask.sum() == shared.response_mask.sum()
    one = batch(given_samples[:1], "shared")
    assert one.input_ids.tolist() == [given_samples[0].ids.tolist()]


def test_a_shared_token_has_the_version_of_the_turn_that_learns_from_it() -> None:
    asked, said = Segment((20,), False), Segment((21,), True, (-0.5,), version="v")
    first = sequence([asked, said, Segment((22,), False)], group="a")
    second = sequence([Segment((20, 21), False), Segment((22,), True, (-0.5,), version="w")], group="a")
    made = batch([first, second], "shared")
    assert made.tokens == 3
    assert [made.version_names[made.versions[0, place]] for place in (1, 2)] == ["v", "w"]


def test_the_prompt_of_a_group_is_there_once() -> None:
    attempts = group(random.Random(3), 8, "t", prompt=100)
    packed, shared = (batch(samples([attempts]), layout) for layout in ("packed", "shared"))
    assert shared.tokens <= packed.tokens - 7 * 100
    assert (shared.parents == -1).sum() == 1
    assert shared.samples == packed.samples == 8


def test_a_picture_of_the_prompt_is_there_once_and_others_are_kept_apart() -> None:
    def seen(*names: str) -> Sample:
        spans = tuple(span(name, index + 1) for index, name in enumerate(names))
        ids = (5, *[PAD] * len(names), 6)
        return sequence([Segment(ids, False, None, spans), Segment((30,), True, (-0.5,))], group="g")

    calls = []

    def pixels(medium: MediaSpan) -> Mapping[str, Any]:
        calls.append(medium.sha256)
        return {"pixel_values": np.full((16, 3), ord(medium.sha256)), "image_grid_thw": np.array([medium.grid])}

    given_samples = [seen("a", "b"), seen("a", "c"), seen("a", "b")]
    shared = batch(given_samples, "shared", pixels=pixels)
    assert [medium.sha256 for medium in shared.media[0]] == ["a", "b", "c"]
    assert sorted(calls) == ["a", "b", "c"], "each content is processed once"
    assert shared.tensors["pixel_values"][::16, 0].tolist() == [ord("a"), ord("b"), ord("c")]
    padded = batch(given_samples, "padded", pixels=pixels)
    assert len(padded.tensors["image_grid_thw"]) == 6
    assert padded.tensors["pixel_values"].shape == (96, 3)
    rows = list(padded.rows())
    assert [chr(int(value)) for value in rows[1].tensors["pixel_values"][::16, 0]] == ["a", "c"]
    assert [row.tensors["image_grid_thw"].shape for row in rows] == [(2, 3)] * 3


def test_rows_are_batches_of_one() -> None:
    attempts = [group(random.Random(seed), 4, f"t{seed}") for seed in range(3)]
    whole = batch(samples(attempts), "shared", row_tokens=60)
    rows = list(whole.rows())
    assert len(rows) == len(whole.input_ids) > 1
    for index, row in enumerate(rows):
        width = row.input_ids.shape[1]
        assert row.input_ids[0].tolist() == whole.input_ids[index, :width].tolist()
        assert not whole.attention_mask[index, width:].any()
        assert (row.attention()[0] == whole.attention()[index, :, :width, :width]).all()
    assert sum(row.tokens for row in rows) == whole.tokens


def test_rows_hold_what_fits_and_longer_ones_get_a_row_of_their_own() -> None:
    made = [sequence([Segment(tuple(range(n)), False), Segment((50,), True, (-1.0,))]) for n in (3, 30, 3, 3)]
    packed = batch(made, "packed", row_tokens=12)
    assert [int(row.sum()) for row in packed.attention_mask] == [12, 31]
    assert packed.sources[0, packed.response_mask[0]].tolist() == [0, 2, 3]


def test_padding_sees_itself_alone() -> None:
    made = batch([sequence([Segment((1, 2), False)])], multiple=4, pad_id=7)
    assert made.input_ids.tolist() == [[1, 2, 7, 7]]
    assert made.attention()[0, 0].tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False, False, False, True],
    ]


def test_weights_of_the_losses() -> None:
    def said(count: int) -> Sample:
        return sequence([Segment((1, 2), False), Segment((30,) * count, True, (-1.0,) * count)], group="g")

    for layout in LAYOUTS:
        made = batch([said(1), said(3), sequence([Segment((1,), False)])], layout)  # type: ignore[arg-type]
        at = made.response_mask
        assert made.weights()[at].tolist() == pytest.approx([0.25] * 4)
        assert sorted(made.weights("sequence")[at].tolist()) == pytest.approx([1 / 6, 1 / 6, 1 / 6, 0.5])
        assert made.weights("constant", 10)[at].tolist() == pytest.approx([1 / 30] * 4)
        assert not made.weights()[~at].any()
    with pytest.raises(UsageError, match="need the most tokens"):
        made.weights("constant")
    with pytest.raises(UnknownNameError, match="sequence"):
        made.weights("sequences")  # type: ignore[arg-type]


def test_nothing_to_batch_and_no_such_layout() -> None:
    with pytest.raises(UsageError, match="no sequences to batch"):
        batch([])
    with pytest.raises(UnknownNameError, match="packed"):
        batch([], "pack")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="begins with a sampled token"):
        batch([sequence([Segment((1, 2), True, (-1.0, -1.0))])])
    assert "1 sequences: 1 x 2, 2 tokens, 1 in the loss" in repr(
        batch([sequence([Segment((1,), False), Segment((2,), True, (-1.0,))])])
    )
