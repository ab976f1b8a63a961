"""What an environment over a corpus searches and asks: a corpus of whatever is given, and tasks of a named source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from agentenv.envs.corpus import corpus_pages, embedded_corpus
from agentenv.errors import UnknownNameError, UsageError
from agentenv.task import OnError, TaskSet
from agentenv.tool import Tool
from agentenv.tools.search import Corpus, Pipeline, Retriever, open_corpus, web_search_tool
from agentenv.tools.search.corpus import EngineName
from agentenv.tools.search.pipeline import Budget
from agentenv.tools.web.fetch import web_fetch_tool
from agentenv.tools.web.pages import Pages

EMBEDDED = "embedded"


def as_retriever(corpus: str | Path | Retriever, engine: EngineName, columns: Mapping[str, str] | None) -> Retriever:
    """What is searched: "embedded", a file of documents, or a retriever as it is.

    Raises:
        UnknownNameError: no such file.
        MissingExtraError: a package that the embedded corpus needs is not installed.
    """
    if not isinstance(corpus, (str, Path)):
        return corpus
    if corpus == EMBEDDED:
        return embedded_corpus(engine)
    return open_corpus(corpus, columns=columns, engine=engine)


def search_tools(
    retriever: Retriever, *, k: int, shown: int | None, format: Any, fetch: bool, pages: Pages | None
) -> list[Tool]:
    """`web_search`, and with `fetch` also `web_fetch`, over one corpus.

    Raises:
        UsageError: pages are wanted of a retriever that has none.
    """
    tools = [web_search_tool(retriever, pipeline=Pipeline(k=k, budget=Budget(characters=shown), format=format))]
    if fetch and pages is None:
        if not isinstance(retriever, Corpus):
            raise UsageError("only a corpus has pages of its own: give pages=, or fetch=False")
        pages = corpus_pages(retriever)
    if fetch and pages is not None:
        tools.append(web_fetch_tool(pages))
    return tools


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
    if source == generated:
        return generate(**given)
    wrong = [name for name in given if name != "seed"]
    if wrong:
        raise UsageError(f"{wrong[0]} is an option of source={generated!r}, not of {source!r:.80}")
    if isinstance(source, TaskSet):
        return source
    name, colon, path = source.partition(":")
    if colon and name in datasets:
        read = datasets[name]
        more = {"columns": columns} if "columns" in signature(read).parameters else {}
        return read(path, on_error=on_error, **more)
    if not Path(source).exists() and "." not in source:
        raise UnknownNameError("source of tasks", source, (generated, *(f"{known}:PATH" for known in datasets)))
    return datasets["columns"](source, columns, on_error=on_error)
