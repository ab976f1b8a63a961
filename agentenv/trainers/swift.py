r"""ms-swift over any environment: a plug-in for `--external_plugins`. Importing this module imports swift.

    swift rlhf --rlhf_type grpo --external_plugins .../agentenv/trainers/swift.py \
        --multi_turn_scheduler agentenv --reward_funcs agentenv --dataset train.jsonl

Rows are `swift_rows`: a scheduler (not swift's gym interface, whose observations are text only) appends what the
environment says, pictures included, and ends the rollout when the episode ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from swift.rewards.orm import ORM, orms
from swift.rollout.multi_turn import MultiTurnScheduler, multi_turns

from agentenv.trainers.session import Session, Turn, rows
from agentenv.types import Task

NAME = "agentenv"


def swift_rows(name: str, tasks: int | Iterable[Task] | None = None, **options: Any) -> list[dict[str, Any]]:
    """Tasks as lines of ms-swift's data set (see `agentenv.trainers.session.rows`)."""
    return [{"messages": row["prompt"], **row["extra_info"]} for row in rows(name, tasks, **options)]


class AgentEnvScheduler(MultiTurnScheduler):  # type: ignore[misc]  # swift is not typed
    """Plays an episode for each request. The reward travels in `rollout_infos["agentenv_reward"]`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sessions: dict[str, Session] = {}
        self._turns: dict[str, Turn] = {}

    async def on_trajectory_start(self, requests: list[Any]) -> None:
        """Put the environment's own opening, pictures included, in the place of each request's messages."""
        for request in requests:
            session = self._sessions[_key(request)] = Session(request.data_dict, "ms-swift")
            request.messages = []
            request.images = []
            _append(request, session.begin())

    async def on_turn_end(self, infer_request: Any, response_choice: Any, current_turn: int) -> dict[str, Any]:
        """Take the model's turn, and say whether the episode is over."""
        key = _key(infer_request)
        session = self._sessions[key]
        turn = await session.astep(infer_request.messages[-1]["content"])
        cut = response_choice.finish_reason == "length" or bool(self.max_turns and current_turn >= self.max_turns)
        if cut and not turn.done:
            turn = session.cut()
        self._turns[key] = turn
        if not turn.done:
            return {"done": False}
        self._sessions.pop(key).close()
        return {"done": True, "rollout_infos": {"agentenv_reward": turn.reward, "agentenv": turn.info}}

    def step(self, infer_request: Any, response_choice: Any, current_turn: int) -> dict[str, Any]:
        """Append what the environment said to the turn."""
        turn = self._turns.pop(_key(infer_request))
        _append(infer_request, turn.messages)
        return {"infer_request": infer_request}


class AgentEnvReward(ORM):  # type: ignore[misc]
    """The reward that the scheduler found."""

    def __call__(self, completions: list[str], **kwargs: Any) -> list[float | None]:
        """The reward of each rollout; None, which swift leaves out, where its episode never ended."""
        infos = kwargs.get("rollout_infos") or [{}] * len(completions)
        return [info.get("agentenv_reward") for info in infos]


def _key(request: Any) -> str:
    return str(request.uuid or id(request))


def _append(request: Any, messages: list[dict[str, Any]]) -> None:
    """Append messages, their pictures as `<image>` markers and data URLs, in order."""
    for message in messages:
        content = message["content"]
        if not isinstance(content, str):
            request.images = [*request.images, *(item["image_url"]["url"] for item in content if "image_url" in item)]
            content = "".join("<image>" if "image_url" in item else item["text"] for item in content)
        request.messages.append({"role": message["role"], "content": content})


multi_turns[NAME] = AgentEnvScheduler
orms[NAME] = AgentEnvReward
