"""What an engine is given next: the stream so far, from the record, and what the new messages add to it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from agentenv.errors import PolicyError
from agentenv.tokens.renderer import Renderer
from agentenv.types import MediaSpan, Observation, Tokens


class Prompt(Struct, frozen=True):
    """The prompt of a turn.

    Args:
        ids: all ids, collapsed.
        media: where media stand in `ids`.
        context: what this turn adds to the stream before it is sampled, for `Action.context`.
        length: tokens of the prompt when media are expanded; those of unknown length count as one.
    """

    ids: tuple[int, ...]
    media: tuple[MediaSpan, ...]
    context: Tokens
    length: int


def prompt_of(renderer: Renderer, observation: Observation, *, forks: bool = False) -> Prompt:
    """The prompt of the next turn: nothing that was sampled is tokenised again.

    The stream so far comes with the observation, so whoever holds the record can go on with it: after a fork of the
    environment, a snapshot, or a roll-back.

    Args:
        renderer: of the model.
        observation: what the policy was given.
        forks: where what follows a turn is not certain, render the whole conversation anew and note in the record why
            the stream starts anew, instead of refusing.

    Raises:
        PolicyError: the conversation cannot be rendered, or it would have to be rendered anew and that is not allowed.
    """
    native = observation.dialect == "native"
    sampled = len(observation.tokens) - 1
    while sampled >= 0 and observation.tokens[sampled] is None:
        sampled -= 1
    if sampled < 0 or observation.messages[sampled].role != "assistant":
        refused = "" if not _turns(observation) else "turns in it came without token ids"
        return _anew(renderer, observation, native, refused)
    before = _stream(observation)
    if before is None:
        added: Tokens | str = "what the engine was given before an earlier turn is not known"
    else:
        ids, spans = _joined(before)
        new, count = observation.messages[sampled + 1 :], len(before[-1].ids)
        added = renderer.bridge(ids, count, new, observation.tools, native=native)
        if isinstance(added, Tokens):
            return _prompt(ids, spans, added)
    reason = added if isinstance(added, str) else ""
    if not forks:
        raise PolicyError(
            f"the conversation cannot go on token by token: {reason}. Nothing that was sampled is tokenised again, so"
            " use a chat template that only appends (trainers ship such variants), or allow forks=True: the"
            " conversation is then rendered anew, and the record starts another stream there",
            permanent=True,
        )
    return _anew(renderer, observation, native, reason)


def context_of(observation: Observation, given: Sequence[int]) -> Tokens:
    """What a turn adds to the stream where a server tokenised the conversation itself, and says which ids it had.

    Args:
        observation: what the policy was given; text only.
        given: the ids of the whole prompt, as the server had them.

    Returns:
        What follows the stream so far. Where the server's ids do not go on with the ids that were sampled, all of them,
        with the reason for which the stream starts anew: they are another conversation to the model, and what was
        sampled before was not sampled under it.
    """
    if not _turns(observation):
        return Tokens(tuple(given))
    before = _stream(observation)
    if not before:
        return Tokens(tuple(given), fork="turns in it came without token ids")
    ids, _ = _joined(before)
    if list(given[: len(ids)]) == ids:
        return Tokens(tuple(given[len(ids) :]))
    return Tokens(tuple(given), fork=tokenised_anew(len(ids), first_difference(ids, given)))


def tokenised_anew(before: int, kept: int) -> str:
    """Why a stream starts anew where a server tokenises conversations itself.

    Args:
        before: ids of the stream so far.
        kept: how many of them, at their beginning, the server's are the same as.
    """
    return f"the server tokenised earlier turns anew: of {before} ids it kept the first {kept}"


def first_difference(first: Sequence[int], second: Sequence[int]) -> int:
    """Where two rows of ids begin to differ: the length of the shorter one where that is the beginning of the other."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(first), len(second)))


def _turns(observation: Observation) -> bool:
    return any(message.role == "assistant" for message in observation.messages)


def _stream(observation: Observation) -> list[Tokens] | None:
    """The tokens since the last fork; None where those of a turn, or of what was given before it, are not known."""
    kept: list[Tokens] = []
    broken = False
    for message, tokens in zip(observation.messages, observation.tokens, strict=True):
        turn = message.role == "assistant"
        if tokens is not None and tokens.fork:
            kept, broken = [], False
        if tokens is not None:
            broken = broken or turn != (len(kept) % 2 == 1)  # what was given and a turn follow each other
            kept.append(tokens)
        elif turn:
            broken = True
    return None if broken else kept


def _anew(renderer: Renderer, observation: Observation, native: bool, reason: str) -> Prompt:
    context = renderer.prompt(observation.messages, observation.tools, native=native)
    return _prompt([], [], replace(context, fork=reason) if reason else context)


def _joined(stream: Sequence[Tokens]) -> tuple[list[int], list[MediaSpan]]:
    ids: list[int] = []
    spans: list[MediaSpan] = []
    for tokens in stream:
        if tokens.media:
            spans += (replace(span, offset=len(ids) + span.offset) for span in tokens.media)
        ids += tokens.ids
    return ids, spans


def _prompt(before: list[int], spans: list[MediaSpan], context: Tokens) -> Prompt:
    """The prompt of ids and spans so far, which it takes over, and of what is added."""
    if context.media:
        spans = [*spans, *(replace(span, offset=len(before) + span.offset) for span in context.media)]
    before += context.ids  # in place: these may be many, and are copied once
    more = sum(max(span.length - 1, 0) for span in spans) if spans else 0
    return Prompt(tuple(before), tuple(spans), context, len(before) + more)
