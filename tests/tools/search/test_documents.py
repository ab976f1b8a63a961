"""Documents out of files and rows, and the store that keeps them."""

from __future__ import annotations

import codecs
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.errors import ConfigError, DataError, UnknownNameError
from agentenv.tools.search.documents import Columns, DocumentStore, document_store, read_documents, write_documents
from agentenv.tools.search.types import Hit

ROWS: list[dict[str, Any]] = [
    {"id": 1, "title": "Paris", "contents": "A city.", "link": "https://example.org/1", "date": "2020", "n": 5},
    {"id": 2, "title": None, "contents": "A town.", "link": None, "date": None, "n": 6},
]
HITS = [
    Hit("1", "Paris", "A city.", "https://example.org/1", 0.0, "2020", "", {"n": 5}),
    Hit("2", "", "A town.", meta={"n": 6}),
]
META = Columns(meta=("n",))


def silent(what: str, done: int, total: int | None) -> None:
    pass


def lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def store(source: Any, folder: Path, columns: Columns | None = None, **options: Any) -> DocumentStore:
    return document_store(source, columns or Columns(), folder=folder, progress=silent, **options)


def test_every_kind_of_source_gives_the_same_documents(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    plain, packed, table = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz", tmp_path / "c.parquet"
    plain.write_bytes(lines(ROWS[0]) + b"\n" + lines(ROWS[1]))
    packed.write_bytes(gzip.compress(lines(*ROWS)))
    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), table)
    sources: list[Any] = [plain, str(packed), table, ROWS, iter(ROWS), lambda: iter(ROWS), HITS]
    for source in sources:
        assert list(read_documents(source, META)) == HITS


def test_several_files_are_one_source(tmp_path: Path) -> None:
    files: list[str | Path] = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file, row in zip(files, ROWS, strict=True):
        Path(file).write_bytes(lines(row))
    assert list(read_documents(files, META)) == HITS


def test_columns_are_named_or_guessed() -> None:
    row: dict[str, Any] = {"docid": "a", "body": "text", "name": "title", "other": "x"}
    assert list(read_documents([row], Columns())) == [Hit("a", "title", "text")]
    assert list(read_documents([row], Columns.of({"text": "other", "id": "name"}))) == [Hit("title", "title", "x")]
    numbers: list[dict[str, Any]] = [{"text": 5}, {"text": None}]
    assert list(read_documents(numbers, Columns())) == [Hit("0", "", "5"), Hit("1", "", "")]


def test_what_the_first_row_lacks_is_found_in_later_ones() -> None:
    rows: list[dict[str, Any]] = [{"text": "a"}, {"text": "b", "title": "B", "url": "https://example.org/b"}]
    assert list(read_documents(rows, Columns())) == [Hit("0", "", "a"), Hit("1", "B", "b", "https://example.org/b")]


def test_a_first_line_can_be_the_title() -> None:
    rows = [{"contents": '"The title"\nThe text\nof it'}]
    assert list(read_documents(rows, Columns(title_line=True))) == [Hit("0", "The title", "The text\nof it")]


@pytest.mark.parametrize(
    ("content", "said", "line"),
    [
        (b'{"text": "a"}\n{"text": \n', "not JSON", 2),
        (b'{"text": "a"}\n[1]\n', "not list", 2),
        (b'{"words": "a"}\n', "columns={'text': ...}; there are words", 1),
        (b'{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}\n', "a second document has the id '1'", 2),
        (b'\n\n{"text": {"a": 1}}\n', "holds a dict", 3),
        (b'{"text": "caf\xe9"}\n', "not JSON in UTF-8", 1),
        (b'{"text": ' + b"[" * 100_000, "not JSON", 1),
        (b'{"id": "a", "text": "b"}\n{"text": "c"}\n', "no id in column 'id'", 2),
        (b'{"id": null, "text": "b"}\n', "no id in column 'id'", 1),
    ],
)
def test_malformed_rows_are_named_by_file_and_line(tmp_path: Path, content: bytes, said: str, line: int) -> None:
    file = tmp_path / "docs.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_documents(file, Columns()))
    assert said in caught.value.why
    assert (caught.value.file, caught.value.line) == (str(file), line)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_bytes(lines(*ROWS))
    with pytest.raises(UnknownNameError, match="did you mean"):
        store(tmp_path / "doc.jsonl", tmp_path)
    with pytest.raises(UnknownNameError, match="no_such_folder"):
        store(tmp_path / "no_such_folder" / "x.jsonl", tmp_path)
    for name, content in (("bad.jsonl.gz", b"not gzip"), ("bad.parquet", b"not Parquet")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="not a readable"):
            list(read_documents(tmp_path / name, Columns()))
    (tmp_path / "docs.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"\.parquet"):
        list(read_documents(tmp_path / "docs.txt", Columns()))


def test_a_mark_of_utf_8_at_the_beginning_and_bytes_that_are_text_are_read(tmp_path: Path) -> None:
    (tmp_path / "bom.jsonl").write_bytes(codecs.BOM_UTF8 + b'{"text": "a"}\n')
    assert [hit.text for hit in read_documents(tmp_path / "bom.jsonl", Columns())] == ["a"]
    assert [hit.text for hit in read_documents([{"text": "caf\u00e9".encode()}], Columns())] == ["café"]
    with pytest.raises(DataError, match="row 1: column 'text' holds bytes that are not UTF-8"):
        list(read_documents([{"text": b"\xff"}], Columns()))


@pytest.mark.parametrize("source", [None, 5, {"text": "a"}])
def test_what_is_no_source_is_told(source: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="documents come from files, rows"):
        store(source, tmp_path)
    with pytest.raises(ConfigError, match="is a folder: give its files"):
        store(tmp_path, tmp_path)


def test_wrong_columns() -> None:
    with pytest.raises(ConfigError, match="give a map"):
        Columns.of("body")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="did you mean"):
        list(read_documents(ROWS, Columns(text="content")))
    with pytest.raises(ConfigError, match="columns"):
        Columns.of({"txt": "a"})
    assert Columns.of(None) == Columns()


# ---- the store -------------------------------------------------------------------------------------------------------


def test_a_store_gives_documents_by_number_id_and_address(tmp_path: Path) -> None:
    kept = store(ROWS, tmp_path, META)
    assert list(kept) == HITS
    assert kept.hit(1, 0.5) == Hit("2", "", "A town.", score=0.5, meta={"n": 6})
    assert (kept.get("2"), kept.get("9")) == (HITS[1], None)
    assert (kept.at_url("https://example.org/1"), kept.at_url("x"), kept.at_url("")) == (HITS[0], None, None)
    for place in (-1, 2):
        with pytest.raises(IndexError):
            kept.hit(place)
    kept.close()


def test_equal_content_is_one_store_and_other_content_another(tmp_path: Path) -> None:
    file = tmp_path / "docs.jsonl"
    file.write_bytes(lines(*ROWS))
    first = store(file, tmp_path)
    assert store([file], tmp_path).version == first.version
    assert store(ROWS, tmp_path).version == store(iter(ROWS), tmp_path).version == store(lambda: ROWS, tmp_path).version
    assert store(ROWS[:1], tmp_path).version != store(ROWS, tmp_path).version
    assert store(file, tmp_path, META).version != first.version


def test_rows_with_a_key_are_made_once(tmp_path: Path) -> None:
    made: list[int] = []

    def rows() -> list[dict[str, Any]]:
        made.append(1)
        return ROWS

    for _ in range(3):
        assert len(store(rows, tmp_path, key="v1")) == 2
    assert len(made) == 1


def test_an_empty_store(tmp_path: Path) -> None:
    empty = store([], tmp_path)
    assert (len(empty), list(empty), empty.get("1")) == (0, [], None)
    empty.close()


@given(st.lists(st.builds(Hit, st.text(), st.text(), st.text(), st.text()), max_size=5, unique_by=lambda hit: hit.id))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, hits: list[Hit]) -> None:
    folder = tmp_path_factory.mktemp("store")
    write_documents(folder, hits)
    kept = DocumentStore(folder, "v")
    assert list(kept) == hits
    for hit in hits:
        assert kept.get(hit.id) == hit
        found = kept.at_url(hit.url)
        assert (found.url if found else "") == hit.url


def test_lone_surrogates_become_question_marks(tmp_path: Path) -> None:
    write_documents(tmp_path, [Hit("a", "t\ud800", "x")])
    assert next(iter(DocumentStore(tmp_path, "v"))).title == "t?"
