"""Where was this picture taken: scenes of towns, generated from a seed, with signs to zoom to and an emblem to search.

    geo_tasks(seed=0, difficulty=3).take(100)

| level | what tells the place | what misleads |
| --- | --- | --- |
| 1 | the town's name, a web address, a telephone number, its emblem | |
| 2 | its name in another script or spelling, a web address, its emblem | two places that it is far from |
| 3 | a web address and the emblem | the same |
| 4 | a telephone number and the emblem | four places |
| 5 | the emblem alone, in faint light | six places |

All texts are too small for the first view, and the emblems are invented: only the picture index tells whose they are.
"""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Any

from agentenv.envs._options import check_drawing
from agentenv.envs.corpus import atlas
from agentenv.envs.corpus.emblems import emblems
from agentenv.envs.corpus.places import Town
from agentenv.envs.search.questions import town_hop
from agentenv.envs.sights.stage import FIRST_VIEW, LEVELS, country_of, emblem_box, stage, towns_of
from agentenv.envs.sights.things import Placard, Plaque, drawable
from agentenv.envs.zoom.items import Item
from agentenv.envs.zoom.vocabulary import COLOURS, WORDS, Split
from agentenv.task import TaskSet
from agentenv.types import Task, Text

QUESTION = (
    "Where was this picture taken? Answer with a JSON object of country, state (the first-level division), city, lat"
    " and lng (decimal degrees)."
)
_VERSION = 1
_FILLS = tuple(colour for colour in COLOURS if colour != "white")  # white is what plaques are told by
_MISLEADING = {1: 0, 2: 2, 3: 2, 4: 4, 5: 6}


def geo_tasks(
    seed: int = 0,
    difficulty: int | None = None,
    length: int | None = None,
    split: Split = "train",
    first_view: int = FIRST_VIEW,
    cache: str | os.PathLike[str] | None = None,
) -> TaskSet:
    """A seeded set of places to be told from pictures.

    Args:
        seed: another seed, another sequence of tasks.
        difficulty: 1 to 5, see the table above; None mixes all of them evenly.
        length: how many tasks; None for no end.
        split: "train" or "test". No town is asked for in both.
        first_view: longest side, in pixels, of the view that a policy is shown first; the scene's is 4.25 times it.
        cache: a folder in which rendered scenes are kept for the next time.

    Returns:
        Tasks whose prompt is the scene and the question, and whose `answer` is {"country", "state", "city", "lat",
        "lng"}; `metadata["place"]` holds the same with `names`, other spellings by level; `evidence` the `boxes` to
        zoom to, in pixels of the scene, the `texts` in each, the `emblems` to search with, the `documents` and `hops`.

    Raises:
        UnknownNameError: a split that does not exist.
        UsageError: a difficulty out of range.
        MissingExtraError: a package that the corpus or the scenes need is not installed.
    """
    check_drawing(split, difficulty, LEVELS)
    level = "" if difficulty is None else f"-d{difficulty}"
    view = "" if first_view == FIRST_VIEW else f"-v{first_view}"
    prefix = f"geo-{split}{level}{view}-s{seed}"
    folder = None if cache is None else Path(cache)

    def at(index: int) -> Task:
        number = difficulty or 1 + index % len(LEVELS)
        return _task(prefix, seed, split, number, first_view, folder, index)

    return TaskSet.generate(at, length, name=prefix)


def _task(prefix: str, seed: int, split: Split, number: int, first_view: int, cache: Path | None, index: int) -> Task:
    whole = f"agentenv/geo/{_VERSION}/{prefix}/{index}"
    rng = Random(whole)
    towns = towns_of(split, lambda town: atlas().countries[town.country].domain != "")
    town = rng.choice(towns)
    needed: list[Item] = [Plaque(emblems()[town.id]), *_signs(rng, town, number)]
    others = [
        Placard((f"{_far(rng, town)} {rng.randint(40, 900)} km",), rng.choice(_FILLS))
        for _ in range(_MISLEADING[number])
    ]
    staged = stage(needed, others, number, first_view, cache, whole)
    hop = town_hop(atlas(), town, f"{town.latitude:.4f}")
    place = {
        "country": country_of(town),
        "state": town.state,
        "city": town.name,
        "lat": town.latitude,
        "lng": town.longitude,
    }
    return Task(
        id=f"{prefix}-{index}",
        prompt=(staged.image, Text(QUESTION)),
        answer=place,
        evidence={
            "image": "image_1",
            "boxes": [list(box) for box in staged.boxes],
            "texts": [list(item.texts) for item in needed],
            "emblems": [emblem_box(staged.boxes[0], needed[0], staged.em)],
            "documents": [f"emblem-{town.id}", hop.document],
            "hops": [{"query": hop.query, "document": hop.document, "fact": hop.fact}],
        },
        metadata=_metadata(town, place, number, split, staged.em, staged.backdrop),
        seed=seed,
    )


def _metadata(town: Town, place: dict[str, Any], number: int, split: str, em: float, backdrop: str) -> dict[str, Any]:
    return {
        "place": {**place, "names": {"city": list(town.names), "country": [town.country]}},
        "difficulty": number,
        "split": split,
        "em": round(em, 2),
        "backdrop": backdrop,
        "source": "places",
    }


def _signs(rng: Random, town: Town, number: int) -> list[Item]:
    """What stands there of the town: its name, a web address, a telephone number, as the level gives them."""
    country = atlas().countries[town.country]
    word = rng.choice(WORDS).lower()
    lines: list[str] = []
    if number == 1:
        lines.append(town.name if drawable(town.name) else _ascii(town))
    elif number == 2:
        foreign = [name for name in town.names if not name.isascii() and drawable(name)]
        lines.append(rng.choice(foreign) if foreign else town.name)
    if number <= 3:
        lines.append(f"www.{word}{country.domain}")
    if number in (1, 4) and country.calling_code:
        lines.append(f"Tel. +{country.calling_code.lstrip('+')} {rng.randint(20, 99)} {rng.randint(1000, 9999)}")
    return [Placard((line,), rng.choice(_FILLS)) for line in lines if drawable(line)]


def _ascii(town: Town) -> str:
    return next((name for name in town.names if name.isascii()), "Town Hall")


def _far(rng: Random, town: Town) -> str:
    """The name of a town of another country that can be drawn."""
    while True:
        other = rng.choice(atlas().towns[:20_000])
        if other.country != town.country and drawable(other.name):
            return other.name
