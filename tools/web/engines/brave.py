"""Brave Search (https://api.search.brave.com), an index of its own. Key: BRAVE_API_KEY."""

from __future__ import annotations

from typing import Any

from agentenv.tools.search.types import Hit
from agentenv.tools.web.engines.base import ApiEngine, Call, address, hit, rows


class Brave(ApiEngine):
    """Pages and pictures by Brave's API; see `ApiEngine`."""

    name = "brave"
    base = "https://api.search.brave.com"
    key_variable = "BRAVE_API_KEY"

    def call(self, query: str, k: int) -> Call:
        """See `ApiEngine.call`."""
        return Call(f"/res/v1/{self.kind}/search", {"q": query, "count": str(k)})

    def credentials(self) -> dict[str, str]:
        """See `ApiEngine.credentials`."""
        return {"X-Subscription-Token": self.key()}

    def read(self, answer: Any) -> list[Hit]:
        """See `LiveEngine.read`."""
        if self.kind == "images":
            return [self._picture(row) for row in rows(answer, "results") if address(row, "url")]
        found = rows(answer, "web", "results")
        return [hit(row, row["url"], text="description", date="page_age") for row in found if address(row, "url")]

    @staticmethod
    def _picture(row: Any) -> Hit:
        own, small = row.get("properties") or {}, row.get("thumbnail") or {}
        return hit(row, row["url"], text="source", picture=small.get("src") or own.get("url") or "")
