"""OpenRLHF over any environment: `--train.agent_func_path .../agentenv/trainers/openrlhf.py`. Importing it imports
openrlhf.

The data set is `openrlhf_rows`: its column `label` names environment and task (`--data.label_key label`). The executor
takes full control of a rollout, so nothing that was sampled is tokenised again, which OpenRLHF's own loop of turns
leaves to the boundaries of texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from openrlhf.utils.agent import AgentExecutorBase

from agentenv.policy.exact import Request, Sampled
from agentenv.trainers.common import loaded_by
from agentenv.trainers.exact import Rollout, pictures, rollout
from agentenv.trainers.session import rows
from agentenv.types import Task

TESTED = ("0.11.2", "0.12.0")
"""The versions of OpenRLHF that this adapter was run with: the lowest, and the first that is too new."""
loaded_by("openrlhf", TESTED)

_ALONG_TOKENS = ("mm_token_type_ids", "token_type_ids")  # the trainer makes them anew from the ids


def openrlhf_rows(name: str, tasks: int | Iterable[Task] | None = None, **options: Any) -> list[dict[str, Any]]:
    """Tasks as rows of OpenRLHF's data set (see `agentenv.trainers.session.rows`)."""
    return [{"prompt": row["prompt"], "label": json.dumps(row["extra_info"])} for row in rows(name, tasks, **options)]


class AgentExecutor(AgentExecutorBase):  # type: ignore[misc]  # openrlhf is not typed
    """Plays one episode for each call."""

    async def execute(
        self,
        prompt: Any,
        label: str,
        sampling_params: Any,
        max_length: int,
        hf_tokenizer: Any,
        llm_engine: Any,
        images: Any = None,
    ) -> dict[str, Any]:
        """Play, and give tokens, ranges of what was sampled, log-probabilities, pictures' tensors and reward.

        Raises:
            InfrastructureError: the episode could not be scored.
        """

        async def sample(request: Request) -> Sampled:
            params = deepcopy(sampling_params)
            room = max_length - request.prompt.length
            params.max_tokens = room if params.max_tokens is None else min(params.max_tokens, room)
            if request.stop:
                params.stop, params.include_stop_str_in_output = list(request.stop), True
            shown = {"image": pictures(request.media)} if request.media else None
            output = await llm_engine.generate(list(request.prompt.ids), params, multi_modal_data=shown)
            return _sampled(output.outputs[0], sampling_params.logprobs is not None)

        played = await rollout(json.loads(label), hf_tokenizer, sample, trainer="openrlhf", context=max_length)
        return {"prompt": prompt, "label": label, "images": images, **_response(played)}


def _sampled(output: Any, logprobs: bool) -> Sampled:
    ids = tuple(output.token_ids)
    values = None
    if logprobs:
        values = tuple(float(entry[token].logprob) for entry, token in zip(output.logprobs, ids, strict=True))
    return Sampled(ids, values, "length" if output.finish_reason == "length" else "stop")


def _response(played: Rollout) -> dict[str, Any]:
    outcome = played.record.outcome
    assert outcome is not None
    scores = {name: float(score.value) for name, score in outcome.rewards.items() if score.value is not None}
    return {
        "observation_tokens": played.ids,
        "action_ranges": _ranges(played.mask),
        "rollout_log_probs": played.logprobs,
        "mm_train_inputs": {k: v for k, v in played.tensors.items() if k not in _ALONG_TOKENS} or None,
        "reward": played.reward,
        "scores": played.reward,
        "truncated": played.truncated,
        "extra_logs": {"turns": float(outcome.metrics.get("turns", 0)), **scores},
    }


def _ranges(mask: list[int]) -> list[tuple[int, int]]:
    """Where runs of ones begin and end."""
    edges = [i for i, (before, now) in enumerate(zip([0, *mask], [*mask, 0], strict=True)) if before != now]
    return list(zip(edges[::2], edges[1::2], strict=True))
