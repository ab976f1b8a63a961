"""Emblems of towns: invented for this library, each drawn from plain data, and a picture index of all of them.

No emblem is a real coat of arms, so none can be known: which town one belongs to can only be found by searching with
its picture. An emblem is a square field in two colours with one to three figures, on a white plaque.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
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
    from PIL import Image, ImageDraw

    big = side * 2  # reduced afterwards, as polygons have hard edges
    picture = Image.new("RGB", (big, big), (255, 255, 255))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, big - 1, big - 1), outline=(60, 60, 66), width=max(1, big // 60))
    low, high = _MARGIN * big, (1 - _MARGIN) * big
    _field(pen, emblem, low, high)
    span = high - low
    radius = span * {1: 0.24, 2: 0.15, 3: 0.14}[emblem.count]
    spots = {1: ((0.5, 0.5),), 2: ((0.28, 0.5), (0.72, 0.5)), 3: ((0.5, 0.26), (0.27, 0.7), (0.73, 0.7))}
    for x, y in spots[emblem.count]:
        figure(pen, (low + x * span, low + y * span), radius, emblem.figure, COLOURS[emblem.figure_colour])
    pen.rectangle((low, low, high, high), outline=(30, 30, 34), width=max(2, big // 70))
    return picture.reduce(2)


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
    left = {int(spot) for spot in white.ravel().nonzero()[0]}
    best, size = None, 0.02 * white.size
    while left:
        region, edge = [], [left.pop()]
        while edge:
            spot = edge.pop()
            region.append(spot)
            column = spot % wide
            around = (spot - wide, spot + wide, spot - 1 if column else -1, spot + 1 if column < wide - 1 else -1)
            for other in around:
                if other in left:
                    left.remove(other)
                    edge.append(other)
        rows, columns = [spot // wide for spot in region], [spot % wide for spot in region]
        box = min(columns), min(rows), max(columns) + 1, max(rows) + 1
        area = (box[2] - box[0]) * (box[3] - box[1])
        if area > size and box[0] <= wide / 2 <= box[2] and box[1] <= high / 2 <= box[3]:
            best, size = box, area
    return best


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
        """The `k` emblems most like the plaque in a picture, best first; scores are cosines."""
        import numpy as np

        try:
            picture = decode(image)
        except DataError as error:
            raise ToolError(f"The image cannot be read: {error}.", ToolErrorKind.FAILED) from None
        likeness = np.round(self._likeness(picture), 5)
        order = np.argsort(-likeness, kind="stable")[: max(0, k)]
        return [self.store.hit(int(number), float(likeness[number])) for number in order]


@lru_cache(maxsize=1)
def emblem_index() -> EmblemIndex:
    """The picture index of all emblems, with captions that lead to the towns' documents; made once, in some 10 s.

    Raises:
        MissingExtraError: a package that it needs is not installed.
    """
    key = f"emblems/{_DRAWING}/{EMBLEMS}/{places_version()}"
    made = open_images(_rows, image="picture", embed=layout(), key=key)
    return EmblemIndex(made.store, made.engine, made.hashes, made.vectors, made.owners, made.embedder)


def _rows() -> Iterator[dict[str, Any]]:
    places = atlas()
    for number, emblem in sorted(emblems().items()):
        town = places.by_id[number]
        file = io.BytesIO()
        paint(emblem, _SIDE).save(file, "PNG")
        yield {
            "id": f"emblem-{town.id}",
            "title": f"Emblem of {town.name}, {where(places, town)}",
            "text": f"The emblem of {town.name} (doc:{town_id(town)}): {emblem.blazon}.",
            "url": town_document(places, town).url,
            "picture": file.getvalue(),
        }
