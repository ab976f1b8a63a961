"""Pages: what `web_fetch` opens, whether it comes from the network or out of a corpus on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

from msgspec import Struct

from agentenv.errors import ToolError
from agentenv.tools.search.types import Hit


class Link(Struct, frozen=True, gc=False):
    """A link of a page: its text, and the absolute URL."""

    text: str
    url: str


class Page(Struct, frozen=True, gc=False, omit_defaults=True):
    """The readable content of a page. All of it is text from outside.

    Args:
        url: where it was found in the end, after redirects.
        text: Markdown without links and pictures, or plain text.
        title: its title; "" where it has none.
        date: when it was published or last changed, as YYYY-MM-DD; "" where it does not say.
        links: in the order of the page, each URL once.
        cut: only its beginning was read.
    """

    url: str
    text: str
    title: str = ""
    date: str = ""
    links: tuple[Link, ...] = ()
    cut: bool = False


@runtime_checkable
class Pages(Protocol):
    """Where pages come from.

    `name` says which source this is, `deterministic` whether the same address always gives the same page; a `version`,
    where there is one, changes whenever it may give another.
    """

    @property
    def name(self) -> str: ...

    @property
    def deterministic(self) -> bool: ...

    async def page(self, url: str) -> Page:
        """The page at an address.

        Raises:
            ToolError: of kind `refused`: the address may not be opened; `failed`: there is no such page, or it cannot
                be read; `unavailable` or `timeout`: its server did not answer usefully, another try may help.
        """
        ...


class Documents(Protocol):
    """A corpus whose documents can be had by name: see `agentenv.tools.search.open_corpus`."""

    def get(self, id: str) -> Hit | None:
        """The document with an id."""
        ...

    def at_url(self, url: str) -> Hit | None:
        """The first document with an address."""
        ...


class CorpusPages:
    """Pages of a corpus on this machine, by URL or by "doc:ID". Nothing is ever fetched.

    Args:
        find: gives the page under a URL (as `plain_url` writes it) or under an id, None where there is none.
        name: of the corpus.
        version: changes whenever its content does; part of the version of tools.
    """

    deterministic = True

    def __init__(self, find: Callable[[str], Page | None], name: str = "corpus", version: str = "") -> None:
        self._find, self.name, self.version = find, name, version

    @classmethod
    def over(cls, corpus: Documents) -> CorpusPages:
        """The documents of a search corpus as pages, by address and by id, so that what it finds can be opened."""

        def find(name: str) -> Page | None:
            addresses = (name, f"https://{name}", f"http://{name}", f"https://www.{name}", f"http://www.{name}")
            hit = corpus.get(name) or next((hit for hit in map(corpus.at_url, addresses) if hit), None)
            return None if hit is None else Page(hit.url or f"doc:{hit.id}", hit.text, hit.title, hit.date)

        return cls(find, str(getattr(corpus, "name", "corpus")), str(getattr(corpus, "version", "")))

    @classmethod
    def of(cls, pages: Iterable[Page]) -> CorpusPages:
        """Pages in memory, under the URL that each has."""
        known = {plain_url(page.url): page for page in pages}
        return cls(known.get)

    async def page(self, url: str) -> Page:
        """See `Pages.page`."""
        asked = url.strip()
        names = (asked.removeprefix("doc:"), asked) if asked.startswith("doc:") else (plain_url(asked), asked)
        for name in dict.fromkeys(names):
            if (found := self._find(name)) is not None:
                return found
        shown = asked if len(asked) <= 120 else asked[:117] + "..."
        raise ToolError(f"There is no page {shown!r} here. Open pages by the address that a search result shows.")


def plain_url(url: str) -> str:
    """A URL without what rarely tells pages apart: scheme, "www.", fragment, trailing slash; the host in small letters.

    >>> plain_url("HTTPS://www.Example.org/a/#top"), plain_url("doc:7")
    ('example.org/a', 'doc:7')
    """
    try:
        parts = urlsplit(url.strip())
        host = (parts.netloc.rpartition("@")[2]).lower().removeprefix("www.")
    except ValueError:
        return url
    if parts.scheme.lower() not in ("http", "https") or not host:
        return url
    return f"{host}{parts.path.rstrip('/')}{'?' + parts.query if parts.query else ''}"
