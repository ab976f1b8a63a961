"""Facts as plain sentences: one document a town, a division, a country, an article or a word."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import quote

from agentenv.envs.corpus.articles import LICENSE as ARTICLES_LICENSE
from agentenv.envs.corpus.articles import Article, articles
from agentenv.envs.corpus.places import LICENSE as PLACES_LICENSE
from agentenv.envs.corpus.places import Atlas, Country, State, Town
from agentenv.envs.corpus.words import LICENSE as WORDS_LICENSE
from agentenv.envs.corpus.words import Word, words
from agentenv.tools.search import Hit

SITE = "https://atlas.example"
"""Where the documents on places are said to stand; the domain is reserved and leads nowhere."""


def documents(places: Atlas, with_articles: bool = True, with_words: bool = True) -> Iterator[Hit]:
    """All documents of the embedded corpus, always in the same order."""
    yield from (country_document(places, country) for country in places.countries.values())
    yield from (state_document(places, state) for state in places.states)
    yield from (town_document(places, town) for town in places.towns)
    if with_articles:
        yield from (article_document(article) for article in articles())
    if with_words:
        yield from (word_document(word) for word in words())


# ---- names -----------------------------------------------------------------------------------------------------------


def town_id(town: Town) -> str:
    return f"town-{town.id}"


def state_id(country: str, name: str) -> str:
    return f"state-{country}-{slug(name)}"


def country_id(country: Country) -> str:
    return f"country-{country.code}"


def article_id(article: Article) -> str:
    return f"article-{article.title.replace(' ', '_')}"


def word_id(word: Word) -> str:
    return f"word-{word.name}"


def slug(text: str) -> str:
    """A text as part of an id: its letters and digits in small letters, joined by hyphens."""
    return "-".join(re.findall(r"\w+", unicodedata.normalize("NFC", text).casefold()))


def where(places: Atlas, town: Town) -> str:
    """State and country of a town: "Giurgiu County, Romania"."""
    country = places.countries[town.country].name
    return f"{town.state}, {country}" if town.state else country


def coordinates(town: Town) -> str:
    """Latitude and longitude in decimal degrees, as an answer gives them."""
    return f"{town.latitude:.4f}, {town.longitude:.4f}"


# ---- documents -------------------------------------------------------------------------------------------------------


def town_document(places: Atlas, town: Town) -> Hit:
    lines = [
        f"{town.name} is a populated place in {where(places, town)}.",
        f"{town.name} has {town.population:,} inhabitants." if town.population else "Its inhabitants are not counted.",
        f"Its coordinates are {coordinates(town)}; its time zone is {town.timezone}.",
    ]
    if places.countries[town.country].capital_id == town.id:
        lines.insert(1, f"{town.name} is the capital of {places.countries[town.country].name}.")
    if places.first(town):
        lines.insert(1, f"{town.name} is the largest populated place of {town.state}.")
    if town.names:
        lines.append(f"It is also written {', '.join(town.names)}.")
    url = f"{SITE}/{town.country.lower()}/town/{town.id}"
    return Hit(town_id(town), f"{town.name}, {where(places, town)}", " ".join(lines), url, meta=_of(PLACES_LICENSE))


def state_document(places: Atlas, state: State) -> Hit:
    country = places.countries[state.country].name
    largest = state.towns[:5]
    named = ", ".join(f"{town.name} ({town.population:,} inhabitants)" for town in largest)
    lines = [
        f"{state.name} is a first-level division of {country}.",
        f"The atlas lists {len(state.towns):,} populated places in it; the largest {'is' * (len(largest) == 1)}"
        f"{'are' * (len(largest) > 1)} {named}.",
    ]
    url = f"{SITE}/{state.country.lower()}/{quote(slug(state.name))}"
    name = state_id(state.country, state.name)
    return Hit(name, f"{state.name}, division of {country}", " ".join(lines), url, meta=_of(PLACES_LICENSE))


def country_document(places: Atlas, country: Country) -> Hit:
    name = country.name  # said again and again, as the documents of its neighbours say it too
    lines = [f"{name} is a country or territory in {country.continent}."]
    if country.capital:
        lines.append(f"The capital of {name} is {country.capital}.")
    lines.append(f"{name} covers {country.area:,} square kilometres and has {country.population:,} inhabitants.")
    if country.neighbours:
        lines.append(f"{name} borders {', '.join(one.name for one in places.neighbours(country))}.")
    if country.currency:
        lines.append(f"The currency of {name} is the {country.currency} ({country.currency_code}).")
    if country.calling_code:
        lines.append(f"The telephone calling code of {name} is {country.calling_code}.")
    if country.domain:
        lines.append(f"The internet country domain of {name} is {country.domain}.")
    url = f"{SITE}/{country.code.lower()}"
    return Hit(country_id(country), f"{country.name} (country facts)", " ".join(lines), url, meta=_of(PLACES_LICENSE))


def article_document(article: Article) -> Hit:
    text = f"{article.description}. {article.extract}" if article.description else article.extract
    return Hit(article_id(article), article.title, text, article.url, meta=_of(ARTICLES_LICENSE))


def word_document(word: Word) -> Hit:
    numbered = (f"({number}) {gloss}" for number, gloss in enumerate(word.glosses, 1))
    meaning = "; ".join(numbered if len(word.glosses) > 1 else word.glosses)
    return Hit(
        word_id(word), f"{word.name} (dictionary)", f"{word.name}: {meaning}.", word.url, meta=_of(WORDS_LICENSE)
    )


def _of(licence: str) -> dict[str, str]:
    return {"licence": licence}
