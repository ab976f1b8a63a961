"""Questions on the emblem in a picture, generated from a seed: find it, search with its picture, then search on.

    mm_search_tasks(seed=0, difficulty=3).take(100)

| kind | level | asks | documents |
| --- | --- | --- | --- |
| only-emblem | 1 | the inhabitants of the town whose emblem is the only one | 1 |
| emblem-population | 2 | the inhabitants of the town whose emblem hangs above a code | 1 |
| emblem-state | 2 | its division | 1 |
| emblem-capital | 3 | the inhabitants of the capital of its country | 3 |
| emblem-difference | 4 | by how many inhabitants the towns of two emblems differ | 2 |
| emblem-largest | 5 | the latitude of the town with the most inhabitants in its division | 3 |

The emblems are invented (see `agentenv.envs.corpus.emblems`), so that only the picture index tells whose they are; the
codes beneath them cannot be read in the first view.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from msgspec import Struct

from agentenv.envs._options import check_drawing, chosen_kinds
from agentenv.envs.corpus import atlas
from agentenv.envs.corpus.emblems import emblems
from agentenv.envs.corpus.places import State, Town
from agentenv.envs.corpus.writing import state_id
from agentenv.envs.search.questions import Hop, country_hop, largest_hop, town_hop
from agentenv.envs.sights.stage import (
    FIRST_VIEW,
    LEVELS,
    Staged,
    country_of,
    emblem_box,
    plaques_beside,
    stage,
    towns_of,
)
from agentenv.envs.sights.things import Plaque
from agentenv.envs.zoom.vocabulary import Split, code
from agentenv.errors import UsageError
from agentenv.task import TaskSet
from agentenv.types import Task, Text

_VERSION = 2


class Asked(Struct, frozen=True):
    """A question on the emblems of towns, with "{}" for the codes beneath them."""

    text: str
    answer: str
    answer_type: str
    towns: tuple[Town, ...]
    hops: tuple[Hop, ...]


Ask = Callable[[Random, Sequence[Town]], "Asked | None"]


def only_emblem(rng: Random, towns: Sequence[Town]) -> Asked | None:
    town = rng.choice(towns)
    text = "One emblem hangs in this picture, on a white plaque. How many inhabitants has the place that it stands for?"
    return Asked(text, str(town.population), "integer", (town,), (town_hop(atlas(), town),))


def emblem_population(rng: Random, towns: Sequence[Town]) -> Asked | None:
    town = rng.choice(towns)
    text = "How many inhabitants has the place whose emblem hangs above the code {}?"
    return Asked(text, str(town.population), "integer", (town,), (town_hop(atlas(), town),))


def emblem_state(rng: Random, towns: Sequence[Town]) -> Asked | None:
    town = rng.choice(towns)
    text = "In which first-level division of its country lies the place whose emblem hangs above the code {}?"
    return Asked(text, town.state, "text", (town,), (town_hop(atlas(), town, town.state),))


def emblem_capital(rng: Random, towns: Sequence[Town]) -> Asked | None:
    # The country first: towns are spread unevenly, and the capital of the most frequent one would be a good guess.
    places, home = atlas(), rng.choice(sorted({town.country for town in towns}))
    town, country = rng.choice([town for town in towns if town.country == home]), places.countries[home]
    capital = places.capital(country)
    if capital is None or capital.id == town.id or not capital.population:
        return None
    text = "Above the code {} hangs the emblem of a place. How many inhabitants has the capital of its country?"
    hops = (town_hop(places, town, country.name), country_hop(country), town_hop(places, capital))
    return Asked(text, str(capital.population), "integer", (town,), hops)


def emblem_difference(rng: Random, towns: Sequence[Town]) -> Asked | None:
    first, second = rng.sample(list(towns), 2)
    if first.population == second.population:
        return None
    text = (
        "By how many inhabitants do the two places differ whose emblems hang above the codes {} and {}? Answer with the"
        " number."
    )
    hops = (town_hop(atlas(), first), town_hop(atlas(), second))
    return Asked(text, str(abs(first.population - second.population)), "integer", (first, second), hops)


def emblem_largest(rng: Random, towns: Sequence[Town]) -> Asked | None:
    town, places = rng.choice(towns), atlas()
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


KINDS: dict[str, tuple[int, Ask]] = {
    "only-emblem": (1, only_emblem),
    "emblem-population": (2, emblem_population),
    "emblem-state": (2, emblem_state),
    "emblem-capital": (3, emblem_capital),
    "emblem-difference": (4, emblem_difference),
    "emblem-largest": (5, emblem_largest),
}
"""Level and drawer by name."""


def mm_search_tasks(
    seed: int = 0,
    difficulty: int | None = None,
    kinds: Iterable[str] | None = None,
    length: int | None = None,
    split: Split = "train",
    first_view: int = FIRST_VIEW,
    cache: str | os.PathLike[str] | None = None,
) -> TaskSet:
    """A seeded set of questions on emblems in pictures.

    Args:
        seed: another seed, another sequence of tasks.
        difficulty: 1 to 5, see the table above; None mixes all of them evenly.
        kinds: which kinds of question, out of `KINDS`; all of them by default.
        length: how many tasks; None for no end.
        split: "train" or "test". No town's emblem is asked for in both.
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
    chosen = tuple(kind for kind in chosen_kinds(kinds, KINDS) if difficulty in (None, KINDS[kind][0]))
    if not chosen:
        raise UsageError(f"none of the kinds of question is of difficulty {difficulty}")
    level = "" if difficulty is None else f"-d{difficulty}"
    narrow = "" if kinds is None else "-" + "+".join(chosen)
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
    towns, asked = towns_of(split), None
    while asked is None:
        asked = KINDS[kind][1](rng, towns)
    labels = _codes(rng, len(asked.towns) + LEVELS[number].others, split) if "{}" in asked.text else [""]
    own, rest = labels[: len(asked.towns)], labels[len(asked.towns) :]
    needed = [Plaque(emblems()[town.id], label) for town, label in zip(asked.towns, own, strict=True)]
    staged = stage(needed, plaques_beside(rng, towns, asked.towns, rest), number, first_view, cache, whole)
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
            "hops": len(asked.towns) + len(asked.hops),
            "em": round(staged.em, 2),
            "backdrop": staged.backdrop,
            "source": "emblems",
        },
        seed=seed,
    )


def _codes(rng: Random, count: int, split: str) -> list[str]:
    codes: dict[str, None] = {}
    while len(codes) < count:
        codes[code(rng, split)] = None
    return list(codes)


def _evidence(asked: Asked, needed: Sequence[Plaque], staged: Staged) -> dict[str, Any]:
    boxes = [list(box) for box in staged.boxes]
    spots = [emblem_box(box, thing, staged.em) for box, thing in zip(staged.boxes, needed, strict=True)]
    documents = [f"emblem-{town.id}" for town in asked.towns] + [hop.document for hop in asked.hops]
    return {
        "image": "image_1",
        "boxes": boxes,
        "texts": [list(thing.texts) for thing in needed],
        "emblems": spots,
        "documents": list(dict.fromkeys(documents)),
        "hops": [{"query": hop.query, "document": hop.document, "fact": hop.fact} for hop in asked.hops],
    }
