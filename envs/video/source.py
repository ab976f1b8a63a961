"""Where video tasks come from: films made from a seed, local copies of data sets, files with a column map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from agentenv.envs.video.datasets import DATASETS, from_columns
from agentenv.envs.video.tasks import film_tasks
from agentenv.envs.video.view import FirstView
from agentenv.errors import UnknownNameError, UsageError
from agentenv.task import OnError, TaskSet

FILMS = "films"


def video_tasks(
    source: str | TaskSet = FILMS,
    *,
    seed: int = 0,
    difficulty: int | None = None,
    kinds: Iterable[str] | None = None,
    split: str = "train",
    views: Sequence[FirstView] = (FirstView(),),
    cache: str | None = "",
    videos: str | None = None,
    columns: Mapping[str, str] | None = None,
    on_error: OnError = "raise",
) -> TaskSet:
    """Tasks whose prompt is a video and a question, not yet as they are asked: see `view.shown`.

    Args:
        source: "films" (an endless generator); a data set, "videosiah:FILE", "charades:FILE", "videomme:PATH",
            "lvbench:PATH" or "longvideoreason:FILE" (see `datasets`); a JSONL, JSON, TSV, CSV or Parquet file with a
            column map; or a `TaskSet` whose prompts hold videos.
        seed: of "films".
        difficulty: of "films", 1 (two minutes) to 5 (an hour); None mixes them.
        kinds: of "films", which kinds of question; all by default.
        split: of "films", "train" or "test".
        views: of "films", the first views that a policy may be shown, from which the answer is hidden.
        cache: of "films", the folder that keeps them; "" for the usual one (`kept.default_cache`), None for none.
        videos: of a data set or file, the folder of its videos; by default it is looked for beside the file.
        columns: of a file: field -> column, with fields out of question, answer, video, videos, options, id, spans.
        on_error: "raise" or "skip" malformed rows of a data set.

    Raises:
        UnknownNameError: there is no such source.
        UsageError: an option that makes no sense for this source.
    """
    if source == FILMS:
        return film_tasks(seed, difficulty, kinds, None, split, views, cache)  # type: ignore[arg-type]  # checked there
    given: dict[str, Any] = {"difficulty": difficulty, "kinds": kinds, "cache": cache or None}
    named = [name for name, value in given.items() if value is not None]
    if split != "train":
        named.append("split")
    if named:
        raise UsageError(f"{named[0]} is an option of source='films', not of {source!r:.80}")
    if isinstance(source, TaskSet):
        return source
    name, colon, path = source.partition(":")
    if colon and name in DATASETS:
        read = DATASETS[name]
        options = {"columns": columns} if "columns" in signature(read).parameters else {}
        return read(path, videos=videos, on_error=on_error, **options)
    if not Path(source).exists() and "." not in source:
        raise UnknownNameError("source of video tasks", source, (FILMS, *(f"{known}:PATH" for known in DATASETS)))
    return from_columns(source, columns, videos=videos, on_error=on_error)
