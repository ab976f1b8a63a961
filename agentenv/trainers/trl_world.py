"""One rollout of TRL's loop: an object whose public methods are the environment's tools.

TRL reads the model's turns itself and calls these methods, one call at a time; the text beside the calls and the final
answer reach us only with the whole completion, when it asks for the reward. An episode is therefore played call by call
and completed at the end: what the model wrote beside its calls is put into the record before anything is scored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from agentenv.env import Env
from agentenv.errors import InfrastructureError, UsageError
from agentenv.trainers.common import blocks, has_media, said
from agentenv.trainers.signature import annotated
from agentenv.trajectory import PolicyInfo, Trajectory
from agentenv.types import Action, Message, Observation, StopReason, Task, Text, ToolCall

OVER = "The episode is over: no tool can be called any more. Give your final answer now."
FAILED = "The tools are out of order. Give your final answer now."


class TRLWorld:
    """One rollout after another, over a clone of the environment. Made by `world_class`, never by hand."""

    _template: Env
    _tasks: Mapping[str, Task]
    _info: PolicyInfo

    def __init__(self) -> None:
        self._env = self._template.clone()
        self._task = ""
        self._ran: list[int] = []
        self._broken: Exception | None = None
        self._record: Trajectory | None = None

    def reset(self, **row: Any) -> list[dict[str, Any]] | None:
        """Start the task that the row names; gives the last message of a prompt with pictures, as content blocks."""
        try:
            self._task = row["task"]
            task = self._tasks[self._task]
        except KeyError as missing:
            raise UsageError(f"the row has no {missing} of this spec: train on spec.train_dataset") from None
        self._ran, self._broken, self._record = [], None, None
        last = self._env.start(task, policy=self._info).messages[-1]
        return blocks(said(last)) if has_media([last]) else None

    @property
    def _over(self) -> bool:
        return self._env.episode is None or self._env.episode.stop is not None

    def _call(self, name: str, arguments: dict[str, Any]) -> str | list[dict[str, Any]]:
        """Run a call and say what the model sees of it."""
        if self._broken is not None or self._over:
            return FAILED if self._broken is not None else OVER
        call = ToolCall("", name, json.dumps(arguments, ensure_ascii=False), arguments)
        try:
            step = self._env.step(Action("", (call,)))
        except InfrastructureError as error:  # the rollout goes on, unscored: TRL would show the model its text
            self._broken = error
            return FAILED
        self._ran.append(self._env.trajectory.calls[-1].node)
        return self._shown(step.observation, step.terminated or step.truncated)

    def _shown(self, observation: Observation, ended: bool) -> str | list[dict[str, Any]]:
        messages = [*observation.messages[observation.new :]]
        if ended:
            messages.append(Message("user", (Text(OVER),)))
        if has_media(messages):
            return blocks([part for message in messages for part in said(message)])
        return "\n".join(message.text for message in messages)

    def _played(self, record: Trajectory) -> None:
        """Take the record of an episode that a rollout function played."""
        self._env.close()
        self._record = record

    # -- the end ------------------------------------------------------------------------------------------------------

    async def _settle(self, completion: Sequence[Mapping[str, Any]]) -> Trajectory:
        """End the episode as the completion ends, and score it."""
        if self._record is not None:
            return self._record
        episode = self._env.episode
        if episode is None:
            raise UsageError("the trainer asked for the reward of a rollout that it never began")
        if self._broken is not None:
            record = self._env.abort(StopReason.ENV_ERROR, self._broken)
        elif episode.stop is None:
            record = await self._finish(completion)
        else:
            record = await self._rescored(completion)
        return record

    async def _finish(self, completion: Sequence[Mapping[str, Any]]) -> Trajectory:
        episode = self._env.episode
        assert episode is not None
        self._complete(completion)
        last: Mapping[str, Any] = completion[-1] if completion else {}
        if last.get("role") != "assistant" or last.get("tool_calls"):
            episode.end(StopReason.MAX_TURNS if self._all_seen(completion) else StopReason.MAX_TOKENS)
            return await self._env.afinish()
        step = await self._env.astep(Action(_text(last), reasoning=last.get("reasoning_content") or ""))
        if not (step.terminated or step.truncated):
            episode.end(StopReason.NO_CALL)  # TRL's loop ends with a turn without calls, whatever it says
            return await self._env.afinish()
        return self._env.trajectory

    async def _rescored(self, completion: Sequence[Mapping[str, Any]]) -> Trajectory:
        """The record of an episode that ended within a call, scored again with what stood beside its calls."""
        record = self._env.trajectory
        if self._complete(completion) and record.outcome is not None and record.reward is not None:
            scored = await self._env.rubric.ascore(self._tasks[self._task], record)
            record.outcome = replace(record.outcome, reward=scored.reward, rewards=scored.scores, steps=scored.steps)
        return record

    def _complete(self, completion: Sequence[Mapping[str, Any]]) -> bool:
        """Put the text and the reasoning that stood beside calls into the record; True where there was any."""
        nodes, found = self._env.trajectory.nodes, False
        known = self._env.rules.tools
        ran = iter(self._ran)
        for message in completion:
            calls = message.get("tool_calls") or () if message.get("role") == "assistant" else ()
            mine = [node for call in calls if call.get("function", {}).get("name") in known for node in [next(ran, -1)]]
            text, reasoning = _text(message), message.get("reasoning_content") or ""
            if mine and mine[0] >= 0 and (text or reasoning):
                node = nodes[mine[0]]
                written = replace(node.message, parts=(Text(text),) if text else (), reasoning=reasoning, raw=text)
                nodes[mine[0]] = replace(node, message=written)
                found = True
        return found

    def _all_seen(self, completion: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the model was shown the results of all calls that were run: TRL takes back what has no room."""
        shown = sum(1 for message in completion if message.get("role") == "tool")
        return shown >= len(self._ran)


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def world_class(env: Env, tasks: Mapping[str, Task], info: PolicyInfo, *, tools: bool) -> type[TRLWorld]:
    """The class for an environment: with a method for each tool, or without any.

    Raises:
        UsageError: a tool's name is one that TRL takes for something else.
    """
    methods: dict[str, Any] = {}
    for spec in env.rules.specs if tools else ():
        if spec.name in ("reset", "get_reward") or not spec.name.isidentifier() or spec.name.startswith("_"):
            raise UsageError(
                f"TRL cannot call a tool named {spec.name!r}: it must be a plain name, and none of its own"
            )
        methods[spec.name] = annotated(_method(spec.name), spec)
    title = "".join(word.title() for word in env.env_spec.id.replace("_", "-").split("-"))
    return type(f"{title}World", (TRLWorld,), {**methods, "_template": env, "_tasks": tasks, "_info": info})


def _method(name: str) -> Any:
    def call(self: TRLWorld, **arguments: Any) -> str | list[dict[str, Any]]:
        return self._call(name, arguments)

    return call
