"""Random episodes in which every text is a mark that stands nowhere else, and what each mark is of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from hypothesis import strategies as st

from agentenv.dialects.base import Turn
from agentenv.env import Env
from agentenv.spec import Limits
from agentenv.task import TaskSet
from agentenv.tool import tool
from agentenv.trajectory import Trajectory
from agentenv.types import Task, Text, ToolCall
from tests.trajectories.records import world


class Mark(NamedTuple):
    """A text of an episode, and what an export that loses it must call the loss."""

    text: str
    loss: str


@tool(inline=True)
def find(key: str, deep: bool = False) -> str:
    """Find what belongs to a key.

    Args:
        key: of what.
        deep: whether to look twice.
    """
    return key.replace("arg", "found")


class Shape(NamedTuple):
    """A turn: whether it holds thoughts and text, and how many calls."""

    thinks: bool
    speaks: bool
    calls: int


SHAPES = st.lists(st.builds(Shape, st.booleans(), st.booleans(), st.integers(0, 3)), min_size=1, max_size=4)
LIMITS = st.builds(
    Limits, hint_turns=st.integers(0, 3), turns=st.just(6), no_call=st.just("retry"), invalid_turns=st.just(9)
)


def episode(dialect: str, shapes: list[Shape], limits: Limits) -> Trajectory:
    """The record of turns of these shapes, and of a last one with an answer, or to where it ends."""
    task = Task("marked", (Text("Zaskedz"),), "Zsaidz")
    tasks = TaskSet.of((task,), name="marked")
    env: Env = world(dialect=dialect, tools=(find,), tasks=tasks, system="Zsystemz", limits=limits)
    env.reset(seed=0, options={"task": 0})
    for turn in (*(_turn(n, shape) for n, shape in enumerate(shapes)), Turn("", "Zthoughtendz", (), "Zsaidz")):
        step = env.step(env.dialect.write(turn))
        if step.terminated or step.truncated:
            break
    record: Trajectory = env.trajectory
    return record


def _turn(number: int, shape: Shape) -> Turn:
    calls = []
    for place in range(shape.calls):
        given: dict[str, Any] = {"key": f"Zarg{number}x{place}z"}
        calls.append(ToolCall(f"call_{number}_{place}", "find", f'{{"key": "{given["key"]}"}}', given))
    thought = f"Zthought{number}z" if shape.thinks else ""
    return Turn(f"Ztext{number}z" if shape.speaks else "", thought, tuple(calls))


def marks(record: Trajectory) -> Iterator[Mark]:
    """The marks of an episode in order."""
    yield Mark("Zsystemz", "prompt")
    yield Mark("Zaskedz", "prompt")
    for node in record.path():
        message = node.message
        if message.role != "assistant":
            continue
        if message.reasoning:
            yield Mark(message.reasoning, "reasoning")
        yield from (Mark(text, "content") for text in _SPOKEN.findall(message.raw or message.text))
        keys = [call.arguments["key"] for call in message.calls if call.arguments]
        yield from (Mark(key, "calls") for key in keys)
        yield from (Mark(key.replace("arg", "found"), "results") for key in keys)


_SPOKEN = re.compile("Ztext[0-9]z|Zsaidz")
