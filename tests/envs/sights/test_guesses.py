"""mm-search and geo: answers without looking score near zero, and tasks are the same in every process."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import pytest

from agentenv.envs.corpus import embedded_corpus
from agentenv.envs.corpus.places import Town
from agentenv.envs.geo.tasks import QUESTION
from agentenv.envs.mm_search.tasks import KINDS, Asked
from agentenv.envs.rewards.geo import hierarchy, levels
from agentenv.envs.search.answers import search_match
from agentenv.envs.sights.stage import country_of, towns_of

LIMIT = 0.06
"""Share of answers that a guess may hit."""

Guess = Callable[[random.Random, str], str]


def words(rng: random.Random, question: str) -> str:
    return str(rng.choice(re.findall(r"[\w-]+", question)))


def first_title(rng: random.Random, question: str) -> str:
    hits = embedded_corpus().find(question, 1)
    return hits[0].title if hits else ""


def first_number(rng: random.Random, question: str) -> str:
    hits = embedded_corpus().find(question, 1)
    return next(iter(re.findall(r"-?\d[\d,.]*\d", hits[0].text if hits else "")), "")


@pytest.mark.parametrize("kind", list(KINDS))
def test_cheap_guesses_do_not_answer_what_is_asked_of_an_emblem(kind: str) -> None:
    rng, draw = random.Random(kind), KINDS[kind][1]

    def asked(count: int) -> list[Asked]:
        return [one for one in (draw(rng, "train") for _ in range(count)) if one is not None]

    seen, tasks = asked(300), asked(120)
    usual = Counter(one.answer for one in seen).most_common(1)[0][0]
    guesses: dict[str, Guess] = {
        "usual": lambda rng, question: usual,
        "another's": lambda rng, question: rng.choice(seen).answer,
        "words": words,
        "title": first_title,
        "number": first_number,
    }
    for name, guess in guesses.items():
        right = 0.0
        for one in tasks:
            question = one.text.format("RK6-3EU", "ZT4-8PA")
            right += search_match(guess(rng, question), one.answer, {"answer_type": one.answer_type})
        assert right / len(tasks) < LIMIT, name


def place(town: Town) -> dict[str, object]:
    names = {"city": list(town.names), "country": [town.country]}
    found = {"country": country_of(town), "state": town.state, "city": town.name}
    return {**found, "lat": town.latitude, "lng": town.longitude, "names": names}


def written(town: Town) -> str:
    return json.dumps({"country": country_of(town), "state": town.state, "city": town.name})


def test_cheap_guesses_do_not_tell_a_place() -> None:
    rng, towns = random.Random(1), towns_of("train")
    truths = [place(town) for town in rng.sample(towns, 200)]
    usual = Counter(country_of(town) for town in towns).most_common(1)[0][0]
    first = embedded_corpus().find(QUESTION, 1)
    title = first[0].title if first else ""
    inside = [town for town in towns if country_of(town) == usual]
    guesses: dict[str, Callable[[], str]] = {
        "usual country": lambda: json.dumps({"country": usual}),
        "town of the usual country": lambda: written(rng.choice(inside)),
        "any bearer": lambda: written(rng.choice(towns)),
        "first result": lambda: title,
        "words": lambda: words(rng, QUESTION),
    }
    for name, guess in guesses.items():
        value = sum(hierarchy(levels(guess(), truth)) / 4 for truth in truths) / len(truths)
        assert value < LIMIT, (name, value)


PROGRAM = """
import hashlib
from agentenv.envs.corpus import atlas
from agentenv.envs.corpus.emblems import emblems
from agentenv.envs.corpus.writing import documents
from agentenv.envs.geo.tasks import geo_tasks
from agentenv.envs.mm_search.tasks import mm_search_tasks
digest = hashlib.sha256()
for hit in documents(atlas()):
    digest.update(repr((hit.id, hit.title, hit.text, hit.url)).encode())
digest.update(repr(sorted(emblems().items())).encode())
for tasks in (geo_tasks(seed=5, first_view=420), mm_search_tasks(seed=5, first_view=420)):
    for task in tasks.take(5):
        digest.update(repr((task.id, task.prompt, task.answer, task.evidence)).encode())
print(digest.hexdigest())
"""


def test_corpus_and_scenes_are_the_same_in_every_process() -> None:
    """Whatever the order of sets; a scene's part of the prompt holds the hash of its bytes."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, env={**os.environ, "PYTHONHASHSEED": seed}
        )
        for seed in ("1", "2")
    ]
    digests = [process.communicate(timeout=120)[0].decode().strip() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert len(digests[0]) == 64
    assert digests[0] == digests[1]
