"""Scenes of things, sized so that a first view hides their texts, and the steps of an expert who looks and searches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from msgspec import Struct

from agentenv.envs.corpus import atlas
from agentenv.envs.corpus.emblems import bearers
from agentenv.envs.corpus.places import Town
from agentenv.envs.search.tasks import search_steps
from agentenv.envs.sights.things import EMBLEM_EM
from agentenv.envs.zoom.backdrop import DRAWN
from agentenv.envs.zoom.items import Item
from agentenv.envs.zoom.kinds import Asked as Strays
from agentenv.envs.zoom.kinds import stray
from agentenv.envs.zoom.rendered import scene_image
from agentenv.envs.zoom.scene import Scene, place
from agentenv.envs.zoom.toolbox import zoom_steps
from agentenv.envs.zoom.vocabulary import Split, side
from agentenv.tools.image import Frame, view_of
from agentenv.tools.search import Corpus
from agentenv.types import Image, Task

_ASPECTS = ((16, 9), (3, 2), (4, 3))
_SIDE = 4.25
FIRST_VIEW = 640
_LOOK = "What hangs here can be searched for with its picture."


class Level(Struct, frozen=True):
    """The dials of a difficulty: size of the text in the first view, other things and other emblems, contrast."""

    em: float
    clutter: int
    others: int
    contrast: float


LEVELS: dict[int, Level] = {
    1: Level(3.4, 6, 0, 1.0),
    2: Level(3.3, 12, 3, 0.95),
    3: Level(3.2, 18, 5, 0.9),
    4: Level(3.1, 26, 7, 0.85),
    5: Level(3.0, 36, 10, 0.8),
}


class Staged(Struct, frozen=True):
    """A rendered scene: its picture, and the place of each thing that the question needs, in pixels."""

    image: Image
    em: float
    backdrop: str
    boxes: tuple[tuple[int, int, int, int], ...]


def stage(
    needed: Sequence[Item], others: Sequence[Item], number: int, first_view: int, cache: Path | None, seed: str
) -> Staged:
    """Place things in a scene and render it.

    Args:
        needed: what the question needs; comes first in `boxes`.
        others: further things that mislead.
        number: of the difficulty.
        first_view: longer side of what the policy is shown first, in pixels.
        cache: a folder that keeps rendered scenes.
        seed: decides everything.
    """
    rng, level = Random(seed), LEVELS[number]
    wide, high = rng.choice(_ASPECTS)
    unit = _SIDE * first_view / max(wide, high)
    size = round(wide * unit), round(high * unit)
    em = level.em * max(size) / first_view
    taken = Strays("", "", "", tuple(needed), tuple(others))
    strays = [stray(rng, taken) for _ in range(level.clutter)]
    placed = place([*needed, *others], strays, size, em, 0.0, rng)
    scene = Scene(size, em, level.contrast, rng.choice(DRAWN), 3 * number, seed, tuple(placed))
    return Staged(scene_image(scene, cache), em, scene.backdrop, tuple(thing.box for thing in placed[: len(needed)]))


def emblem_box(box: Sequence[int], thing: Item, em: float) -> list[int]:
    """The part of a plaque's place that is its emblem."""
    left, top, right, _ = box
    middle = (left + right) / 2
    half = EMBLEM_EM * em / 2
    above = top + max(0.0, (box[3] - top - thing.size[1] * em) / 2)
    return [math.floor(middle - half), math.floor(above), math.ceil(middle + half), math.ceil(above + 2 * half)]


def towns_of(split: Split, fit: Callable[[Town], bool] = lambda town: True) -> tuple[Town, ...]:
    """The towns with an emblem that belong to a split."""
    return tuple(town for town in bearers() if side(f"emblem/{town.id}") == split and fit(town))


def country_of(town: Town) -> str:
    """Name of a town's country."""
    return atlas().countries[town.country].name


def look_and_search(
    task: Task,
    image: Image,
    frame: Frame,
    corpus: Corpus | None,
    shown: int | None,
    *,
    zoom: str = "image_zoom",
    image_search: str = "image_search",
    fetch: str = "web_fetch",
) -> list[dict[str, Any]]:
    """What an expert does: zoom to the signs, search with each emblem or picture, then search the texts.

    Args:
        task: its evidence holds `boxes` to zoom to, `emblems` (boxes to search with) and `hops`.
        image: the picture as the policy is shown it.
        frame: the frame in which boxes are written.
        corpus: holds the documents; None where texts are not searched.
        shown: characters of a document that a search shows.
        zoom: name of the zoom tool, "" where there is none.
        image_search: name of the tool that searches by picture, "" where there is none.
        fetch: name of the tool that opens pages, "" where there is none.
    """
    steps = zoom_steps(task, image, frame, tool=zoom) if zoom else []
    view, size, handle = view_of(image), (image.width, image.height), task.evidence.get("image", "image_1")
    for box in task.evidence.get("emblems") or () if image_search else ():
        left, top, right, bottom = box
        room = 0.06 * (right - left)
        wide = (max(0, left - room), max(0, top - room), min(view.size[0], right + room), min(view.size[1], bottom))
        numbers = frame.written(tuple(map(round, wide)), view, size)
        steps.append({"tool": image_search, "arguments": {"image": handle, "bbox_2d": numbers}, "thought": _LOOK})
    return steps + (search_steps(task, corpus, shown=shown, fetch=fetch) if corpus is not None else [])
