"""Task sets over real files: JSONL, CSV, Parquet, Hugging Face folders, and generators without end."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agentenv.errors import DataError, MissingExtraError, UnknownNameError, UsageError
from agentenv.task import TaskSet, as_table, column_reader, distinct, inline_table, load_tasks, table_file
from agentenv.types import Task, Text


def make(i: int) -> Task:
    return Task(f"n-{i}", (Text(f"question {i}"),), str(i))


def ids(tasks: TaskSet) -> list[str]:
    return [task.id for task in tasks]


ROWS = [{"id": f"r{i}", "question": f"q{i}", "answer": i} for i in range(6)]


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


# ---- choosing, for both ways in which a set can be held


@pytest.fixture(params=["indexed", "streamed"])
def ten(request: pytest.FixtureRequest) -> TaskSet:
    tasks = TaskSet.generate(make, 10)
    return tasks if request.param == "indexed" else tasks.filter(lambda task: True)


def test_sequence(ten: TaskSet) -> None:
    assert ids(ten) == ids(ten) == [f"n-{i}" for i in range(10)]
    assert len(ten) == ten.size == 10
    assert ten[3].id == "n-3"
    assert ten[-1].id == "n-9"
    assert ten["n-7"].answer == "7"
    assert ids(ten[2:8:3]) == ["n-2", "n-5"]
    assert ids(ten[::-1])[0] == "n-9"
    assert bool(ten)
    assert not ten.take(0)
    with pytest.raises(IndexError, match="task 10 of 10"):
        ten[10]
    with pytest.raises(IndexError):
        ten[-11]


def test_choosing(ten: TaskSet) -> None:
    assert ids(ten.take(3)) == ["n-0", "n-1", "n-2"]
    assert ids(ten.take(99)) == ids(ten)
    assert ids(ten.skip(99)) == []
    assert ids(ten.skip(8)) == ["n-8", "n-9"]
    assert len(ten.skip(8)) == 2
    assert ids(ten.filter(lambda t: t.answer in "24")) == ["n-2", "n-4"]
    assert ids(ten.select(["n-9", "n-1"])) == ["n-9", "n-1"]
    assert ids(ten.map(lambda t: make(int(t.answer) + 100)).take(1)) == ["n-100"]
    shuffled = ten.shuffle(1)
    assert ids(shuffled) == ids(ten.shuffle(1)) != ids(ten) != ids(ten.shuffle(2))
    assert sorted(ids(shuffled)) == sorted(ids(ten))
    for wrong in (ten.take, ten.skip):
        with pytest.raises(UsageError, match="0 or more, not -1"):
            wrong(-1)


def test_shuffle_is_the_same_everywhere() -> None:
    code = (
        "from agentenv.task import TaskSet; from agentenv.types import Task\n"
        "print([t.id for t in TaskSet.generate(lambda i: Task(str(i), ()), 12).shuffle(7)])"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[1])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(runs) == 1


def test_unknown_id_names_the_nearest(ten: TaskSet) -> None:
    with pytest.raises(UnknownNameError, match=r'unknown task .*did you mean "n-'):
        ten["n-77"]
    with pytest.raises(UnknownNameError, match="n_3"):
        list(ten.select(["n_3"]))


@pytest.mark.parametrize("kind", ["generated", "filtered"])
def test_without_end(kind: str) -> None:
    tasks = TaskSet.generate(make)
    if kind == "filtered":
        tasks = tasks.filter(lambda task: True)
    assert tasks.infinite
    assert tasks.size is None
    assert bool(tasks)
    with pytest.raises(TypeError, match="has no end"):
        len(tasks)
    assert [t.id for t in itertools.islice(tasks, 3)] == ["n-0", "n-1", "n-2"]
    assert tasks[10**5 if kind == "generated" else 50].id.startswith("n-")
    assert tasks["n-12"].id == "n-12"
    assert ids(tasks.skip(5).take(2)) == ["n-5", "n-6"]
    assert ids(tasks[4:6]) == ["n-4", "n-5"]
    assert not tasks.take(3).infinite
    assert len(tasks.map(lambda t: t).take(4)) == 4
    with pytest.raises(UsageError, match="take"):
        tasks.shuffle(0)
    with pytest.raises(UsageError, match=r"\[start:stop\]"):
        tasks[3:]
    with pytest.raises(TypeError):
        tasks[-1]
    with pytest.raises(UnknownNameError, match="n-0"):
        tasks["nothing"]


@given(st.integers(0, 30), st.integers(0, 12), st.integers(0, 12))
def test_take_and_skip_are_slices(size: int, a: int, b: int) -> None:
    tasks = TaskSet.generate(make, size)
    expected = [f"n-{i}" for i in range(size)]
    for form in (tasks, tasks.filter(lambda task: True)):
        assert ids(form.skip(a).take(b)) == expected[a:][:b]
        assert ids(form[a:b]) == expected[a:b]


def test_nothing_is_read_before_it_is_asked_for_and_only_once_where_kept() -> None:
    passes = []

    def rows() -> Iterator[dict[str, Any]]:
        passes.append(1)
        yield from ROWS

    tasks = TaskSet.from_rows(rows).filter(lambda task: task.answer != 0).map(lambda task: task).skip(1)
    assert not passes
    assert len(tasks) == 4
    assert tasks[0].id == "r2"
    assert tasks["r5"]
    assert len(list(tasks)) == 4
    assert len(passes) == 1


def test_repr_says_how_it_was_made_and_does_not_change() -> None:
    tasks = TaskSet.generate(make, name="geo")
    chosen = tasks.filter(make_even).take(5).shuffle(3)
    before = repr(chosen)
    assert before == "<TaskSet geo.filter(make_even).take(5).shuffle(3)>"
    len(chosen)
    assert repr(chosen) == before


def make_even(task: Task) -> bool:
    return int(task.answer) % 2 == 0


# ---- files


def test_jsonl_with_bad_lines(tmp_path: Path) -> None:
    bad = {"question": " ", "answer": 1}
    file = jsonl(tmp_path / "a.jsonl", [ROWS[0], "{oops", "", [1], ROWS[1], {"id": "x"}, bad])
    tasks = TaskSet.from_jsonl(file, on_error="skip")
    assert ids(tasks) == ids(tasks) == ["r0", "r1"]
    assert [error.line for error in tasks.skipped] == [2, 4, 6, 7]
    assert all(error.file == str(file) for error in tasks.skipped)
    assert "not JSON" in str(tasks.skipped[0])
    assert "must be an object" in str(tasks.skipped[1])
    assert "no column 'question'" in str(tasks.skipped[2])
    assert len(tasks.filter(lambda t: True).skipped) == 4
    with pytest.raises(DataError, match=r"a\.jsonl:2: not JSON"):
        list(TaskSet.from_jsonl(file))


def test_deep_json_and_bom(tmp_path: Path) -> None:
    file = tmp_path / "deep.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS[0]).encode() + b"\n" + b"[" * 100_000 + b"\n\xff\xfe\n")
    tasks = TaskSet.from_jsonl(file, on_error="skip")
    assert len(tasks) == 1
    assert [error.line for error in tasks.skipped] == [2, 3]


def test_columns(tmp_path: Path) -> None:
    table = {"header": ["a", "b"], "rows": [[1, 2], [3, 4]]}
    row = {"utterance": "why?", "targetValue": ["b", "c"], "n": 7, "t": table, "extra": "kept"}
    file = jsonl(tmp_path / "b.jsonl", [row])
    columns = {"question": "utterance", "answer": "targetValue", "id": "n", "table": "t"}
    (task,) = TaskSet.from_jsonl(file, columns=columns, keep=["extra"])
    assert (task.id, task.answer, task.metadata) == ("7", ["b", "c"], {"extra": "kept"})
    assert task.tables[0].columns == ("a", "b")
    assert task.tables[0].rows == ((1, 2), (3, 4))
    with pytest.raises(UnknownNameError, match=r'unknown column .utterence.; did you mean "utterance"'):
        list(TaskSet.from_jsonl(file, columns={**columns, "question": "utterence"}, on_error="skip"))
    with pytest.raises(UnknownNameError, match="utterance"):
        list(TaskSet.from_jsonl(file, columns=columns, keep=["uterance"]))
    with pytest.raises(UnknownNameError, match='did you mean "question"'):
        TaskSet.from_jsonl(file, columns={"questoin": "utterance"})
    with pytest.raises(UnknownNameError, match='did you mean "skip"'):
        TaskSet.from_jsonl(file, on_error="skipp")


def test_ids_and_evidence() -> None:
    rows = [{"question": "a", "answer": 1, "evidence": {"sql": "x"}}, {"question": "b", "answer": 2, "evidence": "y"}]
    tasks = TaskSet.from_rows(lambda: rows, name="mine")
    assert ids(tasks) == ["mine-1", "mine-2"]
    assert [task.evidence for task in tasks] == [{"sql": "x"}, {"value": "y"}]


def test_own_converter_and_what_it_raises() -> None:
    def convert(row: dict[str, Any]) -> Task:
        return Task(row["id"], (Text(row["question"]),), int(row["answer"]))

    rows = [
        ROWS[0],
        {"id": "a"},
        {"id": "b", "question": "q", "answer": "x"},
        {"id": "c", "question": "q", "answer": None},
    ]
    tasks = TaskSet.from_rows(lambda: rows, convert, on_error="skip", file="memory")
    assert ids(tasks) == ["r0"]
    assert next(str(e) for e in tasks.skipped) == "memory:2: no column 'question'"
    assert "ValueError" in str(tasks.skipped[1])
    assert "TypeError" in str(tasks.skipped[2])

    def broken(row: dict[str, Any]) -> Task:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(TaskSet.from_rows(lambda: ROWS, broken, on_error="skip"))


def test_csv(tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_text('question,answer\n"two\nlines",1\nonly\nb,2,3\nc,4\n')
    tasks = TaskSet.from_csv(file, on_error="skip")
    assert [task.answer for task in tasks] == ["1", "4"]
    assert [error.line for error in tasks.skipped] == [4, 5]
    (tmp_path / "d.tsv").write_text("question\tanswer\na, b\t2\n")
    assert [t.prompt[0] for t in load_tasks(tmp_path / "d.tsv")] == [Text("a, b")]
    (tmp_path / "e.csv").write_bytes(b"question,answer\n\xff,1\n")
    with pytest.raises(DataError, match=r"e\.csv.*not CSV"):
        list(load_tasks(tmp_path / "e.csv"))


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [*ROWS, {"id": "bad", "question": None, "answer": 1}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    tasks = load_tasks(tmp_path / "a.parquet", on_error="skip")
    assert ids(tasks) == [row["id"] for row in ROWS]
    assert tasks.skipped[0].line == 7
    (tmp_path / "b.parquet").write_bytes(b"no")
    with pytest.raises(DataError, match=r"b\.parquet.*not a readable Parquet"):
        list(load_tasks(tmp_path / "b.parquet", on_error="skip"))


def test_huggingface(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_list(ROWS)
    assert ids(load_tasks(rows)) == [row["id"] for row in ROWS]
    both = datasets.DatasetDict({"train": rows, "test": rows.select([0])})
    both.save_to_disk(str(tmp_path / "hf"))
    assert len(load_tasks(tmp_path / "hf", split="test")) == 1
    with pytest.raises(UnknownNameError, match='did you mean "test"'):
        TaskSet.from_hf(both, split="tset")
    with pytest.raises(UnknownNameError, match="unknown split ''"):
        TaskSet.from_hf(both)
    assert len(TaskSet.from_hf(datasets.DatasetDict({"only": rows}))) == 6
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="save_to_disk"):
        load_tasks(tmp_path / "empty")


@pytest.mark.parametrize("module", ["pyarrow", "datasets"])
def test_missing_packages_name_their_extra(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "a.parquet").write_bytes(b"no")
    with pytest.raises(MissingExtraError, match=r"agentenv-gym\[data\]"):
        list(TaskSet.from_parquet(tmp_path / "a.parquet") if module == "pyarrow" else TaskSet.from_hf(tmp_path))


def test_load_tasks_picks_by_kind(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    assert len(load_tasks(str(tmp_path / "rows.json"))) == 6
    assert len(load_tasks(ROWS)) == len(load_tasks(lambda: ROWS)) == 6
    tasks = load_tasks([make(1), make(2)])
    assert ids(tasks) == ["n-1", "n-2"]
    assert load_tasks(tasks) is tasks
    with pytest.raises(UsageError, match="cannot be read from int"):
        load_tasks(3)


def test_paths_that_are_wrong_name_the_nearest(tmp_path: Path) -> None:
    jsonl(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(UnknownNameError, match=r'did you mean "train\.jsonl"'):
        load_tasks(tmp_path / "trian.jsonl")
    with pytest.raises(UnknownNameError, match=r"unknown folder in .*'nowhere'"):
        load_tasks(tmp_path / "nowhere" / "x" / "a.jsonl")
    (tmp_path / "a.jsnl").write_text("")
    with pytest.raises(UnknownNameError, match=r'did you mean "\.jsonl"'):
        load_tasks(tmp_path / "a.jsnl")
    for text in ("{}", "[1, "):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(DataError, match=r"x\.json"):
            list(load_tasks(tmp_path / "x.json"))


# ---- tables in rows


@pytest.mark.parametrize(
    "value",
    [
        {"columns": ["a", "b"], "data": [[1, "x"], [2, None]]},
        {"header": ["a", "b"], "rows": [[1, "x"], [2, None]]},
        [{"a": 1, "b": "x"}, {"a": 2}],
        '{"columns": ["a", "b"], "data": [[1, "x"], [2, null]]}',
        inline_table("t", ["a", "b"], [[1, "x"], [2, None]]),
    ],
)
def test_inline_tables(value: Any) -> None:
    table = as_table(value, "t")
    assert (table.name, table.columns, table.rows) == ("t", ("a", "b"), ((1, "x"), (2, None)))
    assert table.sha256 == inline_table("t", ["a", "b"], [[1, "x"], [2, None]]).sha256


def test_hash_is_of_the_content() -> None:
    tables = [
        inline_table("t", ["a"], [[1]]),
        inline_table("u", ["a"], [[1]]),
        inline_table("t", ["b"], [[1]]),
        inline_table("t", ["a"], [["1"]]),
        inline_table("t", ["a"], [[1]], ["INTEGER"]),
    ]
    assert len({table.sha256 for table in tables}) == 5


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"columns": ["a"]}, "needs columns and data"),
        ({"columns": ["a", "b"], "data": [[1]]}, "row 1 of the table has 1 cells for 2"),
        ({"columns": [], "data": []}, "no columns"),
        (3, "a table must be"),
        ("missing.csv", "no table file 'missing.csv'"),
    ],
)
def test_malformed_tables(value: Any, why: str) -> None:
    with pytest.raises(DataError, match=why):
        as_table(value)


def test_table_files_are_found_beside_the_data(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a\n1\n")
    file = jsonl(tmp_path / "q.jsonl", [{"question": "q", "answer": 1, "table": "t.csv", "tables": ["t.csv", "t.csv"]}])
    (task,) = TaskSet.from_jsonl(file)
    assert [table.name for table in task.tables] == ["data", "data_1", "data_2"]
    assert {table.path for table in task.tables} == {str(tmp_path / "t.csv")}
    before = table_file(tmp_path / "t.csv").sha256
    (tmp_path / "t.csv").write_text("a\n1\n2\n")
    assert table_file(tmp_path / "t.csv").sha256 != before


def test_column_reader_alone() -> None:
    read = column_reader({"question": "q"}, name="z")
    assert read({"q": "hm", "answer": 0}).id == "z-0"
    with pytest.raises(DataError, match=r'no column .q.; did you mean "qq"'):
        read({"qq": "hm", "answer": 1})


# ---- what would lose episodes or break records


def test_a_prompt_may_be_a_string_and_nothing_else_is_guessed() -> None:
    task = Task("1", "question?", "1")  # type: ignore[arg-type]
    assert task == Task("1", (Text("question?"),), "1")
    assert msgspec.json.decode(msgspec.json.encode(task), type=Task) == task
    for prompt in (["a"], [Text("a")], ("a",), None, 3, Text("a")):
        with pytest.raises(UsageError, match="the prompt of a task must"):
            Task("1", prompt)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the id of a task must be a string, not 1"):
        Task(1, "a")  # type: ignore[arg-type]


def test_ids_that_come_twice_are_refused_with_both_lines(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", [ROWS[0], ROWS[1], "", ROWS[0], ROWS[2]])
    with pytest.raises(DataError, match=r"a\.jsonl:4: the id 'r0' is that of line 1 already"):
        list(load_tasks(file))
    tasks = load_tasks(file, on_error="skip")
    assert ids(tasks) == ids(tasks) == ["r0", "r1", "r2"]
    assert [error.line for error in tasks.skipped] == [4]
    numbered = load_tasks(lambda: [{"question": "q", "answer": 1, "id": "rows-2"}, {"question": "q", "answer": 1}])
    with pytest.raises(DataError, match="rows-2"):
        list(numbered)


def test_ids_that_come_twice_in_lists_and_generators() -> None:
    same = r"tasks 1 and 3 have the same id 'n-0'"
    with pytest.raises(DataError, match=same):
        TaskSet.of([make(0), make(1), make(0)])
    generated = TaskSet.generate(lambda i: make(i % 2), 3)
    with pytest.raises(DataError, match=same):
        generated["n-9"]
    with pytest.raises(DataError, match=same):
        len(generated.filter(lambda task: True))
    listed = distinct(TaskSet.generate(lambda i: make(i % 2)))
    assert [next(listed).id, next(listed).id] == ["n-0", "n-1"]
    with pytest.raises(DataError, match=same):
        next(listed)


@pytest.mark.parametrize("answer", [None, "", " ", [], {}])
def test_an_empty_answer_is_malformed_unless_there_are_none(answer: Any) -> None:
    rows = [{"question": "q", "answer": answer}, {"question": "q", "answer": 0}, {"question": "q", "answer": False}]
    tasks = load_tasks(rows, on_error="skip")
    assert [task.answer for task in tasks] == [0, False]
    assert tasks.skipped[0].line == 1
    assert [task.answer for task in load_tasks(rows, columns={"answer": ""})] == [None] * 3


def test_an_empty_table_cell_is_malformed_unless_it_is_not_read() -> None:
    rows = [{"question": "q", "answer": 1, "table": None}, {"question": "q", "answer": 1}]
    with pytest.raises(DataError, match="1: a table must be"):
        list(load_tasks(rows, file="memory"))
    assert [task.tables for task in load_tasks(rows, columns={"table": ""})] == [(), ()]


@pytest.mark.parametrize("place", ["../t.csv", "sub/../../t.csv", "/etc/passwd", "link.csv"])
def test_a_table_cannot_be_fetched_from_outside_the_folder(place: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "t.csv").write_text("a\n1\n")
    (tmp_path / "data" / "link.csv").symlink_to(tmp_path / "t.csv")
    row = {"question": "q", "answer": 1, "table": place}
    file = jsonl(tmp_path / "data" / "q.jsonl", [row, {**row, "table": None, "tables": [place]}, ROWS[0]])
    with pytest.raises(DataError, match=r"q\.jsonl:1: the table .* is not in the data set's folder"):
        list(load_tasks(file))
    tasks = load_tasks(file, on_error="skip")
    assert ids(tasks) == ["r0"]
    assert [error.line for error in tasks.skipped] == [1, 2]
    assert as_table(tmp_path / "t.csv").path == str(tmp_path / "t.csv")


def test_what_the_caller_asked_wrongly_is_not_blamed_on_a_row() -> None:
    def refuse(row: dict[str, Any]) -> Task:
        raise UsageError("no such thing")

    def lacking(row: dict[str, Any]) -> Task:
        raise MissingExtraError("pandas", "table", "this")

    tasks = TaskSet.from_rows(lambda: ROWS, refuse, on_error="skip", file="memory")
    assert tasks.describe_skipped() == "0 tasks; 6 rows were skipped, the first: memory:1: no such thing"
    with pytest.raises(MissingExtraError):
        list(TaskSet.from_rows(lambda: ROWS, lacking, on_error="skip"))


def test_a_set_with_nothing_left_says_why() -> None:
    rng = random.Random(0)
    bad = load_tasks([{"question": "", "answer": 1}], on_error="skip", name="mine")
    with pytest.raises(UsageError, match=r"set 'mine': 0 tasks; 1 row was skipped: .*the question must be text"):
        bad.draw(rng)
    with pytest.raises(UsageError, match="0 tasks; no row was skipped"):
        TaskSet.of([]).draw(rng)
    assert TaskSet.of([make(1)]).describe_skipped() == "1 task; no row was skipped"
    assert TaskSet.generate(make).describe_skipped() == "tasks without end; no row was skipped"


def test_tasks_that_are_changed_are_changed_only_when_they_are_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("".join(f'{{"question": "q{i}", "answer": "a", "id": "row{i}x"}}\n' for i in range(9)))
    changed: list[str] = []

    def change(task: Task) -> Task:
        changed.append(task.id)
        return replace(task, answer="b")

    for tasks in (TaskSet.from_jsonl(file).map(change), TaskSet.of(TaskSet.from_jsonl(file)).map(change)):
        changed.clear()
        assert len(tasks) == 9
        assert (tasks[3].id, tasks[3].answer, tasks["row5x"].answer) == ("row3x", "b", "b")
        assert changed == ["row3x", "row3x", "row5x"]
        assert [task.id for task in tasks.map(change).take(1)] == ["row0x"]
    renamed = TaskSet.from_jsonl(file).map(lambda task: replace(task, id=f"new-{task.id}"))
    assert renamed["new-row5x"].id == "new-row5x"
    with pytest.raises(UnknownNameError, match="row5x"):
        _ = renamed["row5x"]
