"""Distances: on the sphere, as medians and shares, and of answers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.envs.rewards.geo_distance import (
    EARTH_KM,
    FARTHEST_KM,
    Spot,
    distance_km,
    distances,
    haversine,
    located,
    median_km,
    share_within,
    spot_of,
    within_km,
)
from agentenv.types import Task, Text
from tests.envs.rewards.placed import NOWHERE, TASK, record

POINTS = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


@given(POINTS, POINTS)
def test_distance_is_a_metric_on_the_sphere(a: tuple[float, float], b: tuple[float, float]) -> None:
    assert haversine(a, b) == pytest.approx(haversine(b, a), abs=1e-6)
    assert 0 <= haversine(a, b) <= FARTHEST_KM + 1e-6
    assert haversine(a, a) == 0


@given(POINTS, POINTS, POINTS)
def test_no_detour_is_shorter(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> None:
    assert haversine(a, c) <= haversine(a, b) + haversine(b, c) + 1e-3


def test_known_distances() -> None:
    assert haversine((0, 0), (0, 90)) == pytest.approx(math.pi / 2 * EARTH_KM)
    assert haversine((90, 0), (-90, 123)) == pytest.approx(FARTHEST_KM)
    assert haversine((52.52, 13.405), (48.8566, 2.3522)) == pytest.approx(877.5, abs=1)
    assert haversine((51.5074, -0.1278), (40.7128, -74.006)) == pytest.approx(5570, abs=1)
    degree = math.pi / 180 * EARTH_KM
    assert haversine((0, 179.5), (0, -179.5)) == pytest.approx(degree)  # across the date line
    assert haversine((0, 180), (0, -180)) == pytest.approx(0, abs=1e-6)
    assert haversine((89.9, 0), (89.9, 180)) == pytest.approx(0.2 * degree)  # across the pole
    assert haversine((-90, 10), (-90, -170)) == pytest.approx(0, abs=1e-6)


def test_medians_and_shares() -> None:
    assert median_km([1, 2, 3, 10]) == 2.5
    assert median_km([1, 2, 3, 10], "upstream") == 2
    assert median_km([5, None, None]) == FARTHEST_KM
    assert median_km([]) is None
    assert share_within([1, 2.99, 3, None]) == 0.5
    assert share_within([]) is None


@given(st.lists(st.floats(0, 20_000), min_size=1))
def test_the_upstream_median_is_one_of_the_distances_and_no_larger(distances: list[float]) -> None:
    upstream = median_km(distances, "upstream")
    assert upstream in distances
    assert upstream is not None
    assert upstream <= (median_km(distances) or 0) + 1e-9


def test_distances_of_an_answer() -> None:
    right, lost = record("Paris, Île-de-France, France (48.86, 2.35)"), record(None)
    assert within_km(3)(TASK, right) == 1.0
    assert (distance_km()(TASK, right) or 9) < 1
    assert distance_km()(TASK, lost) == FARTHEST_KM
    assert within_km()(TASK, lost) == 0.0
    spot = Task("s", (Text("?"),), metadata={"place": {"lat": 1.0, "lng": 2.0}})
    assert distance_km()(spot, record("1.0, 3.0")) == pytest.approx(math.pi / 180 * EARTH_KM, rel=1e-3)


def test_a_place_that_is_not_known_has_no_distance() -> None:
    some = record("Paris (48.86, 2.35)")
    for part in (distance_km(), within_km(), located(None, "given")):
        assert part(NOWHERE, some) is None


def test_a_geocoder_is_asked_where_the_answer_has_no_coordinates() -> None:
    def paris(guess: object) -> Spot:
        return Spot(48.8534, 2.3488, "city")

    assert spot_of("Paris (1.5, 2.5)", paris) == Spot(1.5, 2.5, "given")
    assert spot_of("Paris", paris) == Spot(48.8534, 2.3488, "city")
    assert spot_of("Paris") is None
    named, given = record("Paris"), record("Paris (1.5, 2.5)")
    assert [part.name for part in distances(None)] == ["within_3km", "distance_km", "coordinates_given"]
    parts = {part.name: part.fn for part in distances(paris)}
    assert {name: part(TASK, named) for name, part in parts.items() if name != "distance_km"} == {
        "within_3km": 1.0,
        "coordinates_given": 0.0,
        "geocoded": 1.0,
    }
    assert [parts[name](TASK, given) for name in ("within_3km", "coordinates_given", "geocoded")] == [0.0, 1.0, 0.0]
    lost = distances(lambda guess: None)
    assert [part.fn(TASK, named) for part in lost] == [0.0, FARTHEST_KM, 0.0, 0.0]
