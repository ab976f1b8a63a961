"""Live search engines, by name. Each is a `Retriever`: `web_search_tool(make_engine("brave"))`.

For thousands of episodes put a cassette in front (`agentenv.cassette`), or search a corpus: live engines cost money,
change their minds and refuse.
"""

from __future__ import annotations

from inspect import signature
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
        UnknownNameError: there is no such engine, or it has no such option.
        ConfigError: an option makes no sense.
        MissingExtraError: it needs a package that is not installed.
    """
    if name not in ENGINES:
        raise UnknownNameError("search engine", name, ENGINES)
    made = load_object(ENGINES[name])
    for option in options:
        if option not in _options(made):
            raise UnknownNameError(f"option of the search engine {name}", option, _options(made))
    if isinstance(options.get("rate"), (int, float)):
        options["rate"] = Rate(float(options["rate"]))
    try:
        engine: LiveEngine = made(kind, **options)
    except TypeError as error:
        raise ConfigError(f"search engine {name!r}: {error}") from None
    return engine


def _options(engine: type[LiveEngine]) -> set[str]:
    """What an engine's class and those that it is made of take by name."""
    made = (vars(kind).get("__init__") for kind in engine.__mro__ if issubclass(kind, LiveEngine))
    known = (signature(one).parameters.values() for one in made if one is not None)
    return {one.name for several in known for one in several if one.kind is one.KEYWORD_ONLY}


__all__ = ["ENGINES", "ApiEngine", "LiveEngine", "SearchFailed", "make_engine"]
