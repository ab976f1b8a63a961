"""A policy that runs vLLM in this process, by token ids in and out."""

from __future__ import annotations

import asyncio
import itertools
from functools import partial
from typing import Any

from agentenv.errors import ConfigError, MissingExtraError, PolicyError
from agentenv.media import decode_cache, media_store
from agentenv.policy.engine import EnginePolicy
from agentenv.policy.exact import Request, Sampled
from agentenv.trajectory import PolicyInfo
from agentenv.types import Image

_NUMBERS = itertools.count()


class VLLMEnginePolicy(EnginePolicy):
    """Plays with vLLM's `AsyncLLM` in this process.

    The engine is made with the first turn, or taken as `llm`: a trainer gives the one whose weights it changes, and
    sets `version` whenever it has. It must have been made with `logprobs_mode="processed_logprobs"`.

    Args:
        model: a folder with the model, or a name that vLLM resolves.
        llm: an `AsyncLLM` that is there already.
        engine_args: of `vllm.AsyncEngineArgs`, for instance {"max_model_len": 8192}.
        concurrency: turns that the engine works on at once; the others wait.
        options: see `agentenv.policy.engine.Engine`.

    Raises:
        MissingExtraError: vLLM is not installed.
        ConfigError: a setting is wrong, or the tokenizer or the chat template cannot be used.
    """

    def __init__(
        self,
        model: str,
        *,
        llm: Any = None,
        engine_args: dict[str, Any] | None = None,
        concurrency: int = 256,
        **options: Any,
    ) -> None:
        try:
            import vllm
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError:
            raise MissingExtraError("vllm", "vllm", "vLLM in this process") from None
        super().__init__(model, options)
        self._vllm, self._make, self._llm, self._own = vllm, AsyncLLM.from_engine_args, llm, llm is None
        self._args = {"model": model, "logprobs_mode": "processed_logprobs", **(engine_args or {})}
        self._slots = asyncio.Semaphore(concurrency)
        self._starting = asyncio.Lock()
        if llm is not None:
            self._taken(llm)
        name = model.rstrip("/").rsplit("/", 1)[-1]
        self.info = PolicyInfo(
            "vllm_engine", name, self.settings | {"vllm": str(getattr(vllm, "__version__", ""))}, "ids_full"
        )

    def _taken(self, llm: Any) -> None:
        config = getattr(llm, "model_config", None) or llm.vllm_config.model_config
        mode = str(getattr(config, "logprobs_mode", "processed_logprobs"))
        if "processed_logprobs" not in mode:
            raise ConfigError(
                f"this engine gives {mode}, not the log-probabilities of what it samples from: make it with"
                ' logprobs_mode="processed_logprobs"'
            )
        if self.engine.context is None:
            self.context = int(config.max_model_len)

    async def _engine(self) -> Any:
        async with self._starting:
            if self._llm is None:
                args = self._vllm.AsyncEngineArgs(**self._args)
                try:
                    self._llm = self._make(args)  # here, since it takes hold of the running loop
                except Exception as error:  # whatever an engine raises when it cannot start
                    raise PolicyError(f"vLLM cannot be started with {self.model}: {error}") from error
                self._taken(self._llm)
        return self._llm

    async def ready(self) -> None:
        """See `Policy.ready`: starts the engine."""
        await self._engine()

    async def sample(self, request: Request) -> Sampled:
        """Sample one turn. Where it is cancelled the engine stops its work on it."""
        llm = await self._engine()
        if request.prompt.length >= self.context:
            return Sampled((), (), "overflow")
        prompt: dict[str, Any] = {"prompt_token_ids": list(request.prompt.ids)}
        if self.version:
            prompt["cache_salt"] = self.version
        if request.media:
            prompt |= await asyncio.to_thread(self._media, request)
        async with self._slots:
            final = await self._last(llm, prompt, self._params(request))
        (out,) = final.outputs
        self.seen(request, list(final.prompt_token_ids or ()))
        logprobs = [found[token].logprob for token, found in zip(out.token_ids, out.logprobs or (), strict=False)]
        ids, values = self.sampled(list(out.token_ids), logprobs)
        if out.finish_reason not in ("stop", "length"):
            raise PolicyError(f"{self.model}: the engine ended a turn with {out.finish_reason!r}")
        return Sampled(ids, values, out.finish_reason, self.version, len(final.prompt_token_ids or ()))

    def _params(self, request: Request) -> Any:
        sampling = self.sampling(request)
        if "logit_bias" in sampling:
            sampling["logit_bias"] = {int(token): value for token, value in sampling["logit_bias"].items()}
        final = self._vllm.sampling_params.RequestOutputKind.FINAL_ONLY
        return self._vllm.SamplingParams(**sampling, output_kind=final)

    async def _last(self, llm: Any, prompt: dict[str, Any], params: Any) -> Any:
        final = None
        try:
            # Cancelling the generator aborts the request in the engine.
            async for made in llm.generate(prompt, params, f"agentenv-{next(_NUMBERS)}"):
                final = made
        except (ValueError, RuntimeError) as error:
            raise PolicyError(f"{self.model}: vLLM failed: {type(error).__name__}: {error}") from error
        if final is None:
            raise PolicyError(f"{self.model}: vLLM gave no answer")
        return final

    def _media(self, request: Request) -> dict[str, Any]:
        """Media beside the collapsed ids; each is named by its content, so that the engine encodes it once."""
        load = self.engine.media or media_store().get
        pictures: list[Any] = []
        for part in request.media:
            if not isinstance(part, Image):
                raise PolicyError("vLLM in this process is given images; take video='frames'")
            size = part.width * part.height * 4
            pictures.append(decode_cache().image(part.sha256, partial(load, part.sha256), expect=size))
        names = [part.sha256 for part in request.media]
        return {"multi_modal_data": {"image": pictures}, "multi_modal_uuids": {"image": names}}

    async def close(self) -> None:
        """End the engine, where this policy made it."""
        if self._own and self._llm is not None:
            llm, self._llm = self._llm, None
            await asyncio.to_thread(llm.shutdown)
