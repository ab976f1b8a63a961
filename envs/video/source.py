"""Where video tasks come from: films made from a seed, local copies of data sets, files with a column map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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
    columns: Mapping[str, str] | None = None,
    on_error: OnError = "raise",
) -> TaskSet:
    """Tasks whose prompt is a video and a question, not yet as they are asked: see `view.shown`.

    Args:
        source: "films" (an endless generator) or a `TaskSet` whose prompts hold videos.
        seed: of "films".
        difficulty: of "films", 1 (two minutes) to 5 (an hour); None mixes them.
        kinds: of "films", which kinds of question; all by default.
        split: of "films", "train" or "test".
        views: of "films", the first views that a policy may be shown, from which the answer is hidden.
        cache: of "films", the folder that keeps them; "" for the usual one (`kept.default_cache`), None for none.
        columns: of a file.
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
    raise UnknownNameError("source of video tasks", source, (FILMS,))
