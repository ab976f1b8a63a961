"""Rows of video data sets: their videos, moments and options, and the tasks that are made of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from agentenv.envs.rewards.spans import answered_windows
from agentenv.envs.video.files import find_video, load, pending, videos_in
from agentenv.envs.zoom.rows import as_letter, read_set
from agentenv.errors import DataError
from agentenv.task import NumberedRows, OnError, TaskSet, existing
from agentenv.types import Task, Text

_MARK = re.compile(r"<(?:video|image)>\s*")
_OPTION = re.compile(r"\(?([A-Z])[.):]\s*(.*)")


class Reader:
    """Makes tasks of rows of one file, finding their videos."""

    def __init__(self, file: Path, folder: str | Path | None, on_error: OnError) -> None:
        self.file = file
        self.on_error: OnError = on_error
        self.folder = None if folder is None else existing(folder)

    def read(
        self, to_task: Callable[[dict[str, Any]], Task], rows: Callable[[], NumberedRows] | None = None
    ) -> TaskSet:
        """The tasks of the file, whose rows are read as its ending says, or by `rows`."""
        if rows is None:
            return read_set(self.file, to_task, self.on_error).map(load)
        options: dict[str, Any] = {"on_error": self.on_error, "file": str(self.file), "name": self.file.stem}
        return TaskSet.from_numbered(rows, to_task, **options).map(load)

    def task(
        self,
        id: str,
        video: object,
        question: str,
        answer: Any,
        options: Sequence[str] = (),
        spans: Sequence[Sequence[float]] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> Task:
        """A task of what a row holds; `video` is a path or several."""
        files = [find_video(name, self.file.parent, self.folder) for name in videos_in(video)]
        parts = tuple(pending(file, self.on_error == "skip") for file in files)
        letters = zip(ascii_uppercase, options, strict=False)
        lines = [_MARK.sub("", question).strip(), *(f"{letter}. {option}" for letter, option in letters)]
        kind = "choice" if options else "span" if isinstance(answer, list) else "text"
        kept = {"answer_type": kind, "options": list(options), **(metadata or {})}
        evidence = {"video": "video_1", "spans": [list(span) for span in spans]} if spans else {}
        return Task(id, (*parts, Text("\n".join(lines))), answer, evidence, metadata=kept)


def as_span(value: Any) -> list[float]:
    """A moment: [start, end] in seconds, or text that says so.

    Raises:
        DataError: it is neither, or its end is not after its start.
    """
    if isinstance(value, str):
        windows = answered_windows(value)
        value = list(windows[0]) if len(windows) == 1 else value
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise DataError(f"a moment must be [start, end] in seconds, not {value!r:.60}")
    start, end = float(value[0]), float(value[1])
    if not 0 <= start < end < float("inf"):
        raise DataError(f"a moment must end after its start, not {value!r:.60}")
    return [start, end]


def as_spans(value: Any) -> list[list[float]]:
    """Several moments, or one, or none; also as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = json.loads(value)
    if value is None or (not isinstance(value, str) and len(value) == 0):
        return []
    return [as_span(one) for one in value] if isinstance(value[0], (list, tuple)) else [as_span(value)]


def split_options(text: str) -> tuple[str, list[str]]:
    """A question and the options that stand in it as lines "A. ..." or "(A) ..."; no options where it has none."""
    lines = text.strip().split("\n")
    for first in range(len(lines)):
        found = [_OPTION.fullmatch(line.strip()) for line in lines[first:] if line.strip()]
        letters = "".join(match[1] if match else "?" for match in found)
        if len(found) > 1 and letters == ascii_uppercase[: len(found)]:
            return "\n".join(lines[:first]).strip(), [match[2].strip() for match in found if match]
    return text.strip(), []


def bare_options(options: Sequence[Any]) -> list[str]:
    """Options without the letters that some data sets write before them."""
    texts = [str(option).strip() for option in options]
    found = [_OPTION.fullmatch(text) for text in texts]
    if "".join(match[1] if match else "?" for match in found) == ascii_uppercase[: len(found)]:
        return [match[2].strip() for match in found if match]
    return texts


def letter_of(value: Any, options: Sequence[str]) -> str:
    """The letter of an answer that is a letter, an option's text, or both ("B. a boat").

    Raises:
        DataError: it is none of them.
    """
    match = _OPTION.fullmatch(str(value).strip())
    return as_letter(match[1] if match else value, options)
