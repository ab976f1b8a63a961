"""The zoom environment: a question about something small in a large picture, which must be looked at from close by.

env = agentenv.make("zoom", difficulty=3, frame="relative_1000")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from agentenv.env import Env
from agentenv.envs.rewards import best_iou, evidence_seen, judged
from agentenv.envs.zoom.answers import zoom_match
from agentenv.envs.zoom.datasets import DATASETS, from_columns
from agentenv.envs.zoom.tasks import zoom_tasks
from agentenv.envs.zoom.toolbox import Rules, Shown, as_shown, image_tools, zoom_steps
from agentenv.errors import UnknownNameError, UsageError
from agentenv.policy import Policy
from agentenv.reward import Component, Rubric
from agentenv.spec import Limits, Texts, settings
from agentenv.task import OnError, TaskSet
from agentenv.tools.image import Frame, Output
from agentenv.types import Task

SCENES = "scenes"
SYSTEM = (
    "You answer questions about pictures. You are shown a reduced view of each picture; small things can only be told"
    " by zooming into the original with the tools. Look before you answer, and do not guess. The answer is only what is"
    " asked for: a word, a code or a number as it stands there, yes or no, or the letter of the right option."
)


def zoom(
    *,
    source: str | TaskSet = SCENES,
    difficulty: int | None = None,
    kinds: Iterable[str] | None = None,
    split: str = "train",
    size: Sequence[int] | None = None,
    backdrop: str = "drawn",
    cache: str | None = None,
    columns: Mapping[str, str] | None = None,
    on_error: OnError = "raise",
    tools: Iterable[str] = ("image_zoom",),
    frame: str = "relative_1000",
    seen: str | None = None,
    outside: str = "clamp",
    first_view: int | None = 1024,
    crop: Rules = None,
    output: Shown = None,
    dialect: str = "hermes",
    dialect_options: Mapping[str, Any] | None = None,
    judge: Policy | None = None,
    limits: Limits | Mapping[str, Any] | None = None,
    texts: Texts | Mapping[str, Any] | None = None,
    system: str = SYSTEM,
    seed: int = 0,
    render_mode: str | None = None,
) -> Env:
    """Make the zoom environment.

    Args:
        source: where the tasks come from: "scenes" (an endless generator), "vstar:FOLDER", "hrbench:PATH",
            "visualprobe:PATH", "deepeyes:FILE", "geobench:FILE", or a JSONL, JSON, TSV, CSV or Parquet file with a
            column map; or a `TaskSet` whose prompts hold images.
        difficulty: of "scenes", 1 (the target stands out by its look) to 5 (tiny, faint, turned, among 110 things).
        kinds: of "scenes", which kinds of question; all by default.
        split: of "scenes", "train" or "test".
        size: of "scenes", width and height in pixels; by default the difficulty's, 4,352 to 5,120 px.
        backdrop: of "scenes", "drawn", "earth", "mixed", or a folder of photos.
        cache: of "scenes", a folder that keeps rendered scenes for the next time.
        columns: of a file: field -> column, with fields out of question, answer, image, images, options, id, boxes.
        on_error: "raise" stops at a malformed row of a data set, naming its file and line; "skip" goes on and lists
            it in `env.tasks.skipped`.
        tools: which tools the policy has, of image_zoom, image_rotate, image_grid, image_info and image_draw.
        frame: the coordinate frame of all boxes: "relative_1000", "relative_1", "pixels_shown" or "pixels_original".
        seen: with "pixels_shown", the model family whose processor resizes what the policy sees ("qwen2.5-vl" ...).
        outside: boxes that leave the image: "clamp" or "error".
        first_view: longer side in pixels of what the policy is shown first; None for the whole picture as it is.
        crop: what a box must be, and how it is widened (see `agentenv.tools.image.CropRules`).
        output: size and format of crops (see `agentenv.tools.image.Output`).
        dialect: how calls and results are written.
        dialect_options: options of the dialect.
        judge: a model that judges answers which the rules do not find right; none by default.
        limits: budgets of the episode; 8 turns, 12 images and a forced answer by default.
        texts: what the environment says outside tool results.
        system: the system prompt, before the dialect's instructions.
        seed: of the generator, and of the tasks that `reset` draws.
        render_mode: "ansi" or None.

    Rewarded is `accuracy`; recorded beside it are `evidence_seen` (the share of the evidence that some crop shows) and
    `best_iou` (how well crops fit it).

    Raises:
        UnknownNameError: a name that does not exist; the nearest is named.
        UsageError: an option that makes no sense, or not for this source.
        MissingExtraError: the extra `image` is not installed.
    """
    place = Frame.of(frame, policy=outside, seen=seen)
    named = list(tools)
    tasks = _tasks(
        source,
        columns,
        on_error,
        seed,
        {"difficulty": difficulty, "kinds": kinds, "size": size, "cache": cache},
        {"split": split, "backdrop": backdrop, "first_view": first_view or 1024},
    )
    view = None if first_view is None else Output(max_side=first_view, max_pixels=first_view**2)

    def ask(task: Task) -> Task:
        steps = (lambda ready, target: zoom_steps(ready, target, place)) if "image_zoom" in named else None
        return as_shown(task, view, steps)

    return Env(
        id="zoom",
        tasks=tasks.map(ask),
        tools=image_tools(named, place, crop, output),
        dialect=dialect,
        dialect_options=dialect_options,
        system=system,
        limits=settings(Limits, limits, Limits(turns=8, images=12, on_turns="force")),
        texts=settings(Texts, texts, Texts()),
        rubric=Rubric(
            Component("accuracy", judged(judge, rule=zoom_match, first_rule=True)),
            Component("evidence_seen", evidence_seen(), weight=0.0),
            Component("best_iou", best_iou, weight=0.0),
        ),
        frame=frame,
        seed=seed,
        render_mode=render_mode,
    )


def _tasks(
    source: str | TaskSet,
    columns: Mapping[str, str] | None,
    on_error: OnError,
    seed: int,
    scenes: dict[str, Any],
    settled: dict[str, Any],
) -> TaskSet:
    if source == SCENES:
        return zoom_tasks(seed, **scenes, **settled)
    given = [name for name, value in scenes.items() if value is not None]
    given += [name for name, usual in (("split", "train"), ("backdrop", "drawn")) if settled[name] != usual]
    if given:
        raise UsageError(f"{given[0]} is an option of source='scenes', not of {source!r:.80}")
    if isinstance(source, TaskSet):
        return source
    name, colon, path = source.partition(":")
    if colon and name in DATASETS:
        read = DATASETS[name]
        options = {"columns": columns} if "columns" in signature(read).parameters else {}
        return read(path, on_error=on_error, **options)
    if not Path(source).exists() and "." not in source:
        raise UnknownNameError("source of zoom tasks", source, (SCENES, *(f"{known}:PATH" for known in DATASETS)))
    return from_columns(source, columns, on_error=on_error)
