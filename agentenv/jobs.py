"""What a run plays: which tasks of a set, and which attempts at them are left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from agentenv.errors import UsageError
from agentenv.task import TaskSet, distinct
from agentenv.types import Task

Job = tuple[Task, int]
"""A task and which attempt at it this is."""


def chosen_tasks(tasks: TaskSet, wanted: int | Iterable[Task] | None) -> Sequence[Task]:
    """The tasks that are to be played: the first so many, or those given.

    Raises:
        UsageError: a negative number, or all of an endless set.
    """
    if isinstance(wanted, int):
        if wanted < 0:
            raise UsageError(f"tasks must be 0 or more, not {wanted}")
        return _FirstTasks(tasks, wanted if tasks.infinite else min(wanted, len(tasks)))
    if wanted is not None:
        return list(distinct(wanted))
    if tasks.infinite:
        raise UsageError(
            "the environment's tasks are endless: say how many to play, for instance tasks=100 (--tasks 100)"
        )
    return _FirstTasks(tasks, len(tasks))


class _FirstTasks(Sequence[Task]):
    """The first tasks of a set, made when they are asked for."""

    def __init__(self, tasks: TaskSet, size: int) -> None:
        self._tasks, self._size = tasks, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: Any) -> Any:
        return self._tasks[index]

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks.take(self._size))


def jobs_left(tasks: Iterable[Task], group: int, done: set[tuple[str, int]], *, whole: bool) -> Iterator[Job]:
    """What is left to play. With `whole`, a group that is not complete is played again from its first attempt."""
    for task in distinct(tasks):
        missing = [i for i in range(group) if (task.id, i) not in done]
        for sample in range(group) if whole and missing else missing:
            yield task, sample
