"""The model client against a real server: what is sent, and what becomes of what comes back."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from agentenv.errors import ConfigError, PolicyError
from agentenv.policy import OpenAIPolicy, make_policy
from agentenv.policy.openai import without_secrets
from agentenv.policy.wire import read_call, restored
from agentenv.types import Image, Message, Observation, Table, Text, Tokens, ToolCall, Usage, Video
from tests.policy.chat_server import ChatServer, chat_server, completion, delta, status, stream
from tests.policy.words import TOOLS, seen, task

PNG = b"\x89PNG rest"
PICTURE = Image("ab" * 32, "image/png", 4, 3, handle="image_1")


def policy_of(server: ChatServer, **options: Any) -> OpenAIPolicy:
    return OpenAIPolicy("good-model", server.url, **{"pause": 0.001, **options})


async def taken(answer: dict[str, Any], observation: Observation | None = None, **options: Any) -> Any:
    async with chat_server() as server:
        server.answer = answer
        policy = policy_of(server, **options)
        action = await policy.act(observation or seen())
        await policy.close()
        return action, server.requests[0]


async def test_text_dialect_sends_text_and_stops_and_no_tools() -> None:
    calls = (ToolCall("call_0", "table_query", '{"sql": "x"}', {"sql": "x"}),)
    history = (
        Message("user", (Text("q"),)),
        Message("assistant", (Text("<tool_call>raw</tool_call>"),), calls, raw="<tool_call>raw</tool_call>"),
        Message("tool", (Table("a | 1", ("a",), ((1,),), 1),), call_id="call_0"),
    )
    action, sent = await taken(completion("hi"), seen(*history, stop=("</tool_call>",)), temperature=0.5, stop=("END",))
    assert action.text == "hi"
    assert action.usage == Usage(10, 5)
    assert sent == {
        "model": "good-model",
        "temperature": 0.5,
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "<tool_call>raw</tool_call>"},
            {"role": "user", "content": "a | 1"},
        ],
        "stop": ["</tool_call>", "END"],
    }


async def test_native_dialect_sends_tools_and_keeps_arguments_to_the_letter() -> None:
    raw = '{"sql":  "caf\\u00e9", "sql": 1.0}'
    item = {"id": "abc", "type": "function", "function": {"name": "table_query", "arguments": raw}}
    answer = completion({"content": None, "tool_calls": [item], "reasoning_content": "hm"}, "tool_calls")
    action, sent = await taken(answer, seen(dialect="native"))
    assert action.calls == (ToolCall("abc", "table_query", raw, {"sql": 1.0}),)
    assert (action.text, action.reasoning, action.finish_reason) == ("", "hm", "tool_calls")
    assert sent["tools"] == [tool.openai() for tool in TOOLS]

    history = (
        Message("user", (Text("q"),)),
        Message("assistant", (Text(""),), action.calls, "hm"),
        Message("tool", (Text("3"),), name="table_query", call_id="abc"),
        Message("assistant", (Text("so"),), (ToolCall("d", "x", '{"a', None, "broken"),)),
    )
    _, sent = await taken(completion("done"), seen(*history, dialect="native", tools=()), send_reasoning=True)
    assert "tools" not in sent
    assert sent["messages"][1] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [item],
        "reasoning_content": "hm",
    }
    assert sent["messages"][2] == {"role": "tool", "content": "3", "tool_call_id": "abc", "name": "table_query"}
    assert json.loads(sent["messages"][3]["tool_calls"][0]["function"]["arguments"]) == {"invalid_arguments": '{"a'}


async def test_reasoning_goes_back_in_the_field_it_came_from() -> None:
    async with chat_server() as server:
        server.answer = completion({"content": "4", "reasoning": "two and two"})
        policy = policy_of(server, send_reasoning=True)
        action = await policy.act(seen())
        assert action.reasoning == "two and two"
        await policy.act(seen(Message("assistant", (Text("4"),), reasoning="two and two")))
        await policy.act(seen(Message("assistant", (Text("<think>two and two</think>4"),), reasoning="two and two")))
        await policy.close()
    assert server.requests[1]["messages"][0]["reasoning"] == "two and two"
    assert "reasoning" not in server.requests[2]["messages"][0]


@pytest.mark.parametrize(
    ("text", "stops", "hit", "whole"),
    [
        ("<sql>SELECT 1", ("</sql>", "</answer>"), None, "<sql>SELECT 1</sql>"),
        ("<sql>SELECT 1", ("</sql>", "</answer>"), "</sql>", "<sql>SELECT 1</sql>"),
        ("<sql>SELECT 1</sql>", ("</sql>",), "</sql>", "<sql>SELECT 1</sql>"),
        ("<sql>1</sql><answer>2", ("</sql>", "</answer>"), None, "<sql>1</sql><answer>2</answer>"),
        ("so it is 3", ("</sql>", "</answer>"), None, "so it is 3"),
        ("so it is 3", ("END", "</answer>"), None, "so it is 3"),
        ("so it is 3", ("END",), "END", "so it is 3END"),
        ("so it is 3", ("END",), "other", "so it is 3"),
    ],
)
async def test_a_stop_string_that_was_cut_off_is_put_back(
    text: str, stops: tuple[str, ...], hit: str | None, whole: str
) -> None:
    assert restored(text, stops, hit) == whole
    for field in ("stop_reason", "matched_stop"):
        told: dict[str, Any] = {field: hit}
        action, _ = await taken(completion(text, **told), seen(stop=stops))
        assert action.text == whole
    action, _ = await taken(completion(text, "length"), seen(stop=stops))
    assert (action.text, action.finish_reason) == (text, "length")


async def test_images_travel_as_data_and_are_never_dropped() -> None:
    shown = Message("user", (Text("look"), PICTURE, Table("t", ("a",), (), 0)))
    found = Message("tool", (Text("crop"), PICTURE), call_id="c")
    history = seen(shown, Message("assistant", (Text("ok"),)), found, dialect="native")
    data = "data:image/png;base64," + base64.b64encode(PNG).decode()
    _, sent = await taken(completion("x"), history, media=lambda sha256: PNG)
    image = {"type": "image_url", "image_url": {"url": data}}
    parts = [{"type": "text", "text": "look"}, image, {"type": "text", "text": "t"}]
    assert sent["messages"][0] == {"role": "user", "content": parts}
    assert sent["messages"][2]["content"] == [{"type": "text", "text": "crop"}, image]

    for more in ((), (Message("user", (Text("and?"),)),)):
        moved = seen(*history.messages, Message("tool", (PICTURE,), call_id="d"), *more, dialect="native")
        _, sent = await taken(completion("x"), moved, media=lambda sha256: PNG, tool_media="user")
        assert [message["role"] for message in sent["messages"][:5]] == ["user", "assistant", "tool", "tool", "user"]
        assert [message["content"] for message in sent["messages"][2:4]] == ["crop", "(see the image below)"]
        captions = [{"type": "text", "text": f"(The image returned by call {name}:)"} for name in "cd"]
        assert sent["messages"][4]["content"] == [captions[0], image, captions[1], image]

    with pytest.raises(PolicyError, match=r"image image_1 cannot be sent, since its bytes are not to be had: no media"):
        await taken(completion("x"), history)
    video = Message("user", (Text("look"), Video("cd" * 32, "video/mp4", 4, 3, 1.0, 25.0)))
    with pytest.raises(PolicyError, match="the video cdcdcdcdcdcd comes without frames"):
        await taken(completion("x"), seen(video), media=lambda sha256: PNG)


async def test_an_image_can_be_sent_by_its_url() -> None:
    shown = Message("user", (Text("look"), PICTURE))
    _, sent = await taken(completion("x"), seen(shown), image_url=lambda image: f"http://127.0.0.1/{image.sha256}.png")
    url = {"url": f"http://127.0.0.1/{PICTURE.sha256}.png"}
    assert sent["messages"][0]["content"] == [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": url}]


async def test_a_caption_names_the_tool_and_counts() -> None:
    found = Message("tool", (Text("two"), PICTURE, PICTURE), name="image_zoom", call_id="c7")
    asked = Message("assistant", (Text(""),), (ToolCall("c7", "image_zoom", "{}", {}),))
    native = seen(Message("user", (Text("q"),)), asked, found, dialect="native")
    options = {"media": lambda sha256: PNG, "tool_media": "user"}
    _, sent = await taken(completion("x"), native, **options)
    assert sent["messages"][2]["content"] == "two"
    assert sent["messages"][3]["content"][0]["text"] == "(The 2 images returned by image_zoom, call c7:)"
    assert len(sent["messages"][3]["content"]) == 3
    _, sent = await taken(completion("x"), seen(*native.messages), **options)  # a text dialect has no tool messages
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]
    assert [item["type"] for item in sent["messages"][2]["content"]] == ["text", "image_url", "image_url"]


async def test_each_turn_has_a_seed_of_its_own_that_can_be_had_again() -> None:
    async with chat_server() as server:
        policy = policy_of(server)
        for sample in (0, 0, 1):
            episode = policy.begin(task(), seed=7, sample=sample)
            await episode.act(seen())
            await episode.act(seen())
        await policy.close()
        policy = policy_of(server, seed=False)
        await policy.begin(task(), seed=7).act(seen())
        await policy.close()
    seeds = [request.get("seed") for request in server.requests]
    assert seeds[:2] == seeds[2:4]
    assert len(set(seeds[2:6])) == 4
    assert all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in seeds[:6])
    assert seeds[6] is None


async def test_cost_comes_from_the_prices_or_from_the_server() -> None:
    action, _ = await taken(completion("x"), prices=(1.0, 4.0))
    assert action.usage == Usage(10, 5, 30e-6)
    stated = completion("x") | {"usage": {"prompt_tokens": 3, "completion_tokens": 2, "cost": 0.25}}
    assert (await taken(stated))[0].usage == Usage(3, 2, 0.25)
    assert (await taken(completion("x") | {"usage": None}))[0].usage is None
    assert (await taken(completion("x") | {"usage": {"prompt_tokens": None}}))[0].usage == Usage()


async def test_odd_answers_become_actions() -> None:
    items = [{"type": "text", "text": "a"}, {"type": "other"}, "no", {"text": "b"}]
    assert (await taken(completion({"content": items})))[0].text == "ab"
    assert (await taken(completion({"content": 3})))[0].text == ""
    big = "x" * 10_000_000 + "\x00<|im_end|>"
    assert (await taken(completion(big)))[0].text == big
    action, _ = await taken(
        completion({"content": None, "tool_calls": [None, {"function": 3}, {}]}), seen(dialect="native")
    )
    assert action.calls == (ToolCall("", "", "", {}),) * 3
    beside = completion({"content": "", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]})
    assert (await taken(beside))[0].calls == (ToolCall("a", "f", "{}", {}),)  # the text dialect says what is wrong


def test_calls_are_read_whatever_they_hold() -> None:
    decoded_already = {"function": {"name": "f", "arguments": {"a": 1}}}
    assert read_call(decoded_already) == ToolCall("", "f", '{"a":1}', {"a": 1})
    assert read_call({"id": "i", "function": {"name": "f", "arguments": None}}) == ToolCall("i", "f", "", {})
    for raw in ("{", "[1]", "3", "[" * 5000, "nonsense", "\ud800"):
        call = read_call({"function": {"name": "f", "arguments": raw}})
        assert (call.arguments_raw, call.arguments) == (raw, None)
        assert call.error


async def test_extra_fields_win_and_their_secrets_stay_out_of_the_record() -> None:
    extra = {"temperature": 0, "top_k": 5, "api_key": "planted", "nested": [{"password": "planted", "max_tokens": 3}]}
    async with chat_server() as server:
        policy = policy_of(server, temperature=1.0, extra_body=extra, max_tokens=9)
        await policy.act(seen())
        await policy.close()
    assert server.requests[0]["temperature"] == 0
    assert server.requests[0]["api_key"] == "planted"
    assert "planted" not in repr(policy.info)
    assert policy.info.settings["extra_body"]["nested"] == [{"password": "***", "max_tokens": 3}]
    assert without_secrets({"access_token": 1, "stop_token_ids": [2]}) == {"access_token": "***", "stop_token_ids": [2]}
    assert (policy.info.name, policy.info.model, policy.info.settings["max_tokens"]) == ("openai", "good-model", 9)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("temperature", value) for value in ("hot", -0.1, True, float("nan"), float("inf"))),
        *(("top_p", value) for value in (-0.1, 1.1, "1")),
        *(("max_tokens", value) for value in (-5, 0, 1.5)),
        *(("timeout", value) for value in ("abc", 0, None, float("nan"))),
        *(("deadline", value) for value in ("abc", -1)),
        *(("retries", value) for value in (-1, 1.0, "2")),
        *(("pause", value) for value in (-1, "x")),
        *(("concurrency", value) for value in (0, "many")),
        *(("stop", value) for value in ("END", 3, [1])),
        *(("prices", value) for value in ("12", 3, (1,), (1, -1))),
        ("extra_body", [1]),
        *((flag, "no") for flag in ("seed", "stream", "send_reasoning", "trust_env", "native")),
    ],
)
def test_wrong_options_are_said_when_the_policy_is_made(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{option}.*: expected ") as caught:
        make_policy("openai:m", base_url="http://127.0.0.1:1/v1", **{option: value})
    assert option == "prices" or repr(value) in str(caught.value) or type(value).__name__ in str(caught.value)


def test_options_at_their_bounds_are_taken() -> None:
    least: dict[str, Any] = {"temperature": 0, "top_p": 0, "max_tokens": 1, "retries": 0, "pause": 0, "concurrency": 1}
    least |= {"timeout": float("inf"), "deadline": float("inf"), "prices": [0, 0.5], "stop": ["END"]}
    assert make_policy("openai:m", base_url="http://127.0.0.1:1/v1", **least).info.settings["temperature"] == 0


async def test_a_prompt_that_is_too_long_is_a_turn_cut_short() -> None:
    body = {"error": {"message": "This model's maximum context length is 2048 tokens.", "code": 400}}
    async with chat_server() as server:
        server.faults = [status(400, body), status(400, {"error": {"message": "bad temperature"}})]
        policy = policy_of(server)
        action = await policy.act(seen())
        assert (action.text, action.finish_reason) == ("", "length")
        with pytest.raises(PolicyError, match="answered 400: bad temperature"):
            await policy.act(seen())
        await policy.close()


async def test_streaming_puts_the_pieces_together() -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "table_query", "arguments": ""}}
    pieces: list[str] = []
    events = [
        delta("Ö", change={"role": "assistant"}, token_ids=[1], logprobs={"content": [{"logprob": -1.0}]})
        | {"prompt_token_ids": [8, 9]},
        delta("slo", token_ids=[2], logprobs={"content": [{"logprob": -2.0}]}),
        delta(change={"reasoning_content": "hm"}),
        delta(change={"tool_calls": [call]}),
        delta(change={"tool_calls": [{"index": 0, "function": {"arguments": '{"sql"'}}]}),
        delta(change={"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}),
        delta(finish="stop"),
        {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}},
    ]
    async with chat_server() as server:
        server.faults = [
            stream(*events),
            stream(delta("<sql>1"), delta(finish="stop", stop_reason="</sql>"), done=False),
        ]
        policy = policy_of(server, on_delta=pieces.append, capture="ids")
        action = await policy.act(seen(dialect="native"))
        await policy.close()
        policy = policy_of(server, on_delta=pieces.append)
        second = await policy.act(seen(stop=("</sql>",)))
        await policy.close()
    assert server.requests[0]["stream"] is True
    assert action.context == Tokens((8, 9))
    assert (action.text, action.reasoning, pieces) == ("Öslo", "hm", ["Ö", "slo", "<sql>1"])
    assert action.calls == (ToolCall("c1", "table_query", '{"sql": 1}', {"sql": 1}),)
    assert (action.token_ids, action.logprobs, action.usage) == ((1, 2), (-1.0, -2.0), Usage(7, 2))
    assert second.text == "<sql>1</sql>"


@pytest.mark.parametrize(
    "broken",
    [
        stream("{nonsense"),
        stream("[1]"),
        stream({"error": {"message": "out of memory"}}),
        stream(delta("half")),
        stream(delta("half"), abort=True),
    ],
)
async def test_a_broken_stream_is_tried_again_unless_it_was_shown(broken: Any) -> None:
    async with chat_server() as server:
        server.faults = [broken, stream(delta("whole"), delta(finish="stop"))]
        policy = policy_of(server, stream=True)
        action = await policy.act(seen())
        assert (action.text, action.retries) == ("whole", 1)
        for error in (stream(delta("half"), "{nonsense"), stream(delta("half"))):
            server.faults = [error]
            shown = policy_of(server, on_delta=lambda piece: None)
            with pytest.raises(PolicyError, match="stream"):
                await shown.act(seen())
            await shown.close()
        await policy.close()


async def test_a_server_that_does_not_stream_is_read_all_the_same() -> None:
    action, _ = await taken(completion("plain"), stream=True)
    assert action.text == "plain"


async def test_a_thousand_turns_at_once_stay_below_the_limit() -> None:
    async with chat_server() as server:
        server.delay = 0.005
        policy = policy_of(server, concurrency=50)
        actions = await asyncio.gather(*(policy.begin(task(), seed=i).act(seen()) for i in range(1000)))
        await policy.close()
    assert len(actions) == len(server.requests) == 1000
    assert server.most <= 50


def test_settings_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL"):
        OpenAIPolicy("m")
    for address in ("ftp://x/v1", "127.0.0.1:8000", "http://", "http://[bad", "http://xn--a/v1", "http://..%/v1"):
        with pytest.raises(ConfigError, match="base_url"):
            OpenAIPolicy("m", address)
    with pytest.raises(ConfigError, match="MY_KEY is not set"):
        OpenAIPolicy("m", "http://x", api_key_env="MY_KEY")
    with pytest.raises(ConfigError, match="capture"):
        make_policy("openai:m", base_url="http://x", capture="everything")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1/")
    assert repr(make_policy("openai:a/b:c")) == "<OpenAIPolicy a/b:c at http://127.0.0.1:1/v1>"
