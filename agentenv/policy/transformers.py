"""A policy that runs a local model with transformers, on CPU or GPU, many turns at once."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from agentenv.errors import ConfigError, MissingExtraError
from agentenv.policy.batching import Batcher, Job, Joiner, Worker
from agentenv.policy.clips import need_torchvision
from agentenv.policy.exact import Request, Sampled, TokenPolicy
from agentenv.policy.options import check_choice, check_flags, check_number
from agentenv.policy.rendering import is_path, model_path
from agentenv.policy.vision import key_of
from agentenv.policy.wire import Media, VideoForm
from agentenv.tokens import Segment, expand
from agentenv.tokens.conversation import Prompt, prompt_of
from agentenv.tokens.renderer import media_of
from agentenv.tokens.template import TemplateRenderer
from agentenv.trajectory import PolicyInfo
from agentenv.types import Image, Observation, Video

if TYPE_CHECKING:
    from agentenv.policy.sampling import Sampler
    from agentenv.policy.vision import Sight

Batching = Literal["auto", "continuous", "batches"]


class TransformersPolicy(TokenPolicy):
    """Plays with a causal language model in this process.

    Turns are sampled together, in one worker thread. A turn joins those that run already between two of their tokens,
    leaves when it ends or is called off, and prompts that come in together and are the same, as those of a group are,
    are computed once. Models that keep more of a turn than keys and values of its tokens (windows that slide, recurrent
    states) are sampled in batches, each of which ends with its longest turn. (transformers' own continuous batching is
    not used: it has one seed for all turns, no stop strings and no pictures.)

    The sampled token ids and their log-probabilities are in every action; the ids are the truth, and the text is
    decoded from them. Each turn appends to the tokens of those before, which stay as they were sampled. A model with a
    processor for images sees them, each where it stands in the conversation; its tokens for pictures are never sampled.
    Other models are text-only.

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
        batch_size: most turns at once.
        batch_wait: seconds to wait for more turns after the first, where none runs.
        batching: "continuous" as above, "batches" one after the other, or "auto": the first where the model is fit.
        gguf_file: the file in the folder, for a quantised model; it is dequantised when it is loaded.
        chat_template: instead of the tokenizer's own.
        native_dialect: where the environment's dialect is "native", the dialect in which this model writes calls.
        forks: where the chat template does not only append, render the conversation anew and let the record say so.
        version: what records call these weights; a trainer sets the attribute anew whenever it has changed them.

    Raises:
        MissingExtraError: torch or transformers is not installed, or torchvision where videos are to be shown.
        ConfigError: the model cannot be loaded, has no chat template or one that rewrites earlier turns, takes no
            videos where it must, or is not fit for continuous batching where that is asked for.
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
        batching: Batching = "auto",
        gguf_file: str | None = None,
        chat_template: str | None = None,
        native_dialect: str = "hermes",
        forks: bool = False,
        version: str = "",
    ) -> None:
        check_number("temperature", temperature, 0)
        check_number("top_p", top_p, 0, 1, above=True)
        check_number("batch_wait", batch_wait, 0)
        check_number("top_k", top_k, 0, whole=True)
        check_number("max_new_tokens", max_new_tokens, 1, whole=True)
        check_number("batch_size", batch_size, 1, whole=True)
        check_number("image_cache_bytes", image_cache_bytes, 0, whole=True)
        check_flags(forks=forks)
        check_choice("video", video, get_args(VideoForm))
        check_choice("batching", batching, get_args(Batching))
        _needed(video)
        from agentenv.policy.sampling import Sampler, ends_of

        loaded = _loaded(model_or_path, tokenizer, processor, device, dtype, gguf_file, video)
        self.model, self.tokenizer, self.processor = loaded
        own = (getattr(holder, "chat_template", None) for holder in (self.processor, self.tokenizer))
        template = chat_template or next(filter(None, own), None)
        name, ends = _name(model_or_path, gguf_file), ends_of(self.model, self.tokenizer)
        renderer = TemplateRenderer(self.tokenizer, template, ends=ends, name=name, forks=forks)
        super().__init__(renderer, native_dialect=native_dialect, forks=forks)
        self.version = version
        self.video: VideoForm = video
        self._sight = renderer.eyes = self._seeing(name, media, image_cache_bytes, video)
        banned = self._sight.banned if self._sight else ()
        sampling: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
        sampling["max_new_tokens"] = max_new_tokens
        self._sampler = Sampler(self.model, self.tokenizer, **sampling, banned=banned, ends=renderer.ends)
        self.context = self._sampler.context
        self._worker, how = _worker(self._sampler, self._sight is not None, batching, batch_size, batch_wait)
        settings = sampling | {"dtype": str(self.model.dtype), "device": str(self.model.device)}
        settings |= {
            "weights": _fingerprint(self.model),
            "batch_size": batch_size,
            "batching": how,
            "logprobs": "processed",
            **renderer.settings,
        }
        if self._sight:
            settings |= {"images": self._sight.settings, "video": video, "banned_tokens": list(banned)}
        self.info = PolicyInfo("transformers", name, settings, "ids_full")

    def _seeing(self, name: str, media: Media | None, cache_bytes: int, video: VideoForm) -> Sight | None:
        if self.processor is None:
            if video == "video":
                raise ConfigError(f"the model {name} has no processor for pictures, and so none for videos")
            return None
        from agentenv.policy.vision import Sight

        return Sight(self.processor, self.model, name, self._write, media, cache_bytes, video)

    def _write(self, messages: list[dict[str, Any]]) -> str:
        assert isinstance(self.renderer, TemplateRenderer)
        return self.renderer.written(messages)

    async def close(self) -> None:
        """Let the turns in hand finish and end the worker thread."""
        await asyncio.to_thread(self._worker.close)

    async def sample(self, request: Request) -> Sampled:
        """Sample one turn. Where it is cancelled no more of its tokens are, or none where its batch has not begun.

        Its version names both weights where they were changed meanwhile.
        """
        version = self.version
        ids, tensors = await self._expanded(request.prompt, request.media)
        media = tuple(map(key_of, request.media))
        row = await self._worker.run(Job(ids, request.seed, request.stop, tensors, media))
        version = version if version == self.version else f"{version},{self.version}"
        return Sampled(row.ids, row.logprobs, row.finish, version, len(ids))

    async def _expanded(
        self, prompt: Prompt, media: Sequence[Image | Video]
    ) -> tuple[list[int], dict[str, Any] | None]:
        if not media:
            return list(prompt.ids), None
        return await asyncio.to_thread(self._inputs, prompt, media)

    def _inputs(self, prompt: Prompt, media: Sequence[Image | Video]) -> tuple[list[int], dict[str, Any] | None]:
        """Expanded ids and the tensors that go with them."""
        if self._sight is None or not media:
            return list(prompt.ids), None
        wide = expand(Segment(prompt.ids, False, media=prompt.media))
        return list(wide.ids), self._sight.tensors(media, wide.media, len(wide.ids))

    def _prepared(self, observation: Observation) -> tuple[list[int], dict[str, Any] | None]:
        """What the model is given for an observation."""
        observation = self._shown(observation)
        prompt = prompt_of(self.renderer, observation, forks=self.forks)
        return self._inputs(prompt, media_of(observation.messages))


def _worker(sampler: Sampler, sees: bool, batching: Batching, size: int, wait: float) -> tuple[Worker, str]:
    """What samples, and how."""
    from agentenv.policy.continuous import Continuous, unsupported

    why = "" if batching == "batches" else unsupported(sampler.model, sees)
    if batching == "continuous" and why:
        raise ConfigError(f'batching="continuous": {why}; take batching="auto"')
    if batching == "batches" or why:
        return Batcher(sampler.sample, size, wait), "batches"
    return Joiner(Continuous(sampler), size, wait), "continuous"


def _needed(video: VideoForm) -> None:
    for package in ("torch", "transformers"):
        try:
            __import__(package)
        except ImportError:
            raise MissingExtraError(package, "local", "a local model") from None
    if video == "video":
        need_torchvision()


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
    path = model_path(model)
    place = _device(torch, device)
    kind = dtype if dtype != "auto" or place != "cpu" else "float32"
    if kind != "auto" and not isinstance(getattr(torch, str(kind).removeprefix("torch."), None), torch.dtype):
        raise ConfigError(f"dtype={dtype!r}: expected 'auto' or a data type of torch, for instance 'bfloat16'")
    try:
        made, tokenizer, processor = _read(path, tokenizer, processor, kind, gguf_file, video == "video")
    except MissingExtraError:
        raise
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ConfigError(f"the model {model} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    try:
        return made.to(place).eval(), tokenizer, processor
    except (RuntimeError, AssertionError) as error:  # not built for it, no memory left
        why = str(error).strip().splitlines()[0]
        raise ConfigError(f"the model {model} cannot be put on the device {place!r}: {why}") from error


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


def _fingerprint(model: Any) -> str:
    """Tells weights apart by the first numbers of each tensor, which training changes; a folder's name does not."""
    digest = hashlib.sha256()
    for name, tensor in model.named_parameters():
        known = tensor.numel() and not tensor.is_meta  # a part that was moved to disk has no numbers here
        first = tensor.detach()[(0,) * max(0, tensor.dim() - 1)].reshape(-1)[:8].float().tolist() if known else []
        digest.update(f"{name} {tuple(tensor.shape)} {first}\n".encode())
    return digest.hexdigest()[:16]


def _device(torch: Any, device: str) -> str:
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _name(model: Any, gguf_file: str | None) -> str:
    """The model's name without the folders above it, which are nobody's business."""
    if not isinstance(model, (str, Path)):
        return str(getattr(model.config, "name_or_path", "") or type(model).__name__).rstrip("/").rsplit("/", 1)[-1]
    text = str(model)
    name = Path(text).name if is_path(text) else text
    return f"{name}/{gguf_file}" if gguf_file else name
