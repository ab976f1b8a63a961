r"""ms-swift over any environment: a plug-in for `--external_plugins`. Importing this module imports swift.

    swift rlhf --rlhf_type grpo --external_plugins .../agentenv/trainers/swift.py \
        --multi_turn_scheduler agentenv --reward_funcs agentenv --dataset train.jsonl

Rows are `swift_rows`: a scheduler (not swift's gym interface, whose observations are text only) appends what the
environment says, pictures included, and ends the rollout when the episode ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from swift.infer_engine.protocol import RolloutInferRequest
from swift.rewards.orm import ORM, orms
from swift.rollout.multi_turn import MultiTurnScheduler, multi_turns

from agentenv.trainers.common import loaded_by
from agentenv.trainers.session import Session, Turn, rows
from agentenv.types import StopReason, Task

TESTED = ("4.6.0", "4.7.0")
"""The versions of ms-swift that this adapter was run with: the lowest, and the first that is too new."""
loaded_by("ms-swift", TESTED)

NAME = "agentenv"
_MARKERS = re.compile("<(image|video|audio)>")


def swift_rows(name: str, tasks: int | Iterable[Task] | None = None, **options: Any) -> list[dict[str, Any]]:
    """Tasks as lines of ms-swift's data set, with the environment's own opening, pictures as data URLs.

    In colocate mode swift samples the first turn with the pictures of the row, so they have to be there.
    """
    return [_line(row["extra_info"]) for row in rows(name, tasks, **options)]


def _line(extra_info: dict[str, Any]) -> dict[str, Any]:
    session = Session(extra_info, NAME)
    opened = RolloutInferRequest(messages=[])
    _append(opened, session.begin())
    session.close()
    return {"messages": opened.messages, **({"images": opened.images} if opened.images else {}), **extra_info}


class AgentEnvScheduler(MultiTurnScheduler):  # type: ignore[misc]  # swift is not typed
    """Plays an episode for each request. The reward travels in `rollout_infos["agentenv_reward"]`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sessions: dict[str, Session] = {}
        self._turns: dict[str, Turn] = {}

    async def on_trajectory_start(self, requests: list[Any]) -> None:
        """Start an episode for each request, whose messages and pictures become the opening's."""
        for request in requests:
            session = self._sessions[_key(request)] = Session(request.data_dict, "ms-swift")
            request.messages, request.images = [], []
            _append(request, session.begin())

    async def on_turn_end(self, infer_request: Any, response_choice: Any, current_turn: int) -> dict[str, Any]:
        """Take the model's turn, and say whether the episode is over.

        Raises:
            InfrastructureError: it could not be scored.
        """
        key = _key(infer_request)
        session, finish = self._sessions[key], response_choice.finish_reason or "stop"
        turn = await session.astep(response_choice.message.content, finish)
        if not turn.done and finish == "length":
            turn = session.cut(StopReason.MAX_TOKENS)
        elif not turn.done and self.max_turns and current_turn >= self.max_turns:
            turn = session.cut()
        if not turn.done:
            self._turns[key] = turn
            return {"done": False}
        self._sessions.pop(key).close()
        infos: dict[str, Any] = {"agentenv_reward": turn.reward, "agentenv": turn.info}
        if infer_request.images:  # the sample that is trained on keeps its first pictures otherwise
            infos["images"] = infer_request.images
        return {"done": True, "rollout_infos": infos}

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
            content = "".join("<image>" if "image_url" in item else _plain(item["text"]) for item in content)
        else:
            content = _plain(content)
        request.messages.append({"role": message["role"], "content": content})


def _plain(text: str) -> str:
    """The text without what swift would take for the place of a medium."""
    return _MARKERS.sub("\u2039\\1>", text)


multi_turns[NAME] = AgentEnvScheduler
orms[NAME] = AgentEnvReward
