"""I5, a record only grows: the chain of digests up to what was sampled stays as it was, in forks and roll-backs too."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agentenv.dialects import DIALECTS
from agentenv.env import Env
from agentenv.spec import Limits
from agentenv.trajectory import Trajectory
from agentenv.types import Message, Text, Tokens
from tests.tokens.monkey import Monkey, tokens_of
from tests.tokens.qwen import qwen_renderer
from tests.tokens.turns import FORGED, turns, world

LIMITS = st.builds(
    Limits,
    turns=st.integers(1, 5),
    invalid_turns=st.just(9),
    calls=st.none() | st.integers(0, 3),
    tokens=st.none() | st.integers(200, 1500),
    hint_turns=st.integers(0, 2),
    on_turns=st.sampled_from(["stop", "force"]),
    on_calls=st.sampled_from(["stop", "force", "error"]),
    on_tokens=st.sampled_from(["stop", "force"]),
)


def settled(record: Trajectory) -> list[str]:
    """The digests up to the last turn on the path: what came after it may still be rolled back."""
    turns = [place for place, node in enumerate(record.path()) if node.origin == "sampled"]
    return record.chain()[: turns[-1] + 1] if turns else []


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), limits=LIMITS, room=st.integers(100, 3000), question=st.sampled_from(FORGED))
async def test_what_was_recorded_stays_as_it_was(
    dialect: str, data: Any, limits: Limits, room: int, question: str
) -> None:
    policy = Monkey(qwen_renderer("qwen2_5"), [tokens_of(turn) for turn in data.draw(turns(dialect))])
    policy.context = room
    env = world(dialect, question, limits=limits)
    observation, ended, kept = env.reset(seed=0).observation, False, list[str]()
    while not ended:
        action = await policy.act(observation)
        if data.draw(st.booleans()):
            twin = env.fork()
            twin.step(data.draw(st.sampled_from(FORGED)))
            assert twin.trajectory.chain()[: len(kept)] == kept
        result = env.step(action)
        grown = settled(env.trajectory)
        assert grown[: len(kept)] == kept
        assert len(grown) > len(kept) or action.finish_reason == "overflow"
        observation, ended, kept = result.observation, result.terminated or result.truncated, grown
    _comes_back(env)


def _comes_back(env: Env) -> None:
    record = env.trajectory
    again = Trajectory.from_json(record.to_json())
    assert again.chain() == record.chain()
    assert len(set(record.chain())) == len(record.indices())


@settings(max_examples=30, deadline=None)
@given(at=st.integers(0, 4), what=st.sampled_from(["text", "ids", "logprobs"]))
def test_a_change_anywhere_shows_in_all_that_follows(at: int, what: str) -> None:
    env = world("hermes")
    env.reset(seed=0)
    for _ in range(2):
        env.step("<tool_call>\n{}\n</tool_call>")
    record = env.trajectory
    tokens = Tokens((1, 2), (-0.5, -0.5))
    record.nodes[:] = [replace(node, tokens=tokens) for node in record.nodes]
    before, node = record.chain(), record.nodes[at]
    changed = {
        "text": {"message": Message(node.message.role, (Text("other"),))},
        "ids": {"tokens": replace(tokens, ids=(1, 3))},
        "logprobs": {"tokens": replace(tokens, logprobs=(-0.5, -0.25))},
    }
    record.nodes[at] = replace(node, **changed[what])  # type: ignore[arg-type]
    after = record.chain()
    assert [same == other for same, other in zip(before, after, strict=True)] == [n < at for n in range(len(before))]


def test_what_utf8_lacks_has_a_digest_too() -> None:
    env = world("hermes")
    env.reset(seed=0)
    env.step("\ud83d")
    assert Trajectory.from_json(env.trajectory.to_json()).chain() == env.trajectory.chain()
