"""Task sets: lazy, restartable, seeded and selectable rows of `Task`.

    tasks = TaskSet.from_jsonl("qa.jsonl", columns={"question": "utterance", "answer": "targetValue"}, on_error="skip")
    tasks.shuffle(seed=0).take(100)         # nothing is read yet
    tasks[3], tasks["nt-17"], len(tasks)    # read once, then remembered
    tasks.skipped                           # the malformed rows, each with file and line

A set is either indexed (a procedural generator, a list: task `i` can be had alone) or streamed (a text file, a filtered
set). A streamed set that is only iterated is never held in memory; `len`, an index, an id or `shuffle` read it once and
keep it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast, overload

from agentenv import _taskrows as rows_
from agentenv._taskrows import NumberedRows, ToTask, as_table, column_reader, existing, inline_table, table_file
from agentenv.errors import DataError, UnknownNameError, UsageError
from agentenv.types import Task

OnError = Literal["raise", "skip"]
distinct = rows_.distinct

__all__ = ["NumberedRows", "OnError", "TaskSet", "ToTask", "as_table", "column_reader", "existing", "inline_table"]
__all__ += ["distinct", "load_tasks", "table_file"]


class TaskSet:
    """A lazy, restartable sequence of tasks.

    Made by the constructors below (`of`, `generate`, `from_jsonl` ...), not called directly. Every method that returns
    a set returns a new one and reads nothing. Iterating twice gives the same tasks twice.
    """

    def __init__(
        self,
        read: Callable[[], Iterator[Task]] | None = None,
        *,
        at: Callable[[int], Task] | None = None,
        length: int | None = None,
        name: str = "tasks",
        skipped: dict[tuple[str, int], DataError] | None = None,
        infinite: bool = False,
    ) -> None:
        self.name, self.infinite = name, infinite
        self._read, self._at, self._length = read, at, length
        self._skipped: dict[tuple[str, int], DataError] = {} if skipped is None else skipped
        self._ids: dict[str, int] | None = None
        self._mapped: tuple[TaskSet, Callable[[Task], Task]] | None = None

    # ---- constructors

    @classmethod
    def of(cls, tasks: Iterable[Task], name: str = "tasks") -> TaskSet:
        """A set of tasks that are already there; two with the same id are a `DataError`."""
        held = tuple(distinct(tasks))
        return cls(at=held.__getitem__, length=len(held), name=name)

    @classmethod
    def generate(cls, fn: Callable[[int], Task], length: int | None = None, name: str = "generated") -> TaskSet:
        """A procedural set.

        Args:
            fn: task by index, counted from 0; a pure function, so that the set can be restarted and split over workers.
            length: how many tasks there are; None for no end.
            name: shown in the repr; the methods that choose add themselves to it.
        """
        return cls(at=fn, length=length, name=name, infinite=length is None)

    @classmethod
    def from_rows(
        cls,
        rows: Callable[[], Iterable[Any]],
        to_task: ToTask | None = None,
        *,
        columns: Mapping[str, str] | None = None,
        keep: Iterable[str] = (),
        on_error: OnError = "raise",
        file: str = "",
        name: str = "rows",
    ) -> TaskSet:
        """A set over rows (dicts) that `rows()` yields anew at every pass.

        Args:
            rows: called once a pass.
            to_task: makes a task of a row, which holds its number as `_line`; by default `columns` says which column
                is which field.
            columns: field -> column, with fields out of question, answer, id, table, tables, evidence.
            keep: further columns to be kept in the task's metadata.
            on_error: "raise" stops at a malformed row; "skip" goes on and lists it in `skipped`.
            file: named in errors.
            name: shown in the repr.

        Raises:
            UnknownNameError: a field of `columns`, or (when the first row is read) a column, that does not exist.
        """
        options: dict[str, Any] = {"columns": columns, "keep": keep, "on_error": on_error, "file": file, "name": name}
        return cls.from_numbered(lambda: enumerate(rows(), 1), to_task, **options)

    @classmethod
    def from_numbered(
        cls,
        rows: Callable[[], NumberedRows],
        to_task: ToTask | None = None,
        *,
        columns: Mapping[str, str] | None = None,
        keep: Iterable[str] = (),
        on_error: OnError = "raise",
        file: str = "",
        name: str = "rows",
        base: Path | None = None,
    ) -> TaskSet:
        """As `from_rows`, over pairs of a row's number and the row, or the `DataError` that stands in its place.

        Readers of text formats give the line as the number. `base` is the folder from which paths of tables count.
        """
        if on_error not in ("raise", "skip"):
            raise UnknownNameError("value of on_error", on_error, ("raise", "skip"))
        kept = tuple(keep)
        column_reader(columns, kept)  # a wrong field name is told now, not at the first row
        skipped: dict[tuple[str, int], DataError] = {}
        into = skipped if on_error == "skip" else None

        def read() -> Iterator[Task]:
            return rows_.convert(rows(), to_task or column_reader(columns, kept, name, base), file, into)

        return cls(read, name=name, skipped=skipped)

    @classmethod
    def _from_file(
        cls,
        path: str | Path,
        rows: Callable[[Path], NumberedRows],
        to_task: ToTask | None,
        options: dict[str, Any],
    ) -> TaskSet:
        file = existing(path)
        options = {"name": file.stem, "file": str(path), "base": file.parent, **options}
        return cls.from_numbered(lambda: rows(file), to_task, **options)

    @classmethod
    def from_jsonl(cls, path: str | Path, to_task: ToTask | None = None, **options: Any) -> TaskSet:
        """A set over a file with one JSON object a line; blank lines are passed over. Options as in `from_rows`.

        Raises:
            UnknownNameError: no such file; the nearest one is named.
            DataError: while reading, a malformed line (unless `on_error="skip"`).
        """
        return cls._from_file(path, rows_.json_lines, to_task, options)

    @classmethod
    def from_json(cls, path: str | Path, to_task: ToTask | None = None, **options: Any) -> TaskSet:
        """A set over a file that holds one JSON list of objects. Options as in `from_rows`; errors give the row."""
        return cls._from_file(path, lambda file: enumerate(rows_.json_list(file), 1), to_task, options)

    @classmethod
    def from_csv(cls, path: str | Path, to_task: ToTask | None = None, *, sep: str = "", **options: Any) -> TaskSet:
        """A set over a CSV file with a header, tab-separated if called .tsv. Options as in `from_rows`."""
        mark = sep or ("\t" if Path(path).suffix.lower() == ".tsv" else ",")
        return cls._from_file(path, lambda file: rows_.csv_rows(file, mark), to_task, options)

    @classmethod
    def from_parquet(cls, path: str | Path, to_task: ToTask | None = None, **options: Any) -> TaskSet:
        """A set over the rows of a Parquet file, read in batches. Options as in `from_rows`.

        Raises:
            UnknownNameError: no such file; the nearest one is named.
            MissingExtraError: while reading, pyarrow is not installed.
        """
        return cls._from_file(path, lambda file: enumerate(rows_.parquet_rows(file), 1), to_task, options)

    @classmethod
    def from_hf(cls, dataset: Any, to_task: ToTask | None = None, *, split: str = "", **options: Any) -> TaskSet:
        """A set over a Hugging Face data set. Nothing is downloaded.

        Args:
            dataset: a `datasets.Dataset`, a `DatasetDict`, or the local folder that `save_to_disk` wrote.
            to_task: as in `from_rows`.
            split: which split of a `DatasetDict`; may be left out where there is one only.
            **options: as in `from_rows`.

        Raises:
            UnknownNameError: no such folder or split.
            MissingExtraError: a folder is given and `datasets` is not installed.
        """
        loaded = rows_.load_from_disk(existing(dataset)) if isinstance(dataset, (str, Path)) else dataset
        if isinstance(loaded, Mapping):
            if split not in loaded and (split or len(loaded) != 1):
                raise UnknownNameError("split", split, map(str, loaded))
            loaded = loaded[split] if split else next(iter(loaded.values()))
        options.setdefault("name", str(getattr(loaded, "split", None) or "dataset"))
        return cls.from_rows(lambda: iter(loaded), to_task, **options)

    # ---- reading

    @property
    def size(self) -> int | None:
        """How many tasks there are; None where there is no end. Reads a set whose length is not known yet."""
        return None if self.infinite else len(self)

    def draw(self, rng: Any) -> Task:
        """A task drawn evenly by a NumPy generator; of an endless set, one of its first 2**31."""
        if self.size == 0:
            raise UsageError(f"nothing to draw from in the task set {self.name!r}: {self.describe_skipped()}")
        return self[int(rng.integers(self.size or 2**31))]

    @property
    def skipped(self) -> list[DataError]:
        """The malformed rows met so far, each once however often the set was read."""
        return list(self._skipped.values())

    def describe_skipped(self) -> str:
        """One line for a person: how many tasks there are, how many rows were skipped, and why the first one was."""
        return rows_.counted(self.size, self.skipped)

    def __iter__(self) -> Iterator[Task]:
        if self._at is None:
            return cast(Callable[[], Iterator[Task]], self._read)()
        at, length = self._at, self._length
        return map(at, range(length)) if length is not None else rows_.endless(at)

    def __len__(self) -> int:
        if self.infinite:
            raise TypeError(f"the task set {self.name!r} has no end; .take(n) gives a finite one")
        self._settle()
        return cast(int, self._length)

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None

    @overload
    def __getitem__(self, key: int | str) -> Task: ...
    @overload
    def __getitem__(self, key: slice) -> TaskSet: ...
    def __getitem__(self, key: int | str | slice) -> Task | TaskSet:
        if isinstance(key, str):
            return self._by_id(key)
        if isinstance(key, slice):
            return self._sliced(key)
        at = self._settle()
        if key < 0:
            key += len(self)
        if key < 0 or (self._length is not None and key >= self._length):
            raise IndexError(f"task {key} of {self._length} in {self.name!r}")
        return at(key)

    def _settle(self) -> Callable[[int], Task]:
        """Make the set indexed: what is streamed is read once and kept, unless it has no end."""
        if self._at is None and self.infinite:
            return lambda index: next(islice(iter(self), index, None))
        if self._at is None and self._mapped is not None:
            before, change = self._mapped
            at = before._settle()
            self._at, self._length, self._read = lambda index: change(at(index)), before._length, None
        if self._at is None:
            held = tuple(distinct(self))
            self._at, self._length, self._read = held.__getitem__, len(held), None
        return self._at

    def _sliced(self, key: slice) -> TaskSet:
        if self.infinite and (key.stop is None or min(key.start or 0, key.stop) < 0 or (key.step or 1) < 0):
            raise UsageError(f"the task set {self.name!r} has no end; slice it as [start:stop]")
        at = self._settle()
        spots = range(key.stop if self._length is None else self._length)[key]
        return self._indexed(f"[{spots.start}:{spots.stop}:{spots.step}]", lambda i: at(spots[i]), len(spots))

    def _by_id(self, task_id: str) -> Task:
        at = self._settle()
        digits = re.search(r"(\d{1,15})$", task_id)
        if digits and (self._length is None or int(digits[1]) < self._length):
            task = at(int(digits[1]))
            if task.id == task_id:
                return task
        if self._length is None:
            raise UnknownNameError("task", task_id, [task.id for task in self.take(3)])
        place = self._mapped[0]._places().get(task_id) if self._mapped is not None else None
        if place is not None and (task := at(place)).id == task_id:
            return task  # changing all tasks only to learn their ids can be dear
        if task_id not in self._places():
            raise UnknownNameError("task", task_id, self._places())
        return at(self._places()[task_id])

    def _places(self) -> dict[str, int]:
        if self._ids is None:
            at = self._settle()
            self._ids = {task.id: i for i, task in enumerate(distinct(map(at, range(len(self)))))}
        return self._ids

    # ---- choosing

    def take(self, n: int) -> TaskSet:
        """The first `n` tasks, or all where there are fewer."""
        _natural("take", n)
        if self._at is None:
            return self._streamed(f"take({n})", lambda: islice(iter(self), n), infinite=False)
        return self._indexed(f"take({n})", self._at, n if self._length is None else min(n, self._length))

    def skip(self, n: int) -> TaskSet:
        """All but the first `n` tasks."""
        _natural("skip", n)
        if self._at is None:
            return self._streamed(f"skip({n})", lambda: islice(iter(self), n, None))
        at, length = self._at, None if self._length is None else max(0, self._length - n)
        return self._indexed(f"skip({n})", lambda i: at(i + n), length)

    def shuffle(self, seed: int = 0) -> TaskSet:
        """All tasks in an order that depends on `seed` and on the number of tasks only.

        Raises:
            UsageError: the set has no end.
        """
        if self.infinite:
            raise UsageError(f"the task set {self.name!r} has no end; .take(n) before .shuffle()")

        def read() -> Iterator[Task]:
            at, order = self._settle(), list(range(len(self)))
            random.Random(f"agentenv/shuffle/{seed}").shuffle(order)
            return map(at, order)

        return self._streamed(f"shuffle({seed})", read)

    def filter(self, keep: Callable[[Task], bool]) -> TaskSet:
        """The tasks for which `keep` says yes."""
        return self._streamed(f"filter({getattr(keep, '__name__', '...')})", lambda: filter(keep, iter(self)))

    def map(self, fn: Callable[[Task], Task]) -> TaskSet:
        """The tasks as `fn` changes them, each when it is asked for: what `fn` makes is not remembered."""
        at, name = self._at, f"map({getattr(fn, '__name__', '...')})"
        if at is None:
            made = self._streamed(name, lambda: map(fn, iter(self)))
        else:
            made = self._indexed(name, lambda i: fn(at(i)), self._length)
        made._mapped = (self, fn)
        return made

    def select(self, ids: Iterable[str]) -> TaskSet:
        """The tasks with these ids, in this order; an unknown id raises when it is reached."""
        wanted = tuple(ids)
        return self._indexed(f"select({len(wanted)} ids)", lambda i: self._by_id(wanted[i]), len(wanted))

    def _indexed(self, how: str, at: Callable[[int], Task], length: int | None) -> TaskSet:
        name = f"{self.name}.{how}"
        return TaskSet(at=at, length=length, name=name, skipped=self._skipped, infinite=length is None)

    def _streamed(self, how: str, read: Callable[[], Iterator[Task]], infinite: bool | None = None) -> TaskSet:
        endless = self.infinite if infinite is None else infinite
        return TaskSet(read, name=f"{self.name}.{how}", skipped=self._skipped, infinite=endless)

    def __repr__(self) -> str:
        return f"<TaskSet {self.name}>"


def load_tasks(source: Any, **options: Any) -> TaskSet:
    """A task set of whatever `source` is.

    Args:
        source: a `TaskSet`; a path to .jsonl, .ndjson, .json, .csv, .tsv, .parquet or to a folder of `datasets`; a
            `datasets.Dataset`; a list of tasks or of rows; a function that yields rows.
        **options: `to_task`, `columns`, `keep`, `on_error`, as in `TaskSet.from_rows`.

    Raises:
        UnknownNameError: no such file, or a kind of file that is not known.
        UsageError: nothing that tasks can be read from.
    """
    if isinstance(source, TaskSet):
        return source
    if isinstance(source, (str, Path)):
        return _load_path(existing(source), options)
    if hasattr(source, "column_names"):
        return TaskSet.from_hf(source, **options)
    if not isinstance(source, Iterable):
        if callable(source):
            return TaskSet.from_rows(cast(Callable[[], Iterable[Any]], source), **options)
        raise UsageError(f"tasks cannot be read from {type(source).__name__}; give a path, a data set or a list")
    rows = list(source)
    if all(isinstance(row, Task) for row in rows):
        return TaskSet.of(rows)
    return TaskSet.from_rows(lambda: rows, **options)


def _load_path(path: Path, options: dict[str, Any]) -> TaskSet:
    if path.is_dir():
        return TaskSet.from_hf(path, **options)
    lines, csv = TaskSet.from_jsonl, TaskSet.from_csv
    kinds: dict[str, Callable[..., TaskSet]] = {".jsonl": lines, ".ndjson": lines, ".csv": csv, ".tsv": csv}
    kinds |= {".json": TaskSet.from_json, ".parquet": TaskSet.from_parquet}
    if path.suffix.lower() not in kinds:
        raise UnknownNameError("kind of task file", path.suffix, kinds)
    return kinds[path.suffix.lower()](path, **options)


def _natural(what: str, n: int) -> None:
    if n < 0:
        raise UsageError(f"{what} wants a number of tasks of 0 or more, not {n}")
