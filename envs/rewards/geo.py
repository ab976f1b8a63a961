"""Where was it taken: a place read out of an answer, the 4/2/1 hierarchy, distances, and GeoVista's shaping terms.

A task's place is `task.metadata["place"]`: country, state, city, lat, lng, each as far as it is known, and `names`,
other spellings by level. Source of the formulas: GeoVista (arXiv 2511.15705), Eq. 4 and `verl/utils/reward_score`.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from agentenv.envs.rewards.answers import TOO_LONG, normal
from agentenv.trajectory import Trajectory
from agentenv.types import Table, Task

EARTH_KM = 6371.0088
"""Mean radius of the Earth (IUGG); GeoBench's `utils_geocode.py` has the same."""

LEVELS = ("country", "state", "city")
Mode = Literal["strict", "upstream"]

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


# ---- distances -------------------------------------------------------------------------------------------------------


def haversine(a: Sequence[float], b: Sequence[float]) -> float:
    """Great-circle distance in kilometres of two points (latitude, longitude) in degrees.

    >>> round(haversine((52.52, 13.405), (48.8566, 2.3522)))
    877
    """
    (lat1, lng1), (lat2, lng2) = (map(math.radians, point) for point in (a, b))
    square = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lng2 - lng1) / 2) ** 2
    return 2 * EARTH_KM * math.asin(math.sqrt(min(1.0, max(0.0, square))))


FARTHEST_KM = math.pi * EARTH_KM
"""Half the Earth's circumference: the distance that an answer without coordinates counts as, where it must count."""


def median_km(distances: Iterable[float | None], mode: Mode = "strict") -> float | None:
    """The median of distances; one that is not known counts as `FARTHEST_KM`. None without any.

    "strict" is the usual median; "upstream" the element at ceil(n / 2) - 1, the lower of the two in the middle, which
    is what GeoBench reports (where what is not known becomes the distance to a fixed town).
    """
    known = sorted(FARTHEST_KM if one is None else float(one) for one in distances)
    if not known:
        return None
    low, high = known[math.ceil(len(known) / 2) - 1], known[len(known) // 2]
    return low if mode == "upstream" else (low + high) / 2


def share_within(distances: Iterable[float | None], km: float = 3.0) -> float | None:
    """The share of distances below `km`, what is not known among the rest; None without any."""
    known = list(distances)
    return sum(one is not None and one < km for one in known) / len(known) if known else None


# ---- reading an answer -----------------------------------------------------------------------------------------------


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


# ---- levels ----------------------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """A name for comparing: `rewards.normal`, and without marks on its letters."""
    bare = unicodedata.normalize("NFKD", normal(text))
    return "".join(letter for letter in bare if not unicodedata.combining(letter))


def levels(text: str | None, place: Mapping[str, Any], mode: Mode = "strict") -> dict[str, bool]:
    """Which levels of a place an answer gets right: country, state, city; levels that the place lacks are left out.

    "strict" reads the fields of the answer and nests downwards: a level counts only where no level above it is named
    wrong, so that "Paris, Texas, USA" is no Paris in France; in prose, a name counts only beside the country's.
    "upstream" looks for the names anywhere in the answer and nests upwards, as GeoVista's rule matcher does: the
    right city makes state and country right, whatever else is said.
    """
    guess = read_place(text)
    known = [level for level in LEVELS if place.get(level)]
    if mode == "upstream":
        found = {level: _said(guess.text, _names(place, level)) for level in known}
        for number, level in enumerate(known):
            found[level] = any(found[deeper] for deeper in known[number:])
        return found
    fields = {level: str(getattr(guess, level)) for level in LEVELS}
    if not any(fields.values()):
        return _in_prose(guess.text, place, known)
    right: dict[str, bool] = {}
    clean = True
    for level in known:
        right[level] = clean and _same(fields[level], _names(place, level))
        clean = clean and (right[level] or not fields[level])
    return right


def _in_prose(text: str, place: Mapping[str, Any], known: Sequence[str]) -> dict[str, bool]:
    """Strict levels of an answer without fields: a name counts beside its country's, or where it stands alone."""
    said = {level: _said(text, _names(place, level)) for level in known}
    anchored = said.get("country", True)
    return {level: said[level] and (anchored or plain(text) in _names(place, level)) for level in known}


def _names(place: Mapping[str, Any], level: str) -> list[str]:
    others = (place.get("names") or {}).get(level) or ()
    return [name for name in (plain(str(one)) for one in (place[level], *others)) if name]


def _same(said: str, names: Sequence[str]) -> bool:
    """Whether a field is one of the names, perhaps with something in brackets or behind a comma."""
    whole = plain(said)
    first = plain(re.split(r"[,(;/]", said)[0])
    return bool(whole) and (whole in names or first in names)


def _said(text: str, names: Sequence[str]) -> bool:
    padded = f" {plain(text)} "
    return any(f" {name} " in padded for name in names)


# ---- rewards ---------------------------------------------------------------------------------------------------------


def hierarchy(right: Mapping[str, bool], beta: float = 2.0) -> float:
    """Beta squared for the city, else beta for the state, else 1 for the country, else 0. Source: GeoVista, Eq. 4."""
    return next((beta**power for power, level in ((2, "city"), (1, "state"), (0, "country")) if right.get(level)), 0.0)


Score = Callable[[Task, Trajectory], "float | None"]


AnswerOf = Callable[[Trajectory], "str | None"]


def own_answer(trajectory: Trajectory) -> str | None:
    """The answer as the episode has it."""
    return trajectory.answer


def geo_reward(
    beta: float = 2.0, mode: Mode = "strict", scale: bool = False, answer_of: AnswerOf = own_answer
) -> Score:
    """A component: the hierarchy of the answer's place.

    Args:
        beta: 2 gives 4, 2 and 1.
        mode: see `levels`.
        scale: divide by what the most exact level that the place has is worth, so that 1.0 is all that can be had.
        answer_of: finds the answer in the trajectory; its own `answer` by default.
    """

    def component(task: Task, trajectory: Trajectory) -> float | None:
        right = levels(answer_of(trajectory), task.metadata.get("place") or {}, mode)
        if not right:
            return None
        value = hierarchy(right, beta)
        return value / hierarchy(dict.fromkeys(right, True), beta) if scale else value

    return component


def level_right(level: str, mode: Mode = "strict", answer_of: AnswerOf = own_answer) -> Score:
    """A component: 1.0 where the answer's country, state or city is right; None where the task's is not known."""

    def component(task: Task, trajectory: Trajectory) -> float | None:
        found = levels(answer_of(trajectory), task.metadata.get("place") or {}, mode)
        return float(found[level]) if level in found else None

    return component


def distance_km(task: Task, trajectory: Trajectory) -> float | None:
    """Kilometres between the answer's coordinates and the task's; `FARTHEST_KM` where it gives none."""
    place = task.metadata.get("place") or {}
    if place.get("lat") is None or place.get("lng") is None:
        return None
    guess = read_place(trajectory.answer)
    if guess.lat is None or guess.lng is None:
        return FARTHEST_KM
    return haversine((guess.lat, guess.lng), (float(place["lat"]), float(place["lng"])))


def within_km(km: float = 3.0) -> Score:
    """A component: 1.0 where the answer's coordinates lie less than `km` from the task's."""

    def component(task: Task, trajectory: Trajectory) -> float | None:
        distance = distance_km(task, trajectory)
        return None if distance is None else float(distance < km)

    return component


def queries_of(trajectory: Trajectory, argument: str = "query") -> list[str]:
    """What the policy searched for by text, in order, as it wrote it."""
    found = []
    for node in trajectory.path():
        for call in node.message.calls:
            value = (call.arguments or {}).get(argument)
            if isinstance(value, str) and value.strip():
                found.append(value)
    return found


_FAMOUS = re.compile(r"\bfamous\s+\w+", re.IGNORECASE)

KNOWN_PLACES = (
    *("Amsterdam", "Athens", "Bangkok", "Barcelona", "Beijing", "Berlin", "Brussels", "Buenos Aires", "Cairo"),
    *("Chicago", "Delhi", "Dubai", "Dublin", "Edinburgh", "Florence", "Hong Kong", "Istanbul", "Jakarta"),
    *("Johannesburg", "Kyoto", "Lisbon", "London", "Los Angeles", "Madrid", "Melbourne", "Mexico City", "Milan"),
    *("Moscow", "Mumbai", "Munich", "New York", "Osaka", "Paris", "Prague", "Rio de Janeiro", "Rome"),
    *("San Francisco", "Santiago", "S\u00e3o Paulo", "Seoul", "Shanghai", "Singapore", "Sydney", "Tokyo"),
    *("Toronto", "Vancouver", "Venice", "Vienna", "Zurich", "Acropolis", "Big Ben", "Brandenburg Gate"),
    *("Burj Khalifa", "Charles Bridge", "Christ the Redeemer", "CN Tower", "Colosseum", "Eiffel Tower"),
    *("Forbidden City", "Golden Gate Bridge", "Great Wall", "Hagia Sophia", "Louvre", "Machu Picchu"),
    *("Petronas Towers", "Red Square", "Sagrada Familia", "Statue of Liberty", "Sydney Opera House"),
    *("Taj Mahal", "Times Square", "Tower Bridge", "Trevi Fountain"),
)
"""Towns and sights that everybody knows: who searches for one by its name is likely to guess. Our own list."""


def query_leak(each: float = 0.5, most: float = 2.0, known: Iterable[str] = (), argument: str = "query") -> Score:
    """A component: something is taken off for every query that guesses instead of looking; the same one counts once.

    A query does where it names the task's place, one of `known` (see `KNOWN_PLACES`), or says "famous ...". Source:
    variant v1 of GeoVista's reward.

    Returns:
        A component with values from -most to 0.
    """
    guessed = [plain(name) for name in known]

    def component(task: Task, trajectory: Trajectory) -> float:
        place = task.metadata.get("place") or {}
        gold = [name for level in LEVELS if place.get(level) for name in _names(place, level)]
        queries = dict.fromkeys(query.strip() for query in queries_of(trajectory, argument))
        leaks = sum(_said(query, [*gold, *guessed]) or bool(_FAMOUS.search(query)) for query in queries)
        return -min(most, each * leaks) if leaks else 0.0

    return component


def alignment(mode: Mode = "strict", answer_of: AnswerOf = own_answer) -> Score:
    """A component: where search results named the task's city, +1 for the right city and -1 for another; else 0.

    "upstream" takes any text that holds the city's letters for its name, and the query that GeoVista's results repeat
    for a result. Source: variants v1 and v2 of GeoVista's reward.
    """

    def component(task: Task, trajectory: Trajectory) -> float | None:
        place = task.metadata.get("place") or {}
        if not place.get("city"):
            return None
        text, names = results_text(trajectory, repeated=mode == "upstream"), _names(place, "city")
        if not (_said(text, names) if mode == "strict" else any(name in plain(text) for name in names)):
            return 0.0
        return 1.0 if levels(answer_of(trajectory), place, mode).get("city") else -1.0

    return component


_REPEATED = re.compile(r'"query": "(?:[^"\\]|\\.)*"')


def results_text(trajectory: Trajectory, repeated: bool = False) -> str:
    """What searches showed the policy, with the query that GeoVista's format repeats only where `repeated`."""
    texts = []
    for run in trajectory.tool_runs:
        node = trajectory.nodes[run.node]
        if run.error_kind is None and not node.rolled_back and "ids" in (run.data or {}):
            texts += [part.text for part in run.parts or node.message.parts if isinstance(part, Table)]
    return "\n".join(texts if repeated else [_REPEATED.sub("", text, count=1) for text in texts])


def shaped(variant: Literal["base", "v1", "v2", "v3", "v4"], mode: Mode = "upstream", **leak: Any) -> Score:
    """GeoVista's reward by variant: base, v1 (base + leak + alignment), v2 (base + alignment), v3 (country), v4 (city).

    `leak` are options of `query_leak`.
    """
    parts: Mapping[str, tuple[Score, ...]] = {
        "base": (geo_reward(mode=mode),),
        "v1": (geo_reward(mode=mode), query_leak(**leak), alignment(mode)),
        "v2": (geo_reward(mode=mode), alignment(mode)),
        "v3": (level_right("country", mode),),
        "v4": (level_right("city", mode),),
    }
    chosen = parts[variant]

    def component(task: Task, trajectory: Trajectory) -> float | None:
        values = [part(task, trajectory) for part in chosen]
        known = [value for value in values if value is not None]
        return math.fsum(known) if values[0] is not None else None

    return component
