"""The contract of slime's generate function: its sample and its post, as its source has them, over HTTP on loopback."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from agentenv.errors import ConfigError, InfrastructureError, UsageError
from tests.adapters.test_shims import EASY, END, stand_in, tokens, turns
from tests.policy.token_server import TokenServer, token_server
from tests.tokens.qwen import qwen
from tests.trainers.gyms.playing import SEEN
from tests.trainers.trl import seeing


@dataclass
class Sample:
    """What the shim touches of `slime.utils.types.Sample` (0.3.1), in our own words."""

    class Status(Enum):
        PENDING = "pending"
        COMPLETED = "completed"
        TRUNCATED = "truncated"
        ABORTED = "aborted"
        FAILED = "failed"

    metadata: dict[str, Any]
    tokens: list[int] = field(default_factory=list)
    multimodal_train_inputs: Any = None
    response: str = ""
    response_length: int = 0
    reward: Any = None
    loss_mask: list[int] | None = None
    weight_versions: list[str] = field(default_factory=list)
    rollout_log_probs: list[float] | None = None
    remove_sample: bool = False
    session_id: str | None = None
    status: Status = Status.PENDING
    experts: list[int] = field(default_factory=list)  # how many tokens there were when experts came along

    def append_response_tokens(
        self,
        args: Any = None,
        *,
        tokens: list[int] | None = None,
        log_probs: list[float] | None = None,
        trainable: bool = True,
        meta_info: dict[str, Any] | None = None,
        text: str | None = None,
        update_terminal_info: bool = True,
    ) -> None:
        given = list(tokens or ())
        assert (log_probs is not None) == trainable, "log-probabilities come with what was sampled, and only with that"
        assert log_probs is None or len(log_probs) == len(given)
        self.tokens += given
        self.response_length += len(given)
        self.loss_mask = (self.loss_mask or []) + [int(trainable)] * len(given)
        self.rollout_log_probs = (self.rollout_log_probs or []) + (log_probs or [0.0] * len(given))
        if meta_info and "weight_version" in meta_info:
            self.weight_versions.append(meta_info["weight_version"])
        if meta_info and "routed_experts" in meta_info:
            assert args is not None
            self.experts.append(len(self.tokens))


class Slime:
    """slime's modules, its router, and what `generate` is called with."""

    def __init__(self, router: TokenServer, **args: Any) -> None:
        self.router, self.left, self.headers = router, list[str](), list[Any]()
        self.state = SimpleNamespace(tokenizer=tokens(), processor=None, aborted=False)
        router.script = lambda _: self.ids(self.left.pop(0))
        where = {"sglang_router_ip": "127.0.0.1", "sglang_router_port": router.port}
        self.args = SimpleNamespace(**{"rollout_max_context_len": 16_384, "reward_key": None, **where, **args})

    def ids(self, text: str) -> list[int]:
        """A text's ids for the model."""
        found: list[int] = self.state.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    async def generate(self, texts: list[str], name: str = "table", **options: Any) -> Sample:
        """The sample of the first task, where the model says `texts`."""
        from agentenv.trainers.slime import generate, slime_rows

        self.left = list(texts)
        sample = Sample(slime_rows(name, 1, **(options or EASY))[0]["metadata"], session_id="one")
        params = {"temperature": 1.0, "max_new_tokens": 512, "no_stop_trim": True}
        found: Sample = await generate(self.args, sample, params)
        assert found is sample
        return found


@asynccontextmanager
async def slime(monkeypatch: pytest.MonkeyPatch, **args: Any) -> AsyncIterator[Slime]:
    """slime with a router on loopback, which is asked over HTTP."""
    async with token_server([]) as router, aiohttp.ClientSession() as client:

        async def post(url: str, payload: Any, max_retries: int = 60, headers: Any = None) -> Any:
            made.headers.append(headers)
            async with client.post(url, json=payload, headers=headers) as answer:
                answer.raise_for_status()
                return await answer.json()

        made = Slime(router, **args)
        stand_in(monkeypatch, "slime.rollout.sglang_rollout", GenerateState=lambda _: made.state)
        stand_in(monkeypatch, "slime.utils.http_utils", post=post)
        yield made


def abort(after: int) -> Callable[[dict[str, Any]], None]:
    """Calls requests off after so many turns, as slime does with SGLang when it has enough samples."""
    seen = [0]

    def spoil(answer: dict[str, Any]) -> None:
        seen[0] += 1
        if seen[0] > after:
            answer["meta_info"]["finish_reason"] = {"type": "abort"}

    return spoil


def test_the_signature() -> None:
    from agentenv.trainers.slime import generate

    assert inspect.iscoroutinefunction(generate)
    assert list(inspect.signature(generate).parameters) == ["args", "sample", "sampling_params"]


async def test_an_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text + END for text in await turns()]
    async with slime(monkeypatch, reward_key="score") as running:
        sample = await running.generate(texts)
    assert sample.reward == {"score": 1.0}
    assert sample.status is Sample.Status.COMPLETED
    assert sample.loss_mask is not None
    assert sample.rollout_log_probs is not None
    response = sample.tokens[-sample.response_length :]
    kept = [token for token, sampled in zip(response, sample.loss_mask, strict=True) if sampled]
    assert qwen().decode(kept) == "".join(texts)
    assert sample.rollout_log_probs == [-0.5 if one else 0.0 for one in sample.loss_mask]
    assert sample.response == qwen().decode(response)
    asked = running.router.turns
    assert len(asked) == len(texts)
    assert asked[0]["input_ids"] == sample.tokens[: -sample.response_length]
    assert all(sample.tokens[: len(body["input_ids"])] == body["input_ids"] for body in asked)
    assert all(body["return_logprob"] and body["sampling_params"]["no_stop_trim"] for body in asked)
    assert sample.weight_versions == ["step-4"] * len(texts)
    assert not sample.remove_sample


async def test_what_replays_need_comes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text + END for text in await turns()]
    more = {"use_rollout_routing_replay": True, "router_policy": "consistent_hashing"}
    async with slime(monkeypatch, **more) as running:
        running.router.spoil = lambda answer: answer["meta_info"].update(routed_experts="AAAA")
        sample = await running.generate(texts)
    asked = running.router.turns
    assert all(body["return_routed_experts"] for body in asked)
    ends = [len(body["input_ids"]) + len(running.ids(text)) for body, text in zip(asked, texts, strict=True)]
    assert sample.experts == ends, "experts are appended when the sample holds just what the engine has seen"
    assert running.headers == [{"X-SMG-Routing-Key": "one"}] * len(texts)


async def test_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = seeing.processor()
    texts = [text + END for text in await turns("zoom", **SEEN)]
    async with slime(monkeypatch) as running:
        running.state.tokenizer, running.state.processor = processor.tokenizer, processor
        sample = await running.generate(texts, "zoom", **SEEN)
    assert sample.reward == 1.0
    for count, body in enumerate(running.router.turns, 1):
        assert len(body["image_data"]) == count
        assert body["input_ids"].count(processor.image_token_id) == count, "one placeholder a picture"
    assert set(sample.multimodal_train_inputs) == {"pixel_values", "image_grid_thw"}
    patches = int(sample.multimodal_train_inputs["image_grid_thw"].prod(dim=1).sum())
    assert len(sample.multimodal_train_inputs["pixel_values"]) == patches
    assert sample.tokens.count(processor.image_token_id) == patches // 4


@pytest.mark.parametrize("after", [0, 1])
async def test_what_slime_calls_off_stays_as_it_was(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    texts = [text + END for text in await turns()]
    async with slime(monkeypatch) as running:
        running.router.spoil = abort(after)
        sample = await running.generate(texts)
    assert (sample.status, sample.tokens, sample.response_length) == (Sample.Status.ABORTED, [], 0)
    assert len(running.router.turns) == after + 1


async def test_no_turn_is_asked_for_once_slime_has_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    async with slime(monkeypatch) as running:
        running.state.aborted = True
        assert (await running.generate([])).status is Sample.Status.ABORTED
    assert running.router.turns == []


async def test_limits_and_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    [first, *_] = await turns()
    async with slime(monkeypatch) as running:
        with pytest.raises(InfrastructureError, match="could not be scored"):
            await running.generate([first + END])  # the router fails at the second turn
        running.args.rollout_max_context_len = len(running.router.turns[0]["input_ids"]) + 4
        sample = await running.generate([first + END])
        assert running.router.turns[-1]["sampling_params"]["max_new_tokens"] == 4
        assert sample.status is Sample.Status.TRUNCATED
        running.args.rollout_max_context_len = 1
        with pytest.raises(UsageError, match="no room for a turn"):
            await running.generate([])
        running.args.rollout_max_context_len = None
        with pytest.raises(ConfigError, match="rollout-max-context-len too"):
            await running.generate([])
