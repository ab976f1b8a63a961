"""Pages of the open web."""

from __future__ import annotations

import logging
import re
import time
from collections import OrderedDict
from email.message import Message
from importlib.util import find_spec

from agentenv.errors import MissingExtraError, ToolError
from agentenv.locks import KeyedLocks
from agentenv.tools.web.answers import Fetched, FetchError
from agentenv.tools.web.client import WebClient
from agentenv.tools.web.guard import Guard
from agentenv.tools.web.httpcache import HTTPCache
from agentenv.tools.web.pages import Page
from agentenv.tools.web.rate import Rate
from agentenv.tools.web.readable import decoded, one_line, tidy
from agentenv.tools.web.reading import Reader, shared_reader
from agentenv.tools.web.robots import Robots

logger = logging.getLogger("agentenv")

RATE = Rate(per_second=2.0, burst=4)
_ACCEPT = {"Accept": "text/html,application/xhtml+xml,text/plain;q=0.9,application/pdf;q=0.8,*/*;q=0.1"}
_KEPT_PAGES, _KEPT_SECONDS = 256, 300.0
_BINARY = (
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"GIF8", "a GIF picture"),
    (b"RIFF", "a picture or sound"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"OggS", "sound or video"),
    (b"ID3", "sound"),
)
_NUL = re.compile(rb"\0")
# What the WHATWG's MIME Sniffing Standard calls binary data bytes.
_BINARY_BYTES = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_MARKUP = (b"<!doctype", b"<html", b"<head", b"<body", b"<!--", b"<?xml", b"<rss", b"<feed", b"<meta", b"<title")


class LivePages:
    """Pages that are fetched: guarded, bounded, polite, and read in a process of their own.

    Args:
        client: asks; by default two requests a second to a host, of the public internet only.
        robots: respect robots.txt.
        reader: reads documents; the process's by default.

    A page that was read is kept for five minutes, so that the parts of a long one fit together.

    Raises:
        MissingExtraError: a package is missing that reads pages or robots.txt.
    """

    name = "web"
    deterministic = False
    has_deadline = True

    def __init__(self, client: WebClient | None = None, *, robots: bool = True, reader: Reader | None = None) -> None:
        for package, module in (("selectolax", "selectolax"), ("html-to-markdown", "html_to_markdown")):
            if find_spec(module) is None:
                raise MissingExtraError(package, "search", "reading web pages")
        self.client = client or WebClient(Guard(), rate=RATE, cache=HTTPCache())
        self.reader = reader or shared_reader()
        self.robots = Robots(self.client) if robots else None
        self._kept: OrderedDict[str, tuple[float, Page]] = OrderedDict()
        self._opening = KeyedLocks()

    async def page(self, url: str) -> Page:
        """See `Pages.page`."""
        async with self._opening.of(url):  # an address that several episodes open at once is fetched once
            kept = self._kept.get(url)
            if kept is not None and kept[0] > time.monotonic():
                return kept[1]
            visit = self.robots.visit if self.robots else None
            page = await self._read(await self.client.get(url, headers=_ACCEPT, visit=visit))
            self._kept[url] = (time.monotonic() + _KEPT_SECONDS, page)
            while len(self._kept) > _KEPT_PAGES:
                self._kept.popitem(last=False)
        return page

    async def _read(self, answer: Fetched) -> Page:
        if answer.status != 200:
            said = {401: "wants a password", 403: "forbids it", 404: "there is no such page", 410: "it is gone"}
            why = said.get(answer.status, f"status {answer.status}")
            raise FetchError(f"{answer.url.host} does not give this page: {why}.", status=answer.status)
        declared, charset = _content_type(answer.headers.get("content-type", ""))
        kind = kind_of(answer.body, declared)
        url = str(answer.url)
        if kind == "text":
            return Page(url, tidy(decoded(answer.body, charset)), one_line(answer.url.name), cut=answer.cut)
        if kind == "pdf" and answer.cut:
            raise ToolError("This PDF document is too long to be read here.")
        try:
            found = await self.reader.read(kind, answer.body, url, charset)
        except MissingExtraError as error:
            if kind != "pdf":
                raise
            logger.warning("%s", error)
            raise ToolError("This is a PDF document, and those cannot be read here.") from None
        return Page(url, found.text, found.title, found.date, found.links, answer.cut)

    async def close(self) -> None:
        """Close the connections of this event loop."""
        await self.client.close()


def kind_of(body: bytes, declared: str) -> str:
    """What a document is, by its first bytes; what its server calls it must not contradict them.

    Returns:
        "html", "pdf" or "text".

    Raises:
        ToolError: it is none of these, or pretends to be something else.
    """
    head = body[:1024]
    if head.startswith(b"%PDF-"):
        return "pdf"
    binary = next((what for start, what in _BINARY if head.startswith(start)), "")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    called = declared.endswith(("html", "xml"))
    marked = start.startswith(_MARKUP) or (called and start.startswith(b"<"))
    odd = (_NUL if marked else _BINARY_BYTES).search(head)
    if not binary and odd and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        binary = "binary data"
    if binary:
        raise ToolError(f"This address holds {binary}, not a page of text.")
    family = declared.partition("/")[0]
    if family in ("image", "audio", "video", "font") and declared != "image/svg+xml":
        raise ToolError(f"This address says that it holds {declared}, and it does not; it is not opened.")
    inside = b"<html" in start and not declared.endswith("json")
    return "html" if marked or inside or (called and b"<" in body) else "text"


def _content_type(header: str) -> tuple[str, str]:
    """Media type and charset of a Content-Type header."""
    message = Message()
    message["content-type"] = header[:200] or "application/octet-stream"
    charset = message.get_param("charset", "")
    return message.get_content_type() if header else "", charset if isinstance(charset, str) else ""
