"""What happens between a search and what the model reads, in plain stages:

    retriever -> reranker (optional) -> per-document budget -> summariser (optional) -> formatter

Each stage is a function or a small object that can be exchanged. What each did is kept as data beside the text.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from agentenv.errors import ConfigError, StoreError
from agentenv.media import MediaStore, media_store
from agentenv.tools.search.formats import Picture, make_formatter, written
from agentenv.tools.search.types import Formatter, Hit, Reranker, Results, Summariser, Summary
from agentenv.types import Image, Part, Table, Text, ToolResult

logger = logging.getLogger("agentenv")

COLUMNS = ("rank", "id", "title", "url", "score", "date", "text", "image")
"""Columns of the table that every search result carries as data."""

UNSUMMARISED = "(The results could not be summed up; they follow as they were found.)"
CUT = "..."


class Budget(Struct, frozen=True, forbid_unknown_fields=True):
    """How much of each document a model reads.

    Args:
        characters: of its text; None for all of it.
        tokens: the same counted by `count`; None for no limit.
        title: characters of its title.
        count: tokens of a text; a quarter of its characters, rounded up, where none is given.
    """

    characters: int | None = 2000
    tokens: int | None = None
    title: int = 200
    count: Callable[[str], int] | None = None

    def __post_init__(self) -> None:
        for name in ("characters", "tokens", "title"):
            most = getattr(self, name)
            if most is not None and most < 1:
                raise ConfigError(f"search: the budget of {name} is at least 1, or None for no limit, not {most}")

    def apply(self, hit: Hit) -> Hit:
        """The hit with its title and text cut at a word, which shows."""
        text = hit.text if self.characters is None else cut(hit.text, self.characters)
        text = text if self.tokens is None else self._tokens(text, self.tokens)
        title = cut(hit.title, self.title)
        return hit if text is hit.text and title is hit.title else replace(hit, text=text, title=title)

    def _tokens(self, text: str, most: int) -> str:
        if self.count is None:
            return cut(text, 4 * most)
        if self.count(text) <= most:
            return text
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.count(cut(text, middle)) <= most else (low, middle - 1)
        return cut(text, low) if low else ""


def cut(text: str, most: int) -> str:
    """At most so many characters of a text, ended at a word where there is one; the same object where it fits.

    >>> cut("one two three", 10), cut("one", 10)
    ('one two...', 'one')
    """
    if len(text) <= most:
        return text
    if most <= len(CUT):
        return text[:most]
    kept = text[: most - len(CUT)]
    if not text[len(kept)].isspace() and " " in kept[len(kept) // 2 :]:
        kept = kept[: kept.rindex(" ")]
    return kept.rstrip() + CUT


class Pipeline(Struct, frozen=True):
    """The stages after the retriever.

    Args:
        k: how many hits the model reads.
        candidates: how many are retrieved for the reranker to choose from; `k` where 0.
        rerank: puts the candidates into a better order.
        budget: how much of each document is read, by the summariser or the model.
        summarise: writes a text that stands for the hits. Where it fails the hits are shown, and
            the model is told so.
        format: name of a format, or a function.
    """

    k: int = 5
    candidates: int = 0
    rerank: Reranker | None = None
    budget: Budget = Budget()
    summarise: Summariser | None = None
    format: str | Formatter = "plain"

    def __post_init__(self) -> None:
        if self.k < 1 or 0 < self.candidates < self.k:
            raise ConfigError("search: k is at least 1, and there are at least as many candidates")
        make_formatter(self.format)

    @property
    def wanted(self) -> int:
        """How many hits the retriever is asked for."""
        return self.candidates or self.k

    @property
    def settings(self) -> list[Any]:
        """What decides a result, as plain data, for the version of a tool."""
        said = [_named(stage) for stage in (self.rerank, self.summarise, self.format, self.budget.count)]
        return [self.k, self.candidates, self.budget.characters, self.budget.tokens, self.budget.title, *said]

    async def finish(
        self,
        tool: str,
        query: str,
        hits: Sequence[Hit],
        *,
        question: str = "",
        store: MediaStore | None = None,
        data: dict[str, Any] | None = None,
        cost: float = 0.0,
    ) -> ToolResult:
        """What a tool returns for the hits of a retriever.

        Args:
            tool: its name.
            query: what was searched for.
            hits: the candidates, best first.
            question: of the episode, for the summariser.
            store: where the hits' pictures are; the process's store by default.
            data: what the record shall know besides.
            cost: US dollars that the search itself took.

        Returns:
            A result whose first text is a `Table`: its text is what the model reads, its rows are the hits. Pictures
            stand where the format puts them. `data` holds query, ids and urls of the hits, and the summary.
        """
        found = tuple(self.budget.apply(hit) for hit in (await self._reranked(query, hits))[: self.k])
        said = {**(data or {}), "query": query, "ids": [hit.id for hit in found], "urls": [hit.url for hit in found]}
        made, trouble = await self._summary(query, found, question)
        usage = made.usage if made else None
        if made is not None:
            said["summary"] = {"text": made.text, "model": made.model, "seconds": made.seconds}
        if trouble:
            said["summary_error"] = trouble
        results = Results(tool, query, found, made.text if made else "", UNSUMMARISED if trouble else "")
        parts = _parts(results, make_formatter(self.format), store)
        return ToolResult("", tool, parts, cost=cost + (usage.cost if usage else 0.0), usage=usage, data=said)

    async def _reranked(self, query: str, hits: Sequence[Hit]) -> Sequence[Hit]:
        if self.rerank is None or not hits:
            return hits
        ordered: Sequence[Hit] = await _awaited(self.rerank(query, hits))
        return ordered

    async def _summary(self, query: str, hits: tuple[Hit, ...], question: str) -> tuple[Summary | None, str]:
        """The summary, or None and what went wrong ("" where none was wanted)."""
        if self.summarise is None or not hits:
            return None, ""
        started = time.perf_counter()
        try:
            made: Summary | str = await _awaited(self.summarise(query, hits, question))
        except Exception as error:  # whatever it is, the search itself has gone well
            logger.warning("the summariser failed: %r", error)
            return None, f"{type(error).__name__}: {error}"
        if isinstance(made, str):
            made = Summary(made, _named(self.summarise), None, time.perf_counter() - started)
        if not isinstance(made, Summary):
            return None, f"the summary is {type(made).__name__}, not a text"
        return (made, "") if made.text.strip() else (None, "the summary is empty")


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def _named(stage: Any) -> Any:
    """What a stage is called in the version of a tool."""
    if stage is None or isinstance(stage, str):
        return stage
    return getattr(stage, "name", "") or getattr(stage, "__qualname__", "") or type(stage).__qualname__


def _parts(results: Results, formatter: Formatter, store: MediaStore | None) -> tuple[Part, ...]:
    """The parts for the model, the first text of them with all hits as rows."""
    parts: list[Part] = []
    table = False
    for item in written(results, formatter):
        if isinstance(item, Picture):
            parts.append(_image(str(item), results, store or media_store()))
        elif not isinstance(item, str):
            parts.append(item)
        elif table:
            parts.append(Text(item))
        else:
            parts.append(hit_table(results.query, results.hits, item))
            table = True
    return tuple(parts)


def _image(sha256: str, results: Results, store: MediaStore) -> Image:
    try:
        if sha256 not in store:
            store.put_bytes(media_store().get(sha256))  # a live engine's, which knows the process's store only
        info = store.info(sha256)
    except StoreError as error:
        raise _no_picture(sha256, results, error) from None
    return Image(sha256, info.mime, info.width, info.height)


def _no_picture(sha256: str, results: Results, error: StoreError) -> StoreError:
    named = ", ".join(repr(hit.id[:80]) for hit in results.hits if hit.image == sha256)
    return StoreError(
        f"{results.tool}: the document {named} names the picture {sha256[:12]}, which cannot be had ({error}). Tell the"
        " process where it lies, media_store().add_root(FOLDER) for FOLDER/media, or leave the column of pictures out"
    )


def hit_table(query: str, hits: Sequence[Hit], text: str) -> Table:
    """Hits as data, with what the model reads of them."""
    rows = tuple(
        (rank, hit.id, hit.title, hit.url, round(hit.score, 6), hit.date, hit.text, hit.image)
        for rank, hit in enumerate(hits, start=1)
    )
    return Table(text, COLUMNS, rows, len(hits), query)


def hits_of(part: Table) -> list[dict[str, Any]]:
    """The rows of such a table by column; none where it is another tool's."""
    return [dict(zip(COLUMNS, row, strict=True)) for row in part.rows] if part.columns == COLUMNS else []
