"""Geo rewards: the nested hierarchy, leaks and alignment."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.envs.rewards.geo import (
    KNOWN_PLACES,
    LEVELS,
    alignment,
    geo_reward,
    hierarchy,
    level_right,
    levels,
    query_leak,
    shaped,
)
from agentenv.envs.rewards.geo_text import Mode
from agentenv.types import Task, Text
from tests.envs.rewards.placed import NOWHERE, PARIS, TASK, record

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
    assert [level_right(level)(TASK, right) for level in LEVELS] == [1.0, 1.0, 1.0]
    lost = record(None)
    assert geo_reward()(TASK, lost) == 0.0


def test_what_the_task_does_not_know_is_unscored() -> None:
    some = record("Paris")
    assert geo_reward()(NOWHERE, some) is None
    assert level_right("city")(NOWHERE, some) is None
    assert alignment()(NOWHERE, some) is None
    assert shaped("v1")(NOWHERE, some) is None
    spot = Task("s", (Text("?"),), metadata={"place": {"lat": 1.0, "lng": 2.0}})
    assert geo_reward()(spot, some) is None  # neither city nor state nor country is known
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
