"""Pictures for a local model: conversations rendered with its processor, which is loaded without torchvision too.

Clips are shown as images or, where torchvision is there, as videos.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from msgspec.structs import replace

from agentenv.dialects import neutralise
from agentenv.errors import ConfigError, DataError, PolicyError, StoreError
from agentenv.media import DecodeCache, decode_cache, media_store
from agentenv.policy import clips
from agentenv.policy.wire import Media, VideoForm, shown, wire_messages
from agentenv.types import Image, Message, Observation, Text, Video

Write = Callable[[list[dict[str, Any]]], str]
"""Writes messages with the chat template."""

_PICTURE_TOKENS = (
    *("image_token", "video_token", "audio_token", "vision_start_token", "vision_end_token"),
    *("boi_token", "eoi_token", "fake_image_token", "global_image_token"),
)
_GRID = "image_grid_thw"


class Sight:
    """What turns a conversation with images into a model's inputs, by way of its own processor.

    Args:
        processor: the model's processor, with an image processor and a tokenizer.
        model: the model.
        name: what errors call it.
        write: writes messages with the chat template.
        media: gives an image's bytes by its SHA-256; by default the store of this process.
        cache_bytes: memory for the pixels of images as the processor made them, so that a turn pays for its new images
            only. Ten views of 1024 x 1024 take 250 MB of it in float32.
        video: clips are shown as "frames", an image each, or as a "video".

    Raises:
        ConfigError: the processor has no image processor or no tokenizer, or takes no videos where it must.
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
        self.name, self._write, self._media, self.video = name, write, media, video
        self._processor = copy.copy(processor)
        cache = DecodeCache(cache_bytes)
        self._images = _Remembering(processor.image_processor, model.dtype, cache, _GRID)
        if self._images.joins:
            self._processor.image_processor = self._images
        self._clips: _Remembering | None = None
        if video == "video":
            self._clips = _Remembering(clips.need_video_processor(processor, name), model.dtype, cache, clips.GRID)
            if self._clips.joins:
                self._processor.video_processor = self._clips
        self._token_ids = {kind: _token_id(processor, model.config, kind) for kind in ("image", "video")}
        self._placeholder = self._probed()
        self._plain = "probe" in self._wrote("probe")
        self.banned = _banned(processor, model)
        """Tokens that stand for pictures, which a model must not sample: no pixels would come with them."""
        self._harmless = _harmless(processor, self.banned)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the pixels and the number of their tokens, as records carry it."""
        own = self._images.own
        found = {name: getattr(own, name, None) for name in ("patch_size", "merge_size", "temporal_patch_size")}
        size = {name: value for name, value in dict(getattr(own, "size", None) or {}).items() if value is not None}
        return {"class": type(own).__name__, "size": size, **{k: v for k, v in found.items() if v is not None}}

    def messages(self, observation: Observation, *, native: bool) -> tuple[list[dict[str, Any]], list[Image | Video]]:
        """The conversation as chat templates take it, and its images and videos in order.

        Text that spells one of the model's tokens for pictures is made harmless, whoever wrote it.

        Raises:
            PolicyError: a video comes without frames.
        """
        observation = shown(observation, self.video)
        media = [part for message in observation.messages for part in message.parts if isinstance(part, (Image, Video))]
        bare = observation
        if media:
            words = tuple(replace(message, parts=(Text(message.text),)) for message in observation.messages)
            bare = replace(observation, messages=words)
        made = wire_messages(bare, native=native)
        for message, wire in zip(observation.messages, made, strict=True):
            self._fill(message, wire)
        return made, media

    def _fill(self, message: Message, wire: dict[str, Any]) -> None:
        if any(isinstance(part, (Image, Video)) for part in message.parts) or not self._plain:
            wire["content"] = [self._item(part) for part in message.parts or (Text(""),)]
        elif wire["content"]:
            wire["content"] = self._safe(wire["content"])
        for call in wire.get("tool_calls", ()):
            call["function"]["arguments"] = self._safe(call["function"]["arguments"])

    def _item(self, part: Any) -> dict[str, Any]:
        if isinstance(part, (Image, Video)):
            return {"type": type(part).__name__.lower()}
        return {"type": "text", "text": self._safe(part.text)}

    def _safe(self, text: str) -> str:
        for token, harmless in self._harmless:
            text = text.replace(token, harmless)
        return text

    def pictures(self, media: Sequence[Image | Video]) -> list[Any]:
        """The images decoded, and the frames of each video in one array. Those of a process are decoded once.

        Raises:
            PolicyError: one cannot be read.
        """
        return [
            self._picture(part) if isinstance(part, Image) else clips.stacked(list(map(self._picture, part.images())))
            for part in media
        ]

    def inputs(
        self, text: str, media: Sequence[Image | Video], pictures: Sequence[Any], *, native: bool = False
    ) -> tuple[list[int], dict[str, Any]]:
        """The prompt's token ids, placeholders expanded, and the tensors that go with them. One call at a time.

        Args:
            text: what the chat template wrote.
            media: the images and videos of the conversation, in order.
            pictures: the same, decoded.
            native: whether results went into messages of role tool, which some templates empty of images.

        Raises:
            PolicyError: placeholders, media and the processor's grids are not as many, or it refuses one.
        """
        both = list(zip(media, pictures, strict=True))
        images = [(part, picture) for part, picture in both if isinstance(part, Image)]
        films = [(part, picture) for part, picture in both if isinstance(part, Video)]
        self._count(text, "image", self._placeholder, len(images), native)
        if self._clips is not None:
            self._count(text, "video", self._processor.video_token, len(films), native)
        options = clips.call_options([clip for clip, _ in films], [array for _, array in films])
        try:
            with self._images.known(images), self._clips.known(films) if self._clips else nullcontext():
                made = self._processor(
                    text=[text],
                    images=[picture for _, picture in images] or None,
                    add_special_tokens=False,
                    return_tensors="pt",
                    **options,
                )
        except (ValueError, TypeError, RuntimeError) as error:
            raise PolicyError(f"the processor of {self.name} refuses the prompt: {error}") from None
        beside = ("input_ids", "attention_mask", clips.METADATA)
        tensors = {key: value for key, value in made.items() if key not in beside}
        ids: list[int] = made["input_ids"][0].tolist()
        self._check(ids, tensors, "image", self._images, len(images))
        if self._clips is not None:
            self._check(ids, tensors, "video", self._clips, len(films))
        return ids, tensors

    def _picture(self, image: Image) -> Any:
        load = self._media or media_store().get
        try:
            return decode_cache().image(image.sha256, lambda: load(image.sha256), expect=image.width * image.height * 4)
        except (StoreError, DataError) as error:
            raise PolicyError(f"image {image.handle or image.sha256[:12]} cannot be shown: {error}") from None

    def _check(self, ids: list[int], tensors: dict[str, Any], kind: str, own: _Remembering, count: int) -> None:
        grid = tensors.get(own.grid)
        if grid is None:
            return
        wanted = int(grid.prod(dim=-1).sum()) // own.own.merge_size**2
        found = ids.count(self._token_ids[kind])
        if len(grid) != count or found != wanted:
            raise PolicyError(
                f"the processor of {self.name} made {len(grid)} grids for {count} {kind}s, and {found} {kind} tokens"
                f" where the grids need {wanted}"
            )

    def _count(self, text: str, kind: str, token: str, count: int, native: bool) -> None:
        found = text.count(token)
        if found == count:
            return
        said = f"the chat template of {self.name} wrote {found} {kind} placeholder(s) {token} for {count} {kind}(s)"
        if native and found < count:
            said += f"; some templates drop {kind}s in messages of role tool: play with a text dialect"
            said += " (dialect='hermes' ...), in which results are user turns"
        raise PolicyError(said)

    def _probed(self) -> str:
        """The token that the template writes for an image; it is not always the one that is then repeated."""
        text = self._wrote([{"type": "image"}, {"type": "text", "text": "probe"}])
        tokens = [getattr(self._processor, name, None) for name in ("image_token", "boi_token")]
        usable = [str(token) for token in tokens if token]
        if not usable:
            raise ConfigError(f"the processor of {self.name} names no image token")
        return next((token for token in usable if token in text), usable[0])

    def _wrote(self, content: Any) -> str:
        try:
            return self._write([{"role": "user", "content": content}])
        except PolicyError:
            return ""


class _Remembering:
    """Stands in for an image or a video processor and keeps what it made of each image or clip.

    Only where the patches of all come in one row with a grid beside them (the Qwen-VL way), so that those of single
    ones can be joined.
    """

    def __init__(self, own: Any, dtype: Any, cache: DecodeCache, grid: str) -> None:
        self.own, self.grid, self._dtype, self._cache = own, grid, dtype, cache
        self._names: dict[int, Hashable] = {}
        self.joins = grid in getattr(own, "model_input_names", ())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)

    @contextmanager
    def known(self, shown: Sequence[tuple[Image | Video, Any]]) -> Iterator[None]:
        """For a while, whose pictures are whose. Calls are made one at a time."""
        self._names = {id(picture): (self.grid, _content(part)) for part, picture in shown}
        try:
            yield
        finally:
            self._names = {}

    def __call__(self, media: Any, **options: Any) -> Any:
        if not isinstance(media, list) or not all(id(item) in self._names for item in media):
            return self.own(media, **options)
        import torch
        from transformers import BatchFeature

        about = options.pop(clips.METADATA, None)
        each = [{}] * len(media) if about is None else [{clips.METADATA: [one]} for one in about]
        ones = [self._one(item, {**options, **more}) for item, more in zip(media, each, strict=True)]
        made = {key: torch.cat([one[key] for one in ones]) for key in ones[0]} if ones[1:] else ones[0]
        return BatchFeature(made if about is None else {**made, clips.METADATA: about})

    def _one(self, item: Any, options: dict[str, Any]) -> dict[str, Any]:
        def make() -> dict[str, Any]:
            made = self.own([item], **options)
            tensors = {key: value for key, value in made.items() if key != clips.METADATA}
            return {k: v.to(self._dtype) if v.is_floating_point() else v for k, v in tensors.items()}

        return self._cache.get(self._names[id(item)], make, _bytes)


def _content(part: Image | Video) -> Hashable:
    return part.frames if isinstance(part, Video) else part.sha256


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
    """
    from transformers import AutoProcessor
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return None
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
