"""Search over the network: many episodes waiting at once, and what a replay adds to a call."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

from aiohttp import ClientSession, TCPConnector

from agentenv.cassette import Cassette
from agentenv.env import Env
from agentenv.policy import make_policy
from agentenv.policy.base import Policy
from agentenv.rollout import play_many
from agentenv.task import TaskSet
from agentenv.tool import Tool
from agentenv.tools.search import web_search_tool
from agentenv.tools.web.engines import make_engine
from agentenv.trajectory import PolicyInfo
from agentenv.types import Action, Observation, Task, Text
from tests.bench.figure import ROOT, Figure, Group, Scale

EPISODES, CALLS, SECONDS = 256, 4, 0.2
TEXT = "A passage of some length, as search engines return them. " * 40


def act(observation: Observation) -> str:
    """Search so often, each time for something else, then answer."""
    done = sum(message.role == "assistant" for message in observation.messages)
    if done == CALLS:
        return "<answer>x</answer>"
    call = {"name": "web_search", "arguments": {"query": f"{observation.messages[1].text} {done}"}}
    return f"<tool_call>{json.dumps(call)}</tool_call>"


def world(tool: Tool, size: int) -> Env:
    tasks = TaskSet.generate(lambda i: Task(f"t{i}", (Text(f"number {i}"),), "x"), size)
    return Env(id="search-bench", tasks=tasks, tools=[tool])


class Slow(Policy):
    """Plays `act`, and takes so many seconds for a turn."""

    info = PolicyInfo("bench")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def act(self, observation: Observation) -> Action:
        await asyncio.sleep(self.seconds)
        return Action(act(observation))


async def played(env: Env, concurrency: int, policy: Policy) -> float:
    """Seconds that all tasks of the environment take."""
    jobs = ((task, 0) for task in env.tasks)
    started = time.perf_counter()
    await play_many(env, policy, jobs, lambda record: None, concurrency=concurrency)
    return time.perf_counter() - started


# -- a backend that takes its time ------------------------------------------------------------------------------------


BODY = json.dumps(
    {"web": {"results": [{"title": f"Title {i}", "url": f"https://e.org/{i}", "description": TEXT} for i in range(3)]}}
).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Answering(asyncio.Protocol):
    """Answers each request after so long, and does no more: what is slow in the figure shall not be the server."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        *requests, self.rest = (self.rest + data).split(b"\r\n\r\n")
        for _ in requests:
            asyncio.get_running_loop().call_later(SECONDS, self.transport.write, ANSWER)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


@contextmanager
def backend() -> Iterator[str]:
    """A server in a process of its own, which speaks Brave's API and takes 200 ms. Gives its URL."""
    command = [sys.executable, "-m", "tests.bench.web"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


Playing: TypeAlias = Coroutine[Any, Any, float]


async def bare(url: str, episodes: int) -> float:
    """Seconds that the same requests take with nothing but the HTTP client around them."""

    async def episode(number: int) -> None:
        for done in range(CALLS):
            asked = {"q": f"number {number} {done}"}
            async with session.get(f"{url}/res/v1/web/search", params=asked) as answer:
                await answer.json()

    async with ClientSession(connector=TCPConnector(limit=0)) as session:
        started = time.perf_counter()
        await asyncio.gather(*map(episode, range(episodes)))
        return time.perf_counter() - started


async def searching(url: str, episodes: int, model: float) -> float:
    """Seconds that the episodes take, each turn of the policy that many."""
    engine = make_engine("brave", base_url=url)
    try:
        return await played(world(web_search_tool(engine), episodes), episodes, Slow(model))
    finally:
        await engine.close()


def waiting(scale: Scale) -> list[Figure]:
    """With a model that takes a second a turn; with one that takes no time, so that all search at the same moment; and
    the HTTP client alone at that, which opens its 256 connections in the same moment too."""
    episodes, model = scale.of(EPISODES, 8), scale.of(100, 1) / 100
    os.environ.setdefault("BRAVE_API_KEY", "none")
    ways = (
        ("search_256", model, 1.1, partial(searching, episodes=episodes, model=model)),
        ("search_256_instant", 0.0, None, partial(searching, episodes=episodes, model=0.0)),
        ("search_256_bare", 0.0, None, partial(bare, episodes=episodes)),
    )
    with backend() as url:
        return [_waited(scale, name, pause, most, partial(play, url)) for name, pause, most, play in ways]


def _waited(scale: Scale, name: str, model: float, most: float | None, play: Callable[[], Playing]) -> Figure:
    rounds, cpu = scale.of(3, 1), time.process_time()
    seconds = min(asyncio.run(play()) for _ in range(rounds))
    ideal = CALLS * SECONDS + (CALLS + 1) * model
    why = (
        f"{scale.of(EPISODES, 8)} episodes at once, {CALLS} searches of {SECONDS:g} s each, {model:g} s of model a "
        f"turn: {seconds:.2f} s, ideally {ideal:g} s; CPU time {(time.process_time() - cpu) / rounds:.2f} s"
    )
    return Figure(name, seconds / ideal, "x", most=most, why=why)


# -- a replay ---------------------------------------------------------------------------------------------------------


def instant() -> Tool:
    async def web_search(query: str) -> str:
        """Search.

        Args:
            query: what for.
        """
        return TEXT

    return Tool(web_search)


def replaying(scale: Scale) -> Figure:
    episodes = scale.of(500, 8)

    instantly = make_policy(act)

    async def work(folder: Path) -> tuple[float, float]:
        plain, taped = world(instant(), episodes), world(instant(), episodes)
        with Cassette(folder, "record") as tape:
            await played(taped.use_cassette(tape), 16, instantly)
        pairs = []
        with Cassette(folder, "replay") as tape:
            for _ in range(scale.rounds):
                pairs.append(
                    (await played(plain, 16, instantly), await played(taped.use_cassette(tape), 16, instantly))
                )
        return min(before for before, _ in pairs), min(after for _, after in pairs)

    with tempfile.TemporaryDirectory() as folder:
        before, after = asyncio.run(work(Path(folder) / "tape"))
    calls = episodes * CALLS
    added = 1000 * (after - before) / calls
    each = f"{1000 * before / calls:.3f} ms each without, {1000 * after / calls:.3f} ms with"
    why = f"{calls} calls whose results have {len(TEXT)} characters: {each}"
    return Figure("replay_added", max(0.0, added), "ms", most=0.2, why=why)


def measure(scale: Scale) -> list[Figure]:
    return [*waiting(scale), replaying(scale)]


GROUP = Group("web", ("search_256", "search_256_instant", "search_256_bare", "replay_added"), measure)

if __name__ == "__main__":
    asyncio.run(serve())
