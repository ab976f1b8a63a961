"""ms-swift's own multi-turn driver over the scheduler, with a function in the place of its engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from agentenv.errors import InfrastructureError
from tests.trainers.gyms.playing import EASY, SEEN, demonstrated

pytest.importorskip("swift", reason="tests/trainers/run.sh installs it")
pytestmark = pytest.mark.filterwarnings("default")  # of the trainer's own libraries


class Engine:
    """Gives each request its written turns, one character a token, and keeps what it was asked."""

    def __init__(self, turns: dict[str, Sequence[str]], finish: str = "stop") -> None:
        self.turns = {key: list(texts) for key, texts in turns.items()}
        self.finish = finish
        self.asked: list[tuple[list[dict[str, Any]], int]] = []

    def one(self, request: Any) -> Any:
        from swift.infer_engine import protocol as p

        self.asked.append(([dict(message) for message in request.messages], len(request.images)))
        text = self.turns[request.uuid].pop(0)
        choice = p.ChatCompletionResponseChoice(
            index=0,
            message=p.ChatMessage(role="assistant", content=text),
            finish_reason=self.finish,
            token_ids=[ord(letter) for letter in text],
            logprobs={"content": [{"logprob": -0.5} for _ in text]},
        )
        usage = p.UsageInfo(1, len(text), 1 + len(text))
        response = p.ChatCompletionResponse(model="m", choices=[choice], usage=usage, id=request.uuid)
        return p.RolloutOutput(response=response)

    async def infer_async(self, request: Any, config: Any, **_: Any) -> Any:
        return self.one(request).response

    def __call__(self, requests: Sequence[Any], config: Any) -> list[Any]:
        return [self.one(request) for request in requests]


class Letters:
    """A tokenizer of single characters."""

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return "".join(chr(i) for i in ids)

    def encode(self, text: str, **_: Any) -> list[int]:
        return [ord(letter) for letter in text]


def requests(name: str, count: int, **options: Any) -> list[Any]:
    """Rows as swift's samples turn them into requests, its own class for both."""
    from swift.rl_core.data import OnPolicySample

    from agentenv.trainers.swift import swift_rows

    made = []
    for index, row in enumerate(swift_rows(name, count, **options)):
        columns = {key: row.pop(key) for key in ("index", "agentenv", "agentenv_options")}
        sample = OnPolicySample(**row, extra=columns, request_id=f"r{index}")
        made.append(sample.to_infer_request(include_extra=True))
    return made


def driven(asked: list[Any], engine: Engine, max_turns: int | None = None) -> list[Any]:
    """What colocate mode makes of requests."""
    from swift.infer_engine import RequestConfig
    from swift.rollout.agent_loop import invoke_async_hook, run_multi_turn
    from swift.rollout.multi_turn import multi_turns

    import agentenv.trainers.swift  # noqa: F401  # as --external_plugins imports it

    scheduler = multi_turns["agentenv"](max_turns=max_turns, tokenizer=Letters())
    first = [(list(request.messages), list(request.images)) for request in asked]
    invoke_async_hook(scheduler.on_trajectory_start(asked))
    # Colocate mode samples the first turn with the row's own pictures.
    assert [(request.messages, request.images) for request in asked] == first
    config = RequestConfig()
    found: list[Any] = run_multi_turn(asked, engine(asked, config), scheduler, engine, config, max_turns)
    assert not scheduler._sessions
    return found


def rewards(outputs: list[Any]) -> list[float | None]:
    """What the reward function says of rollouts."""
    from swift.rewards.orm import orms

    infos = [output.rollout_infos for output in outputs]
    found: list[float | None] = orms["agentenv"]()([""] * len(outputs), rollout_infos=infos)
    return found


async def test_episodes_side_by_side() -> None:
    [first] = await demonstrated("table", 1, **EASY)
    engine = Engine({"r0": first, "r1": ["<answer>no idea</answer>"]})
    outputs = await asyncio.to_thread(lambda: driven(requests("table", 2, **EASY), engine))
    assert rewards(outputs) == [1.0, 0.0]
    assert outputs[0].rollout_infos["agentenv"]["stop_reason"] == "answer"
    letters = Letters()
    assert [letters.decode(ids) for ids in outputs[0].response_token_ids] == first
    assert all(set(mask) == {1} for mask in outputs[0].response_loss_mask)
    assert [len(turn) for turn in outputs[0].rollout_logprobs] == [len(turn) for turn in first]
    roles = [message["role"] for message in outputs[0].messages]
    assert roles == ["system", "user", *["assistant", "user"] * (len(first) - 1), "assistant"]


async def test_pictures_follow_their_markers() -> None:
    [turns] = await demonstrated("zoom", 1, **SEEN)
    engine = Engine({"r0": turns})
    [output] = await asyncio.to_thread(lambda: driven(requests("zoom", 1, **SEEN), engine))
    assert rewards([output]) == [1.0]
    for messages, images in engine.asked:
        text = "".join(m["content"] for m in messages if isinstance(m["content"], str))
        assert text.count("<image>") == images
    assert [images for _, images in engine.asked] == list(range(1, len(turns) + 1))
    assert len(output.rollout_infos["images"]) == len(turns)


@pytest.mark.parametrize(("finish", "max_turns", "reason"), [("stop", 1, "max_turns"), ("length", None, "max_tokens")])
async def test_what_swift_ends_is_scored(finish: str, max_turns: int | None, reason: str) -> None:
    [turns] = await demonstrated("table", 1, **EASY)
    engine = Engine({"r0": turns}, finish)
    [output] = await asyncio.to_thread(lambda: driven(requests("table", 1, **EASY), engine, max_turns))
    assert output.rollout_infos["agentenv"]["stop_reason"] == reason
    assert rewards([output]) == [0.0]


async def test_server_mode() -> None:
    from swift.infer_engine import RequestConfig

    from agentenv.trainers.swift import AgentEnvScheduler

    [turns] = await demonstrated("table", 1, **EASY)
    scheduler = AgentEnvScheduler(Engine({"r0": turns}), tokenizer=Letters())
    [request] = requests("table", 1, **EASY)
    output = await scheduler.run(request, RequestConfig())
    assert rewards([output]) == [1.0]
    assert len(output.response_token_ids) == len(turns)


async def test_what_has_no_score_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    from agentenv.reward import Rubric

    monkeypatch.setattr(Rubric, "score", lambda *_: 1 / 0)
    engine = Engine({"r0": ["<answer>x</answer>"]})
    with pytest.raises(InfrastructureError, match="could not be scored"):
        await asyncio.to_thread(lambda: driven(requests("table", 1, **EASY), engine))
    assert rewards([type("Output", (), {"rollout_infos": {}})]) == [None]


def test_a_marker_in_a_text_stands_for_no_picture() -> None:
    from agentenv.trainers.swift import _plain

    assert _plain("see <image> and <b>") == "see \u2039image> and <b>"
