"""Token ids as they were sampled, with mask, log-probabilities and advantages: one row a sequence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
from msgspec import field, to_builtins
from msgspec.structs import replace
from numpy.typing import NDArray

from agentenv.errors import UsageError
from agentenv.trajectories.formats.base import Format, Options, Row, Tally
from agentenv.trajectories.formats.beside import MEDIA
from agentenv.trajectories.formats.jsonl import copied
from agentenv.trajectories.grpo.groups import Rules
from agentenv.trajectories.grpo.samples import Sample, samples
from agentenv.trajectory import Trajectory
from agentenv.types import MediaSpan

if TYPE_CHECKING:
    from agentenv.trajectories.run import Run


class TokenOptions(Options, frozen=True):
    """Options of tokens.

    Args:
        method: how advantages are computed; see `agentenv.trajectories.grpo.samples.samples`.
        media: "expanded" ids are what a forward pass takes, all tokens of a picture; "collapsed" ones what inference
            engines take, one placeholder a picture.
        inexact: also episodes whose ids were computed from text.
        zero_variance: False leaves out groups whose rewards are all equal.
        max_tokens: longer sequences are left out, never cut: a cut could go through a picture. 0 is no limit.
        rules: which attempts count; see `agentenv.trajectories.grpo.groups.Rules`.
    """

    method: Literal["grpo", "dr_grpo", "rloo", "branched", "process_grpo"] = "grpo"
    media: Literal["expanded", "collapsed"] = "expanded"
    inexact: bool = False
    zero_variance: bool = True
    max_tokens: int = 0
    rules: Rules = field(default_factory=Rules)


def rows(run: Run, options: TokenOptions, tally: Tally) -> Iterator[Row]:
    """One row a sequence: an episode has more than one where its token stream forked."""
    for group in run.groups():
        if group.zero_variance and not options.zero_variance:
            _skip(tally, group.ids, "group with equal rewards")
            continue
        records = {record.id: record for record in group}
        try:
            made = samples([list(records.values())], options.method, rules=options.rules, inexact=options.inexact)
        except UsageError as error:
            _skip(tally, list(records), str(error))
            continue
        for sample in made:
            if options.max_tokens and len(sample.ids) > options.max_tokens:
                tally.skip(sample.record, f"longer than {options.max_tokens} tokens")
                continue
            yield _row(run, sample, records[sample.record], options, tally)
        there = {sample.record for sample in made}
        _skip(tally, [id for id in records if id not in there], "unscored, masked or dropped by the rules")


def _skip(tally: Tally, ids: list[str], reason: str) -> None:
    for id in ids:
        tally.skip(id, reason)


def _row(run: Run, sample: Sample, record: Trajectory, options: TokenOptions, tally: Tally) -> Row:
    keep, media = _kept(sample, options.media == "collapsed")
    if [span for span in media if not copied(run, span.sha256, tally, large=span.kind == "video")]:
        tally.drop({"media"})
    ids = sample.ids.copy()
    for span in sample.media if options.media == "collapsed" else ():
        ids[span.offset] = span.token
    versions = [turn.version for turn in sample.turns]
    return {
        "id": record.id,
        "group": record.group.id,
        "sample": record.group.index,
        "reward": sample.reward,
        "input_ids": ids[keep].tolist(),
        "response_mask": sample.mask[keep].astype(int).tolist(),
        "logprobs": [None if np.isnan(value) else value for value in sample.logprobs[keep].tolist()],
        "advantages": sample.advantages[keep].tolist(),
        "rewards": sample.rewards[keep].tolist(),
        "versions": versions,
        "media": [{"path": f"{MEDIA}/{span.sha256[:2]}/{span.sha256}", **to_builtins(span)} for span in media],
    }


def _kept(sample: Sample, collapsed: bool) -> tuple[NDArray[np.bool_], list[MediaSpan]]:
    """Which tokens stay, and the media with their offsets among them."""
    keep = np.ones(len(sample.ids), np.bool_)
    for span in sample.media if collapsed else ():
        keep[span.offset + 1 : span.offset + span.length] = False
    places = np.cumsum(keep) - 1
    return keep, [replace(span, offset=int(places[span.offset])) for span in sample.media]


FORMAT = Format(
    "tokens",
    "Token ids with the mask of what was sampled, log-probabilities and advantages, one row a sequence.",
    TokenOptions,
    {
        "id": "string",
        "group": "string",
        "sample": "int",
        "reward": "float",
        "input_ids": "ints",
        "response_mask": "ints",
        "logprobs": "floats",
        "advantages": "floats",
        "rewards": "floats",
        "versions": "strings",
        "media": "json_list",
    },
    {"media": "a picture is neither in the run folder nor in this process"},
    rows,
)
