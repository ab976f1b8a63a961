"""Every chat template of TRL's wheel in random episodes: proven to append and then exact, or refused."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if find_spec("trl") is None:
    pytest.skip("TRL's chat templates are not installed", allow_module_level=True)

from agentenv.dialects import DIALECTS
from agentenv.errors import ConfigError
from agentenv.rollout import play
from agentenv.spec import Limits
from agentenv.tokens.renderer import chat
from agentenv.tokens.template import TemplateRenderer
from agentenv.trajectory import Node, Trajectory
from agentenv.types import StopReason
from tests.tokens.holding import invariants
from tests.tokens.monkey import Monkey, tokens_of
from tests.tokens.qwen import qwen_of_all_families, templates
from tests.tokens.turns import FORGED, turns, world, written

_THOUGHTS = "writes a turn with thoughts in another way once a user message follows it"
REFUSED = {
    "glm4moe": "writes nothing at the end of a turn",
    "glm4moe_training": _THOUGHTS,
    "gptoss": "ends a turn with '<|return|>', but with '<|end|>' once",
    "gptoss_training": "ends a turn with '<|return|>', but with '<|end|>' once",
    "qwen3": "writes a turn of text in another way once a user message follows it",
}
"""Why a template can be used for no dialect. All others are proven for native calls, for text, or for both."""
NO_SYSTEM = ("gemma", "gemma_training")
"""These refuse a system message, which is where an environment tells of its tools."""


@cache
def renderer(name: str) -> TemplateRenderer:
    return TemplateRenderer(qwen_of_all_families(), templates()[name], name=name)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_template_that_goes_back_on_what_it_wrote_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        renderer(name)
    assert REFUSED[name] in str(refused.value)


def dialects(name: str) -> list[str]:
    return [dialect for dialect in sorted(DIALECTS) if not renderer(name).refusal(dialect == "native")]


def close(name: str) -> int:
    (token,) = renderer(name).encoded(renderer(name).close)
    return token


@pytest.mark.parametrize("name", sorted(templates().keys() - REFUSED.keys()))
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_whatever_is_sampled_stays_under_every_template(name: str, data: Any) -> None:
    dialect = data.draw(st.sampled_from(dialects(name)))
    drawn = data.draw(turns(dialect))
    policy = Monkey(renderer(name), [tokens_of(turn, close(name)) for turn in drawn])
    record = await played(policy, dialect, data.draw(st.sampled_from(FORGED)))
    if record.stop_reason == StopReason.POLICY_ERROR:
        refused(record, policy)
    else:
        invariants(record, policy)
        assert name not in NO_SYSTEM


async def played(policy: Monkey, dialect: str, question: str) -> Trajectory:
    env = world(dialect, question, limits=Limits(turns=6, invalid_turns=9))
    return Trajectory.from_json((await play(env, policy, env.tasks[0])).to_json())


def refused(record: Trajectory, policy: Monkey) -> None:
    """The episode ended where the template is not proven, for just that reason, or refused the roles or the calls."""
    assert record.outcome is not None
    assert record.outcome.error is not None
    native = record.env.dialect == "native"
    reasons = [reason for (beside, _), reason in policy.renderer.reasons.items() if reason and beside == native]
    said = record.outcome.error.message
    assert "refuses the conversation" in said or any(reason in said for reason in reasons), said
    assert record.calls or "refuses the conversation" in said
    assert record.outcome.error.permanent == ("cannot go on token by token" in said)  # else other tasks may be played


@pytest.mark.parametrize("name", sorted(templates().keys() - REFUSED.keys() - set(NO_SYSTEM)))
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_what_is_appended_is_what_the_template_itself_writes_there(name: str, data: Any) -> None:
    dialect = data.draw(st.sampled_from(dialects(name)))
    words, native = qwen_of_all_families(), dialect == "native"
    said = data.draw(readable(dialect))
    policy = Monkey(renderer(name), [tokens_of((text, 3, closed, 0), close(name)) for text, closed in said])
    record = await played(policy, dialect, "")
    for place, call in enumerate(record.calls):
        path = record.path(call.node)
        context = path[-2].tokens
        assert context is not None
        tools = [tool.openai() for tool in record.env.tools] if native else None
        whole = renderer(name).written(chat([node.message for node in path[:-1]], native=native), tools, opened=True)
        before = up_to(renderer(name), record.path(record.calls[place - 1].node), tools) if place else ""
        assert before + words.decode(list(context.ids)) == whole


def up_to(made: TemplateRenderer, path: list[Node], tools: Any) -> str:
    """What the template writes up to a turn; up to its end where the model sampled that."""
    text = made.turns.before(made.written(chat([node.message for node in path], native=tools is not None), tools))
    assert path[-1].tokens is not None
    return text if made.ends & {*path[-1].tokens.ids[-1:]} else text.removesuffix(made.close)


def readable(dialect: str) -> st.SearchStrategy[list[tuple[str, bool]]]:
    """Turns that a template writes to the letter: words, thoughts, calls, nothing; and whether each is closed."""
    texts = st.lists(st.sampled_from("abc"), min_size=1, max_size=2)
    calls = texts.map(lambda texts: written(dialect, [("note", {"text": text}) for text in texts]))
    thought = calls.map(lambda call: f"<think>\nso\n</think>\n\n{call}")
    text = st.one_of(calls, thought, st.just("words"), st.just(""))
    return st.lists(st.tuples(text, st.booleans()), min_size=1, max_size=4)
