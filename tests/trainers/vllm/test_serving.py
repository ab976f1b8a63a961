"""A real vLLM server under many episodes: what is shared, what is called off, what waits, and a server that dies."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from pathlib import Path

import pytest

from agentenv import tokens as t
from agentenv.errors import PolicyError
from agentenv.policy import VLLMPolicy
from agentenv.policy.sglang import SGLangPolicy
from agentenv.rollout import arollout, play_group
from agentenv.types import Message, StopReason, Text
from tests.policy.words import seen
from tests.trainers.vllm.models import ENDS, retrying
from tests.trainers.vllm.server import FLAGS, free_port, vllm_process


def counted(server: str, name: str) -> float:
    """One of the server's own counters, all its series together."""
    with urllib.request.urlopen(f"{server}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found = re.findall(rf"^vllm:{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
    assert found, f"the server counts no {name}"
    return sum(map(float, found))


def until(server: str, name: str, least: float, most: float) -> None:
    """Wait until a counter is within bounds."""
    ends = time.monotonic() + 120
    while not least <= counted(server, name) <= most:
        assert time.monotonic() < ends
        time.sleep(0.05)


async def test_a_prefix_is_shared_until_the_weights_change(server: str, text: Path) -> None:
    policy = VLLMPolicy("tiny", server, tokenizer=text, max_tokens=2, version="w1")
    asked = seen(Message("user", (Text("which city is the largest one " * 60),)))

    async def hits() -> float:
        before = counted(server, "prefix_cache_hits_total")
        action = await policy.act(asked)
        assert action.version == policy.version
        return counted(server, "prefix_cache_hits_total") - before

    assert await hits() == 0
    assert await hits() >= 128
    policy.version = "w2"
    assert await hits() == 0
    assert await hits() >= 128
    await policy.close()


async def test_a_groups_prompt_is_computed_once(server: str, text: Path) -> None:
    policy = VLLMPolicy("tiny", server, tokenizer=text, end_tokens=ENDS, max_tokens=20)
    env = retrying(system="Work out the sum with the tool, then answer with the number. " * 20)
    before = counted(server, "prefix_cache_hits_total")
    group = await play_group(env, policy, env.tasks[0], 6)
    first = len(t.stream(group[0])[0].ids)
    assert first > 256
    assert counted(server, "prefix_cache_hits_total") - before >= 128 * len(group)
    await policy.close()


async def test_the_server_stops_computing_what_is_called_off(server: str, text: Path) -> None:
    policy = VLLMPolicy("tiny", server, tokenizer=text, max_tokens=1900)
    await policy.ready()
    asking = [asyncio.create_task(policy.act(seen())) for _ in range(4)]
    await asyncio.to_thread(until, server, "num_requests_running", 4, 4)
    for one in asking:
        one.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await asyncio.to_thread(until, server, "num_requests_running", 0, 0)
    made = counted(server, "generation_tokens_total")
    await asyncio.sleep(1.0)
    assert counted(server, "generation_tokens_total") == made < 4 * 1900
    await policy.close()


async def test_more_episodes_than_the_server_takes_wait_for_their_turn(server: str, text: Path) -> None:
    policy = VLLMPolicy("tiny", server, tokenizer=text, end_tokens=ENDS, max_tokens=30, concurrency=3)
    waiting: list[float] = []

    async def watch() -> None:
        while True:
            names = ("num_requests_running", "num_requests_waiting")
            waiting.append(sum([await asyncio.to_thread(counted, server, name) for name in names]))
            await asyncio.sleep(0.05)

    await policy.ready()
    watcher = asyncio.create_task(watch())
    run = await arollout(retrying(), policy, tasks=10, group=2, concurrency=20)
    watcher.cancel()
    assert len(run) == 20
    assert all(record.outcome and record.outcome.error is None for record in run)
    assert 0 < max(waiting) <= 3
    await policy.close()
    crowd = VLLMPolicy("tiny", server, tokenizer=text, end_tokens=ENDS, max_tokens=30)
    run = await arollout(retrying(), crowd, tasks=20, concurrency=20)  # the server itself takes 8 at once
    assert all(record.outcome and record.outcome.error is None for record in run)
    await crowd.close()


async def test_a_vllm_server_is_no_sglang_server(server: str, text: Path) -> None:
    policy = SGLangPolicy("tiny", server, tokenizer=text, retries=0)
    with pytest.raises(PolicyError, match="no SGLang server answers"):
        await policy.act(seen())
    await policy.close()


async def test_a_server_that_dies_leaves_episodes_unscored_and_resume_plays_them(text: Path, tmp_path: Path) -> None:
    port = free_port()
    options = {"tokenizer": text, "end_tokens": ENDS, "max_tokens": 30, "retries": 0, "concurrency": 2}
    policy = VLLMPolicy("tiny", f"http://127.0.0.1:{port}", **options)  # type: ignore[arg-type]
    out = tmp_path / "run"
    with vllm_process(text, "tiny", tmp_path / "log-1", *FLAGS, port=port) as process:
        await policy.ready()
        playing = asyncio.create_task(arollout(retrying(), policy, tasks=20, group=2, concurrency=4, out=out))
        await asyncio.to_thread(until, f"http://127.0.0.1:{port}", "request_success_total", 12, 40)
        process.kill()
        run = await playing
    kinds = [record.stop_reason for record in run]
    lost = [record for record in run if StopReason(record.stop_reason or "").unscored]
    assert len(kinds) == 40
    assert 0 < len(lost) < 40
    assert all(record.reward is None and record.outcome and record.outcome.error for record in lost)
    kept = {record.id: record.to_json() for record in run if record not in lost}
    with vllm_process(text, "tiny", tmp_path / "log-2", *FLAGS, port=port):
        again = await arollout(retrying(), policy, tasks=20, group=2, concurrency=4, out=out, resume=True)
    assert not [record for record in again if StopReason(record.stop_reason or "").unscored]
    assert {record.id: record.to_json() for record in again if record.id in kept} == kept
    await policy.close()
