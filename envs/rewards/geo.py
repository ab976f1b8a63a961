"""Where was it taken: the levels that an answer gets right, the 4/2/1 hierarchy, and GeoVista's shaping terms.

A task's place is `task.metadata["place"]`: country, state, city, lat, lng, each as far as it is known, and `names`,
other spellings by level. How answers are read stands in `geo_text`, how far they lie from it in `geo_distance`. Source
of the formulas: GeoVista (arXiv 2511.15705), Eq. 4 and `verl/utils/reward_score`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from agentenv.envs.rewards.geo_text import Mode, plain, read_place
from agentenv.trajectory import Trajectory
from agentenv.types import Table, Task

LEVELS = ("country", "state", "city")
# ---- levels ----------------------------------------------------------------------------------------------------------


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
