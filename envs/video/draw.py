"""The pictures of a film."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from agentenv.envs.video.film import GROUP, SIZE, Card, Door, Scene, Stretch, Thing
from agentenv.envs.zoom.items import font
from agentenv.envs.zoom.vocabulary import COLOURS, Rgb

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw as Pen

DRAWING = 1  # raised whenever the same film is drawn otherwise
CARDS = ((40, 96, 320, 176), (180, 120, 460, 200), (60, 196, 340, 276))
"""Where cards show, as x1, y1, x2, y2 in pixels."""
LAMP = (392, 40, 440, 88)
DOOR = (510, 130, 590, 296)
_BALL = 14
_FLOOR = 300
_LIGHT, _DARK = (250, 250, 246), (22, 22, 26)


def pictures(stretch: Stretch) -> list[Any]:
    """The frames of a stretch, as arrays of shape (height, width, 3)."""
    import numpy as np

    still = np.asarray(_still(stretch.scene, stretch.things))
    return [_with_ball(still, (stretch.phase + number) % GROUP) for number in range(stretch.length)]


def _with_ball(still: Any, phase: int) -> Any:
    """A ball rolls along the lower edge, there and back."""
    moved = still.copy()
    way = abs(2 * phase / GROUP - 1)
    x = round(way * (SIZE[0] - _BALL)) & ~1
    y = SIZE[1] - _BALL - 6
    moved[y : y + _BALL, x : x + _BALL] = COLOURS["yellow"]
    return moved


def _still(scene: Scene, things: tuple[Thing, ...]) -> Picture:
    from PIL import Image, ImageDraw

    rng = Random(f"agentenv/video/{scene.look}")
    wall = tuple(rng.randint(110, 190) for _ in range(3))
    picture = Image.new("RGB", SIZE, wall)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, _FLOOR, *SIZE), fill=tuple(channel // 2 for channel in wall))
    _furniture(pen, rng)
    _label(pen, (14, 12, 230, 52), scene.name, _LIGHT, 24)
    if scene.poster:
        _label(pen, (470, 14, 626, 54), scene.poster, (214, 206, 180), 22)
    doors = [thing.colour for thing in things if isinstance(thing, Door)]
    _door(pen, COLOURS[doors[-1] if doors else scene.door])
    lit = [thing.colour for thing in things if not isinstance(thing, (Card, Door))]
    pen.ellipse(LAMP, fill=COLOURS[lit[-1]] if lit else (70, 70, 74), outline=_DARK, width=3)
    for card in (thing for thing in things if isinstance(thing, Card)):
        _label(pen, CARDS[card.place], card.text, COLOURS[card.fill], 44)
    return picture


def _furniture(pen: Pen, rng: Random) -> None:
    for _ in range(rng.randint(3, 6)):
        wide, high, x = rng.randint(30, 90), rng.randint(30, 110), rng.randint(10, 420)
        shade = tuple(rng.randint(60, 150) for _ in range(3))
        pen.rectangle((x, _FLOOR - high, x + wide, _FLOOR), fill=shade, outline=_DARK)


def _door(pen: Pen, colour: Rgb) -> None:
    pen.rectangle(DOOR, fill=colour, outline=_DARK, width=3)
    pen.ellipse((DOOR[0] + 8, 208, DOOR[0] + 18, 218), fill=_DARK)


def _label(pen: Pen, box: tuple[int, int, int, int], text: str, fill: Rgb, size: int) -> None:
    """A plate with a text in its middle, which is made smaller where it does not fit."""
    pen.rounded_rectangle(box, 6, fill=fill, outline=_DARK, width=2)
    wide = box[2] - box[0] - 16
    letters = font(size)
    if letters.getlength(text) > wide:
        letters = font(int(size * wide / letters.getlength(text)))
    ink = _LIGHT if sum(fill) < 400 else _DARK
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    pen.text(middle, text, fill=ink, font=letters, anchor="mm")
