"""Token ids that a chat server tells beside its text: read, and held against the conversation that they must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from agentenv.errors import ConfigError, PolicyError
from agentenv.policy.engine import refused
from agentenv.policy.exact import prompt_and_media
from agentenv.policy.options import check_flags
from agentenv.policy.rendering import load_renderer
from agentenv.policy.sampled import listed, log_probabilities, token_ids
from agentenv.policy.wire import Media, VideoForm, shown
from agentenv.tokens import Segment, expand
from agentenv.tokens.conversation import Prompt, context_of, first_difference, tokenised_anew
from agentenv.tokens.renderer import Renderer, media_of
from agentenv.types import Action, Observation, Tokens

_SHOWN = 8
_CURE = "use capture='text', or a policy that works with ids (vllm:, sglang:, transformers:)"


class Capture:
    """Reads the ids of turns and of their prompts from a chat server's answers.

    Args:
        model: its name, for error texts.
        logprobs: the server was asked for log-probabilities.
        renderer: renders conversations as the server must; None where that is not known.
        video: how clips are shown.
        forks: a prompt in which the server tokenised earlier turns anew starts another stream, and is not refused.
    """

    def __init__(
        self,
        model: str,
        *,
        logprobs: bool = True,
        renderer: Renderer | None = None,
        video: VideoForm = "frames",
        forks: bool = False,
    ) -> None:
        self.model, self.logprobs, self.renderer, self.forks = model, logprobs, renderer, forks
        self.video: VideoForm = video

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the ids, as records carry it."""
        found = {} if self.renderer is None else {"forks": self.forks, **self.renderer.settings}
        return found | {"logprobs": "as the server gives them" if self.logprobs else "none"}

    @property
    def fields(self) -> dict[str, Any]:
        """What a request must hold: no token for pictures may be sampled, since no pixels would come with it."""
        banned = getattr(self.renderer.eyes, "banned", ()) if self.renderer is not None else ()
        return {"logit_bias": {str(token): -100 for token in banned}} if banned else {}

    async def expected(self, observation: Observation, native: bool) -> Prompt | None:
        """The prompt that the server must make of a conversation; None where that is not known.

        Raises:
            PolicyError: it holds media, and where they stand among ids is not known; or it cannot be rendered, or not
                go on token by token.
        """
        if self.renderer is None:
            if media_of(observation.messages):
                raise refused(
                    f"{self.model}: capture='ids' of a conversation with images or videos needs tokenizer=... (folder"
                    " or name of the served model, with its processor): a server's ids do not say where each of them"
                    f" stands. Otherwise {_CURE}"
                )
            return None
        observation = self._as_rendered(observation, native)
        return (await prompt_and_media(self.renderer, observation, forks=self.forks))[0]

    def taken(
        self, action: Action, choice: Mapping[str, Any], observation: Observation, native: bool, expected: Prompt | None
    ) -> Action:
        """The turn with its ids, its log-probabilities, and what was given to the model before it.

        Raises:
            PolicyError: a field is missing or not what it must be, or the ids of the prompt are others than expected.
        """
        try:
            ids = token_ids("token_ids", choice.get("token_ids"))
            given = token_ids("prompt_token_ids", choice.get("prompt_token_ids"))
            logprobs = _logprobs(choice, len(ids)) if self.logprobs else None
        except ValueError as error:
            raise refused(
                f"{self.model}: in the server's answer {error}. capture='ids' needs a server that knows"
                " return_token_ids, as vLLM's does; nothing is computed from its text instead. Otherwise " + _CURE
            ) from None
        if expected is None:
            context = context_of(observation, given)
        else:
            context = self._held(given, expected, self._as_rendered(observation, native))
        return replace(action, token_ids=ids, logprobs=logprobs, context=context)

    def _as_rendered(self, observation: Observation, native: bool) -> Observation:
        seen = shown(observation, self.video) if self.renderer and self.renderer.eyes is not None else observation
        return replace(seen, dialect="native" if native else "text")

    # -- the prompt ---------------------------------------------------------------------------------------------------

    def _held(self, given: Sequence[int], expected: Prompt, observation: Observation) -> Tokens:
        """What the turn adds to the stream, where the server's ids are those of the conversation."""
        wanted = _wide(expected)
        if tuple(given) == wanted:
            return expected.context
        before = len(wanted) - len(_wide(expected.context))
        place = first_difference(given, wanted)
        if self.forks and place < before:
            assert self.renderer is not None
            native = observation.dialect == "native"
            anew = self.renderer.prompt(observation.messages, observation.tools, native=native)
            if tuple(given) == _wide(anew):
                return replace(anew, fork=tokenised_anew(before, place))
        raise self._other(given, wanted, place, place < before)

    def _other(self, given: Sequence[int], wanted: Sequence[int], place: int, earlier: bool) -> PolicyError:
        assert self.renderer is not None
        theirs, ours = (self.renderer.decoded(ids[place : place + _SHOWN]) for ids in (given, wanted))
        why = (
            "The server tokenised an earlier turn anew, and not to what the model had sampled. Let the record start"
            f" another stream there (forks=True), or {_CURE}"
            if earlier
            else "Tokenizer, chat template, its options (extra_body={'chat_template_kwargs': ...}) and image processor"
            " here must be those of the server (tokenizer=...)"
        )
        return PolicyError(
            f"{self.model}: the server had other token ids than this conversation has: {len(given)} instead of"
            f" {len(wanted)}, the first difference at {place}, where it had {theirs!r} instead of {ours!r}. {why}",
            permanent=not earlier,  # what a model sampled in one episode is no reason to end the others
        )


def make_capture(
    model: str,
    tokenizer: Any,
    extra: Mapping[str, Any],
    *,
    media: Media | None,
    video: VideoForm,
    tool_media: str,
    forks: bool,
) -> Capture:
    """What reads a server's ids.

    Args:
        model: its name.
        tokenizer: of the served model, or None; see `agentenv.policy.rendering.load_renderer`.
        extra: further fields of requests, of which `chat_template` and `chat_template_kwargs` decide the rendering.
        media: of the policy, as are `video`, `tool_media` and `forks`.
        video: see there.
        tool_media: see there.
        forks: see there.

    Raises:
        ConfigError: a setting is wrong, or the tokenizer or the chat template cannot be used.
        MissingExtraError: a package is missing.
    """
    check_flags(forks=forks)
    logprobs = bool(extra.get("logprobs"))
    if tokenizer is None:
        if forks:
            raise ConfigError("forks=True goes with tokenizer=...; without one every fork is recorded in any case")
        return Capture(model, logprobs=logprobs, video=video)
    if tool_media == "user":
        raise ConfigError("tool_media='user' moves images to where no chat template has them; leave tokenizer=... out")
    renderer = load_renderer(
        tokenizer,
        renderer="template",
        chat_template=extra.get("chat_template"),
        template_options=extra.get("chat_template_kwargs"),
        forks=forks,
        media=media,
        video=video,
    )
    return Capture(model, logprobs=logprobs, renderer=renderer, video=video, forks=forks)


def _logprobs(choice: Mapping[str, Any], count: int) -> tuple[float, ...]:
    found = choice.get("logprobs")
    entries = listed(found.get("content") if isinstance(found, dict) else None)
    values = [entry.get("logprob") if isinstance(entry, dict) else entry for entry in entries]
    return log_probabilities("logprobs", values, count)


def _wide(collapsed: Prompt | Tokens) -> tuple[int, ...]:
    """The ids with all tokens of each medium, as a server tells them."""
    return expand(Segment(collapsed.ids, False, media=collapsed.media)).ids
