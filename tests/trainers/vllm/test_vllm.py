"""A real vLLM server, and vLLM in this process, through whole episodes: its ids are ours, and so are its numbers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace

from agentenv import tokens as t
from agentenv.errors import PolicyError
from agentenv.policy import OpenAIPolicy, VLLMEnginePolicy, VLLMPolicy
from agentenv.rollout import play, play_group
from agentenv.trajectory import Trajectory
from agentenv.types import Image, Message, StopReason, Text, Tokens
from tests.policy.tiny_vision import picture
from tests.policy.words import seen, task
from tests.trainers.vllm.models import ENDS, retrying, vision_model
from tests.trainers.vllm.server import FLAGS, vllm_server


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vision_model(tmp_path_factory.mktemp("vision") / "tiny-vl")


def recomputed(folder: Path, segments: list[t.Segment], temperature: float) -> list[float]:
    """Log-probabilities of all sampled tokens, from one forward pass of transformers over the whole stream."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    return scored(model, segments, temperature)


def scored(model: Any, segments: list[t.Segment], temperature: float, banned: Any = (), **beside: Any) -> list[float]:
    ids, mask, _ = t.flat(segments)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids]), **beside).logits[0].float() / temperature
        logits[:, list(banned)] = -torch.inf
        scores = torch.log_softmax(logits, -1)
    return [float(scores[n - 1, ids[n]]) for n in range(len(ids)) if mask[n]]


def sampled_logprobs(segments: list[t.Segment]) -> list[float]:
    flat = t.flat(segments)
    assert flat.logprobs is not None
    return [value for value, mask in zip(flat.logprobs, flat.mask, strict=True) if mask]


@pytest.mark.parametrize("endpoint", ["generate", "completions"])
async def test_episodes_are_token_exact_and_logprobs_are_those_of_the_weights(
    server: str, text: Path, endpoint: Any
) -> None:
    policy = VLLMPolicy(
        "tiny", server, tokenizer=text, endpoint=endpoint, end_tokens=ENDS, temperature=0.7, version="w3"
    )
    group = await play_group(env := retrying(), policy, env.tasks[0], 4)
    await policy.close()
    for record in group:
        assert record.outcome is not None
        assert record.outcome.error is None
        (segments,) = t.streams(record)
        t.check(segments)
        assert len([segment for segment in segments if segment.sampled]) == 3
        assert all(segment.version == "w3" for segment in segments if segment.sampled)
        assert sampled_logprobs(segments) == pytest.approx(recomputed(text, segments, 0.7), abs=1e-4)
        prompts = [call.usage.prompt_tokens for call in record.calls if call.usage]
        assert prompts == [len(t.flat(segments[: 2 * turn + 1]).ids) for turn in range(3)]
        again = Trajectory.from_json(record.to_json())
        assert t.streams(again) == [segments]
    assert len({tuple(t.flat(t.stream(record)).ids) for record in group}) == 4


async def test_a_seed_decides_the_turn_and_stop_strings_end_it(server: str, text: Path) -> None:
    policy = VLLMPolicy("tiny", server, tokenizer=text, max_tokens=40)
    first, again = [await policy.begin(task(), seed=5).act(seen()) for _ in range(2)]
    assert first.token_ids == again.token_ids
    stop = first.text[5:8]
    cut = await policy.begin(task(), seed=5).act(seen(stop=(stop,)))
    assert cut.token_ids == (first.token_ids or ())[: len(cut.token_ids or ())]
    assert stop in cut.text
    assert cut.finish_reason == "stop"
    assert policy.context == 2048
    long = Message("user", (Text("which city is the largest one " * 600),))
    assert (await policy.act(seen(long))).finish_reason == "overflow"
    await policy.close()


async def test_what_the_server_is_not_is_said_before_the_first_turn(server: str, text: Path) -> None:
    other = VLLMPolicy("tinny", server, tokenizer=text)
    with pytest.raises(PolicyError, match="does not serve the model 'tinny'; did you mean \"tiny\""):
        await other.act(seen())
    await other.close()


def test_raw_logprobs_are_found_out(text: Path, tmp_path: Path) -> None:
    async def asked(address: str) -> None:
        cool = VLLMPolicy("tiny", address, tokenizer=text, temperature=0.6, max_tokens=2)
        with pytest.raises(PolicyError, match="--logprobs-mode processed_logprobs"):
            await cool.act(seen())
        await cool.close()
        plain = VLLMPolicy("tiny", address, tokenizer=text, max_tokens=2)
        assert (await plain.act(seen())).token_ids
        with pytest.raises(PolicyError, match="--enable-scale-out"):
            plain._parts(replace(_request(), media=(picture(64, 64),)))
        await plain.close()

    with vllm_server(text, "tiny", tmp_path / "log") as address:
        asyncio.run(asked(address))


def _request() -> Any:
    from agentenv.policy.exact import Request
    from agentenv.tokens.conversation import Prompt
    from agentenv.types import Tokens

    return Request(Prompt((1,), (), Tokens((1,)), 1), (), 0, (), "")


def test_images_reach_the_engine_as_ours_and_logprobs_are_those_of_the_weights(vision: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    # Of whole patches, so that neither side resizes: torchvision, which vLLM takes, and Pillow round otherwise.
    first = Message("user", (picture(128, 96), Text("what is written")))
    crop = Message("user", (Text("the crop"), picture(64, 96, 1)))

    async def played(address: str) -> tuple[Any, Any, Any, VLLMPolicy]:
        policy = VLLMPolicy("vl", address, tokenizer=vision, max_tokens=24, temperature=0.7)
        action = await policy.begin(task(), seed=1).act(seen(first, tools=()))
        turn = Message("assistant", (Text(action.text),), raw=action.text)
        assert action.token_ids
        known = (action.context, Tokens(action.token_ids, action.logprobs), None)
        later = await policy.begin(task(), seed=2).act(replace(seen(first, turn, crop, tools=()), tokens=known))
        await policy.close()
        chat = OpenAIPolicy("vl", f"{address}/v1", capture="ids", tokenizer=vision, max_tokens=4, retries=0)
        told = await chat.act(seen(first, tools=()))
        await chat.close()
        return action, later, told, policy

    with vllm_server(vision, "vl", tmp_path / "log", *FLAGS, declare=tmp_path) as address:
        action, later, told, policy = asyncio.run(played(address))
    assert told.context == action.context  # the chat server's expanded ids say where the picture stands
    assert [span.kind for span in later.context.media] == ["image"]
    segments = []
    for made in (action, later):  # as a record holds them
        segments.append(t.Segment(made.context.ids, False, media=made.context.media))
        segments.append(t.Segment(made.token_ids, True, logprobs=made.logprobs))
    wide = t.expanded(segments)
    pictures = [part for message in (first, crop) for part in message.parts if isinstance(part, Image)]
    spans = tuple(t.media(wide))
    assert later.usage.prompt_tokens == len(t.flat(wide[:3]).ids)
    sight: Any = policy.renderer.eyes
    beside = sight.tensors(pictures, spans, len(t.flat(wide).ids))
    model = AutoModelForImageTextToText.from_pretrained(vision, dtype="float32").eval()
    assert sampled_logprobs(wide) == pytest.approx(scored(model, wide, 0.7, policy.banned, **beside), abs=1e-4)
    # The pictures matter: others give other numbers.
    other = sight.tensors([picture(128, 96, 8), picture(64, 96, 9)], spans, len(t.flat(wide).ids))
    assert sampled_logprobs(wide) != pytest.approx(scored(model, wide, 0.7, policy.banned, **other), abs=1e-2)


@pytest.mark.filterwarnings("default")  # vLLM's own imports warn
def test_vllm_in_this_process(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("VLLM_CPU_KVCACHE_SPACE", "1"), ("VLLM_CPU_OMP_THREADS_BIND", "nobind")):
        monkeypatch.setenv(name, value)
    args = {"max_model_len": 1024, "enforce_eager": True, "dtype": "float32", "max_num_seqs": 4}

    async def played() -> Trajectory:
        policy = VLLMEnginePolicy(str(text), engine_args=args, end_tokens=ENDS, temperature=0.7, version="w1")
        env = retrying()
        record = await play(env, policy, env.tasks[0])
        await policy.close()
        return record

    record = asyncio.run(played())
    assert record.outcome is not None
    assert record.outcome.error is None
    assert record.outcome.stop_reason in (StopReason.MAX_TURNS, StopReason.INVALID, StopReason.LENGTH)
    (segments,) = t.streams(record)
    assert sampled_logprobs(segments) == pytest.approx(recomputed(text, segments, 0.7), abs=1e-4)
    assert {segment.version for segment in segments if segment.sampled} == {"w1"}
    assert not any(isinstance(part, Image) for node in record.nodes for part in node.message.parts)
