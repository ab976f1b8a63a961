"""Batches for GRPO: from records in memory to padded, packed and shared arrays."""

from __future__ import annotations

import random
from functools import cache, partial

from agentenv.spec import EnvSpec
from agentenv.trajectories.grpo.batch import Layout, batch
from agentenv.trajectories.grpo.samples import samples
from agentenv.trajectory import Group as Attempt
from agentenv.trajectory import Node, Outcome, PolicyInfo, Trajectory
from agentenv.types import Message, Task, Text, Tokens
from tests.bench.figure import Figure, Group, Scale, Work, cpu_seconds, interleaved, medians, shares

LAYOUTS: tuple[Layout, ...] = ("padded", "packed", "shared")
FIGURES = tuple(f"batch_{layout}" for layout in LAYOUTS)
_SPEC = EnvSpec("bench", "1")
_TURN, _SEEN, _PROMPT = 100, 150, 400


def _record(group: int, index: int, rng: random.Random, prompt: tuple[int, ...]) -> Trajectory:
    task = f"t{group}"
    place = (f"{task}-{index}", Task(task, ()), _SPEC, "hash", PolicyInfo("bench"), Attempt(task, index, 8), 0, 0.0)
    record = Trajectory(*place)
    for turn in range(4):
        new = prompt if not turn else tuple(rng.randrange(50_000) for _ in range(_SEEN))
        said = tuple(rng.randrange(50_000) for _ in range(_TURN))
        seen, wrote = Message("user", (Text(""),)), Message("assistant", (Text(""),))
        last = len(record.nodes)
        record.nodes.append(Node(seen, last - 1, "env", tokens=Tokens(new)))
        tokens = Tokens(said, tuple(-rng.random() for _ in said), version="step-1")
        record.nodes.append(Node(wrote, last, "sampled", tokens=tokens))
    record.outcome = Outcome("answer", True, False, float(rng.random() < 0.5))
    return record


@cache
def groups(count: int) -> list[list[Trajectory]]:
    """Groups of 8 attempts: a prompt of 400 tokens, four turns of 100, results of 150; 1,250 tokens an episode."""
    made = []
    for group in range(count):
        rng = random.Random(group)
        prompt = tuple(rng.randrange(50_000) for _ in range(_PROMPT))
        made.append([_record(group, index, rng, prompt) for index in range(8)])
    return made


def built(layout: Layout, count: int = 16) -> int:
    """Records to advantages to a batch; the tokens of the episodes."""
    given = samples(groups(count))
    batch(given, layout, row_tokens=8192)
    return sum(len(sample.ids) for sample in given)


def measure(scale: Scale) -> list[Figure]:
    count = scale.of(16, 2)
    tokens = {layout: built(layout, count) for layout in LAYOUTS}
    works: dict[str, Work] = {layout: partial(built, layout, count) for layout in LAYOUTS}
    taken = medians(interleaved(works, scale.rounds, cpu_seconds))
    return [
        Figure(
            f"batch_{layout}",
            tokens[layout] / taken[layout],
            "tokens/s",
            least=1_000_000,
            why=f"records to advantages to arrays, CPU time: {shares(works[layout])}",
        )
        for layout in LAYOUTS
    ]


GROUP = Group("batches", FIGURES, measure, {f"batch_{layout}": partial(built, layout) for layout in LAYOUTS})
