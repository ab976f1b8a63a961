"""Solutions of table questions in steps, some with a mistake, made of the table environment's own tasks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import Any

from msgspec.structs import replace

from agentenv.errors import DataError
from agentenv.types import TableSource, Task, Text

_KINDS = {"number": "a number", "string": "a name", "boolean": "yes or no", "list": "a list of names"}
_ROWS = 5


def with_solution(task: Task) -> Task:
    """A table task with a solution to be verified; unchanged where it brings one.

    The solution, in `metadata["solution"]`, is a list of {"type", "text"}: what is asked for (thinking), which columns
    are taken (retrieval), a query and its result (schema), and the answer. One in three has no mistake. `answer` is a
    list of {"right": 1 or 0, "why"}, one a step, so that the `reference` policy can demonstrate it. In
    `metadata["sub_table"]` stand the first rows of the columns that it works on.

    Raises:
        DataError: the task has neither a solution nor the SQL and the answer of which one is made.
    """
    if "solution" in task.metadata:
        return task
    sql = task.evidence.get("sql")
    if not isinstance(sql, str) or not isinstance(task.answer, list) or not task.answer or not task.tables:
        raise DataError(f"task {task.id!r} has no solution to verify, and no SQL, answer and table to make one of")
    rng = Random(f"agentenv/tattoo/{task.id}")
    place = rng.choice(["", "", "thinking", "retrieval", "schema", "answer"])
    true, kind = [str(value) for value in task.answer], str(task.metadata.get("answer_type", "string"))
    tables = [table for table in task.tables if re.search(rf"\b{re.escape(table.name)}\b", sql)]
    used, spare = _columns(sql, tables)
    taken = [*used]
    if place == "retrieval" and spare and used:
        taken[rng.randrange(len(taken))] = rng.choice(spare)
    said = rng.choice([one for one in _KINDS if one != kind]) if place == "thinking" else kind
    result = _altered(true, task.tables, rng) if place == "schema" else true
    final = _altered(true, task.tables, rng) if place == "answer" else result
    names = ", ".join(table.name for table in tables)
    steps = [
        (
            "thinking",
            f"The question asks for {_KINDS.get(said, said)}.",
            said == kind,
            f"It asks for {_KINDS.get(kind, kind)}.",
        ),
        ("retrieval", f"From {names} I take {', '.join(taken)}.", taken == used, f"It needs {', '.join(used)}."),
        ("schema", f"{sql}\ngives {', '.join(result)}.", result == true, f"The query gives {', '.join(true)}."),
        ("answer", f"So the answer is {', '.join(final)}.", final == true, f"It is {', '.join(true)}."),
    ]
    solution = [{"type": type, "text": text} for type, text, _, _ in steps]
    looks = [{"tool": "table_head", "arguments": {"table": table.name}} for table in tables[:1]]
    return replace(
        task,
        answer=[{"right": int(right), "why": why} for _, _, right, why in steps],
        evidence={**task.evidence, "steps": [*looks, {"sql": sql}]},
        metadata={**task.metadata, "solution": solution, "sub_table": _sub_table(tables, used)},
    )


def _sub_table(tables: Sequence[TableSource], columns: Sequence[str]) -> str:
    """The first rows of the columns that a solution works on, as text."""
    shown = []
    for table in tables:
        places = [place for place, name in enumerate(table.columns) if name in columns]
        if places:
            rows = [table.columns, *table.rows[:_ROWS]]
            lines = [" | ".join("" if row[place] is None else str(row[place]) for place in places) for row in rows]
            shown.append("\n".join((f"[{table.name}, first rows]", *lines)))
    return "\n".join(shown)


def question(task: Task) -> str:
    """The question alone."""
    return "\n".join(part.text for part in task.prompt if isinstance(part, Text)).strip()


def _columns(sql: str, tables: Sequence[TableSource]) -> tuple[list[str], list[str]]:
    """The columns that a query names, and the others."""
    words = set(re.findall(r"\w+", re.sub(r"'[^']*'", "", sql)))
    names = list(dict.fromkeys(name for table in tables for name in table.columns))
    return [name for name in names if name in words], [name for name in names if name not in words]


def _altered(values: Sequence[str], tables: Sequence[TableSource], rng: Random) -> list[str]:
    """Another answer that could be one: a list without an entry, another number, another cell of the same column."""
    if len(values) > 1:
        gone = rng.randrange(len(values))
        return [value for place, value in enumerate(values) if place != gone]
    (value,) = values
    if value in ("yes", "no"):
        return ["no" if value == "yes" else "yes"]
    if re.fullmatch(r"-?\d+(\.\d+)?", value):
        off = rng.randint(1, 9)
        return [f"{float(value) + off:g}" if "." in value else str(int(value) + off)]
    cells = {str(cell) for table in tables for cell in _column_with(table, value)}
    return [rng.choice(sorted(cells - {value}) or [f"not {value}"])]


def _column_with(table: TableSource, value: str) -> list[Any]:
    for place in range(len(table.columns)):
        column = [row[place] for row in table.rows if row[place] is not None]
        if value in map(str, column):
            return column
    return []
