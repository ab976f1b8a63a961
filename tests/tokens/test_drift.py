"""I15, drift: ids that no tokenizer would choose train as they were sampled, and a server that tokenises turns anew is
found out.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentenv import tokens as t
from agentenv.policy.exact import Request
from agentenv.rollout import play
from agentenv.spec import Limits
from agentenv.tokens.conversation import Prompt, context_of
from agentenv.trajectories.grpo.samples import sequences
from agentenv.trajectory import Trajectory
from agentenv.types import Action, Observation, Tokens
from tests.tokens.monkey import CALL, Monkey, tokens_of
from tests.tokens.qwen import qwen_renderer
from tests.tokens.turns import turns, world


class Server(Monkey):
    """Chats by text: it renders and tokenises the whole conversation at each turn, and tells which ids it had."""

    async def take(self, observation: Observation, seed: str, group: str) -> Action:
        native = observation.dialect == "native"
        given_ids = self.renderer.prompt(observation.messages, observation.tools, native=native).ids
        row = await self.sample(Request(Prompt(given_ids, (), Tokens(given_ids), len(given_ids)), (), 0, (), ""))
        action = Action(
            self.renderer.decoded(row.ids),
            finish_reason=row.finish,
            token_ids=row.ids,
            logprobs=row.logprobs,
            context=context_of(observation, given_ids),
        )
        return self._native(action, observation) if native else action


async def played(policy: Monkey, dialect: str) -> Trajectory:
    env = world(dialect, limits=Limits(turns=6, invalid_turns=9))
    return Trajectory.from_json((await play(env, policy, env.tasks[0])).to_json())


def trained(record: Trajectory) -> list[int]:
    """The ids that are learned from, turn by turn."""
    return [int(token) for sample in sequences(record) for token in sample.ids[sample.mask]]


def reports(record: Trajectory) -> list[str]:
    return [node.tokens.fork for node in record.path() if node.tokens is not None and node.tokens.fork]


def drifted(policy: Monkey) -> list[str]:
    """What a re-rendering should report: each prompt that does not go on with the one before it and its turn."""
    found = []
    stream = policy.prompts[0] + policy.sampled[0]
    for prompt, said in zip(policy.prompts[1:], policy.sampled[1:], strict=True):
        if prompt[: len(stream)] != stream:
            pairs = zip(stream, prompt, strict=False)
            same = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
            found.append(f"the server tokenised earlier turns anew: of {len(stream)} ids it kept the first {same}")
        stream = prompt + said
    return found


@pytest.mark.parametrize("dialect", ["hermes", "native"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_odd_splits_train_as_sampled_and_are_reported_where_they_are_lost(dialect: str, data: Any) -> None:
    drawn = [tokens_of(turn) for turn in data.draw(turns(dialect))]
    exact, server = (kind(qwen_renderer("qwen2_5"), drawn) for kind in (Monkey, Server))
    record = await played(exact, dialect)
    assert trained(record) == [token for ids in exact.sampled for token in ids]
    assert reports(record) == []
    record = await played(server, dialect)
    assert trained(record) == [token for ids in server.sampled for token in ids]
    assert reports(record) == drifted(server)
    assert len(t.streams(record)) == 1 + len(drifted(server))
    assert tuple(t.flat(t.stream(record)).ids) == server.prompts[-1] + server.sampled[-1]


@pytest.mark.parametrize(("dialect", "every", "drifts"), [("hermes", 0, 0), ("hermes", 1, 2), ("native", 0, 2)])
async def test_how_often_a_server_drifts(dialect: str, every: int, drifts: int) -> None:
    """Odd splits are tokenised anew in any dialect; native calls are written anew also where they were split evenly."""
    drawn = [tokens_of((CALL, every, True, 0)) for _ in range(2)] + [tokens_of(("<answer>3</answer>", 0, True, 0))]
    server, exact = (kind(qwen_renderer("qwen2_5"), drawn) for kind in (Server, Monkey))
    assert len(reports(await played(server, dialect))) == drifts
    assert reports(await played(exact, dialect)) == []
