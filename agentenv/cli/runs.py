"""`agentenv stats` and `score`: what a recorded run came to, and what it comes to by another rubric."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from agentenv.cli import common
from agentenv.cli.common import Flag
from agentenv.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from agentenv.reward import Rubric
    from agentenv.trajectories.run import Run
    from agentenv.trajectories.stats import Stats
    from agentenv.trajectory import Outcome, Trajectory


def stats(*runs: str, where: str | None = None, pass_at: float | None = None, json: Flag = False) -> None:
    """Measure a recorded run; several are set side by side.

    For example:

    ```
    agentenv stats runs/expert
    agentenv stats runs/expert runs/weak
    agentenv stats runs/weak --where 'stop_reason == "answer"'
    ```

    Args:
        runs: run folders, or .jsonl files of records.
        where: only the episodes for which this holds, for instance: reward >= 1 and turns < 5
        pass_at: the reward from which on an attempt counts as passed. By default its environment says what passes: the
            accuracy, say, where format counts too; where it says nothing, a reward of 1.
        json: print JSON.
    """
    if not runs:
        raise UsageError("which run? Name its folder, for instance: agentenv stats runs/expert")
    measured = {name: open_run(name, where, pass_at).stats() for name in runs}
    if json:
        plain = {name: msgspec.to_builtins(value, str_keys=True) for name, value in measured.items()}
        common.print_json(plain[runs[0]] if len(runs) == 1 else plain)
    elif len(measured) == 1:
        common.say(str(measured[runs[0]]))
    else:
        common.console().print(side_by_side(measured))


def open_run(path: str, where: str | None = None, pass_at: float | None = None) -> Run:
    """A recorded run, or those of its episodes for which an expression holds."""
    from agentenv.trajectories import load

    run = load(path, pass_at=pass_at)
    return run.filter(where) if where else run


def side_by_side(measured: dict[str, Stats]) -> Table:
    """The main figures of several runs, a column each."""
    shown = common.table("", *measured, right=tuple(measured))
    figures = [dict(_figures(stats)) for stats in measured.values()]
    for name in dict.fromkeys(itertools.chain.from_iterable(figures)):
        shown.add_row(name, *(column.get(name, "-") for column in figures))
    return shown


def _figures(s: Stats) -> Iterator[tuple[str, str]]:
    yield "episodes", f"{s.episodes:,}"
    yield "tasks", f"{s.tasks:,}"
    if s.unscored:
        yield "unscored", f"{s.unscored:,}"
    if s.reward:
        yield "reward", f"{s.reward.mean:.3f} [{s.reward.low:.3f}, {s.reward.high:.3f}]"
    for name, mean in s.scores.items():
        yield f"  {name}", f"{mean.mean:.3f}"
    for k, value in s.pass_at.items():
        yield f"pass@{k}", f"{value:.3f}"
    if s.zero_variance is not None:
        yield "groups of equal rewards", f"{s.zero_variance:.0%}"
    for name in ("turns", "calls", "tokens", "seconds"):
        if getattr(s, name):
            yield f"{name}, mean", common.number(getattr(s, name)["mean"])
    calls, errors = sum(t.calls for t in s.tools.values()), sum(t.errors for t in s.tools.values())
    if calls:
        yield "tool errors", f"{errors / calls:.1%}"
    if s.search:
        yield "searches, mean", common.number(s.search.searches)
        yield "  repeated", f"{s.search.repeated:.1%}"
        yield "  failed", f"{s.search.failed:.1%}"
        yield "pages opened, mean", common.number(s.search.pages)
    for reason, count in s.stop_reasons.items():
        yield f"ended: {reason}", f"{count:,}"


def score(run: str, /, *, rubric: str = "own", write: Flag = False, json: Flag = False) -> int:
    """Score a recorded run again, offline: nothing is played and no model is asked.

    Shows the old rewards beside the new ones. With --write the records get the new ones; the old ones stay in the
    journal. Episodes that ended for infrastructure reasons stay unscored.

    For example:

    ```
    agentenv score runs/weak
    agentenv score runs/weak --rubric denotation_upstream
    agentenv score runs/weak --rubric my_rewards:strict --write
    ```

    Args:
        run: a run folder.
        rubric: "own" for the rubric of the recorded environment, the name of one of its components (which then is the
            whole reward), or module:attr of a Rubric of yours.
        write: amend the records.
        json: print JSON.
    """
    source = open_run(run)
    if write and source.path is None:
        raise UsageError(f"{run} is a file of records: only a run folder can be amended")
    chosen = _Rubrics(rubric)
    changes = [_Change.of(record, outcome) for record, outcome in _scored(source, chosen)]
    written = _amend(source, changes) if write else 0
    summary = _summary(changes, written)
    if json:
        common.print_json({**summary, "episodes": [msgspec.structs.asdict(c) | {"outcome": None} for c in changes]})
    else:
        _show(changes, summary, run)
    return 0


class _Rubrics:
    """The rubric for each recorded environment."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._by_hash: dict[str, Rubric] = {}
        if ":" in name:
            common.see_working_directory()

    def of(self, record: Trajectory) -> Rubric:
        if record.env_hash not in self._by_hash:
            self._by_hash[record.env_hash] = self._found(record)
        return self._by_hash[record.env_hash]

    def _found(self, record: Trajectory) -> Rubric:
        from agentenv.registry import load_object, make
        from agentenv.reward import Rubric

        if ":" in self.name:
            found = load_object(self.name)
            if not isinstance(found, Rubric):
                raise UsageError(f"{self.name} is a {type(found).__name__}, not an agentenv.Rubric")
            return found
        common.entry_point(record.env.id)
        env = make(record.env.id, **record.env.kwargs)
        own = env.rubric
        env.close()
        return own if self.name == "own" else _component(own, self.name)


def _component(rubric: Rubric, name: str) -> Rubric:
    """The rubric with one of its components as the whole reward; the others are recorded."""
    from agentenv.reward import Rubric

    names = [part.name for part in rubric.components]
    if name not in names:
        raise UnknownNameError("rubric", name, ["own", *names, "module:attr"])
    parts = (msgspec.structs.replace(part, weight=float(part.name == name)) for part in rubric.components)
    return Rubric(*parts)


def _scored(run: Run, rubrics: _Rubrics) -> Iterator[tuple[Trajectory, Outcome]]:
    """Each ended episode with its new outcome. Groups are held in memory only where a component looks at them whole."""
    for group in run.groups():
        waiting: list[tuple[Trajectory, Outcome]] = []
        for record in group:
            if record.outcome is None:
                continue
            rubric, outcome = rubrics.of(record), _outcome(record, rubrics.of(record))
            if rubric.has_group_scope:
                waiting.append((record, outcome))
            else:
                yield record, outcome
        yield from _with_group(waiting, rubrics)


def _outcome(record: Trajectory, rubric: Rubric) -> Outcome:
    from agentenv.types import StopReason

    old = record.outcome
    assert old is not None
    if StopReason(old.stop_reason).unscored:
        return old
    reward, scores, steps = rubric.score(record.task, record)
    return msgspec.structs.replace(old, reward=reward, rewards=scores, steps=steps)


def _with_group(members: list[tuple[Trajectory, Outcome]], rubrics: _Rubrics) -> Iterable[tuple[Trajectory, Outcome]]:
    from agentenv.reward import total
    from agentenv.types import StopReason

    scored = [(record, new) for record, new in members if not StopReason(new.stop_reason).unscored]
    if not scored:
        return members
    first = scored[0][0]
    filled = rubrics.of(first).score_group(first.task, [r for r, _ in scored], [new.rewards for _, new in scored])
    made = {
        record.id: msgspec.structs.replace(new, rewards=scores, reward=total(scores))
        for (record, new), scores in zip(scored, filled, strict=True)
    }
    return [(record, made.get(record.id, new)) for record, new in members]


class _Change(msgspec.Struct, frozen=True):
    """What scoring an episode again came to."""

    id: str
    task: str
    sample: int
    old: float | None
    new: float | None
    changed: bool
    outcome: Any = None

    @classmethod
    def of(cls, record: Trajectory, outcome: Outcome) -> _Change:
        old = record.outcome
        changed = old != outcome
        kept = outcome if changed else None
        return cls(record.id, record.task.id, record.group.index, record.reward, outcome.reward, changed, kept)


def _amend(run: Run, changes: list[_Change]) -> int:
    from agentenv.trajectories.store import Store

    assert run.path is not None
    changed = [change for change in changes if change.changed]
    with Store.open(run.path) as store:
        for change in changed:
            store.amend(change.id, change.outcome)
    return len(changed)


def _summary(changes: list[_Change], written: int) -> dict[str, Any]:
    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    return {
        "count": len(changes),
        "old_mean": mean([change.old for change in changes]),
        "new_mean": mean([change.new for change in changes]),
        "rewards_changed": sum(change.old != change.new for change in changes),
        "written": written,
    }


_SHOWN = 20


def _show(changes: list[_Change], summary: dict[str, Any], run: str) -> None:
    different = [change for change in changes if change.old != change.new]
    if different:
        shown = common.table("task", "attempt", "old", "new", right=("attempt", "old", "new"))
        for change in different[:_SHOWN]:
            row = (str(change.sample), common.number(change.old), common.number(change.new))
            shown.add_row(common.printable(change.task), *row)
        common.console().print(shown)
        if len(different) > _SHOWN:
            common.say(f"and {len(different) - _SHOWN} more")
    old, new = common.number(summary["old_mean"]), common.number(summary["new_mean"])
    count = common.plural(summary["count"], "episode")
    common.say(f"{count}: mean reward {old} -> {new}, {summary['rewards_changed']} changed")
    if summary["written"]:
        common.say(f"amended {common.plural(summary['written'], 'record')} of {run}")
    elif any(change.changed for change in changes):
        common.say("nothing was written; --write amends the records")
