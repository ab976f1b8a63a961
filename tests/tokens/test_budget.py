"""A limit on all tokens, in episodes with pictures: they count as long as the model sees them, and are never cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="a processor of pictures needs torch (extra: local)")

from agentenv import tokens as t
from agentenv.dialects import DIALECTS, Turn, make_dialect
from agentenv.env import Env
from agentenv.policy.rendering import load_renderer
from agentenv.rollout import play
from agentenv.spec import Limits
from agentenv.task import TaskSet
from agentenv.tokens import Segment
from agentenv.tool import tool
from agentenv.trajectory import Trajectory
from agentenv.types import Image, StopReason, Task, Text
from tests.policy.tiny_vision import picture, tiny_vision
from tests.tokens.monkey import Monkey, tokens_of
from tests.tokens.qwen import templates
from tests.tokens.turns import written
from tests.worlds import sums

SIZES = (32, 64, 96, 128)
"""Sides of pictures in pixels: of 1, 4, 9 and 16 tokens, each with a mark before and behind it."""


@tool(inline=True)
def look(code: str) -> list[Any]:
    """Look at pictures.

    Args:
        code: the numbers of their sizes.
    """
    return [Text(code), *(picture(SIZES[int(size)], SIZES[int(size)]) for size in code)]


def gallery(dialect: str, policy: Monkey, tokens: int | None) -> Env:
    task = Task("seen", (picture(64, 64), Text("what is it?")), "3")
    tools = t.counter(policy, tools=(look.spec,) if dialect == "native" else ())
    parts: dict[str, Any] = {"tools": (look,), "tasks": TaskSet.of((task,), name="seen"), "count": tools}
    return sums(dialect=dialect, limits=Limits(tokens=tokens, turns=None), **parts)


def visitor(dialect: str, seen: list[str]) -> Monkey:
    _, processor = tiny_vision("qwen3-vl")
    texts = [written(dialect, [("look", {"code": code})]) for code in seen]
    answer = make_dialect(dialect, (look.spec,)).write(Turn(answer="3")).text
    drawn = [tokens_of((text, 0, True, 0), words=processor.tokenizer) for text in (*texts, answer)]
    made = load_renderer(processor, renderer="template", chat_template=templates()["qwen3_vl"])
    return Monkey(made, drawn)


async def played(dialect: str, seen: list[str], tokens: int | None) -> Trajectory:
    policy = visitor(dialect, seen)
    env = gallery(dialect, policy, tokens)
    return await play(env, policy, env.tasks[0])


def length(segment: Segment) -> int:
    return len(t.expand(segment).ids)


def expected(segments: list[Segment], tokens: int) -> tuple[StopReason, int, bool]:
    """How the episode of this stream ends under a limit, how many of its segments are kept, whether it rolls back."""
    used = length(segments[0])
    for place, segment in enumerate(segments[1:], 1):
        if not segment.sampled and used + length(segment) > tokens:
            return StopReason.MAX_TOKENS, place, True
        used += length(segment)
        if not segment.sampled and used >= tokens:
            return StopReason.MAX_TOKENS, place, False
    return StopReason.ANSWER, len(segments), False


SEEN = st.lists(st.text(alphabet="0123", min_size=1, max_size=3), min_size=1, max_size=4)


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seen=SEEN, share=st.floats(0.2, 1.1), exactly=st.booleans())
async def test_an_observation_is_kept_whole_or_not_at_all(
    dialect: str, seen: list[str], share: float, exactly: bool
) -> None:
    free = t.stream(await played(dialect, seen, None))
    tokens = int(share * sum(map(length, free)))
    if exactly:  # as much as the first result takes to the model, or one less
        tokens = sum(map(length, free[:3])) - len(seen) % 2
    record = await played(dialect, seen, tokens)
    reason, places, back = expected(free, tokens)
    assert record.stop_reason == reason
    assert [segment.ids for segment in t.stream(record)] == [segment.ids for segment in free[:places]]
    assert record.nodes[-1].rolled_back == back
    kept = t.expanded(t.stream(record))
    t.check(kept)
    shown = [part.sha256 for message in record.messages for part in message.parts if isinstance(part, Image)]
    spans = [span.sha256 for span in t.media(kept)]
    assert spans == shown or (spans == shown[: len(spans)] and not back and reason == StopReason.MAX_TOKENS)


async def test_pictures_count_as_long_as_the_model_sees_them() -> None:
    """An observation that has room with one placeholder a picture, and none as the model sees it, is rolled back."""
    free = t.stream(await played("hermes", ["333"], None))
    narrow = sum(len(segment.ids) for segment in free[:3])
    assert sum(map(length, free[:3])) == narrow + 3 * 15 + 3  # and of the question's, 4 tokens
    record = await played("hermes", ["333"], narrow + 3 * 15 + 2)
    assert (record.stop_reason, record.nodes[-1].rolled_back) == (StopReason.MAX_TOKENS, True)
    assert sum(isinstance(part, Image) for part in record.nodes[-1].message.parts) == 3
    record = await played("hermes", ["333"], narrow + 3 * 15 + 100)
    assert record.stop_reason == StopReason.ANSWER
