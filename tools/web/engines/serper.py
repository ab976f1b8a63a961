"""Serper (https://google.serper.dev), Google's results. Key: SERPER_API_KEY."""

from __future__ import annotations

from typing import Any

from agentenv.tools.search.types import Hit
from agentenv.tools.web.engines.base import ApiEngine, Call, address, hit, rows


class Serper(ApiEngine):
    """Pages and pictures by Serper's API; see `ApiEngine`."""

    name = "serper"
    base = "https://google.serper.dev"
    key_variable = "SERPER_API_KEY"
    most = 100

    def call(self, query: str, k: int) -> Call:
        """See `ApiEngine.call`."""
        return Call("/images" if self.kind == "images" else "/search", body={"q": query, "num": k})

    def credentials(self) -> dict[str, str]:
        """See `ApiEngine.credentials`."""
        return {"X-API-KEY": self.key()}

    def read(self, answer: Any) -> list[Hit]:
        """See `LiveEngine.read`."""
        if self.kind == "images":
            found = [row for row in rows(answer, "images") if address(row, "link")]
            pictures = [address(row, "thumbnailUrl", "imageUrl") for row in found]
            return [hit(row, row["link"], text="source", picture=src) for row, src in zip(found, pictures, strict=True)]
        found = [row for row in rows(answer, "organic") if address(row, "link")]
        return [hit(row, row["link"], text="snippet", date="date") for row in found]
