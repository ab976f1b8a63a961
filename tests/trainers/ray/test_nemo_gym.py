"""NeMo-Gym's own agent, its model server and its environment server over HTTP on loopback, around a chat server."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest
import uvicorn

from agentenv.trainers.nemo_gym import AgentEnvGym, nemo_gym_rows
from agentenv.trajectory import Trajectory
from tests.policy.chat_server import ChatServer, chat_server, completion
from tests.trainers.gyms.playing import EASY, demonstrated

pytestmark = pytest.mark.filterwarnings("default")  # of the trainer's own libraries


@asynccontextmanager
async def served(app: Any, port: socket.socket) -> AsyncIterator[None]:
    """An application of NeMo-Gym's on a port, served as its `run_webserver` does."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    task = asyncio.create_task(server.serve(sockets=[port]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


def bound() -> tuple[socket.socket, int]:
    """A free port on loopback."""
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    made.listen()
    return made, made.getsockname()[1]


class Gym:
    """NeMo-Gym's three servers, and the model behind them.

    Args:
        model: what the model server asks.
        max_steps: most turns of a rollout.
    """

    def __init__(self, model: ChatServer, max_steps: int) -> None:
        from nemo_gym.server_utils import BaseServerConfig, ServerClient
        from omegaconf import OmegaConf

        self.model, self.records = model, list[Trajectory]()
        self._ports = {name: bound() for name in ("environment", "policy_model", "agent")}
        where = {name: {"host": "127.0.0.1", "port": port} for name, (_, port) in self._ports.items()}
        self._own = {name: {**place, "entrypoint": "app.py", "name": name} for name, place in where.items()}
        self._client = ServerClient(
            head_server_config=BaseServerConfig(host="127.0.0.1", port=1),
            global_config_dict=OmegaConf.create({name: {"kind": {"app": place}} for name, place in where.items()}),
        )
        self.environment = self._environment()
        self._servers = {
            "environment": self.environment,
            "policy_model": self._policy(),
            "agent": self._agent(max_steps),
        }

    def _environment(self) -> Any:
        from nemo_gym.base_resources_server import BaseResourcesServerConfig
        from resources_servers.gymnasium import GymnasiumServer

        records = self.records

        class Server(AgentEnvGym, GymnasiumServer):  # type: ignore[misc]  # nemo_gym is not followed by mypy
            """As a user writes it, and its records are kept."""

            async def close_session(self, session_id: str | None) -> None:
                if str(session_id) in self.session_state:
                    records.append(self.session_state[str(session_id)].record)
                await super().close_session(session_id)

        return Server(config=BaseResourcesServerConfig(**self._own["environment"]), server_client=self._client)

    def _policy(self) -> Any:
        from responses_api_models.vllm_model.app import VLLMModel, VLLMModelConfig

        about: dict[str, Any] = {"base_url": self.model.url, "api_key": "k", "model": "m"}
        about |= {"return_token_id_information": False, "uses_reasoning_parser": True}
        return VLLMModel(config=VLLMModelConfig(**self._own["policy_model"], **about), server_client=self._client)

    def _agent(self, max_steps: int) -> Any:
        from responses_api_agents.gymnasium_agent.app import GymnasiumAgent, GymnasiumAgentConfig

        asked = {
            "resources_server": {"type": "resources_servers", "name": "environment"},
            "model_server": {"type": "responses_api_models", "name": "policy_model"},
        }
        config = GymnasiumAgentConfig(**self._own["agent"], **asked, max_steps=max_steps)
        return GymnasiumAgent(config=config, server_client=self._client)

    async def start(self, stack: AsyncExitStack) -> None:
        """Serve until the stack is left."""
        from nemo_gym import server_utils

        session = server_utils.set_global_aiohttp_client(server_utils.GlobalAIOHTTPAsyncClientConfig())
        stack.push_async_callback(session.close)
        stack.callback(setattr, server_utils, "_GLOBAL_AIOHTTP_CLIENT", None)
        for name, server in self._servers.items():
            app = server.setup_webserver()
            server.setup_exception_middleware(app)
            await stack.enter_async_context(served(app, self._ports[name][0]))

    async def run(self, row: dict[str, Any]) -> tuple[int, Any]:
        """What the agent makes of a row of the data set."""
        url = f"http://127.0.0.1:{self._ports['agent'][1]}/run"
        async with aiohttp.ClientSession() as client, client.post(url, json=row) as answer:
            return answer.status, json.loads(await answer.text()) if answer.ok else await answer.text()


@asynccontextmanager
async def gym(turns: list[str], max_steps: int = 10) -> AsyncIterator[Gym]:
    """NeMo-Gym's servers around a model that says `turns`."""
    left = list(turns)
    about = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(chat_server())
        model.answer = lambda _: about | completion(left.pop(0))
        running = Gym(model, max_steps)
        await running.start(stack)
        yield running


async def test_a_rollout() -> None:
    [turns] = await demonstrated("table", 1, **EASY)
    async with gym(turns) as running:
        status, found = await running.run(nemo_gym_rows("table", 1, **EASY)[0])
    assert (status, found["reward"], found["terminated"], found["truncated"]) == (200, 1.0, True, False)
    assert found["info"]["stop_reason"] == "answer"
    assert len(running.model.requests) == len(turns)
    roles = [message["role"] for message in running.model.requests[-1]["messages"]]
    assert roles == ["system", "user", *["assistant", "user"] * (len(turns) - 1)]
    for before, after in zip(running.model.requests, running.model.requests[1:], strict=False):
        assert after["messages"][: len(before["messages"])] == before["messages"]
    assert running.environment.session_state == {}
    [record] = running.records
    assert [node.message.text for node in record.path() if node.origin == "sampled"] == turns


async def test_rollouts_at_once_have_episodes_of_their_own() -> None:
    async with gym(["<answer>no idea</answer>"] * 3) as running:
        rows = nemo_gym_rows("table", 3, **EASY)
        answers = await asyncio.gather(*map(running.run, rows))
    assert [(status, found["reward"]) for status, found in answers] == [(200, 0.0)] * 3
    assert {record.task.id for record in running.records} == {json.loads(row["agentenv"])["task"] for row in rows}


async def test_thoughts_reach_the_environment() -> None:
    """NeMo-Gym's model server makes them items of their own."""
    [turns] = await demonstrated("table", 1, **EASY)
    thought = f"<think>Look it up.</think>{turns[0]}"
    async with gym([thought, *turns[1:]]) as running:
        _, found = await running.run(nemo_gym_rows("table", 1, **EASY)[0])
    assert found["reward"] == 1.0
    assert [item["type"] for item in found["response"]["output"][:2]] == ["reasoning", "message"]
    [record] = running.records
    assert next(node.message.text for node in record.path() if node.origin == "sampled") == thought


async def test_stop_strings_reach_the_model() -> None:
    options = {**EASY, "dialect": "tags"}
    [turns] = await demonstrated("table", 1, **options)
    async with gym(turns) as running:
        _, found = await running.run(nemo_gym_rows("table", 1, **options)[0])
    assert found["reward"] == 1.0
    for body in running.model.requests:
        assert body["stop"]
        assert body["include_stop_str_in_output"] is True


async def test_limits_of_the_agent_and_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    [turns] = await demonstrated("table", 1, **EASY)
    row = nemo_gym_rows("table", 1, **EASY)[0]
    async with gym(turns, max_steps=1) as running:
        _, found = await running.run(row)
    assert (found["reward"], found["truncated"]) == (0.0, True)
    assert running.environment.session_state == {}
    async with gym(turns) as running:
        monkeypatch.setattr("agentenv.trainers.session.reward_of", lambda *_: None)
        status, found = await running.run(row)
    assert status == 500
    assert "could not be scored" in found
    assert running.environment.session_state == {}
