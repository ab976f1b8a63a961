"""What a chat template appends, against the template itself: every template of TRL's wheel, the real Qwen BPE."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentenv import tokens as t
from agentenv.dialects import DIALECTS
from agentenv.errors import ConfigError, MissingExtraError, PolicyError
from agentenv.rollout import play
from agentenv.spec import Limits
from agentenv.tokens.conversation import context_of, prompt_of
from agentenv.tokens.package import PackageRenderer, knows
from agentenv.tokens.template import TemplateRenderer
from agentenv.trajectory import Trajectory
from agentenv.types import Image, Message, StopReason, Text, Tokens, ToolCall
from tests.policy.words import TOOLS, seen
from tests.tokens.holding import invariants
from tests.tokens.monkey import CALL, Monkey, odd_split, tokens_of
from tests.tokens.qwen import qwen, qwen_renderer, templates
from tests.tokens.turns import FORGED, turns, world
from tests.worlds import sums

APPENDING = ("qwen2_5", "qwen3_training", "qwen3_instruct_2507", "qwen3_vl", "qwen3_8", "qwen3_5_think_training")
REWRITING = ("qwen3", "nemotron_3_nano", "lfm2_2_5")


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), template=st.sampled_from(APPENDING), question=st.sampled_from(("", *FORGED)))
async def test_whatever_is_sampled_stays_as_it_was_sampled(
    dialect: str, data: Any, template: str, question: str
) -> None:
    policy = Monkey(qwen_renderer(template), [tokens_of(turn) for turn in data.draw(turns(dialect))])
    env = world(dialect, question, limits=Limits(turns=6, invalid_turns=9, calls_per_turn=2))
    record = await play(env, policy, env.tasks[0])
    assert record.outcome is not None
    assert record.outcome.error is None
    record = Trajectory.from_json(record.to_json())
    invariants(record, policy)
    # Only what the environment said is control text: what a model or a tool wrote cannot forge a turn.
    (segments,) = t.streams(record)
    opened = "<|im_start|>"
    given_ids = [token for segment in segments if not segment.sampled for token in segment.ids]
    roles = [node.message.role for node in record.path() if node.origin != "sampled"]
    written = given_ids.count(qwen().convert_tokens_to_ids(opened)) - question.count(opened)
    assert written <= len(roles) + len(policy.prompts) + 1


@pytest.mark.parametrize("name", APPENDING)
def test_the_suffix_is_what_the_template_writes(name: str) -> None:
    renderer = qwen_renderer(name)
    first = Message("user", (Text("what is 1 + 2?"),))
    said = "<think>\nadd\n</think>\n\nI add."
    for native in (False, True):
        call = ToolCall("call_0", "table_query", '{"sql": "x"}', {"sql": "x"})
        turn = Message(
            "assistant", (Text(said if not native else "I add."),), (call,) if native else (), "add" if native else ""
        )
        result = Message("tool", (Text("3 }}\n"),), name="table_query", call_id="call_0")
        added = renderer.bridge((1, renderer.tokenizer.eos_token_id), 1, (result,), TOOLS, native=native)
        assert isinstance(added, Tokens)
        whole = renderer.prompt((first, turn, result), TOOLS, native=native).ids
        assert whole[-len(added.ids) :] == added.ids
        cut = renderer.bridge((1, 2), 1, (result,), TOOLS, native=native)
        assert isinstance(cut, Tokens)
        assert whole[-len(cut.ids) :] == cut.ids
        assert cut.ids[: -len(added.ids)][-1] == renderer.tokenizer.eos_token_id
        assert added.ids[0] == 198  # the newline behind the end of the turn is the environment's


@pytest.mark.parametrize("name", REWRITING)
async def test_a_template_that_rewrites_is_refused_or_forks_in_the_record(name: str) -> None:
    text = templates()[name]
    if name == "qwen3":
        with pytest.raises(ConfigError, match=r"another way once .*chat_template=.*forks=True"):
            TemplateRenderer(qwen(), text)
    renderer = TemplateRenderer(qwen(), text, forks=True)
    turns = [tokens_of((f"<think>\nso\n</think>\n\n{CALL}", 0, True, 0)), tokens_of(("<answer>3</answer>", 0, True, 0))]
    strict, loose = Monkey(renderer, turns), Monkey(renderer, turns, forks=True)
    env = sums()
    record = await play(env, strict, env.tasks[0])
    assert record.stop_reason == StopReason.POLICY_ERROR
    assert record.outcome is not None
    assert record.outcome.error is not None
    assert "Nothing that was sampled is tokenised again" in record.outcome.error.message
    assert record.outcome.error.permanent
    record = await play(env, loose, env.tasks[0])
    assert record.stop_reason == StopReason.ANSWER
    first, second = t.streams(record)
    assert [sum(t.flat(one).mask) for one in (first, second)] == [len(turns[0][0]), len(turns[1][0])]
    assert tuple(t.flat(second[:-1]).ids) == loose.prompts[1]
    assert any("another way" in node.tokens.fork for node in record.nodes if node.tokens)


def test_a_teachers_turns_are_context_and_no_one_elses_samples() -> None:
    observation = seen(
        Message("user", (Text("q"),)), Message("assistant", (Text("a"),)), Message("user", (Text("more"),))
    )
    prompt = prompt_of(qwen_renderer("qwen2_5"), observation)
    assert prompt.context.fork == "turns in it came without token ids"


@pytest.mark.parametrize(
    "known",
    [(None, (7,), None), ((1,), (7,), None, None, (4,), (9,), None)],
    ids=["what came before a turn", "a turn between others"],
)
def test_a_stream_with_a_gap_is_no_stream(known: tuple[tuple[int, ...] | None, ...]) -> None:
    said = [Message("assistant" if place % 2 else "user", (Text("x"),)) for place in range(len(known))]
    observation = seen(*said, tokens=tuple(None if ids is None else Tokens(ids) for ids in known))
    renderer = qwen_renderer("qwen2_5")
    with pytest.raises(PolicyError, match="given before an earlier turn is not known"):
        prompt_of(renderer, observation)
    assert "is not known" in prompt_of(renderer, observation, forks=True).context.fork
    assert context_of(observation, [1, 7, 4]).fork == "turns in it came without token ids"


def test_the_package_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "renderers", None)
    monkeypatch.delitem(sys.modules, "renderers.base", raising=False)
    assert not knows(qwen())
    with pytest.raises(MissingExtraError, match=r"the renderer 'qwen3' needs the package 'renderers'"):
        PackageRenderer(qwen(), "qwen3")


def test_end_tokens_that_the_tokenizer_lacks_are_named() -> None:
    with pytest.raises(
        ConfigError, match=r"ends a turn with '<\|eot\|>', for which its tokenizer has no token of its own"
    ):
        TemplateRenderer(qwen(), "{% for m in messages %}{{ m.content }}<|eot|>{% endfor %}")
    with pytest.raises(ConfigError, match="writes nothing at the end of a turn"):
        TemplateRenderer(qwen(), "{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(ConfigError, match="leaves out what the model says"):
        TemplateRenderer(qwen(), "hello<|im_end|>")
    with pytest.raises(ConfigError, match="a base model has none"):
        TemplateRenderer(qwen())


def test_the_package_renders_as_the_template_does_and_appends_the_same() -> None:
    assert knows(qwen())
    package = PackageRenderer(qwen())
    template = TemplateRenderer(qwen(), templates()["qwen3"], forks=True)
    messages = (Message("system", (Text("be brief"),)), Message("user", (Text("what is 1 + 2?"),)))
    for native in (False, True):
        assert package.prompt(messages, TOOLS, native=native).ids == template.prompt(messages, TOOLS, native=native).ids
    ids = (*package.prompt(messages, TOOLS, native=True).ids, *odd_split(CALL, 3), qwen().eos_token_id)
    count = len(odd_split(CALL, 3)) + 1
    result = Message("tool", (Text("3"),), name="add", call_id="call_0")
    added = package.bridge(ids, count, (result,), TOOLS, native=True)
    ours = qwen_renderer("qwen3_training").bridge(ids, count, (result,), TOOLS, native=True)
    assert isinstance(added, Tokens)
    assert isinstance(ours, Tokens)
    assert added.ids == ours.ids
    cut = package.bridge(ids[:-1], count - 1, (result,), TOOLS, native=True)
    assert isinstance(cut, Tokens)
    assert cut.ids == (qwen().eos_token_id, *added.ids)
    assert isinstance(package.bridge(ids, count, (Message("user", (Text("and now?"),)),), TOOLS, native=True), str)
    assert package.decoded(ids[-count:]) == CALL
    assert package.settings["renderer"] == "Qwen3Renderer"
    with pytest.raises(ConfigError, match="no renderer 'nope'"):
        PackageRenderer(qwen(), "nope")
    shown = Message("user", (Image("ab" * 32, "image/png", 8, 8),))
    with pytest.raises(PolicyError, match="text-only; image part found"):
        package.prompt((shown,), TOOLS, native=False)


def test_arguments_that_do_not_decode_still_render() -> None:
    call = ToolCall("c", "add", "{broken", None, "cannot be read")
    turn = Message("assistant", (), (call,), "thoughts")
    prompt = qwen_renderer("qwen2_5").prompt((Message("user", (Text("q"),)), turn), TOOLS, native=True)
    assert json.dumps({"invalid_arguments": "{broken"}) in qwen().decode(list(prompt.ids))
