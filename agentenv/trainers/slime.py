"""slime over any environment: `--custom-generate-function-path agentenv.trainers.slime.generate`.

Rows are `slime_rows` (`--input-key prompt --label-key label --metadata-key metadata`); `--rollout-max-context-len` must
be given. The reward comes with each sample, so no reward model is asked. A thin shim, held to the signature by a
contract test, since no package of slime is on the package index.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agentenv.errors import ConfigError, InfrastructureError, PolicyError
from agentenv.policy.exact import Request, Sampled
from agentenv.policy.wire import content
from agentenv.trainers.common import loaded_by
from agentenv.trainers.exact import Rollout, rollout
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
        The sample; aborted, and as it was, where slime called its requests off.

    Raises:
        InfrastructureError: the episode could not be scored.
        ConfigError: slime is of a version that was not tested, or was given no `--rollout-max-context-len`.
    """
    loaded_by("slime", TESTED)
    from slime.rollout.sglang_rollout import GenerateState

    if not args.rollout_max_context_len:
        raise ConfigError(
            "slime bounds a response by --rollout-max-response-len, which holds for each turn here: give"
            " --rollout-max-context-len too, the most tokens of prompt and turns together"
        )
    state = GenerateState(args)
    engine = _Engine(args, state, sample, sampling_params)
    source = state.processor or state.tokenizer
    try:
        played = await rollout(sample.metadata, source, engine.ask, trainer="slime", context=engine.context)
    except InfrastructureError:
        if not engine.called_off:
            raise
        sample.status = type(sample).Status.ABORTED
        return sample
    return _filled(sample, played, engine.told, args, state.tokenizer)


class _Engine:
    """slime's router, asked for the turns of one sample. `told` is what it said of each."""

    def __init__(self, args: Any, state: Any, sample: Any, sampling_params: dict[str, Any]) -> None:
        self._args, self._state, self._params = args, state, sampling_params
        self._url = f"http://{args.sglang_router_ip}:{args.sglang_router_port}/generate"
        self.context: int = args.rollout_max_context_len
        self.called_off, self.told = False, list[dict[str, Any]]()
        # A router that goes by this key finds the server with the turns before in its cache.
        steady = getattr(args, "router_policy", None) == "consistent_hashing" and sample.session_id
        self._headers = {"X-SMG-Routing-Key": sample.session_id} if steady else None

    async def ask(self, request: Request) -> Sampled:
        from slime.utils.http_utils import post

        if self._state.aborted:
            self._call_off()
        answer = await post(self._url, self._body(request), headers=self._headers)
        about: dict[str, Any] = answer["meta_info"]
        finish = about["finish_reason"]["type"]
        if finish == "abort":
            self._call_off()
        self.told.append(about)
        given = about["output_token_logprobs"]
        ids, values = tuple(entry[1] for entry in given), tuple(float(entry[0]) for entry in given)
        return Sampled(ids, values, finish, str(about.get("weight_version", "")))

    def _call_off(self) -> None:
        self.called_off = True
        raise PolicyError("slime called its requests off")

    def _body(self, request: Request) -> dict[str, Any]:
        room = self.context - request.prompt.length
        params = {**self._params, "max_new_tokens": min(self._params.get("max_new_tokens") or room, room)}
        params |= {"skip_special_tokens": False, "no_stop_trim": True}
        if request.stop:
            params["stop"] = list(request.stop)
        body: dict[str, Any] = {"input_ids": list(request.prompt.ids), "sampling_params": params}
        body["return_logprob"] = True
        if getattr(self._args, "use_rollout_routing_replay", False):
            body["return_routed_experts"] = True
        if request.media:
            items = content(request.media)
            assert isinstance(items, list)
            body["image_data"] = [item["image_url"]["url"] for item in items]
        return body


def _filled(sample: Any, played: Rollout, told: list[dict[str, Any]], args: Any, tokenizer: Any) -> Any:
    """The sample with the episode, appended as slime appends: that keeps what it needs for replays in line."""
    done = played.prompt
    sample.tokens = played.ids[:done]
    for (begin, end), about in zip(played.turns, told, strict=True):
        if begin > done:
            sample.append_response_tokens(args, tokens=played.ids[done:begin], trainable=False)
        values = None if played.logprobs is None else played.logprobs[begin:end]
        sample.append_response_tokens(args, tokens=played.ids[begin:end], log_probs=values, meta_info=about)
        done = end
    sample.response = tokenizer.decode(played.ids[played.prompt :], skip_special_tokens=False)
    sample.multimodal_train_inputs = {k: v for k, v in played.tensors.items() if k not in _ALONG_TOKENS} or None
    key = getattr(args, "reward_key", None)
    sample.reward = {key: played.reward} if key else played.reward
    sample.loss_mask = played.mask[played.prompt :]
    sample.remove_sample = not any(played.mask)
    sample.status = type(sample).Status.TRUNCATED if played.truncated else type(sample).Status.COMPLETED
    return sample
