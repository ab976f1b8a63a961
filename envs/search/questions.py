"""Kinds of question over the embedded corpus: each draws its places, the answer, and the chain of documents to it.

| kind | level | asks | answer |
| --- | --- | --- | --- |
| population | 1 | the inhabitants of a town | integer |
| state-of | 1 | the division of a town that shares its name with others of its country | text |
| article | 1 | which subject a sentence describes | text |
| domain-capital | 2 | the inhabitants of the capital of the country with an internet domain | integer |
| largest-latitude | 2 | the latitude of the largest town of a division | number |
| namesake | 2 | the inhabitants of the town whose name is the word that a dictionary explains so | integer |
| same-name | 3 | the inhabitants of the one town, of several with its name, in a time zone | integer |
| larger | 3 | the inhabitants of the larger of two towns | integer |
| difference | 3 | by how many inhabitants two towns differ | integer |
| between | 4 | the inhabitants of the capital of the one country that borders two others | integer |
| sum-capitals | 5 | the inhabitants of the capitals of all countries that border one, together | integer |
| which-of | 5 | which of the countries that border one have a capital of more than so many inhabitants | set |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from random import Random

from msgspec import Struct

from agentenv.envs.corpus.articles import Article, articles
from agentenv.envs.corpus.places import Atlas, Country, State, Town
from agentenv.envs.corpus.words import Word, words
from agentenv.envs.corpus.writing import article_id, country_id, state_id, town_id, where, word_id
from agentenv.envs.zoom.vocabulary import Split, side
from agentenv.tools.search.words import STOP

ARTICLES_KIND = "article"
WORDS_KIND = "namesake"
_PLAIN = re.compile(r"[^,()/]+")
_SENTENCE = re.compile(r"(?<=[a-z0-9)][.!?])\s+(?=[A-Z])")
_GLOSS = range(50, 241)
_MOST_GLOSSES = 8  # a word of more has so long an entry that one gloss hardly finds it


class Hop(Struct, frozen=True):
    """One step of the chain: a query that finds a document, and what of the document is needed."""

    query: str
    document: str
    fact: str


class Asked(Struct, frozen=True):
    """A question with its answer and the chain to it. `subject` decides to which split it belongs."""

    text: str
    answer: str | tuple[str, ...]
    answer_type: str
    hops: tuple[Hop, ...]
    subject: str


Ask = Callable[[Random, Atlas], "Asked | None"]


# ---- parts of chains -------------------------------------------------------------------------------------------------


def town_hop(places: Atlas, town: Town, fact: str = "") -> Hop:
    """Finds a town by its name and place; by default for its inhabitants."""
    query = f"{town.name}, {where(places, town)}"
    if places.countries[town.country].capital_id == town.id:  # large towns have many namesakes, and longer documents
        query += f": {town.name} is the capital of {places.countries[town.country].name}"
    elif places.first(town):
        query += f": {town.name} is the largest populated place of {town.state}"
    return Hop(query, town_id(town), fact or f"{town.population:,}")


def largest_hop(places: Atlas, town: Town, fact: str) -> Hop:
    """Finds the largest town of a division by what the division's document says of it."""
    query = f"{town.name} with {town.population:,} inhabitants, {where(places, town)}"
    return Hop(query, town_id(town), fact)


def country_hop(country: Country, fact: str = "") -> Hop:
    """Finds a country by its name; by default for its capital."""
    return Hop(
        f"{country.name} (country facts): capital of {country.name}, {country.name} borders",
        country_id(country),
        fact or country.capital,
    )


def said_hop(said: str, document: str, fact: str) -> Hop:
    """Finds a document by words that stand in it."""
    return Hop(" ".join(re.findall(r"\w+", said)), document, fact)


def _named(places: Atlas, town: Town) -> str:
    return f"{town.name} ({where(places, town)})"


def capitals(places: Atlas) -> tuple[tuple[Country, Town], ...]:
    """Countries with plain names whose capital's inhabitants are known."""
    pairs = [(country, places.capital(country)) for country in places.countries.values()]
    return tuple((c, town) for c, town in pairs if town and town.population and town.state and _PLAIN.fullmatch(c.name))


# ---- kinds -----------------------------------------------------------------------------------------------------------


def population(rng: Random, places: Atlas) -> Asked | None:
    town = rng.choice(places.clear)
    text = rng.choice(
        (
            "How many inhabitants does {} have?",
            "What is the number of inhabitants of {}?",
            "How many people live in {}, as the atlas gives it?",
        )
    ).format(_named(places, town))
    return Asked(text, str(town.population), "integer", (town_hop(places, town),), town_id(town))


def state_of(rng: Random, places: Atlas) -> Asked | None:
    town = rng.choice(places.clear)
    country = places.countries[town.country].name
    twins = [one for one in places.same_name[town.name] if one.country == town.country]
    if len(twins) < 2 or sum(one.population == town.population for one in twins) > 1:
        return None
    text = (
        f"{len(twins)} populated places of {country} are called {town.name}. In which first-level division does the one"
        f" with {town.population:,} inhabitants lie?"
    )
    hop = Hop(f"{town.name} {country} {town.population:,} inhabitants", town_id(town), town.state)
    return Asked(text, town.state, "text", (hop,), town_id(town))


def article(rng: Random, places: Atlas) -> Asked | None:
    chosen = rng.choice(articles())
    masked = _masked(chosen)
    if masked is None:
        return None
    text = f'Which subject does an encyclopedia describe with these words: "{masked}"?'
    hop = said_hop(masked, article_id(chosen), chosen.title)
    return Asked(text, chosen.title, "text", (hop,), chosen.title)


def _masked(chosen: Article) -> str | None:
    """A later sentence of an article that does not name its subject; None where there is none of a fit length."""
    names = [word.casefold() for word in re.findall(r"\w{4,}", chosen.title)]
    for sentence in _SENTENCE.split(chosen.extract)[1:]:
        said = sentence.casefold()
        telling = len(re.findall(r"\b[a-z]{5,}", sentence)) >= 8  # names alone may stand in their own articles
        if telling and 90 <= len(sentence) <= 320 and names and not any(name[:-1] in said for name in names):
            return sentence.strip().replace('"', "'")
    return None


def domain_capital(rng: Random, places: Atlas) -> Asked | None:
    country, town = rng.choice(capitals(places))
    if not country.domain or country.domain.strip(".") in STOP:
        return None
    text = rng.choice(
        (
            "How many inhabitants has the capital of the country or territory whose internet country domain is {}?",
            "Internet addresses that end in {} belong to a country or territory. How many people live in its capital?",
        )
    ).format(country.domain)
    first = Hop(f"country facts: internet country domain is {country.domain}", country_id(country), country.capital)
    return Asked(text, str(town.population), "integer", (first, town_hop(places, town)), town_id(town))


def largest_latitude(rng: Random, places: Atlas) -> Asked | None:
    state: State = rng.choice(places.states)
    if len(state.towns) < 3 or state.towns[0].population == state.towns[1].population:
        return None
    town, country = state.towns[0], places.countries[state.country].name
    text = (
        f"What is the latitude, in decimal degrees, of the populated place with the most inhabitants in {state.name},"
        f" a first-level division of {country}?"
    )
    first = Hop(f"{state.name}, first-level division of {country}", state_id(state.country, state.name), town.name)
    hops = (first, largest_hop(places, town, f"{town.latitude:.4f}"))
    return Asked(text, f"{town.latitude:.4f}", "number", hops, town_id(town))


@lru_cache(maxsize=1)
def _namesakes(places: Atlas) -> tuple[tuple[Town, Word, tuple[str, ...]], ...]:
    """Towns whose name is a word, with the glosses that tell it from every other word; neither they nor the town's
    place say it.
    """
    short = (word for word in words() if len(word.glosses) <= _MOST_GLOSSES)
    found = (word for word in short if word.name.removesuffix("s") not in STOP)  # the index keeps no "same", nor "ares"
    fit = {word.name: (word, glosses) for word in found if (glosses := _telling(word))}
    named = ((town, town.name.casefold()) for town in places.clear)
    return tuple(
        (town, *fit[name]) for town, name in named if name in fit and name not in where(places, town).casefold()
    )


def _telling(word: Word) -> tuple[str, ...]:
    return tuple(gloss for gloss in word.own if len(gloss) in _GLOSS and word.name[:-1] not in gloss.casefold())


def namesake(rng: Random, places: Atlas) -> Asked | None:
    town, word, glosses = rng.choice(_namesakes(places))
    gloss = rng.choice(glosses)
    text = (
        f'A dictionary explains a word so: "{gloss}". How many inhabitants has the populated place in'
        f" {where(places, town)} whose name is that word?"
    )
    first = said_hop(gloss, word_id(word), word.name)
    return Asked(text, str(town.population), "integer", (first, town_hop(places, town)), town_id(town))


def same_name(rng: Random, places: Atlas) -> Asked | None:
    town = rng.choice(places.clear)
    twins = places.same_name[town.name]
    if not 3 <= len(twins) <= 12 or sum(one.timezone == town.timezone for one in twins) > 1:
        return None
    text = (
        f"{len(twins)} populated places of the atlas are called {town.name}. How many inhabitants has the one whose"
        f" time zone is {town.timezone}?"
    )
    hop = Hop(f"{town.name} time zone {town.timezone}", town_id(town), f"{town.population:,}")
    return Asked(text, str(town.population), "integer", (hop,), town_id(town))


def _two(rng: Random, places: Atlas) -> tuple[Town, Town] | None:
    first = rng.choice(places.clear)
    near = rng.randrange(len(places.clear) - 1)
    second = places.clear[near]
    share = first.population / second.population
    return (first, second) if first.id != second.id and 0.2 < share < 5 and share != 1 else None


def larger(rng: Random, places: Atlas) -> Asked | None:
    pair = _two(rng, places)
    if pair is None:
        return None
    text = f"Which has more inhabitants, {_named(places, pair[0])} or {_named(places, pair[1])}, and how many?"
    most = max(town.population for town in pair)
    hops = tuple(town_hop(places, town) for town in pair)
    return Asked(f"{text} Answer with the number.", str(most), "integer", hops, town_id(pair[0]))


def difference(rng: Random, places: Atlas) -> Asked | None:
    pair = _two(rng, places)
    if pair is None:
        return None
    more, fewer = sorted(pair, key=lambda town: -town.population)
    text = f"How many more inhabitants does {_named(places, more)} have than {_named(places, fewer)}?"
    hops = tuple(town_hop(places, town) for town in (more, fewer))
    return Asked(text, str(more.population - fewer.population), "integer", hops, town_id(pair[0]))


def between(rng: Random, places: Atlas) -> Asked | None:
    country, town = rng.choice(capitals(places))
    around = places.neighbours(country)
    if len(around) < 2:
        return None
    a, b = rng.sample(around, 2)
    if set(a.neighbours) & set(b.neighbours) != {country.code}:
        return None
    text = f"Just one country borders both {a.name} and {b.name}. How many inhabitants has its capital?"
    hops = (
        *(country_hop(one, country.name) for one in (a, b)),
        country_hop(country),
        town_hop(places, town),
    )
    return Asked(text, str(town.population), "integer", hops, town_id(town))


def _bordering(rng: Random, places: Atlas, most: int) -> tuple[Country, list[tuple[Country, Town]]] | None:
    """A country and its two to `most` neighbours, each with its capital."""
    known = {country.code: town for country, town in capitals(places)}
    middle = rng.choice(capitals(places))[0]
    around = places.neighbours(middle)
    if not 2 <= len(around) <= most or not all(one.code in known for one in around):
        return None
    return middle, [(one, known[one.code]) for one in around]


def _around(places: Atlas, middle: Country, around: Sequence[tuple[Country, Town]]) -> tuple[Hop, ...]:
    hops = [country_hop(middle, around[0][0].name)]
    for country, town in around:
        hops += [country_hop(country), town_hop(places, town)]
    return tuple(hops)


def sum_capitals(rng: Random, places: Atlas) -> Asked | None:
    found = _bordering(rng, places, 3)
    if found is None:
        return None
    middle, around = found
    text = f"How many inhabitants have the capitals of all countries that border {middle.name} together?"
    total = sum(town.population for _, town in around)
    return Asked(text, str(total), "integer", _around(places, middle, around), country_id(middle))


def which_of(rng: Random, places: Atlas) -> Asked | None:
    found = _bordering(rng, places, 4)
    if found is None:
        return None
    middle, around = found
    sizes = sorted(town.population for _, town in around)
    place = rng.randrange(len(sizes) - 1)
    if sizes[place + 1] < 1.1 * sizes[place]:
        return None
    limit = round((sizes[place] + sizes[place + 1]) / 2000) * 1000
    names = tuple(country.name for country, town in around if town.population > limit)
    text = (
        f"Which of the countries that border {middle.name} have a capital of more than {limit:,} inhabitants? Name all"
        " of them."
    )
    return Asked(text, names, "set", _around(places, middle, around), country_id(middle))


KINDS: dict[str, tuple[int, Ask]] = {
    "population": (1, population),
    "state-of": (1, state_of),
    ARTICLES_KIND: (1, article),
    "domain-capital": (2, domain_capital),
    "largest-latitude": (2, largest_latitude),
    WORDS_KIND: (2, namesake),
    "same-name": (3, same_name),
    "larger": (3, larger),
    "difference": (3, difference),
    "between": (4, between),
    "sum-capitals": (5, sum_capitals),
    "which-of": (5, which_of),
}
"""Level and drawer by name."""
LEVELS = (1, 2, 3, 4, 5)


def ask(kind: str, rng: Random, places: Atlas, split: Split) -> Asked:
    """A question of a kind whose subject belongs to the split."""
    draw = KINDS[kind][1]
    while True:
        asked = draw(rng, places)
        if asked is not None and side(asked.subject) == split:
            return asked
