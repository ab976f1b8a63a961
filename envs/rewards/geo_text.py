"""A place read out of an answer: country, state, city and coordinates, each as far as it is said."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from agentenv.envs.rewards.answers import TOO_LONG, normal

Mode = Literal["strict", "upstream"]
"""Whose rules count: ours, or those of the published scorer."""

_KEYS = {
    "country": ("country", "nation"),
    "state": ("state", "province", "region", "division", "state_or_province", "province_or_state"),
    "city": ("city", "town", "place", "locality"),
    "lat": ("lat", "latitude"),
    "lng": ("lng", "lon", "long", "longitude"),
}
_ANGLE = (
    r"([-+\u2212]?\d{1,3}(?:\.\d{1,12})?)\s*(?:\u00b0\s*(?:(\d{1,2}(?:\.\d{1,12})?)\s*['\u2032\u2019]\s*"
    r"(?:(\d{1,2}(?:\.\d{1,12})?)\s*(?:[\"\u2033\u201d]|'')\s*)?)?)?"
)
_FIELD = re.compile(r"^[\s*\-]*([A-Za-z_ ]{3,20}?)\**\s*[:=]\s*\**\s*(.+?)\s*\*{0,2}$", re.MULTILINE)
_PAIR = re.compile(rf"(?<![\d.]){_ANGLE}([NS]\b)?\s*(?:[,;/]\s*|(?<=[NS\s])){_ANGLE}([EW]\b)?(?![\d.])", re.IGNORECASE)
_ALONE = re.compile(rf"{_ANGLE}([NSEW]\b)?", re.IGNORECASE)


class Guess(Struct, frozen=True):
    """What an answer says of the place; "" and None for what it does not say. `text` is the whole answer, to search."""

    country: str = ""
    state: str = ""
    city: str = ""
    lat: float | None = None
    lng: float | None = None
    text: str = ""


def read_place(text: str | None) -> Guess:
    """The place that an answer gives: as a JSON object, as lines "Country: ...", or in prose. Never raises.

    Coordinates stand in fields of their own, or as a pair "48.86, 2.35", "48.86 N, 2.35 E" or "48°51'24"N 2°21'08"E",
    of which at least one number has a decimal point or minutes.
    """
    if text is None or len(text) > 20 * TOO_LONG:
        return Guess()
    fields = _fields(text)
    found = {level: next((fields[key] for key in _KEYS[level] if fields.get(key)), "") for level in _KEYS}
    lat, lng = _degrees(found["lat"], 90), _degrees(found["lng"], 180)
    if lat is None or lng is None:
        lat, lng = _pair(str(fields.get("coordinates", "")) or text)
    return Guess(found["country"], found["state"], found["city"], lat, lng, text)


def _fields(text: str) -> dict[str, str]:
    start, end = text.find("{"), text.rfind("}")
    if 0 <= start < end:
        try:
            said = json.loads(text[start : end + 1])
        except (ValueError, RecursionError):
            said = None
        if isinstance(said, dict):
            inner = [value for value in said.values() if isinstance(value, dict)]
            return {_key(str(key)): _cell(value) for one in (*inner, said) for key, value in one.items()}
    lines = "\n".join(" ".join(line.split()) for line in text[:4000].splitlines() if line.strip())  # long gaps are slow
    return {_key(found[1]): found[2] for found in _FIELD.finditer(lines)}


def _key(text: str) -> str:
    return "_".join(text.casefold().split())


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "" if value is None or isinstance(value, dict) else str(value)


def _degrees(text: str, most: float) -> float | None:
    found = _ALONE.search(" ".join(text.split()))
    return _signed(found.groups(), most) if found else None


def _signed(angle: Sequence[str | None], most: float) -> float | None:
    """Degrees out of degrees, minutes, seconds and side; None above `most`."""
    degrees, minutes, seconds, side = angle
    whole = float((degrees or "").replace("\u2212", "-"))
    value = math.copysign(abs(whole) + float(minutes or 0) / 60 + float(seconds or 0) / 3600, whole)
    if side and side.upper() in "SW":
        value = -abs(value)
    return value if abs(value) <= most else None


def _pair(text: str) -> tuple[float | None, float | None]:
    for found in _PAIR.finditer(" ".join(text[:4000].split())):
        if "." in found[1] + found[5] or found[2] or found[6]:
            lat, lng = _signed(found.groups()[:4], 90), _signed(found.groups()[4:], 180)
            if lat is not None and lng is not None:
                return lat, lng
    return None, None


def plain(text: str) -> str:
    """A name for comparing: `rewards.normal`, and without marks on its letters."""
    bare = unicodedata.normalize("NFKD", normal(text))
    return "".join(letter for letter in bare if not unicodedata.combining(letter))
