"""Gathers calls that come in at once, and works on them in one thread: batch by batch, or joining those that run."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from msgspec import Struct

from agentenv.errors import PolicyError


class Job(Struct, frozen=True):
    """A turn to sample: the prompt's token ids, a seed, strings at which to stop, and tensors beside the ids.

    Those that end in "token_type_ids" have the shape (1, tokens of the prompt); the others have what belongs to the
    prompt's images along their first axis, such as `pixel_values` and `image_grid_thw`. `media` names what they were
    made of: jobs with the same prompt and media have the same tensors.
    """

    prompt: list[int]
    seed: int
    stop: tuple[str, ...] = ()
    tensors: dict[str, Any] | None = None
    media: tuple[Hashable, ...] = ()


class Row(Struct, frozen=True):
    """A sampled turn: its text, token ids (the closing one included), log-probabilities and why it ended."""

    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: str


_Waiting = tuple[Job, "Future[Row]"]


class Worker(ABC):
    """A thread that works on jobs, at most `size` at once.

    Args:
        size: most jobs at once.
        wait: seconds to wait for more jobs after the first.

    The thread starts with the first job and ends with `close`, after which a further job starts another one.
    """

    def __init__(self, size: int, wait: float) -> None:
        self._size, self._wait = size, wait
        self._jobs: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    async def run(self, job: Job) -> Row:
        """The job's result. A job that is cancelled before its work begins is not run.

        Raises:
            PolicyError: the work failed.
        """
        future: Future[Row] = Future()
        self._jobs.put((job, future))
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="agentenv-model", daemon=True)
                self._thread.start()
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Finish what is queued and end the thread. Blocks until then."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            thread.join()

    @abstractmethod
    def _serve(self) -> None:
        """Work until there is None among the jobs, and what came before it is done."""

    def _gather(self, most: int, wait: float) -> tuple[list[_Waiting], bool]:
        """At most so many jobs that come in within `wait` seconds, and whether they were the last."""
        batch: list[_Waiting] = []
        ends = time.monotonic() + wait
        while len(batch) < most:
            try:
                job = self._jobs.get(timeout=max(0.0, ends - time.monotonic()))
            except queue.Empty:
                return batch, False
            if job is None:
                return batch, True
            batch.append(job)
        return batch, False

    def _begin(self) -> tuple[list[_Waiting], bool]:
        """The next jobs, however long it takes until there is one, and whether they were the last."""
        first = self._jobs.get()
        if first is None:
            return [], True
        more, ended = self._gather(self._size - 1, self._wait)
        return [first, *more], ended


class Batcher(Worker):
    """Runs jobs in batches, one after the other.

    Args:
        work: samples a batch; called in the worker thread only.
        size: most jobs in a batch.
        wait: seconds to wait for more jobs after the first.
    """

    def __init__(self, work: Callable[[Sequence[Job]], Sequence[Row]], size: int, wait: float) -> None:
        super().__init__(size, wait)
        self._work = work

    def _serve(self) -> None:
        ended = False
        while not ended:
            batch, ended = self._begin()
            self._finish(batch)

    def _finish(self, batch: list[_Waiting]) -> None:
        wanted = [(job, future) for job, future in batch if future.set_running_or_notify_cancel()]
        if not wanted:
            return
        try:
            rows = self._work([job for job, _ in wanted])
        except Exception as error:  # whatever a model raises is this batch's failure, not the thread's end
            for _, future in wanted:
                future.set_exception(_failure(error))
            return
        for (_, future), row in zip(wanted, rows, strict=True):
            future.set_result(row)


class Stepper(Protocol):
    """What samples turns a token at a time; each is known by the number that `join` gave it."""

    def join(self, jobs: Sequence[Job]) -> list[int]:
        """Take in more turns, whose prompts are computed now. Where it raises, none of them is in."""
        ...

    def step(self) -> list[tuple[int, Row]]:
        """Sample one more token of each turn; those that have ended with it are given, and gone."""
        ...

    def drop(self, numbers: Sequence[int]) -> None:
        """Let go of turns."""
        ...


class Joiner(Worker):
    """Runs jobs as they come: a job joins those that run already between two of their tokens.

    Args:
        stepper: samples; called in the worker thread only.
        size: most jobs at once.
        wait: seconds to wait for more jobs after the first, where none runs.

    A job that is cancelled is dropped before the next token.
    """

    def __init__(self, stepper: Stepper, size: int, wait: float) -> None:
        super().__init__(size, wait)
        self._stepper = stepper
        self._running: dict[int, Future[Row]] = {}

    def _serve(self) -> None:
        ended = False
        while self._running or not ended:
            batch: list[_Waiting] = []
            if not self._running:
                batch, ended = self._begin()
            elif not ended:
                batch, ended = self._gather(self._size - len(self._running), 0.0)
            self._take_in(batch)
            self._advance()

    def _take_in(self, batch: list[_Waiting]) -> None:
        wanted = [(job, future) for job, future in batch if not future.cancelled()]
        if not wanted:
            return
        try:
            numbers = self._stepper.join([job for job, _ in wanted])
        except Exception as error:  # those that run already go on
            for _, future in wanted:
                _settle(future, error)
            return
        self._running |= zip(numbers, (future for _, future in wanted), strict=True)

    def _advance(self) -> None:
        called_off = [number for number, future in self._running.items() if future.cancelled()]
        try:
            self._let_go(called_off)
            for number, row in self._stepper.step() if self._running else ():
                _settle(self._running.pop(number), row)
        except Exception as error:
            running, self._running = self._running, {}
            self._stepper.drop(list(running))
            for future in running.values():
                _settle(future, error)

    def _let_go(self, numbers: list[int]) -> None:
        for number in numbers:
            del self._running[number]
        if numbers:
            self._stepper.drop(numbers)


def _settle(future: Future[Row], found: Row | Exception) -> None:
    """Give the result to whoever still waits for it."""
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(found, Row):
        future.set_result(found)
    else:
        future.set_exception(_failure(found))


def _failure(error: Exception) -> PolicyError:
    return PolicyError(f"the local model failed: {type(error).__name__}: {error}")
