"""The things that stand in a scene, as plain data, and how each is drawn.

All lengths are in units of the text's size (em), so that the same item can be drawn at any resolution.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Union

from msgspec import Struct

from agentenv.envs.zoom.vocabulary import COLOURS, Rgb
from agentenv.errors import MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw as Pen
    from PIL.ImageFont import FreeTypeFont

_SUPER = 3  # drawn three times as large and then reduced, as Pillow's polygons have hard edges
_LINE = 1.35
_DARK, _LIGHT = (18, 18, 22), (252, 252, 250)


class Sign(Struct, frozen=True, tag="sign"):
    """A sign with lines of text and, left of them, perhaps a figure with a colour of its own."""

    outline: str
    fill: str
    lines: tuple[str, ...]
    figure: str = ""
    figure_colour: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        return self.lines

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in em."""
        wide = max(map(text_width, self.lines)) + (1.6 if self.figure else 0.0)
        slack = 1.6 if self.outline in ("oval", "hexagonal") else 0.9
        return wide + slack, _LINE * len(self.lines) + (0.9 if self.outline == "oval" else 0.5)


class Tray(Struct, frozen=True, tag="tray"):
    """A tray with a label and small figures in rows; each is (figure, colour, dx, dy), displaced by parts of an em."""

    fill: str
    label: str
    figures: tuple[tuple[str, str, float, float], ...]
    columns: int

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.label,)

    @property
    def size(self) -> tuple[float, float]:
        rows = math.ceil(len(self.figures) / self.columns)
        return max(self.columns * FIGURE_PITCH, text_width(self.label)) + 0.8, _LINE + rows * FIGURE_PITCH + 0.6


class Board(Struct, frozen=True, tag="board"):
    """A board of small signs in rows and columns; each is (word, colour)."""

    cells: tuple[tuple[str, str], ...]
    columns: int

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(word for word, _ in self.cells)

    @property
    def cell(self) -> tuple[float, float]:
        """Width and height of one sign with its gap, in em."""
        return max(map(text_width, self.texts)) + 1.2, _LINE + 0.7

    @property
    def size(self) -> tuple[float, float]:
        wide, high = self.cell
        return self.columns * wide + 0.4, len(self.cells) // self.columns * high + 0.4


class Own(Struct, frozen=True):
    """An item that draws itself: what other environments put into scenes. Subclasses are plain data with tags."""

    @property
    def texts(self) -> tuple[str, ...]:
        return ()

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in em."""
        return (1.0, 1.0)

    def draw(self, unit: float, contrast: float) -> Picture:
        """The item as an RGBA picture, `unit` pixels an em."""
        from PIL import Image

        return Image.new("RGBA", (math.ceil(self.size[0] * unit), math.ceil(self.size[1] * unit)))


Item = Union[Sign, Tray, Board, Own]
FIGURE_PITCH = 1.3
_FIGURE_RADIUS = 0.33


# ---- text


@lru_cache(maxsize=64)
def font(size: int) -> FreeTypeFont:
    """Pillow's own scalable font, laid out without Raqm, whose presence depends on the machine.

    Raises:
        MissingExtraError: Pillow is absent or was built without FreeType.
    """
    try:
        from PIL import ImageFont

        base = ImageFont.load_default(10)
        if not isinstance(base, ImageFont.FreeTypeFont):
            raise ImportError
        return base.font_variant(size=size, layout_engine=ImageFont.Layout.BASIC)
    except ImportError:
        raise MissingExtraError("pillow", "image", "drawing scenes (Pillow with FreeType)") from None


@lru_cache(maxsize=4096)
def text_width(text: str) -> float:
    """Width of a line in em."""
    return float(font(100).getlength(text)) / 100


def _write(pen: Pen, centre: tuple[float, float], text: str, em: float, ink: Rgb) -> None:
    face = font(max(1, round(em)))
    pen.text((centre[0] - face.getlength(text) / 2, centre[1] - 0.62 * em), text, font=face, fill=ink)


def ink_on(fill: Rgb, contrast: float) -> Rgb:
    """A grey, dark on light colours and light on dark ones; at contrast 0 it is the fill itself."""
    bright = 0.299 * fill[0] + 0.587 * fill[1] + 0.114 * fill[2]
    end = _DARK if bright > 120 else _LIGHT
    r, g, b = (round(f + (e - f) * contrast) for f, e in zip(fill, end, strict=True))
    return r, g, b


# ---- figures


def figure(pen: Pen, centre: tuple[float, float], radius: float, name: str, colour: Rgb) -> None:
    """Draw a figure; all have about the same area, so that size does not tell them apart."""
    x, y = centre
    if name in ("disc", "ring"):
        r = radius * (0.84 if name == "disc" else 0.95)
        box = (x - r, y - r, x + r, y + r)
        if name == "disc":
            pen.ellipse(box, fill=colour)
        else:
            pen.ellipse(box, outline=colour, width=max(1, round(radius * 0.5)))
    elif name == "square":
        r = radius * 0.75
        pen.rectangle((x - r, y - r, x + r, y + r), fill=colour)
    elif name == "cross":
        a, b = radius, radius * 0.33
        pen.rectangle((x - a, y - b, x + a, y + b), fill=colour)
        pen.rectangle((x - b, y - a, x + b, y + a), fill=colour)
    elif name == "triangle":
        pen.polygon(_ring_points(centre, (radius * 1.25,), 3), fill=colour)
    else:
        pen.polygon(_ring_points(centre, (radius * 1.25, radius * 0.55), 10), fill=colour)


def _ring_points(centre: tuple[float, float], radii: tuple[float, ...], count: int) -> list[tuple[float, float]]:
    turns = [(math.tau * i / count - math.pi / 2, radii[i % len(radii)]) for i in range(count)]
    return [(centre[0] + r * math.cos(turn), centre[1] + r * math.sin(turn)) for turn, r in turns]


# ---- items


def paint(item: Item, em: float, contrast: float, angle: float) -> Picture:
    """An item as an RGBA picture, turned counter-clockwise about its centre.

    Args:
        item: what to draw.
        em: size of its text in pixels.
        contrast: of its text, 0 to 1.
        angle: in degrees.
    """
    from PIL import Image, ImageDraw

    unit = em * _SUPER
    wide, high = item.size
    if isinstance(item, Own):
        patch = item.draw(unit, contrast)
    else:
        patch = Image.new("RGBA", (math.ceil(wide * unit), math.ceil(high * unit)), (*_ground(item), 0))
        pen = ImageDraw.Draw(patch)
        if isinstance(item, Sign):
            _sign(pen, item, unit, contrast)
        elif isinstance(item, Tray):
            _tray(pen, item, unit, contrast)
        else:
            _board(pen, item, unit, contrast)
    if angle:
        patch = patch.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    return patch.reduce(_SUPER)


def _ground(item: Sign | Tray | Board) -> Rgb:
    return (96, 84, 72) if isinstance(item, Board) else COLOURS[item.fill]


def _outlined(pen: Pen, outline: str, box: tuple[float, float, float, float], fill: Rgb, unit: float) -> None:
    x1, y1, x2, y2 = box
    edge, width = ink_on(fill, 0.55), max(1, round(unit * 0.09))
    if outline == "oval":
        pen.ellipse(box, fill=fill, outline=edge, width=width)
    elif outline == "hexagonal":
        tip, middle = 0.6 * unit, (y1 + y2) / 2
        points = [(x1, middle), (x1 + tip, y1), (x2 - tip, y1), (x2, middle), (x2 - tip, y2), (x1 + tip, y2)]
        pen.polygon(points, fill=fill, outline=edge, width=width)
    elif outline == "rounded":
        pen.rounded_rectangle(box, 0.55 * unit, fill=fill, outline=edge, width=width)
    else:
        pen.rectangle(box, fill=fill, outline=edge, width=width)


def _sign(pen: Pen, item: Sign, unit: float, contrast: float) -> None:
    wide, high = (length * unit for length in item.size)
    fill = COLOURS[item.fill]
    _outlined(pen, item.outline, (0, 0, wide - 1, high - 1), fill, unit)
    middle = wide / 2
    if item.figure:
        text = max(map(text_width, item.lines)) * unit
        colour = COLOURS[item.figure_colour] if item.figure_colour else ink_on(fill, contrast)
        figure(pen, (middle - text / 2 - 0.1 * unit, high / 2), _FIGURE_RADIUS * unit, item.figure, colour)
        middle += 0.8 * unit
    for number, line in enumerate(item.lines):
        y = high / 2 + (number - (len(item.lines) - 1) / 2) * _LINE * unit
        _write(pen, (middle, y), line, unit, ink_on(fill, contrast))


def _tray(pen: Pen, item: Tray, unit: float, contrast: float) -> None:
    wide, high = (length * unit for length in item.size)
    fill = COLOURS[item.fill]
    _outlined(pen, "rounded", (0, 0, wide - 1, high - 1), fill, unit)
    _write(pen, (wide / 2, 0.9 * unit), item.label, unit, ink_on(fill, contrast))
    left = (wide - item.columns * FIGURE_PITCH * unit) / 2
    for number, (name, colour, dx, dy) in enumerate(item.figures):
        row, column = divmod(number, item.columns)
        x = left + (column + 0.5 + dx) * FIGURE_PITCH * unit
        y = (_LINE + 0.35) * unit + (row + 0.5 + dy) * FIGURE_PITCH * unit
        figure(pen, (x, y), _FIGURE_RADIUS * unit, name, COLOURS[colour])


def _board(pen: Pen, item: Board, unit: float, contrast: float) -> None:
    wide, high = (length * unit for length in item.size)
    pen.rectangle((0, 0, wide - 1, high - 1), fill=_ground(item))
    width, height = (length * unit for length in item.cell)
    gap = 0.2 * unit
    for number, (word, colour) in enumerate(item.cells):
        row, column = divmod(number, item.columns)
        x, y = 0.2 * unit + column * width, 0.2 * unit + row * height
        fill = COLOURS[colour]
        _outlined(pen, "rounded", (x + gap, y + gap, x + width - gap, y + height - gap), fill, unit)
        _write(pen, (x + width / 2, y + height / 2), word, unit, ink_on(fill, contrast))
