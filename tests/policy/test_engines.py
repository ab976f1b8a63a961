"""Engines by token ids, against a real server on loopback: what is sent, what is taken, what is refused."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from agentenv import tokens as t
from agentenv.errors import ConfigError, MissingExtraError, PolicyError, UnknownNameError
from agentenv.policy import SGLangPolicy, VLLMPolicy, make_policy
from agentenv.policy.exact import Request
from agentenv.rollout import arollout, play
from agentenv.tokens.conversation import Prompt
from agentenv.trajectories import load
from agentenv.types import Action, Message, StopReason, Text, Tokens, Video
from tests.policy.chat_server import chat_server
from tests.policy.tiny import tiny
from tests.policy.tiny_vision import picture, tiny_vision
from tests.policy.token_server import TokenServer, token_server
from tests.policy.words import seen, task
from tests.worlds import sums

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'


def ids_of(text: str, end: bool = True) -> list[int]:
    words = tiny()[1]
    return [*words(text, add_special_tokens=False)["input_ids"], *([words.eos_token_id] if end else ())]


def policy_of(server: TokenServer, kind: Any = VLLMPolicy, **options: Any) -> Any:
    return kind("good", server.url + "/v1", **{"tokenizer": tiny()[1], "context": 4000, "retries": 0, **options})


@pytest.mark.parametrize("endpoint", ["generate", "completions", "sglang"])
async def test_an_episode_is_played_by_ids(endpoint: str) -> None:
    async with token_server(ids_of(CALL)) as server:
        server.scale_out = endpoint == "generate"
        policy = policy_of(server, SGLangPolicy if endpoint == "sglang" else VLLMPolicy, version="w1")
        env = sums()
        record = await play(env, policy, env.tasks[0])
        await policy.close()
        assert record.stop_reason == StopReason.MAX_TURNS
        (segments,) = t.streams(record)
        t.check(segments)
        key = {"generate": "token_ids", "completions": "prompt", "sglang": "input_ids"}[endpoint]
        sent = [body[key] for body in server.turns]
        assert sent == [t.flat(segments[: 2 * n + 1]).ids for n in range(len(sent))]
        said = {segment.version for segment in segments if segment.sampled}
        assert said == {{"generate": "step-3", "completions": "w1", "sglang": "step-4"}[endpoint]}
        assert record.policy.capture == "ids_full"
        body = server.turns[0]
        asked = body.get("sampling_params", body)
        if endpoint == "sglang":
            assert (asked["max_new_tokens"], asked["no_stop_trim"]) == (1024, True)
        else:
            assert (asked["logprobs"], asked["skip_special_tokens"], body["cache_salt"]) == (0, False, "w1")
        assert asked["stop_token_ids"] == [tiny()[1].eos_token_id]


async def test_the_context_of_the_server_bounds_turns_and_prompts() -> None:
    async with token_server(ids_of("x" * 300)) as server:
        policy = policy_of(server, context=None)
        prompt = len((await policy.begin(task(), seed=0).act(seen(tools=()))).context.ids)
        assert server.turns[0]["sampling_params"]["max_tokens"] == 128 - prompt
        long = Message("user", (Text("which city " * 60),))
        over = await policy.act(seen(long, tools=()))
        assert over == Action("", finish_reason="overflow", usage=over.usage)
        await policy.close()
        fresh = policy_of(server, context=None)
        assert (await fresh.act(seen(long, tools=()))).finish_reason == "overflow"
        assert fresh.context == 128
        await fresh.close()


async def test_images_go_beside_single_placeholders() -> None:
    processor = tiny_vision("qwen3-vl")[1]
    pad = processor.image_token_id
    said = [*processor.tokenizer("a sign")["input_ids"], processor.tokenizer.eos_token_id]
    observation = seen(Message("user", (Text("see "), picture(120, 90), picture(64, 100, 1))), tools=())
    async with token_server(said) as server:
        lengths = [12, 6]  # patches of 32 x 32 pixels

        def expand(ids: list[int], media: int) -> list[int]:
            runs = iter(lengths[:media])
            return [one for token in ids for one in ([token] * next(runs) if token == pad else [token])]

        server.expand = expand
        vllm = policy_of(server, tokenizer=processor)
        action = await vllm.act(observation)
        assert [span.length for span in action.context.media] == lengths
        (turn,) = server.turns
        assert turn["token_ids"].count(pad) == 2
        assert [part["type"] for part in turn["content_parts"]] == ["image_url"] * 2
        assert turn["content_parts"][0]["url"].startswith("data:image/png;base64,")
        assert turn["sampling_params"]["logit_bias"][str(pad)] == -100
        sglang = policy_of(server, SGLangPolicy, tokenizer=processor)
        assert (await sglang.act(observation)).token_ids == tuple(said)
        assert len(server.turns[-1]["image_data"]) == 2
        lengths[0] += 1
        for policy in (vllm, sglang):
            with pytest.raises(PolicyError, match=r"the engine had other token ids than it was sent: .* instead"):
                await policy.act(observation)
        server.scale_out = False
        old = policy_of(server, tokenizer=processor)
        with pytest.raises(PolicyError, match="start it with --enable-scale-out"):
            await old.act(observation)
        blind = policy_of(server)
        with pytest.raises(PolicyError, match="text-only; image part found"):
            await blind.act(observation)
        clip = Video("ab" * 32, "video/mp4", 8, 8, 1.0, 2.0)
        with pytest.raises(PolicyError, match="comes without frames"):
            await vllm.act(seen(Message("user", (clip,))))
        for policy in (vllm, sglang, old, blind):
            await policy.close()


def lacking(key: str) -> Any:
    def spoil(answer: dict[str, Any]) -> None:
        answer["choices"][0].pop(key, None)
        answer.pop(key, None)

    return spoil


def other_ids(answer: dict[str, Any]) -> None:
    if "prompt_token_ids" in answer:
        answer["prompt_token_ids"] = [7, *answer["prompt_token_ids"][1:]]


def aborted(answer: dict[str, Any]) -> None:
    if len(answer["choices"][0]["token_ids"]) > 1:
        answer["choices"][0]["finish_reason"] = "abort"


def turns_only(change: Any) -> Any:
    """The change, less in answers to probes."""
    return lambda answer: change(answer) if "prompt_token_ids" in answer else None


def first_entry(**fields: Any) -> Any:
    return lambda answer: answer["choices"][0]["logprobs"]["content"][0].update(fields)


SPOILT: list[tuple[Any, str, bool]] = [
    (lacking("token_ids"), "answer token_ids is absent.*computes nothing from the text instead.*take openai:", True),
    (lacking("logprobs"), "answer logprobs has 0 log-probabilities for 1 tokens", True),
    (lacking("prompt_token_ids"), "does not say which token ids it was given", True),
    (other_ids, "had other token ids than it was sent.*the first difference at 0.*tokenizer=", True),
    (lambda answer: answer["choices"][0].update(token_ids=[-1]), "token_ids holds -1, which is no token id", True),
    (first_entry(logprob=None), "logprobs holds None, which is no log-probability", True),
    (first_entry(logprob=0.5), "logprobs holds 0.5, which is no log-probability", True),
    (first_entry(token_id=9), "has 0 log-probabilities for 1 tokens", True),
    (lambda answer: answer["choices"][0].update(logprobs={"content": [3]}), "0 log-probabilities for 1 tokens", True),
    (lambda answer: answer["choices"][0].update(weight_versions=3), "weight_versions cannot be read: 3", True),
    (aborted, "the server ended a turn with 'abort'", False),
    (lambda answer: answer.pop("choices"), "holds no choices", False),
]


@pytest.mark.parametrize(("spoil", "why", "permanent"), SPOILT, ids=[why[:30] for _, why, _ in SPOILT])
async def test_what_an_engine_gives_otherwise_is_refused(spoil: Any, why: str, permanent: bool) -> None:
    async with token_server(ids_of("ab")) as server:
        server.spoil = spoil
        policy = policy_of(server)
        with pytest.raises(PolicyError, match=why) as caught:
            await policy.act(seen())
        assert caught.value.permanent is permanent
        await policy.close()


async def test_what_sglang_gives_otherwise_is_refused() -> None:
    async with token_server(ids_of("ab")) as server:
        policy = policy_of(server, SGLangPolicy)
        for change, why in (
            (lambda a: a["meta_info"].pop("output_token_logprobs"), "logprobs has 0 log-probabilities"),
            (lambda a: a.update(output_ids=[1]), "other token ids than it gave log-probabilities for"),
            (lambda a: a["meta_info"].update(finish_reason={"type": "abort"}), "ended a turn with 'abort'"),
            (lambda a: a.pop("meta_info"), "holds no meta_info"),
            (lambda a: a["meta_info"].update(output_token_logprobs=7), "token_ids is empty"),
            (lambda a: a.update(prompt_token_ids="x"), "does not say which token ids it was given"),
        ):
            server.spoil = turns_only(change)
            with pytest.raises(PolicyError, match=why):
                await policy.act(seen())
        await policy.close()
        for info, why in (
            ({"served_model_name": "god"}, "does not serve the model 'good' but 'god': give that name, and tokenizer"),
            ({"model_path": "x/good", "has_image_understanding": False}, "takes no images"),
        ):
            server.info = info
            seeing = policy_of(server, SGLangPolicy, tokenizer=tiny_vision("qwen3-vl")[1])
            with pytest.raises(PolicyError, match=why) as caught:
                await seeing.act(seen())
            assert caught.value.permanent
            await seeing.close()
        server.info = None
        lost = policy_of(server, SGLangPolicy)
        with pytest.raises(PolicyError, match="no SGLang server answers"):
            await lost.act(seen())
        await lost.close()


async def test_logprobs_before_the_temperature_are_found_out() -> None:
    async with token_server(ids_of("ab")) as server:
        server.raw = True
        for scale_out, kind, cure in (
            (True, VLLMPolicy, "--logprobs-mode processed_logprobs"),
            (False, VLLMPolicy, "--logprobs-mode processed_logprobs"),
            (False, SGLangPolicy, "without SGLANG_RETURN_ORIGINAL_LOGPROB"),
        ):
            server.scale_out = scale_out
            cool = policy_of(server, kind, temperature=0.6)
            with pytest.raises(PolicyError, match=cure):
                await cool.act(seen())
            await cool.close()
        plain = policy_of(server)
        assert (await plain.act(seen())).token_ids
        await plain.close()
        server.raw = False
        for kind in (VLLMPolicy, SGLangPolicy):
            cool = policy_of(server, kind, temperature=0.6)
            assert (await cool.act(seen())).token_ids
            await cool.close()


async def test_sglang_says_its_context_and_which_weights_sampled() -> None:
    def spans(answer: dict[str, Any]) -> None:
        said = [{"version": name, "start": n, "end": n + 1} for n, name in enumerate(("w1", "w2"))]
        answer["meta_info"]["weight_versions"] = said

    async with token_server(ids_of("ab")) as server:
        policy = policy_of(server, SGLangPolicy, context=None, top_p=0.9, max_tokens=7)
        assert (await policy.act(seen(tools=()))).version == "step-4"
        assert policy.context == 128
        assert policy.info.settings["logprobs"] == "before top_p and top_k"
        server.spoil = spans
        action = await policy.begin(task(), seed=3).act(seen(tools=(), stop=("x",)))
        assert action.version == "w1,w2"
        asked = server.turns[-1]["sampling_params"]
        assert (asked["stop"], asked["top_p"], asked["max_new_tokens"]) == (["x"], 0.9, 7)
        assert asked["sampling_seed"] < 2**31
        server.spoil = lambda answer: answer["meta_info"].update(weight_version="default")
        policy.version = "mine"
        assert (await policy.act(seen(tools=()))).version == "mine"
        await policy.close()
        other = policy_of(server, SGLangPolicy, media=lambda sha256: b"a frame")
        film = Video("ab" * 32, "video/mp4", 8, 8, 1.0, 2.0, frames=("cd" * 32,), times=(1.0,))
        with pytest.raises(PolicyError, match="an SGLang server is given images; take video='frames'"):
            other._images(Request(Prompt((1,), (), Tokens((1,)), 1), (film,), 0, (), ""))
        await other.close()


async def test_a_wrong_model_and_no_server_are_said() -> None:
    async with token_server(ids_of("ab")) as server:
        server.models = {"data": [{"id": "god"}]}
        wrong = policy_of(server)
        with pytest.raises(PolicyError, match="does not serve the model 'good'; did you mean \"god\"") as caught:
            await wrong.act(seen())
        assert caught.value.permanent
        server.models = None
        with pytest.raises(PolicyError, match=r"no vLLM server answers.*check base_url"):
            await wrong.act(seen())
        await wrong.close()


async def test_a_run_does_not_begin_without_its_server(tmp_path: Path) -> None:
    policy = VLLMPolicy("m", "http://127.0.0.1:9", tokenizer=tiny()[1], retries=0)
    with pytest.raises(PolicyError, match="no vLLM server answers at"):
        await arollout(sums(), policy, out=tmp_path / "run")
    assert len(load(tmp_path / "run")) == 0
    async with chat_server() as server:  # which has models, and no completions
        lost = VLLMPolicy("good-model", server.url, tokenizer=tiny()[1], retries=0)
        with pytest.raises(PolicyError, match=r"is no vLLM server.* it answered 40[45] to .*take openai:"):
            await lost.ready()
        await lost.close()


async def test_cancelling_closes_the_request_and_slots_bound_those_in_flight() -> None:
    async with token_server(ids_of("ab")) as server:
        policy = policy_of(server, concurrency=2)
        await policy.ready()
        server.delay = 5.0
        asking = [asyncio.create_task(policy.act(seen())) for _ in range(5)]
        await asyncio.sleep(0.3)
        assert len(server.turns) == 2
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await asyncio.sleep(0.3)
        assert server.aborted == 2
        await policy.close()


def test_settings_are_checked_and_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = tiny()[1]
    for name, kind in (("vllm", "VLLM"), ("sglang", "SGLANG")):
        with pytest.raises(ConfigError, match=f"set {kind}_BASE_URL"):
            make_policy(f"{name}:m", tokenizer=words)
        monkeypatch.setenv(f"{kind}_BASE_URL", "http://127.0.0.1:1/v1")
        made = make_policy(f"{name}:m", tokenizer=words, temperature=0.5)
        assert made.info.settings["temperature"] == 0.5
        assert made.info.settings["base_url"] == "http://127.0.0.1:1"
        assert made.info.settings["renderer"] == "template"
        assert "127.0.0.1" in repr(made)
        with pytest.raises(UnknownNameError, match='did you mean "temperature"'):
            make_policy(f"{name}:m", tokenizer=words, temprature=0.5)
    with pytest.raises(UnknownNameError, match="option of VLLMPolicy"):
        VLLMPolicy("m", tokenizer=words, temprature=0.5)
    for wrong in (
        {"temperature": -1},
        {"top_k": 1.5},
        {"max_tokens": 0},
        {"seed": "no"},
        {"version": 3},
        {"video": "x"},
        {"chat_template": " "},
        {"chat_template": 3},
        {"template_options": 5},
        {"end_tokens": ["x"]},
        {"end_tokens": 5},
    ):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))}=.*: expected"):
            VLLMPolicy("m", tokenizer=words, **wrong)
    with pytest.raises(ConfigError, match="endpoint='x'"):
        VLLMPolicy("m", tokenizer=words, endpoint="x")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"tokenizer of .* cannot be loaded.*give tokenizer="):
        VLLMPolicy(str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="tokenizer=3: expected a model's folder or name, a tokenizer or a processor"):
        VLLMPolicy("m", tokenizer=3)
    with pytest.raises(MissingExtraError, match=r"agentenv-gym\[vllm\]"):
        make_policy("vllm_engine:m")


def test_a_saved_tokenizer_and_processor_are_loaded(tmp_path: Path) -> None:
    model, words = tiny()
    model.save_pretrained(tmp_path / "text")
    words.save_pretrained(tmp_path / "text")
    made = VLLMPolicy(str(tmp_path / "text"), "http://127.0.0.1:1")
    assert made.renderer.ends == {words.eos_token_id}
    model, processor = tiny_vision("qwen3-vl")
    model.save_pretrained(tmp_path / "eyes")
    processor.save_pretrained(tmp_path / "eyes")
    seeing = VLLMPolicy(str(tmp_path / "eyes"), "http://127.0.0.1:1")
    assert seeing.renderer.eyes is not None
    assert processor.image_token_id in seeing.banned


def test_a_missing_package_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = tiny_vision("qwen3-vl")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    for package, extra in (("PIL", "image"), ("transformers", "local")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtraError, match=rf"agentenv-gym\[{extra}\]"):
            VLLMPolicy("m", "http://127.0.0.1:1", tokenizer=tmp_path)
