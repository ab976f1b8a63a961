"""Geo rewards: reading a place out of an answer, the nested hierarchy, distances, leaks and alignment."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.envs.rewards.geo import (
    EARTH_KM,
    FARTHEST_KM,
    KNOWN_PLACES,
    LEVELS,
    Mode,
    alignment,
    distance_km,
    geo_reward,
    haversine,
    hierarchy,
    level_right,
    levels,
    median_km,
    query_leak,
    read_place,
    shaped,
    share_within,
    within_km,
)
from agentenv.spec import EnvSpec, Limits, Texts
from agentenv.trajectory import Group, Node, Outcome, PolicyInfo, ToolRun, Trajectory
from agentenv.types import Message, Table, Task, Text, ToolCall

PARIS: dict[str, Any] = {
    "country": "France",
    "state": "Île-de-France",
    "city": "Paris",
    "lat": 48.8566,
    "lng": 2.3522,
    "names": {"city": ["Париж"], "country": ["FR", "Frankreich"]},
}
LATITUDES, LONGITUDES = st.floats(-90, 90), st.floats(-180, 180)
POINTS = st.tuples(LATITUDES, LONGITUDES)


def record(answer: str | None, queries: tuple[str, ...] = (), results: str = "") -> Trajectory:
    calls = tuple(ToolCall(str(i), "search_web", "", {"query": query}) for i, query in enumerate(queries))
    nodes = [
        Node(Message("user", (Text("Where?"),)), -1, "task"),
        Node(Message("assistant", (), calls=calls), 0, "sampled"),
        Node(Message("tool", (Table(results, ("title",), ((results,),), 1),)), 1, "env"),
    ]
    runs = [ToolRun("0", "search_web", 1, 2, data={"query": "q", "ids": ["a"]})] if results else []
    spec = EnvSpec("t", "0", "", {}, (), "hermes", {}, "", Limits(), Texts(), "", (), "")
    outcome = Outcome("answer", True, False, answer=answer)
    return Trajectory("id", TASK, spec, "", PolicyInfo("p"), Group("t", 0, 1), 0, 0.0, nodes, [], runs, outcome)


TASK = Task("t", (Text("Where?"),), metadata={"place": PARIS})
NOWHERE = Task("n", (Text("Where?"),))


# ---- distances


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


# ---- reading


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


@given(LATITUDES, LONGITUDES)
def test_coordinates_survive_writing(lat: float, lng: float) -> None:
    guess = read_place(json.dumps({"lat": round(lat, 4), "lng": round(lng, 4)}))
    assert guess.lat == pytest.approx(round(lat, 4))
    assert guess.lng == pytest.approx(round(lng, 4))


# ---- levels


@pytest.mark.parametrize(
    ("text", "strict", "upstream"),
    [
        ("Paris, Île-de-France, France", (1, 1, 1), (1, 1, 1)),
        ('{"country": "France", "state": "Ile de France", "city": "Paris"}', (1, 1, 1), (1, 1, 1)),
        ('{"country": "FR", "city": "Париж"}', (1, 0, 1), (1, 1, 1)),
        ('{"country": "USA", "state": "Texas", "city": "Paris"}', (0, 0, 0), (1, 1, 1)),
        ('{"country": "France", "state": "Normandy", "city": "Paris"}', (1, 0, 0), (1, 1, 1)),
        ('{"country": "France", "city": "Lyon"}', (1, 0, 0), (1, 0, 0)),
        ('{"country": "Paris"}', (0, 0, 0), (1, 1, 1)),
        ("Somewhere in Frankreich", (1, 0, 0), (1, 0, 0)),
        ("Parisian France", (1, 0, 0), (1, 0, 0)),
        ("", (0, 0, 0), (0, 0, 0)),
        (None, (0, 0, 0), (0, 0, 0)),
    ],
)
def test_levels(text: str | None, strict: tuple[int, ...], upstream: tuple[int, ...]) -> None:
    assert tuple(map(int, levels(text, PARIS).values())) == strict
    assert tuple(map(int, levels(text, PARIS, "upstream").values())) == upstream


@given(
    st.sampled_from(["France", "Texas", "", "Paris"]),
    st.sampled_from(["Île-de-France", "", "Texas"]),
    st.text(max_size=9),
)
def test_upstream_levels_nest(country: str, state: str, city: str) -> None:
    found = levels(json.dumps({"country": country, "state": state, "city": city}), PARIS, "upstream")
    assert found["country"] >= found["state"] >= found["city"]


def test_levels_that_are_not_known_are_left_out() -> None:
    assert levels("Paris", {"city": "Paris"}) == {"city": True}
    assert levels("Paris", {}) == {}


@given(st.booleans(), st.booleans(), st.booleans(), st.floats(1.1, 5))
def test_the_hierarchy_pays_the_most_exact_level(country: bool, state: bool, city: bool, beta: float) -> None:
    value = hierarchy({"country": country, "state": state, "city": city}, beta)
    assert value == (beta**2 if city else beta if state else 1.0 if country else 0.0)


# ---- components


def test_rewards_of_an_answer() -> None:
    right = record("Paris, Île-de-France, France (48.86, 2.35)")
    assert geo_reward()(TASK, right) == 4.0
    assert geo_reward(scale=True)(TASK, right) == 1.0
    assert geo_reward(beta=3)(TASK, right) == 9.0
    assert within_km(3)(TASK, right) == 1.0
    assert (distance_km(TASK, right) or 9) < 1
    assert [level_right(level)(TASK, right) for level in LEVELS] == [1.0, 1.0, 1.0]
    lost = record(None)
    assert geo_reward()(TASK, lost) == 0.0
    assert distance_km(TASK, lost) == FARTHEST_KM
    assert within_km()(TASK, lost) == 0.0


def test_what_the_task_does_not_know_is_unscored() -> None:
    some = record("Paris")
    assert geo_reward()(NOWHERE, some) is None
    assert distance_km(NOWHERE, some) is None
    assert within_km()(NOWHERE, some) is None
    assert level_right("city")(NOWHERE, some) is None
    assert alignment()(NOWHERE, some) is None
    assert shaped("v1")(NOWHERE, some) is None
    spot = Task("s", (Text("?"),), metadata={"place": {"lat": 1.0, "lng": 2.0}})
    assert geo_reward()(spot, some) is None  # neither city nor state nor country is known
    assert distance_km(spot, record("1.0, 3.0")) == pytest.approx(math.pi / 180 * EARTH_KM, rel=1e-3)
    country = Task("c", (Text("?"),), metadata={"place": {"country": "France"}})
    assert geo_reward(scale=True)(country, record("France")) == 1.0


def test_queries_that_guess_are_paid_for_within_bounds() -> None:
    leaks = query_leak(known=["Lyon"])
    assert leaks(TASK, record("Paris", ("blue sign with a rooster",))) == 0.0
    assert leaks(TASK, record("Paris", ("Is this paris?", "hotel in Lyon", "famous tower", "red door"))) == -1.5
    assert leaks(TASK, record("Paris", tuple(f"Paris {n}" for n in range(9)))) == -2.0
    assert leaks(TASK, record("Paris", ("Paris", " Paris", "Paris"))) == -0.5  # the same one counts once
    known = query_leak(known=KNOWN_PLACES)
    assert known(TASK, record("Paris", ("sao paulo bakery", "the EIFFEL tower at night", "blue bakery"))) == -1.0
    assert leaks(NOWHERE, record("Paris", ("Paris",))) == 0.0


def test_alignment_of_answer_and_results() -> None:
    assert alignment()(TASK, record("Paris", ("q",), "Paris is large")) == 1.0
    assert alignment()(TASK, record("Lyon", ("q",), "Paris is large")) == -1.0
    assert alignment()(TASK, record("Paris", ("q",), "Lyon is large")) == 0.0


def test_the_query_that_results_repeat_is_no_result() -> None:
    repeated = '{"name": "search_web", "query": "is \\"it\\" Paris", "result": []}'
    assert alignment()(TASK, record("Paris", ("q",), repeated)) == 0.0
    assert alignment("upstream")(TASK, record("Paris", ("q",), repeated)) == 1.0
    assert alignment()(TASK, record("Lyon", ("q",), "a Parisian cafe")) == 0.0
    assert alignment("upstream")(TASK, record("Lyon", ("q",), "a Parisian cafe")) == -1.0


@pytest.mark.parametrize(("variant", "value"), [("base", 4.0), ("v1", 4.5), ("v2", 5.0), ("v3", 1.0), ("v4", 1.0)])
def test_the_variants_of_upstream(variant: Any, value: float) -> None:
    assert shaped(variant)(TASK, record("Paris", ("Paris",), "Paris is large")) == value


@pytest.mark.parametrize("mode", ["strict", "upstream"])
def test_both_modes_agree_on_a_clear_answer(mode: Mode) -> None:
    assert geo_reward(mode=mode)(TASK, record("Paris, Île-de-France, France")) == 4.0
    assert geo_reward(mode=mode)(TASK, record("Berlin, Germany")) == 0.0
