"""What all policies have in common that work with token ids: the stream, its prompt, the turn."""

from __future__ import annotations

import asyncio
import hashlib
import time
from abc import abstractmethod

from msgspec import Struct
from msgspec.structs import replace

from agentenv.dialects import Dialect, make_dialect
from agentenv.errors import ConfigError, PolicyError
from agentenv.policy.base import Policy
from agentenv.policy.sampled import log_probabilities, token_ids
from agentenv.policy.wire import VideoForm, shown
from agentenv.tokens.conversation import Prompt, prompt_of
from agentenv.tokens.renderer import Renderer, media_of
from agentenv.types import Action, Image, Observation, Task, ToolSpec, Usage, Video


class Request(Struct, frozen=True):
    """A turn to sample.

    Args:
        prompt: its ids, collapsed, and where media stand in them.
        media: the images and videos, one for each span of the prompt, in order.
        seed: 56 bits that decide the turn, where the engine takes a seed.
        stop: strings at which to stop.
        group: what requests have in common that share their beginning: those of a task.
    """

    prompt: Prompt
    media: tuple[Image | Video, ...]
    seed: int
    stop: tuple[str, ...]
    group: str


class Sampled(Struct, frozen=True):
    """A sampled turn.

    Args:
        ids: as they were sampled, the one that ended the turn included.
        logprobs: one for each id, of the distribution that it was drawn from.
        finish: "stop" or "length"; "overflow" where the prompt alone fills the context, and nothing was sampled.
        version: which weights sampled it, where the engine says.
        prompt_tokens: of the prompt as the engine counted it.
        retries: requests before the one that was answered.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    finish: str
    version: str = ""
    prompt_tokens: int = 0
    retries: int = 0


class TokenPolicy(Policy):
    """Base of the policies that give an engine token ids and get token ids.

    Each turn appends to the stream that the record holds (`Observation.tokens`): what was sampled stays as it was
    sampled. What was appended goes back with the action (`Action.context`).

    Args:
        renderer: renders conversations for the model.
        native_dialect: where the environment's dialect is "native", the dialect in which this model writes calls.
        forks: see `agentenv.tokens.conversation.prompt_of`.

    Raises:
        UnknownNameError: there is no such dialect.
    """

    context: int = 1 << 30
    """Tokens that the model takes, prompt and turn together."""
    video: VideoForm = "frames"
    """How clips are shown."""

    def __init__(self, renderer: Renderer, *, native_dialect: str = "hermes", forks: bool = False) -> None:
        make_dialect(native_dialect, ())
        self.renderer, self.forks, self._native_dialect = renderer, forks, native_dialect
        self._version = ""
        self._parsers: dict[int, tuple[tuple[ToolSpec, ...], Dialect]] = {}

    @property
    def version(self) -> str:
        """What records call the weights where the engine does not say. Set anew whenever they have changed.

        Raises:
            ConfigError: it is no text, or holds a comma, which stands between the names of two.
        """
        return self._version

    @version.setter
    def version(self, name: str) -> None:
        if not isinstance(name, str) or "," in name:
            raise ConfigError(f"version={name!r}: expected a text without commas, which stand between two versions")
        self._version = name

    @abstractmethod
    async def sample(self, request: Request) -> Sampled:
        """Sample one turn. Cancelling it stops the engine's work on it.

        Raises:
            PolicyError: the engine failed, or gave other ids than were asked for.
        """

    def begin(self, task: Task, *, seed: int, sample: int = 0) -> Policy:
        return _Episode(self, f"{seed}/{sample}", task.id)

    async def act(self, observation: Observation) -> Action:
        return await self.take(observation, f"{time.time_ns()}", "")

    async def take(self, observation: Observation, seed: str, group: str) -> Action:
        """One turn, sampled with `seed`.

        Returns:
            The turn. Its finish reason is "length" where the engine cut it short, and "overflow", with nothing
            sampled, where the prompt alone fills the model's context.

        Raises:
            PolicyError: the conversation cannot be rendered, holds media that the model cannot take, or would have to
                be tokenised again; or the engine failed.
        """
        started = time.perf_counter()
        prompt, media = await self._prompt(observation)
        if prompt.length >= self.context:
            return Action("", finish_reason="overflow", usage=Usage(prompt.length, 0))
        number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:7], "big")
        row = await self.sample(Request(prompt, media, number, observation.stop, group))
        if row.finish == "overflow":
            return Action("", finish_reason="overflow", usage=Usage(prompt.length, 0))
        ids, logprobs = _usable(row)
        action = Action(
            self.renderer.decoded(ids),
            finish_reason=row.finish,
            token_ids=ids,
            logprobs=logprobs,
            usage=Usage(row.prompt_tokens or prompt.length, len(ids)),
            seconds=time.perf_counter() - started,
            retries=row.retries,
            context=prompt.context,
            version=row.version,
        )
        return self._native(action, observation) if observation.dialect == "native" else action

    async def _prompt(self, observation: Observation) -> tuple[Prompt, tuple[Image | Video, ...]]:
        return await prompt_and_media(self.renderer, self._shown(observation), forks=self.forks)

    def _shown(self, observation: Observation) -> Observation:
        """The conversation as the model is shown it: clips as images, where it takes those and no videos."""
        return shown(observation, self.video) if self.renderer.eyes is not None else observation

    def _native(self, action: Action, observation: Observation) -> Action:
        """The turn with its calls read out, as an engine with a tool parser gives it."""
        made = self._parsers.get(id(observation.tools))
        if made is None or made[0] is not observation.tools:
            self._parsers.clear()
            made = self._parsers[id(observation.tools)] = (
                observation.tools,
                make_dialect(self._native_dialect, observation.tools),
            )
        turn = made[1].parse(action, sum(len(message.calls) for message in observation.messages))
        if turn.error or not turn.calls:
            return action
        return replace(action, text=turn.content, calls=turn.calls, reasoning=turn.reasoning)


async def prompt_and_media(
    renderer: Renderer, observation: Observation, *, forks: bool
) -> tuple[Prompt, tuple[Image | Video, ...]]:
    """The prompt of a conversation and the media that stand in it. Pictures are decoded in a thread.

    Args:
        renderer: of the model.
        observation: the conversation as the model is shown it (see `agentenv.policy.wire.shown`).
        forks: see `agentenv.tokens.conversation.prompt_of`.

    Raises:
        PolicyError: see `agentenv.tokens.conversation.prompt_of`.
    """
    media = media_of(observation.messages)
    if not media:
        return prompt_of(renderer, observation, forks=forks), ()
    prompt = await asyncio.to_thread(prompt_of, renderer, observation, forks=forks)
    if [part.sha256 for part in media] != [span.sha256 for span in prompt.media]:
        raise PolicyError("the media of the conversation are not those of its token stream")
    return prompt, tuple(media)


def _usable(row: Sampled) -> tuple[tuple[int, ...], tuple[float, ...] | None]:
    try:
        ids = () if row.ids == () else token_ids("ids", row.ids)
        return ids, None if row.logprobs is None else log_probabilities("logprobs", row.logprobs, len(ids))
    except ValueError as error:
        raise PolicyError(f"the turn that the engine sampled cannot be used: {error}", permanent=True) from None


class _Episode(Policy):
    def __init__(self, policy: TokenPolicy, seed: str, group: str) -> None:
        self._policy, self._seed, self._group, self._turn, self.info = policy, seed, group, 0, policy.info

    async def act(self, observation: Observation) -> Action:
        self._turn += 1
        return await self._policy.take(observation, f"{self._seed}/{self._turn}", self._group)
