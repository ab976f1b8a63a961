"""Search over the network: many episodes waiting at once, and what a replay adds to a call."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

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


async def answer(request: web.Request) -> web.Response:
    await asyncio.sleep(SECONDS)
    rows = [{"title": f"Title {i}", "url": f"https://e.org/{i}", "description": TEXT} for i in range(3)]
    return web.json_response({"web": {"results": rows}})


async def serve() -> None:
    app = web.Application()
    app.router.add_get("/res/v1/web/search", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=2048).start()
    print(runner.addresses[0][1], flush=True)
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


def waiting(scale: Scale) -> list[Figure]:
    """With a model that takes a second a turn, and with one that takes no time: all searches at the same moment."""
    episodes = scale.of(EPISODES, 8)
    os.environ.setdefault("BRAVE_API_KEY", "none")

    async def work(url: str, model: float) -> float:
        engine = make_engine("brave", base_url=url)
        try:
            return await played(world(web_search_tool(engine), episodes), episodes, Slow(model))
        finally:
            await engine.close()

    figures = []
    with backend() as url:
        for name, model, most in (("search_256", scale.of(100, 1) / 100, 1.1), ("search_256_instant", 0.0, None)):
            cpu = time.process_time()
            seconds = min(asyncio.run(work(url, model)) for _ in range(scale.of(2, 1)))
            ideal = CALLS * SECONDS + (CALLS + 1) * model
            why = (
                f"{episodes} episodes at once, {CALLS} searches of {SECONDS:g} s each, {model:g} s of model a turn: "
                f"{seconds:.2f} s, ideally {ideal:g} s; CPU time {(time.process_time() - cpu) / scale.of(2, 1):.2f} s"
            )
            figures.append(Figure(name, seconds / ideal, "x", most=most, why=why))
    return figures


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


GROUP = Group("web", ("search_256", "search_256_instant", "replay_added"), measure)

if __name__ == "__main__":
    asyncio.run(serve())
