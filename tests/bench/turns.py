"""Turns of a local model that join and leave a running batch, against batches that end with their longest turn, and
against transformers' own continuous batching.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from agentenv.policy.batching import Batcher, Job, Joiner, Row, Worker
from agentenv.policy.continuous import Continuous
from agentenv.policy.sampling import Sampler
from tests.bench.figure import Figure, Group, Scale, cpu_seconds, interleaved, ratio
from tests.policy.tiny import tiny

AT_ONCE = 16
LENGTHS = (5, 10, 20, 80)
"""Tokens of turns: short calls, and now and then a long thought."""


class Ending(Sampler):
    """Ends each turn after as many tokens as its stop string says."""

    def stopped(self, job: Job, made: list[int]) -> str:
        return "stop" if len(made) >= int(job.stop[0]) else ""


@cache
def sampler() -> Sampler:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    _, tokenizer = tiny()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=4096,
        eos_token_id=None,
    )
    made = Ending(Qwen3ForCausalLM(config).eval(), tokenizer, max(LENGTHS), 1.0, 1.0, 0)
    made.ends = frozenset()
    return made


def jobs(count: int, lengths: Sequence[int], prompts: int) -> list[Job]:
    """Turns after one of so many different prompts."""
    draw = random.Random(0)
    known = [[draw.randrange(3, 300) for _ in range(draw.randrange(50, 300))] for _ in range(prompts)]
    return [Job(known[n % prompts], n, (str(draw.choice(lengths)),)) for n in range(count)]


def played(worker: Worker, turns: Sequence[Job]) -> list[Row]:
    async def go() -> list[Row]:
        rows = await asyncio.gather(*(worker.run(job) for job in turns))
        await asyncio.to_thread(worker.close)
        return rows

    return asyncio.run(go())


def batches(turns: Sequence[Job]) -> list[Row]:
    return played(Batcher(sampler().sample, AT_ONCE, 0.05), turns)


def continuous(turns: Sequence[Job]) -> list[Row]:
    return played(Joiner(Continuous(sampler()), AT_ONCE, 0.05), turns)


def generate_batch(turns: Sequence[Job]) -> None:
    """transformers' own: one seed for all, no stop strings."""
    from transformers import GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    asked: Any = GenerationConfig(do_sample=True, pad_token_id=sampler().pad, eos_token_id=-1, max_new_tokens=1)
    cache_size: Any = ContinuousBatchingConfig(
        return_logprobs=True, num_blocks=256, page_size=32, max_batch_tokens=1024, max_requests_per_batch=AT_ONCE
    )
    model = sampler().model
    with model.continuous_batching_context_manager(asked, continuous_batching_config=cache_size) as manager:
        for job in turns:
            manager.add_request(job.prompt, max_new_tokens=int(job.stop[0]))
        left = len(turns)
        while left and manager.is_running():
            result = manager.get_result(timeout=1)
            left -= result is not None and result.is_finished()
    assert not left


def compared(turns: Sequence[Job], rounds: int, other: Callable[[Sequence[Job]], object] = batches) -> float:
    """How often the CPU time of ours the other takes."""
    taken = interleaved({"theirs": lambda: other(turns), "ours": lambda: continuous(turns)}, rounds, cpu_seconds)
    return ratio(taken["theirs"], taken["ours"])


def measure(scale: Scale) -> list[Figure]:
    import torch

    torch.set_num_threads(1)
    rounds, count = scale.of(3, 1), scale.of(32, 4)
    unequal = jobs(count, LENGTHS if not scale.quick else (2, 4), count)
    equal = jobs(AT_ONCE, (scale.of(40, 3),), AT_ONCE)
    group = jobs(AT_ONCE, (scale.of(20, 3),), 1)
    assert [row.ids for row in continuous(equal)] == [row.ids for row in batches(equal)]
    why = f"{count} turns of {min(LENGTHS)} to {max(LENGTHS)} tokens, {AT_ONCE} at once"
    return [
        Figure("turns_unequal", compared(unequal, rounds), "x", least=1.5, why=f"batches / continuous: {why}"),
        Figure("turns_equal", compared(equal, rounds), "x", least=0.85, why="the same, all turns of one length"),
        Figure("turns_group", compared(group, rounds), "x", least=1.2, why="the same, one prompt for all"),
        Figure(
            "turns_generate_batch",
            compared(unequal, rounds, generate_batch),
            "x",
            why=f"transformers' own continuous batching / ours: {why}",
        ),
    ]


GROUP = Group("turns", ("turns_unequal", "turns_equal", "turns_group", "turns_generate_batch"), measure)
