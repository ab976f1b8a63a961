"""The chat interface of a real vLLM server: its ids are kept, and are those of the conversation or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentenv import tokens as t
from agentenv.policy import OpenAIPolicy
from agentenv.rollout import play
from agentenv.trajectory import Trajectory
from tests.policy.tiny_vision import tokenizer as words
from tests.trainers.vllm.models import ENDS, retrying


async def played(server: str, **options: Any) -> Trajectory:
    settings: dict[str, Any] = {"capture": "ids", "max_tokens": 400, "retries": 0, **options}
    policy = OpenAIPolicy("tiny", f"{server}/v1", **settings)
    record = await play(env := retrying(), policy, env.tasks[0])
    await policy.close()
    return record


def plain() -> dict[str, Any]:
    """Turns of tokens that never join to others, so that their text is tokenised to just them."""
    tokenizer = words()
    kept = [*map(tokenizer.convert_tokens_to_ids, "?!"), tokenizer.eos_token_id]
    return {"allowed_token_ids": kept}


def forks(record: Trajectory) -> list[str]:
    return [node.tokens.fork for node in record.nodes if node.tokens is not None and node.tokens.fork]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_conversation_is_one_stream_where_the_server_tokenises_turns_to_what_they_were(
    server: str, text: Path, stream: bool
) -> None:
    record = await played(server, tokenizer=text, extra_body=plain(), stream=stream)
    assert record.outcome is not None
    assert record.outcome.error is None
    (segments,) = t.streams(record)
    t.check(segments)
    assert len([segment for segment in segments if segment.sampled]) == 3
    assert all(segment.logprobs for segment in segments if segment.sampled)
    prompts = [call.usage.prompt_tokens for call in record.calls if call.usage]
    assert prompts == [len(t.flat(segments[: 2 * turn + 1]).ids) for turn in range(3)]
    untold = await played(server, extra_body=plain(), stream=stream)
    (known,) = t.streams(untold)
    assert known[0].ids == segments[0].ids


async def test_turns_that_are_tokenised_anew_are_refused_or_start_another_stream(server: str, text: Path) -> None:
    odd = {"extra_body": {"stop_token_ids": [*ENDS]}}
    refused = await played(server, tokenizer=text, **odd)
    assert refused.outcome is not None
    assert refused.outcome.error is not None
    assert "tokenised an earlier turn anew" in refused.outcome.error.message
    for options in ({"tokenizer": text, "forks": True}, {}):
        record = await played(server, **odd, **options)
        assert record.outcome is not None
        assert record.outcome.error is None
        assert len(t.streams(record)) == 1 + len(forks(record)) > 1
        assert all(reason.startswith("the server tokenised earlier turns anew") for reason in forks(record))


async def test_a_prompt_that_is_too_long_for_the_server_leaves_no_turn_without_ids(server: str, text: Path) -> None:
    env = retrying(system="Work out the sum with the tool. " * 400)
    policy = OpenAIPolicy("tiny", f"{server}/v1", capture="ids", tokenizer=text, max_tokens=8, retries=0)
    record = await play(env, policy, env.tasks[0])
    await policy.close()
    assert record.outcome is not None
    assert (record.outcome.stop_reason, record.outcome.error) == ("max_tokens", None)
    assert not [node for node in record.nodes if node.origin == "sampled"]
