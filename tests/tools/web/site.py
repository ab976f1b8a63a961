"""Two real servers on loopback: an open one that pages may come from, and one with a secret that nobody may reach."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from agentenv.policy.http import Patience
from agentenv.tools.web import Guard, LivePages, Reader, WebClient
from agentenv.tools.web.guard import system_lookup

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PATIENCE = Patience(deadline=2.0, connect=1.0, retries=1, pause=0.01, longest=0.05)
READER = Reader(1, 1.0)


class Site:
    """Answers each path as `pages` says; keeps what it was asked."""

    def __init__(self) -> None:
        self.pages: dict[str, Handler] = {}
        self.requests: list[web.Request] = []
        self.host, self.port = "127.0.0.2", 0

    @property
    def place(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def url(self, path: str = "/") -> str:
        return f"http://{self.place}{path}"

    def put(
        self, path: str, body: str | bytes = b"", status: int = 200, headers: dict[str, str] | None = None, **more: str
    ) -> str:
        """Serve a document; header names are written with underscores. Gives its URL."""
        data = body.encode() if isinstance(body, str) else body
        named = {**(headers or {}), **{name.replace("_", "-"): value for name, value in more.items()}}
        named.setdefault("Content-Type", "text/html; charset=utf-8")

        async def serve(request: web.Request) -> web.Response:
            return web.Response(body=data, status=status, headers=named)

        self.pages[path] = serve
        return self.url(path)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        await request.read()  # while it can be
        self.requests.append(request)
        handler = self.pages.get(request.path)
        return await handler(request) if handler else web.Response(status=404, text="no such page")


@asynccontextmanager
async def serving(host: str = "127.0.0.2") -> AsyncIterator[Site]:
    site = Site()
    site.host = host
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{path:.*}", site.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.05, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, 0, backlog=2048).start()
    site.port = runner.addresses[0][1]
    try:
        yield site
    finally:
        await runner.cleanup()


def guard(site: Site, *others: Site, names: dict[str, list[str]] | None = None) -> Guard:
    """Only the site may be asked, though the ports of the others are open, too."""

    async def lookup(host: str, port: int) -> list[str]:
        known = names or {}
        return known[host] if host in known else await system_lookup(host, port)

    ports = frozenset({80, 443, site.port, *(other.port for other in others)})
    return Guard(ports=ports, allow=frozenset({site.place}), lookup=lookup)


@asynccontextmanager
async def browsing(site: Site, *others: Site, names: Any = None, **options: Any) -> AsyncIterator[LivePages]:
    """Pages of the site, robots.txt left aside where `robots` is not given."""
    robots = options.pop("robots", False)
    client = WebClient(guard(site, *others, names=names), **{"patience": PATIENCE, **options})
    pages = LivePages(client, robots=robots, reader=READER)
    try:
        yield pages
    finally:
        await pages.close()
