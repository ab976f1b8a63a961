"""A policy that runs a local model with transformers, on CPU or GPU, in batches."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from agentenv.dialects.base import Dialect
from agentenv.errors import ConfigError, MissingExtraError, PolicyError
from agentenv.policy.base import Policy
from agentenv.policy.batching import Batcher, Job
from agentenv.policy.clips import need_torchvision
from agentenv.policy.options import check_choice, check_number
from agentenv.policy.wire import Media, VideoForm, wire_messages
from agentenv.trajectory import PolicyInfo
from agentenv.types import Action, Image, Observation, Task, ToolSpec, Usage, Video

if TYPE_CHECKING:
    from agentenv.policy.vision import Sight


class TransformersPolicy(Policy):
    """Plays with a causal language model in this process.

    Turns that are asked for at once are sampled in one batch, in one worker thread. The sampled token ids and their
    log-probabilities are in every action; the ids are the truth, and the text is decoded from them. Each turn renders
    the conversation anew with the chat template. A model with a processor for images sees them, each where it stands in
    the conversation; its tokens for pictures are never sampled. Other models are text-only.

    Each row of a batch draws from a generator of its own, seeded by the episode's seed, the sample and the turn, so a
    turn does not depend on the rows beside it. What remains is rounding: kernels may add in another order for another
    batch shape, and where two tokens are that close another one may win. `batch_size=1` has no such rest.

    Args:
        model_or_path: a folder with the model, a name that transformers resolves, or a loaded model.
        tokenizer: needed with a loaded model, unless a processor is given.
        processor: the processor of a loaded model that sees images; a folder's own is loaded (torchvision or not).
        media: gives an image's bytes by its SHA-256; by default the media store of this process.
        image_cache_bytes: memory for images and clips as the processor made them.
        video: clips are shown as "frames", an image each behind its time, or as one "video" by the model's video
            processor, which takes the frames as they are and is told their times. That needs torchvision.
        device: "auto" takes a GPU where there is one.
        dtype: "auto" is float32 on the CPU and what the model was saved in elsewhere.
        max_new_tokens: most tokens in a turn.
        temperature: 0 is greedy. top_p, top_k: 1.0 and 0 leave all tokens in.
        batch_size: most turns in a batch.
        batch_wait: seconds to wait for more turns after the first.
        gguf_file: the file in the folder, for a quantised model; it is dequantised when it is loaded.
        chat_template: instead of the tokenizer's own.
        native_dialect: where the environment's dialect is "native", the dialect in which this model writes calls.

    Raises:
        MissingExtraError: torch or transformers is not installed, or torchvision where videos are to be shown.
        ConfigError: the model cannot be loaded, has no chat template, or takes no videos where it must.
    """

    def __init__(
        self,
        model_or_path: Any,
        tokenizer: Any = None,
        *,
        processor: Any = None,
        media: Media | None = None,
        image_cache_bytes: int = 512 << 20,
        video: VideoForm = "frames",
        device: str = "auto",
        dtype: str = "auto",
        max_new_tokens: int = 512,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        batch_size: int = 16,
        batch_wait: float = 0.01,
        gguf_file: str | None = None,
        chat_template: str | None = None,
        native_dialect: str = "hermes",
    ) -> None:
        check_number("temperature", temperature, 0)
        check_number("top_p", top_p, 0, 1, above=True)
        check_number("batch_wait", batch_wait, 0)
        for option, count, least in (
            ("top_k", top_k, 0),
            ("max_new_tokens", max_new_tokens, 1),
            ("batch_size", batch_size, 1),
            ("image_cache_bytes", image_cache_bytes, 0),
        ):
            check_number(option, count, least, whole=True)
        check_choice("video", video, get_args(VideoForm))
        _needed()
        if video == "video":
            need_torchvision()
        from agentenv.policy.sampling import Sampler

        loaded = _loaded(model_or_path, tokenizer, processor, device, dtype, gguf_file, video)
        self.model, self.tokenizer, self.processor = loaded
        own = (getattr(holder, "chat_template", None) for holder in (self.processor, self.tokenizer))
        self._template = chat_template or next(filter(None, own), None)
        if not self._template:
            raise ConfigError("this model has no chat template (a base model has none); give chat_template=...")
        self._native_dialect = native_dialect
        self._parsers: dict[int, tuple[tuple[ToolSpec, ...], Dialect]] = {}
        self._tokenizing = threading.Lock()
        name = _name(model_or_path, gguf_file)
        self._sight = self._seeing(name, media, image_cache_bytes, video)
        banned = self._sight.banned if self._sight else ()
        self._sampler = Sampler(self.model, self.tokenizer, max_new_tokens, temperature, top_p, top_k, banned)
        self._batcher = Batcher(self._sampler.sample, batch_size, batch_wait)
        settings: dict[str, Any] = {
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "max_new_tokens": max_new_tokens,
        }
        settings |= {"dtype": str(self.model.dtype), "device": str(self.model.device), "batch_size": batch_size}
        settings |= {"logprobs": "processed", "chat_template": hashlib.sha256(self._template.encode()).hexdigest()[:16]}
        if self._sight:
            settings |= {"images": self._sight.settings, "video": video, "banned_tokens": list(banned)}
        self.info = PolicyInfo("transformers", name, settings, "ids_completion")

    def _seeing(self, name: str, media: Media | None, cache_bytes: int, video: VideoForm) -> Sight | None:
        if self.processor is None:
            if video == "video":
                raise ConfigError(f"the model {name} has no processor for pictures, and so none for videos")
            return None
        from agentenv.policy.vision import Sight

        return Sight(self.processor, self.model, name, self._written, media, cache_bytes, video)

    def begin(self, task: Task, *, seed: int, sample: int = 0) -> Policy:
        return _Episode(self, f"{seed}/{sample}")

    async def act(self, observation: Observation) -> Action:
        return await self.take(observation, f"{time.time_ns()}")

    async def close(self) -> None:
        """Let the batch in hand finish and end the worker thread."""
        await asyncio.to_thread(self._batcher.close)

    async def take(self, observation: Observation, seed: str) -> Action:
        """One turn, sampled with `seed`.

        Returns:
            The turn. Its finish reason is "length" where it reached `max_new_tokens` or the model's context, and it is
            empty where the prompt alone fills the context.

        Raises:
            PolicyError: the conversation holds media that the model cannot take, the chat template refuses it or
                leaves images out, or the model failed.
        """
        started = time.perf_counter()
        prompt, tensors = await asyncio.to_thread(self._prepared, observation)
        if len(prompt) >= self._sampler.context:
            return Action("", finish_reason="length", token_ids=(), logprobs=(), usage=Usage(len(prompt), 0))
        number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:7], "big")
        row = await self._batcher.run(Job(prompt, number, observation.stop, tensors))
        action = Action(
            row.text,
            finish_reason=row.finish,
            token_ids=row.ids,
            logprobs=row.logprobs,
            usage=Usage(len(prompt), len(row.ids)),
            seconds=time.perf_counter() - started,
        )
        return self._native(action, observation) if observation.dialect == "native" else action

    def _prepared(self, observation: Observation) -> tuple[list[int], dict[str, Any] | None]:
        if self._sight is None:
            return self._prompt(observation), None
        native = observation.dialect == "native"
        messages, media = self._sight.messages(observation, native=native)
        pictures = self._sight.pictures(media)
        with self._tokenizing:
            text = self._written([_templated(message) for message in messages], _tools(observation))
            return self._sight.inputs(text, media, pictures, native=native)

    def _prompt(self, observation: Observation) -> list[int]:
        for message in observation.messages:
            for part in message.parts:
                if isinstance(part, (Image, Video)):
                    raise PolicyError(f"this policy is text-only; {type(part).__name__.lower()} part found")
        native = observation.dialect == "native"
        messages = [_templated(message) for message in wire_messages(observation, native=native)]
        with self._tokenizing:
            text = self._written(messages, _tools(observation))
            ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _written(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> str:
        import jinja2

        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, tools=tools, chat_template=self._template, add_generation_prompt=True, tokenize=False
            )
        except (jinja2.TemplateError, ValueError, TypeError, KeyError) as error:
            raise PolicyError(f"the chat template of this model refuses the conversation: {error}") from None
        return text

    def _native(self, action: Action, observation: Observation) -> Action:
        """The turn with its calls read out, as an engine with a tool parser gives it."""
        from msgspec.structs import replace

        made = self._parsers.get(id(observation.tools))
        if made is None or made[0] is not observation.tools:
            from agentenv.dialects import make_dialect

            self._parsers.clear()
            made = self._parsers[id(observation.tools)] = (
                observation.tools,
                make_dialect(self._native_dialect, observation.tools),
            )
        turn = made[1].parse(action, sum(len(message.calls) for message in observation.messages))
        if turn.error or not turn.calls:
            return action
        return replace(action, text=turn.content, calls=turn.calls, reasoning=turn.reasoning)


class _Episode(Policy):
    def __init__(self, policy: TransformersPolicy, seed: str) -> None:
        self._policy, self._seed, self._turn, self.info = policy, seed, 0, policy.info

    async def act(self, observation: Observation) -> Action:
        self._turn += 1
        return await self._policy.take(observation, f"{self._seed}/{self._turn}")


def _templated(message: dict[str, Any]) -> dict[str, Any]:
    """A message as chat templates take it: arguments decoded, no content that is None."""
    calls = message.get("tool_calls")
    if not calls:
        return message
    decoded = [
        {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"] or "{}")}}
        for call in calls
    ]
    return {**message, "content": message["content"] or "", "tool_calls": decoded}


def _tools(observation: Observation) -> list[dict[str, Any]] | None:
    native = observation.dialect == "native"
    return [tool.openai() for tool in observation.tools] if native and observation.tools else None


def _needed() -> None:
    for package in ("torch", "transformers"):
        try:
            __import__(package)
        except ImportError:
            raise MissingExtraError(package, "local", "a local model") from None


def _loaded(
    model: Any, tokenizer: Any, processor: Any, device: str, dtype: str, gguf_file: str | None, video: VideoForm
) -> tuple[Any, Any, Any]:
    """Model, tokenizer, and the processor where the model sees images."""
    import torch

    if not isinstance(model, (str, Path)):
        tokenizer = tokenizer or getattr(processor, "tokenizer", None)
        if tokenizer is None:
            raise ConfigError("a loaded model comes with its tokenizer: give tokenizer=... or processor=...")
        return model.eval(), tokenizer, processor
    path = str(Path(model).expanduser()) if _is_path(str(model)) else str(model)
    if _is_path(str(model)) and not Path(path).exists():
        raise ConfigError(f"there is no model folder {model}")
    place = _device(torch, device)
    kind = dtype if dtype != "auto" or place != "cpu" else "float32"
    try:
        made, tokenizer, processor = _read(path, tokenizer, processor, kind, gguf_file, video == "video")
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ConfigError(f"the model {model} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    return made.to(place).eval(), tokenizer, processor


def _read(
    path: str, tokenizer: Any, processor: Any, dtype: str, gguf_file: str | None, videos: bool
) -> tuple[Any, Any, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

    from agentenv.policy.vision import load_processor

    extra = {"gguf_file": gguf_file} if gguf_file else {}
    if not gguf_file:
        processor = processor or load_processor(path, AutoConfig.from_pretrained(path), videos)
    tokenizer = tokenizer or getattr(processor, "tokenizer", None) or AutoTokenizer.from_pretrained(path, **extra)
    kind: Any = AutoModelForImageTextToText if processor else AutoModelForCausalLM
    return kind.from_pretrained(path, dtype=dtype, **extra), tokenizer, processor


def _is_path(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or Path(name).exists() or name.count("/") > 1


def _device(torch: Any, device: str) -> str:
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _name(model: Any, gguf_file: str | None) -> str:
    """The model's name without the folders above it, which are nobody's business."""
    if not isinstance(model, (str, Path)):
        return str(getattr(model.config, "name_or_path", "") or type(model).__name__).rstrip("/").rsplit("/", 1)[-1]
    text = str(model)
    name = Path(text).name if _is_path(text) else text
    return f"{name}/{gguf_file}" if gguf_file else name
