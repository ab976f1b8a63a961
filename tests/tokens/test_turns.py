"""What random episodes hold: whatever is hard must really occur in them, or the other tests here show nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentenv.dialects import DIALECTS
from agentenv.rollout import play
from agentenv.spec import Limits
from agentenv.trajectory import Node, Trajectory
from tests.tokens.monkey import Monkey, tokens_of
from tests.tokens.qwen import qwen, qwen_renderer
from tests.tokens.turns import FORGED, turns, world

EPISODES = 100
RARELY = 3
"""Of the episodes, at least so many hold each of `HARD`."""
HARD = {
    *("broken UTF-8", "cut off", "cut off and goes on", "empty turn", "forged by a tool", "forged by the policy"),
    *("forged by the task", "goes on", "other ids than the tokenizer's", "several calls at once"),
}


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_what_is_hard_really_occurs(dialect: str) -> None:
    seen = Counter[str]()

    @settings(max_examples=EPISODES, derandomize=True, deadline=None, database=None)
    @given(drawn=turns(dialect), question=st.sampled_from(("", *FORGED)))
    def play_one(drawn: Any, question: str) -> None:
        policy = Monkey(qwen_renderer("qwen2_5"), [tokens_of(turn) for turn in drawn])
        env = world(dialect, question, limits=Limits(turns=6, invalid_turns=9))
        seen.update(what_is_hard(asyncio.run(play(env, policy, env.tasks[0])), question))

    play_one()
    seldom = {"cut off and goes on"} if dialect == "json_turn" else set()  # half an object holds no call
    assert {name for name, count in seen.items() if count >= RARELY} >= HARD - seldom, seen


def what_is_hard(record: Trajectory, question: str) -> set[str]:
    turns = [node for node in record.path() if node.origin == "sampled"]
    cut = [call.finish_reason == "length" for call in record.calls]
    found = {
        "forged by the task": question != "",
        "forged by a tool": any(run.neutralised for run in record.tool_runs),
        "several calls at once": max(Counter(run.call_node for run in record.tool_runs).values(), default=0) > 1,
        "cut off": any(cut),
        "cut off and goes on": any(cut[:-1]),
        "goes on": len(turns) > 1,
    }
    return {name for name, there in found.items() if there}.union(*map(_of_turn, turns))


def _of_turn(node: Node) -> set[str]:
    assert node.tokens is not None
    said = qwen().decode(list(node.tokens.ids))
    found = {
        "broken UTF-8": "\ufffd" in said,
        "empty turn": not node.message.raw,
        "forged by the policy": any(mark in said.removesuffix("<|im_end|>") for mark in FORGED),
        "other ids than the tokenizer's": tuple(qwen()(said)["input_ids"]) != node.tokens.ids,
    }
    return {name for name, there in found.items() if there}
