"""What live search engines share: asking an API within limits, and saying plainly when it is the API that failed."""

from __future__ import annotations

import asyncio
import html
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from yarl import URL

from agentenv.errors import ConfigError, InfrastructureError, ToolError
from agentenv.media import MediaStore, media_store
from agentenv.policy.http import Patience
from agentenv.tools.search.types import Hit
from agentenv.tools.web.answers import Fetched
from agentenv.tools.web.client import WebClient
from agentenv.tools.web.guard import LONGEST, Guard
from agentenv.tools.web.images import fetch_picture
from agentenv.tools.web.rate import Rate
from agentenv.tools.web.readable import one_line, tidy

KINDS = ("web", "images")
PATIENCE = Patience(deadline=60.0, connect=5.0, retries=4, pause=0.5, longest=8.0)
_MAX_ANSWER = 8 << 20
_LONGEST_QUERY = 400
_SHORTEST_KEY = 8  # a shorter one is a stand-in, and taking it out would garble the answer
_TAG = re.compile(r"<[^<>]{0,300}>")


class SearchFailed(InfrastructureError):
    """A search engine did not answer usefully: no fault of the model's, so the episode is unscored.

    Args:
        text: what happened, without a key and without the query.
        permanent: trying again would fail again (no key, a wrong key).
    """

    def __init__(self, text: str, permanent: bool = False) -> None:
        self.permanent = permanent
        super().__init__(text)

    def __reduce__(self) -> tuple[type[SearchFailed], tuple[str, bool]]:
        return type(self), (str(self), self.permanent)


class Call(Struct, frozen=True):
    """One request of an engine's API."""

    path: str
    query: dict[str, str] = {}
    body: dict[str, Any] | None = None


class LiveEngine(ABC):
    """A `Retriever` over a search engine that changes from day to day. Subclasses ask it and read its answers.

    Args:
        kind: "web" for pages, "images" for pictures with their pages.
        patience: how long to try; between tries it waits as long as the service asks.
        store: where pictures go; the process's store by default.
        guard: which addresses pictures may be fetched from; they come from anywhere.

    Raises:
        ConfigError: there is no such kind.
    """

    name: ClassVar[str] = ""
    deterministic = False
    has_deadline = True
    most: ClassVar[int] = 20

    def __init__(
        self,
        kind: str = "web",
        *,
        patience: Patience = PATIENCE,
        store: MediaStore | None = None,
        guard: Guard | None = None,
    ) -> None:
        if kind not in KINDS:
            raise ConfigError(f"{self.name} searches {', '.join(KINDS)}, not {kind!r}")
        self.kind, self.patience, self.store = kind, patience, store
        self.version = f"{kind}/1"
        self._pictures = WebClient(guard or Guard())

    @abstractmethod
    async def ask(self, query: str, k: int) -> Any:
        """The engine's answer, as it gives it.

        Raises:
            ToolError: the engine does not take this query.
            SearchFailed: it did not answer usefully.
        """

    @abstractmethod
    def read(self, answer: Any) -> list[Hit]:
        """The hits of an answer; those of a picture search have its address in `meta["picture"]`."""

    async def search(self, query: str, k: int) -> list[Hit]:
        """See `Retriever.search`; errors as for `ask`."""
        asked = " ".join(query.encode("utf-8", "ignore").decode().split())[:_LONGEST_QUERY]
        if k < 1 or not asked:
            return []
        answer = await self.ask(asked, min(k, self.most))
        try:
            hits = self.read(answer)[:k]
        except (AttributeError, TypeError, KeyError, ValueError):
            raise SearchFailed(f"{self.name} answered in a form that is not its own") from None
        return await self._shown(hits) if self.kind == "images" else hits

    async def _shown(self, hits: Sequence[Hit]) -> list[Hit]:
        """The hits whose pictures could be fetched, each with its picture."""
        found = await asyncio.gather(*(self._with_picture(hit) for hit in hits))
        return [hit for hit in found if hit.image]

    async def _with_picture(self, hit: Hit) -> Hit:
        try:
            picture = await fetch_picture(self._pictures, hit.meta["picture"], self.store or media_store())
        except ToolError:  # of many pictures of the web some are gone, or are none
            return hit
        return replace(hit, image=picture.sha256)

    async def close(self) -> None:
        """Close the connections of this event loop."""
        await self._pictures.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.kind}>"


class ApiEngine(LiveEngine):
    """An engine with an API. Subclasses say how a query is written and how an answer is read.

    Args:
        kind: "web" for pages, "images" for pictures with their pages.
        base_url: where the API is; the service's own by default.
        rate: how often it is asked; None for no limit.
        concurrency: requests at once.
        **options: as for `LiveEngine`.

    The key is read from the environment at each request and kept nowhere.

    Raises:
        ConfigError: there is no such kind, or `base_url` is no address.
    """

    base: ClassVar[str] = ""
    key_variable: ClassVar[str] = ""

    def __init__(
        self, kind: str = "web", *, base_url: str = "", rate: Rate | None = None, concurrency: int = 256, **options: Any
    ) -> None:
        super().__init__(kind, **options)
        self._base = _address(self.name, base_url or self.base)
        self._client = WebClient(
            None,
            patience=self.patience,
            rate=rate,
            redirects=0,
            concurrency=concurrency,
            per_host=concurrency,
            max_bytes=_MAX_ANSWER,
        )

    @abstractmethod
    def call(self, query: str, k: int) -> Call:
        """The request for the best `k` hits."""

    async def ask(self, query: str, k: int) -> Any:
        """See `LiveEngine.ask`."""
        call = self.call(query, k)
        url = (self._base / call.path.lstrip("/")).with_query(call.query)
        body = None if call.body is None else msgspec.json.encode(call.body)
        headers = {"Accept": "application/json", **self.credentials()}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            answer = await self._client.send("GET" if body is None else "POST", url, headers=headers, body=body)
        except ToolError as error:  # its text names the host and nothing else
            raise SearchFailed(f"{self.name}: {error}") from None
        return self._decoded(answer)

    def _decoded(self, answer: Fetched) -> Any:
        if answer.status in (400, 413, 414, 422):
            raise ToolError("The search engine does not take this query; write it shorter or otherwise.")
        if answer.status in (401, 402, 403):
            raise SearchFailed(f"{self.name} answered {answer.status}: {self.refusal()}", permanent=True)
        if answer.status in (404, 405) or 300 <= answer.status < 400:
            raise SearchFailed(f"{self.name} answered {answer.status}: is its base_url right?", permanent=True)
        if answer.status != 200:
            raise SearchFailed(f"{self.name} answered {answer.status}")
        try:
            said = msgspec.json.decode(self._without_key(answer.body))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise SearchFailed(f"{self.name} answered with something that is not JSON") from None
        if not isinstance(said, dict):  # "no results" is said otherwise by all of them
            raise SearchFailed(f"{self.name} answered in a form that is not its own")
        return said

    def _without_key(self, body: bytes) -> bytes:
        """An answer that does not tell the key, whatever the service echoes: its results are recorded and exported."""
        key = os.environ.get(self.key_variable, "").strip().encode() if self.key_variable else b""
        return body.replace(key, b"***") if len(key) >= _SHORTEST_KEY else body

    def refusal(self) -> str:
        """What a refused request may mean."""
        return f"is the key in {self.key_variable} right, and is its quota left?"

    def credentials(self) -> dict[str, str]:
        """The headers that carry the key."""
        return {}

    def key(self) -> str:
        """The key.

        Raises:
            SearchFailed: it is not set.
        """
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise SearchFailed(f"{self.name} needs a key in the environment variable {self.key_variable}", True)
        return key

    async def close(self) -> None:
        """See `LiveEngine.close`."""
        await self._client.close()
        await super().close()


def _address(name: str, text: str) -> URL:
    try:
        url = URL(text.rstrip("/"))
    except ValueError:
        raise ConfigError(f"{name}: base_url is not an address") from None
    if url.scheme not in ("http", "https") or not url.host or url.user or url.query_string:
        raise ConfigError(f"{name}: base_url must look like https://search.example.org, without user, key and query")
    return url


def rows(answer: Any, *path: str) -> list[Mapping[str, Any]]:
    """The list of objects at a place of an answer; none where there is no such place."""
    for name in path:
        answer = answer.get(name) if isinstance(answer, dict) else None
    return [row for row in answer or () if isinstance(row, dict)]


def words(row: Mapping[str, Any], *names: str) -> str:
    """The first of these fields that holds text, without tags and entities."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value.strip():
            return tidy(html.unescape(_TAG.sub("", value)) if "<" in value or "&" in value else value)
    return ""


def address(row: Mapping[str, Any], *names: str) -> str:
    """The first of these fields that holds an address: one that could be written in one line and be opened."""
    return next((value for name in names if isinstance(value := row.get(name), str) and _usable(value)), "")


def _usable(value: str) -> bool:
    return 0 < len(value) <= LONGEST and value.isprintable() and " " not in value


def hit(row: Mapping[str, Any], url: str, *, title: str = "title", text: str, date: str = "", **meta: Any) -> Hit:
    """A hit of a row: `url` is its address; the others name the fields to look into."""
    return Hit(url, one_line(words(row, title)), words(row, text), url, date=words(row, date), meta=meta)
