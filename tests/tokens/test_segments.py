"""The token stream of a record: segments, forks, masks, and media that expand and collapse without loss."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agentenv import tokens as t
from agentenv.env import Env
from agentenv.errors import UsageError
from agentenv.spec import Limits
from agentenv.tokens import Segment
from agentenv.trajectory import Trajectory
from agentenv.types import Action, MediaSpan, StopReason, Tokens
from tests.worlds import sums

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
ANSWER = "<answer>3</answer>"


def turn(text: str, *ids: int, context: Tokens | None, **more: Any) -> Action:
    return Action(text, token_ids=ids, logprobs=(-0.5,) * len(ids), context=context, version="w1", **more)


def played(*actions: Action, **options: Any) -> tuple[Env, Trajectory]:
    env = sums(**options)
    env.reset(seed=0)
    for action in actions:
        env.step(action)
    return env, env.trajectory


def test_a_record_gives_the_stream_that_the_model_saw() -> None:
    _, record = played(
        turn(CALL, 7, 8, context=Tokens((1, 2, 3))), turn(ANSWER, 9, context=Tokens((4, 5)), finish_reason="stop")
    )
    (segments,) = t.streams(Trajectory.from_json(record.to_json()))
    assert [(s.ids, s.sampled, s.version) for s in segments] == [
        ((1, 2, 3), False, ""),
        ((7, 8), True, "w1"),
        ((4, 5), False, ""),
        ((9,), True, "w1"),
    ]
    assert t.flat(segments) == ([1, 2, 3, 7, 8, 4, 5, 9], [0, 0, 0, 1, 1, 0, 0, 1], [0, 0, 0, -0.5, -0.5, 0, 0, -0.5])
    assert t.stream(record, segments[1].node) == segments[:2]
    t.check(segments)
    bare = [replace(s, logprobs=None) for s in segments]
    assert t.flat(bare).logprobs is None


def test_a_fork_of_the_stream_begins_another_one() -> None:
    _, record = played(
        turn(CALL, 7, context=Tokens((1,))), turn(ANSWER, 9, context=Tokens((1, 6, 4), fork="thoughts are left out"))
    )
    first, second = t.streams(record)
    assert t.flat(first)[:2] == ([1, 7], [0, 1])
    assert t.flat(second)[:2] == ([1, 6, 4, 9], [0, 0, 0, 1])
    assert t.stream(record) == second


def test_the_observation_carries_what_the_record_has_of_its_tokens() -> None:
    env = sums()
    observation, _ = env.reset(seed=0)
    assert observation.tokens == ()
    observation = env.step(turn(CALL, 7, context=Tokens((1,)))).observation
    known = [None if tokens is None else tokens.ids for tokens in observation.tokens]
    assert known == [None, (1,), (7,), None]
    twin = env.fork()
    assert twin.episode is not None
    assert twin.episode.observation(0.0).tokens == observation.tokens


def test_ids_without_what_the_engine_was_given_are_no_stream() -> None:
    _, record = played(Action(CALL, token_ids=(7,)), Action(ANSWER))
    with pytest.raises(UsageError, match="lacks what its engine was given before it"):
        t.stream(record)
    _, record = played(turn(CALL, 7, context=Tokens((1,))), turn(ANSWER, 9, context=None))
    with pytest.raises(UsageError, match="lacks what its engine was given before it"):
        t.stream(record)
    _, record = played(Action(CALL), Action(ANSWER))
    with pytest.raises(UsageError, match=r"lacks token ids .capture 'text'.: play with a policy"):
        t.stream(record)
    env = sums()
    env.reset(seed=0)
    with pytest.raises(UsageError, match="lacks token ids"):
        t.stream(env.trajectory)


OVERFLOW = Action("", finish_reason="overflow")


def test_an_observation_without_room_is_rolled_back_and_ends_the_episode() -> None:
    _, record = played(turn(CALL, 7, context=Tokens((1,))), OVERFLOW)
    assert record.stop_reason == StopReason.MAX_TOKENS
    assert [node.rolled_back for node in record.nodes] == [False, False, False, True]
    assert [m.role for m in record.messages] == ["system", "user", "assistant"]
    assert t.flat(t.stream(record)).ids == [1, 7]
    assert record.outcome is not None
    assert record.outcome.reward is not None


def test_a_prompt_without_room_stays_and_ends_the_episode() -> None:
    _, record = played(OVERFLOW)
    assert record.stop_reason == StopReason.MAX_TOKENS
    assert [m.role for m in record.messages] == ["system", "user"]


def test_after_a_roll_back_an_answer_can_be_forced() -> None:
    limits = Limits(on_tokens="force")
    env, record = played(turn(CALL, 7, context=Tokens((1,))), OVERFLOW, limits=limits)
    assert env.episode is not None
    assert env.episode.stop is None
    assert [m.role for m in env.episode.messages] == ["system", "user", "assistant", "user"]
    assert "limit on tokens" in env.episode.messages[-1].text
    assert env.episode.observation(0.0).tools == ()
    env.step(turn(ANSWER, 9, context=Tokens((5,))))
    assert (record.stop_reason, t.flat(t.stream(record)).ids) == (StopReason.ANSWER, [1, 7, 5, 9])
    _, record = played(turn(CALL, 7, context=Tokens((1,))), OVERFLOW, OVERFLOW, limits=limits)
    assert record.stop_reason == StopReason.MAX_TOKENS
    _, record = played(turn(CALL, 7, context=Tokens((1,))), OVERFLOW, limits=Limits(on_tokens="mask"))
    assert record.outcome is not None
    assert record.outcome.masked


@st.composite
def segments_with_media(draw: st.DrawFn) -> Segment:
    ids: list[int] = draw(st.lists(st.integers(10, 20), max_size=6))
    spans = []
    for number in range(draw(st.integers(0, 4))):
        run = draw(st.one_of(st.just(()), st.lists(st.integers(30, 35), min_size=1, max_size=4).map(tuple)))
        length = len(run) or draw(st.integers(1, 5))
        token = draw(st.sampled_from((3, 4)))
        spans.append(MediaSpan(f"{number:064x}", "image", len(ids), token, length, (1, 2, 2), run))
        ids += [token, *draw(st.lists(st.integers(10, 20), max_size=3))]
    return Segment(tuple(ids), False, media=tuple(spans))


@settings(deadline=None, max_examples=200)
@given(st.lists(segments_with_media(), min_size=1, max_size=4))
def test_collapsing_undoes_expanding(segments: list[Segment]) -> None:
    t.check(segments)
    wide = t.expanded(segments)
    t.check(wide)
    assert t.expanded(wide) == wide
    assert t.collapsed(wide) == segments
    ids, spans = t.flat(wide).ids, t.media(wide)
    assert len(ids) == sum(len(s.ids) for s in segments) + sum(span.length - 1 for span in spans)
    for span in spans:
        assert tuple(ids[span.offset : span.offset + span.length]) == (span.run or (span.token,) * span.length)
    narrow = t.flat(segments).ids
    assert [narrow[span.offset] for span in t.media(segments)] == [span.token for span in spans]


SPAN = MediaSpan("ab" * 32, "image", 1, 3, 2)
WRONG: list[tuple[Segment, str]] = [
    (Segment((1, 2), True, (-0.1,)), "1 log-probabilities for 2 ids"),
    (Segment((1,), False, (-0.1,)), "log-probabilities"),
    (Segment((1,), True, (float("nan"),)), "not a finite number"),
    (Segment((1,), True, (0.5,)), "at most 0"),
    (Segment((1, 3), True, media=(SPAN,)), "sampled a placeholder"),
    (Segment((1, 2), False, media=(SPAN,)), "id 1 is not the placeholder 3"),
    (Segment((1,), False, media=(SPAN,)), "beyond its ids"),
    (Segment((1, 3), False, media=(SPAN, SPAN)), "not in order"),
    (Segment((1, 3), False, media=(replace(SPAN, run=(5,)),)), "has 1 tokens, not its length"),
    (Segment((1, 3, 4), False, media=(SPAN,), expanded=True), "not the 2 of image abababababab"),
]


@pytest.mark.parametrize(("segment", "why"), WRONG, ids=[why for _, why in WRONG])
def test_what_is_wrong_with_a_segment_is_said(segment: Segment, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        t.check([segment])


def test_what_cannot_be_expanded_is_said() -> None:
    wide = t.expand(Segment((1, 3), False, media=(SPAN,)))
    assert wide.ids == (1, 3, 3)
    with pytest.raises(UsageError, match="expanded already"):
        t.expand(wide)
    with pytest.raises(UsageError, match="how many tokens image abababababab takes is not in the record"):
        t.expand(Segment((1, 3), False, media=(replace(SPAN, length=0),)))
