"""What an environment over a corpus searches and asks: a corpus of whatever is given, and tasks of a named source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any, get_args

from agentenv.envs.corpus import corpus_pages, embedded_corpus
from agentenv.errors import UnknownNameError, UsageError
from agentenv.task import OnError, TaskSet
from agentenv.tool import Tool
from agentenv.tools.search import Corpus, Pipeline, Retriever, open_corpus, web_search_tool
from agentenv.tools.search.corpus import EngineName
from agentenv.tools.search.pipeline import Budget
from agentenv.tools.web.engines import ENGINES, LiveEngine, make_engine
from agentenv.tools.web.fetch import web_fetch_tool
from agentenv.tools.web.live import LivePages
from agentenv.tools.web.pages import Pages

EMBEDDED = "embedded"
LIVE = "live:"


Searched = str | Path | Mapping[str, Any] | Retriever


def as_retriever(corpus: Searched, engine: EngineName = "auto", columns: Mapping[str, Any] | None = None) -> Retriever:
    """What is searched.

    Args:
        corpus: "embedded"; a live engine by its name, "live:NAME", and where it is, "live:NAME:URL", or as
            {"live": NAME} with options of `make_engine` ("rate", "base_url"); a file of documents; or a retriever.
        engine: of a corpus.
        columns: of a file.

    Raises:
        UnknownNameError: no such file or engine.
        UsageError: columns of what is no file, or a file without documents.
        MissingExtraError: a package that it needs is not installed.
    """
    live: Retriever | None = _live(corpus)
    is_file = isinstance(corpus, (str, Path)) and corpus != EMBEDDED and live is None
    if columns and not is_file:
        raise UsageError("corpus_columns are those of a file of documents: give corpus=FILE")
    if live is not None:
        return live
    if not isinstance(corpus, (str, Path)):
        return corpus  # type: ignore[return-value]  # the mappings are gone
    if corpus == EMBEDDED:
        return embedded_corpus(engine)
    if not Path(corpus).suffix and not Path(corpus).exists():
        live_names = (f"{LIVE}{name}" for name in ENGINES)
        raise UnknownNameError("corpus", str(corpus), (EMBEDDED, "FILE.jsonl", "FILE.parquet", *live_names))
    found = open_corpus(corpus, columns=columns, engine=engine)
    if not len(found):
        raise UsageError(f"the corpus {str(corpus)!r} holds no document: there is nothing to search")
    return found


def _live(corpus: Searched) -> Any:
    """The live engine that is meant; None for anything else."""
    if isinstance(corpus, str) and corpus.startswith(LIVE):
        name, _, url = corpus.removeprefix(LIVE).partition(":")
        return make_engine(name, **({"base_url": url} if url else {}))
    if isinstance(corpus, Mapping):
        options = dict(corpus)
        if "live" not in options:
            raise UsageError(f"corpus={options!r:.80}: the name of a live engine is missing, for instance live='brave'")
        return make_engine(str(options.pop("live")), **options)
    return None


def search_tools(
    retriever: Retriever, *, k: int, shown: int | None, format: Any, fetch: bool, pages: Pages | None
) -> list[Tool]:
    """`web_search`, and with `fetch` also `web_fetch`, over one corpus.

    Raises:
        UsageError: pages are wanted of a retriever that has none, or `pages` are none.
    """
    if pages is not None and not hasattr(pages, "page"):
        raise UsageError(
            f"pages={pages!r:.60}: pages are LivePages(), CorpusPages, or anything with an async page(url)"
        )
    tools = [web_search_tool(retriever, pipeline=Pipeline(k=k, budget=Budget(characters=shown), format=format))]
    if fetch:
        tools.append(web_fetch_tool(pages or _pages_of(retriever)))
    return tools


def _pages_of(retriever: Retriever) -> Pages:
    """The pages that a search leads to: the corpus's own, or the open web's."""
    if isinstance(retriever, Corpus):
        return corpus_pages(retriever)
    if isinstance(retriever, LiveEngine):
        return LivePages()
    raise UsageError("only a corpus and a live engine have pages of their own: give pages=, or fetch=False")


def chosen(
    source: str | TaskSet,
    generated: str,
    generate: Callable[..., TaskSet],
    options: Mapping[str, Any],
    datasets: Mapping[str, Callable[..., TaskSet]],
    columns: Mapping[str, str] | None,
    on_error: OnError,
) -> TaskSet:
    """The tasks of a source.

    Args:
        source: the name of the generator, "DATASET:PATH", a file of rows, or the tasks themselves.
        generated: the generator's name.
        generate: the generator.
        options: its options; those that are None were not given.
        datasets: loaders by name, "columns" among them.
        columns: of a file.
        on_error: of a file.

    Raises:
        UnknownNameError: no such source or file.
        UsageError: an option of the generator for another source.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if columns and (source == generated or isinstance(source, TaskSet)):
        raise UsageError("columns are those of a file of rows: give source=FILE")
    if on_error not in get_args(OnError):
        raise UnknownNameError("value of on_error", on_error, get_args(OnError))
    if source == generated:
        return generate(**given)
    wrong = [name for name in given if name != "seed"]
    if wrong:
        raise UsageError(f"{wrong[0]} is an option of source={generated!r}, not of {source!r:.80}")
    if isinstance(source, TaskSet):
        return source
    name, colon, path = source.partition(":")
    if colon and name in datasets and not path:
        raise UsageError(f"source={source!r}: a path is missing, for instance {source}data.jsonl")
    if colon and name in datasets:
        read = datasets[name]
        more = {"columns": columns} if "columns" in signature(read).parameters else {}
        return read(path, on_error=on_error, **more)
    if not Path(source).exists() and "." not in source:
        raise UnknownNameError("source of tasks", source, (generated, *(f"{known}:PATH" for known in datasets)))
    return datasets["columns"](source, columns, on_error=on_error)
