"""Questions on what hangs in a scene, generated from a seed: find it, search with its picture, then search on.

    mm_search_tasks(seed=0, difficulty=3).take(100)

| kind | level | asks | documents |
| --- | --- | --- | --- |
| only-emblem | 1 | the inhabitants of the town whose emblem is the only one | 1 |
| emblem-population | 2 | the inhabitants of the town whose emblem hangs above a code | 1 |
| emblem-state | 2 | its division | 1 |
| picture-town | 2 | the inhabitants of the town that is called like the thing in the picture above a code | 1 |
| emblem-capital | 3 | the inhabitants of the capital of its country | 3 |
| flag-capital | 3 | the inhabitants of the capital of the country whose flag hangs above a code | 2 |
| emblem-difference | 4 | by how many inhabitants the towns of two emblems differ | 2 |
| emblem-largest | 5 | the latitude of the town with the most inhabitants in its division | 3 |

The emblems are invented (see `agentenv.envs.corpus.emblems`), so that only the picture index tells whose they are.
Things and flags are real (`agentenv.envs.corpus.pictures`): what they are can be known, but not the number that is
asked for. The codes beneath cannot be read in the first view.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from msgspec import Struct

from agentenv.envs._options import check_drawing, chosen_kinds
from agentenv.envs.corpus import atlas
from agentenv.envs.corpus.emblems import Emblem, emblems
from agentenv.envs.corpus.packages import kinds_at_hand
from agentenv.envs.corpus.pictures import PACKAGE, Pictured, flags, things
from agentenv.envs.corpus.places import State, Town
from agentenv.envs.corpus.writing import state_id, where
from agentenv.envs.search.questions import Hop, capitals, country_hop, largest_hop, town_hop
from agentenv.envs.sights.stage import (
    FIRST_VIEW,
    LEVELS,
    Staged,
    country_of,
    emblem_box,
    stage,
    towns_of,
)
from agentenv.envs.sights.things import Plaque
from agentenv.envs.zoom.vocabulary import Split, code, side
from agentenv.errors import UsageError
from agentenv.task import TaskSet
from agentenv.types import Task, Text

_VERSION = 3
_ALIKE = {"AU", "BV", "FR", "HM", "ID", "MC", "MF", "NO", "RO", "SJ", "TD", "UM", "US"}
"""Countries whose flag is another's, or nearly."""


class Asked(Struct, frozen=True):
    """A question on the emblems of towns, or on other pictures, with "{}" for the codes beneath them."""

    text: str
    answer: str
    answer_type: str
    towns: tuple[Town, ...]
    hops: tuple[Hop, ...]
    pictures: tuple[Pictured, ...] = ()


Ask = Callable[[Random, Split], "Asked | None"]


@lru_cache(maxsize=2)
def _bearers(split: Split) -> tuple[Town, ...]:
    return towns_of(split)


# ---- emblems ---------------------------------------------------------------------------------------------------------


def only_emblem(rng: Random, split: Split) -> Asked | None:
    town = rng.choice(_bearers(split))
    text = "One emblem hangs in this picture, on a white plaque. How many inhabitants has the place that it stands for?"
    return Asked(text, str(town.population), "integer", (town,), (town_hop(atlas(), town),))


def emblem_population(rng: Random, split: Split) -> Asked | None:
    town = rng.choice(_bearers(split))
    text = "How many inhabitants has the place whose emblem hangs above the code {}?"
    return Asked(text, str(town.population), "integer", (town,), (town_hop(atlas(), town),))


def emblem_state(rng: Random, split: Split) -> Asked | None:
    town = rng.choice(_bearers(split))
    text = "In which first-level division of its country lies the place whose emblem hangs above the code {}?"
    return Asked(text, town.state, "text", (town,), (town_hop(atlas(), town, town.state),))


def emblem_capital(rng: Random, split: Split) -> Asked | None:
    # The country first: towns are spread unevenly, and the capital of the most frequent one would be a good guess.
    towns = _bearers(split)
    places, home = atlas(), rng.choice(sorted({town.country for town in towns}))
    town, country = rng.choice([town for town in towns if town.country == home]), places.countries[home]
    capital = places.capital(country)
    if capital is None or capital.id == town.id or not capital.population:
        return None
    text = "Above the code {} hangs the emblem of a place. How many inhabitants has the capital of its country?"
    hops = (town_hop(places, town, country.name), country_hop(country), town_hop(places, capital))
    return Asked(text, str(capital.population), "integer", (town,), hops)


def emblem_difference(rng: Random, split: Split) -> Asked | None:
    first, second = rng.sample(_bearers(split), 2)
    if first.population == second.population:
        return None
    text = (
        "By how many inhabitants do the two places differ whose emblems hang above the codes {} and {}? Answer with the"
        " number."
    )
    hops = (town_hop(atlas(), first), town_hop(atlas(), second))
    return Asked(text, str(abs(first.population - second.population)), "integer", (first, second), hops)


def emblem_largest(rng: Random, split: Split) -> Asked | None:
    town, places = rng.choice(_bearers(split)), atlas()
    state = next((one for one in places.states if (one.country, one.name) == (town.country, town.state)), None)
    if not isinstance(state, State) or len(state.towns) < 2 or town.id == state.towns[0].id:
        return None
    largest, second = state.towns[:2]
    if largest.population == second.population:
        return None
    text = (
        "What is the latitude, in decimal degrees, of the populated place with the most inhabitants in the first-level"
        " division in which the place lies whose emblem hangs above the code {}?"
    )
    middle = Hop(
        f"{state.name}, first-level division of {country_of(town)}", state_id(state.country, state.name), largest.name
    )
    hops = (town_hop(places, town, town.state), middle, largest_hop(places, largest, f"{largest.latitude:.4f}"))
    return Asked(text, f"{largest.latitude:.4f}", "number", (town,), hops)


# ---- things and flags ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _called_like(split: Split) -> tuple[tuple[Pictured, Town], ...]:
    """Things with the towns whose first word names them, where no other town of the division begins with it."""
    words = {one.name: one for one in things() if one.name.isalpha() and side(one.id) == split}
    begins = {town.id: (town.name.casefold().split()[0], town.country, town.state) for town in atlas().towns}
    many = Counter(begins.values())
    alone = ((begins[town.id][0], town) for town in atlas().clear if many[begins[town.id]] == 1)
    return tuple((words[first], town) for first, town in alone if first in words)


def picture_town(rng: Random, split: Split) -> Asked | None:
    thing, town = rng.choice(_called_like(split))
    text = (
        "The picture above the code {} shows a thing. The English word for it is the first word in the name of just one"
        f" populated place in {where(atlas(), town)}. How many inhabitants has that place?"
    )
    return Asked(text, str(town.population), "integer", (), (town_hop(atlas(), town),), (thing,))


@lru_cache(maxsize=2)
def _flown(split: Split) -> tuple[Pictured, ...]:
    known = {country.code for country, _ in capitals(atlas())} - _ALIKE
    return tuple(one for one in flags() if one.country in known and side(one.id) == split)


def flag_capital(rng: Random, split: Split) -> Asked | None:
    flag, places = rng.choice(_flown(split)), atlas()
    country = places.countries[flag.country]
    capital = places.by_id[country.capital_id]
    text = "Above the code {} hangs the flag of a country or territory. How many inhabitants has its capital?"
    hops = (country_hop(country), town_hop(places, capital))
    return Asked(text, str(capital.population), "integer", (), hops, (flag,))


KINDS: dict[str, tuple[int, Ask]] = {
    "only-emblem": (1, only_emblem),
    "emblem-population": (2, emblem_population),
    "emblem-state": (2, emblem_state),
    "picture-town": (2, picture_town),
    "emblem-capital": (3, emblem_capital),
    "flag-capital": (3, flag_capital),
    "emblem-difference": (4, emblem_difference),
    "emblem-largest": (5, emblem_largest),
}
"""Level and drawer by name."""
_NEEDS = {"picture-town": PACKAGE, "flag-capital": PACKAGE}


def mm_search_tasks(
    seed: int = 0,
    difficulty: int | None = None,
    kinds: Iterable[str] | None = None,
    length: int | None = None,
    split: Split = "train",
    first_view: int = FIRST_VIEW,
    cache: str | os.PathLike[str] | None = None,
) -> TaskSet:
    """A seeded set of questions on emblems and other pictures in scenes.

    Args:
        seed: another seed, another sequence of tasks.
        difficulty: 1 to 5, see the table above; None mixes all of them evenly.
        kinds: which kinds of question, out of `KINDS`; all of them by default, "picture-town" and "flag-capital" only
            where the package of the pictures is installed.
        length: how many tasks; None for no end.
        split: "train" or "test". No emblem, thing or flag is asked for in both.
        first_view: longest side, in pixels, of the view that a policy is shown first; the scene's is 4.25 times it.
        cache: a folder in which rendered scenes are kept for the next time.

    Returns:
        Tasks whose prompt is the scene and the question; `evidence` holds `boxes` to zoom to and `emblems` to search
        with, in pixels of the scene, the `texts` in each box, the `documents` of the chain and its `hops`.

    Raises:
        UnknownNameError: a kind or split that does not exist.
        UsageError: a difficulty out of range, or none of the kinds is of this difficulty.
        MissingExtraError: a package that the corpus or the scenes need is not installed.
    """
    check_drawing(split, difficulty, LEVELS)
    fit = tuple(kind for kind in chosen_kinds(kinds, KINDS) if difficulty in (None, KINDS[kind][0]))
    if not fit:
        raise UsageError(f"none of the kinds of question is of difficulty {difficulty}")
    chosen = kinds_at_hand(fit, _NEEDS, named=kinds is not None)
    level = "" if difficulty is None else f"-d{difficulty}"
    narrow = "" if chosen == fit else "-no-pictures"
    narrow = narrow if kinds is None else "-" + "+".join(chosen)
    view = "" if first_view == FIRST_VIEW else f"-v{first_view}"
    prefix = f"emblems-{split}{level}{narrow}{view}-s{seed}"
    folder = None if cache is None else Path(cache)
    return TaskSet.generate(
        lambda index: _task(prefix, seed, split, chosen, first_view, folder, index), length, name=prefix
    )


def _task(
    prefix: str, seed: int, split: Split, kinds: Sequence[str], first_view: int, cache: Path | None, index: int
) -> Task:
    whole = f"agentenv/mm-search/{_VERSION}/{prefix}/{index}"
    rng = Random(whole)
    levels = sorted({KINDS[kind][0] for kind in kinds})
    number = levels[index % len(levels)]
    kind = rng.choice([kind for kind in kinds if KINDS[kind][0] == number])
    asked = None
    while asked is None:
        asked = KINDS[kind][1](rng, split)
    shown = _hung(asked)
    labels = _codes(rng, len(shown) + LEVELS[number].others, split) if "{}" in asked.text else [""]
    own, rest = labels[: len(shown)], labels[len(shown) :]
    needed = list(map(Plaque, shown.values(), own))
    others = list(map(Plaque, _beside(rng, asked, split, len(rest)), rest))
    staged = stage(needed, others, number, first_view, cache, whole)
    return Task(
        id=f"{prefix}-{index}",
        prompt=(staged.image, Text(asked.text.format(*own))),
        answer=asked.answer,
        evidence=_evidence(asked, needed, staged),
        metadata={
            "kind": kind,
            "difficulty": number,
            "answer_type": asked.answer_type,
            "split": split,
            "hops": len(shown) + len(asked.hops),
            "em": round(staged.em, 2),
            "backdrop": staged.backdrop,
            "source": "emblems",
        },
        seed=seed,
    )


def _hung(asked: Asked) -> dict[str, Emblem | Pictured]:
    """What hangs above the codes, by the document that the picture index has of it."""
    return {
        **{f"emblem-{town.id}": emblems()[town.id] for town in asked.towns},
        **{one.id: one for one in asked.pictures},
    }


def _beside(rng: Random, asked: Asked, split: Split, count: int) -> list[Emblem] | list[Pictured]:
    """As many others of what is asked for, to mislead."""
    if not asked.pictures:
        return [emblems()[town.id] for town in rng.sample([t for t in _bearers(split) if t not in asked.towns], count)]
    same = _flown(split) if asked.pictures[0].country else tuple(one for one in things() if side(one.id) == split)
    return rng.sample([one for one in same if one not in asked.pictures], count)


def _codes(rng: Random, count: int, split: str) -> list[str]:
    codes: dict[str, None] = {}
    while len(codes) < count:
        codes[code(rng, split)] = None
    return list(codes)


def _evidence(asked: Asked, needed: Sequence[Plaque], staged: Staged) -> dict[str, Any]:
    boxes = [list(box) for box in staged.boxes]
    spots = [emblem_box(box, thing, staged.em) for box, thing in zip(staged.boxes, needed, strict=True)]
    documents = [*_hung(asked), *(hop.document for hop in asked.hops)]
    return {
        "image": "image_1",
        "boxes": boxes,
        "texts": [list(thing.texts) for thing in needed],
        "emblems": spots,
        "documents": list(dict.fromkeys(documents)),
        "hops": [{"query": hop.query, "document": hop.document, "fact": hop.fact} for hop in asked.hops],
    }
