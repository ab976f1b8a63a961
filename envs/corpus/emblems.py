"""Emblems of towns: invented for this library, each drawn from plain data, and a picture index of all of them.

No emblem is a real coat of arms, so none can be known: which town one belongs to can only be found by searching with
its picture. An emblem is a square field in two colours with one to three figures, on a white plaque.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from agentenv.envs.corpus.places import Town, atlas, places_version
from agentenv.envs.corpus.writing import town_document, town_id, where
from agentenv.envs.zoom.items import figure
from agentenv.envs.zoom.vocabulary import COLOURS, FIGURES
from agentenv.errors import DataError, ToolError, ToolErrorKind
from agentenv.media import decode
from agentenv.tools.search import Hit, ImageCorpus, PictureEmbedder, open_images

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw as Pen

LICENSE = "drawn by agentenv, Apache-2.0; the towns are GeoNames', CC BY 4.0"
EMBLEMS = 1200
"""How many towns have an emblem."""

FIELDS = ("plain", "pale", "fess", "quarterly", "bend", "chief", "border")
_LEAST_PEOPLE = 15_000
_SIDE = 128
_MARGIN = 0.12
_DRAWING = 2  # raised whenever the same emblem is drawn otherwise
_GRID = 24
_LOOK = 72


class Emblem(Struct, frozen=True, tag="emblem"):
    """What decides the look of an emblem: division of the field, its two colours, and the figures on it."""

    field: str
    first: str
    second: str
    figure: str
    figure_colour: str
    count: int

    @property
    def blazon(self) -> str:
        """The emblem in words."""
        many = f"{self.count} {self.figure_colour} {self.figure}{'es' * (self.figure == 'cross') or 's'}"
        charge = f"a {self.figure_colour} {self.figure}" if self.count == 1 else many
        ground = (
            f"a field of {self.first}" if self.field == "plain" else f"{self.first} and {self.second}, {self.field}"
        )
        return f"{ground}, with {charge}"


@lru_cache(maxsize=1)
def emblems() -> dict[int, Emblem]:
    """The emblems by the town's id; a function of the places alone, no two alike."""
    towns = [town for town in atlas().clear if town.population >= _LEAST_PEOPLE]
    towns.sort(key=lambda town: hashlib.sha256(f"agentenv/emblem/{town.id}".encode()).digest())
    taken: set[Emblem] = set()
    found = {}
    for town in towns[:EMBLEMS]:
        rng = Random(f"agentenv/emblem/{town.id}")
        drawn = draw(rng)
        while drawn in taken:
            drawn = draw(rng)
        taken.add(drawn)
        found[town.id] = drawn
    return found


def draw(rng: Random) -> Emblem:
    """Any emblem."""
    first, second, ink = rng.sample(tuple(COLOURS), 3)
    field = rng.choice(FIELDS)
    return Emblem(field, first, first if field == "plain" else second, rng.choice(FIGURES), ink, rng.randint(1, 3))


def bearers() -> tuple[Town, ...]:
    """The towns that have an emblem, in the order of their ids."""
    return tuple(atlas().by_id[number] for number in sorted(emblems()))


# ---- drawing ---------------------------------------------------------------------------------------------------------


def paint(emblem: Emblem, side: int) -> Picture:
    """The emblem on its plaque, RGB, `side` pixels wide and high."""
    from PIL import ImageDraw

    picture = _bare(side * 2)  # reduced afterwards, as polygons have hard edges
    big, pen = side * 2, ImageDraw.Draw(picture)
    low, high = _MARGIN * big, (1 - _MARGIN) * big
    _field(pen, emblem, low, high)
    span = high - low
    radius = span * {1: 0.24, 2: 0.15, 3: 0.14}[emblem.count]
    spots = {1: ((0.5, 0.5),), 2: ((0.28, 0.5), (0.72, 0.5)), 3: ((0.5, 0.26), (0.27, 0.7), (0.73, 0.7))}
    for x, y in spots[emblem.count]:
        figure(pen, (low + x * span, low + y * span), radius, emblem.figure, COLOURS[emblem.figure_colour])
    pen.rectangle((low, low, high, high), outline=(30, 30, 34), width=max(2, big // 70))
    return picture.reduce(2)


def mounted(picture: Picture, side: int) -> Picture:
    """Any picture as the inside of a white plaque, RGB, `side` pixels wide and high."""
    whole, edge = _bare(side), round(_MARGIN * side)
    inside = side - 2 * edge
    whole.paste(picture.convert("RGB").resize((inside, inside)), (edge, edge))
    return whole


def _bare(side: int) -> Picture:
    from PIL import Image, ImageDraw

    plaque = Image.new("RGB", (side, side), (255, 255, 255))
    ImageDraw.Draw(plaque).rectangle((0, 0, side - 1, side - 1), outline=(60, 60, 66), width=max(1, side // 60))
    return plaque


def _field(pen: Pen, emblem: Emblem, low: float, high: float) -> None:
    first, second = COLOURS[emblem.first], COLOURS[emblem.second]
    middle, span = (low + high) / 2, high - low
    pen.rectangle((low, low, high, high), fill=first)
    if emblem.field == "pale":
        pen.rectangle((middle, low, high, high), fill=second)
    elif emblem.field == "fess":
        pen.rectangle((low, middle, high, high), fill=second)
    elif emblem.field == "quarterly":
        pen.rectangle((middle, low, high, middle), fill=second)
        pen.rectangle((low, middle, middle, high), fill=second)
    elif emblem.field == "bend":
        pen.polygon(((low, low), (high, high), (low, high)), fill=second)
    elif emblem.field == "chief":
        pen.rectangle((low, low, high, low + 0.3 * span), fill=second)
    elif emblem.field == "border":
        pen.rectangle((low, low, high, high), fill=second)
        inner = 0.16 * span
        pen.rectangle((low + inner, low + inner, high - inner, high - inner), fill=first)


# ---- searching by picture --------------------------------------------------------------------------------------------


def plaque(picture: Picture) -> Picture:
    """The part of a picture that is a white plaque's inside: of the largest plaque that lies around its middle.

    A crop shows some of the wall around a plaque; what is compared must not depend on how much. The whole picture where
    there is no plaque.
    """
    import numpy as np

    small = picture.convert("RGB")
    small.thumbnail((_LOOK, _LOOK))
    pixels = np.asarray(small, np.int16)
    white = (pixels.min(2) >= 226) & (pixels.max(2) - pixels.min(2) <= 18)
    box = _ring(white)
    if box is None:
        return picture
    scale = picture.width / small.width, picture.height / small.height
    left, top, right, bottom = box[0] * scale[0], box[1] * scale[1], box[2] * scale[0], box[3] * scale[1]
    inset = _MARGIN * min(right - left, bottom - top)
    return picture.crop((round(left + inset), round(top + inset), round(right - inset), round(bottom - inset)))


def _ring(white: Any) -> tuple[int, int, int, int] | None:
    """The box of the white region, of those whose box holds the middle, with the largest one; edges after the last."""
    high, wide = white.shape
    size = {box: (box[2] - box[0]) * (box[3] - box[1]) for box in _regions(white)}
    around = [box for box in size if box[0] <= wide / 2 <= box[2] and box[1] <= high / 2 <= box[3]]
    best = max(around, key=lambda box: size[box], default=None)
    return best if best is not None and size[best] > 0.02 * white.size else None


def _regions(white: Any) -> list[tuple[int, int, int, int]]:
    """The boxes of the connected parts of a mask, by the runs of its rows."""
    import numpy as np

    boxes: dict[int, tuple[int, int, int, int]] = {}
    above: list[tuple[int, int, int]] = []
    steps = np.diff(white.astype(np.int8), prepend=0, append=0)
    for y, row in enumerate(steps):
        edges = row.nonzero()[0].tolist()
        here: list[tuple[int, int, int]] = []
        for number, (start, end) in enumerate(zip(edges[::2], edges[1::2], strict=True)):
            touched = {part for low, high, part in above if low < end and start < high}
            part = min(touched, default=y * white.shape[1] + number)
            joined = [boxes.pop(other) for other in touched]
            left, top, right, bottom = zip(*joined, (start, y, end, y + 1), strict=True)
            boxes[part] = min(left), min(top), max(right), max(bottom)
            if len(touched) > 1:
                above, here = _renamed(above, touched, part), _renamed(here, touched, part)
            here.append((start, end, part))
        above = here
    return list(boxes.values())


def _renamed(runs: list[tuple[int, int, int]], old: set[int], new: int) -> list[tuple[int, int, int]]:
    return [(start, end, new if part in old else part) for start, end, part in runs]


def layout() -> PictureEmbedder:
    """An embedder without weights: the colours of a plaque's inside on a grid of 24 x 24."""

    def encode(pictures: list[Picture]) -> Any:
        import numpy as np
        from PIL.Image import Resampling

        grids = [plaque(one).convert("RGB").resize((_GRID, _GRID), Resampling.BOX) for one in pictures]
        return np.stack([np.asarray(grid, np.float32).ravel() / 127.5 - 1.0 for grid in grids])

    return PictureEmbedder(f"plaque-layout-{_GRID}", encode, tiled=False)


class EmblemIndex(ImageCorpus):
    """A picture index that goes by the layout alone: the hash of an image corpus takes flat emblems for the same."""

    def find_image(self, image: bytes, k: int) -> list[Hit]:
        """The `k` pictures most like the plaque in a picture, or like all of it, best first; scores are cosines."""
        import numpy as np

        try:
            picture = decode(image)
        except DataError as error:
            raise ToolError(f"The image cannot be read: {error}.", ToolErrorKind.FAILED) from None
        inside, whole = self._likeness(picture), self._likeness(mounted(picture, _SIDE))
        likeness = np.round(np.maximum(inside, whole), 5)
        order = np.argsort(-likeness, kind="stable")[: max(0, k)]
        return [self.store.hit(int(number), float(likeness[number])) for number in order]


@lru_cache(maxsize=1)
def emblem_index() -> EmblemIndex:
    """The picture index of all emblems, with captions that lead to the towns' documents; made once, in some 3 s.

    Raises:
        MissingExtraError: a package that it needs is not installed.
    """
    return plaque_index(emblem_rows, emblems_version())


def emblems_version() -> str:
    """What the emblems depend on: this code, and the packages that are installed."""
    return f"emblems/{_DRAWING}/{EMBLEMS}/{places_version()}"


def plaque_index(rows: Callable[[], Iterator[dict[str, Any]]], key: str) -> EmblemIndex:
    """A picture index of rows whose `picture` is a plaque; `key` names their content."""
    made = open_images(rows, image="picture", columns={"meta": ("licence",)}, embed=layout(), key=key)
    return EmblemIndex(made.store, made.engine, made.hashes, made.vectors, made.owners, made.embedder)


def emblem_rows() -> Iterator[dict[str, Any]]:
    """One row an emblem: its plaque as a file, and a caption that leads to the town's document."""
    places = atlas()
    for number, emblem in sorted(emblems().items()):
        town = places.by_id[number]
        yield {
            "id": f"emblem-{town.id}",
            "title": f"Emblem of {town.name}, {where(places, town)}",
            "text": f"The emblem of {town.name} (doc:{town_id(town)}): {emblem.blazon}.",
            "url": town_document(places, town).url,
            "licence": LICENSE,
            "picture": png(paint(emblem, _SIDE)),
        }


def png(picture: Picture) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()
