"""When things show: never while the first view looks, and one after the other within a scene."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from random import Random

from msgspec import Struct

from agentenv.envs.video.film import FPS, Cue, Scene, Thing
from agentenv.envs.zoom.vocabulary import COLOURS
from agentenv.errors import UsageError

MARGIN = 0.25  # seconds between a moment of the first view and what it must not show
LEAST = 0.8  # seconds that something shows at least
_APART = 4  # frames between two things of a scene
_EDGE = 5  # frames at the start and the end of a scene in which nothing else shows
_TRIES = 400

_PLACES = """
    AIRPORT ATTIC BALCONY BARBER CANTEEN CHAPEL CLINIC COURTYARD DEPOT GARAGE GYM KITCHEN LABORATORY LAUNDRY LOBBY
    NURSERY OFFICE PIER STUDIO THEATRE TOWNHALL WAREHOUSE WINERY WORKSHOP
"""
PLACES = tuple(_PLACES.split())
"""Names of scenes. None of them is a word that cards bear."""


class Level(Struct, frozen=True):
    """The dials of a difficulty.

    Args:
        seconds: how long the film is.
        scenes: how many it has.
        shown: seconds that a thing shows.
        strays: things beside those that the question needs.
    """

    seconds: int
    scenes: int
    shown: float
    strays: int


LEVELS = {
    1: Level(120, 3, 4.0, 2),
    2: Level(300, 4, 3.5, 4),
    3: Level(900, 6, 3.0, 8),
    4: Level(1800, 9, 2.5, 14),
    5: Level(3600, 12, 2.0, 24),
}


class NoRoom(Exception):
    """What a question needs does not fit into the film as it was begun; another try may do."""


class Script:
    """A film in the making: its scenes, and the cues placed so far.

    Args:
        rng: decides.
        level: the dials.
        looks: seconds at which the first view looks, in order.
        posters: a text for the poster of each scene; "" for none.

    Raises:
        UsageError: the first view looks so often that nothing can be hidden from it.
    """

    def __init__(self, rng: Random, level: Level, looks: Sequence[float], posters: Sequence[str]) -> None:
        self.rng, self.level, self.looks = rng, level, looks
        self.shown = round(_shown(level, looks) * FPS)
        self.scenes = _scenes(rng, level, posters)
        self.cues: list[Cue] = []

    def put(self, scene: Scene, thing: Thing, frames: int = 0, after: int = 0) -> Cue:
        """Let a thing show in a scene, at any time from frame `after` on.

        Raises:
            NoRoom: there is none left.
        """
        length = frames or self.shown
        low, high = max(scene.start + _EDGE, after), scene.end - _EDGE - length
        for _ in range(_TRIES):
            if high < low:
                break
            start = self.rng.randint(low, high)
            if self._free(start, start + length):
                cue = Cue(start, start + length, thing)
                self.cues.append(cue)
                return cue
        raise NoRoom

    def sequence(self, scene: Scene, things: Sequence[Thing]) -> list[Cue]:
        """Let things show in this order, anywhere in a scene."""
        cues = sorted((self.put(scene, things[0]) for _ in things), key=lambda cue: cue.start)
        del self.cues[-len(things) :]
        placed = [Cue(cue.start, cue.end, thing) for cue, thing in zip(cues, things, strict=True)]
        self.cues += placed
        return placed

    def burst(self, scene: Scene, things: Sequence[Thing], frames: int, gap: int) -> list[Cue]:
        """Let things show in this order and closely, each for so many frames, at least `gap` frames apart."""
        for _ in range(_TRIES):
            at = self.rng.randint(scene.start + _EDGE, scene.end - _EDGE)
            cues = []
            for thing in things:
                at = self._next(at, frames)
                cues.append(Cue(at, at + frames, thing))
                at += frames + gap
            if cues[-1].end <= scene.end - _EDGE and self._apart(cues[0].start, cues[-1].end):
                self.cues += cues
                return cues
        raise NoRoom

    def _next(self, at: int, frames: int) -> int:
        """The first frame from `at` on where so many frames are hidden."""
        while (look := self._look(at, at + frames)) is not None:
            at = math.ceil((look + MARGIN) * FPS)
        return at

    def _free(self, start: int, end: int) -> bool:
        return self._look(start, end) is None and self._apart(start, end)

    def _look(self, start: int, end: int) -> float | None:
        """The moment of the first view, if any, that would show something of these frames."""
        place = bisect_left(self.looks, start / FPS - MARGIN + 1e-9)
        return self.looks[place] if place < len(self.looks) and self.looks[place] < end / FPS + MARGIN - 1e-9 else None

    def _apart(self, start: int, end: int) -> bool:
        return all(cue.end + _APART <= start or end + _APART <= cue.start for cue in self.cues)


def _shown(level: Level, looks: Sequence[float]) -> float:
    """Seconds that a thing shows: the level's, or less where the first view looks often."""
    edges = [0.0, *looks, float(level.seconds)]
    widest = max(b - a for a, b in pairwise(edges))
    room = widest - 2 * MARGIN
    if room < LEAST:
        raise UsageError(
            f"a first view of {len(looks)} frames hides nothing in a film of {level.seconds} seconds: it looks every "
            f"{widest:.2g} s; show fewer frames first, or choose a higher difficulty, whose films are longer"
        )
    return min(level.shown, 0.75 * room)


def _scenes(rng: Random, level: Level, posters: Sequence[str]) -> list[Scene]:
    """Scenes of uneven length that fill the film."""
    weights = [rng.uniform(0.8, 1.2) for _ in range(level.scenes)]
    total, at, scenes = sum(weights), 0.0, []
    names = rng.sample(PLACES, level.scenes)
    edges = [0]
    for weight in weights:
        at += weight
        edges.append(round(level.seconds * FPS * at / total))
    for number, name in enumerate(names):
        door = rng.choice(list(COLOURS))
        scenes.append(Scene(edges[number], edges[number + 1], name, rng.randrange(1 << 30), door, posters[number]))
    return scenes
