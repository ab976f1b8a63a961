"""AReaL over any environment: a workflow for `trainer.train(workflow=AgentEnvWorkflow(gconfig, tokenizer))`. Importing
this module imports areal.

Rows are `areal_rows`. A thin shim over AReaL's own request and response; its engines and its trainer were not run here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from areal.api import ModelRequest, RolloutWorkflow

from agentenv.policy.exact import Request, Sampled
from agentenv.policy.wire import content
from agentenv.trainers.common import loaded_by
from agentenv.trainers.exact import Rollout, rollout
from agentenv.trainers.session import rows
from agentenv.types import Task

TESTED = ("1.0.4", "1.1.0")
"""The versions of AReaL whose signatures this adapter follows: the lowest, and the first that is too new."""
loaded_by("areal", TESTED)


def areal_rows(name: str, tasks: int | Iterable[Task] | None = None, **options: Any) -> list[dict[str, Any]]:
    """Tasks as rows of AReaL's data set (see `agentenv.trainers.session.rows`)."""
    return [{"messages": row["prompt"], **row["extra_info"]} for row in rows(name, tasks, **options)]


class AgentEnvWorkflow(RolloutWorkflow):  # type: ignore[misc]  # areal is not followed by mypy
    """Plays one episode for each call.

    Args:
        gconfig: AReaL's `GenerationHyperparameters`, of each turn; its `max_tokens` bounds prompt and response.
        tokenizer: of the model.
        processor: of a model that sees pictures.
    """

    def __init__(self, gconfig: Any, tokenizer: Any, processor: Any = None) -> None:
        self._gconfig = gconfig.new_with_stop_and_pad_token_ids(tokenizer)
        self._tokenizer, self._processor = tokenizer, processor

    async def arun_episode(self, engine: Any, data: dict[str, Any]) -> dict[str, Any] | None:
        """Play, and give tensors of shape (1, tokens); None, which AReaL leaves out, where the environment does.

        Raises:
            InfrastructureError: the episode could not be scored.
        """
        context = self._gconfig.max_tokens

        async def sample(request: Request) -> Sampled:
            room = min(self._gconfig.max_new_tokens, context - request.prompt.length)
            changed: dict[str, Any] = {"stop": list(request.stop)} if request.stop else {}
            response = await engine.agenerate(
                ModelRequest(
                    input_ids=list(request.prompt.ids),
                    gconfig=self._gconfig.new(n_samples=1, max_new_tokens=room, **changed),
                    tokenizer=self._tokenizer,
                    processor=self._processor,
                    image_data=_encoded(request),
                )
            )
            version = str(response.output_versions[-1]) if response.output_versions else ""
            finish = "length" if response.stop_reason == "length" else "stop"
            return Sampled(tuple(response.output_tokens), tuple(response.output_logprobs), finish, version)

        source = self._processor or self._tokenizer
        played = await rollout(data, source, sample, trainer="areal", context=context)
        return _tensors(played) if any(played.mask) else None


def _encoded(request: Request) -> list[str]:
    """The pictures in base64."""
    items = content(request.media) if request.media else []
    assert isinstance(items, list)
    return [item["image_url"]["url"].partition(",")[2] for item in items]


def _tensors(played: Rollout) -> dict[str, Any]:
    import torch

    versions = [int(version) if version else -1 for version in played.versions]
    made = {
        "input_ids": torch.tensor(played.ids, dtype=torch.int32),
        "logprobs": torch.tensor(played.logprobs, dtype=torch.float32),
        "loss_mask": torch.tensor(played.mask, dtype=torch.int32),
        "versions": torch.tensor(versions, dtype=torch.int32),
        "rewards": torch.tensor(played.reward, dtype=torch.float32),
        "attention_mask": torch.ones(len(played.ids), dtype=torch.bool),
    }
    made = {name: tensor.unsqueeze(0) for name, tensor in made.items()}
    if not played.tensors:
        return made
    kinds = played.tensors.get("mm_token_type_ids")
    pixels = {name: value for name, value in played.tensors.items() if "token_type" not in name}
    return {**made, **({} if kinds is None else {"mm_token_type_ids": kinds}), "multi_modal_input": [pixels]}
