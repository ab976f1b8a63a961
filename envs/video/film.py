"""A film as plain data: scenes one after the other, and what shows in them for a while. Times are counted in frames."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Union

from msgspec import Struct

FPS = 5
SIZE = (640, 360)
GROUP = 20  # frames from one keyframe to the next


class Card(Struct, frozen=True, tag="card"):
    """A card with a text, in one of three places."""

    text: str
    fill: str
    place: int


class Lamp(Struct, frozen=True, tag="lamp"):
    """The scene's lamp is lit in a colour."""

    colour: str


class Door(Struct, frozen=True, tag="door"):
    """The scene's door has another colour than it usually has."""

    colour: str


Thing = Union[Card, Lamp, Door]


class Cue(Struct, frozen=True):
    """Something that shows from frame `start` up to, and not including, frame `end`."""

    start: int
    end: int
    thing: Thing

    @property
    def span(self) -> list[float]:
        """[start, end] in seconds."""
        return [self.start / FPS, self.end / FPS]


class Scene(Struct, frozen=True):
    """A place that the film shows from frame `start` up to `end`.

    Args:
        start: its first frame.
        end: the frame after its last.
        name: on a board that always shows.
        look: decides its colours and furniture.
        door: the usual colour of its door.
        poster: a text that always shows in it; "" for none.
    """

    start: int
    end: int
    name: str
    look: int
    door: str
    poster: str = ""


class Film(Struct, frozen=True):
    """Everything that decides the frames of a film."""

    scenes: tuple[Scene, ...]
    cues: tuple[Cue, ...]

    @property
    def frames(self) -> int:
        """How many there are."""
        return self.scenes[-1].end

    @property
    def duration(self) -> float:
        """In seconds."""
        return self.frames / FPS


class Stretch(Struct, frozen=True):
    """Frames in which nothing changes but what always moves: a scene and the things that show in it beside.

    `phase` is the place of its first frame in the cycle of what moves. Equal stretches are equal pictures.
    """

    scene: Scene
    things: tuple[Thing, ...]
    phase: int
    length: int


def stretches(film: Film) -> Iterator[Stretch]:
    """The film cut wherever something changes, and into groups of at most `GROUP` frames."""
    edges = {scene.end for scene in film.scenes} | {edge for cue in film.cues for edge in (cue.start, cue.end)}
    marks = sorted(edges | set(range(0, film.frames, GROUP)))
    places = iter(film.scenes)
    scene = next(places)
    for start, end in pairwise(marks):
        while start >= scene.end:
            scene = next(places)
        things = tuple(cue.thing for cue in film.cues if cue.start <= start < cue.end)
        # Where a scene begins and ends decides no pixel of it.
        bare = Scene(0, 0, scene.name, scene.look, scene.door, scene.poster)
        yield Stretch(bare, things, start % GROUP, end - start)
