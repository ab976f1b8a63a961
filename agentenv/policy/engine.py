"""What the policies have in common whose model runs in an inference engine: settings, requests, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from msgspec import Struct

from agentenv.errors import PolicyError, UnknownNameError
from agentenv.policy.exact import Request, TokenPolicy
from agentenv.policy.options import check_choice, check_flags, check_number
from agentenv.policy.rendering import load_renderer
from agentenv.policy.sampled import log_probabilities, token_ids
from agentenv.policy.wire import Media, VideoForm
from agentenv.tokens import Segment, expand
from agentenv.tokens.conversation import first_difference


class Engine(Struct, frozen=True, kw_only=True):
    """How an engine is asked to sample, and how its conversations are rendered.

    Args:
        tokenizer: of the served model: a folder, a name that transformers resolves, or a loaded tokenizer or processor;
            by default the model's own name.
        renderer, chat_template, template_options, end_tokens, video: see `agentenv.policy.rendering.load_renderer`.
        forks: where the chat template does not only append, render the conversation anew and let the record say so.
        native_dialect: where the environment's dialect is "native", the dialect in which this model writes calls.
        temperature, top_p, top_k: 0 is greedy; 1.0 and 0 leave all tokens in.
        max_tokens: most tokens in a turn.
        context: tokens that the engine takes in all; by default what it says itself.
        seed: send a seed with each turn, made of the episode's seed, the sample and the turn.
        media: gives the bytes of an image by its SHA-256; the process's media store by default.
        version: what records call the weights where the engine does not say; see `TokenPolicy.version`.
    """

    tokenizer: Any = None
    renderer: str = "auto"
    chat_template: str | None = None
    template_options: Mapping[str, Any] | None = None
    end_tokens: Sequence[int] = ()
    video: VideoForm = "frames"
    forks: bool = False
    native_dialect: str = "hermes"
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 1024
    context: int | None = None
    seed: bool = True
    media: Media | None = None
    version: str = ""


class EnginePolicy(TokenPolicy):
    """Base of the policies whose model runs in an inference engine.

    Prefixes that were computed with weights of another `version` are not used again.

    Args:
        model: the model's name.
        options: fields of `Engine`.

    Raises:
        ConfigError: a setting is wrong, or the tokenizer or the chat template cannot be used.
        UnknownNameError: there is no such option.
        MissingExtraError: a package is missing.
    """

    more_options = Engine.__struct_fields__
    """Options beside the parameters of the class."""

    def __init__(self, model: str, options: Mapping[str, Any]) -> None:
        for name in options:
            if name not in self.more_options:
                raise UnknownNameError(f"option of {type(self).__name__}:", name, self.more_options)
        engine = Engine(**options)
        _checked(engine)
        made = load_renderer(
            model if engine.tokenizer is None else engine.tokenizer,
            renderer=engine.renderer,
            chat_template=engine.chat_template,
            template_options=engine.template_options,
            end_tokens=engine.end_tokens,
            forks=engine.forks,
            media=engine.media,
            video=engine.video,
        )
        super().__init__(made, native_dialect=engine.native_dialect, forks=engine.forks)
        self.model, self.engine, self.version = model, engine, engine.version
        self.video: VideoForm = engine.video
        self.context = engine.context or self.context

    @property
    def settings(self) -> dict[str, Any]:
        """What decides how turns are sampled and rendered, as records carry it."""
        e = self.engine
        made: dict[str, Any] = {"temperature": e.temperature, "top_p": e.top_p, "top_k": e.top_k, "seed": e.seed}
        made |= {"max_tokens": e.max_tokens, "logprobs": "processed", **self.renderer.settings}
        if self.renderer.eyes is not None:
            made |= {"video": e.video, "banned_tokens": list(self.banned)}
        return made

    @property
    def banned(self) -> tuple[int, ...]:
        """Tokens that stand for pictures, which a model must not sample: no pixels would come with them."""
        return tuple(getattr(self.renderer.eyes, "banned", ()))

    def sampling(self, request: Request) -> dict[str, Any]:
        """The sampling parameters that vLLM's interfaces have in common."""
        e = self.engine
        room = self.context - request.prompt.length
        made: dict[str, Any] = {"temperature": e.temperature, "top_p": e.top_p, "top_k": e.top_k or -1}
        made |= {"max_tokens": min(e.max_tokens, room), "logprobs": 0, "skip_special_tokens": False}
        made |= {"stop_token_ids": sorted(self.renderer.ends)}
        if request.stop:
            made |= {"stop": list(request.stop), "include_stop_str_in_output": True}
        if e.seed:
            made["seed"] = request.seed & 0x7FFFFFFF
        if self.banned:
            made["logit_bias"] = {str(token): -100.0 for token in self.banned}
        return made

    def seen(self, request: Request, got: Any) -> None:
        """See that the engine was given the ids that it was sent.

        Args:
            request: what was asked.
            got: the ids of the prompt as the engine says it had them.

        Raises:
            PolicyError: they are others, or it does not say.
        """
        if not isinstance(got, list):
            raise refused(
                f"{self.model}: the engine does not say which token ids it was given (prompt_token_ids), so it may have"
                " tokenised anew; for such an engine take openai:"
            )
        prompt = request.prompt
        sent = prompt.ids
        if prompt.media:
            if not all(span.length for span in prompt.media):
                return
            sent = expand(Segment(prompt.ids, False, media=prompt.media)).ids
        if tuple(got) == sent:
            return
        place = first_difference(got, sent)
        raise refused(
            f"{self.model}: the engine had other token ids than it was sent: {len(got)} instead of {len(sent)}, the"
            f" first difference at {place}. Tokenizer, chat template and image processor here must be those of the"
            " served model (tokenizer=...)"
        )

    def sampled(self, ids: Any, logprobs: Any) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Ids and log-probabilities of a turn as the engine gave them.

        Raises:
            PolicyError: there are none, not as many of one as of the other, or one is not what it must be.
        """
        try:
            sampled = token_ids("token_ids", ids)
            return sampled, log_probabilities("logprobs", logprobs if isinstance(logprobs, list) else [], len(sampled))
        except ValueError as error:
            raise refused(
                f"{self.model}: in the engine's answer {error}. This policy needs ids and log-probabilities of all that"
                " was sampled, and computes nothing from the text instead; for an engine without them take openai:"
            ) from None


def refused(text: str) -> PolicyError:
    """An error that no further try can cure."""
    return PolicyError(text, permanent=True)


def _checked(engine: Engine) -> None:
    check_number("temperature", engine.temperature, 0)
    check_number("top_p", engine.top_p, 0, 1, above=True)
    check_number("top_k", engine.top_k, 0, whole=True)
    check_number("max_tokens", engine.max_tokens, 1, whole=True)
    check_number("context", engine.context, 1, whole=True, optional=True)
    check_flags(seed=engine.seed, forks=engine.forks)
    check_choice("video", engine.video, get_args(VideoForm))
