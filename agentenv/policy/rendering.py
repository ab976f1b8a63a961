"""The renderer of a model that runs elsewhere: its tokenizer, chat template and processor, without its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from agentenv.errors import ConfigError, MissingExtraError, UnknownNameError
from agentenv.policy.wire import Media, VideoForm
from agentenv.tokens.counting import counter
from agentenv.tokens.package import PackageRenderer, knows
from agentenv.tokens.renderer import Renderer
from agentenv.tokens.template import TemplateRenderer
from agentenv.types import Message, ToolSpec


def load_renderer(
    source: Any,
    *,
    renderer: str = "auto",
    chat_template: str | None = None,
    template_options: Mapping[str, Any] | None = None,
    end_tokens: Sequence[int] = (),
    forks: bool = False,
    media: Media | None = None,
    cache_bytes: int = 512 << 20,
    video: VideoForm = "frames",
) -> Renderer:
    """The renderer of a model.

    Args:
        source: the model's folder, a name that transformers resolves, a tokenizer, or a processor.
        renderer: "template" renders with the chat template; a name of the package `renderers` ("qwen3" ...) with that;
            "auto" takes the package where it is installed and knows the model by its name, and the template elsewhere.
        chat_template: instead of the model's own.
        template_options: more variables for the chat template.
        end_tokens: more ids that end a turn.
        forks: see `agentenv.tokens.conversation.prompt_of`.
        media: gives an image's bytes by its SHA-256; by default the media store of this process.
        cache_bytes: memory for images as the processor made them.
        video: clips are shown as "frames" or as a "video".

    Raises:
        MissingExtraError: transformers is not installed, torch where the model sees images, or the package `renderers`
            where it was asked for.
        ConfigError: a setting is wrong, the tokenizer cannot be loaded, or the template cannot be used (see
            `TemplateRenderer`).
    """
    _check_settings(chat_template, template_options, end_tokens)
    tokenizer, processor, config, ends = _parts(source, video)
    name = str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__).rstrip("/").rsplit("/", 1)[-1]
    if renderer not in ("auto", "template") or (renderer == "auto" and processor is None and knows(tokenizer)):
        return PackageRenderer(tokenizer, "" if renderer == "auto" else renderer)
    own = (getattr(holder, "chat_template", None) for holder in (processor, tokenizer))
    template = chat_template or next(filter(None, own), None)
    made = TemplateRenderer(
        tokenizer, template, ends=(*end_tokens, *ends), options=template_options, forks=forks, name=name
    )
    if processor is not None:
        _need("torch", "the images of a model")
        import torch

        from agentenv.policy.vision import Sight

        model = SimpleNamespace(dtype=torch.float32, config=config)
        made.eyes = Sight(processor, model, name, made.written, media, cache_bytes, video)
    return made


_COUNTING = ("renderer", "chat_template", "template_options", "end_tokens", "video")


def load_counter(model: str = "", *, tools: Sequence[ToolSpec] = (), **settings: Any) -> Callable[[Message], int]:
    """What counts messages as a model takes them, from plain data (see `agentenv.tokens.counter`).

    Args:
        model: its folder, or a name that transformers resolves.
        tools: see `agentenv.tokens.counter`.
        settings: of `load_renderer`, as far as they decide the tokens.

    Raises:
        ConfigError, MissingExtraError: see `load_renderer`.
        UnknownNameError: there is no such setting.
    """
    for name in settings:
        if name not in _COUNTING:
            raise UnknownNameError("setting of count:", name, ("model", *_COUNTING))
    if not model or not isinstance(model, str):
        raise ConfigError("count: whose tokens? Give the model's folder or name (count=..., or count={'model': ...})")
    try:
        found = model_path(model)
    except ConfigError as error:
        raise ConfigError(f"count: {error}") from None
    return counter(load_renderer(found, forks=True, **settings), tools=tools)


def model_path(model: str | Path) -> str:
    """A model's folder, or its name, as transformers takes them.

    Raises:
        ConfigError: there is no such folder.
    """
    if not is_path(str(model)):
        return str(model)
    path = Path(model).expanduser()
    if not path.exists():
        raise ConfigError(f"there is no model folder {model}")
    return str(path)


def is_path(name: str) -> bool:
    """Whether a model's name is that of a folder, and not one that transformers resolves."""
    return name.startswith(("/", ".", "~")) or Path(name).exists() or name.count("/") > 1


def _parts(source: Any, video: VideoForm) -> tuple[Any, Any, Any, Sequence[int]]:
    """Tokenizer, processor where the model sees images, configuration, and tokens that end a turn."""
    _need("transformers", "the tokens of a model")
    if not isinstance(source, (str, Path)):
        if hasattr(source, "image_processor"):
            return source.tokenizer, source, _config_of(source), ()
        if not callable(source) or not hasattr(source, "convert_ids_to_tokens"):
            raise ConfigError(f"tokenizer={source!r}: expected a model's folder or name, a tokenizer or a processor")
        return source, None, None, ()
    from transformers import AutoConfig, AutoTokenizer

    from agentenv.policy.vision import load_processor

    path = str(source)
    try:
        path = model_path(path)
        config = AutoConfig.from_pretrained(path)
        processor = load_processor(path, config, video == "video")
        tokenizer = getattr(processor, "tokenizer", None) or AutoTokenizer.from_pretrained(path)
    except MissingExtraError:
        raise
    except (OSError, ValueError, KeyError, ImportError) as error:
        why = str(error).strip().splitlines()[0].rstrip(".")
        raise ConfigError(
            f"the tokenizer of {Path(path).name} cannot be loaded: {why}. A policy that works with token ids needs the"
            " tokenizer of the served model: give tokenizer=... (a folder, a name that transformers resolves, or a"
            " loaded tokenizer or processor)"
        ) from error
    return tokenizer, processor, config, _ends(path)


def _check_settings(chat_template: Any, template_options: Any, end_tokens: Any) -> None:
    if chat_template is not None and not (isinstance(chat_template, str) and chat_template.strip()):
        raise ConfigError(f"chat_template={chat_template!r}: expected the text of a template, or None")
    if template_options is not None and not isinstance(template_options, Mapping):
        raise ConfigError(f"template_options={template_options!r}: expected a mapping of variable to value, or None")
    if not isinstance(end_tokens, Sequence) or not all(type(token) is int and token >= 0 for token in end_tokens):
        raise ConfigError(f"end_tokens={end_tokens!r}: expected a list of token ids")


def _ends(path: str) -> Sequence[int]:
    from transformers import GenerationConfig

    try:
        found = GenerationConfig.from_pretrained(path).eos_token_id
    except (OSError, ValueError):
        return ()
    return found if isinstance(found, list) else () if found is None else (found,)


def _config_of(processor: Any) -> Any:
    """As much of a model's configuration as its processor tells: the size of the vocabulary."""
    size = len(processor.tokenizer)
    return SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=size))


def _need(package: str, what: str) -> None:
    try:
        __import__(package)
    except ImportError:
        raise MissingExtraError(package, "local", what) from None
