"""Sessions: text in, messages out. What each trainer makes of them is tested in tests/trainers/gyms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import agentenv
from agentenv import StopReason, UsageError
from agentenv.errors import ConfigError, InfrastructureError
from agentenv.policy import make_policy
from agentenv.reward import Rubric
from agentenv.rollout import play
from agentenv.trainers.session import Session, asked, reward_of, rows

EASY: dict[str, Any] = {"seed": 3, "difficulty": 1}


def opened(name: str = "table", **options: Any) -> Session:
    """A session of the first task."""
    [row] = rows(name, 1, **(options or EASY))
    return Session(row["extra_info"], "tests")


async def turns_of(session: Session) -> Iterator[str]:
    """The demonstrator's turns in a session's task."""
    record = await play(session.env.clone(), make_policy("reference"), session.task)
    return iter([node.message.text for node in record.path() if node.origin == "sampled"])


@pytest.mark.parametrize("once", [True, False])
async def test_an_episode(once: bool) -> None:
    session = opened()
    turns = [*await turns_of(session)]
    assert [message["role"] for message in session.begin()] == ["system", "user"]
    taken = [await session.astep(text) if once else session.step(text) for text in turns]
    assert [turn.done for turn in taken] == [False] * (len(turns) - 1) + [True]
    assert [turn.reward for turn in taken] == [0.0] * (len(turns) - 1) + [1.0]
    assert all(len(turn.messages) == 1 and turn.messages[0]["role"] == "user" for turn in taken[:-1])
    assert taken[-1].info["stop_reason"] == "answer"
    assert taken[-1].info["rewards"]
    assert session.record.policy.name == "tests"
    session.close()


async def test_pictures_are_data_urls() -> None:
    session = opened("zoom", seed=1, difficulty=1, size=[1536, 1024], first_view=256)
    turns = await turns_of(session)
    kinds = [part["type"] for message in session.begin() if isinstance(message["content"], list)
             for part in message["content"]]  # fmt: skip
    assert "image_url" in kinds
    [message] = session.step(next(turns)).messages
    assert any("image_url" in part for part in message["content"])


def test_a_turn_cut_short_ends_the_episode() -> None:
    session = opened()
    session.begin()
    turn = session.step("I was about to", "length")
    assert turn.done
    assert turn.info["stop_reason"] == "length"


@pytest.mark.parametrize("reason", [StopReason.MAX_TURNS, StopReason.MAX_TOKENS])
async def test_what_the_trainer_cuts_is_scored_as_it_stands(reason: StopReason) -> None:
    session = opened()
    session.begin()
    session.step(next(await turns_of(session)))
    turn = session.cut(reason)
    assert (turn.done, turn.reward, turn.info["stop_reason"]) == (True, 0.0, reason.value)
    assert session.cut() == turn


def test_what_has_no_score_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    session = opened()
    session.begin()
    assert reward_of(session.env, session.record) is None
    monkeypatch.setattr(Rubric, "score", lambda *_: 1 / 0)
    with pytest.raises(InfrastructureError, match="could not be scored"):
        session.step("<answer>x</answer>")
    assert reward_of(session.env, session.record) is None


def test_a_process_makes_an_environment_once() -> None:
    first, second = rows("table", 2, **EASY)
    env, task = asked(first["extra_info"])
    again, other = asked(second["extra_info"])
    assert env is again
    assert task != other
    assert json.loads(first["answer"]) == task.answer
    assert first["prompt"][0]["role"] == "system"
    assert "<" not in "".join(message["content"] for message in first["prompt"])


def test_misuse() -> None:
    for odd in ({}, {"agentenv": 3}, {"agentenv": "{"}, {"agentenv": "[]"}, {"agentenv": '{"env": "table"}'}):
        with pytest.raises(UsageError, match="names no environment"):
            asked(odd)
    with pytest.raises(ConfigError, match="native dialect"):
        rows("table", 1, dialect="native")
    with pytest.raises(UsageError, match="plain data"):
        rows("table", 1, limits=agentenv.Limits(turns=3))
