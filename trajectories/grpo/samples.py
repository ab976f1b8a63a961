"""Records to sequences that can be trained on: ids as they were sampled, mask, log-probabilities, advantages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from agentenv.errors import UnknownNameError, UsageError
from agentenv.tokens import Segment, expanded, media, streams
from agentenv.trajectories.grpo.advantages import METHODS, advantages, branched, process_grpo, reinforce_pp
from agentenv.trajectories.grpo.groups import Rules, judged
from agentenv.trajectory import Trajectory
from agentenv.types import MediaSpan

Method = Literal["grpo", "dr_grpo", "rloo", "reinforce_pp", "branched", "process_grpo"]
NAMES = (*METHODS, "reinforce_pp", "branched", "process_grpo")


class Turn(Struct, frozen=True, gc=False):
    """A turn that the model sampled: its place in the sequence, its node in the record, and which weights wrote it."""

    start: int
    stop: int
    node: int = -1
    version: str = ""


class Sample(Struct, frozen=True):
    """One sequence to train on, expanded: as the model's forward pass takes it. All arrays have the shape (tokens,).

    Args:
        ids: token ids, int64.
        mask: True where the model sampled and is to learn: the positions of the loss.
        logprobs: float32; under the policy that sampled, 0.0 elsewhere, NaN where its engine gave none.
        advantages: float32; of each token of the loss, 0.0 elsewhere.
        rewards: float32; the reward at the last token that was sampled, and rewards of turns at the last of each turn.
        media: the media in order, their offsets in `ids`.
        turns: what the model sampled, in order.
        group: names the group.
        record: the record's id.
        reward: of the whole attempt.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]
    logprobs: NDArray[np.float32]
    advantages: NDArray[np.float32]
    rewards: NDArray[np.float32]
    media: tuple[MediaSpan, ...]
    turns: tuple[Turn, ...]
    group: str = ""
    record: str = ""
    reward: float = 0.0


def sequence(segments: Sequence[Segment], *, group: str = "", record: str = "", reward: float = 0.0) -> Sample:
    """The sequence of a token stream (see `agentenv.tokens.streams`), its advantages still 0.

    Raises:
        UsageError: a medium's expanded length is not known.
    """
    parts = expanded(segments)
    lengths = [len(part.ids) for part in parts]
    starts = np.cumsum([0, *lengths])
    ids = np.empty(starts[-1], np.int64)
    mask = np.zeros(len(ids), np.bool_)
    logprobs = np.zeros(len(ids), np.float32)
    turns = []
    for part, start, length in zip(parts, starts.tolist(), lengths, strict=False):
        stop = start + length
        ids[start:stop] = part.ids
        if part.sampled:
            mask[start:stop] = True
            logprobs[start:stop] = np.nan if part.logprobs is None else part.logprobs
            turns.append(Turn(start, stop, part.node, part.version))
    zeros = np.zeros((2, len(ids)), np.float32)
    return Sample(ids, mask, logprobs, zeros[0], zeros[1], media(parts), tuple(turns), group, record, reward)


def sequences(record: Trajectory, *, inexact: bool = False) -> list[Sample]:
    """The sequences of a record: one, or more where its token stream forked. Each turn is in the mask of just one.

    Turns that the record marks as not trainable are not in the mask.

    Args:
        record: of a policy that works with token ids.
        inexact: take also ids that were computed from text later.

    Raises:
        UsageError: the record lacks ids, or some of them are not those that were sampled.
    """
    found = []
    for segments in streams(record):
        if not inexact and not all(segment.exact for segment in segments):
            raise UsageError(
                f"record {record.id} holds token ids that were computed from text: they may not be what was sampled."
                " Play with a policy that gives ids, or say inexact=True (supervised training needs no more)"
            )
        made = sequence(segments, group=record.group.id, record=record.id, reward=record.reward or 0.0)
        for turn in made.turns:
            if turn.node >= 0 and record.nodes[turn.node].trainable is False:
                made.mask[turn.start : turn.stop] = False
        found.append(made)
    return found


def supervised(given: Iterable[Sample]) -> list[Sample]:
    """Sequences for supervised training: each token of the loss has the advantage 1, and its log-probability is not
    known (NaN), so that a policy-gradient loss is the mean negative log-likelihood.
    """
    return [
        replace(
            sample,
            advantages=sample.mask.astype(np.float32),
            logprobs=np.where(sample.mask, np.nan, 0.0).astype(np.float32),
        )
        for sample in given
    ]


def samples(
    groups: Iterable[Sequence[Trajectory]],
    method: Method = "grpo",
    *,
    rules: Rules | None = None,
    inexact: bool = False,
    **options: Any,
) -> list[Sample]:
    """The sequences of groups of attempts, with their advantages.

    Attempts that are unscored, or not to be trained on (see `Rules`), are left out: they would add work and no
    gradient. Groups in which all advantages are 0 are kept: leave them out by `zero_variance` or `contested`.

    Args:
        groups: attempts by task, each a sequence of records.
        method: grpo, dr_grpo, rloo, reinforce_pp (normalised over all groups that are given), branched (for attempts
            that were forked and share turns: such a turn is in the mask of one of them) or process_grpo (rewards of
            single turns, from the rubric's step-scoped components).
        rules: what becomes of attempts without an end of their own.
        inexact: see `sequences`.
        **options: of the method, for instance `eps`.

    Raises:
        UnknownNameError: there is no such method.
        UsageError: a record lacks token ids; attempts share turns and the method is not "branched"; or records came
            without their groups.
    """
    if method not in NAMES:
        raise UnknownNameError("advantage method", method, NAMES)
    groups = list(groups)
    if any(isinstance(group, Trajectory) for group in groups):
        raise UsageError(
            "advantages compare the attempts at a task: give groups of records (run.groups()), not records"
        )
    attempts = [[_Attempt(record, rules, inexact) for record in group] for group in groups]
    if method != "branched":
        for group in attempts:
            _check_apart([attempt.record for attempt in group])
    if method == "reinforce_pp":
        tokens = [[attempt.tokens for attempt in group] for group in attempts]
        by_group = reinforce_pp([[a.reward for a in group] for group in attempts], tokens, **options)
        for group, row in zip(attempts, by_group, strict=True):
            _spread(group, row)
    else:
        for group in attempts:
            _weigh(group, method, options)
    return [sample for group in attempts for attempt in group for sample in attempt.samples]


class _Attempt:
    """A record with its sequences; without any where nothing of it is trained on."""

    def __init__(self, record: Trajectory, rules: Rules | None, inexact: bool) -> None:
        member = judged(record, rules)
        self.record, self.reward = record, member.reward
        self.samples = sequences(record, inexact=inexact) if member.trained else []
        self.steps = _steps(record)
        for sample in self.samples[-1:]:
            _place_rewards(sample, record.reward or 0.0, self.steps)

    @property
    def tokens(self) -> int:
        return sum(int(sample.mask.sum()) for sample in self.samples)

    def turns(self) -> list[tuple[Sample, Turn]]:
        return [(sample, turn) for sample in self.samples for turn in sample.turns]


def _weigh(group: list[_Attempt], method: str, options: dict[str, Any]) -> None:
    rewards = [attempt.reward for attempt in group]
    if method == "process_grpo":
        scored = [attempt for attempt in group if attempt.reward is not None]
        if scored and not any(attempt.steps for attempt in scored):
            raise UsageError("process_grpo needs rewards of turns: a rubric with components of the scope 'step'")
        for attempt, values in zip(scored, process_grpo([a.steps for a in scored], **options), strict=True):
            _by_turn(attempt, values)
        return
    if method == "branched":
        paths = _paths([attempt.record for attempt in group])
        _branch(group, paths, branched(rewards, paths))
        return
    _spread(group, advantages(rewards, method, **options))


def _check_apart(records: Sequence[Trajectory]) -> None:
    """Refuse attempts that share turns: each would train on them with an advantage of its own."""
    if any(record.forked_from for record in records):
        turns = [turn for path in _paths(records) for turn in path]
        if len(set(turns)) < len(turns):
            raise UsageError(f"attempts at {records[0].task.id} were forked and share turns: take method='branched'")


def _spread(group: list[_Attempt], row: Sequence[float | None]) -> None:
    """Give each attempt's advantage to all of its tokens."""
    for attempt, value in zip(group, row, strict=True):
        for sample in attempt.samples:
            sample.advantages[sample.mask] = value or 0.0


def _by_turn(attempt: _Attempt, values: Sequence[float]) -> None:
    """Give each turn its own advantage; turns beyond those that have a value get that of nothing to come, 0."""
    padded = [*values, *[0.0] * max(0, len(attempt.turns()) - len(values))]
    for (sample, turn), value in zip(attempt.turns(), padded, strict=False):
        sample.advantages[turn.start : turn.stop] = np.where(sample.mask[turn.start : turn.stop], value, 0.0)


def _branch(group: list[_Attempt], paths: list[list[str]], rows: list[list[float | None]]) -> None:
    """Give each turn its own advantage, and a turn that several attempts share to the first of them alone."""
    trained: set[str] = set()
    for attempt, path, row in zip(group, paths, rows, strict=True):
        _by_turn(attempt, [value or 0.0 for value in row])
        for (sample, turn), name in zip(attempt.turns(), path, strict=False):
            if name in trained:
                sample.mask[turn.start : turn.stop] = False
                sample.advantages[turn.start : turn.stop] = 0.0
        if attempt.samples:
            trained.update(path)


def _paths(records: Sequence[Trajectory]) -> list[list[str]]:
    """For each record a name for each sampled turn: the same in forked ones while all up to it is the same."""
    origin = {record.id: record.forked_from for record in records if record.forked_from}
    found = []
    for record in records:
        root = record.id
        while root in origin:
            root = origin[root]
        path = zip(record.path(), record.chain(), strict=True)
        found.append([f"{root}/{digest}" for node, digest in path if node.origin == "sampled"])
    return found


def _steps(record: Trajectory) -> list[float]:
    """The rewards of single turns: the weighted sum of the step-scoped components."""
    outcome = record.outcome
    if outcome is None or not outcome.steps:
        return []
    weights = {name: outcome.rewards[name].weight if name in outcome.rewards else 1.0 for name in outcome.steps}
    turns = max(map(len, outcome.steps.values()))
    return [
        sum(weights[name] * (values[turn] if turn < len(values) else 0.0) for name, values in outcome.steps.items())
        for turn in range(turns)
    ]


def _place_rewards(sample: Sample, reward: float, steps: Sequence[float]) -> None:
    """Rewards of turns at the last token of each, and what is left of the attempt's at the last token of all."""
    last = [turn.stop - 1 for turn in sample.turns]
    if not last:
        return
    for place, value in zip(last, steps, strict=False):
        sample.rewards[place] += value
    sample.rewards[last[-1]] += reward - sum(steps[: len(last)])
