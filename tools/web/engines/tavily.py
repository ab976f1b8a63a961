"""Tavily (https://api.tavily.com), results with content for language models. Key: TAVILY_API_KEY."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from agentenv.tools.search.types import Hit
from agentenv.tools.web.engines.base import ApiEngine, Call, address, hit, rows, words
from agentenv.tools.web.readable import one_line


class Tavily(ApiEngine):
    """Pages and pictures by Tavily's API; see `ApiEngine`."""

    name = "tavily"
    base = "https://api.tavily.com"
    key_variable = "TAVILY_API_KEY"

    def call(self, query: str, k: int) -> Call:
        """See `ApiEngine.call`."""
        pictures = self.kind == "images"
        more = {"include_images": True, "include_image_descriptions": True} if pictures else {}
        return Call("/search", body={"query": query, "max_results": k, "search_depth": "basic", **more})

    def credentials(self) -> dict[str, str]:
        """See `ApiEngine.credentials`."""
        return {"Authorization": f"Bearer {self.key()}"}

    def read(self, answer: Any) -> list[Hit]:
        """See `LiveEngine.read`."""
        if self.kind == "images":
            return [self._picture(row) for row in answer["images"]]
        found = [row for row in rows(answer, "results") if address(row, "url")]
        hits = [hit(row, row["url"], text="content", date="published_date") for row in found]
        return [replace(made, score=float(row.get("score") or 0.0)) for made, row in zip(hits, found, strict=True)]

    @staticmethod
    def _picture(row: Any) -> Hit:
        """A picture, which comes as its address alone or with a description."""
        url, about = (row, "") if isinstance(row, str) else (row["url"], words(row, "description"))
        return Hit(url, one_line(about), "", url, meta={"picture": url})
