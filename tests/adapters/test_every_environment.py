"""Every environment and preset through the adapters, without a line of code for any of them."""

from __future__ import annotations

from inspect import getmembers, isfunction
from typing import Any

import pytest

import agentenv
from agentenv.errors import ConfigError
from agentenv.policy import make_policy
from agentenv.registry import BUILT_IN
from agentenv.rollout import play
from agentenv.trainers.session import Session, rows
from agentenv.trainers.trl import TRLSpec

SCENES: dict[str, Any] = {"size": [1400, 1000], "first_view": 360}
SMALL: dict[str, dict[str, Any]] = {"zoom": SCENES}
TAGGED = {"deepmmsearch-r1", "mini-o3", "mmsearch-r1", "search-r1", "thyme"}
"""Presets whose prompts teach calls that no model's template writes."""


def tools_of(world: Any) -> dict[str, Any]:
    """The methods that TRL takes for tools, as it finds them."""
    found = {name for name, _ in getmembers(type(world), isfunction) if not name.startswith("_")}
    return {name: getattr(world, name) for name in found - {"reset", "get_reward"}}


@pytest.mark.parametrize("name", sorted(set(BUILT_IN) - TAGGED))
async def test_trls_loop(name: str) -> None:
    schema = pytest.importorskip("transformers.utils").get_json_schema
    spec = TRLSpec(name, tasks=1, check_version=False, **SMALL.get(name, {}))
    [(id, task)] = spec.tasks.items()
    [row] = list(spec.train_dataset)
    assert row["task"] == id
    world = spec.environment_factory()
    tools = tools_of(world)
    assert {schema(tool)["function"]["name"] for tool in tools.values()} == {tool.name for tool in spec.env.rules.specs}
    shown = world.reset(**row)
    assert (shown is not None) == spec._pictured
    record = await play(spec.env.clone(), make_policy("reference"), task)
    calls = [call for node in record.path() if node.origin == "sampled" for call in node.message.calls]
    assert calls or name == "jigsaw"
    for call in calls[:1]:
        seen = tools[call.name](**(call.arguments or {}))
        assert seen if isinstance(seen, str) else {block["type"] for block in seen} <= {"text", "image"}
    answer = {"role": "assistant", "content": "I do not know."}
    [reward] = await spec.reward_funcs[0](completions=[[answer]], environments=[world])
    assert reward is not None


@pytest.mark.parametrize("name", sorted(TAGGED))
def test_trls_loop_is_refused_where_it_could_not_read_a_call(name: str) -> None:
    with pytest.raises(ConfigError, match="a form of their own"):
        TRLSpec(name, tasks=1, check_version=False)
    assert TRLSpec(name, tasks=1, native=False, check_version=False).tasks


@pytest.mark.parametrize("name", BUILT_IN)
async def test_text_in_and_messages_out(name: str) -> None:
    options = SMALL.get(name, {})
    env = agentenv.make(name, **options)
    [task] = env.tasks.take(1)
    record = await play(env.clone(), make_policy("reference"), task)
    [row] = rows(name, 1, **options)
    session = Session(row["extra_info"], "tests")
    assert session.begin()
    for node in record.path():
        if node.origin == "sampled":
            turn = await session.astep(node.message.text)
    session.close()
    assert turn.done
    assert turn.reward > 0.0
