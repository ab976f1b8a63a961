"""The agent loop that verl makes for each sample. Importing this module imports verl: name it in verl's configuration.

- name: agentenv
  _target_: agentenv.trainers.verl_loop.AgentEnvLoop
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput

from agentenv.errors import InfrastructureError, PolicyError
from agentenv.policy.base import Policy
from agentenv.rollout import play
from agentenv.trainers.common import Records, blocks, has_media, require, said
from agentenv.trainers.session import asked, reward_of
from agentenv.trainers.verl import TESTED
from agentenv.trajectory import PolicyInfo, Trajectory
from agentenv.types import Action, Image, Message, Observation, Video

logger = logging.getLogger("agentenv")
_kept: dict[tuple[str, str], Records] = {}


class AgentEnvLoop(AgentLoopBase):  # type: ignore[misc]  # verl is not typed
    """Plays one episode of the environment that a row names.

    An episode that its environment keeps out of the loss, or that could not be scored, comes back with a mask of zeros.
    verl has no reward but a number, so an unscored one counts as 0.0 in its group's mean; `unscored` among the reward's
    extra fields says so, and it is tried `attempts` times before.

    Args:
        records: a folder in which this worker keeps every episode, in a run folder of its own; "" keeps none.
        attempts: tries of an episode that fails for infrastructure reasons.
        check_version: refuse versions of verl that were not tested.
    """

    def __init__(
        self,
        *args: Any,
        records: str = "",
        attempts: int = 2,
        check_version: bool = True,
        tools: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if check_version:
            require("verl", TESTED, "verl")
        self._where, self._attempts = records, attempts

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """Play, and give prompt, response, mask, log-probabilities, pictures and reward."""
        extra_info = kwargs.get("extra_info") or {}
        policy, record = await episode(self, sampling_params, extra_info, self._attempts)
        env, _ = asked(extra_info)
        reward = reward_of(env, record)
        if self._where:
            self._keep(record, int(policy.extra.get("max_global_steps") or 0))
        return self._output(policy, record, reward)

    def _output(self, policy: VerlPolicy, record: Trajectory, reward: float | None) -> AgentLoopOutput:
        assert record.outcome is not None
        split = len(policy.ids) - len(policy.mask)
        trained = reward is not None and not record.outcome.masked
        if reward is None:
            logger.warning("episode %s is unscored and left out of the loss: %s", record.task.id, record.outcome.error)
        parts = {name: score.value or 0.0 for name, score in record.outcome.rewards.items()}
        facts = {"score": reward or 0.0, "unscored": float(reward is None), "stop_reason": record.stop_reason, **parts}
        return AgentLoopOutput(
            prompt_ids=policy.ids[:split],
            response_ids=policy.ids[split:],
            response_mask=policy.mask if trained else [0] * len(policy.mask),
            response_logprobs=policy.logprobs,
            multi_modal_data={"images": policy.images} if policy.images else {},
            mm_processor_kwargs=self._get_mm_processor_kwargs(),
            reward_score=reward or 0.0,
            num_turns=len(record.messages),
            metrics=AgentLoopMetrics(
                generate_sequences=sum(call.seconds for call in record.calls),
                tool_calls=sum(run.seconds for run in record.tool_runs),
            ),
            extra_fields={**policy.extra, "turn_scores": [], "tool_rewards": [], "reward_extra_info": facts},
        )

    def _keep(self, record: Trajectory, step: int) -> None:
        """Write the episode into this process's run folder of its environment."""
        key = (self._where, record.env_hash)
        if key not in _kept:
            folder = Path(self._where) / f"{record.env.id}-{record.env_hash}-{os.getpid()}"
            _kept[key] = Records(folder, True, record.env, VerlPolicy.info, {"trainer": "verl"})
        _kept[key].number([record], step)
        _kept[key].write([record])


class VerlPolicy(Policy):
    """Plays one episode through a verl agent loop: its tokens are verl's own, from first to last.

    Args:
        loop: a `verl.experimental.agent_loop.AgentLoopBase`.
        sampling: parameters of the server, as verl gives them to a loop.

    Attributes:
        ids: the stream so far, placeholders of pictures expanded.
        mask: 1 for each token of the response that the model sampled, 0 for each that was appended.
        logprobs: one for each token of the response, 0.0 where appended; None where the server gives none.
        images: the pictures, decoded, in the order of their placeholders.
        extra: what the server said beside its tokens.
    """

    info = PolicyInfo("verl")

    def __init__(self, loop: Any, sampling: Mapping[str, Any]) -> None:
        self._loop, self._sampling = loop, dict(sampling)
        self._request = uuid4().hex
        self._messages: list[dict[str, Any]] = []
        self.ids: list[int] = []
        self.mask: list[int] = []
        self.logprobs: list[float] | None = None
        self.images: list[Any] = []
        self.extra: dict[str, Any] = {}

    @property
    def _room(self) -> int:
        return int(self._loop.rollout_config.response_length) - len(self.mask)

    async def act(self, observation: Observation) -> Action:
        """Take one turn; "overflow" where what is new has no room in the response."""
        if not await self._see(observation):
            return Action("", finish_reason="overflow")
        output = await self._loop.server_manager.generate(
            request_id=self._request,
            prompt_ids=self.ids,
            sampling_params=self._asked_for(observation),
            image_data=self.images or None,
            mm_processor_kwargs=self._loop._get_mm_processor_kwargs(),
        )
        if getattr(output, "stop_reason", None) == "aborted" and not output.token_ids:
            raise PolicyError("verl's server aborted the request before it sampled a token")
        self.extra = {**output.extra_fields, **self.extra, **_newer(output.extra_fields)}
        return await self._taken(output)

    def _asked_for(self, observation: Observation) -> dict[str, Any]:
        sampling = dict(self._sampling)
        if observation.stop:
            sampling.update(stop=list(observation.stop), include_stop_str_in_output=True)
        return sampling

    async def _taken(self, output: Any) -> Action:
        tokens = list(output.token_ids)[: self._room]
        logprobs = list(output.log_probs)[: self._room] if output.log_probs else None
        if logprobs is not None and self.logprobs is None:
            self.logprobs = [0.0] * len(self.mask)
        merged, mask, kept = await self._loop.ct_merge_assistant_token(
            self.ids, tokens, self.mask, self.logprobs, assistant_logprobs=logprobs
        )
        self.ids, self.mask = merged.token_ids, mask
        self.logprobs = kept
        text = self._loop.tokenizer.decode(tokens, skip_special_tokens=True)
        self._messages.append({"role": "assistant", "content": text})
        finish = "length" if self._room <= 0 else "stop"
        return Action(
            text, finish_reason=finish, token_ids=tuple(tokens), logprobs=None if logprobs is None else tuple(logprobs)
        )

    async def _see(self, observation: Observation) -> bool:
        """Append what is new; False where it has no room, and then nothing is appended."""
        if not self._messages:
            await self._begin(observation.messages)
            return True
        new = observation.messages[observation.new :]
        if not new:
            return self._room > 0
        wire, images = [_wire(message) for message in new], _pictures(new)
        self._loop._assert_mm_supported(bool(images))
        updated = [*self._messages, *wire]
        merged, mask, logprobs = await self._loop.ct_merge_context_msg(
            self._messages, updated, self.ids, self.mask, self.logprobs
        )
        if len(mask) >= self._loop.rollout_config.response_length:
            return False
        self.ids, self.mask, self.logprobs = merged.token_ids, mask, logprobs
        self._messages = updated
        self.images += images
        return True

    async def _begin(self, messages: Sequence[Message]) -> None:
        wire = [_wire(message) for message in messages]
        images = _pictures(messages)
        self._loop._assert_mm_supported(bool(images))
        ids = await self._loop.loop.run_in_executor(
            None, lambda: self._loop.continuous_token_builder.build_initial_tokens(wire, images=images or None)
        )
        room = self._loop.rollout_config.prompt_length
        if len(ids) > room:
            raise PolicyError(
                f"the prompt takes {len(ids)} tokens and rollout.prompt_length is {room}: raise it; verl would cut the"
                " beginning off, tools and all"
            )
        self._messages, self.ids, self.images = wire, list(ids), images


def _newer(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Of several turns, the last weights that had a part in them."""
    return {key: fields[key] for key in ("max_global_steps",) if fields.get(key) is not None}


def _wire(message: Message) -> dict[str, Any]:
    content = blocks(said(message)) if has_media([message]) else message.text
    return {"role": message.role, "content": content}


def _pictures(messages: Iterable[Message]) -> list[Any]:
    shown = [part for message in messages for part in message.parts if isinstance(part, (Image, Video))]
    return [block["image"] for block in blocks(shown) if block["type"] == "image"]


async def episode(loop: Any, sampling: Mapping[str, Any], extra_info: Mapping[str, Any], attempts: int = 2) -> Any:
    """Play the episode of a row with a verl agent loop.

    Returns:
        The policy, which holds the tokens, and the record.

    Raises:
        InfrastructureError: all attempts failed before the model sampled anything.
    """
    env, task = asked(extra_info)
    for attempt in range(1, attempts + 1):
        policy = VerlPolicy(loop, sampling)
        record = await play(env.clone(), policy, task, seed=int(extra_info.get("index", 0)), sample=attempt - 1)
        if record.reward is not None or attempt == attempts:
            break
    if not policy.mask:
        why = record.outcome.error if record.outcome and record.outcome.error else record.stop_reason
        raise InfrastructureError(f"episode {task.id}: {why}")
    return policy, record
