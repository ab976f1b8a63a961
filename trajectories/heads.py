"""The light part of a record: what selection, statistics and the index need, read without building the messages."""

from __future__ import annotations

from typing import Any

from msgspec import Raw, Struct, field

from agentenv.trajectory import SCHEMA, Group, ModelCall, Outcome, PolicyInfo


class IdHead(Struct, gc=False):
    """Something of which only the id is read."""

    id: str = ""


class EnvHead(Struct, gc=False):
    """Of an environment, its name and what says that an attempt passed."""

    id: str = ""
    passes: str = ""


class NodeHead(Struct, gc=False):
    """A node without its message."""

    origin: str = ""
    rolled_back: bool = False


class ToolRunHead(Struct, gc=False):
    """A tool run without its parts."""

    name: str = ""
    error_kind: str | None = None
    seconds: float = 0.0
    cost: float = 0.0
    cache: str = ""
    data: Raw = Raw(b"null")


class Head(Struct):
    """A record without its messages. Its fields are named as those of `Trajectory`."""

    id: str
    task: IdHead
    env: EnvHead
    policy: PolicyInfo
    group: Group
    seed: int = 0
    started: float = 0.0
    nodes: list[NodeHead] = field(default_factory=list)
    calls: list[ModelCall] = field(default_factory=list)
    tool_runs: list[ToolRunHead] = field(default_factory=list)
    outcome: Outcome | None = None
    seconds: float = 0.0
    forked_from: str = ""
    schema: str = SCHEMA
    labels: dict[str, Any] = field(default_factory=dict)


class OutcomeKey(Struct, gc=False):
    """Of an outcome, only how it ended and whether there is a reward."""

    stop_reason: str = ""
    reward: float | None = None


class Line(Struct):
    """What the index reads of a line: enough to tell records from events, and one attempt from another."""

    id: str
    event: str = ""
    task: IdHead | None = None
    env: IdHead | None = None
    group: Group | None = None
    outcome: OutcomeKey | None = None
    forked_from: str = ""
    schema: str = SCHEMA


class Event(Struct, omit_defaults=True):
    """A line that changes what an earlier one says, without touching it.

    Args:
        event: "amend" or "delete".
        id: the record that it is about.
        at: Unix time in seconds.
        outcome: a new outcome, where it was scored again.
        labels: what curation says of it; merged by key, the last word wins.
    """

    event: str
    id: str
    at: float
    outcome: Outcome | None = None
    labels: dict[str, Any] = field(default_factory=dict)
