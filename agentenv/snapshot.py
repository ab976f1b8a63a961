"""The state of an episode in the middle, as plain data."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from agentenv.episode import Episode
from agentenv.rules import Counters, Rules
from agentenv.trajectory import Trajectory, new_id
from agentenv.types import StopReason, Task


class Snapshot(Struct, frozen=True):
    """What it takes to go on with an episode elsewhere: see `Env.snapshot`. `elapsed` is in seconds."""

    task: Task
    record: bytes
    used: Counters
    elapsed: float
    stop: StopReason | None
    forced: StopReason | None
    answer: str | None
    masked: bool


def take(episode: Episode, elapsed: float) -> Snapshot:
    """The present state of an episode that has been played for `elapsed` seconds."""
    used = replace(episode.used, per_tool=dict(episode.used.per_tool))
    e = episode
    return Snapshot(e.task, e.trajectory.to_json(), used, elapsed, e.stop, e.forced, e.answer, e.masked)


def resume(rules: Rules, snapshot: Snapshot, now: float) -> Episode:
    """An episode that goes on from a snapshot, in a record of its own that says where it came from."""
    record = Trajectory.from_json(snapshot.record)
    record.forked_from, record.id = record.id, new_id()
    episode = Episode(rules, snapshot.task, record)
    path = record.path()
    episode.messages = [node.message for node in path]
    episode.tokens = {index: node.tokens for index, node in enumerate(path) if node.tokens is not None}
    episode.leaf = max((i for i, node in enumerate(record.nodes) if not node.rolled_back), default=-1)
    episode.used = replace(snapshot.used, per_tool=dict(snapshot.used.per_tool), started=now - snapshot.elapsed)
    episode.stop, episode.forced = snapshot.stop, snapshot.forced
    episode.answer, episode.masked = snapshot.answer, snapshot.masked
    return episode
