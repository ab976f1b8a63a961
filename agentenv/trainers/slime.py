"""slime over any environment: `--custom-generate-function-path agentenv.trainers.slime.generate`.

Rows are `slime_rows` (`--input-key prompt --label-key label --metadata-key metadata`). The reward comes with each
sample, so no reward model is asked. A thin shim, held to the signature by a contract test; slime was not run here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agentenv.errors import InfrastructureError, PolicyError
from agentenv.policy.exact import Request, Sampled
from agentenv.policy.wire import content
from agentenv.trainers.common import loaded_by
from agentenv.trainers.exact import Rollout, Sample, rollout
from agentenv.trainers.session import rows
from agentenv.types import Task

TESTED = ("0.3.1", "0.4.0")
"""The versions of slime whose signatures this adapter follows: the lowest, and the first that is too new."""

_ALONG_TOKENS = ("mm_token_type_ids", "token_type_ids")


def slime_rows(name: str, tasks: int | Iterable[Task] | None = None, **options: Any) -> list[dict[str, Any]]:
    """Tasks as lines of slime's data set (see `agentenv.trainers.session.rows`)."""
    return [
        {"prompt": row["prompt"], "label": row["answer"], "metadata": row["extra_info"]}
        for row in rows(name, tasks, **options)
    ]


async def generate(args: Any, sample: Any, sampling_params: dict[str, Any]) -> Any:
    """Play the episode that a sample's metadata name, with slime's SGLang router.

    Args:
        args: slime's. `rollout_max_context_len` bounds prompt and response together.
        sample: a `slime.utils.types.Sample`, which is filled in.
        sampling_params: of each turn.

    Returns:
        The sample; aborted where slime called its requests off.

    Raises:
        InfrastructureError: the episode could not be scored.
        ConfigError: slime is of a version that was not tested.
    """
    loaded_by("slime", TESTED)
    from slime.rollout.sglang_rollout import GenerateState
    from slime.utils.http_utils import post

    state = GenerateState(args)
    router = f"http://{args.sglang_router_ip}:{args.sglang_router_port}/generate"
    context = getattr(args, "rollout_max_context_len", None) or 1 << 30
    source = getattr(state, "processor", None) or state.tokenizer
    called_off: list[str] = []
    ask = _sampler(lambda body: post(router, body), sampling_params, context, called_off)
    try:
        played = await rollout(sample.metadata, source, ask, trainer="slime", context=context)
    except InfrastructureError:
        if not called_off:
            raise
        sample.status = type(sample).Status.ABORTED
        return sample
    return _filled(sample, played, args, state.tokenizer)


def _sampler(post: Any, sampling_params: dict[str, Any], context: int, called_off: list[str]) -> Sample:
    async def ask(request: Request) -> Sampled:
        room = context - request.prompt.length
        params = {**sampling_params, "max_new_tokens": min(sampling_params.get("max_new_tokens") or room, room)}
        params |= {"skip_special_tokens": False, "no_stop_trim": True}
        if request.stop:
            params["stop"] = list(request.stop)
        body: dict[str, Any] = {
            "input_ids": list(request.prompt.ids),
            "sampling_params": params,
            "return_logprob": True,
        }
        if request.media:
            items = content(request.media)
            assert isinstance(items, list)
            body["image_data"] = [item["image_url"]["url"] for item in items]
        about = (await post(body))["meta_info"]
        finish = about["finish_reason"]["type"]
        if finish == "abort":
            called_off.append(finish)
            raise PolicyError("slime called the request off")
        given = about["output_token_logprobs"]
        ids, values = tuple(entry[1] for entry in given), tuple(float(entry[0]) for entry in given)
        return Sampled(ids, values, finish, str(about.get("weight_version", "")))

    return ask


def _filled(sample: Any, played: Rollout, args: Any, tokenizer: Any) -> Any:
    first = played.prompt
    sample.tokens = played.ids
    sample.response_length = len(played.ids) - first
    sample.response = tokenizer.decode(played.ids[first:], skip_special_tokens=False)
    sample.loss_mask = played.mask[first:]
    sample.rollout_log_probs = None if played.logprobs is None else played.logprobs[first:]
    sample.weight_versions = list(dict.fromkeys(version for version in played.versions if version))
    sample.multimodal_train_inputs = {k: v for k, v in played.tensors.items() if k not in _ALONG_TOKENS} or None
    key = getattr(args, "reward_key", None)
    sample.reward = {key: played.reward} if key else played.reward
    sample.remove_sample = not any(played.mask)
    sample.status = type(sample).Status.TRUNCATED if played.truncated else type(sample).Status.COMPLETED
    return sample
