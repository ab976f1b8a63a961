"""A run: recorded episodes, to be looked at, selected, measured and exported."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from agentenv.errors import DataError, MissingExtraError, StoreError, UsageError
from agentenv.spec import EnvSpec
from agentenv.trajectories import media
from agentenv.trajectories.columns import Columns, pass_rate
from agentenv.trajectories.filters import select
from agentenv.trajectories.grpo.advantages import advantages, zero_variance
from agentenv.trajectories.heads import Head
from agentenv.trajectories.media import RunMedia
from agentenv.trajectories.store import Manifest, Store
from agentenv.trajectory import PolicyInfo, Trajectory

if TYPE_CHECKING:
    import pandas as pd

    from agentenv.trajectories.formats import ExportReport
    from agentenv.trajectories.stats import Stats


class Memory:
    """Records in memory, read as a store is."""

    def __init__(self, records: Iterable[Trajectory]) -> None:
        self._records = list(records)

    def keys(self) -> Iterable[int]:
        """The places of the records."""
        return range(len(self._records))

    def read(self, key: int) -> Trajectory:
        """One record."""
        return self._records[key]

    def records(self, keys: Iterable[int]) -> Iterator[tuple[int, Trajectory]]:
        """Records with their places."""
        return ((key, self._records[key]) for key in keys)

    heads = records


class Run(Sequence[Trajectory]):
    """Recorded episodes. Looks like a list of them, but reads each one from the run folder when it is asked for.

    Args:
        records: the episodes, or the store that holds them: of a store, in the order of tasks and samples.
        pass_at: the reward from which on an attempt counts as passed; by default what the environment says passes.
        folder: in whose `media/` the pictures are, where that is not the store's.

    `media.get(sha256)` gives the bytes of a picture.
    """

    def __init__(
        self, records: Iterable[Trajectory] | Store, pass_at: float | None = None, *, folder: Path | None = None
    ) -> None:
        self._source: Store | Memory = records if isinstance(records, Store) else Memory(records)
        self._pass_at = pass_at
        self._rows: list[int] | None = None
        self.media = RunMedia(self.path or folder)

    @property
    def path(self) -> Path | None:
        """The run folder; None where the run is in memory."""
        return self._source.path if isinstance(self._source, Store) else None

    @property
    def manifest(self) -> Manifest | None:
        """What the run folder says of the run."""
        return self._source.manifest if isinstance(self._source, Store) else None

    @property
    def problems(self) -> list[DataError]:
        """Damaged records that were left out, each with file and line."""
        return self._source.problems if isinstance(self._source, Store) else []

    def check_media(self) -> list[DataError]:
        """Read every picture of the run, frames of videos too: one entry for each that is missing or not what its name
        says. Video files are no part of a run folder and are not asked for (see `save_videos`).
        """
        return media.check(iter(self), self.media)

    def save_videos(self) -> list[str]:
        """Copy the video files that the episodes name into the run folder, out of the process's media store.

        A run folder holds the frames that policies saw, and names the files by hash; with the files it can be exported
        as references to videos, in another process too. Call it in the process that played the episodes, or after
        `put_video` of the same files.

        Returns:
            SHA-256 of the files that are nowhere to be found.

        Raises:
            UsageError: the run is in memory.
            StoreError: a file cannot be written.
        """
        if self.path is None:
            raise UsageError("the run is in memory: play it with out=FOLDER, or load it from its folder")
        return media.save_videos(iter(self), self.path)[1]

    @cached_property
    def columns(self) -> Columns:
        """The table of all episodes that this run was selected from (see `agentenv.trajectories.columns`)."""
        source = self._source
        keys = source.index.ordered() if isinstance(source, Store) else source.keys()
        return Columns(source.heads(keys), self._pass_at)

    @property
    def rows(self) -> Sequence[int]:
        """Which rows of `columns` are this run's, in order."""
        return range(len(self.columns.keys)) if self._rows is None else self._rows

    def _selected(self, rows: list[int]) -> Run:
        run = Run.__new__(Run)
        run._source, run._pass_at, run._rows = self._source, self._pass_at, rows
        run.columns, run.media = self.columns, self.media
        return run

    def column(self, name: str) -> list[Any]:
        """One value an episode.

        Raises:
            UnknownNameError: there is no such column.
        """
        values = self.columns[name]
        return [values[row] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Trajectory: ...
    @overload
    def __getitem__(self, index: slice) -> Run: ...
    def __getitem__(self, index: int | slice) -> Trajectory | Run:
        if isinstance(index, slice):
            return self._selected(list(self.rows[index]))
        try:
            row = self.rows[operator.index(index)]
        except IndexError:
            raise IndexError(f"the run has {len(self)} episodes; there is no number {index}") from None
        return self._source.read(self.columns.keys[row])

    def __iter__(self) -> Iterator[Trajectory]:
        return (record for _, record in self.records())

    def records(self) -> Iterator[tuple[int, Trajectory]]:
        """The episodes with their rows in `columns`, one at a time. Damaged ones go to `problems`."""
        row_of = {self.columns.keys[row]: row for row in self.rows}
        keys = [self.columns.keys[row] for row in self.rows]
        return ((row_of[key], record) for key, record in self._source.records(keys))

    def heads(self) -> Iterator[Head | Trajectory]:
        """The episodes without their messages, one at a time: faster than `records`."""
        keys = [self.columns.keys[row] for row in self.rows]
        return (head for _, head in self._source.heads(keys))

    def groups(self) -> list[TrajectoryGroup]:
        """The attempts by task (and environment and policy), in the order of the tasks' first attempts."""
        return [TrajectoryGroup(self, rows) for rows in self.columns.groups(self.rows).values()]

    def filter(self, test: str | Callable[[Trajectory], Any]) -> Run:
        """The episodes that pass a test.

        Columns keep their values: `pass_rate` stays that of the whole group, also where not all of it is selected.

        Args:
            test: an expression over columns, such as `reward >= 1 and 0 < pass_rate < 1`
                (see `agentenv.trajectories.filters`), or a function of the trajectory.

        Raises:
            UnknownNameError: the expression names no column.
            UsageError: it cannot be read.
        """
        if isinstance(test, str):
            return self._selected(select(test, self.columns.mapping, self.rows))
        return self._selected([row for row, record in self.records() if test(record)])

    def to_rows(self) -> list[dict[str, Any]]:
        """One dictionary an episode, by column."""
        return [self.columns.row(row) for row in self.rows]

    def to_pandas(self) -> pd.DataFrame:
        """One row an episode.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtraError("pandas", "data", "run.to_pandas()") from None
        return pd.DataFrame({name: self.column(name) for name in self.columns.names})

    def stats(self) -> Stats:
        """Means, intervals, pass@k, histograms; see `agentenv.trajectories.stats`."""
        from agentenv.trajectories.stats import stats

        return stats(self)

    def export(self, format: str, out: str | os.PathLike[str], **options: Any) -> ExportReport:
        """Write the episodes in a trainer's format.

        Args:
            format: its name, for instance "trl-sft" (see `agentenv.trajectories.formats`).
            out: the folder to write to.
            **options: of the format.

        Raises:
            UnknownNameError: there is no such format.
            UsageError: an option is wrong, or the folder holds something else.
        """
        from agentenv.trajectories.formats import export

        return export(self, format, out, **options)

    def __repr__(self) -> str:
        from agentenv.trajectories.show import summary

        return f"<{summary(self)}>"

    def _repr_html_(self) -> str:
        from agentenv.trajectories.show import html

        return html(self)


class TrajectoryGroup(Sequence[Trajectory]):
    """The attempts of one policy at one task, by sample index. Reads an attempt when it is asked for."""

    def __init__(self, run: Run, rows: list[int]) -> None:
        self._run = run._selected(rows)
        self.rows = rows

    @property
    def task_id(self) -> str:
        """The task."""
        return str(self._run.column("task_id")[0])

    @property
    def id(self) -> str:
        """Names the group within its run: environment, task and policy."""
        names = (self._run.column(name)[0] for name in ("env", "task_id", "policy", "model"))
        return "/".join(str(name) for name in names if name)

    @property
    def ids(self) -> list[str]:
        """The records' ids."""
        return self._run.column("id")

    @property
    def samples(self) -> list[int]:
        """The attempts' indices."""
        return self._run.column("sample")

    @property
    def rewards(self) -> list[float | None]:
        """One reward an attempt, None where unscored."""
        return self._run.column("reward")

    @property
    def passes(self) -> list[bool | None]:
        """Whether each attempt passed, None where unscored."""
        return self._run.column("passed")

    @property
    def pass_rate(self) -> float | None:
        """Share of the scored attempts in this group that passed."""
        return pass_rate(self.passes)

    @property
    def zero_variance(self) -> bool:
        """Whether all scored rewards are equal, so that a group-relative method learns nothing from it."""
        return zero_variance(self.rewards)

    def advantages(self, method: str = "grpo", **options: float) -> list[float | None]:
        """One advantage an attempt, None where unscored; see `agentenv.trajectories.grpo`."""
        return advantages(self.rewards, method, **options)

    def __len__(self) -> int:
        return len(self._run)

    @overload
    def __getitem__(self, index: int) -> Trajectory: ...
    @overload
    def __getitem__(self, index: slice) -> Run: ...
    def __getitem__(self, index: int | slice) -> Trajectory | Run:
        return self._run[index]

    def __iter__(self) -> Iterator[Trajectory]:
        return iter(self._run)

    def __repr__(self) -> str:
        return f"<TrajectoryGroup {self.id}: rewards {self.rewards}>"


def load(path: str | os.PathLike[str], *, pass_at: float | None = None, strict: bool = False) -> Run:
    """Open a recorded run.

    Args:
        path: a run folder, or a `.jsonl` file of records, as the format "jsonl" writes it, with its pictures in the
            `media/` beside it.
        pass_at: the reward from which on an attempt counts as passed; by default what the environment says passes.
        strict: raise on a damaged record instead of leaving it out (see `Run.problems`).

    Raises:
        UsageError: there is no run, or it was made by a newer version.
        StoreError: it cannot be read.
    """
    if Path(path).is_file():
        return Run(_from_file(Path(path)), pass_at, folder=Path(path).parent)
    return Run(Store.open(path, strict=strict), pass_at)


def _from_file(path: Path) -> Iterator[Trajectory]:
    from agentenv.trajectories.journal import lines

    if path.suffix != ".jsonl":
        raise UsageError(f"{path} is neither a run folder nor a .jsonl file of records")
    for number, (_, line) in enumerate(lines(path), 1):
        try:
            yield Trajectory.from_json(line)
        except StoreError as error:
            raise DataError(str(error), str(path), number) from None


class Sink:
    """Where a rollout puts its records: a run folder, or memory. The last record of an attempt counts."""

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self._kept: dict[tuple[str, int], Trajectory] = {}

    def write(self, record: Trajectory) -> None:
        """Keep a record."""
        if self._store is not None:
            self._store.write(record)
        else:
            self._kept[record.task.id, record.group.index] = record

    def done(self, *, scored: bool = False) -> set[tuple[str, int]]:
        """Attempts that need not be played: with `scored`, those that have a reward."""
        return self._store.done(rewarded=scored) if self._store is not None else set()

    def close(self) -> None:
        """Make everything durable and unlock the run folder."""
        if self._store is not None:
            self._store.close()

    def run(self) -> Run:
        """What was kept."""
        return Run(self._store if self._store is not None else self._kept.values())


def open_sink(
    out: str | os.PathLike[str] | None,
    *,
    resume: bool,
    spec: EnvSpec,
    policy: PolicyInfo,
    settings: Mapping[str, Any],
) -> Sink:
    """The sink of a rollout.

    Args:
        out: the run folder, None to keep the run in memory.
        resume: go on if the folder holds a run.
        spec: the environment.
        policy: who plays.
        settings: of the run, for the folder's manifest.

    Raises:
        UsageError: the folder holds something else, or a run that is not to be resumed.
        StoreError: it cannot be written.
    """
    if out is None:
        return Sink(None)
    return Sink(Store.create(out, Manifest.of(spec, policy, settings), resume=resume))
