"""SearXNG, a metasearch engine of your own. No key; `base_url` is where it runs.

It answers in JSON only where its settings.yml has `search.formats: [html, json]`; for many episodes also
`server.limiter: false`.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from agentenv.tools.search.types import Hit
from agentenv.tools.web.engines.base import ApiEngine, Call, SearchFailed, address, hit, rows


class SearXNG(ApiEngine):
    """Pages and pictures by a SearXNG instance; see `ApiEngine`."""

    name = "searxng"
    base = "http://127.0.0.1:8888"
    most = 100

    def call(self, query: str, k: int) -> Call:
        """See `ApiEngine.call`."""
        category = "images" if self.kind == "images" else "general"
        return Call("/search", {"q": query, "format": "json", "categories": category, "pageno": "1"})

    def refusal(self) -> str:
        """See `ApiEngine.refusal`."""
        return "its settings.yml must have search.formats: [html, json]"

    def read(self, answer: Any) -> list[Hit]:
        """See `LiveEngine.read`."""
        found = [row for row in rows(answer, "results") if address(row, "url")]
        silent = answer.get("unresponsive_engines")
        if not found and silent:
            names = ", ".join(str(entry[0] if isinstance(entry, list) else entry) for entry in silent[:5])
            raise SearchFailed(f"searxng: none of its engines answered ({names})")
        hits = []
        for row in found:
            more = {"picture": address(row, "thumbnail_src", "img_src")} if self.kind == "images" else {}
            made = hit(row, row["url"], text="content", date="publishedDate", **more)
            hits.append(replace(made, score=float(row.get("score") or 0.0)))
        return hits
