"""Pages of the web: opened safely where they are fetched, and the same tool over a corpus where nothing is.

    tool = web_fetch_tool(LivePages())                                      # the open web
    tool = web_fetch_tool(CorpusPages.of([Page("https://example.org/a", "its text")]))

`Guard` says which addresses may be asked at all, `WebClient` asks them within its limits, `LivePages` reads what they
answer in processes of its own. What comes back is text from outside: it says so, and environments make its control
strings harmless before a policy sees it.
"""

from __future__ import annotations

from agentenv.tools.web.answers import FetchError
from agentenv.tools.web.client import WebClient
from agentenv.tools.web.fetch import FetchRules, web_fetch_tool
from agentenv.tools.web.guard import Guard
from agentenv.tools.web.httpcache import HTTPCache
from agentenv.tools.web.images import fetch_picture
from agentenv.tools.web.live import LivePages
from agentenv.tools.web.pages import CorpusPages, Link, Page, Pages
from agentenv.tools.web.rate import Rate
from agentenv.tools.web.reading import Reader
from agentenv.tools.web.robots import Robots

__all__ = [
    "CorpusPages",
    "FetchError",
    "FetchRules",
    "Guard",
    "HTTPCache",
    "Link",
    "LivePages",
    "Page",
    "Pages",
    "Rate",
    "Reader",
    "Robots",
    "WebClient",
    "fetch_picture",
    "web_fetch_tool",
]
