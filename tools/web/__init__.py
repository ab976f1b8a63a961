"""Pages of the web, safely.

    pages = CorpusPages.of([Page("https://example.org/a", "the text")])     # offline
    page = await pages.page("https://example.org/a")

`Guard` says which addresses may be asked at all, `WebClient` asks them within its limits.
"""

from __future__ import annotations

from agentenv.tools.web.client import FetchError, WebClient
from agentenv.tools.web.guard import Guard
from agentenv.tools.web.pages import CorpusPages, Link, Page, Pages
from agentenv.tools.web.rate import Rate

__all__ = ["CorpusPages", "FetchError", "Guard", "Link", "Page", "Pages", "Rate", "WebClient"]
