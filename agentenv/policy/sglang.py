"""A policy behind an SGLang server, by token ids in and out."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from agentenv.errors import ConfigError, PolicyError
from agentenv.policy.engine import refused
from agentenv.policy.exact import Request, Sampled
from agentenv.policy.http import Patience
from agentenv.policy.vllm import ServerPolicy
from agentenv.policy.wire import content
from agentenv.trajectory import PolicyInfo


class SGLangPolicy(ServerPolicy):
    """Plays through `POST /generate` of an SGLang server, by token ids.

    The server gives log-probabilities of the distribution that it samples from where it was started with
    `SGLANG_RETURN_ORIGINAL_LOGPROB` unset, its default. With images it must not tokenise again, which
    `SGLANG_MM_AVOID_RETOKENIZE` (set by default) says; ids other than those that were sent are an error here.

    Args:
        model: the model that is served; its tokenizer is loaded from there unless `tokenizer` is given.
        base_url: for instance "http://127.0.0.1:30000"; SGLANG_BASE_URL by default.
        api_key_env: the environment variable that holds the key. It is read for each request and kept nowhere.
        timeout: seconds for one attempt. deadline: seconds for all attempts of one turn. retries: further attempts.
        concurrency: requests in flight at once; by default what the limit of open files allows.
        options: see `agentenv.policy.engine.Engine`.

    Raises:
        ConfigError: no address is known, a setting is wrong, or tokenizer or chat template cannot be used.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        api_key_env: str = "SGLANG_API_KEY",
        timeout: float = 600.0,
        deadline: float = 1800.0,
        retries: int = 5,
        concurrency: int | None = None,
        **options: Any,
    ) -> None:
        address = base_url or os.environ.get("SGLANG_BASE_URL", "")
        if not address:
            raise ConfigError("which server? Give base_url=..., or set SGLANG_BASE_URL")
        patience = Patience(timeout=timeout, deadline=deadline, retries=retries)
        super().__init__(model, address, api_key_env, patience, concurrency, options)
        self.info = PolicyInfo("sglang", model, self.settings | {"base_url": self.client.shown_url}, "ids_full")

    async def _look(self) -> None:
        about = await self.client.get("get_model_info")
        if not isinstance(about, dict):
            raise PolicyError(f"no SGLang server answers at {self.client.shown_url} (asked for get_model_info)")
        server = await self.client.get("get_server_info")
        length = server.get("context_length") if isinstance(server, dict) else None
        length = about.get("max_model_len") or about.get("context_length") or length
        if isinstance(length, int) and self.engine.context is None:
            self.context = length
        if self.renderer.eyes is not None and about.get("has_image_understanding") is False:
            raise refused(f"the model that {self.client.shown_url} serves takes no images")

    async def _sample(self, request: Request) -> Sampled:
        body: dict[str, Any] = {"input_ids": list(request.prompt.ids), "sampling_params": self._params(request)}
        body |= {"return_logprob": True, "return_prompt_token_ids": True}
        if request.media:
            body["image_data"] = await asyncio.to_thread(self._images, request)
        answer, retries = await self.asked("generate", body)
        about = answer.get("meta_info") if isinstance(answer, dict) else None
        if not isinstance(about, dict):
            raise PolicyError("the server's answer holds no meta_info")
        self.seen(request, answer.get("prompt_token_ids", about.get("prompt_token_ids")))
        entries = about.get("output_token_logprobs")
        pairs = [entry for entry in entries or () if isinstance(entry, (list, tuple)) and len(entry) >= 2]
        given = [entry[1] for entry in pairs] if entries is not None else answer.get("output_ids")
        ids, logprobs = self.sampled(given, [entry[0] for entry in pairs])
        listed = answer.get("output_ids")
        if isinstance(listed, list) and listed != list(ids):
            raise refused(f"{self.model}: the server gave other token ids than it gave log-probabilities for")
        return Sampled(
            ids, logprobs, self._finish(about), self._version(about), int(about.get("prompt_tokens") or 0), retries
        )

    def _finish(self, about: dict[str, Any]) -> str:
        reason = about.get("finish_reason")
        kind = str(reason.get("type") if isinstance(reason, dict) else reason)
        if kind not in ("stop", "length"):
            raise PolicyError(f"{self.model}: the server ended a turn with {kind!r}")
        return kind

    def _version(self, about: dict[str, Any]) -> str:
        said = about.get("weight_version")
        return str(said) if said not in (None, "", "default") else self.version

    def _params(self, request: Request) -> dict[str, Any]:
        """Sampling parameters in SGLang's words."""
        made = self.sampling(request)
        kept = ("temperature", "top_p", "top_k", "skip_special_tokens", "stop", "stop_token_ids", "logit_bias")
        params = {name: made[name] for name in kept if name in made}
        params |= {"max_new_tokens": made["max_tokens"], "no_stop_trim": True, "spaces_between_special_tokens": False}
        return params | ({"sampling_seed": made["seed"]} if "seed" in made else {})

    def _images(self, request: Request) -> list[str]:
        items = content(request.media, self.engine.media)
        if not isinstance(items, list) or any(item["type"] != "image_url" for item in items):
            raise PolicyError("an SGLang server is given images; take video='frames'")
        return [item["image_url"]["url"] for item in items]
