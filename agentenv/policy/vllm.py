"""A policy behind a vLLM server, by token ids in and out."""

from __future__ import annotations

import asyncio
import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, get_args

import aiohttp
import msgspec

from agentenv.errors import ConfigError, PolicyError, did_you_mean
from agentenv.policy.engine import EnginePolicy, refused
from agentenv.policy.exact import Request, Sampled
from agentenv.policy.http import Client, HTTPError, Patience, TransientError, decoded, read_body
from agentenv.policy.options import check_choice
from agentenv.policy.sampled import listed
from agentenv.policy.wire import content
from agentenv.trajectory import PolicyInfo

Endpoint = Literal["auto", "generate", "completions"]
_SERVER_OPTIONS = ("api_key_env", "timeout", "deadline", "retries", "concurrency")
_GENERATE, _COMPLETIONS = "inference/v1/generate", "v1/completions"


class ServerPolicy(EnginePolicy):
    """Base of the policies behind a server that takes token ids.

    Args:
        model: the model's name on the server; its tokenizer is loaded from there unless `tokenizer` is given.
        base_url: for instance "http://127.0.0.1:8000", an ending "/v1" is taken off; by default what the environment
            variable says, VLLM_BASE_URL or SGLANG_BASE_URL.
        api_key_env: the environment variable that holds the key, VLLM_API_KEY or SGLANG_API_KEY by default. It is read
            for each request and kept nowhere.
        timeout: seconds for one attempt. deadline: seconds for all attempts of one turn. retries: further attempts.
        concurrency: requests in flight at once; by default what the limit of open files allows.
        options: see `agentenv.policy.engine.Engine`.

    Raises:
        ConfigError: no address is known, a setting is wrong, or tokenizer or chat template cannot be used.
    """

    kind = ""
    """What records call the server."""

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        api_key_env: str = "",
        timeout: float = 600.0,
        deadline: float = 1800.0,
        retries: int = 5,
        concurrency: int | None = None,
        **options: Any,
    ) -> None:
        prefix = self.kind.upper()
        address = base_url or os.environ.get(f"{prefix}_BASE_URL", "")
        if not address:
            raise ConfigError(f"which server? Give base_url=... (--base-url), or set {prefix}_BASE_URL")
        super().__init__(model, options)
        patience = Patience(timeout=timeout, deadline=deadline, retries=retries)
        address = address.rstrip("/").removesuffix("/v1")
        self.client = Client(address, api_key_env or f"{prefix}_API_KEY", patience, concurrency)
        self._ready: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}
        self.info = PolicyInfo(self.kind, model, self.settings | {"base_url": self.client.shown_url}, "ids_full")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.model} at {self.client.shown_url}>"

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()

    async def ready(self) -> None:
        """See `Policy.ready`: once, that the server is what is wanted; before the first turn at the latest."""
        loop = asyncio.get_running_loop()
        known = self._ready.get(loop)
        if known is None or (known.done() and (known.cancelled() or known.exception() is not None)):
            self._ready.clear()
            known = self._ready[loop] = asyncio.create_task(self._look())
        await asyncio.shield(known)

    @abstractmethod
    async def _look(self) -> None:
        """See what the server is."""

    async def sample(self, request: Request) -> Sampled:
        """Sample one turn. Where it is cancelled the connection is closed, upon which the server stops its work."""
        await self.ready()
        if request.prompt.length >= self.context:  # the server has only now said how much it takes
            return Sampled((), (), "overflow")
        return await self._sample(request)

    @abstractmethod
    async def _sample(self, request: Request) -> Sampled:
        """Sample one turn on a server that is known."""

    def _processed(self, gaps: Sequence[float | None], cure: str) -> None:
        """See that log-probabilities are those of what is sampled from.

        Args:
            gaps: how far the likeliest token is above the next one at the temperatures 1 and 0.5, in nats.
            cure: what to change where they are those of the model before its temperature.

        Raises:
            PolicyError: they are.
        """
        plain, cool = gaps
        if not 0 < self.engine.temperature != 1.0 or plain is None or cool is None:
            return
        if abs(cool - plain) < abs(cool - 2 * plain):
            raise refused(
                f"{self.model}: the server gives log-probabilities of the model before temperature, top_p and top_k,"
                f" and turns are sampled with temperature {self.engine.temperature:g}: {cure}, or sample with"
                " temperature 1"
            )

    async def asked(self, path: str, body: dict[str, Any]) -> tuple[Any, int]:
        """The decoded answer to a request, and how many attempts came before."""

        async def read(answer: aiohttp.ClientResponse) -> Any:
            data = await read_body(answer)
            try:
                return decoded(data)
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                raise TransientError(f"its answer of {len(data)} bytes is not JSON ({error})") from None

        return await self.client.post(path, msgspec.json.encode(body), read)


class VLLMPolicy(ServerPolicy):
    """Plays through a vLLM server by token ids: `POST /inference/v1/generate`, else `/v1/completions`.

    Start the server with `--enable-scale-out --logprobs-mode processed_logprobs`: the first switches on the interface
    that takes images beside token ids and says which weights sampled what, the second makes log-probabilities those of
    the distribution that is sampled from. Prefix caching, on by default there, computes what a group shares once.

    Before the first turn the server is asked what it serves, how long its context is, and whether it gives ids and
    log-probabilities as they are needed; whatever is missing is an error that says what to change.

    Args:
        model, base_url: see `ServerPolicy`.
        endpoint: "generate" or "completions"; "auto" takes the first where the server has it.
        options: see `ServerPolicy`.

    Raises:
        ConfigError: no address is known, a setting is wrong, or tokenizer or chat template cannot be used.
    """

    kind = "vllm"
    more_options = (*_SERVER_OPTIONS, *ServerPolicy.more_options)

    def __init__(self, model: str, base_url: str | None = None, *, endpoint: Endpoint = "auto", **options: Any) -> None:
        check_choice("endpoint", endpoint, get_args(Endpoint))
        super().__init__(model, base_url, **options)
        self._endpoint: str = endpoint

    # -- before the first turn ----------------------------------------------------------------------------------------

    async def _look(self) -> None:
        served = await self.client.get("v1/models")
        models = served.get("data") if isinstance(served, dict) else None
        if not isinstance(models, list):
            raise PolicyError(
                f"no vLLM server answers at {self.client.shown_url} (asked for v1/models): start one (vllm serve ...),"
                " or check base_url; for another server take openai:, by its chat interface"
            )
        found = {str(item.get("id")): item for item in models if isinstance(item, dict)}
        if self.model not in found:
            raise refused(f"the server does not serve the model {self.model!r}{did_you_mean(self.model, found)}")
        length = found[self.model].get("max_model_len")
        if isinstance(length, int) and self.engine.context is None:
            self.context = length
        if self._endpoint == "auto":
            self._endpoint = "generate" if await self._has_generate() else "completions"
        await self._probe()

    async def _has_generate(self) -> bool:
        try:
            await self.asked(_GENERATE, {})
        except HTTPError as error:
            return error.status in (400, 422)  # it is there, and wants a request
        return True

    async def _probe(self) -> None:
        """Sample single tokens: are there ids, are the log-probabilities of what is sampled from?"""
        ids = list(self.renderer.ends)[:1]
        gaps = []
        for temperature in (1.0, 0.5):
            # Three, since the token that was sampled may take the place of one of the two likeliest.
            body = {"temperature": temperature, "max_tokens": 1, "logprobs": 3, "seed": 0}
            answer = await self._probed(*self._written(ids, body))
            choice = _choice(answer)
            self.sampled(*_got(choice, self._endpoint))
            gaps.append(_gap(choice, self._endpoint))
        self._processed(gaps, "start it with --logprobs-mode processed_logprobs")

    async def _probed(self, path: str, body: dict[str, Any]) -> Any:
        try:
            return (await self.asked(path, body))[0]
        except HTTPError as error:
            if error.status not in (404, 405):
                raise
            raise refused(
                f"{self.client.shown_url} is no vLLM server, or one without completions: it answered {error.status} to"
                f" {path}. For another server take openai:, by its chat interface"
            ) from None

    # -- turns --------------------------------------------------------------------------------------------------------

    async def _sample(self, request: Request) -> Sampled:
        path, body = self._written(list(request.prompt.ids), self.sampling(request))
        if request.media:
            body["content_parts"] = await asyncio.to_thread(self._parts, request)
        answer, retries = await self.asked(path, body)
        choice = _choice(answer)
        self.seen(request, answer.get("prompt_token_ids", choice.get("prompt_token_ids")))
        ids, logprobs = self.sampled(*_got(choice, self._endpoint))
        finish = str(choice.get("finish_reason") or "stop")
        if finish not in ("stop", "length"):
            raise PolicyError(f"{self.model}: the server ended a turn with {finish!r}")
        return Sampled(
            ids,
            logprobs,
            finish,
            versions(choice.get("weight_versions"), self.version),
            prompt_tokens(answer.get("usage")),
            retries,
        )

    def _written(self, ids: list[int], sampling: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Path and body of a request."""
        more: dict[str, Any] = {"model": self.model, "return_token_ids": True}
        if self.version:
            more["cache_salt"] = self.version
        if self._endpoint == "generate":
            if "logit_bias" in sampling:
                sampling = sampling | {"logit_bias": {int(token): v for token, v in sampling["logit_bias"].items()}}
            return _GENERATE, {"token_ids": ids, "sampling_params": sampling, **more}
        return _COMPLETIONS, {"prompt": ids, **sampling, **more}

    def _parts(self, request: Request) -> list[dict[str, Any]]:
        """The media of a request, in order, as `content_parts`: the placeholders in the ids stay single."""
        if self._endpoint != "generate":
            raise refused(
                f"{self.model}: images go to a vLLM server beside token ids only through {_GENERATE}: start it with"
                " --enable-scale-out"
            )
        items = content(request.media, self.engine.media)
        assert isinstance(items, list)
        return [{"type": item["type"], "url": item[item["type"]]["url"]} for item in items]


def _choice(answer: Any) -> dict[str, Any]:
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise PolicyError("the server's answer holds no choices")
    found: dict[str, Any] = choices[0]
    return found


def _entries(choice: dict[str, Any]) -> list[dict[str, Any]]:
    logprobs = choice.get("logprobs")
    entries = logprobs.get("content") if isinstance(logprobs, dict) else None
    return [entry for entry in listed(entries) if isinstance(entry, dict)]


def _got(choice: dict[str, Any], endpoint: str) -> tuple[Any, Any]:
    """Ids and log-probabilities of a choice, as they came."""
    ids, logprobs = choice.get("token_ids"), choice.get("logprobs")
    if endpoint == "completions":
        return ids, logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    entries = _entries(choice)
    if [entry.get("token_id") for entry in entries] != ids:
        return ids, None
    return ids, [entry.get("logprob") for entry in entries]


def _gap(choice: dict[str, Any], endpoint: str) -> float | None:
    """How far the likeliest token is above the next one, in nats; None where the answer does not say."""
    if endpoint == "completions":
        logprobs = choice.get("logprobs")
        top = listed(logprobs.get("top_logprobs") if isinstance(logprobs, dict) else None)[:1]
        return gap([value for first in top if isinstance(first, dict) for value in first.values()])
    top = [entry for first in _entries(choice)[:1] for entry in listed(first.get("top_logprobs"))]
    return gap([entry.get("logprob") for entry in top if isinstance(entry, dict)])


def gap(values: Sequence[Any]) -> float | None:
    """How far the largest log-probability is above the next one; None where there are no two, or hardly apart."""
    best = sorted((value for value in values if isinstance(value, (int, float))), reverse=True)[:2]
    return best[0] - best[1] if len(best) == 2 and best[0] - best[1] > 0.01 else None


def versions(spans: Any, otherwise: str) -> str:
    """Which weights sampled a turn, as a server's spans of it say, joined by commas where there are several.

    Raises:
        PolicyError: the spans are no list of objects, each with the name of a version.
    """
    told = listed(spans or [])
    if (spans and not told) or not all(isinstance(span, dict) for span in told):
        raise refused(f"the server's weight_versions cannot be read: {str(spans)[:80]}")
    named = [str(span["version"]) for span in told if span.get("version")]
    said = [name for name in dict.fromkeys(named) if name != "default"]  # what servers call weights that nobody named
    return ",".join(said) or otherwise


def prompt_tokens(usage: Any) -> int:
    """How many tokens a prompt had, as an engine says; 0 where it does not."""
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else 0
