"""robots.txt (RFC 9309): what a site lets robots fetch is asked for before a page is."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

from yarl import URL

from agentenv.errors import MissingExtraError, ToolError, ToolErrorKind
from agentenv.locks import KeyedLocks
from agentenv.tools.web.answers import FetchError
from agentenv.tools.web.client import WebClient
from agentenv.tools.web.guard import refused

_MOST_SITES = 4096
_MOST_BYTES = 500 << 10  # what RFC 9309 wants to be read at least
_LONGEST_DELAY = 10.0


class Robots:
    """The rules of the sites that a client visits; each site is asked once a day.

    Args:
        client: asks for them.
        agent: the product name that rules are looked up for.
        max_age: seconds for which rules are kept.

    Raises:
        MissingExtraError: protego is not installed, the only parser that gets wildcards and precedence right.
    """

    def __init__(self, client: WebClient, agent: str = "agentenv", max_age: float = 86_400.0) -> None:
        try:
            from protego import Protego
        except ImportError:
            raise MissingExtraError("protego", "search", "reading robots.txt") from None
        self._parse = Protego.parse
        self._client, self._agent, self._max_age = client, agent, max_age
        self._rules: OrderedDict[URL, tuple[float, Any]] = OrderedDict()
        self._asking = KeyedLocks()

    async def visit(self, url: URL) -> None:
        """Ask whether a page may be fetched.

        Raises:
            ToolError: of kind `refused`: its site forbids it; `unavailable`: the site's rules cannot be had now, which
                stands for "no" (RFC 9309, 2.3.1.4).
        """
        rules = await self._of(url.origin())
        if rules is not None and not rules.can_fetch(str(url), self._agent):
            raise refused(f"{url.host} asks robots not to open this page (robots.txt).")

    async def _of(self, site: URL) -> Any:
        async with self._asking.of(site):
            found = self._rules.get(site)
            if found is None or found[0] < time.monotonic():
                found = self._rules[site] = (time.monotonic() + self._max_age, await self._asked(site))
                while len(self._rules) > _MOST_SITES:
                    self._rules.popitem(last=False)
        return found[1]

    async def _asked(self, site: URL) -> Any:
        try:
            answer = await self._client.get(site / "robots.txt", max_bytes=_MOST_BYTES)
        except FetchError as error:
            if error.kind is ToolErrorKind.FAILED:  # there is no such host, and so no page either
                raise
            raise ToolError(f"{site.host} does not say now what robots may open.", ToolErrorKind.UNAVAILABLE) from None
        if answer.status != 200:
            return None
        rules = self._parse(answer.body.decode("utf-8-sig", "replace"))
        delay = rules.crawl_delay(self._agent)
        if delay:
            self._client.turns.slow_down(site.host or "", min(float(delay), _LONGEST_DELAY))
        return rules
