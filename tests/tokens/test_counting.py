"""Counting what messages cost a model, against the streams that it was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agentenv import tokens as t
from agentenv.errors import ConfigError, PolicyError, UnknownNameError
from agentenv.policy.rendering import load_renderer
from agentenv.registry import make
from agentenv.rollout import play
from agentenv.spec import Limits
from agentenv.tokens.package import PackageRenderer
from agentenv.tokens.template import TemplateRenderer
from agentenv.tool import tool
from agentenv.types import Message, StopReason, Text, ToolCall, Video
from tests.policy.tiny_vision import picture, tiny_vision
from tests.policy.words import TOOLS
from tests.tokens.monkey import CALL, Monkey, tokens_of
from tests.tokens.qwen import qwen, qwen_renderer, templates
from tests.worlds import sums

ANSWER = "<answer>3</answer>"


def said(role: Any, text: str, **more: Any) -> Message:
    return Message(role, (Text(text),), **more)


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3_training", "qwen3_vl"])
async def test_messages_add_up_to_the_stream_of_the_model(name: str) -> None:
    turns = [tokens_of((CALL, every, True, 0)) for every in (0, 3)] + [tokens_of((ANSWER, 2, True, 0))]
    policy = Monkey(qwen_renderer(name), turns)
    env = sums(limits=Limits(tokens=10_000), count=t.counter(policy))
    observation = env.reset(seed=0).observation
    for _ in turns:
        action = await policy.act(observation)
        assert env.episode is not None
        assert env.episode.used.tokens == len(policy.prompts[-1])
        observation = env.step(action).observation
    assert env.episode is not None
    assert env.episode.used.tokens == len(t.flat(t.stream(env.trajectory)).ids)


async def test_an_observation_beyond_the_limit_is_rolled_back_to_the_token() -> None:
    turns = [tokens_of((CALL, 0, True, 0)), tokens_of((ANSWER, 0, True, 0))]
    whole = sums()
    record = await play(whole, Monkey(qwen_renderer("qwen2_5"), turns), whole.tasks[0])
    room = len(t.flat(t.stream(record)[:3]).ids)
    for spare, reason in ((len(turns[1][0]), StopReason.ANSWER), (-1, StopReason.MAX_TOKENS)):
        policy = Monkey(qwen_renderer("qwen2_5"), turns)
        env = sums(limits=Limits(tokens=room + spare), count=t.counter(policy))
        record = await play(env, policy, env.tasks[0])
        assert record.stop_reason == reason
        assert any(node.rolled_back for node in record.nodes) == (spare < 0)


@settings(max_examples=20, deadline=None)
@given(text=st.text(max_size=40))
def test_a_turn_that_nobody_counted_counts_what_the_template_writes(text: str) -> None:
    renderer = qwen_renderer("qwen3_8")
    count = t.counter(renderer)
    turn = said("assistant", text)
    first, then = said("user", "q"), said("user", "more")
    whole = len(renderer.prompt((said("system", "s"), first, turn, then), (), native=False).ids)
    assert whole == sum(map(count, (said("system", "s"), first, turn, then)))


def test_native_calls_and_the_list_of_tools_count() -> None:
    renderer = qwen_renderer("qwen2_5")
    count = t.counter(renderer, tools=TOOLS)
    calls = tuple(ToolCall(f"call_{n}", "table_head", '{"table": "a"}', {"table": "a"}) for n in range(2))
    turn = Message("assistant", (Text("I look."),), calls)
    result = said("tool", "three rows", name="table_head", call_id="call_0")
    messages = (said("system", "s"), said("user", "q"), replace(turn, calls=calls[:1]), result)
    assert sum(map(count, messages)) == len(renderer.prompt(messages, TOOLS, native=True).ids)
    assert count(turn) > count(messages[2])


def test_media_count_as_the_model_sees_them() -> None:
    _, processor = tiny_vision("qwen3-vl")
    renderer = load_renderer(processor)
    count = t.counter(renderer)
    image = picture(120, 90)
    bare, shown = said("user", "see "), Message("user", (Text("see "), image))
    assert count(shown) - count(bare) == 12 + 2  # patches of 32 x 32 px, and the two marks around them
    frames = tuple(picture(64, 64, seed).sha256 for seed in (1, 2))
    clip = Video("ab" * 32, "video/mp4", 64, 64, 1.0, 2.0, frames=frames, times=(0.0, 1.0))
    assert count(Message("user", (clip,))) == count(Message("user", clip.as_frames()))
    with pytest.raises(PolicyError, match="text-only; image part found"):
        t.counter(qwen_renderer("qwen2_5"))(shown)


@tool
def page() -> str:
    """Read a long page."""
    return "the quick brown fox jumps over the lazy dog, " * 40_000


def test_a_long_result_is_cut_to_the_token() -> None:
    count = t.counter(qwen_renderer("qwen2_5"))
    env = sums(tools=(page,), limits=Limits(observation_tokens=100), count=count)
    env.reset(seed=0)
    seen = env.step('<tool_call>{"name": "page", "arguments": {}}</tool_call>').observation
    text = seen.messages[-1].text.split("[cut")[0].split("<tool_response>\n")[-1].removesuffix("\n")
    assert len(qwen()(text)["input_ids"]) in (99, 100)


def test_a_template_that_rewrites_still_counts_what_it_writes_and_the_rest_is_said() -> None:
    plain = TemplateRenderer(qwen(), templates()["qwen3"], forks=True)
    count = t.counter(plain)
    asked = said("user", "q")
    assert count(asked) == len(plain.prompt((asked,), (), native=False).ids)
    package = t.counter(PackageRenderer(qwen()), tools=TOOLS)
    assert package(said("tool", "3", name="table_head", call_id="c")) > 5
    with pytest.raises(PolicyError, match="the tokens of a result cannot be counted"):
        t.counter(plain, tools=TOOLS)(said("tool", "3", name="table_head", call_id="c"))
    with pytest.raises(ConfigError, match="has no chat template"):
        t.counter(qwen())


async def test_a_record_rebuilds_an_environment_that_counts_the_same(tmp_path: Path) -> None:
    from transformers import AutoConfig

    qwen().save_pretrained(tmp_path)
    AutoConfig.for_model("qwen2", vocab_size=len(qwen())).save_pretrained(tmp_path)
    count = {"model": str(tmp_path), "renderer": "template", "chat_template": templates()["qwen2_5"]}
    env = make("tests.worlds:sums", count=count)
    assert env.env_spec.kwargs["count"] == count
    asked = said("user", "what is 1 + 2?")
    twin = make(env.env_spec.entry_point, **env.env_spec.kwargs)
    assert twin.env_spec == env.env_spec
    assert twin.rules.count(asked) == env.rules.count(asked) == t.counter(qwen_renderer("qwen2_5"))(asked)
    with pytest.raises(UnknownNameError, match="chat_template"):
        make("tests.worlds:sums", count={"model": str(tmp_path), "chat_templat": "x"})
    with pytest.raises(ConfigError, match="whose tokens"):
        make("tests.worlds:sums", count={})
    with pytest.raises(ConfigError, match="count: there is no model folder"):
        make("tests.worlds:sums", count=str(tmp_path / "nowhere"))
