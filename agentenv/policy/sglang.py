"""A policy behind an SGLang server, by token ids in and out."""

from __future__ import annotations

import asyncio
from typing import Any

from agentenv.errors import PolicyError
from agentenv.policy.engine import refused
from agentenv.policy.exact import Request, Sampled
from agentenv.policy.sampled import listed
from agentenv.policy.vllm import ServerPolicy, gap, prompt_tokens, versions
from agentenv.policy.wire import content


class SGLangPolicy(ServerPolicy):
    """Plays through `POST /generate` of an SGLang server, by token ids.

    The server gives log-probabilities of the distribution after the temperature and before top_p and top_k, which
    records say, where it was started with `SGLANG_RETURN_ORIGINAL_LOGPROB` unset, its default; that is asked before the
    first turn, as is which model it serves. It heeds seeds only if started with `--enable-deterministic-inference`.
    With images it must not tokenise again, which `SGLANG_MM_AVOID_RETOKENIZE` (set by default) says; ids other than
    those that were sent are an error here. Source of what is sent and read: the server of sglang 0.5.23; it was not run
    here, since it has no build for CPUs on the package index.

    Args and errors are those of `agentenv.policy.vllm.ServerPolicy`: `base_url` is for instance
    "http://127.0.0.1:30000", or SGLANG_BASE_URL.
    """

    kind = "sglang"

    @property
    def settings(self) -> dict[str, Any]:
        """As of every engine; log-probabilities are of what is sampled from only where nothing is cut off."""
        cut = self.engine.top_p < 1 or self.engine.top_k
        return super().settings | ({"logprobs": "before top_p and top_k"} if cut else {})

    async def _look(self) -> None:
        about = await self._told("model_info")
        if not isinstance(about, dict):
            raise PolicyError(
                f"no SGLang server answers at {self.client.shown_url} (asked for model_info): start one, or check"
                " base_url; for another server take openai:, by its chat interface"
            )
        names = [str(about[key]) for key in ("served_model_name", "model_path") if about.get(key)]
        if names and _last(self.model) not in map(_last, names):
            raise refused(
                f"the server does not serve the model {self.model!r} but {names[0]!r}: give that name, and"
                " tokenizer=... where the tokenizer is not to be found by it"
            )
        server = await self._told("server_info")
        length = server.get("context_length") if isinstance(server, dict) else None
        if isinstance(length, int) and self.engine.context is None:
            self.context = length
        if self.renderer.eyes is not None and about.get("has_image_understanding") is False:
            raise refused(f"the model that {self.client.shown_url} serves takes no images")
        await self._probe()

    async def _told(self, path: str) -> Any:
        """What the server says at a path, or below the name that the path had in earlier versions."""
        found = await self.client.get(path)
        return found if found is not None else await self.client.get(f"get_{path}")

    async def _probe(self) -> None:
        """Sample single tokens: are the log-probabilities of what is sampled from?"""
        gaps = []
        for temperature in (1.0, 0.5):
            body: dict[str, Any] = {"input_ids": list(self.renderer.ends)[:1], "return_logprob": True}
            body |= {"sampling_params": {"temperature": temperature, "max_new_tokens": 1}, "top_logprobs_num": 2}
            answer, _ = await self.asked("generate", body)
            first = listed(_about(answer).get("output_top_logprobs"))[:1]
            top = [entry for entries in first for entry in listed(entries)]
            gaps.append(gap([entry[0] for entry in top if isinstance(entry, list) and entry]))
        self._processed(gaps, "start it without SGLANG_RETURN_ORIGINAL_LOGPROB")

    async def _sample(self, request: Request) -> Sampled:
        body: dict[str, Any] = {"input_ids": list(request.prompt.ids), "sampling_params": self._params(request)}
        body |= {"return_logprob": True, "return_prompt_token_ids": True}
        if request.media:
            body["image_data"] = await asyncio.to_thread(self._images, request)
        answer, retries = await self.asked("generate", body)
        about = _about(answer)
        self.seen(request, answer.get("prompt_token_ids", about.get("prompt_token_ids")))
        entries = about.get("output_token_logprobs")
        pairs = [entry for entry in listed(entries) if isinstance(entry, list) and len(entry) >= 2]
        given = [entry[1] for entry in pairs] if entries is not None else answer.get("output_ids")
        ids, logprobs = self.sampled(given, [entry[0] for entry in pairs])
        if listed(answer.get("output_ids")) not in ([], list(ids)):
            raise refused(f"{self.model}: the server gave other token ids than it gave log-probabilities for")
        # Spans where weights changed in the middle of a turn, one name otherwise.
        spans = about.get("weight_versions") or [{"version": about.get("weight_version")}]
        version = versions(spans, self.version)
        return Sampled(ids, logprobs, self._finish(about), version, prompt_tokens(about), retries)

    def _finish(self, about: dict[str, Any]) -> str:
        reason = about.get("finish_reason")
        kind = str(reason.get("type") if isinstance(reason, dict) else reason)
        if kind not in ("stop", "length"):
            raise PolicyError(f"{self.model}: the server ended a turn with {kind!r}")
        return kind

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


def _about(answer: Any) -> dict[str, Any]:
    about = answer.get("meta_info") if isinstance(answer, dict) else None
    if not isinstance(about, dict):
        raise PolicyError("the server's answer holds no meta_info")
    return about


def _last(name: str) -> str:
    """A model's name without what it stands below."""
    return name.rstrip("/").rsplit("/", 1)[-1]
