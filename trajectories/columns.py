"""The episodes of a run as columns: computed in one streaming pass, then used to select, group and summarise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agentenv.errors import UnknownNameError
from agentenv.trajectories.heads import Head
from agentenv.trajectory import Outcome, Trajectory

BASE = (
    "id", "env", "task_id", "sample", "policy", "model", "seed", "reward", "passed", "pass_rate", "stop_reason",
    "terminated", "truncated", "masked", "answer", "turns", "calls", "tool_errors", "tokens", "prompt_tokens", "cost",
    "seconds",
)  # fmt: skip
"""Columns that every run has.

`tokens` are those that the policy wrote, None where its engine did not count them; `passed` is None where the episode
is unscored; `pass_rate` is the share of scored attempts at the same task, by the same policy, that passed; `calls`
are tool calls, `turns` the policy's turns. Beside these a run has a `score.NAME` for each reward component and a
`label.NAME` for each label.
"""

PASS = 1.0
"""The value from which on an attempt counts as passed."""

_SLACK = 1e-9  # weighted sums of scores come out a few ulps below 1

GroupKey = tuple[str, str, str, str]


def passed(reward: float, threshold: float = PASS) -> bool:
    """Whether a reward counts as a pass."""
    return reward >= threshold - _SLACK


class Columns:
    """A table of episodes.

    Args:
        records: place and record (or head) of each episode.
        threshold: the reward from which on an attempt counts as passed; by default what the environment says passes.
    """

    def __init__(self, records: Iterable[tuple[int, Head | Trajectory]], threshold: float | None = None) -> None:
        self.threshold = threshold
        self.passes: dict[str, None] = {}
        self.keys: list[int] = []
        self._data: dict[str, list[Any]] = {name: [] for name in BASE}
        self._words: dict[str, str] = {}
        for key, record in records:
            self._add(key, record)
        self._data["pass_rate"] = self._pass_rates()

    def _add(self, key: int, record: Head | Trajectory) -> None:
        row = len(self.keys)
        self.keys.append(key)
        for name, value in self._cells(record):
            column = self._data.get(name)
            if column is None:
                column = self._data[name] = [None] * row
            column.append(value)
        for column in self._data.values():
            if len(column) == row:
                column.append(None)

    def _cells(self, record: Head | Trajectory) -> Iterable[tuple[str, Any]]:
        word = self._words.setdefault
        policy, outcome, usages = record.policy, record.outcome, [call.usage for call in record.calls if call.usage]
        yield "id", record.id
        yield "env", word(record.env.id, record.env.id)
        yield "task_id", word(record.task.id, record.task.id)
        yield "sample", record.group.index
        yield "policy", word(policy.name, policy.name)
        yield "model", word(policy.model, policy.model)
        yield "seed", record.seed
        if outcome is not None:
            yield "reward", outcome.reward
            yield "passed", self._passed(record.env.passes, outcome)
            yield "stop_reason", word(outcome.stop_reason, outcome.stop_reason)
            yield "terminated", outcome.terminated
            yield "truncated", outcome.truncated
            yield "masked", outcome.masked
            yield "answer", outcome.answer
            for name, score in outcome.rewards.items():
                yield word(f"score.{name}", f"score.{name}"), score.value
        yield "turns", sum(node.origin == "sampled" for node in record.nodes)
        yield "calls", len(record.tool_runs)
        yield "tool_errors", sum(run.error_kind is not None for run in record.tool_runs)
        yield "tokens", sum(usage.completion_tokens for usage in usages) if usages else None
        yield "prompt_tokens", sum(usage.prompt_tokens for usage in usages) if usages else None
        yield "cost", sum(usage.cost for usage in usages) + sum(run.cost for run in record.tool_runs)
        yield "seconds", record.seconds
        for name, value in record.labels.items():
            yield word(f"label.{name}", f"label.{name}"), value

    def _passed(self, name: str, outcome: Outcome) -> bool | None:
        """Whether an attempt passed; None where it is unscored."""
        score = outcome.rewards.get(name) if self.threshold is None else None
        self.passes[name if score is not None else ""] = None
        value = outcome.reward if score is None else score.value
        least = PASS if self.threshold is None else self.threshold
        return None if value is None or outcome.reward is None else passed(value, least)

    def _pass_rates(self) -> list[float | None]:
        rates: list[float | None] = [None] * len(self.keys)
        passes = self._data["passed"]
        for rows in self.groups(range(len(self.keys))).values():
            rate = pass_rate([passes[row] for row in rows])
            for row in rows:
                rates[row] = rate
        return rates

    def groups(self, rows: Iterable[int]) -> dict[GroupKey, list[int]]:
        """Rows by environment, task and policy, each group by sample index."""
        groups: dict[GroupKey, list[int]] = {}
        for row in rows:
            key = tuple(self._data[name][row] for name in ("env", "task_id", "policy", "model"))
            groups.setdefault(key, []).append(row)
        samples = self._data["sample"]
        return {key: sorted(members, key=lambda row: samples[row]) for key, members in groups.items()}

    @property
    def names(self) -> list[str]:
        """The columns: the base ones, then the scores and labels by name."""
        return [*BASE, *sorted(name for name in self._data if name not in BASE)]

    def __getitem__(self, name: str) -> Sequence[Any]:
        if name not in self._data:
            raise UnknownNameError("column", name, self._data)
        return self._data[name]

    @property
    def mapping(self) -> Mapping[str, Sequence[Any]]:
        """All columns by name."""
        return self._data

    def row(self, row: int) -> dict[str, Any]:
        """One episode's cells by column."""
        return {name: self._data[name][row] for name in self.names}


def pass_rate(passes: Iterable[bool | None]) -> float | None:
    """Share of the scored attempts that passed; None where none was scored."""
    scored = [one for one in passes if one is not None]
    return sum(scored) / len(scored) if scored else None
