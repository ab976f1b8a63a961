"""What keeping token truth costs: an instant engine, the real Qwen BPE, a real chat template, and in each turn a result
of some 100 words that was never seen before.
"""

from __future__ import annotations

import asyncio
import cProfile
import itertools
import pstats
from typing import Any

from agentenv.policy.exact import Request, Sampled, TokenPolicy
from agentenv.rollout import play_many
from agentenv.tokens import stream
from agentenv.tool import tool
from agentenv.trajectory import PolicyInfo, Trajectory
from tests.bench.episodes import TURNS
from tests.bench.figure import Figure, Group, Scale, cpu_seconds, interleaved, ratio
from tests.tokens.qwen import qwen, qwen_renderer
from tests.worlds import sums

_NUMBERS = itertools.count()
_BOOKS = ("segments.py", "conversation.py")


class Instant(TokenPolicy):
    """Samples the turns of the other benches at once, by their ids."""

    def __init__(self, renderer: Any) -> None:
        super().__init__(renderer)
        self.turns = [(*qwen()(text)["input_ids"], qwen().eos_token_id) for text in TURNS]
        self.logprobs = [(-0.5,) * len(ids) for ids in self.turns]
        self.info = PolicyInfo("instant", capture="ids_full")

    async def sample(self, request: Request) -> Sampled:
        turn = request.prompt.ids.count(qwen().eos_token_id) // 2 - 1
        return Sampled(self.turns[turn], self.logprobs[turn], "stop")


@tool
def add(a: int, b: int) -> str:
    """Add two numbers.

    Args:
        a: the first.
        b: the second.
    """
    start = next(_NUMBERS)
    return "\n".join(f"| row {start} {n} | city of {start * n} | {a + b} |" for n in range(12))


def played(policy: TokenPolicy, episodes: int, read: bool) -> None:
    env = sums(None, tools=(add,))
    kept: list[Trajectory] = []
    jobs = ((env.tasks[next(_NUMBERS)], n) for n in range(episodes))
    asyncio.run(play_many(env, policy, jobs, kept.append, concurrency=16))
    if read:
        for record in kept:
            stream(record)


def share(work: Any) -> float:
    """Share of CPU time, in percent, that the bookkeeping itself takes: joining ids, keeping and reading them."""
    profile = cProfile.Profile()
    profile.runcall(work)
    table: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    whole: float = sum(row[2] for row in table.values())
    books = 0.0
    for (path, _, name), row in table.items():
        own = path.endswith(_BOOKS) or name == "_keep_context"
        books += row[2] if own else 0.0
        if path == "~":  # what C functions take counts as their caller's
            books += sum(took[2] for (caller, _, _), took in row[4].items() if caller.endswith(_BOOKS))
    return 100 * books / whole


def measure(scale: Scale) -> list[Figure]:
    n = scale.of(400, 10)
    policy = Instant(qwen_renderer("qwen3_training"))
    played(policy, 5, True)
    works = {"exact": lambda: played(policy, n, True), "text": lambda: played(policy, n, False)}
    taken = interleaved(works, scale.rounds, cpu_seconds)
    spent = share(lambda: played(policy, n, True))
    return [
        Figure("token_bookkeeping", spent, "%", most=3.0, why="joining ids, keeping them in the record, reading them"),
        Figure(
            "token_episodes",
            n / min(taken["exact"]),
            "/s",
            why="five turns, each with a new result of 100 words rendered",
        ),
        Figure("token_reading", ratio(taken["exact"], taken["text"]), "x", why="with `stream` of each record"),
    ]


GROUP = Group("tokens", ("token_bookkeeping", "token_episodes", "token_reading"), measure)
