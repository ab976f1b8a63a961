"""What stands in a scene, as plain data that draws itself: emblems and pictures on plaques, placards in any script."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from agentenv.envs.corpus.emblems import Emblem
from agentenv.envs.corpus.emblems import paint as paint_emblem
from agentenv.envs.corpus.packages import package_file
from agentenv.envs.corpus.pictures import Pictured, card
from agentenv.envs.zoom.items import Own, ink_on
from agentenv.envs.zoom.vocabulary import COLOURS

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageFont import FreeTypeFont

EMBLEM_EM = 8.0
"""Side of an emblem's plaque in em."""

_LABEL_EM = 1.7
_LINE = 1.4
_PALE = (206, 206, 202)
_FONT = ("font-roboto", "font_roboto/files/Roboto-Medium.ttf", "signs in the letters of many languages")


@lru_cache(maxsize=64)
def face(size: int) -> FreeTypeFont:
    """Roboto, which has Latin, Greek and Cyrillic letters, laid out without Raqm.

    Raises:
        MissingExtraError: the package font-roboto is not installed.
    """
    from PIL import ImageFont

    return ImageFont.truetype(str(package_file(*_FONT)), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=4096)
def width(text: str) -> float:
    """Width of a line in em."""
    return float(face(100).getlength(text)) / 100


@lru_cache(maxsize=8192)
def drawable(text: str) -> bool:
    """Whether the font has every letter of a text."""
    missing = _pixels("\uffff")
    return all(letter.isspace() or _pixels(letter) != missing for letter in text)


def _pixels(letter: str) -> bytes:
    mask: Any = face(30).getmask(letter)
    return bytes(mask)


class Plaque(Own, frozen=True, tag="plaque"):
    """An emblem, or any picture, on its white plaque and, below it, a strip with a label; "" for no strip."""

    emblem: Emblem | Pictured
    label: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.label,) if self.label else ()

    @property
    def size(self) -> tuple[float, float]:
        return EMBLEM_EM, EMBLEM_EM + (_LABEL_EM if self.label else 0.0)

    def draw(self, unit: float, contrast: float) -> Picture:
        from PIL import Image, ImageDraw

        wide, high = (math.ceil(length * unit) for length in self.size)
        patch = Image.new("RGBA", (wide, high), (*_PALE, 255))
        shown = self.emblem
        patch.paste(paint_emblem(shown, wide) if isinstance(shown, Emblem) else card(shown, wide), (0, 0))
        if self.label:
            middle = (wide / 2, (EMBLEM_EM + _LABEL_EM / 2) * unit)
            pen, ink = ImageDraw.Draw(patch), ink_on(_PALE, contrast)
            pen.text(middle, self.label, font=face(max(1, round(unit))), fill=ink, anchor="mm")
        return patch


class Placard(Own, frozen=True, tag="placard"):
    """Lines of text on a coloured board."""

    lines: tuple[str, ...]
    fill: str

    @property
    def texts(self) -> tuple[str, ...]:
        return self.lines

    @property
    def size(self) -> tuple[float, float]:
        return max(map(width, self.lines)) + 1.2, _LINE * len(self.lines) + 0.5

    def draw(self, unit: float, contrast: float) -> Picture:
        from PIL import Image, ImageDraw

        wide, high = (math.ceil(length * unit) for length in self.size)
        fill = COLOURS[self.fill]
        patch = Image.new("RGBA", (wide, high), (*fill, 255))
        pen, ink = ImageDraw.Draw(patch), ink_on(fill, contrast)
        pen.rectangle((0, 0, wide - 1, high - 1), outline=ink_on(fill, 0.55), width=max(1, round(unit * 0.09)))
        for number, line in enumerate(self.lines):
            y = high / 2 + (number - (len(self.lines) - 1) / 2) * _LINE * unit
            pen.text((wide / 2, y), line, font=face(max(1, round(unit))), fill=ink, anchor="mm")
        return patch
