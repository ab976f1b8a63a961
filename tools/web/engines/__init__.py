"""Live search engines, by name. Each is a `Retriever`: `web_search_tool(make_engine("brave"))`.

For thousands of episodes put a cassette in front (`agentenv.cassette`), or search a corpus: live engines cost money,
change their minds and refuse.
"""

from __future__ import annotations

from typing import Any

from agentenv.errors import ConfigError, UnknownNameError
from agentenv.registry import load_object
from agentenv.tools.web.engines.base import ApiEngine, LiveEngine, SearchFailed
from agentenv.tools.web.rate import Rate

ENGINES = {
    "brave": "agentenv.tools.web.engines.brave:Brave",
    "ddgs": "agentenv.tools.web.engines.ddgs:Ddgs",
    "searxng": "agentenv.tools.web.engines.searxng:SearXNG",
    "serper": "agentenv.tools.web.engines.serper:Serper",
    "tavily": "agentenv.tools.web.engines.tavily:Tavily",
}
"""Names of the engines, and where each is."""


def make_engine(name: str, kind: str = "web", **options: Any) -> LiveEngine:
    """A live search engine.

    Args:
        name: "brave", "ddgs", "searxng", "serper" or "tavily". Keys are read from BRAVE_API_KEY, SERPER_API_KEY and
            TAVILY_API_KEY; the other two need none.
        kind: "web" for pages, "images" for pictures.
        options: of the engine: `base_url`, `rate` (a `Rate`, or searches a second), `patience`, `concurrency`; see
            `ApiEngine` and its class.

    Raises:
        UnknownNameError: there is no such engine.
        ConfigError: it has no such option, or an option makes no sense.
        MissingExtraError: it needs a package that is not installed.
    """
    if name not in ENGINES:
        raise UnknownNameError("search engine", name, ENGINES)
    if isinstance(options.get("rate"), (int, float)):
        options["rate"] = Rate(float(options["rate"]))
    try:
        engine: LiveEngine = load_object(ENGINES[name])(kind, **options)
    except TypeError as error:
        raise ConfigError(f"search engine {name!r}: {error}") from None
    return engine


__all__ = ["ENGINES", "ApiEngine", "LiveEngine", "SearchFailed", "make_engine"]
