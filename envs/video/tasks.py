"""Questions about moments of long videos, generated from a seed: the frames of the first view do not hold the answer.

    film_tasks(seed=0, difficulty=3).take(100)

A film is a real H.264 file of scenes in which things show for a moment: cards with codes and words, lamps that light,
doors that change colour. None of them shows while the first view looks; where a scene is, it does tell. The same seed
and index give the same task in every process. A film is encoded when its task is asked for, in two seconds for an
hour, and kept for the next time.

Difficulty:

| level | film | scenes | a thing shows | other things |
| --- | --- | --- | --- | --- |
| 1 | 2 minutes | 3 | 4 s | 2 |
| 2 | 5 minutes | 4 | 3.5 s | 4 |
| 3 | 15 minutes | 6 | 3 s | 8 |
| 4 | 30 minutes | 9 | 2.5 s | 14 |
| 5 | 60 minutes | 12 | 2 s | 24 |

All films have 640 x 360 pixels, 5 frames a second and a keyframe every 4 seconds or earlier; an hour is some 8 MB.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from agentenv.envs._options import check_drawing, chosen_kinds
from agentenv.envs.video.film import FPS, Film
from agentenv.envs.video.kept import default_cache, film_video
from agentenv.envs.video.kinds import KINDS, Ask, Asked, seconds, stray
from agentenv.envs.video.plan import LEVELS, Level, NoRoom, Script
from agentenv.envs.video.view import FirstView
from agentenv.envs.zoom.vocabulary import COLOURS, Split, code
from agentenv.errors import UsageError
from agentenv.task import TaskSet
from agentenv.types import Task, Text

_VERSION = 1
_TRIES = 20


class Plan(msgspec.Struct, frozen=True):
    """The settings of a generator; part of every seed."""

    seed: int = 0
    split: str = "train"
    levels: tuple[int, ...] = tuple(LEVELS)
    kinds: tuple[str, ...] = tuple(KINDS)
    views: tuple[FirstView, ...] = (FirstView(),)

    @property
    def prefix(self) -> str:
        level = f"-d{self.levels[0]}" if len(self.levels) == 1 else ""
        narrow = "-" + "+".join(self.kinds) if self.kinds != tuple(KINDS) else ""
        views = "" if self.views == (FirstView(),) else f"-v{_digest(self.views)[:8]}"
        return f"film-{self.split}{level}{narrow}{views}-s{self.seed}"


def film_tasks(
    seed: int = 0,
    difficulty: int | None = None,
    kinds: Iterable[str] | None = None,
    length: int | None = None,
    split: Split = "train",
    views: Sequence[FirstView] = (FirstView(),),
    cache: str | os.PathLike[str] | None = "",
) -> TaskSet:
    """A seeded set of questions about moments of videos.

    Args:
        seed: another seed, another sequence of tasks.
        difficulty: 1 to 5, see the table above; None mixes all of them evenly.
        kinds: which kinds of question, out of `kinds.KINDS`; all of them by default.
        length: how many tasks; None for no end.
        split: "train" or "test". The word or code that decides a task never occurs as such in both.
        views: the first views that a policy may be shown; what is asked about is hidden from all of them.
        cache: a folder in which films are kept for the next time; "" for `default_cache()`, if that
            can be written; None for none.

    Returns:
        Tasks whose prompt is the film (a `Video`) and the question; `answer` a string, or [start, end] in seconds;
        `evidence` the `spans` to look at, [start, end] in seconds; `metadata` kind, difficulty, answer_type, split.

    Raises:
        UnknownNameError: a kind or split that does not exist.
        UsageError: a difficulty out of range; while reading, a first view from which nothing can be hidden.
        MissingExtraError: while reading, PyAV or Pillow is not installed.
    """
    check_drawing(split, difficulty, LEVELS)
    levels = tuple(LEVELS) if difficulty is None else (difficulty,)
    plan = Plan(seed, split, levels, chosen_kinds(kinds, KINDS), tuple(views))
    folder = default_cache() if cache == "" else None if cache is None else Path(cache)
    return TaskSet.generate(lambda index: _task(plan, index, folder, cache != ""), length, name=plan.prefix)


def _digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()


def _task(plan: Plan, index: int, cache: Path | None, must: bool) -> Task:
    number, kind, film, asked = composed(plan, index)
    return Task(
        id=f"{plan.prefix}-{index}",
        prompt=(film_video(film, cache, must), Text(asked.text)),
        answer=asked.answer,
        evidence={"video": "video_1", "spans": seconds(asked.spans)},
        metadata={
            "kind": kind,
            "difficulty": number,
            "answer_type": asked.answer_type,
            "split": plan.split,
            "source": "films",
            **({"colours": list(COLOURS)} if asked.answer_type == "colour" else {}),
        },
        seed=plan.seed,
    )


def composed(plan: Plan, index: int) -> tuple[int, str, Film, Asked]:
    """Difficulty, kind, film and question of a task; nothing is drawn or encoded.

    Raises:
        UsageError: a first view from which nothing can be hidden.
    """
    rng = Random(_digest((f"agentenv/video/{_VERSION}", plan, index)))
    number, kind = rng.choice(plan.levels), rng.choice(plan.kinds)
    return number, kind, *_film(plan, rng, LEVELS[number], KINDS[kind])


def _film(plan: Plan, rng: Random, level: Level, ask: Ask) -> tuple[Film, Asked]:
    times = looks(plan.views, level)
    for _ in range(_TRIES):
        script = Script(rng, level, times, _posters(rng, level))
        try:
            asked = ask(script, plan.split)
        except NoRoom:
            continue
        for _ in range(level.strays):
            with suppress(NoRoom):  # they are not needed
                script.put(rng.choice(script.scenes), stray(script, asked))
        return Film(tuple(script.scenes), tuple(sorted(script.cues, key=lambda cue: cue.start))), asked
    raise UsageError(
        f"the first view leaves no room in a film of {level.seconds} seconds for what is asked; show fewer frames"
        " first, or choose a higher difficulty, whose films are longer"
    )


def looks(views: Sequence[FirstView], level: Level) -> list[float]:
    """The seconds at which any of these first views looks at a film of a level, in order."""
    frames = level.seconds * FPS
    return sorted({time for view in views for time in view.times(level.seconds, FPS, frames)})


def _posters(rng: Random, level: Level) -> list[str]:
    return [code(rng) if rng.random() < 0.4 else "" for _ in range(level.scenes)]
