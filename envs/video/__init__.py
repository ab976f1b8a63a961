"""The video environment: a question about a short moment of a long video, which must be found and looked at.

env = agentenv.make("video", difficulty=3)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from agentenv.env import Env
from agentenv.envs.rewards import JudgeModel
from agentenv.envs.rewards.spans import spans_seen, window_iou
from agentenv.envs.video.answers import accuracy
from agentenv.envs.video.source import FILMS, video_tasks
from agentenv.envs.video.toolbox import Clips, clip_steps, video_tools
from agentenv.envs.video.view import FirstView, episode_media, shown
from agentenv.reward import Component, Rubric
from agentenv.spec import Limits, Texts, settings
from agentenv.task import OnError, TaskSet
from agentenv.tools.video import Backend, decode_pool
from agentenv.types import Task

SYSTEM = (
    "You answer questions about videos. You are shown a few frames of each video; short moments between them can only"
    " be seen by looking closer with the tools. Look before you answer, and do not guess. The answer is only what is"
    " asked for: a word, a code or a number as it is shown, the letter of the right option, or a span [start, end] in"
    " seconds."
)


def video(
    *,
    source: str | TaskSet = FILMS,
    difficulty: int | None = None,
    kinds: Iterable[str] | None = None,
    split: str = "train",
    cache: str | None = "",
    videos: str | None = None,
    columns: Mapping[str, str] | None = None,
    on_error: OnError = "raise",
    tools: Iterable[str] = ("video_clip",),
    first_view: FirstView | Mapping[str, Any] | None = None,
    clips: Clips = None,
    frame: str = "relative_1000",
    backend: Backend = "pyav",
    dialect: str = "hermes",
    dialect_options: Mapping[str, Any] | None = None,
    judge: JudgeModel = None,
    limits: Limits | Mapping[str, Any] | None = None,
    texts: Texts | Mapping[str, Any] | None = None,
    system: str = SYSTEM,
    seed: int = 0,
    render_mode: str | None = None,
) -> Env:
    """Make the video environment.

    Args:
        source: where the tasks come from: "films" (an endless generator), "videosiah:FILE", "charades:FILE",
            "videomme:PATH", "lvbench:PATH", "longvideoreason:FILE", or a JSONL, JSON, TSV, CSV or Parquet file with a
            column map; or a `TaskSet` whose prompts hold videos.
        difficulty: of "films", 1 (two minutes, three scenes) to 5 (an hour, twelve scenes, many distractors).
        kinds: of "films", which kinds of question; all by default.
        split: of "films", "train" or "test".
        cache: of "films", the folder that keeps encoded files for the next time; "" for `agentenv/films` in the user's
            cache folder, None for none.
        videos: of a data set or file, the folder of its videos; by default it is looked for beside the file.
        columns: of a file: field -> column, with fields out of question, answer, video, videos, options, id, spans.
        on_error: "raise" stops at a malformed row of a data set, naming its file and line; "skip" goes on and lists
            it in `env.tasks.skipped`.
        tools: which tools the policy has, of video_clip, video_frames, video_zoom and video_info.
        first_view: what the policy is shown first (see `view.FirstView`): 16 frames with their times by default.
        clips: what clips look like (see `agentenv.tools.video.ClipSettings`).
        frame: the coordinate frame of the boxes of video_zoom.
        backend: who decodes: "pyav", or "decord" or "torchcodec" (see `tools/README.md` for what they get wrong).
        dialect: how calls and results are written.
        dialect_options: options of the dialect.
        judge: a model that judges answers which the rules do not find right; none by default.
        limits: budgets of the episode; 10 turns and a forced answer by default.
        texts: what the environment says outside tool results.
        system: the system prompt, before the dialect's instructions.
        seed: of the generator, and of the tasks that `reset` draws.
        render_mode: "ansi" or None.

    Rewarded is `accuracy`: 1 or 0, or the temporal IoU of an answered span. Recorded beside it are `spans_seen` (the
    share of the evidence spans of which a frame was shown) and `best_iou` (how well windows fit them).

    Raises:
        UnknownNameError: a name that does not exist; the nearest is named.
        UsageError: an option that makes no sense, or not for this source.
        MissingExtraError: while tasks are read, the extra `video` is not installed.
    """
    named = list(tools)
    pool = decode_pool(backend)
    made = video_tools(named, clips, frame, pool)
    view = settings(FirstView, first_view, FirstView())
    tasks = video_tasks(
        source,
        seed=seed,
        difficulty=difficulty,
        kinds=kinds,
        split=split,
        views=(view,),
        cache=cache,
        videos=videos,
        columns=columns,
        on_error=on_error,
    )

    def ask(task: Task) -> Task:
        if "video_clip" not in named or not task.evidence.get("spans") or "steps" in task.evidence:
            return task
        return replace(task, evidence={**task.evidence, "steps": clip_steps(task)})

    return Env(
        id="video",
        tasks=shown(tasks.map(ask), view, pool=pool),
        tools=made,
        dialect=dialect,
        dialect_options=dialect_options,
        system=system,
        limits=settings(Limits, limits, Limits(turns=10, on_turns="force")),
        texts=settings(Texts, texts, Texts()),
        rubric=Rubric(
            Component("accuracy", accuracy(judge)),
            Component("spans_seen", spans_seen, weight=0.0),
            Component("best_iou", window_iou("best"), weight=0.0),
        ),
        bind=lambda task: {"media": episode_media(task)},
        frame=frame,
        seed=seed,
        render_mode=render_mode,
    )
