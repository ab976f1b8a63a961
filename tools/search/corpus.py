"""A corpus: documents on disk, searched by BM25, by meaning, or by both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from agentenv.errors import ConfigError, UnknownNameError
from agentenv.tools.search.build import Progress, ShownProgress
from agentenv.tools.search.documents import Columns, DocumentStore, Source, document_store
from agentenv.tools.search.lexical import Engine, Language, SqliteEngine, TantivyEngine, has_tantivy
from agentenv.tools.search.types import Hit

EngineName = Literal["auto", "tantivy", "sqlite", "dense", "hybrid"]
ENGINES: tuple[str, ...] = ("auto", "tantivy", "sqlite", "dense", "hybrid")


class Corpus:
    """A `Retriever` over a document store.

    Args:
        store: the documents.
        engine: ranks them.

    It can be used from any thread. After a fork both processes may go on with it.
    """

    deterministic = True

    def __init__(self, store: DocumentStore, engine: Engine) -> None:
        self.store, self.engine = store, engine
        self.name = engine.name
        self.version = store.version

    def __len__(self) -> int:
        return len(self.store)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.store)

    def __repr__(self) -> str:
        return f"<Corpus of {len(self):,} documents, {self.name}>"

    def get(self, id: str) -> Hit | None:
        """The document with an id, None where there is none."""
        return self.store.get(id)

    def at_url(self, url: str) -> Hit | None:
        """The first document with an address, None where there is none."""
        return self.store.at_url(url)

    def find(self, query: str, k: int) -> list[Hit]:
        """As `search`, from sync code."""
        k = min(k, len(self))
        return [self.store.hit(number, score) for number, score in self.engine.top(query, k)] if k > 0 else []

    async def search(self, query: str, k: int) -> list[Hit]:
        """The best `k` documents, ties in the order of the corpus. See `Retriever`."""
        if self.engine.blocking:
            return await asyncio.to_thread(self.find, query, k)
        return self.find(query, k)

    def close(self) -> None:
        """Give back files. Nothing can be searched afterwards."""
        self.engine.close()
        self.store.close()


def open_corpus(
    source: Source,
    *,
    columns: Columns | Mapping[str, Any] | None = None,
    engine: EngineName = "auto",
    language: Language = "english",
    embed: Any = None,
    key: str = "",
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Corpus:
    """A corpus that is searched by text. It is indexed at the first call and only opened afterwards, by any process.

    Args:
        source: a path or paths of JSONL (also gzipped) or Parquet files; rows (mappings, or `Hit`s); or a function that
            returns rows.
        columns: which column holds what (see `Columns`), for instance {"text": "body", "url": "link"}.
        engine: "tantivy" (the extra `search`), "sqlite", "dense" (by meaning), "hybrid" (BM25 and meaning, fused by
            their ranks), or "auto": tantivy where it is installed, else sqlite.
        language: of BM25: "english" stems words, "none" does not.
        embed: for dense and hybrid: an `Embedder`, or None for the one whose weights a package carries (see `dense`).
        key: names the rows that a function makes, so that it need not be called again; must change whenever they do.
        folder: where indices are kept; `cache_folder("search")` by default. They can be deleted at any time.
        progress: told how indexing goes on; shown on standard error by default.

    Raises:
        UnknownNameError: no such engine, language, file or column.
        DataError: a document is malformed; carries file and line.
        MissingExtraError: an engine or a file format needs a package.
        StoreError: the index cannot be written.
    """
    if engine not in ENGINES:
        raise UnknownNameError("search engine", engine, ENGINES)
    if language not in ("english", "none"):
        raise UnknownNameError("language", language, ("english", "none"))
    if embed is not None and engine not in ("dense", "hybrid"):
        raise ConfigError(f"an embedder is for the engines dense and hybrid, not for {engine}")
    tell = progress or ShownProgress()
    place = Path(folder) if folder is not None else None
    store = document_store(source, Columns.of(columns), key=key, folder=place, progress=tell)
    return Corpus(store, make_engine(store, engine, language, embed, tell))


def make_engine(store: DocumentStore, engine: str, language: Language, embed: Any, progress: Progress) -> Engine:
    """An engine by name, its index built if it is not there."""
    if engine in ("dense", "hybrid"):
        from agentenv.tools.search.dense import DenseEngine, HybridEngine

        dense = DenseEngine(store, embed, progress)
        return dense if engine == "dense" else HybridEngine(make_engine(store, "auto", language, None, progress), dense)
    if engine == "tantivy" or (engine == "auto" and has_tantivy()):
        return TantivyEngine(store, language, progress)
    return SqliteEngine(store, language, progress)
