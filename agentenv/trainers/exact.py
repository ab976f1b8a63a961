"""A rollout by token ids for trainers that give an engine and want ids, mask, log-probabilities and a reward.

What was sampled is never tokenised again: the environment only appends (see `agentenv.tokens`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from agentenv.errors import InfrastructureError, UsageError
from agentenv.policy.exact import Request, Sampled, TokenPolicy
from agentenv.policy.rendering import load_renderer
from agentenv.policy.vision import picture
from agentenv.rollout import play
from agentenv.tokens import Segment, expanded, flat, media, stream
from agentenv.tokens.renderer import Renderer
from agentenv.trainers.session import asked, reward_of
from agentenv.trajectory import PolicyInfo, Trajectory
from agentenv.types import Image, Part, Video

Sample = Callable[[Request], Awaitable[Sampled]]
"""Samples one turn with the trainer's engine."""


class Rollout(NamedTuple):
    """An episode as a trainer takes it. Ids are expanded: each picture takes all its tokens.

    `mask` and `logprobs` have one entry an id, the first prompt's included: 1 where the model sampled, and 0.0 where it
    did not; `logprobs` is None where the engine gave none. `prompt` counts the ids before the first sampled one, and
    `turns` says where each sampled turn begins and ends. Where the environment keeps an episode out of the loss, its
    mask is all 0.
    """

    ids: list[int]
    turns: list[tuple[int, int]]
    mask: list[int]
    logprobs: list[float] | None
    prompt: int
    reward: float
    record: Trajectory
    tensors: dict[str, Any]
    images: list[Any]

    @property
    def truncated(self) -> bool:
        """The episode was cut off by a limit."""
        return bool(self.record.outcome and self.record.outcome.truncated)


class _Policy(TokenPolicy):
    def __init__(self, renderer: Renderer, sample: Sample, name: str, context: int) -> None:
        super().__init__(renderer)
        self.info = PolicyInfo(name, capture="ids")
        self._sample, self.context = sample, context

    async def sample(self, request: Request) -> Sampled:
        return await self._sample(request)


_renderers: dict[int, tuple[Any, Renderer]] = {}


def renderer_of(tokenizer: Any) -> Renderer:
    """The renderer of a tokenizer or, for pictures, a processor; made once, since its template has to be proven.

    Raises:
        ConfigError: its chat template goes back on what it wrote before.
    """
    known = _renderers.get(id(tokenizer))
    if known is None or known[0] is not tokenizer:
        known = _renderers[id(tokenizer)] = tokenizer, load_renderer(tokenizer, renderer="template")
    return known[1]


async def rollout(
    extra_info: Mapping[str, Any], tokenizer: Any, sample: Sample, *, trainer: str, context: int
) -> Rollout:
    """Play the episode that a row names.

    Args:
        extra_info: of the row (see `agentenv.trainers.session.rows`).
        tokenizer: of the model, or its processor.
        sample: samples one turn.
        trainer: its name, for the record.
        context: most tokens of prompt and response together. What would not fit ends the episode, unseen.

    Raises:
        InfrastructureError: the episode could not be scored. No number stands for that: 0 would be a lie.
        UsageError: the opening alone fills the context.
        ConfigError: the chat template cannot be used.
    """
    env, task = asked(extra_info)
    renderer = renderer_of(tokenizer)
    policy = _Policy(renderer, sample, trainer, context)
    env = env.clone()
    try:
        record = await play(env, policy, task, seed=int(extra_info.get("index", 0)))
    finally:
        env.close()
    reward = reward_of(env, record)
    if reward is None:
        why = record.outcome.error if record.outcome and record.outcome.error else record.stop_reason
        raise InfrastructureError(f"episode {task.id} could not be scored: {why}")
    return _rollout(renderer, record, reward)


def _rollout(renderer: Renderer, record: Trajectory, reward: float) -> Rollout:
    if not any(node.origin == "sampled" for node in record.path()):
        raise UsageError(
            f"the opening of task {record.task.id} leaves no room for a turn: give the trainer a longer context"
        )
    segments = expanded(stream(record))
    ids, mask, logprobs = flat(segments)
    trained = record.outcome is not None and not record.outcome.masked
    tensors, images = _pictures(renderer, record, segments, len(ids))
    mask, first = mask if trained else [0] * len(ids), len(segments[0].ids)
    return Rollout(ids, _turns(segments), mask, logprobs, first, reward, record, tensors, images)


def _turns(segments: Sequence[Segment]) -> list[tuple[int, int]]:
    ends = list(accumulate(len(segment.ids) for segment in segments))
    return [(end - len(one.ids), end) for one, end in zip(segments, ends, strict=True) if one.sampled]


def _pictures(
    renderer: Renderer, record: Trajectory, segments: Sequence[Segment], count: int
) -> tuple[dict[str, Any], list[Any]]:
    """What a forward pass takes beside the ids, and the pictures themselves, in the order of their placeholders."""
    spans = media(segments)
    if not spans:
        return {}, []
    shown = [one for message in record.messages for part in message.parts for one in _images(part)]
    known = {image.sha256: image for image in shown if isinstance(image, Image)}
    seen = [known[span.sha256] for span in spans]
    look: Any = renderer.eyes
    return look.tensors(seen, spans, count), pictures(seen)


def _images(part: Part) -> Sequence[Part]:
    """The pictures of a part: a clip is shown as its frames."""
    return [part] if isinstance(part, Image) else part.as_frames() if isinstance(part, Video) else []


def pictures(media: Sequence[Any]) -> list[Any]:
    """Pictures, decoded."""
    return [picture(part) for part in media if isinstance(part, Image)]
