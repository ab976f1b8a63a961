"""Continuous batching of a local model: turns join and leave while others run, and are what they would be alone."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentenv.errors import ConfigError, PolicyError
from agentenv.policy import TransformersPolicy
from agentenv.policy.batching import Job, Row
from agentenv.policy.continuous import Continuous, unsupported
from agentenv.policy.sampling import Sampler
from agentenv.types import Action, Message, Text
from tests.policy.tiny import tiny
from tests.policy.tiny_vision import picture, tiny_vision
from tests.policy.words import seen, task


def sampler(most: int = 12, temperature: float = 0.9) -> Sampler:
    return Sampler(*tiny(), most, temperature, 1.0, 0)


@contextmanager
def watched(model: Any) -> Iterator[list[tuple[int, ...]]]:
    """The shapes of the ids of every forward pass: (rows, tokens)."""
    shapes: list[tuple[int, ...]] = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    try:
        yield shapes
    finally:
        hook.remove()


def said(text: str) -> Message:
    return Message("user", (Text(text),))


PROMPTS = st.lists(st.integers(3, 300), min_size=1, max_size=20)
JOBS = st.builds(
    Job, PROMPTS, st.integers(0, 9), st.sampled_from([(), ("a",), ("er", "select")]), st.none(), st.just(())
)


@given(jobs=st.lists(JOBS, min_size=1, max_size=7), data=st.data())
@settings(max_examples=15, deadline=None)
def test_whenever_turns_join_and_leave_they_are_what_they_are_alone(jobs: list[Job], data: st.DataObject) -> None:
    made = sampler()
    running = Continuous(made)
    waiting, known = [*jobs], dict[int, Job]()
    rows: dict[int, tuple[Job, Row]] = {}
    while waiting or known:
        count = data.draw(st.integers(0 if known else 1, len(waiting))) if waiting else 0
        joined, waiting = waiting[:count], waiting[count:]
        known |= zip(running.join(joined), joined, strict=True) if joined else ()
        if len(known) > 1 and data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(sorted(known)))
            running.drop([gone])
            del known[gone]
        for number, row in running.step():
            rows[number] = (known.pop(number), row)
    for job, row in rows.values():
        (alone,) = made.sample([job])
        assert (row.text, row.ids, row.finish) == (alone.text, alone.ids, alone.finish)
        assert row.logprobs == pytest.approx(alone.logprobs, abs=1e-4)


async def test_a_late_short_turn_does_not_wait_for_a_long_one() -> None:
    model, tokenizer = tiny()
    policy = TransformersPolicy(model, tokenizer, max_new_tokens=200, temperature=0.0)
    begun = threading.Event()
    hook = model.register_forward_pre_hook(lambda *_: begun.set())
    order: list[str] = []

    async def played(text: str, **more: Any) -> Action:
        action = await policy.act(seen(said(text), tools=(), **more))
        order.append(text)
        return action

    long = asyncio.create_task(played("which city"))
    await asyncio.to_thread(begun.wait)
    hook.remove()
    probe = await played("select", stop=tuple(tokenizer.decode([token]) for token in range(3, 300)))
    assert len(probe.token_ids or ()) < len((await long).token_ids or ())
    assert order == ["select", "which city"]
    assert policy.info.settings["batching"] == "continuous"
    await policy.close()


async def test_a_group_computes_its_prompt_once() -> None:
    model, tokenizer = tiny()
    policy = TransformersPolicy(model, tokenizer, max_new_tokens=4, batch_wait=0.2)
    with watched(model) as shapes:
        group = [policy.begin(task(), seed=0, sample=sample) for sample in range(5)]
        actions = await asyncio.gather(*(one.act(seen(said("which city"), tools=())) for one in group))
    assert shapes[0][0] == 1
    assert shapes[1][0] > 1
    assert len({action.token_ids for action in actions}) == 5
    await policy.close()


async def test_a_turn_that_is_called_off_is_computed_no_further() -> None:
    model, tokenizer = tiny()
    policy = TransformersPolicy(model, tokenizer, max_new_tokens=230, temperature=0.0, batch_wait=0.1)
    begun = threading.Event()
    hook = model.register_forward_hook(lambda *_: begun.set())
    with watched(model) as shapes:
        asking = [asyncio.create_task(policy.act(seen(said(text), tools=()))) for text in ("a", "which city", "c")]
        await asyncio.to_thread(begun.wait)
        hook.remove()
        asking[0].cancel()
        asking[2].cancel()
        action = await asking[1]
    rows = [rows for rows, _ in shapes]
    assert rows[0] == 3
    assert rows[-1] == 1
    assert len(shapes) >= len(action.token_ids or ())
    asking = [asyncio.create_task(policy.act(seen(said("d"), tools=())))]
    await asyncio.sleep(0)
    asking[0].cancel()
    assert isinstance((await asyncio.gather(*asking, return_exceptions=True))[0], asyncio.CancelledError)
    await policy.close()


async def test_a_prompt_that_fails_fails_alone_and_a_step_that_fails_fails_all() -> None:
    model, tokenizer = tiny()
    policy = TransformersPolicy(model, tokenizer, max_new_tokens=230, temperature=0.0)
    begun = threading.Event()
    hook = model.register_forward_pre_hook(lambda *_: begun.set())
    good = asyncio.create_task(policy.act(seen(said("which city"), tools=())))
    await asyncio.to_thread(begun.wait)
    hook.remove()
    with pytest.raises(PolicyError, match="the local model failed: IndexError"):
        await policy._worker.run(Job([10**6], 0))
    assert (await good).token_ids

    def fail(module: Any, args: Any, kwargs: Any) -> None:
        if kwargs["input_ids"].shape[1] == 1:
            raise RuntimeError("no memory")

    hook = model.register_forward_pre_hook(fail, with_kwargs=True)
    asking = [policy.act(seen(said(text), tools=())) for text in ("a", "b")]
    for error in await asyncio.gather(*asking, return_exceptions=True):
        assert isinstance(error, PolicyError)
        assert str(error) == "the local model failed: RuntimeError: no memory"
    hook.remove()
    assert (await policy.act(seen(said("a"), tools=()))).token_ids
    await policy.close()


async def test_weights_that_change_in_the_middle_of_a_turn_are_both_named() -> None:
    model, tokenizer = tiny()
    policy = TransformersPolicy(model, tokenizer, max_new_tokens=40, temperature=0.0, version="w1")
    hook = model.register_forward_pre_hook(lambda *_: setattr(policy, "version", "w2"))
    assert (await policy.act(seen(said("a"), tools=()))).version == "w1,w2"
    hook.remove()
    assert (await policy.act(seen(said("a"), tools=()))).version == "w2"
    await policy.close()


def recomputed(policy: TransformersPolicy, job: Job, row: Row) -> list[float]:
    """Log-probabilities of a turn from one forward pass over prompt and turn."""
    import torch

    ids = torch.tensor([job.prompt + list(row.ids)])
    beside = dict(job.tensors or {})
    for name in [name for name in beside if name.endswith("token_type_ids")]:
        beside[name] = torch.cat([beside[name], torch.zeros(1, len(row.ids), dtype=torch.long)], dim=1)
    with torch.inference_mode():
        logits = policy.model(input_ids=ids, attention_mask=torch.ones_like(ids), **beside).logits[0].float()
        logits[:, policy._sampler.banned] = -torch.inf
        scores = torch.log_softmax(logits, dim=-1)
    return [float(scores[len(job.prompt) - 1 + n, token]) for n, token in enumerate(row.ids)]


@pytest.mark.parametrize("kind", ["qwen3-vl", "qwen2.5-vl", "llava"])
async def test_pictures_join_text_and_other_pictures(kind: str) -> None:
    model, processor = tiny_vision(kind)
    policy = TransformersPolicy(model, processor=processor, max_new_tokens=30)
    assert policy.info.settings["batching"] == "continuous"
    asked = [
        seen(said("what is written"), tools=()),
        seen(Message("user", (picture(120, 90), Text("what is written on the small sign"))), tools=()),
        seen(Message("user", (Text("and"), picture(64, 100, 1), picture(64, 64, 2))), tools=()),
        seen(Message("user", (picture(120, 90), Text("what is written on the small sign"))), tools=()),
    ]
    prepared = [policy._prepared(one) for one in asked]
    names = [(), ("a",), ("b", "c"), ("a",)]
    jobs = [
        Job(ids, seed, (), tensors, media)
        for seed, ((ids, tensors), media) in enumerate(zip(prepared, names, strict=True))
    ]
    running, rows = Continuous(policy._sampler), dict[int, Row]()
    known: dict[int, Job] = {}
    for late in (jobs[:1], jobs[1:2], jobs[2:]):
        known |= zip(running.join(late), late, strict=True)
        for _ in range(3):
            rows |= running.step()
    while len(rows) < len(jobs):
        rows |= running.step()
    for number, row in rows.items():
        assert row.logprobs == pytest.approx(recomputed(policy, known[number], row), abs=2e-4)
    await policy.close()


async def test_a_model_that_is_not_fit_is_sampled_in_batches() -> None:
    from transformers import MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

    model, tokenizer = tiny()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "vocab_size": len(tokenizer)}
    sliding = MistralForCausalLM(MistralConfig(**sizes, sliding_window=16)).eval()
    assert "more of a turn, or less" in unsupported(sliding, False)
    policy = TransformersPolicy(sliding, tokenizer, max_new_tokens=4)
    assert policy.info.settings["batching"] == "batches"
    assert (await policy.act(seen(said("which city " * 9), tools=()))).token_ids
    await policy.close()
    with pytest.raises(ConfigError, match=r'batching="continuous": mistral keeps .*; take batching="auto"'):
        TransformersPolicy(sliding, tokenizer, batching="continuous")
    with pytest.raises(ConfigError, match="batching='x': expected"):
        TransformersPolicy(model, tokenizer, batching="x")  # type: ignore[arg-type]
    assert unsupported(model, False) == ""
    assert unsupported(model, True) == "the pictures of qwen3 were not tried in a batch that changes"
    other = Qwen3ForCausalLM(Qwen3Config(**sizes, head_dim=16))
    other.config = copy.deepcopy(other.config)
    other.config.is_encoder_decoder = True
    assert unsupported(other, False) == "qwen3 has an encoder"
    other.config.is_encoder_decoder = False
    other.forward = lambda input_ids: input_ids
    assert "takes no places" in unsupported(other, False)
    plain = TransformersPolicy(model, tokenizer, batching="batches", max_new_tokens=9)
    as_they_come = TransformersPolicy(model, tokenizer, max_new_tokens=9)
    for text in ("a", "which city is the largest one"):
        one, two = [await p.begin(task(), seed=3).act(seen(said(text), tools=())) for p in (plain, as_they_come)]
        assert one.token_ids == two.token_ids
    await plain.close()
    await as_they_come.close()
