"""A client of the open web: guarded addresses, bounded answers, one deadline for everything, politeness, retries.

aiohttp does the work: an eighth of httpx2's CPU a request and a 23rd of httpx's, a decompressor that never inflates
more than is read, and a socket factory through which every connection passes, so that the judged address is the one
that is connected to.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
from yarl import URL

from agentenv.errors import ToolErrorKind
from agentenv.policy.http import RETRIED, Patience, retry_after
from agentenv.policy.sessions import Sessions
from agentenv.tools.web.answers import Fetched, FetchError
from agentenv.tools.web.guard import Guard, GuardedResolver, parsed, refused
from agentenv.tools.web.httpcache import HTTPCache
from agentenv.tools.web.rate import Rate, Turns

Visit = Callable[[URL], Awaitable[None]]
"""Called before each request, redirects included; raises ToolError where it must not be made."""

USER_AGENT = "agentenv (a research agent; it respects robots.txt)"
PATIENCE = Patience(deadline=20.0, connect=5.0, retries=2, pause=0.5, longest=5.0)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LONGEST_HOLD = 600.0


class _Again(Exception):
    """Worth another try; `wait` is what the server asked for, in seconds."""

    def __init__(self, error: FetchError, wait: float | None = None) -> None:
        self.error, self.wait = error, wait


class WebClient:
    """Asks web servers. Connections are kept alive; one session an event loop.

    Args:
        guard: which addresses may be asked; None for a server of the user's own choice, which is not judged.
        patience: how long to try; its `deadline` holds for redirects, pauses and the last byte together.
        rate: how often one host is asked; None for no limit.
        redirects: how many are followed; with 0 a redirect is an answer like any other.
        concurrency: connections at once; `per_host` of them to one host.
        user_agent: what servers and their robots.txt are told.
        max_bytes: of a decompressed answer; what lies beyond is not read.
        cache: keeps what servers allow to be kept; None keeps nothing.
    """

    def __init__(
        self,
        guard: Guard | None,
        *,
        patience: Patience = PATIENCE,
        rate: Rate | None = None,
        redirects: int = 5,
        concurrency: int = 256,
        per_host: int = 16,
        user_agent: str = USER_AGENT,
        max_bytes: int = 2 << 20,
        cache: HTTPCache | None = None,
    ) -> None:
        self.guard, self.patience, self.redirects = guard, patience, redirects
        self.user_agent, self.max_bytes, self.cache = user_agent, max_bytes, cache
        self._concurrency, self._per_host = concurrency, per_host
        self.turns = Turns(rate)
        self._sessions = Sessions(self._session, concurrency)

    async def get(self, url: str | URL, **options: Any) -> Fetched:
        """See `send`."""
        return await self.send("GET", url, **options)

    async def send(
        self,
        method: str,
        url: str | URL,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        max_bytes: int | None = None,
        visit: Visit | None = None,
    ) -> Fetched:
        """Ask, and ask again after what may pass (no connection; 408, 429, 5xx), as late as the server wants.

        Returns:
            Any other answer, whatever its status.

        Raises:
            ToolError: of kind `refused`: the guard, or `visit`, forbids it.
            FetchError: of kind `unavailable` or `timeout`: no usable answer within the deadline; `failed`: no host of
                that name, too many redirects, an answer that cannot be decompressed.
        """
        trusted = self.guard is None and isinstance(url, URL)  # an engine's own: looked at when that was made
        first = URL(url) if trusted else self._checked(url)
        most = self.max_bytes if max_bytes is None else max_bytes
        sending = {"method": method, "headers": self._headers(headers), "data": body}
        if self._fresh(first, sending) is None:
            self._not_held(first)
            await self.turns.wait(first.host or "")  # before the clock starts: our politeness is not the server's fault
        ends = time.monotonic() + self.patience.deadline
        attempt = 0
        while True:
            try:
                return await self._within(ends, self._follow(first, sending, most, visit), first)
            except _Again as again:
                pause = self.patience.wait(attempt, again.wait)
                if attempt >= self.patience.retries or time.monotonic() + pause >= ends:
                    raise again.error from None
            attempt += 1
            await asyncio.sleep(max(pause, self.turns.reserve(first.host or "")))

    def _checked(self, url: str | URL) -> URL:
        return parsed(url) if self.guard is None else self.guard.check(url)

    def _headers(self, more: Mapping[str, str] | None) -> dict[str, str]:
        return {"User-Agent": self.user_agent, "Accept-Encoding": "gzip, deflate", **(more or {})}

    def _not_held(self, url: URL) -> None:
        """A host that wants to be left alone for longer than we try is not asked."""
        held = self.turns.held(url.host or "")
        if held > self.patience.deadline:
            text = f"{url.host} wants no request within the next {held:.0f} seconds."
            raise FetchError(text, _UNAVAILABLE, 429)

    async def _within(self, ends: float, work: Awaitable[Fetched], url: URL) -> Fetched:
        try:
            async with asyncio.timeout(ends - time.monotonic()):
                return await work
        except TimeoutError:
            text = f"{url.host} did not finish answering within {self.patience.deadline:g} seconds."
            raise FetchError(text, ToolErrorKind.TIMEOUT) from None

    async def _follow(self, url: URL, sending: dict[str, Any], most: int, visit: Visit | None) -> Fetched:
        for hop in range(self.redirects + 1):
            if visit is not None:
                await visit(url)
            if hop and self._fresh(url, sending) is None:
                await self.turns.wait(url.host or "")
            answer = await self._ask(url, sending, most)
            target = answer.headers.get("location")
            if answer.status not in _REDIRECTS or not target or not self.redirects:
                return answer
            url = self._checked(_joined(url, target))
        raise FetchError(f"{url.host} redirects more than {self.redirects} times.")

    def _fresh(self, url: URL, sending: dict[str, Any]) -> Fetched | None:
        if self.cache is None or sending["method"] != "GET":
            return None
        return self.cache.fresh(url, sending["headers"].get("Accept", ""))

    async def _ask(self, url: URL, sending: dict[str, Any], most: int) -> Fetched:
        """An answer, out of the cache or over the network."""
        kept = self._fresh(url, sending)
        if kept is not None:
            return kept
        if self.cache is None or sending["method"] != "GET":
            return await self._sent(url, sending, most)
        accept, now = sending["headers"].get("Accept", ""), time.time()
        conditions = self.cache.conditions(url, accept)
        answer = await self._sent(url, {**sending, "headers": {**sending["headers"], **conditions}}, most)
        return self.cache.took(url, answer, now, accept)

    async def _sent(self, url: URL, sending: dict[str, Any], most: int) -> Fetched:
        place = await self._sessions.here()
        try:
            async with place.session.request(url=url, allow_redirects=False, **sending) as answer:
                if answer.status in RETRIED:
                    raise self._later(url, answer)
                body, cut = await _read(answer, most)
                headers = {name.lower(): value for name, value in answer.headers.items()}
                return Fetched(answer.url, answer.status, headers, body, cut)
        except aiohttp.ClientConnectorDNSError as error:
            text = f"There is no host {url.host!r}."
            if getattr(error.os_error, "errno", None) in (socket.EAI_NONAME, socket.EAI_NODATA, None):
                raise FetchError(text) from None
            raise _Again(FetchError(f"The name {url.host!r} cannot be looked up now.", _UNAVAILABLE)) from None
        except aiohttp.InvalidURL:
            raise refused("The host of this address is written in an unusual way.") from None
        except aiohttp.ClientPayloadError:
            raise FetchError(f"The answer of {url.host} breaks off, or cannot be decompressed.", _UNAVAILABLE) from None
        except (aiohttp.ServerTimeoutError, aiohttp.ClientError, OSError) as error:
            if isinstance(error, aiohttp.ClientResponseError) and "content-encoding" in error.message:
                text = f"The answer of {url.host} is compressed in a way that it was not asked for."
                raise FetchError(text, _UNAVAILABLE) from None
            why = "does not speak HTTP" if isinstance(error, aiohttp.ClientResponseError) else "cannot be reached"
            raise _Again(FetchError(f"{url.host} {why}.", _UNAVAILABLE)) from None

    def _later(self, url: URL, answer: aiohttp.ClientResponse) -> _Again:
        asked = retry_after(answer.headers)
        if asked:
            self.turns.hold(url.host or "", min(asked, _LONGEST_HOLD))
        return _Again(FetchError(f"{url.host} answered {answer.status}.", _UNAVAILABLE, answer.status), asked)

    def _session(self) -> aiohttp.ClientSession:
        options: dict[str, Any] = {"limit": self._concurrency, "limit_per_host": self._per_host}
        if self.guard is not None:
            options |= {"resolver": GuardedResolver(self.guard), "socket_factory": self.guard.open}
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ttl_dns_cache=10, happy_eyeballs_delay=None, **options),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.patience.connect),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,  # a proxy from the environment would carry requests past the guard
        )

    async def close(self) -> None:
        """Close the connections of this event loop."""
        await self._sessions.close()


async def _read(answer: aiohttp.ClientResponse, most: int) -> tuple[bytes, bool]:
    """The body up to `most` bytes, and whether it goes on."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in answer.content.iter_chunked(1 << 16):
        chunks.append(chunk)
        size += len(chunk)
        if size > most:
            answer.close()
            return b"".join(chunks)[:most], True
    return b"".join(chunks), False


def _joined(url: URL, target: str) -> str | URL:
    try:
        return url.join(URL(target))
    except ValueError:
        raise refused(f"{url.host} redirects to something that is no address.") from None


_UNAVAILABLE = ToolErrorKind.UNAVAILABLE
