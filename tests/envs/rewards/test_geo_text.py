"""Places read out of answers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.envs.rewards.geo import levels
from agentenv.envs.rewards.geo_text import read_place
from tests.envs.rewards.placed import PARIS


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"country": "France", "state": "Ile-de-France", "city": "Paris", "lat": 48.8566, "lng": 2.3522}),
        'So {"Country": "France", "Region": "Ile-de-France", "Town": "Paris", "Latitude": "48.8566", "lon": 2.3522}.',
        "Country: France\nState: Ile-de-France\nCity: Paris\nCoordinates: 48.8566, 2.3522",
        "**Country:** France\n- **Province**: Ile-de-France\n- City = Paris\nLatitude: 48.8566 N\nLongitude: 2.3522 E",
    ],
)
def test_places_are_read(text: str) -> None:
    guess = read_place(text)
    assert (guess.country, guess.state, guess.city) == ("France", "Ile-de-France", "Paris")
    assert (guess.lat, guess.lng) == (48.8566, 2.3522)


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("Paris (48.86, 2.35)", (48.86, 2.35)),
        ("33.87\u00b0 S, 151.21\u00b0 E", (-33.87, 151.21)),
        ("33.87\u00b0S 151.21\u00b0E", (-33.87, 151.21)),
        ("33\u00b052'12\"S, 151\u00b012'36\"E", (-33.87, 151.21)),
        ("0\u00b030\u2032 S 10\u00b0 0\u2032 W", (-0.5, -10)),
        ("-0\u00b030'0\", 179\u00b030'", (-0.5, 179.5)),
        ('{"lat": "33\u00b030\'S", "lng": "179\u00b030\'W"}', (-33.5, -179.5)),
        ('{"city": "Paris", "location": {"lat": 48.5, "lng": 2}}', (48.5, 2)),
        ('{"coordinates": [-90, 180.0]}', (-90, 180)),
        ('{"lat": null, "lng": 5}', (None, None)),
        ("on 12, 13 of May", (None, None)),
        ("at 95.5, 10.0 there is nothing", (None, None)),
        ('{"lat": 200, "lng": 5}', (None, None)),
        ("{broken", (None, None)),
        ("", (None, None)),
    ],
)
def test_coordinates_are_read(text: str, pair: tuple[float | None, float | None]) -> None:
    guess = read_place(text)
    assert (guess.lat, guess.lng) == pytest.approx(pair)


@given(st.text(max_size=300))
def test_reading_never_raises(text: str) -> None:
    guess = read_place(text)
    assert guess.lat is None or -90 <= guess.lat <= 90
    assert guess.lng is None or -180 <= guess.lng <= 180
    for mode in ("strict", "upstream"):
        levels(text, PARIS, mode)


@given(st.floats(-90, 90), st.floats(-180, 180))
def test_coordinates_survive_writing(lat: float, lng: float) -> None:
    guess = read_place(json.dumps({"lat": round(lat, 4), "lng": round(lng, 4)}))
    assert guess.lat == pytest.approx(round(lat, 4))
    assert guess.lng == pytest.approx(round(lng, 4))
