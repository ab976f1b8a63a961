"""Environments made and played through skyrl_gym itself."""

from __future__ import annotations

from typing import Any

import pytest

from agentenv.errors import InfrastructureError, UsageError
from tests.trainers.gyms.playing import EASY, SEEN, demonstrated

skyrl_gym = pytest.importorskip("skyrl_gym", reason="tests/trainers/run.sh installs it")
pytestmark = pytest.mark.filterwarnings("default")  # of the trainer's own libraries


@pytest.fixture(autouse=True, scope="module")
def _registered() -> None:
    skyrl_gym.register(id="agentenv", entry_point="agentenv.trainers.skyrl:AgentEnvText")


def made(name: str, options: dict[str, Any], **extras: Any) -> Any:
    """The environment of a row, as SkyRL's generator makes it."""
    from agentenv.trainers.skyrl import skyrl_rows

    [row] = skyrl_rows(name, 1, **options)
    assert row["env_class"] == "agentenv"
    env = skyrl_gym.make("agentenv", env_config={}, extras={**row, **extras})
    return env, *env.init(row["prompt"])


async def test_an_episode() -> None:
    [turns] = await demonstrated("table", 1, **EASY)
    env, prompt, _ = made("table", EASY)
    assert [message["role"] for message in prompt] == ["system", "user"]
    assert "\u2039" not in prompt[0]["content"], "the environment's own prompt, not the row's"
    for turn in turns[:-1]:
        step = env.step(turn)
        assert (step["reward"], step["done"]) == (0.0, False)
        assert [message["role"] for message in step["observations"]] == ["user"]
    last = env.step(turns[-1])
    assert (last["reward"], last["done"], last["observations"]) == (1.0, True, [])
    assert last["metadata"]["stop_reason"] == "answer"
    metrics = env.get_metrics()
    env.close()
    assert all(isinstance(value, (int, float)) for value in metrics.values())
    assert skyrl_gym.envs.base_text_env.BaseTextEnv.aggregate_metrics([metrics, metrics])


async def test_pictures() -> None:
    [turns] = await demonstrated("zoom", 1, **SEEN)
    env, prompt, _ = made("zoom", SEEN)
    content = prompt[-1]["content"]
    assert sum(part["type"] == "image_url" for part in content) == 1
    step = env.step(turns[0])
    [message] = step["observations"]
    [shown] = [part for part in message["content"] if part["type"] == "image_url"]
    assert shown["image_url"]["url"].startswith("data:image/")
    for turn in turns[1:]:
        step = env.step(turn)
    assert step["reward"] == 1.0


async def test_the_generators_turns_end_the_episode() -> None:
    [turns] = await demonstrated("table", 1, **EASY)
    env, _, _ = made("table", EASY, max_turns=1)
    step = env.step(turns[0])
    assert step["done"]
    assert step["metadata"]["stop_reason"] == "max_turns"
    assert step["reward"] == 0.0


async def test_what_has_no_score_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    env, _, _ = made("table", EASY)
    monkeypatch.setattr(type(env.session.env.rubric), "score", lambda *_: 1 / 0)
    with pytest.raises(InfrastructureError, match="could not be scored"):
        env.step("<answer>x</answer>")
    with pytest.raises(UsageError, match="names no environment"):
        skyrl_gym.make("agentenv", env_config={}, extras={})
