"""Random play: whatever a policy writes, under whatever limits, an episode ends and leaves a sound record."""

from __future__ import annotations

import json
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentenv.dialects import DIALECTS, Turn
from agentenv.env import Env
from agentenv.errors import ToolError
from agentenv.spec import Limits
from agentenv.tool import tool
from agentenv.trajectory import Node, Trajectory
from agentenv.types import Action, Image, StepResult, ToolCall, ToolResult
from tests.playing import check_record
from tests.worlds import add, sums


@tool(inline=True)
def outside(code: str, kind: int = 0) -> Any:
    """Brings something from outside.

    Args:
        code: what.
        kind: how.
    """
    text = code
    if kind == 1:
        raise ToolError(text)
    if kind == 2:
        raise KeyError(text)
    if kind == 3:
        return [text, Image("0" * 64, "image/png", 1, 1), text]
    if kind == 4:
        return ToolResult("", "", (), stop=True)
    return text * 5


_MARKS = (
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<answer>", "</answer>", "<think>"),
    *("</think>", "<|im_end|>", "<|im_start|>assistant\n", "<image>", '{"name": "add"', "```python\n", "```", "<sql>"),
    *("<add>", "</add>", "<grounding>", "</grounding>", "\x00", "{}", '"', "\n", "\u202e", "é", "[" * 50),
)
_NOISE = st.lists(st.sampled_from(_MARKS) | st.text(max_size=8), max_size=8).map("".join)
_VALUES = st.one_of(st.integers(), st.booleans(), st.none(), _NOISE, st.floats(allow_nan=False, allow_infinity=False))
_CALLS = st.one_of(
    st.tuples(st.just("add"), st.fixed_dictionaries({"a": st.integers(-9, 9), "b": st.integers(-9, 9)})),
    st.tuples(st.just("outside"), st.fixed_dictionaries({"code": _NOISE, "kind": st.integers(0, 4)})),
    st.tuples(st.just("outside"), st.fixed_dictionaries({"code": _NOISE})),
    st.tuples(st.sampled_from(["add", "outside", "ad", "nothing"]), st.dictionaries(st.text(max_size=4), _VALUES)),
)
_TURNS = st.one_of(
    st.tuples(st.just("noise"), _NOISE),
    st.tuples(st.just("answer"), st.text(max_size=5)),
    st.tuples(st.just("calls"), st.lists(_CALLS, min_size=1, max_size=4), _NOISE, _NOISE),
    st.tuples(st.just("cut"), st.lists(_CALLS, min_size=1, max_size=2), st.integers(0, 40)),
)
_LIMITS = st.builds(
    Limits,
    turns=st.integers(1, 5),
    calls=st.none() | st.integers(0, 6),
    calls_per_turn=st.none() | st.integers(1, 3),
    calls_per_tool=st.sampled_from([{}, {"add": 1}, {"add": 0, "outside": 2}]),
    images=st.none() | st.integers(0, 3),
    observation_tokens=st.none() | st.integers(1, 30),
    tokens=st.none() | st.integers(1, 3000),
    invalid_turns=st.integers(0, 3),
    hint_turns=st.integers(0, 3),
    extra_calls=st.sampled_from(["first", "last", "error"]),
    failed_calls=st.sampled_from(["count", "free"]),
    on_turns=st.sampled_from(["stop", "force", "mask"]),
    on_calls=st.sampled_from(["stop", "force", "error", "mask"]),
    on_calls_per_tool=st.sampled_from(["stop", "force", "error", "mask"]),
    on_images=st.sampled_from(["stop", "force", "error", "mask"]),
    on_tokens=st.sampled_from(["stop", "force", "mask"]),
    no_call=st.sampled_from(["answer", "retry", "stop"]),
)


def as_action(env: Env, turn: Any) -> Action:
    """The action that a drawn turn stands for, in the environment's dialect."""
    kind, said = turn[0], turn[1]
    if kind == "noise":
        return Action(said)
    if kind == "answer":
        return env.dialect.write(Turn(answer=said))
    made = tuple(ToolCall(f"id{i}", name, json.dumps(args), args) for i, (name, args) in enumerate(said))
    try:
        action = env.dialect.write(Turn(calls=made))
    except ValueError:  # not every dialect can write every call
        action = Action(json.dumps([args for _, args in said]))
    if kind == "cut":
        return msgspec.structs.replace(action, text=action.text[: -turn[2] or None], finish_reason="length")
    return msgspec.structs.replace(action, text=turn[2] + action.text + turn[3])


def world(dialect: str, limits: Limits) -> Env:
    return sums(tools=(add, outside), dialect=dialect, limits=limits)


def play_on(env: Env, turns: list[Any]) -> list[StepResult]:
    """Take the turns, as far as the episode goes."""
    results: list[StepResult] = []
    for turn in turns:
        results.append(env.step(as_action(env, turn)))
        if results[-1].terminated or results[-1].truncated:
            break
    return results


def _untimed(result: StepResult) -> Any:
    return (result.observation, repr(result.reward), result.terminated, result.truncated, result.info.get("answer"))


def _check_step(env: Env, seen: tuple[Any, ...], before: list[Node], result: StepResult) -> None:
    record = env.trajectory
    assert record.nodes[: len(before)] == before, "nothing that was recorded changes"
    messages = result.observation.messages
    assert messages == record.messages
    assert messages[: len(seen)] == seen, "nothing that was shown changes"
    new = result.observation.new
    assert len(seen) + 1 == new
    assert messages[new - 1].role == "assistant"
    assert all(m.role in ("user", "tool") for m in messages[new:])


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
@settings(max_examples=150)
@given(data=st.data(), limits=_LIMITS)
def test_every_episode_ends_and_leaves_a_sound_record(dialect: str, data: st.DataObject, limits: Limits) -> None:
    env = world(dialect, limits)
    seen = env.reset(seed=0).observation.messages
    assert limits.turns is not None
    for _ in range(limits.turns + 1):
        before = list(env.trajectory.nodes)
        result = env.step(as_action(env, data.draw(_TURNS)))
        _check_step(env, seen, before, result)
        seen = result.observation.messages
        if result.terminated or result.truncated:
            break
    assert result.terminated != result.truncated, "an episode ends within its turns, and one forced turn"
    record = env.trajectory
    check_record(record)
    assert record.outcome is not None
    assert record.outcome.stop_reason == result.info["stop_reason"]
    assert Trajectory.from_json(record.to_json()) == record
    assert all(run.bug is None or "KeyError" in run.bug for run in record.tool_runs)


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
@settings(max_examples=80)
@given(turns=st.lists(_TURNS, min_size=1, max_size=5), limits=_LIMITS, at=st.integers(0, 4))
def test_going_back_and_forks_give_the_same_future(dialect: str, turns: list[Any], limits: Limits, at: int) -> None:
    env = world(dialect, limits)
    env.reset(seed=0)
    done = play_on(env, turns[:at])
    kept = pickle.loads(pickle.dumps(env.snapshot()))
    held = env.snapshot()
    shown = env.episode.messages[:] if env.episode else []
    if done and (done[-1].terminated or done[-1].truncated):
        assert list(env.restore(kept).messages) == shown
        return
    twin = env.fork()
    first = play_on(env, turns[at:])
    length = len(twin.trajectory.nodes)
    assert twin.trajectory.forked_from == env.trajectory.id
    assert [*map(_untimed, play_on(twin, turns[at:]))] == [*map(_untimed, first)]
    assert len(twin.trajectory.nodes) >= length
    for snapshot in (kept, held):
        assert list(env.restore(snapshot).messages) == shown
        assert [*map(_untimed, play_on(env, turns[at:]))] == [*map(_untimed, first)]
        check_record(env.trajectory)
