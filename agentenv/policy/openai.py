"""A policy behind any OpenAI-compatible server: vLLM, SGLang, llama.cpp or a hosted one."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import aiohttp
import msgspec

from agentenv.errors import ConfigError, PolicyError, did_you_mean
from agentenv.policy.base import Policy
from agentenv.policy.captured import Capture, make_capture
from agentenv.policy.http import Client, HTTPError, Patience, TransientError, decoded, read_body, said
from agentenv.policy.options import check_choice, check_flags, check_number
from agentenv.policy.stream import read_stream
from agentenv.policy.wire import Address, Media, VideoForm, read_call, restored, video_reading, wire_messages
from agentenv.trajectory import PolicyInfo
from agentenv.types import Action, Observation, Task, Usage

_TOO_LONG = re.compile(
    r"(?i)context[ _]?(length|window|size)|maximum context|max_model_len|prompt is too long|too many (input )?tokens"
)
_SECRET = re.compile(r"(?i)(api|access|auth|secret|private).*(key|token)|password|secret|authorization|credential")


class OpenAIPolicy(Policy):
    """Plays through `POST {base_url}/chat/completions`.

    In the native dialect tools travel in `tools` and calls come back in `tool_calls`. In any other dialect the
    conversation travels as text, the dialect's stop strings are sent along, and a stop string that the server cut off
    is put back. A prompt that is too long for the model is a turn of no text with finish reason "length", or "overflow"
    where ids are captured, and no error.

    Args:
        model: the model's name on the server.
        base_url: for instance "http://127.0.0.1:8000/v1"; OPENAI_BASE_URL by default.
        api_key_env: the environment variable that holds the key. It is read when a request is made, and kept nowhere.
        native: whether calls travel beside the text; None goes by the observation's dialect.
        temperature, top_p, max_tokens: left to the server where None.
        seed: send a seed with each turn, made of the episode's seed, the sample and the turn.
        stop: further stop strings.
        extra_body: further fields of the request, which win over the others.
        timeout: seconds for one attempt.
        deadline: seconds for all attempts of one turn.
        retries: attempts after the first, on 408, 429, 5xx, lost connections, timeouts and broken answers.
        pause: seconds of the longest pause after the first failure; doubles from there to 30 s, drawn with full jitter.
        concurrency: requests in flight at once; by default what the limit of open files allows.
        prices: US dollars per million prompt and completion tokens; None takes what the server states, or 0.
        stream: read the answer as it is made.
        on_delta: called with each piece of visible text as it comes; implies `stream`.
        media: gives the bytes of an image by its SHA-256; the process's media store by default.
        image_url: gives the URL of an image, for servers that fetch it themselves; by default its bytes are sent.
        tool_media: "user" moves images of tool results into a user message, each behind a caption that names its call,
            for servers that take none from tools.
        video: clips are sent as "frames", one image each, or as one "video": `video_url` in vLLM's form for frames that
            were chosen already (see `agentenv.policy.wire.content`). The request's `media_io_kwargs` then keep vLLM
            from leaving out frames beyond the 32nd and, where the conversation holds one clip, tell the frames' times;
            of several it counts each from 0, and only the window written before each says where it belongs.
        send_reasoning: pass earlier reasoning back, in the field from which it was read.
        capture: "ids" asks for the token ids and log-probabilities of turns and the ids of prompts (vLLM), and takes
            them as the truth. Log-probabilities are as the server gives them; vLLM gives those of what it samples from
            if started with `--logprobs-mode processed_logprobs`. The server tokenises the conversation anew for each
            turn: where its ids do not go on with those that were sampled, the record says so and starts another
            stream. Images and videos need `tokenizer`.
        tokenizer: of the served model, to hold the ids of its prompts against the conversation as it must be, token by
            token: its folder, a name that transformers resolves, or a loaded tokenizer or processor. A prompt with
            other ids is then refused.
        forks: with `tokenizer`, a prompt in which the server tokenised earlier turns anew starts another stream.
        trust_env: use the proxy that HTTP_PROXY and its like name.

    Raises:
        ConfigError: no address is known, or a setting is wrong.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        native: bool | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        seed: bool = True,
        stop: Sequence[str] = (),
        extra_body: Mapping[str, Any] | None = None,
        timeout: float = 600.0,
        deadline: float = 1800.0,
        retries: int = 5,
        pause: float = 0.5,
        concurrency: int | None = None,
        prices: tuple[float, float] | None = None,
        stream: bool = False,
        on_delta: Callable[[str], None] | None = None,
        media: Media | None = None,
        image_url: Address | None = None,
        tool_media: Literal["tool", "user"] = "tool",
        video: VideoForm = "frames",
        send_reasoning: bool = False,
        capture: Literal["text", "ids"] = "text",
        tokenizer: Any = None,
        forks: bool = False,
        trust_env: bool = False,
    ) -> None:
        address = base_url or os.environ.get("OPENAI_BASE_URL", "")
        if not address:
            raise ConfigError("which server? Give base_url=... (--base-url), or set OPENAI_BASE_URL")
        if api_key_env != "OPENAI_API_KEY" and not os.environ.get(api_key_env):
            raise ConfigError(f"the environment variable {api_key_env} is not set; it should hold the key")
        if capture not in ("text", "ids") or tool_media not in ("tool", "user"):
            raise ConfigError('capture must be "text" or "ids", and tool_media "tool" or "user"')
        check_choice("video", video, get_args(VideoForm))
        flags = {"seed": seed, "stream": stream, "send_reasoning": send_reasoning, "trust_env": trust_env}
        check_flags(**flags, native=bool(native) if native is None else native)
        sampling = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
        _check_sampling(**sampling, stop=stop, extra_body=extra_body, prices=prices)
        _check_patience(timeout, deadline, retries, pause, concurrency)
        self.media, self.image_url, self.tool_media = media, image_url, tool_media
        self.video: VideoForm = video
        self.prices = prices
        self.stream, self.on_delta, self.send_reasoning = stream or on_delta is not None, on_delta, send_reasoning
        self.model, self.native, self.seed, self.stop = model, native, seed, tuple(stop)
        self._fixed: dict[str, Any] = {key: value for key, value in sampling.items() if value is not None}
        self._extra = self._asked(capture) | dict(extra_body or {})
        self._capture: Capture | None = None
        if capture == "ids":
            ways: dict[str, Any] = {"media": media, "video": video, "tool_media": tool_media, "forks": forks}
            self._capture = make_capture(model, tokenizer, self._extra, **ways)
            self._extra = self._capture.fields | self._extra
        elif tokenizer is not None or forks:
            raise ConfigError("tokenizer=... and forks=True go with capture='ids'")
        patience = Patience(timeout=timeout, deadline=deadline, retries=retries, pause=pause)
        self.client = Client(address, api_key_env, patience, concurrency, trust_env)
        self.info = self._described()
        self._reasoning_field = "reasoning_content"
        self._models: list[str] | None = None

    def _asked(self, capture: str) -> dict[str, Any]:
        asked: dict[str, Any] = {}
        if self.stream:
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
        if capture == "ids":
            asked |= {"return_token_ids": True, "logprobs": True}
        return asked

    def _described(self) -> PolicyInfo:
        settings = self._fixed | {"base_url": self.client.shown_url, "seed": self.seed, "stop": list(self.stop)}
        settings |= {"native": self.native, "video": self.video, "extra_body": without_secrets(self._extra)}
        if self._capture is None:
            return PolicyInfo("openai", self.model, settings, "text")
        return PolicyInfo("openai", self.model, settings | self._capture.settings, "ids_full")

    def __repr__(self) -> str:
        return f"<OpenAIPolicy {self.model} at {self.client.shown_url}>"

    def begin(self, task: Task, *, seed: int, sample: int = 0) -> Policy:
        return _Episode(self, random.Random(f"{seed}/{sample}") if self.seed else None)

    async def act(self, observation: Observation) -> Action:
        return await self.take(observation, None)

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()

    async def take(self, observation: Observation, seed: int | None) -> Action:
        """One turn, sampled with `seed` where the server takes one.

        Raises:
            PolicyError: see `Policy.act`; the message says what to check.
        """
        started = time.perf_counter()
        native = observation.dialect == "native" if self.native is None else self.native
        expected = await self._capture.expected(observation, native) if self._capture else None
        request = self._request(observation, native, seed)
        stops = tuple(request.get("stop", ()))

        async def read(answer: aiohttp.ClientResponse) -> dict[str, Any]:
            return await self._read(answer)

        try:
            answer, retries = await self.client.post("chat/completions", msgspec.json.encode(request), read)
        except HTTPError as error:
            if error.status in (400, 413, 422) and _TOO_LONG.search(error.text):
                finish = "overflow" if self._capture else "length"
                return Action("", finish_reason=finish, seconds=time.perf_counter() - started)
            raise await self._explained(error) from None
        action = self._action(answer, stops, time.perf_counter() - started, retries)
        return self._capture.taken(action, answer, observation, native, expected) if self._capture else action

    def _request(self, observation: Observation, native: bool, seed: int | None) -> dict[str, Any]:
        request: dict[str, Any] = {"model": self.model, **self._fixed}
        request["messages"] = wire_messages(
            observation,
            native=native,
            media=self.media,
            address=self.image_url,
            reasoning=self._reasoning_field if self.send_reasoning else "",
            tool_media=self.tool_media,
            video=self.video,
        )
        if self.video == "video" and (reading := video_reading(observation)):
            request["media_io_kwargs"] = reading
        stops = self.stop if native else (*observation.stop, *self.stop)
        if stops:
            request["stop"] = list(dict.fromkeys(stops))
        if seed is not None:
            request["seed"] = seed
        if native and observation.tools:
            request["tools"] = [tool.openai() for tool in observation.tools]
        return request | self._extra

    async def _read(self, answer: aiohttp.ClientResponse) -> dict[str, Any]:
        kind = answer.headers.get("Content-Type", "")
        if "html" in kind:
            text = self.client.clean(said(await read_body(answer)))
            hint = "check base_url (it often ends in /v1)"
            raise PolicyError(f"{self.client.shown_url} answered with a web page; {hint}: {text}")
        if "event-stream" in kind:
            return await read_stream(answer, self.on_delta, self.client.clean)
        body = await read_body(answer)
        try:
            return self._choice(decoded(body))
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise TransientError(f"its answer of {len(body)} bytes is not JSON ({error})") from None

    def _choice(self, data: Any) -> dict[str, Any]:
        if isinstance(data, dict) and data.get("error"):
            raise TransientError(self.client.clean(said(msgspec.json.encode(data))))
        choices = data.get("choices") if isinstance(data, dict) else None
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise TransientError("its answer holds no choices")
        if not isinstance(choices[0].get("message"), dict):
            raise TransientError("its answer holds no message")
        return {**choices[0], "usage": data.get("usage"), "prompt_token_ids": data.get("prompt_token_ids")}

    def _action(self, choice: dict[str, Any], stops: tuple[str, ...], seconds: float, retries: int) -> Action:
        message, finish = choice["message"], str(choice.get("finish_reason") or "stop")
        text = _text(message.get("content"))
        if stops and finish == "stop":
            hit = choice.get("stop_reason", choice.get("matched_stop"))
            text = restored(text, stops, hit if isinstance(hit, str) else None)
        items = message.get("tool_calls") or ()
        return Action(
            text,
            calls=tuple(map(read_call, items)),
            reasoning=self._reasoning(message),
            finish_reason=finish,
            usage=self._usage(choice.get("usage")),
            seconds=seconds,
            retries=retries,
        )

    def _reasoning(self, message: dict[str, Any]) -> str:
        for field in ("reasoning_content", "reasoning"):
            if isinstance(message.get(field), str) and message[field]:
                self._reasoning_field = field
                return str(message[field])
        return ""

    def _usage(self, usage: Any) -> Usage | None:
        if not isinstance(usage, dict):
            return None
        prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
        stated = usage.get("cost")
        cost = float(stated) if isinstance(stated, (int, float)) else 0.0
        if self.prices is not None:
            cost = (prompt * self.prices[0] + completion * self.prices[1]) / 1e6
        return Usage(prompt, completion, cost)

    async def _explained(self, error: HTTPError) -> PolicyError:
        """The error, with what to check."""
        if error.status in (401, 403):
            variable = self.client.key_variable
            state = "is set: is it the right key?" if os.environ.get(variable) else "is not set"
            return _hinted(error, f"The key is read from the environment variable {variable}, which {state}")
        if error.status == 404 or (error.status == 400 and "model" in error.text.lower()):
            return _hinted(error, await self._known())
        if 300 <= error.status < 400:
            return _hinted(error, "The server sends elsewhere; check base_url (scheme, host and path)")
        return error

    async def _known(self) -> str:
        if self._models is None:
            data = await self.client.get("models")
            listed = data.get("data") if isinstance(data, dict) else None
            self._models = [str(item.get("id")) for item in listed or () if isinstance(item, dict)]
        if not self._models:
            return "Check base_url: it often ends in /v1"
        if self.model in self._models:
            return f"The server does serve the model {self.model!r}"
        return f"The server does not serve the model {self.model!r}{did_you_mean(self.model, self._models)}"


class _Episode(Policy):
    def __init__(self, policy: OpenAIPolicy, seeds: random.Random | None) -> None:
        self._policy, self._seeds, self.info = policy, seeds, policy.info

    async def act(self, observation: Observation) -> Action:
        return await self._policy.take(observation, self._seeds.getrandbits(31) if self._seeds else None)


def _check_sampling(*, temperature: Any, top_p: Any, max_tokens: Any, stop: Any, extra_body: Any, prices: Any) -> None:
    check_number("temperature", temperature, 0, optional=True)
    check_number("top_p", top_p, 0, 1, optional=True)
    check_number("max_tokens", max_tokens, 1, whole=True, optional=True)
    if isinstance(stop, str) or not isinstance(stop, Sequence) or not all(isinstance(text, str) for text in stop):
        raise ConfigError(f"stop={stop!r}: expected a list of strings")
    if extra_body is not None and not isinstance(extra_body, Mapping):
        raise ConfigError(f"extra_body: expected a mapping of field to value, got {type(extra_body).__name__}")
    if prices is not None:
        if isinstance(prices, str) or not isinstance(prices, Sequence) or len(prices) != 2:
            raise ConfigError(f"prices={prices!r}: expected two numbers, of prompt and completion, or None")
        for price in prices:
            check_number("prices", price, 0)


def _check_patience(timeout: Any, deadline: Any, retries: Any, pause: Any, concurrency: Any) -> None:
    check_number("timeout", timeout, 0, above=True, endless=True)
    check_number("deadline", deadline, 0, above=True, endless=True)
    check_number("retries", retries, 0, whole=True)
    check_number("pause", pause, 0)
    check_number("concurrency", concurrency, 1, whole=True, optional=True)


def _hinted(error: HTTPError, hint: str) -> PolicyError:
    text = str(error).rstrip()
    end = "" if text.endswith((".", "!", "?")) else "."
    return PolicyError(f"{text}{end} {hint}", permanent=error.permanent)


def without_secrets(value: Any) -> Any:
    """A copy in which the values of fields that are named like secrets are replaced."""
    if isinstance(value, Mapping):
        return {k: "***" if _SECRET.search(str(k)) else without_secrets(v) for k, v in value.items()}
    return [without_secrets(item) for item in value] if isinstance(value, (list, tuple)) else value


def _text(content: Any) -> str:
    """The visible text of a message: a string, or the text items of a list."""
    if isinstance(content, list):
        return "".join(str(item.get("text") or "") for item in content if isinstance(item, dict))
    return content if isinstance(content, str) else ""


def _count(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) else 0
