"""DuckDuckGo and other engines through the package ddgs, which reads their pages. No key.

It scrapes: engines change and refuse at times, and their terms of use are the user's to keep.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from agentenv.errors import MissingExtraError
from agentenv.tools.search.types import Hit
from agentenv.tools.web.engines.base import LiveEngine, SearchFailed, address, hit
from agentenv.tools.web.rate import Rate, Turns

RATE = Rate(per_second=1.0, burst=2)


class Ddgs(LiveEngine):
    """Pages and pictures by ddgs.

    Args:
        kind: "web" or "images".
        backend: which engines, as ddgs names them: "auto", "duckduckgo", "bing,brave".
        region: of the results, for instance "us-en".
        safesearch: "on", "moderate" or "off".
        proxy: a proxy that ddgs goes through; the user's own choice, so it is not judged.
        verify: check certificates: True, or the path of a file with the authorities to believe.
        rate: how often it is asked.
        threads: requests at once; it is a synchronous library.
        **options: as for `LiveEngine`.

    Raises:
        MissingExtraError: ddgs is not installed.
    """

    name = "ddgs"
    most = 50

    def __init__(
        self,
        kind: str = "web",
        *,
        backend: str = "auto",
        region: str = "us-en",
        safesearch: str = "moderate",
        proxy: str | None = None,
        verify: bool | str = True,
        rate: Rate | None = RATE,
        threads: int = 4,
        **options: Any,
    ) -> None:
        try:
            from ddgs import DDGS
        except ImportError:
            raise MissingExtraError("ddgs", "search", "searching with ddgs") from None
        super().__init__(kind, **options)
        self.version = f"{kind}/{backend}/{region}/1"
        self._options = {"backend": backend, "region": region, "safesearch": safesearch}
        self._turns = Turns(rate)
        self._threads = ThreadPoolExecutor(threads, "agentenv-ddgs")
        self._make: Callable[[], Any] = lambda: DDGS(proxy=proxy, timeout=10, verify=verify)

    async def ask(self, query: str, k: int) -> list[dict[str, Any]]:
        """Rows of ddgs, which reports every mishap, nothing found included, as the same exception."""
        patience = self.patience
        ends = time.monotonic() + patience.deadline
        loop = asyncio.get_running_loop()
        found: list[dict[str, Any]] | str = "not asked"
        for attempt in range(patience.retries + 1):
            await self._turns.wait(self.name)
            found = await loop.run_in_executor(self._threads, self._once, query, k)
            if not isinstance(found, str):
                return found
            pause = patience.wait(attempt, None)
            if attempt == patience.retries or time.monotonic() + pause >= ends:
                break
            await asyncio.sleep(pause)
        raise SearchFailed(f"ddgs: no engine answered ({found})")

    def _once(self, query: str, k: int) -> list[dict[str, Any]] | str:
        """The rows, or the name of what went wrong."""
        from ddgs.exceptions import DDGSException

        ask = self._make()
        try:
            search = ask.images if self.kind == "images" else ask.text
            return list(search(query, max_results=k, **self._options))
        except DDGSException as error:
            return [] if "No results" in str(error) else type(error).__name__

    def read(self, answer: Any) -> list[Hit]:
        """See `LiveEngine.read`."""
        if self.kind == "images":
            found = [row for row in answer if address(row, "url")]
            return [hit(row, row["url"], text="source", picture=address(row, "thumbnail", "image")) for row in found]
        return [hit(row, row["href"], text="body") for row in answer if address(row, "href")]

    async def close(self) -> None:
        """See `LiveEngine.close`."""
        self._threads.shutdown(wait=False)
        await super().close()
