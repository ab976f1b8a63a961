"""Records with token streams: whatever ids, turns and pictures a test asks for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from agentenv.tokens import Segment
from agentenv.trajectories.grpo.samples import Sample, sequence
from agentenv.trajectory import Node, Outcome, Score, Tokens, Trajectory
from agentenv.types import MediaSpan, Message, Text
from tests.trajectories.records import record

PAD = 9


def spoken(
    ids: Sequence[Sequence[int]], reward: float | None = 1.0, *, task: str = "t-0", sample: int = 0, **changes: Any
) -> Trajectory:
    """A record whose stream is prompt, turn, observation, turn ... with these ids."""
    version = changes.pop("version", "step-1")
    nodes = []
    for index, part in enumerate(ids):
        said = index % 2 == 1
        logprobs = tuple(-0.01 * (token % 50 + 1) for token in part) if said else None
        tokens = Tokens(tuple(part), logprobs, version=version if said else "")
        message = Message("assistant" if said else "user", (Text(" ".join(map(str, part))),))
        nodes.append(Node(message, index - 1, "sampled" if said else "env", tokens=tokens))
    scores = {} if reward is None else {"right": Score(reward)}
    outcome = changes.pop("outcome", None) or Outcome("answer", True, False, reward, scores)
    return record(task, sample, reward, nodes=nodes, calls=[], tool_runs=[], outcome=outcome, **changes)


def episode(rng: random.Random, prompt: Sequence[int], turns: int = 2, **changes: Any) -> Trajectory:
    """A record with a prompt and random turns of random lengths."""
    ids = [list(prompt)]
    for turn in range(turns):
        ids.append([rng.randrange(20, 90) for _ in range(rng.randint(1, 6))])
        if turn < turns - 1:
            ids.append([rng.randrange(20, 90) for _ in range(rng.randint(1, 6))])
    return spoken(ids, **changes)


def group(rng: random.Random, size: int, task: str, prompt: int = 7) -> list[Trajectory]:
    """Attempts at one task, with one prompt in common."""
    ids = [rng.randrange(20, 90) for _ in range(prompt)]
    return [
        episode(rng, ids, rng.randint(1, 3), reward=float(rng.randrange(2)), task=task, sample=index)
        for index in range(size)
    ]


def span(name: str, offset: int, grid: tuple[int, int, int] = (1, 4, 4), **more: Any) -> MediaSpan:
    """A picture whose sides are merged by two."""
    return MediaSpan(name, "image", offset, PAD, grid[0] * grid[1] * grid[2] // 4, grid, **more)


@st.composite
def trees(draw: st.DrawFn) -> list[Sample]:
    """Sequences of one or two groups that have much in common from the start: tokens, pictures, masks."""
    made = []
    for name in draw(st.sampled_from(["a", "ab"])):
        for _ in range(draw(st.integers(1, 5))):
            segments = []
            for index in range(draw(st.integers(1, 4))):
                said = index % 2 == 1
                ids = tuple(draw(st.lists(st.integers(20, 22), min_size=1, max_size=4)))
                spans: tuple[MediaSpan, ...] = ()
                if not said and draw(st.booleans()):
                    spans = (span(draw(st.sampled_from("xy")), 0, (1, 2, draw(st.sampled_from([2, 4])))),)
                    ids = (PAD, *ids)
                logprobs = tuple(-0.5 for _ in ids) if said else None
                segments.append(Segment(ids, said, logprobs, spans, draw(st.sampled_from("vw")) if said else ""))
            sample = sequence(segments, group=name)
            sample.advantages[sample.mask] = draw(st.sampled_from([-1.0, 0.5]))
            if draw(st.booleans()):
                sample.mask[:] = False
                sample.advantages[:] = 0.0
            made.append(sample)
    return made
