"""BM25 over a document store: tantivy (the extra `search`), or SQLite's FTS5, which comes with Python.

Both rank alike: BM25 (k1 = 1.2, b = 0.75; Robertson and Zaragoza, 2009) over one field that holds title and text, any
word of the query may match, ties in the order of the documents. One field, because a title field of its own with a
boost lets one-word titles win by their length: recall@10 of known items fell from 0.92 to 0.31 (measured on 878,000
documents). tantivy is some 30 to 70 times faster.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

from agentenv.errors import MissingExtraError
from agentenv.spec import canonical_hash
from agentenv.tools.search.build import Progress, counted, made_once, whole
from agentenv.tools.search.documents import DocumentStore
from agentenv.tools.search.words import MAX_LENGTH, prepared, query_words

FORMAT = "2"
"""Raised whenever the same documents lead to another index."""

LARGE = 10_000
"""Documents from which on words that most of them have are left out of a search where they can be."""

Language = Literal["english", "none"]
"""What words are reduced to: their English stem, or nothing but lower case without accents."""

Ranked = list[tuple[int, float]]
"""Numbers of documents and their scores, best first."""


class Engine(Protocol):
    """Ranks the documents of a store.

    Attributes:
        name: of the engine, with its settings.
        blocking: a search takes long enough to hold up an event loop.
    """

    name: str
    blocking: bool

    def top(self, query: str, k: int) -> Ranked:
        """The best `k` documents for any text. Thread-safe. Never raises because of the text."""
        ...

    def close(self) -> None:
        """Give back files."""
        ...


def has_tantivy() -> bool:
    """Whether tantivy can be used."""
    from importlib.util import find_spec

    return find_spec("tantivy") is not None


def texts(store: DocumentStore, what: str, progress: Progress) -> Iterator[str]:
    """What is indexed of each document: title and text as one."""
    for hit in counted(store, what, len(store), progress):
        yield prepared(f"{hit.title}. {hit.text}" if hit.title else hit.text)


def _folder(store: DocumentStore, engine: str, *settings: str) -> Path:
    digest = canonical_hash([FORMAT, store.version, *settings])[:32]
    return store.folder.with_name(f"{engine}-{digest}")


# ---- tantivy ---------------------------------------------------------------------------------------------------------


class TantivyEngine:
    """tantivy's index of a store, built by one writer thread so that equal documents give equal ranks everywhere.

    Args:
        store: the documents.
        language: see `Language`.
        progress: told how building goes on.

    Raises:
        MissingExtraError: tantivy is not installed.
    """

    blocking = False  # 0.1 to 0.5 ms, without the interpreter's lock

    def __init__(self, store: DocumentStore, language: Language, progress: Progress) -> None:
        try:
            import tantivy
        except ImportError:
            raise MissingExtraError("tantivy", "search", "the tantivy search engine") from None
        self.name = f"tantivy-{language}"
        self._tantivy: Any = tantivy
        self._analyzer = self._made_analyzer(language)
        version = ".".join(str(getattr(tantivy, "__version__", "")).split(".")[:2])

        def build(place: Path) -> None:
            self._build(place, store, progress)

        folder = made_once(_folder(store, "tantivy", language, version), build)
        with whole(folder):
            index = tantivy.Index.open(str(folder))
            index.config_reader("Manual")  # nothing changes, so nothing needs a thread that looks
            self._schema: Any = index.schema
            self._searcher: Any = index.searcher()
        half = len(store) / 2
        self._large = len(store) >= LARGE
        self._everywhere = lru_cache(65_536)(lambda term: self._searcher.doc_freq("text", term) > half)

    def _made_analyzer(self, language: Language) -> Any:
        filters = self._tantivy.Filter
        steps = [filters.lowercase(), filters.remove_long(MAX_LENGTH + 1), filters.ascii_fold()]
        if language == "english":
            steps.append(filters.stemmer("english"))
        builder = self._tantivy.TextAnalyzerBuilder(self._tantivy.Tokenizer.simple())
        for step in steps:
            builder = builder.filter(step)
        return builder.build()

    def _build(self, place: Path, store: DocumentStore, progress: Progress) -> None:
        builder = self._tantivy.SchemaBuilder()
        builder.add_integer_field("n", fast=True)
        builder.add_text_field("text", stored=False, tokenizer_name="words", index_option="freq")
        index = self._tantivy.Index(builder.build(), path=str(place))
        index.register_tokenizer("words", self._analyzer)
        # Room for all of it, which is taken only as it is needed: one segment, in which ties keep the documents' order.
        size = (store.folder / "docs.bin").stat().st_size
        writer = index.writer(min(3_900_000_000, max(100_000_000, 8 * size)), 1)
        for number, text in enumerate(texts(store, "indexing documents", progress)):
            writer.add_document(self._tantivy.Document(n=number, text=text))
        writer.commit()
        writer.wait_merging_threads()

    def top(self, query: str, k: int) -> Ranked:
        """See `Engine`.

        Words of more than half of a large corpus cost most of the time and tell nothing apart: their weight is not
        above 0 in BM25's own definition. They count only where the other words find too little.
        """
        terms = list(dict.fromkeys(self._analyzer.analyze(" ".join(query_words(query)))))
        telling = [term for term in terms if not self._everywhere(term)] if self._large else terms
        found = self._ranked(telling, k)
        return found if len(found) >= k or len(telling) == len(terms) else self._ranked(terms, k)

    def _ranked(self, terms: Sequence[str], k: int) -> Ranked:
        if not terms:
            return []
        should, one = self._tantivy.Occur.Should, self._tantivy.Query.term_query
        clauses = [(should, one(self._schema, "text", term, "freq")) for term in terms]
        found = self._searcher.search(self._tantivy.Query.boolean_query(clauses), k, count=False).hits
        numbers: list[Any] = self._searcher.fast_field_values("n", [address for _, address in found])
        return sorted(zip(numbers, (score for score, _ in found), strict=True), key=_order)

    def close(self) -> None:
        """See `Engine`."""
        self._everywhere.cache_clear()
        self._searcher = self._schema = None


def _order(item: tuple[int, float]) -> tuple[float, int]:
    return -item[1], item[0]


# ---- SQLite FTS5 -----------------------------------------------------------------------------------------------------


class SqliteEngine:
    """An FTS5 index of a store. Each thread of each process has a connection of its own.

    Args:
        store: the documents.
        language: see `Language`.
        progress: told how building goes on.

    Raises:
        MissingExtraError: this Python's SQLite has no FTS5.
    """

    blocking = True  # some 5 ms for 100,000 documents

    def __init__(self, store: DocumentStore, language: Language, progress: Progress) -> None:
        self.name = f"fts5-{language}"
        tokenizer = ("porter " if language == "english" else "") + "unicode61 remove_diacritics 2"

        def build(place: Path) -> None:
            _build_fts5(place / "index.db", tokenizer, texts(store, "indexing documents", progress))

        self._file = made_once(_folder(store, "fts5", language), build) / "index.db"
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []

    def _connection(self) -> sqlite3.Connection:
        owner, found = getattr(self._local, "connection", (0, None))
        if found is None or owner != os.getpid():  # SQLite forbids to go on with one after a fork
            uri = f"{self._file.resolve().as_uri()}?mode=ro&immutable=1"
            with whole(self._file.parent):
                found = sqlite3.connect(uri, uri=True, check_same_thread=False)
            self._local.connection = os.getpid(), found
            self._open.append(found)
        connection: sqlite3.Connection = found
        return connection

    def top(self, query: str, k: int) -> Ranked:
        """See `Engine`."""
        words = query_words(query)
        if not words:
            return []
        asked = " OR ".join(f'"{word}"' for word in words)
        sql = "SELECT rowid, -bm25(docs) AS score FROM docs WHERE docs MATCH ? ORDER BY score DESC, rowid LIMIT ?"
        return [(int(number), float(score)) for number, score in self._connection().execute(sql, (asked, k))]

    def close(self) -> None:
        """See `Engine`."""
        connections, self._open = self._open, []
        self._local = threading.local()
        for connection in connections:
            connection.close()


def _build_fts5(file: Path, tokenizer: str, texts: Iterator[str]) -> None:
    connection = sqlite3.connect(file)
    try:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"CREATE VIRTUAL TABLE docs USING fts5(text, content='', tokenize='{tokenizer}')")
        connection.executemany("INSERT INTO docs(rowid, text) VALUES (?, ?)", enumerate(texts))
        connection.execute("INSERT INTO docs(docs) VALUES ('optimize')")
        connection.commit()
    except sqlite3.OperationalError as error:
        if "fts5" not in str(error):
            raise
        raise MissingExtraError("tantivy", "search", "text search (this Python's SQLite has no FTS5)") from None
    finally:
        connection.close()
