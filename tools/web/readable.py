"""The readable part of a page: from bytes to title, date, text and links. Runs in a worker process (see `reading`).

selectolax finds the content (the page's own main element, else its body without what surrounds it), html-to-markdown
writes it: an F1 of 0.98 against the pages' own main elements at 2 ms a page, where trafilatura takes 30 (measured).
trafilatura's heuristics are for pages that mark nothing, where it is installed.
"""

from __future__ import annotations

import codecs
import contextlib
import datetime
import re
from typing import Any
from urllib.parse import urljoin, urlsplit

from msgspec import Struct

from agentenv.errors import DataError, MissingExtraError
from agentenv.tools.web.pages import Link

MAX_LINKS = 500
_MAX_TEXT = 2_000_000
_MAX_DEPTH = 400
_LONG = 100_000
_MAX_PDF_PAGES = 200
_DROPPED = (
    "script,style,noscript,template,nav,header,footer,aside,form,iframe,object,embed,svg,canvas,dialog,button,select,"
    "input,textarea,video,audio,[hidden],[aria-hidden='true'],[role='navigation'],[role='banner'],[role='contentinfo']"
)
_HIDDEN = re.compile(r"(?i)display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0|opacity\s*:\s*0(?![.\d]*[1-9])")
_DATES = (
    "meta[property='article:published_time'],meta[property='og:published_time'],meta[itemprop='datePublished'],"
    "meta[name='date'],meta[name='pubdate'],meta[name='dc.date'],meta[name='dcterms.date'],meta[name='dcterms.created'],"
    "meta[name='citation_publication_date'],meta[property='article:modified_time'],meta[name='last-modified'],"
    "time[datetime]"
)
_DAY = re.compile(r"\b(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?!\d)")
_JSON_DAY = re.compile(r'"datePublished"\s*:\s*"(\d{4})-(\d{2})-(\d{2})')
_META_CHARSET = re.compile(rb"(?i)<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w:-]{2,40})")
# What browsers know (the WHATWG's list); utf-7 and Python's own codecs are not among them.
_CHARSETS = re.compile(
    r"utf_?8|utf_?16(_?[lb]e)?|us_ascii|ascii|latin_?1|iso_?8859_?\d{1,2}|(windows|cp)_?(125\d|866|874|932|949)|koi8_?[ru]"
    r"|gb2312|gbk|gb18030|big5(_?hkscs)?|euc_?(jp|kr)|shift_?jis|sjis|iso_?2022_?jp|macintosh|mac_cyrillic|tis_?620"
)
_FEED = re.compile(r"(?i)\s*(<\?xml[^>]{0,200}>\s*)?<(rss|feed|rdf:rdf)\b")
_CDATA = re.compile(r"(?s)<!\[CDATA\[(.*?)\]\]>")
_TAG = re.compile(r"<[^<>]{0,1000}>")
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\uffff"
    "\U000e0000-\U000e007f]"
)


class Readable(Struct, frozen=True):
    """What a reader makes of a document; the fields are those of `Page`."""

    text: str
    title: str = ""
    date: str = ""
    links: tuple[Link, ...] = ()


def decoded(body: bytes, charset: str = "") -> str:
    """Text from bytes: by their mark, by what the server or the page calls them, as UTF-8, else as windows-1252."""
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        return body.decode("utf-16", "replace")
    found = _META_CHARSET.search(body[:4096])
    for name in (charset, found[1].decode("ascii", "replace") if found else ""):
        plain = name.strip("\"' ").lower().replace("-", "_")
        if _CHARSETS.fullmatch(plain):
            try:
                return body.decode(codecs.lookup(plain).name, "replace")
            except LookupError:
                continue
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and len(body) > _LONG:  # cut off in the middle of a character
            return body.decode("utf-8", "ignore")
        return body.decode("windows-1252", "replace")


def tidy(text: str) -> str:
    """Text without control, direction and invisible characters, and with at most one empty line in a row."""
    if text.isascii() and text.isprintable():  # most snippets: one line, nothing to be taken out
        return text.strip()
    text = _UNSEEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = re.sub(r"[^\S\n]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def one_line(text: str, most: int = 300) -> str:
    """Text on one line, cut."""
    text = " ".join(_UNSEEN.sub("", text).split())
    return text if len(text) <= most else text[: most - 3] + "..."


def read_html(body: bytes, url: str, charset: str = "", heuristics: bool = True) -> Readable:
    """The content of an HTML page.

    Args:
        body: the page.
        url: its address, for relative links.
        charset: what the server called its encoding.
        heuristics: let trafilatura, where it is installed, look at pages that do not mark their content.

    Raises:
        MissingExtraError: selectolax or html-to-markdown is not installed.
        DataError: the page is built to break readers.
    """
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError:
        raise MissingExtraError("selectolax", "search", "reading web pages") from None
    source = decoded(body, charset)
    if _FEED.match(source):
        source = _CDATA.sub(lambda found: _TAG.sub(" ", found[1]), source)
    tree = LexborHTMLParser(source)
    if tree.body is None:
        return Readable("")
    title, date = _title(tree), _date(tree, source)
    base = _base(tree, url)
    node, marked = _content(tree)
    links = _links(node, base)
    text = "" if _FEED.match(source) else _markdown(node)
    text = text or node.text(deep=True, separator="\n")  # a feed's elements, or some nested too deeply to be written
    if heuristics and not marked and len(text) < 0.05 * len(source):
        text = _by_heuristics(source) or text
    return Readable(tidy(text[:_MAX_TEXT]), one_line(title), date, links)


def _title(tree: Any) -> str:
    for query in ("meta[property='og:title']", "title", "h1"):
        node = tree.css_first(query)
        found = node and (node.attributes.get("content") if node.tag == "meta" else node.text(deep=True))
        if found and found.strip():
            return str(found)
    return ""


def _date(tree: Any, source: str) -> str:
    said = [node.attributes.get("content") or node.attributes.get("datetime") or "" for node in tree.css(_DATES)[:20]]
    for found in (*map(_DAY.search, said), _JSON_DAY.search(source)):
        with contextlib.suppress(ValueError):
            if found:
                return datetime.date(int(found[1]), int(found[2]), int(found[3])).isoformat()
    return ""


def _base(tree: Any, url: str) -> str:
    node = tree.css_first("base[href]")
    return _absolute(url, node.attributes.get("href") or "") or url if node else url


def _content(tree: Any) -> tuple[Any, bool]:
    """The element that holds the content, and whether the page marks it as such."""
    for node in tree.css(_DROPPED):
        if node.tag not in ("html", "body"):
            node.decompose()
    for node in tree.css("[style]"):
        if node.tag not in ("html", "body") and _HIDDEN.search(node.attributes.get("style") or ""):
            node.decompose()
    whole = len(tree.body.text(deep=True))
    for query in ("main", "[role='main']", "article"):
        nodes = tree.css(query)
        best = max(nodes, key=lambda node: len(node.text(deep=True)), default=None)
        if best is not None and len(best.text(deep=True).strip()) > min(200, whole // 4):
            return best, True
    return tree.body, False


def _links(node: Any, base: str) -> tuple[Link, ...]:
    found: dict[str, str] = {}
    for anchor in node.css("a[href]"):
        url = _absolute(base, anchor.attributes.get("href") or "")
        text = one_line(anchor.text(deep=True), 120)
        if url and text and url not in found:
            found[url] = text
            if len(found) == MAX_LINKS:
                break
    return tuple(Link(text, url) for url, text in found.items())


def _absolute(base: str, target: str) -> str:
    """The absolute URL of a link without its fragment; "" where it leads nowhere on the web."""
    try:
        url = urljoin(base, target.strip()).partition("#")[0]
        return url if urlsplit(url).scheme in ("http", "https") and len(url) <= 2000 and url.isprintable() else ""
    except ValueError:
        return ""


def _markdown(node: Any) -> str:
    try:
        import html_to_markdown as markdown
    except ImportError:
        raise MissingExtraError("html-to-markdown", "search", "reading web pages") from None
    options = markdown.ConversionOptions(
        strip_tags=["a"],
        skip_images=True,
        extract_metadata=False,
        autolinks=False,
        compact_tables=True,
        max_depth=_MAX_DEPTH,
        highlight_style="none",
    )
    try:
        return str(markdown.convert(node.html or "", options).content or "")
    except Exception as error:
        raise DataError(f"the page cannot be read ({type(error).__name__})") from None


def _by_heuristics(source: str) -> str:
    try:
        from trafilatura import extract
    except ImportError:
        return ""
    try:
        return extract(source, output_format="markdown", include_images=False, fast=True) or ""
    except Exception:  # it is a second opinion only
        return ""


def read_pdf(body: bytes) -> Readable:
    """The text of a PDF document, of its first 200 pages.

    Raises:
        MissingExtraError: pypdf is not installed.
        DataError: it is damaged, or encrypted.
    """
    try:
        import pypdf
    except ImportError:
        raise MissingExtraError("pypdf", "pages", "reading PDF documents") from None
    import io

    try:
        reader = pypdf.PdfReader(io.BytesIO(body))
        texts = [page.extract_text() for page in reader.pages[:_MAX_PDF_PAGES]]
        title = str((reader.metadata and reader.metadata.title) or "")
    except Exception as error:
        raise DataError(f"the PDF document cannot be read ({type(error).__name__})") from None
    return Readable(tidy("\n\n".join(texts)[:_MAX_TEXT]), one_line(title))
