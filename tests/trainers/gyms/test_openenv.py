"""An OpenEnv server of ours, played with openenv's own client over a loopback port."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import agentenv
from tests.trainers.gyms.playing import EASY, SEEN, demonstrated

pytest.importorskip("openenv", reason="tests/trainers/run.sh installs it")
pytestmark = pytest.mark.filterwarnings("default")  # of the trainer's own libraries


@contextmanager
def serving(application: Any) -> Iterator[str]:
    """A real server on loopback."""
    import uvicorn

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(application, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


async def test_an_episode() -> None:
    from openenv.core.generic_client import GenericEnvClient

    from agentenv.trainers.openenv import app

    [turns] = await demonstrated("table", 1, **EASY)
    with serving(app("table", **EASY)) as address:
        async with GenericEnvClient(base_url=address) as client:
            opened = await client.reset(seed=0)
            assert [message["role"] for message in opened.observation["messages"]] == ["system", "user"]
            for turn in turns:
                result = await client.step({"text": turn})
            state = await client.state()
    assert (result.reward, result.done) == (1.0, True)
    assert result.observation["info"]["stop_reason"] == "answer"
    assert state["step_count"] == len(turns)


async def test_pictures_tasks_and_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    from openenv.core.generic_client import GenericEnvClient

    from agentenv.trainers.openenv import app, served

    task = next(iter(agentenv.make("zoom", **SEEN).tasks)).id
    with serving(app("zoom", **SEEN)) as address:
        async with GenericEnvClient(base_url=address) as client:
            with pytest.raises(Exception, match="call reset first"):
                await client.step({"text": "x"})
            opened = await client.reset(task=task)
            kinds = [part["type"] for part in opened.observation["messages"][-1]["content"]]
            assert "image_url" in kinds
    monkeypatch.delenv("AGENTENV_ENV", raising=False)
    with pytest.raises(agentenv.UsageError, match="AGENTENV_ENV"):
        served()
    monkeypatch.setenv("AGENTENV_ENV", "table")
    assert served().title
