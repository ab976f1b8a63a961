"""AReaL over any environment: a workflow that its trainer is given by name, since workers make it anew:

    trainer.train(
        workflow="agentenv.trainers.areal.AgentEnvWorkflow",
        workflow_kwargs={"gconfig": config.gconfig, "tokenizer": config.tokenizer_path},
    )

Rows are `areal_rows`. Importing this module imports areal.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

from areal import workflow_context
from areal.api import ModelRequest, RolloutWorkflow
from areal.utils import stats_tracker

from agentenv.errors import ConfigError, InfrastructureError, PolicyError
from agentenv.policy.exact import Request, Sampled
from agentenv.policy.wire import content
from agentenv.trainers.common import loaded_by
from agentenv.trainers.exact import Rollout, rollout
from agentenv.trainers.session import rows
from agentenv.types import Task

TESTED = ("1.0.4", "1.1.0")
"""The versions of AReaL that this adapter was run with: the lowest, and the first that is too new."""
loaded_by("areal", TESTED)

_log = logging.getLogger(__name__)


def areal_rows(name: str, tasks: int | Iterable[Task] | None = None, **options: Any) -> list[dict[str, Any]]:
    """Tasks as rows of AReaL's data set (see `agentenv.trainers.session.rows`)."""
    return [{"messages": row["prompt"], **row["extra_info"]} for row in rows(name, tasks, **options)]


class AgentEnvWorkflow(RolloutWorkflow):  # type: ignore[misc]  # areal is not followed by mypy
    """Plays one episode for each call.

    Args:
        gconfig: AReaL's `GenerationHyperparameters`, of each turn; its `max_tokens` bounds prompt and response.
        tokenizer: of the model, or the path of its folder.
        processor: of a model that sees pictures, or the path of its folder.
    """

    def __init__(self, gconfig: Any, tokenizer: Any, processor: Any = None) -> None:
        self._tokenizer, self._processor = _loaded(tokenizer, processor)
        self._gconfig = gconfig.new_with_stop_and_pad_token_ids(self._tokenizer)

    async def arun_episode(self, engine: Any, data: dict[str, Any]) -> dict[str, Any] | None:
        """Play, and give tensors of shape (1, tokens).

        Returns:
            The tensors; None, which AReaL leaves out, where the environment does, and where SGLang would have gone on
            from other ids than the model sampled (see `_Engine`).

        Raises:
            InfrastructureError: the episode could not be scored, or AReaL's requests to vLLM would lack pictures or
                stop strings. AReaL's executor logs that and goes on without the episode and its group.
        """
        asked, source = _Engine(engine, self._gconfig, self._tokenizer, self._processor), self._processor
        try:
            played = await rollout(
                data, source or self._tokenizer, asked.turn, trainer="areal", context=self._gconfig.max_tokens
            )
        except InfrastructureError as error:
            if not asked.garbled:
                raise
            _log.warning("left out: %s", error)
            return None
        # What AReaL's curves of training and of evaluation are made of.
        stats_tracker.get(workflow_context.stat_scope()).scalar(reward=played.reward, num_turns=len(played.turns))
        return _tensors(played, asked.versions, source is not None) if any(played.mask) else None


class _Engine:
    """AReaL's engine, asked for the turns of one episode.

    `versions` has the weights of each turn, one for a token, since they change within turns. `garbled` says that the
    episode went no further since SGLang, up to the version that AReaL pins (0.5.10), decodes prompts with pictures and
    tokenises them again, and would have made other ids of this one.
    """

    def __init__(self, engine: Any, gconfig: Any, tokenizer: Any, processor: Any) -> None:
        self._engine, self._gconfig, self._tokenizer, self._processor = engine, gconfig, tokenizer, processor
        self._route = uuid4().hex  # requests of one id go to one server, which then has the turns before in its cache
        self.versions, self.garbled = list[list[int]](), False

    async def turn(self, request: Request) -> Sampled:
        _check_backend(self._engine, request)
        ids = list(request.prompt.ids)
        if request.media and self._tokenizer(self._tokenizer.decode(ids))["input_ids"] != ids:
            self.garbled = True
            raise PolicyError("SGLang would tokenise this prompt with pictures to other ids than the model sampled")
        response = await self._engine.agenerate(
            ModelRequest(
                rid=self._route,
                input_ids=ids,
                gconfig=self._settings(request),
                tokenizer=self._tokenizer,
                processor=self._processor,
                image_data=_encoded(request),
            )
        )
        self.versions.append(list(response.output_versions))
        named = "+".join(map(str, dict.fromkeys(response.output_versions)))
        finish = "length" if response.stop_reason == "length" else "stop"
        return Sampled(tuple(response.output_tokens), tuple(response.output_logprobs), finish, named)

    def _settings(self, request: Request) -> Any:
        room = min(self._gconfig.max_new_tokens, self._gconfig.max_tokens - request.prompt.length)
        changed: dict[str, Any] = {"stop": list(request.stop)} if request.stop else {}
        return self._gconfig.new(n_samples=1, max_new_tokens=room, **changed)


def _loaded(tokenizer: Any, processor: Any) -> tuple[Any, Any]:
    """Tokenizer and processor, loaded where paths were given, as AReaL's own workflows do."""
    if isinstance(tokenizer, str):
        from areal.utils.hf_utils import load_hf_tokenizer

        tokenizer = load_hf_tokenizer(tokenizer)
    if isinstance(processor, str):
        from transformers import AutoProcessor

        processor = AutoProcessor.from_pretrained(processor)
    return tokenizer, processor


def _check_backend(engine: Any, request: Request) -> None:
    """Refuse what AReaL would leave out of its request without a word."""
    if not str(getattr(engine.config, "backend", "")).startswith("vllm"):
        return
    what = "pictures" if request.media else "stop strings" if request.stop else ""
    if what:
        raise ConfigError(
            f"AReaL sends vLLM no {what} along with token ids, and the environment needs them: take the backend sglang"
        )


def _encoded(request: Request) -> list[str]:
    """The pictures in base64."""
    items = content(request.media) if request.media else []
    assert isinstance(items, list)
    return [item["image_url"]["url"].partition(",")[2] for item in items]


def _tensors(played: Rollout, versions: list[list[int]], pictured: bool) -> dict[str, Any]:
    import torch

    made = {
        "input_ids": torch.tensor(played.ids, dtype=torch.int32),
        "logprobs": torch.tensor(played.logprobs, dtype=torch.float32),
        "loss_mask": torch.tensor(played.mask, dtype=torch.int32),
        "versions": torch.full((len(played.ids),), -1, dtype=torch.int32),
        "rewards": torch.tensor(played.reward, dtype=torch.float32),
        "attention_mask": torch.ones(len(played.ids), dtype=torch.bool),
    }
    for (begin, end), given in zip(played.turns, versions, strict=True):
        made["versions"][begin:end] = torch.tensor(given, dtype=torch.int32)
    made = {name: tensor.unsqueeze(0) for name, tensor in made.items()}
    return {**made, **_seen(played, torch)} if pictured else made


def _seen(played: Rollout, torch: Any) -> dict[str, Any]:
    """The pictures' tensors; empty ones where there was none, since AReaL joins only episodes of the same keys."""
    pixels = {name: value for name, value in played.tensors.items() if "token_type" not in name}
    kinds = played.tensors.get("mm_token_type_ids")
    if kinds is None:
        kinds = torch.zeros(1, len(played.ids), dtype=torch.long)
    return {"mm_token_type_ids": kinds, "multi_modal_input": [pixels]}
