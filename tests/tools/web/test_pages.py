"""Pages out of a corpus."""

from __future__ import annotations

import pytest

from agentenv.errors import ToolError
from agentenv.tools.web import CorpusPages, Page


async def test_a_page_of_the_corpus_is_found_under_its_address_however_that_is_written() -> None:
    pages = CorpusPages.of([Page("https://example.org/a", "text"), Page("doc:7", "seven")])
    for url in ("https://example.org/a", "http://www.Example.org/a/", " https://example.org/a#part "):
        assert (await pages.page(url)).text == "text"
    assert (await pages.page("doc:7")).text == "seven"


async def test_ids_are_looked_up_with_and_without_their_scheme() -> None:
    asked: list[str] = []

    def find(name: str) -> Page | None:
        asked.append(name)
        return None

    for url in ("doc:7", "https://example.org/?q=1", "http://[bad"):
        with pytest.raises(ToolError, match="There is no page"):
            await CorpusPages(find).page(url)
    assert asked == ["7", "doc:7", "example.org?q=1", "https://example.org/?q=1", "http://[bad"]
