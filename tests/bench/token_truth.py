"""What keeping token truth costs: an instant engine, the real Qwen BPE, a real chat template, and in each turn a result
of some 100 words that was never seen before.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from msgspec.structs import replace

from agentenv.policy.exact import Request, Sampled, TokenPolicy
from agentenv.policy.sampled import log_probabilities, token_ids
from agentenv.rollout import play, play_many
from agentenv.tokens import stream
from agentenv.tokens.conversation import prompt_of
from agentenv.tool import tool
from agentenv.trajectory import PolicyInfo, Trajectory
from agentenv.types import Action, Observation
from tests.bench.episodes import TURNS
from tests.bench.figure import Figure, Group, Scale, Work, cpu_seconds, interleaved, ratio, shares
from tests.tokens.qwen import qwen, qwen_renderer
from tests.worlds import sums

_NUMBERS = itertools.count()


class Instant(TokenPolicy):
    """Samples the turns of the other benches at once, by their ids."""

    def __init__(self, renderer: Any) -> None:
        super().__init__(renderer)
        self.turns = [(*qwen()(text)["input_ids"], qwen().eos_token_id) for text in TURNS]
        self.logprobs = [(-0.5,) * len(ids) for ids in self.turns]
        self.info = PolicyInfo("instant", capture="ids_full")
        self.seen: list[Observation] = []

    async def take(self, observation: Observation, seed: str, group: str) -> Action:
        self.seen.append(observation)
        return await super().take(observation, seed, group)

    async def sample(self, request: Request) -> Sampled:
        turn = request.prompt.ids.count(qwen().eos_token_id) // 2 - 1
        return Sampled(self.turns[turn], self.logprobs[turn], "stop")


@tool(inline=True)
def add(a: int, b: int) -> str:
    """Add two numbers.

    Args:
        a: the first.
        b: the second.
    """
    start = next(_NUMBERS)
    return "\n".join(f"| row {start} {n} | city of {start * n} | {a + b} |" for n in range(12))


def played(policy: Instant, episodes: int, read: bool) -> None:
    policy.seen.clear()
    env = sums(None, tools=(add,))
    kept: list[Trajectory] = []
    jobs = ((env.tasks[next(_NUMBERS)], n) for n in range(episodes))
    asyncio.run(play_many(env, policy, jobs, kept.append, concurrency=16))
    if read:
        for record in kept:
            stream(record)


def bookkeeping(policy: Instant) -> Work:
    """All that token truth asks of an episode beside rendering, once more: joining the stream so far with what is new,
    looking at what was sampled, keeping both in the record, reading the record's stream.
    """
    policy.seen.clear()
    env = sums(None, tools=(add,))
    record = asyncio.run(play(env, policy, env.tasks[next(_NUMBERS)]))
    seen = list(policy.seen)
    kept = [node for node in record.nodes if node.tokens is not None]

    def again() -> None:
        for observation in seen:  # the renderer remembers what it wrote
            prompt_of(policy.renderer, observation)
        for ids, values in zip(policy.turns, policy.logprobs, strict=True):
            token_ids("ids", ids)
            log_probabilities("logprobs", values, len(ids))
        for node in kept:
            replace(node, tokens=node.tokens)
        stream(record)

    return again


def measure(scale: Scale) -> list[Figure]:
    n = scale.of(400, 10)
    policy = Instant(qwen_renderer("qwen3_training"))
    played(policy, 5, True)
    again = bookkeeping(policy)
    works: dict[str, Work] = {
        "exact": lambda: played(policy, n, True),
        "text": lambda: played(policy, n, False),
        "books": lambda: [again() for _ in range(n)],
    }
    taken = interleaved(works, scale.rounds, cpu_seconds)
    share = 100 * ratio(taken["books"], taken["exact"])
    return [
        Figure("token_bookkeeping", share, "%", most=3.0, why=f"of a rollout's CPU time: {shares(works['exact'])}"),
        Figure(
            "token_episodes",
            n / min(taken["exact"]),
            "/s",
            why="five turns, each with a new result of 100 words rendered",
        ),
        Figure("token_reading", ratio(taken["exact"], taken["text"]), "x", why="with `stream` of each record"),
    ]


GROUP = Group("tokens", ("token_bookkeeping", "token_episodes", "token_reading"), measure)
