from __future__ import annotations

import math
from typing import Any

import pytest
from msgspec.structs import replace

from agentenv.env import Env
from agentenv.errors import ConfigError, ResetNeededError, UnknownNameError
from agentenv.reward import Component, Rubric, exact_match
from agentenv.spec import Limits, Texts
from agentenv.task import TaskSet
from agentenv.tool import tool
from agentenv.types import Action, Image, StepResult, StopReason, Task, Text, ToolResult, Usage
from tests.playing import answer, at, call, check_record, last, said, steps
from tests.worlds import add, sums

ADD = call(a=1, b=2)
BROKEN = '<tool_call>{"name": "add", "arguments": {"a": 1,</tool_call>'


@tool(inline=True)
def look(count: int = 1) -> Any:
    """Look at images.

    Args:
        count: how many.
    """
    return ["seen", *(Image(f"{i:064x}", "image/png", 4, 4) for i in range(count))]


@tool(inline=True)
def echo(text: str, times: int = 1) -> str:
    """Say it again.

    Args:
        text: what.
        times: how often.
    """
    return text * times


@tool(inline=True)
def submit() -> ToolResult:
    """End the episode."""
    return ToolResult("", "", (Text("handed in"),), stop=True)


def world(**limits: Any) -> Env:
    return sums(tools=(add, look, echo, submit), limits=Limits(**limits))


def ended(result: StepResult) -> str | None:
    return result.info.get("stop_reason")


def kinds(env: Env) -> list[str | None]:
    return [run.error_kind for run in env.trajectory.tool_runs]


def outcome(env: Env) -> Any:
    check_record(env.trajectory)
    assert env.trajectory.outcome is not None
    return env.trajectory.outcome


# -- how an episode ends by itself


def test_an_answer_ends_it_and_is_rewarded() -> None:
    env = world()
    result = last(env, ADD, answer(env.tasks[17].answer))
    assert (result.terminated, result.truncated) == (True, False)
    assert ended(result) == StopReason.ANSWER
    assert outcome(env).answer == result.info["answer"]
    assert result.observation.tools == ()


def test_a_call_beside_an_answer_is_run_and_the_answer_waits() -> None:
    result = last(world(), ADD + answer("3"))
    assert ended(result) is None
    assert "3" in said(result.observation)


def test_a_tool_can_end_it_after_all_results_are_shown() -> None:
    env = world()
    result = last(env, call("submit") + ADD)
    assert (ended(result), result.terminated) == (StopReason.TOOL_STOP, True)
    assert len(env.trajectory.tool_runs) == 2
    assert "handed in" in said(result.observation)
    assert "\n3\n" in said(result.observation)
    outcome(env)


@pytest.mark.parametrize(
    ("rule", "reason", "terminated", "given"),
    [
        ("answer", StopReason.ANSWER, True, "just words"),
        ("stop", StopReason.NO_CALL, True, None),
        ("retry", None, False, None),
    ],
)
def test_a_turn_with_neither_call_nor_answer(
    rule: Any, reason: StopReason | None, terminated: bool, given: str | None
) -> None:
    env = world(no_call=rule)
    result = last(env, "  just words ")
    assert (ended(result), result.terminated) == (reason, terminated)
    if reason:
        assert outcome(env).answer == given
    else:
        assert "neither a tool call nor an answer" in said(result.observation)


def test_unreadable_turns_get_as_many_second_tries_as_allowed() -> None:
    env = world(invalid_turns=2, turns=None)
    results = steps(env, "", BROKEN, "words", answer("3"))
    assert [ended(r) for r in results] == [None, None, StopReason.INVALID]
    assert results[-1].terminated
    assert results[-1].reward == 0.0
    outcome(env)


def test_a_readable_call_gives_the_tries_back() -> None:
    results = steps(world(invalid_turns=1), "", ADD, "", ADD, BROKEN, ADD, BROKEN, BROKEN)
    assert [ended(r) for r in results] == [None] * 7 + [StopReason.INVALID]


def test_no_second_try_at_all() -> None:
    env = world(invalid_turns=0)
    assert ended(last(env, BROKEN)) == StopReason.INVALID
    assert env.trajectory.tool_runs == []
    outcome(env)


def test_a_broken_call_is_answered_with_its_error_and_the_others_of_the_turn_run() -> None:
    env = world()
    result = last(env, BROKEN + ADD)
    assert kinds(env) == ["invalid_call", None]
    assert "could not be read" in said(result.observation)
    assert ended(result) is None
    check_record(env.trajectory)


def test_a_cut_turn_that_holds_nothing_ends_it() -> None:
    env = world()
    result = last(env, Action("I think that the", finish_reason="length"))
    assert (ended(result), result.truncated) == (StopReason.LENGTH, True)
    assert ended(last(env, Action(answer("3"), finish_reason="length"))) == StopReason.ANSWER
    assert ended(last(env, Action(ADD, finish_reason="length"))) is None
    outside = world(no_call="answer")
    assert ended(last(outside, Action("I think", finish_reason="length"))) == StopReason.LENGTH


@pytest.mark.parametrize("reason", [StopReason.CANCELLED, StopReason.POLICY_ERROR, StopReason.ENV_ERROR])
def test_an_episode_ended_from_outside_is_unscored(reason: StopReason) -> None:
    env = world()
    steps(env, ADD)
    record = env.abort(reason, ValueError("why"))
    assert record.outcome is not None
    assert (record.outcome.stop_reason, record.reward, record.outcome.truncated) == (reason.value, None, True)
    assert record.outcome.error is not None
    assert record.outcome.error.type == "ValueError"
    with pytest.raises(ResetNeededError, match=reason.value):
        env.step(ADD)
    check_record(record)


def test_each_reason_says_what_it_means() -> None:
    ends = {r for r in StopReason if r.terminated}
    assert ends == {StopReason.ANSWER, StopReason.TOOL_STOP, StopReason.NO_CALL, StopReason.INVALID}
    assert {r for r in StopReason if r.unscored} == {
        StopReason.CANCELLED,
        StopReason.POLICY_ERROR,
        StopReason.ENV_ERROR,
    }


# -- turns


@pytest.mark.parametrize(("rule", "masked"), [("stop", False), ("mask", True)])
def test_when_the_turns_are_spent(rule: Any, masked: bool) -> None:
    env = world(turns=2, on_turns=rule)
    results = steps(env, ADD, ADD)
    assert [r.observation.budget.turns for r in results] == [1, 0]
    assert (ended(results[-1]), results[-1].truncated, results[-1].terminated) == (StopReason.MAX_TURNS, True, False)
    assert outcome(env).masked is masked
    assert "\n3\n" in said(results[-1].observation), "the last results are still shown"


def test_an_answer_in_the_last_turn_counts() -> None:
    assert ended(last(world(turns=1), answer("3"))) == StopReason.ANSWER


@pytest.mark.parametrize(
    ("turn", "reason", "given"),
    [
        (answer("3"), StopReason.ANSWER, "3"),
        (ADD, StopReason.MAX_TURNS, None),
        ("words", StopReason.MAX_TURNS, None),
        ("", StopReason.MAX_TURNS, None),
        (BROKEN, StopReason.MAX_TURNS, None),
        (Action("words", finish_reason="length"), StopReason.MAX_TURNS, None),
    ],
)
def test_the_forced_turn_is_the_last_one_whatever_is_written(turn: Any, reason: StopReason, given: str | None) -> None:
    env = world(turns=1, on_turns="force")
    forced, final = steps(env, ADD, turn)
    assert "limit on turns is reached" in said(forced.observation)
    assert forced.observation.tools == ()
    assert (ended(final), final.info["answer"]) == (reason, given)
    assert len(env.trajectory.tool_runs) == 1, "tools are off"
    outcome(env)


def test_plain_text_is_a_forced_answer_where_plain_text_is_an_answer() -> None:
    env = world(turns=1, on_turns="force", no_call="answer")
    final = last(env, ADD, "it is 3")
    assert (ended(final), final.info["answer"]) == (StopReason.ANSWER, "it is 3")
    assert ended(last(env, ADD, ADD)) == StopReason.MAX_TURNS


def test_hints_come_in_the_last_turns_only() -> None:
    results = steps(world(turns=4, hint_turns=2), ADD, ADD, "", ADD)
    assert [f"({n} turns left.)" in said(r.observation) for n, r in zip((3, 2, 1, 0), results, strict=True)] == [
        False,
        True,
        True,
        False,
    ]
    hinted = results[1].observation.messages[-1]
    assert hinted.role == "user"
    assert hinted.text.startswith("<tool_response>")
    assert hinted.text.endswith("</tool_response>\n(2 turns left.)")
    joined = sums(limits=Limits(turns=2, hint_turns=1), texts=Texts(joint=""))
    assert last(joined, ADD).observation.messages[-1].text.endswith("</tool_response>(1 turns left.)")


def test_the_texts_are_settings() -> None:
    texts = Texts(hint="LEFT {left}", force="NOW {limit}", invalid="BAD {error}", no_call="NOTHING", limit="NO {limit}")
    env = sums(limits=Limits(turns=3, on_turns="force", hint_turns=9, calls=1, invalid_turns=9), texts=texts)
    results = steps(env, ADD + ADD, "words", Action("x" * 2_000_001), answer("3"))
    shown = [said(r.observation) for r in results]
    assert "NO 1 calls" in shown[0]
    assert "LEFT 2" in shown[0]
    assert "NOTHING" in shown[1]
    assert "BAD it has 2000001 characters" in shown[2]
    assert "NOW turns" in shown[2]


# -- calls


def test_calls_above_the_budget_get_an_error_and_the_episode_goes_on() -> None:
    env = world(calls=2)
    results = steps(env, ADD * 3, ADD, answer("3"))
    assert kinds(env) == [None, None, "limit", "limit"]
    assert "the limit on 2 calls is reached" in said(results[0].observation)
    assert results[0].observation.budget.calls == 0
    assert ended(results[-1]) == StopReason.ANSWER
    outcome(env)


@pytest.mark.parametrize(("rule", "masked"), [("stop", False), ("mask", True)])
def test_calls_above_the_budget_can_end_it(rule: Any, masked: bool) -> None:
    env = world(calls=1, on_calls=rule)
    final = last(env, ADD + call(a=5, b=5))
    assert (ended(final), outcome(env).masked) == (StopReason.MAX_CALLS, masked)
    assert kinds(env) == [None, "limit"]
    assert "\n3\n" in said(final.observation)
    assert ended(steps(world(calls=1, on_calls=rule), ADD, answer("3"))[-1]) == StopReason.ANSWER


@pytest.mark.parametrize(("count", "ran"), [(2, [None, None]), (3, [None, None, "limit"])])
def test_the_call_that_spends_the_budget_can_end_it_without_an_answer(count: int, ran: list[str | None]) -> None:
    env = world(calls=2, on_calls="spent")
    final = last(env, ADD * count)
    assert (ended(final), kinds(env)) == (StopReason.MAX_CALLS, ran)
    assert not outcome(env).masked
    assert ended(steps(world(calls=2, on_calls="spent"), ADD, answer("3"))[-1]) == StopReason.ANSWER


@pytest.mark.parametrize("count", [2, 3, 5])
def test_calls_above_the_budget_can_force_an_answer_however_many_they_are(count: int) -> None:
    env = world(calls=1, on_calls="force")
    forced = last(env, ADD * count)
    assert ended(forced) is None
    assert forced.observation.tools == ()
    assert said(forced.observation).count("limit on tool calls is reached") == 1
    assert kinds(env) == [None] + ["limit"] * (count - 1)
    assert ended(env.step(answer("3"))) == StopReason.ANSWER
    outcome(env)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("first", [None, None, "limit"]), ("error", [None, None, "limit"]), ("last", ["limit", None, None])],
)
def test_calls_above_those_of_a_turn(rule: Any, expected: list[str | None]) -> None:
    env = world(calls_per_turn=2, extra_calls=rule)
    result = last(env, call(a=1, b=0) + call(a=2, b=0) + call(a=3, b=0))
    assert kinds(env) == expected
    assert "2 calls a turn" in said(result.observation)
    assert ended(result) is None
    check_record(env.trajectory)


def test_calls_of_one_tool_have_a_budget_of_their_own() -> None:
    env = world(calls_per_tool={"add": 1})
    results = steps(env, ADD + call("echo", text="hi") + ADD, call("echo", text="ho"), ADD)
    assert kinds(env) == [None, None, "limit", None, "limit"]
    assert "1 calls of add" in said(results[0].observation)
    assert ended(results[-1]) is None


@pytest.mark.parametrize(("rule", "ran"), [("count", 2), ("free", 3)])
def test_calls_that_failed_can_be_free(rule: Any, ran: int) -> None:
    env = world(calls_per_tool={"add": 2, "echo": 1}, failed_calls=rule)
    steps(env, call("add", a="x", b=2) + ADD, call("add", a="x", b=2) + ADD, ADD + call("echo", text="a"))
    assert kinds(env).count(None) == ran
    check_record(env.trajectory)


@pytest.mark.parametrize(("rule", "masked"), [("stop", False), ("mask", True)])
def test_the_budget_of_one_tool_can_end_it(rule: Any, masked: bool) -> None:
    env = world(calls_per_tool={"add": 1}, on_calls_per_tool=rule)
    assert ended(last(env, call("echo", text="x"), ADD, ADD)) == StopReason.MAX_CALLS
    assert outcome(env).masked is masked


def test_two_budgets_spent_in_one_turn_force_one_answer() -> None:
    env = world(calls=2, on_calls="force", calls_per_tool={"add": 1}, on_calls_per_tool="force")
    forced = last(env, ADD * 4)
    assert ended(forced) is None
    assert ended(env.step(answer("3"))) == StopReason.ANSWER


def test_a_budget_for_an_unknown_tool_is_refused() -> None:
    with pytest.raises(UnknownNameError, match='did you mean "echo"'):
        world(calls_per_tool={"ehco": 1})


def test_refused_and_unreadable_calls_use_the_budget_too() -> None:
    env = world(calls=2)
    steps(env, call("nothing"), BROKEN, ADD)
    assert kinds(env) == ["unknown_tool", "invalid_call", "limit"]


# -- images


def test_images_above_the_budget_are_not_shown() -> None:
    env = world(images=3)
    results = steps(env, call("look", count=2), call("look", count=2), call("look", count=1), answer("3"))
    assert [r.observation.budget.images for r in results] == [1, 1, 0, 0]
    assert kinds(env) == [None, "limit", None]
    shown = [part for m in results[-1].observation.messages for part in m.parts if isinstance(part, Image)]
    assert len(shown) == 3
    assert "3 images" in said(results[1].observation)
    assert env.trajectory.tool_runs[1].seconds > 0, "the call was run, and what it took is kept"


@pytest.mark.parametrize(("rule", "masked"), [("stop", False), ("mask", True)])
def test_images_above_the_budget_can_end_it(rule: Any, masked: bool) -> None:
    env = world(images=1, on_images=rule)
    assert ended(last(env, call("look", count=2))) == StopReason.MAX_IMAGES
    assert outcome(env).masked is masked


def test_images_above_the_budget_can_force_an_answer() -> None:
    env = world(images=1, on_images="force")
    forced = last(env, call("look", count=2) * 3)
    assert ended(forced) is None
    assert "limit on images is reached" in said(forced.observation)
    assert ended(env.step("")) == StopReason.MAX_IMAGES


# -- tokens


def test_a_long_result_is_cut_and_says_so() -> None:
    env = world(observation_tokens=10)
    result = last(env, call("echo", text="abcde", times=20))
    text = said(result.observation)
    assert "abcde" * 8 in text
    assert "abcde" * 9 not in text
    assert "[cut: 40 of 100 characters shown]" in text
    assert env.trajectory.tool_runs[0].cut == 60
    exact = last(env, call("echo", text="abcde", times=8))
    assert "cut" not in said(exact.observation)


def test_the_limit_holds_for_a_result_of_many_parts() -> None:
    @tool(inline=True)
    def parts() -> Any:
        """Parts."""
        return ["a" * 30, "b" * 30, "c" * 30]

    env = sums(tools=(parts,), limits=Limits(observation_tokens=10), texts=Texts(cut="~"))
    text = said(last(env, call("parts")).observation)
    assert (text.count("a"), text.count("b"), text.count("c")) == (30, 10, 0)
    assert env.trajectory.tool_runs[0].cut == 50


def heavy(**limits: Any) -> Env:
    """Messages weigh as many tokens as they have characters; the opening weighs 10."""
    task = Task("t", (Text("0123456789"),), "3")
    return sums(
        tools=(echo,),
        system="",
        tasks=TaskSet.of([task]),
        dialect="native",
        limits=Limits(**limits),
        count=lambda message: len(message.text),
    )


def native(times: int, text: str = "") -> Action:
    from agentenv.types import ToolCall

    arguments = {"text": "x", "times": times}
    return Action(text, (ToolCall("", "echo", f'{{"text": "x", "times": {times}}}', arguments),))


@pytest.mark.parametrize(("rule", "masked"), [("stop", False), ("mask", True)])
def test_an_observation_that_would_overflow_is_rolled_back(rule: Any, masked: bool) -> None:
    env = heavy(tokens=50, on_tokens=rule)
    first, second = steps(env, native(20), native(21))
    assert first.observation.budget.tokens == 20
    assert (ended(second), second.truncated) == (StopReason.MAX_TOKENS, True)
    assert outcome(env).masked is masked
    record = env.trajectory
    assert [n.rolled_back for n in record.nodes] == [False, False, False, False, True]
    assert record.nodes[-1].message.text == "x" * 21, "what was rolled back stays in the record"
    assert all("x" * 21 not in m.text for m in second.observation.messages)
    assert second.observation.messages == record.messages
    assert second.observation.budget.tokens == 20
    run = record.tool_runs[-1]
    assert (run.call_node, run.node) == (3, 4)


def test_an_overflow_can_force_an_answer() -> None:
    env = heavy(tokens=50, on_tokens="force")
    forced = steps(env, native(500))[-1]
    assert ended(forced) is None
    assert forced.observation.tools == ()
    assert "limit on tokens is reached" in said(forced.observation)
    final = env.step("3")
    assert (ended(final), final.reward) == (StopReason.ANSWER, 1.0)
    record = env.trajectory
    assert [n.rolled_back for n in record.nodes] == [False, False, True, False, False]
    assert record.nodes[3].parent == 1, "the notice follows the turn, not what was rolled back"
    assert final.observation.messages == record.messages
    outcome(env)


def test_a_result_that_just_fits_is_shown_and_the_budget_is_then_spent() -> None:
    env = heavy(tokens=50)
    result = last(env, native(40))
    assert ended(result) == StopReason.MAX_TOKENS
    assert "x" * 40 in said(result.observation)
    assert not any(n.rolled_back for n in env.trajectory.nodes)


def test_several_results_are_rolled_back_together() -> None:
    env = heavy(tokens=50, on_tokens="force")
    one = native(30)
    two = replace(one, calls=one.calls * 2)
    forced = last(env, two)
    assert [n.rolled_back for n in env.trajectory.nodes] == [False, False, True, True, False]
    assert forced.observation.messages == env.trajectory.messages
    check_record(env.trajectory)


def test_tokens_are_those_that_the_engine_counted_where_it_did() -> None:
    env = heavy(tokens=1000)
    text = "word " * 20
    assert last(env, native(1, text)).observation.budget.tokens == 1000 - 10 - len(text.strip()) - 1
    counted = replace(native(1, text), usage=Usage(500, 7))
    assert last(env, counted).observation.budget.tokens == 1000 - 10 - 7 - 1


def test_what_the_environment_says_is_counted_too() -> None:
    env = heavy(tokens=1000, hint_turns=100, turns=50)
    budget = last(env, native(1)).observation.budget.tokens
    assert budget == 1000 - sum(len(m.text) for m in env.trajectory.messages)


# -- seconds


@pytest.mark.parametrize(("rule", "masked"), [("stop", False), ("mask", True)])
def test_when_the_time_is_spent(rule: Any, masked: bool) -> None:
    env = world(seconds=60.0, on_seconds=rule)
    env.reset(seed=0)
    assert at(env, ADD, 58.5).budget.seconds == 2.0
    at(env, ADD, 59.9)
    assert env.episode is not None
    assert env.episode.stop is None
    final = at(env, ADD, 60.0)
    assert final.budget.seconds == 0.0
    assert StopReason(env.episode.stop) is StopReason.MAX_SECONDS
    env.finish()
    assert outcome(env).masked is masked


def test_spent_time_can_force_an_answer() -> None:
    env = world(seconds=60.0, on_seconds="force")
    env.reset(seed=0)
    assert "limit on time is reached" in said(at(env, ADD, 61.0))
    at(env, answer("3"), 99.0)
    assert env.episode is not None
    assert env.episode.stop is StopReason.ANSWER


def test_several_budgets_spent_at_once_still_force_one_answer() -> None:
    env = world(seconds=60.0, on_seconds="force", turns=1, on_turns="force", calls=1, on_calls="force")
    env.reset(seed=0)
    shown = at(env, ADD * 3, 61.0)
    assert env.episode is not None
    assert env.episode.stop is None
    assert said(shown).count("is reached and no tool") == 1


def test_a_forced_answer_may_take_one_turn_more_than_there_are() -> None:
    forced, final = steps(world(calls=1, on_calls="force", turns=1), ADD * 2, answer("3"))
    assert ended(forced) is None
    assert ended(final) == StopReason.ANSWER


def test_an_overflow_that_stops_beats_an_answer_forced_in_the_same_turn() -> None:
    env = heavy(tokens=50, calls=1, on_calls="force")
    one = native(30)
    assert ended(last(env, replace(one, calls=one.calls * 2))) == StopReason.MAX_TOKENS


# -- the machine itself


def test_the_machine_refuses_steps_out_of_turn() -> None:
    env = world()
    env.reset(seed=0)
    assert env.episode is not None
    with pytest.raises(ResetNeededError, match="act"):
        env.episode.observe([], 0.0)
    env.episode.act(Action(ADD))
    with pytest.raises(ResetNeededError, match="observe"):
        env.episode.act(Action(ADD))


def test_every_ending_has_a_reward_or_says_that_it_has_none() -> None:
    rubric = Rubric(Component("right", exact_match))
    for result in (last(world(turns=1), ADD), last(world(invalid_turns=0), ""), last(world(), answer("x"))):
        assert result.reward == 0.0
        assert not result.info["unscored"]
    env = sums(tasks=TaskSet.of([Task("no-reference", (Text("?"),))]), rubric=rubric)
    result = last(env, answer("3"))
    assert math.isnan(result.reward)
    assert result.info["unscored"]


@pytest.mark.parametrize(
    "field", ["turns", "calls", "calls_per_turn", "images", "tokens", "observation_tokens", "seconds"]
)
def test_a_budget_that_allows_nothing_sensible_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        world(**{field: -1})


def test_a_rule_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"on_turns.*halt"):
        world(on_turns="halt")
    with pytest.raises(ConfigError, match="calls_per_tool"):
        world(calls_per_tool={"add": -1})


def test_a_text_with_an_unknown_field_is_refused_before_anything_is_played() -> None:
    with pytest.raises(ValueError, match="hint"):
        sums(texts=Texts(hint='answer as {"answer": ...}'))
