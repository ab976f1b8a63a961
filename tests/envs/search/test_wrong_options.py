"""Environments that search: an option that makes no sense is refused when the environment is made, by its name."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import agentenv
from agentenv.errors import UsageError
from agentenv.registry import load_object, options_of, registrations

NAMES = ("search", "mm-search", "geo", "search-r1", "mmsearch-r1", "deepmmsearch-r1", "geovista")
WRONG: tuple[Any, ...] = (object(), b"x", [object()])
"""What no option takes."""


def options(name: str) -> dict[str, inspect.Parameter]:
    return dict(options_of(load_object(registrations()[name].entry_point)))


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in NAMES for option in options(name)])
def test_what_no_option_takes_is_refused_by_its_name(name: str, option: str) -> None:
    for value in WRONG:
        with pytest.raises(UsageError, match=rf"\b{option}\b"):
            agentenv.make(name, **{option: value})


CASES: tuple[tuple[str, Any, str], ...] = (
    ("system", 5, "a text"),
    ("render_mode", "x", "ansi or none"),
    ("render_mode", 5, "a text or none"),
    ("k", "x", "a whole number"),
    ("k", 1.5, "a whole number"),
    ("k", True, "a whole number"),
    ("k", 0, "1"),
    ("excerpt", "all", "a whole number or none"),
    ("excerpt", -1, "characters is at least 1"),
    ("difficulty", 9, "1 to 5|1 or 2|no kind"),
    ("difficulty", "hard", "a whole number"),
    ("split", "dev", "train"),
    ("split", 5, "a text or none"),
    ("seed", "x", "a whole number"),
    ("source", 5, "a text or a TaskSet"),
    ("source", "nowhere", "unknown source"),
    ("corpus", 5, "a text"),
    ("corpus", "nowhere", "unknown corpus"),
    ("corpus", {}, "the name of a live engine is missing"),
    ("corpus", "live:nowhere", "engine"),
    ("engine", "lucene", "tantivy"),
    ("on_error", "stop", "raise"),
    ("columns", {"question": 5}, "keys with values"),
    ("columns", {"question": "q"}, "columns are those of a file"),
    ("corpus_columns", {"text": "t"}, "corpus_columns are those of a file"),
    ("limits", 5, "Limits or keys with values"),
    ("limits", {"turnz": 3}, "no field 'turnz'"),
    ("texts", 5, "Texts or keys with values"),
    ("fetch", "yes", "true or false"),
    ("tools", "image_zoom", r'a list of texts, for instance tools=\["image_zoom"\]'),
    ("tools", ["image_zom"], "did you mean"),
    ("kinds", 5, "a list of texts"),
    ("pictures", 5, "a text"),
    ("pictures", "nowhere", "emblems"),
    ("frame", "pixels", "unknown"),
    ("first_view", 0, "first_view|most"),
    ("first_view", "x", "a whole number"),
    ("scoring", "lax", "strict"),
    ("variant", "lax", "strict"),
    ("recipe", "none", "unknown recipe"),
    ("leak", -1, "0 and more"),
    ("align", "x", "a number"),
    ("geocode", 1, "true or false or none"),
    ("format", 5, "a text or a function"),
    ("format", "xml", "plain"),
    ("dialect", "hermis", "hermes"),
    ("dialect", 5, "a text"),
    ("dialect_options", 5, "keys with values"),
    ("turns", "x", "a whole number"),
    ("turns", 0, "turns"),
    ("summary", 5, "policy|a text"),
    ("judge", 5, "policy|a text"),
    ("ground", 5, "policy|a function"),
    ("cache", 5, "a text"),
    ("pages", 5, "a Pages or none"),
)


@pytest.mark.parametrize(
    ("name", "option", "value", "told"), [(name, *case) for name in NAMES for case in CASES if case[0] in options(name)]
)
def test_wrong_values_say_what_is_allowed(name: str, option: str, value: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        agentenv.make(name, **{option: value}).tasks[0]


def test_every_option_of_these_environments_is_tried() -> None:
    tried = {option for option, _, _ in CASES}
    assert {option for name in NAMES for option in options(name)} == tried


def test_a_model_as_keys_with_values_has_a_name() -> None:
    with pytest.raises(UsageError, match="has a name, for instance name='openai:MODEL'"):
        agentenv.make("search", judge={"base_url": "http://127.0.0.1:1"})
