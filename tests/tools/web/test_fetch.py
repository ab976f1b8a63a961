"""How a page is shown: in parts, around a phrase, with its links."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.errors import ConfigError, ToolError
from agentenv.tools.search.types import Hit
from agentenv.tools.web import CorpusPages, FetchRules, Link, Page, web_fetch_tool
from agentenv.tools.web.fetch import NOTICE, parts_of
from agentenv.tools.web.readable import decoded, one_line, read_html, tidy

LONG = "\n\n".join(f"Paragraph {i} says that number {i} is followed by {i + 1}." for i in range(100))
LINKS = tuple(Link(f"link {i}", f"https://e.org/{i}") for i in range(30))
PAGES = CorpusPages.of([
    Page("https://e.org/short", "One  line.", "A title", "2024-01-02", LINKS[:2]),
    Page("https://e.org/long", LONG, "Long", links=LINKS, cut=True),
    Page("https://e.org/empty", ""),
])  # fmt: skip


async def opened(url: str, rules: FetchRules | None = None, **arguments: Any) -> str:
    tool = web_fetch_tool(PAGES, rules=rules)
    result = await tool(**tool.validate({"url": url, **arguments}))
    assert result.data["url"].startswith("https://e.org/")
    return str(result.parts[0].text)


async def test_a_short_page_is_shown_whole() -> None:
    assert await opened("https://e.org/short") == (
        f"Title: A title\nAddress: https://e.org/short\nDate: 2024-01-02\n{NOTICE}\n\nOne  line.\n\n"
        "Links of this page:\n- link 0: https://e.org/0\n- link 1: https://e.org/1"
    )
    assert "no text on this page" in await opened("https://e.org/empty")
    assert NOTICE not in await opened("https://e.org/short", FetchRules(notice=""))


async def test_a_long_page_is_shown_in_parts() -> None:
    rules = FetchRules(characters=1000, links=3)
    first = await opened("https://e.org/long", rules)
    assert "Part 1 of 6." in first
    assert "Links" not in first
    last = await opened("https://e.org/long", rules, page=6)
    assert last.endswith("- link 2: https://e.org/2\n(and 27 more)")
    assert "only its beginning was read" in last
    with pytest.raises(ToolError, match=r"has 6 part\(s\); there is no part 7"):
        await opened("https://e.org/long", rules, page=7)
    with pytest.raises(ToolError, match="page"):
        await opened("https://e.org/long", rules, page=0)


async def test_a_phrase_is_found_in_a_page() -> None:
    rules = FetchRules(characters=1000, around=20, matches=2)
    text = await opened("https://e.org/long", rules, find="NUMBER \n 77 is")
    assert "1 place(s) with 'NUMBER \\n 77 is'" in text
    assert "[in part 5]" in text
    assert "number 77 is followed" in text
    many = await opened("https://e.org/long", rules, find="paragraph")
    assert many.startswith("Title: Long\nAddress: https://e.org/long\n100 place(s)")
    assert many.count("[in part") == 2
    assert many.endswith("(There are more.)")
    nothing = await opened("https://e.org/long", rules, find="[unicorn")
    assert "is not on this page" in nothing


async def test_bad_calls_are_told_what_is_wrong() -> None:
    for url in (" ", "https://e.org/none"):
        with pytest.raises(ToolError):
            await opened(url)
    for rules in (FetchRules(characters=10), FetchRules(matches=0), FetchRules(links=-1)):
        with pytest.raises(ConfigError):
            web_fetch_tool(PAGES, rules=rules)


def test_the_tool_can_be_called_and_described_otherwise() -> None:
    tool = web_fetch_tool(PAGES, name="visit", description="Go there.")
    assert tool.spec.name == "visit"
    assert tool.spec.description == "Go there."
    assert set(tool.spec.parameters["properties"]) == {"url", "page", "find"}
    assert "address of the page" in tool.spec.parameters["properties"]["url"]["description"]


async def test_what_a_corpus_finds_can_be_opened() -> None:
    class Corpus:
        name, version = "tiny", "7"
        hits: Sequence[Hit] = (Hit("d1", "T", "body", "https://www.e.org/a", date="2020"), Hit("d2", "U", "no address"))

        def get(self, id: str) -> Hit | None:
            return next((hit for hit in self.hits if hit.id == id), None)

        def at_url(self, url: str) -> Hit | None:
            return next((hit for hit in self.hits if hit.url == url), None)

    pages = CorpusPages.over(Corpus())
    assert (pages.name, pages.version) == ("tiny", "7")
    assert await pages.page("http://e.org/a/") == Page("https://www.e.org/a", "body", "T", "2020")
    assert await pages.page("doc:d2") == Page("doc:d2", "no address", "U")
    with pytest.raises(ToolError, match="There is no page"):
        await pages.page("doc:d3")


@given(st.text(alphabet=st.sampled_from("ab \n"), max_size=400), st.integers(1, 50))
def test_parts_hold_the_whole_text(text: str, size: int) -> None:
    parts = parts_of(text, size)
    assert parts
    assert all(len(part) <= size for part in parts)
    assert "".join("".join(part.split()) for part in parts) == "".join(text.split())


@given(st.text())
def test_tidy_text_is_tidy(text: str) -> None:
    once = tidy(text)
    assert tidy(once) == once
    assert "\n\n\n" not in once
    assert "\n" not in one_line(text)
    assert len(one_line(text, 10)) <= 10


@given(st.binary(max_size=300), st.text(max_size=12))
def test_any_bytes_are_text(body: bytes, charset: str) -> None:
    decoded(body, charset).encode("utf-8", "surrogatepass")


@given(st.text(alphabet=st.sampled_from("<>/abp \"'=&;!-"), max_size=200))
def test_any_markup_is_read(text: str) -> None:
    found = read_html(f"<main>{text}</main>".encode(), "https://e.org/", heuristics=False)
    assert tidy(found.text) == found.text


def test_details_of_pages() -> None:
    page = read_html(
        b"<html><head><base href='https://other.org/x/'><meta property='og:title' content=' Og  T '></head><body>"
        b"<time datetime='2021/2/3'></time><article><p>" + b"word " * 60 + b"<a href='y#z'>in</a></p></article>"
        b'<script type=\'application/ld+json\'>{"datePublished": "1999-01-01"}</script></body></html>',
        "https://e.org/a",
    )
    assert (page.title, page.date) == ("Og T", "2021-02-03")
    assert page.links == (Link("in", "https://other.org/x/y"),)
    late = read_html(b'<h1>Only head</h1><script>{"datePublished": "1999-01-02T"}</script><p>x</p>', "https://e.org/")
    assert (late.title, late.date) == ("Only head", "1999-01-02")
    assert read_html(b"<main></main><p>" + b"far more text " * 40 + b"</p>", "https://e.org/").text.startswith(
        "far more"
    )
