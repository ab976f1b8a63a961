"""Pictures for a local model: what its own processor makes of each, kept; loaded without torchvision too.

Clips are shown as images or, where torchvision is there, as videos.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from agentenv.dialects import neutralise
from agentenv.errors import ConfigError, DataError, MissingExtraError, PolicyError, StoreError
from agentenv.media import DecodeCache, decode_cache, media_store
from agentenv.policy import clips
from agentenv.policy.wire import Media, VideoForm
from agentenv.types import Image, MediaSpan, Video

Write = Callable[[list[dict[str, Any]]], str]
"""Writes messages with the chat template."""

_PICTURE_TOKENS = (
    *("image_token", "video_token", "audio_token", "vision_start_token", "vision_end_token"),
    *("boi_token", "eoi_token", "fake_image_token", "global_image_token"),
)
_GRID = "image_grid_thw"
_GRIDS = {"image": _GRID, "video": clips.GRID}
_ALONG_TOKENS = "token_type_ids"
_IDS = ("input_ids", "attention_mask", clips.METADATA)
_MOST_SPANS = 100_000


def picture(image: Image, load: Media | None = None) -> Any:
    """A picture, decoded once a process.

    Args:
        image: which one.
        load: gives its bytes by its SHA-256; the process's media store by default.

    Raises:
        PolicyError: it cannot be read.
    """
    read = load or media_store().get
    try:
        return decode_cache().image(image.sha256, lambda: read(image.sha256), expect=image.width * image.height * 4)
    except (StoreError, DataError) as error:
        raise PolicyError(f"image {image.handle or image.sha256[:12]} cannot be shown: {error}") from None


class Sight:
    """What a model makes of images and clips, by its own processor (see `agentenv.tokens.renderer.Eyes`).

    Each is processed alone, once, and kept: its tokens in the prompt and the tensors that go with them.

    Args:
        processor: the model's processor, with an image processor and a tokenizer.
        model: the model, for its data type and configuration.
        name: of the model, for error texts.
        write: writes messages with the chat template.
        media: gives an image's bytes by its SHA-256; by default the media store of this process.
        cache_bytes: memory for the pixels of images as the processor made them, so that a turn pays for its new images
            only. Ten views of 1024 x 1024 take 250 MB of it in float32.
        video: clips are shown as "frames", an image each, or as a "video".

    Raises:
        ConfigError: the processor has no image processor or no tokenizer, names no image token, or takes no videos
            where it must.
        MissingExtraError: torchvision is not installed, and clips are to be shown as videos.
    """

    def __init__(
        self,
        processor: Any,
        model: Any,
        name: str,
        write: Write,
        media: Media | None = None,
        cache_bytes: int = 0,
        video: VideoForm = "frames",
    ) -> None:
        if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
            raise ConfigError(f"{type(processor).__name__} is no processor with an image processor and a tokenizer")
        self.name, self._media, self._processor, self._dtype = name, media, processor, model.dtype
        self._own = processor.image_processor
        self.cache = DecodeCache(cache_bytes)
        self._spans: dict[Hashable, MediaSpan] = {}
        self._joins = _GRID in getattr(self._own, "model_input_names", ())  # singles can be joined (the Qwen-VL way)
        self._counted = {kind: _token_id(processor, model.config, kind) for kind in _GRIDS}
        self._placeholders = {"image": self._probed(write)}
        if video == "video":
            clips.need_video_processor(processor, name)
            self._placeholders["video"] = str(processor.video_token)
        ids = processor.tokenizer.convert_tokens_to_ids
        self.tokens = {kind: int(ids(token)) for kind, token in self._placeholders.items()}
        self.banned = _banned(processor, model)
        """Tokens that stand for pictures, which a model must not sample: no pixels would come with them."""
        self._harmless = _harmless(processor, self.banned)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the pixels and the number of their tokens, as records carry it."""
        own = self._own
        found = {name: getattr(own, name, None) for name in ("patch_size", "merge_size", "temporal_patch_size")}
        size = {name: value for name, value in dict(getattr(own, "size", None) or {}).items() if value is not None}
        return {"class": type(own).__name__, "size": size, **{k: v for k, v in found.items() if v is not None}}

    def safe(self, text: str) -> str:
        """The text with the model's tokens for pictures made harmless, whoever wrote them."""
        for token, harmless in self._harmless:
            text = text.replace(token, harmless)
        return text

    def look(self, part: Image | Video) -> MediaSpan:
        """The image or clip as a span of tokens.

        Raises:
            PolicyError: it cannot be read, or the processor refuses it or miscounts.
        """
        known = self._spans.get(key_of(part))
        if known is None:
            if len(self._spans) >= _MOST_SPANS:
                self._spans.clear()
            known = self._spans[key_of(part)] = self._span(part, self._made(part))
        return known

    def tensors(self, media: Sequence[Image | Video], spans: Sequence[MediaSpan], count: int) -> dict[str, Any]:
        """The tensors that go with a prompt of `count` expanded tokens, in which `spans` stand.

        Raises:
            PolicyError: an image cannot be read, or the processor refuses it.
        """
        import torch

        ones = [self._made(part) for part in media]
        made: dict[str, Any] = {}
        for span, one in zip(spans, ones, strict=True):
            for name in one:
                if name.endswith(_ALONG_TOKENS):
                    made.setdefault(name, torch.zeros(1, count, dtype=one[name].dtype))
                    made[name][0, span.offset : span.offset + span.length] = one[name][0]
        images = [part for part in media if isinstance(part, Image)]
        if images[1:] and not self._joins:
            together = self._processed("image", images, sum(span.length for span in spans))
            return made | {name: self._kept(value) for name, value in together.items() if name not in (*made, *_IDS)}
        pixels = dict.fromkeys(name for one in ones for name in one if name not in made and name not in _IDS)
        return made | {name: torch.cat([one[name] for one in ones if name in one]) for name in pixels}

    def _made(self, part: Image | Video) -> dict[str, Any]:
        """What the processor makes of one image or clip and its placeholder."""

        def make() -> dict[str, Any]:
            return {key: self._kept(value) for key, value in self._processed(kind_of(part), [part]).items()}

        found: dict[str, Any] = self.cache.get((kind_of(part), key_of(part)), make, _bytes)
        return found

    def _processed(self, kind: str, media: Sequence[Image | Video], tokens: int = 0) -> dict[str, Any]:
        options: dict[str, Any] = {"images": [self._seen(part) for part in media if isinstance(part, Image)] or None}
        films = [part for part in media if isinstance(part, Video)]
        options |= clips.call_options(films, [clips.stacked(list(map(self._seen, one.images()))) for one in films])
        text = [self._placeholders[kind] * len(media)]
        try:
            made = dict(self._processor(text=text, add_special_tokens=False, return_tensors="pt", **options))
        except (ValueError, TypeError, RuntimeError) as error:
            raise PolicyError(f"the processor of {self.name} refuses the prompt: {error}") from None
        if tokens and made["input_ids"].shape[1] != tokens:
            raise PolicyError(f"the processor of {self.name} gives images other tokens together than each alone")
        return {name: value for name, value in made.items() if name not in _IDS[1:]}

    def _kept(self, tensor: Any) -> Any:
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor

    def _seen(self, image: Image) -> Any:
        return picture(image, self._media)

    def _span(self, part: Image | Video, made: dict[str, Any]) -> MediaSpan:
        kind = kind_of(part)
        run = tuple(made["input_ids"][0].tolist())
        grid = made.get(_GRIDS[kind])
        if grid is not None:
            wanted, found = int(grid.prod(dim=-1).sum()) // self._own.merge_size**2, run.count(self._counted[kind])
            if len(grid) != 1 or found != wanted:
                raise PolicyError(
                    f"the processor of {self.name} made {len(grid)} grids for 1 {kind}s, and {found} {kind} tokens"
                    f" where the grids need {wanted}"
                )
        shape = () if grid is None else tuple(grid[0].tolist())
        span = MediaSpan(part.sha256, kind, 0, self.tokens[kind], len(run), shape)
        return span if set(run) == {self.tokens[kind]} else replace(span, run=run)

    def _probed(self, write: Write) -> str:
        """The token that the template writes for an image; it is not always the one that is then repeated."""
        try:
            text = write([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "probe"}]}])
        except PolicyError:
            text = ""
        tokens = [getattr(self._processor, name, None) for name in ("image_token", "boi_token")]
        usable = [str(token) for token in tokens if token]
        if not usable:
            raise ConfigError(f"the processor of {self.name} names no image token")
        return next((token for token in usable if token in text), usable[0])


def kind_of(part: Image | Video) -> str:
    """What kind of medium it is, as spans call it."""
    return type(part).__name__.lower()


def key_of(part: Image | Video) -> Hashable:
    """What decides the tensors of a medium."""
    return (part.frames, part.times) if isinstance(part, Video) else part.sha256


def _bytes(tensors: dict[str, Any]) -> int:
    return sum(int(tensor.nbytes) for tensor in tensors.values())


def load_processor(path: str, config: Any, videos: bool = False) -> Any | None:
    """The processor of a model that sees images; None for a model that sees none.

    Args:
        path: the model's folder, or a name that transformers resolves.
        config: the model's configuration.
        videos: with its part for videos, which needs torchvision.

    Raises:
        OSError, ValueError: it cannot be loaded.
        MissingExtraError: Pillow is not installed.
    """
    from transformers import AutoProcessor
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return None
    try:
        __import__("PIL")
    except ImportError:
        raise MissingExtraError("pillow", "image", f"the processor of {Path(path).name} for images") from None
    base: Any = PROCESSOR_MAPPING.get(type(config), None)
    if not videos and base is not None and base.get_attributes()[-1:] == ["video_processor"]:
        return image_only(base).from_pretrained(path)  # type: ignore[attr-defined]  # every processor class has it
    return AutoProcessor.from_pretrained(path)


def image_only(base: type) -> type:
    """A processor class without its video processor, which works where torchvision is not installed.

    Processors of the Qwen-VL kind demand a video processor when they are made, and every video processor needs
    torchvision, although images are done with Pillow alone. A processor makes, loads and keeps the parts that
    `get_attributes` lists, so one that lists fewer is enough.

    Args:
        base: a processor class of transformers whose last part is the video processor.

    Returns:
        A subclass of the same name: `image_only(Qwen3VLProcessor).from_pretrained(folder)`, or called with an image
        processor and a tokenizer.
    """
    parts = [name for name in base.get_attributes() if name != "video_processor"]  # type: ignore[attr-defined]
    return type(base.__name__, (base,), {"get_attributes": classmethod(lambda cls: parts), "__doc__": base.__doc__})


def _harmless(processor: Any, banned: Sequence[int]) -> tuple[tuple[str, str], ...]:
    """Each of the model's tokens for pictures, and what stands for it where it is only text."""
    tokens = {str(token) for name in _PICTURE_TOKENS if (token := getattr(processor, name, None))}
    tokens |= set(processor.tokenizer.convert_ids_to_tokens(list(banned)))
    return tuple((token, neutralise(token)[0]) for token in sorted(tokens))


def _banned(processor: Any, model: Any) -> tuple[int, ...]:
    names = [f"{token}_{kind}" for token in _PICTURE_TOKENS for kind in ("id", "index")]
    found = {getattr(holder, name, None) for name in names for holder in (processor, model.config)}
    size = model.config.get_text_config().vocab_size
    unknown = processor.tokenizer.unk_token_id
    return tuple(sorted(t for t in found if isinstance(t, int) and 0 <= t < size and t != unknown))


def _token_id(processor: Any, config: Any, kind: str) -> int:
    names = (f"{kind}_token_id", f"{kind}_token_index")
    found = (getattr(holder, name, None) for holder in (processor, config) for name in names)
    return next((int(token) for token in found if token is not None), -1)
