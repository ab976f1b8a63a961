"""verifiers' own environment and rollout over our taskset and harness, with a chat server on loopback as the model."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from tests.trainers.gyms.playing import EASY, SEEN, demonstrated

pytest.importorskip("verifiers", reason="tests/trainers/run.sh installs it")
pytestmark = pytest.mark.filterwarnings("default")  # of the trainer's own libraries


@pytest.fixture(autouse=True)
def _module() -> Iterator[None]:
    """The two lines that a user writes."""
    from agentenv.trainers import verifiers

    module = types.ModuleType("our_taskset")
    module.AgentEnvTaskset = verifiers.AgentEnvTaskset  # type: ignore[attr-defined]
    module.AgentEnvHarness = verifiers.AgentEnvHarness  # type: ignore[attr-defined]
    module.__all__ = ["AgentEnvHarness", "AgentEnvTaskset"]  # type: ignore[attr-defined]
    module.__spec__ = types.SimpleNamespace(name="our_taskset")  # type: ignore[assignment]
    sys.modules["our_taskset"] = module
    yield
    del sys.modules["our_taskset"]


async def played(turns: list[str], name: str, options: dict[str, Any], **agent: Any) -> tuple[Any, list[Any]]:
    """The episode of the first task, and the requests that the model got."""
    import verifiers.v1 as vf
    from verifiers.v1.utils.loaders import load_environment

    asked: list[Any] = []
    texts = list(turns)

    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        asked.append(body["messages"])
        message = {"role": "assistant", "content": texts.pop(0)}
        return web.json_response(
            {
                "id": "1", "object": "chat.completion", "created": 1, "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
        )  # fmt: skip

    application = web.Application(client_max_size=1 << 26)
    application.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    taskset = {"id": "our_taskset", "env": name, "tasks": 1, "options": options}
    config = vf.SingleAgentEnvConfig.model_validate(
        {"taskset": taskset, "agent": {"runtime": {"type": "subprocess"}, **agent}}
    )
    env = load_environment(config)
    client = vf.EvalClientConfig(base_url=f"http://127.0.0.1:{port}/v1", api_key_var="NO_KEY")
    context = vf.ModelContext(model="m", client=client)
    try:
        async with env.serving():
            [task] = list(env.taskset)
            return await env.run_episode(task, context), asked
    finally:
        await runner.cleanup()


async def test_an_episode() -> None:
    [turns] = await demonstrated("table", 1, **EASY)
    episode, asked = await played(turns, "table", EASY)
    [trace] = episode.traces
    assert not trace.errors, trace.errors
    assert episode.ok
    assert trace.rewards["reward"].score == 1.0
    assert trace.info["agentenv"]["stop_reason"] == "answer"
    assert trace.metrics
    assert len(asked) == len(turns)
    assert len(trace.branches) == 1, "one stream: the conversation only grows"


async def test_pictures() -> None:
    [turns] = await demonstrated("zoom", 1, **SEEN)
    episode, asked = await played(turns, "zoom", SEEN)
    assert episode.traces[0].rewards["reward"].score == 1.0
    shown = [part for m in asked[-1] if isinstance(m["content"], list) for part in m["content"] if "image_url" in part]
    assert len(shown) == len(turns)


async def test_a_limit_of_the_run_ends_the_episode() -> None:
    [turns] = await demonstrated("table", 1, **EASY)
    episode, _ = await played(turns, "table", EASY, max_turns=1)
    [trace] = episode.traces
    assert trace.info["agentenv"]["stop_reason"] == "max_turns"
    assert trace.rewards["reward"].score == 0.0
