"""Ids of a chat server: taken as they are, held against the conversation, refused where they cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from agentenv import tokens as t
from agentenv.errors import ConfigError, PolicyError
from agentenv.policy import OpenAIPolicy, make_policy
from agentenv.rollout import play
from agentenv.trajectory import Trajectory
from agentenv.types import Action, Image, Message, Observation, Text, Tokens, Video
from tests.policy.chat_server import ChatServer, chat_server, completion, delta, status, stream
from tests.policy.chat_server import text as reply
from tests.policy.tiny import TEMPLATE, tiny
from tests.policy.tiny_vision import picture, tiny_vision
from tests.policy.words import seen
from tests.worlds import sums

CALL = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
ANSWER = "<answer>3</answer>"
LOGPROBS = {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1}]}
WHOLE = completion("ab", token_ids=[5, 6], logprobs=LOGPROBS) | {"prompt_token_ids": [1, 2, 3]}


def policy_of(server: ChatServer, **options: Any) -> OpenAIPolicy:
    return OpenAIPolicy("good-model", server.url, **{"pause": 0.001, "capture": "ids", "retries": 0, **options})


async def taken(answer: dict[str, Any], observation: Observation | None = None, **options: Any) -> Any:
    async with chat_server() as server:
        server.answer = answer
        policy = policy_of(server, **options)
        try:
            return await policy.act(observation or seen()), server.requests[0]
        finally:
            await policy.close()


def ids_of(text: str) -> list[int]:
    ids: list[int] = tiny()[1](text, add_special_tokens=False)["input_ids"]
    return ids


def serving(says: Callable[[int], list[int]], template: str = TEMPLATE) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A server that tokenises the messages of each request itself, and samples what it is told, by turn."""
    words = tiny()[1]

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        more = {"chat_template": template, "tokenize": False, "add_generation_prompt": True}
        written = words.apply_chat_template(request["messages"], **more, **request.get("chat_template_kwargs", {}))
        ids = says(sum(message["role"] == "assistant" for message in request["messages"]))
        entries = [{"logprob": -1.0}] * len(ids)
        text = words.decode([token for token in ids if token != words.eos_token_id])
        return completion(text, token_ids=ids, logprobs={"content": entries}) | {"prompt_token_ids": ids_of(written)}

    return answer


def turns(*texts: str) -> Callable[[int], list[int]]:
    """Turns as the tokenizer would write them."""
    return lambda turn: [*ids_of(texts[turn]), tiny()[1].eos_token_id]


def odd_turns(*texts: str) -> Callable[[int], list[int]]:
    """The same turns, sampled a character at a time."""
    return lambda turn: [*(one for letter in texts[turn] for one in ids_of(letter)), tiny()[1].eos_token_id]


async def played(answer: Any, **options: Any) -> Trajectory:
    env = sums()
    async with chat_server() as server:
        if callable(answer):
            server.answer = answer
        else:
            server.faults = [reply(msgspec.json.encode(one).decode()) for one in answer]
        policy = policy_of(server, **options)
        record = await play(env, policy, env.tasks[0])
        await policy.close()
    return Trajectory.from_json(record.to_json())


def forks(record: Trajectory) -> list[str]:
    return [node.tokens.fork for node in record.nodes if node.tokens is not None and node.tokens.fork]


def error_of(record: Trajectory) -> str:
    assert record.outcome is not None
    assert record.outcome.error is not None
    assert record.outcome.error.permanent == ("an earlier turn" not in record.outcome.error.message)
    return record.outcome.error.message


# -- what a server says ----------------------------------------------------------------------------------------------


async def test_ids_and_logprobs_are_taken_where_the_server_gives_them() -> None:
    action, sent = await taken(WHOLE)
    assert (action.token_ids, action.logprobs, action.context) == ((5, 6), (-0.5, -1.0), Tokens((1, 2, 3)))
    assert sent["return_token_ids"] is True
    assert sent["logprobs"] is True
    action, sent = await taken(WHOLE, capture="text")
    assert action.token_ids is None
    assert "logprobs" not in sent
    action, _ = await taken(completion("ab", token_ids=[5]) | {"prompt_token_ids": [1]}, extra_body={"logprobs": False})
    assert (action.token_ids, action.logprobs) == ((5,), None)


ODD_IDS: list[tuple[Any, str]] = [
    (None, "is absent"),
    ("56", "is '56', and no list"),
    ({}, r"is \{\}, and no list"),
    ([], "is empty"),
    *(([5, one], f"holds {one!r}, which") for one in ("6", -1, 6.0, True, None, 2**31)),
]
NO_VALUES: list[Any] = [None, [], "x", {}, {"content": None}, {"content": []}, {"content": 3}]
ODD_VALUES: list[Any] = [None, "x", True, 0.5, [1]]


@pytest.mark.parametrize("field", ["token_ids", "prompt_token_ids"])
@pytest.mark.parametrize(("value", "why"), ODD_IDS, ids=[repr(value) for value, _ in ODD_IDS])
async def test_ids_that_cannot_be_are_an_error_that_names_the_field(field: str, value: Any, why: str) -> None:
    answer = msgspec.json.decode(msgspec.json.encode(WHOLE))
    (answer["choices"][0] if field == "token_ids" else answer)[field] = value
    with pytest.raises(PolicyError, match=rf"answer {field} {why}.*return_token_ids.*capture='text'") as caught:
        await taken(answer)
    assert caught.value.permanent


async def test_logprobs_that_cannot_be_are_an_error() -> None:
    cases = [(value, "logprobs has 0 log-probabilities for 2 tokens") for value in NO_VALUES]
    cases += [({"content": [{"logprob": -1}]}, "logprobs has 1 log-probabilities for 2 tokens")]
    cases += [({"content": [{"logprob": -1}, {"logprob": odd}]}, "logprobs holds .*no log-prob") for odd in ODD_VALUES]
    cases += [({"content": [{"logprob": -1}, 3]}, "logprobs holds 3, which is no log-prob")]
    for value, why in cases:
        answer = completion("ab", token_ids=[5, 6], logprobs=value) | {"prompt_token_ids": [1]}
        with pytest.raises(PolicyError, match=why):
            await taken(answer)


@pytest.mark.parametrize(
    "piece", [{"token_ids": 7}, {"token_ids": "ab"}, {"logprobs": 3}, {"logprobs": {"content": 3}}]
)
async def test_a_stream_with_fields_that_cannot_be_is_an_error(piece: dict[str, Any]) -> None:
    whole = {"token_ids": [1], "logprobs": {"content": [{"logprob": -1.0}]}}
    first = delta("a", **whole | piece) | {"prompt_token_ids": [8, 9]}
    async with chat_server() as server:
        server.faults = [stream(first, delta(finish="stop"))]
        policy = policy_of(server, stream=True)
        with pytest.raises(PolicyError, match=r"token_ids holds|logprobs h|no piece of an answer"):
            await policy.act(seen())
        await policy.close()


async def test_a_prompt_that_is_too_long_leaves_no_turn_without_ids() -> None:
    async with chat_server() as server:
        server.faults = [status(400, {"error": {"message": "This model's maximum context length is 2048 tokens."}})]
        policy = policy_of(server)
        action = await policy.act(seen())
        await policy.close()
    assert action == Action("", finish_reason="overflow", seconds=action.seconds)


# -- from turn to turn -----------------------------------------------------------------------------------------------


def sampled(text: str, ids: list[int], prompt: list[int]) -> dict[str, Any]:
    made = completion(text, token_ids=ids, logprobs={"content": [{"logprob": -1.0}] * len(ids)})
    return made | {"prompt_token_ids": prompt}


async def test_the_prompts_that_a_server_had_are_kept_and_held_against_what_was_sampled() -> None:
    record = await played([sampled(CALL, [5, 6], [1, 2, 3]), sampled(ANSWER, [9], [1, 2, 3, 5, 6, 7, 8])])
    (segments,) = t.streams(record)
    t.check(segments)
    kinds = [(segment.ids, segment.sampled) for segment in segments]
    assert kinds == [((1, 2, 3), False), ((5, 6), True), ((7, 8), False), ((9,), True)]
    assert record.policy.capture == "ids_full"


async def test_a_server_that_tokenises_what_was_sampled_anew_starts_another_stream() -> None:
    record = await played([sampled(CALL, [5, 6], [1, 2, 3]), sampled(ANSWER, [9], [1, 2, 3, 56, 7, 8])])
    first, second = t.streams(record)
    assert t.flat(first).ids == [1, 2, 3, 5, 6]
    assert t.flat(second).ids == [1, 2, 3, 56, 7, 8, 9]
    assert t.flat(second).mask == [0, 0, 0, 0, 0, 0, 1]
    assert forks(record) == ["the server tokenised earlier turns anew: of 5 ids it kept the first 3"]


# -- against our own rendering ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"forks": True}])
async def test_the_servers_prompts_are_those_of_the_conversation(options: dict[str, Any]) -> None:
    record = await played(serving(turns(CALL, ANSWER)), tokenizer=tiny()[1], **options)
    assert record.stop_reason == "answer"
    (segments,) = t.streams(record)
    assert [segment.sampled for segment in segments] == [False, True, False, True]
    settings = record.policy.settings
    assert (settings["renderer"], settings["forks"]) == ("template", bool(options))
    assert settings["logprobs"] == "as the server gives them"


async def test_a_server_with_another_template_is_refused_at_the_first_turn() -> None:
    other = serving(turns(CALL, ANSWER), TEMPLATE.replace("{{ m.content }}", "{{ m.content | upper }}"))
    for options in ({}, {"forks": True}):
        said = error_of(await played(other, tokenizer=tiny()[1], **options))
        assert "the server had other token ids than this conversation has" in said
        assert "must be those of the server (tokenizer=...)" in said
    assert (await played(other)).stop_reason == "answer"  # nothing to hold it against


async def test_turns_that_the_server_tokenised_anew_are_refused_or_start_another_stream() -> None:
    server = serving(odd_turns(CALL, ANSWER))
    said = error_of(await played(server, tokenizer=tiny()[1]))
    assert "tokenised an earlier turn anew, and not to what the model had sampled" in said
    assert "forks=True" in said
    record = await played(server, tokenizer=tiny()[1], forks=True)
    first, second = t.streams(record)
    assert t.flat(second).ids[: len(first[0].ids)] == list(first[0].ids)
    (reason,) = forks(record)
    assert reason.startswith("the server tokenised earlier turns anew: of")
    other = serving(odd_turns(CALL, ANSWER), TEMPLATE.replace("<|im_end|>\n{% endfor %}", "<|im_end|>\n\n{% endfor %}"))
    assert "other token ids" in error_of(await played(other, tokenizer=tiny()[1], forks=True))


async def test_the_template_and_its_options_in_requests_are_ours_too() -> None:
    template = TEMPLATE.replace("{% if tools %}", "{{ 'quietly' if hush }}{% if tools %}")
    server = serving(turns(CALL, ANSWER), template)
    extra = {"chat_template": template, "chat_template_kwargs": {"hush": True}}
    assert (await played(server, tokenizer=tiny()[1], extra_body=extra)).stop_reason == "answer"
    extra["chat_template_kwargs"] = {}
    assert (await played(server, tokenizer=tiny()[1], extra_body=extra)).stop_reason == "answer"
    del extra["chat_template"]
    with_other = serving(turns(CALL, ANSWER), template.replace("if hush", ""))
    assert "other token ids" in error_of(await played(with_other, tokenizer=tiny()[1], extra_body=extra))


# -- media -----------------------------------------------------------------------------------------------------------


def looking(message: Message, ids: list[int], spoil: bool = False) -> dict[str, Any]:
    """The answer of a server whose own processor saw the pictures of one message."""
    from agentenv.policy.vision import picture as opened

    processor = tiny_vision("qwen3-vl")[1]
    pictures = [part for part in message.parts if isinstance(part, Image)]
    content = [{"type": "text", "text": p.text} if isinstance(p, Text) else {"type": "image"} for p in message.parts]
    asked = [{"role": message.role, "content": content}]
    written = processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    made = processor(text=[written], images=[opened(one) for one in pictures])
    prompt = [int(token) for token in made["input_ids"][0]]
    return sampled("a sign", ids, prompt[:-1] if spoil else prompt)


async def test_where_images_stand_is_known_by_the_processor() -> None:
    processor = tiny_vision("qwen3-vl")[1]
    message = Message("user", (Text("see "), picture(120, 90), Text(" and "), picture(64, 100, 1)))
    action, sent = await taken(looking(message, [5, 6]), seen(message, tools=()), tokenizer=processor)
    assert sent["logit_bias"][str(processor.image_token_id)] == -100
    assert [span.length for span in action.context.media] == [12, 6]
    assert action.context.ids.count(processor.image_token_id) == 2
    t.check([t.Segment(action.context.ids, False, media=action.context.media)])
    with pytest.raises(PolicyError, match=r"the server had other token ids.*image processor here must be"):
        await taken(looking(message, [5, 6], spoil=True), seen(message, tools=()), tokenizer=processor)


async def test_media_without_a_processor_are_refused_before_anything_is_sent() -> None:
    image = seen(Message("user", (Text("see"), picture(64, 64))))
    film = seen(Message("user", (Video("ab" * 32, "video/mp4", 8, 8, 1.0, 2.0, frames=("cd" * 32,), times=(1.0,)),)))
    cases: list[tuple[Observation, dict[str, Any], str]] = [
        (image, {}, r"needs tokenizer=\.\.\. \(folder or name of the served model, with its processor\)"),
        (film, {}, r"needs tokenizer=\.\.\."),
        (image, {"tokenizer": tiny()[1]}, "text-only; image part found"),
    ]
    async with chat_server() as server:
        for observation, options, why in cases:
            policy = policy_of(server, **options)
            with pytest.raises(PolicyError, match=why) as caught:
                await policy.act(observation)
            assert caught.value.permanent
            await policy.close()
        assert server.requests == []


def test_settings_that_do_not_go_together_are_refused() -> None:
    words, address = tiny()[1], "http://127.0.0.1:1/v1"
    for options, why in (
        ({"tokenizer": words}, "go with capture='ids'"),
        ({"forks": True}, "go with capture='ids'"),
        ({"forks": True, "capture": "ids"}, "goes with tokenizer"),
        ({"forks": "no", "capture": "ids"}, "forks='no': expected"),
        ({"tokenizer": words, "capture": "ids", "tool_media": "user"}, "tool_media='user'"),
        ({"tokenizer": "/nowhere/at/all", "capture": "ids"}, "tokenizer of all cannot be loaded"),
    ):
        with pytest.raises(ConfigError, match=why):
            make_policy("openai:m", base_url=address, **options)
