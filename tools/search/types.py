"""The words of search: hits, what finds them, what orders and sums them up, and what writes them for a model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct, field

from agentenv.types import Part, Usage


class Hit(Struct, frozen=True, gc=False, omit_defaults=True):
    """One result of a search.

    Args:
        id: names the document within its retriever; a page's address where it has no other name.
        title: of the document, as it stands there.
        text: its snippet or its whole text; how much of it is shown is the pipeline's business.
        url: where it is from; "" for none.
        score: the retriever's own, higher is better; two retrievers' scores cannot be compared.
        date: as the source writes it; "" where it is not known.
        image: SHA-256 of a picture in the media store that belongs to the hit; "" for none.
        meta: whatever else is known, as JSON values. The model does not see it.
    """

    id: str
    title: str
    text: str
    url: str = ""
    score: float = 0.0
    date: str = ""
    image: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Retriever(Protocol):
    """Finds documents by text.

    Attributes:
        name: who this is, for records and for the version of a tool: "tantivy", "brave".
        deterministic: the same query gives the same hits, now and next year, so results may be cached for good. True of
            a corpus, false of a live engine.

    A retriever that `has_deadline` (true) ends every search by itself, with an error that says who failed: tools set it
    no other limit. A `version`, where there is one, changes whenever the same query may give other hits (a corpus has
    the hash of its content there): it becomes part of the tool's version.
    """

    @property
    def name(self) -> str: ...

    @property
    def deterministic(self) -> bool: ...

    async def search(self, query: str, k: int) -> list[Hit]:
        """The `k` best hits or fewer, best first; none where nothing matches.

        The query is a model's: any text at all. No text of it may raise, or be read as a query language.

        Raises:
            ToolError: the search failed for a reason that the model may read (the engine refuses the query, a limit).
            InfrastructureError: the engine is out of reach; the episode is unscored.
        """
        ...

    def close(self) -> object:
        """Give back files and connections. May be called twice. May be a coroutine function."""
        ...


@runtime_checkable
class ImageRetriever(Protocol):
    """Finds documents by a picture; `name`, `deterministic`, `close` and errors as for `Retriever`."""

    @property
    def name(self) -> str: ...

    @property
    def deterministic(self) -> bool: ...

    async def search_image(self, image: bytes, k: int) -> list[Hit]:
        """The `k` best hits for a picture, which is given as the bytes of a file (JPEG, PNG, WebP)."""
        ...

    def close(self) -> object: ...


class Summary(Struct, frozen=True):
    """What a summariser made of the hits: the text that stands for them, who wrote it, and what it took."""

    text: str
    model: str = ""
    usage: Usage | None = None
    seconds: float = 0.0


class Results(Struct, frozen=True):
    """What a formatter writes.

    Args:
        tool: name of the tool that was called.
        query: what was searched for; for a picture, its handle and region.
        hits: in order, each text already within its budget.
        summary: what a summariser wrote of them; "" without one, or where it failed.
        note: a sentence for the model on what went wrong on the way, for instance with the summariser; "" for nothing.
    """

    tool: str
    query: str
    hits: tuple[Hit, ...]
    summary: str = ""
    note: str = ""


Reranker = Callable[[str, Sequence[Hit]], Sequence[Hit] | Awaitable[Sequence[Hit]]]
"""(query, hits) -> the same hits in a better order; it may leave some out. Sync or async."""

Summariser = Callable[[str, Sequence[Hit], str], Summary | str | Awaitable[Summary | str]]
"""(query, hits, question of the episode or "") -> a text that stands for the hits. Sync or async."""

Formatter = Callable[[Results], str | Sequence[str | Part]]
"""What the model reads. Pictures are asked for with `picture(hit)` (see `formats`)."""

Grounder = Callable[[bytes, str], Any]
"""(bytes of an image file, phrase) -> the box that the phrase means, or None. Sync or async.

A box is (left, top, right, bottom) in pixels of that image.
"""
