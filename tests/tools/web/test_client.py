"""The client: one deadline, retries, politeness, and a cache that obeys the standard."""

from __future__ import annotations

import pickle
import time
from email.utils import formatdate

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from agentenv.errors import ConfigError, ToolError, ToolErrorKind
from agentenv.policy.http import Patience
from agentenv.tools.web import FetchError, HTTPCache, Rate, WebClient
from agentenv.tools.web.answers import Fetched
from agentenv.tools.web.rate import Turns
from tests.tools.web.site import PATIENCE, Site, guard, serving


def counted(site: Site, path: str, headers: dict[str, str], status: int = 200, etag: str = "") -> list[web.Request]:
    """Serve a body that counts; a request with the right If-None-Match gets 304. Gives the requests."""
    requests: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        requests.append(request)
        if etag and request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers=headers)
        return web.Response(text=f"body {len(requests)}", status=status, headers=headers)

    site.pages[path] = handler
    return requests


async def test_what_may_pass_is_tried_again() -> None:
    async with serving() as site:
        left = [503, 429]

        async def handler(request: web.Request) -> web.Response:
            return web.Response(status=left.pop(), headers={"Retry-After": "0.05"}) if left else web.Response(text="ok")

        site.pages["/"] = handler
        client = WebClient(guard(site), patience=Patience(deadline=3.0, retries=2, pause=0.01))
        assert (await client.get(site.url())).body == b"ok"
        left += [500, 500, 500]
        with pytest.raises(FetchError, match=r"127\.0\.0\.2 answered 500") as failed:
            await client.get(site.url())
        assert (failed.value.kind, failed.value.status) == (ToolErrorKind.UNAVAILABLE, 500)
        assert pickle.loads(pickle.dumps(failed.value)).status == 500
        await client.close()


async def test_a_wait_that_is_longer_than_the_deadline_is_not_waited_for() -> None:
    async with serving() as site:
        requests = counted(site, "/", {"Retry-After": "3600"}, 503)
        client = WebClient(guard(site), patience=PATIENCE)
        started = time.monotonic()
        with pytest.raises(FetchError):
            await client.get(site.url())
        assert len(requests) == 1
        with pytest.raises(FetchError, match="wants no request within the next 600 seconds") as failed:
            await client.get(site.url())  # nobody asks it meanwhile, and nobody waits for it
        assert (failed.value.kind, failed.value.status) == (ToolErrorKind.UNAVAILABLE, 429)
        assert len(requests) == 1
        assert time.monotonic() - started < 2
        await client.close()


async def test_a_server_that_is_not_there_cannot_be_reached() -> None:
    async with serving() as site:
        rules = guard(site)
        place = site.url()
    client = WebClient(rules, patience=PATIENCE)
    with pytest.raises(FetchError, match="cannot be reached") as failed:
        await client.get(place)
    assert failed.value.kind is ToolErrorKind.UNAVAILABLE
    await client.close()


async def test_what_a_server_allows_to_be_kept_is_not_asked_for_again() -> None:
    async with serving() as site:
        client = WebClient(guard(site), patience=PATIENCE, cache=HTTPCache())
        now = time.time()
        kept = {
            "/age": {"Cache-Control": "public, max-age=60"},
            "/expires": {"Expires": formatdate(now + 60, usegmt=True)},
            "/guessed": {"Last-Modified": formatdate(now - 86400, usegmt=True)},
        }
        asked = {
            "/nothing": {},
            "/no-store": {"Cache-Control": "no-store, max-age=60"},
            "/vary": {"Cache-Control": "max-age=60", "Vary": "*"},
            "/zero": {"Cache-Control": "max-age=0"},
            "/old": {"Cache-Control": "max-age=60", "Age": "61"},
            "/odd": {"Expires": "0"},
            "/future": {"Last-Modified": formatdate(now + 900, usegmt=True)},
            "/bad": {"Cache-Control": "max-age=soon"},
        }
        for path, headers in {**kept, **asked}.items():
            requests = counted(site, path, headers)
            bodies = [(await client.get(site.url(path))).body for _ in range(3)]
            assert len(requests) == (1 if path in kept else 3), path
            assert len(set(bodies)) == len(requests)
        requests = counted(site, "/age", {})
        assert (await client.send("POST", site.url("/age"), body=b"x")).body == b"body 1"
        assert len(requests) == 1
        await client.close()


async def test_what_is_stale_is_asked_for_with_its_mark() -> None:
    async with serving() as site:
        client = WebClient(guard(site), patience=PATIENCE, cache=HTTPCache())
        requests = counted(site, "/", {"ETag": '"v1"', "Cache-Control": "no-cache"}, etag='"v1"')
        assert [(await client.get(site.url())).body for _ in range(3)] == [b"body 1"] * 3
        assert [request.headers.get("If-None-Match") for request in requests] == [None, '"v1"', '"v1"']
        await client.close()


def test_the_cache_is_bounded_and_keeps_nothing_that_was_cut() -> None:
    cache = HTTPCache(max_bytes=1000)
    headers = {"cache-control": "max-age=60"}
    for number in range(10):
        url = URL(f"http://e.org/{number}")
        cache.took(url, Fetched(url, 200, headers, b"x" * 200), time.time())
    kept = [number for number in range(10) if cache.fresh(URL(f"http://e.org/{number}"))]
    assert kept == [5, 6, 7, 8, 9]
    for answer in (Fetched(URL("http://e.org/"), 200, headers, b"x", cut=True),
                   Fetched(URL("http://e.org/"), 200, headers, b"x" * 900),
                   Fetched(URL("http://e.org/"), 500, headers, b"x")):  # fmt: skip
        cache.took(answer.url, answer, time.time())
        assert cache.fresh(answer.url) is None


def test_turns_are_given_in_time() -> None:
    turns = Turns(Rate(per_second=1.0, burst=3))
    waits = [turns.reserve("a") for _ in range(6)]
    assert waits[:3] == [0.0, 0.0, 0.0]
    assert waits[3:] == pytest.approx([1.0, 2.0, 3.0], abs=0.5)
    assert turns.reserve("b") == 0.0
    turns.hold("c", 5.0)
    assert turns.reserve("c") == pytest.approx(5.0, abs=0.5)
    turns.slow_down("d", 2.0)
    turns.slow_down("b", 0.001)
    assert [round(turns.reserve("d")) for _ in range(3)] == [0, 2, 4]
    assert turns.reserve("b") == 0.0
    assert [Turns(None).reserve("a") for _ in range(3)] == [0.0] * 3


@pytest.mark.parametrize(("per_second", "burst"), [(0, 1), (-1, 1), (float("nan"), 1), (float("inf"), 1), (1, 0)])
def test_a_rate_at_which_nothing_would_be_sent_is_refused(per_second: float, burst: int) -> None:
    with pytest.raises(ConfigError, match="more than 0 requests a second"):
        Rate(per_second, burst)


def test_hosts_of_long_ago_are_forgotten() -> None:
    turns = Turns(Rate(per_second=1000.0))
    for number in range(5000):
        turns.reserve(str(number))
    assert len(turns._full) <= 4096


@given(st.integers(0, 20), st.floats(0.5, 50.0), st.integers(1, 5))
def test_no_more_turns_than_the_rate_allows(count: int, per_second: float, burst: int) -> None:
    turns, started = Turns(Rate(per_second, burst)), time.monotonic()
    for number in range(count):
        turn = turns.reserve("a") + time.monotonic() - started
        assert turn >= max(0, number + 1 - burst) / per_second - 1e-6


async def test_a_visitor_may_forbid_each_hop() -> None:
    async with serving() as site:
        client = WebClient(guard(site), patience=PATIENCE)
        site.put("/a", status=302, Location="/b")
        site.put("/b", "b")
        seen: list[str] = []

        async def visit(url: URL) -> None:
            seen.append(url.path)
            if url.path == "/b":
                raise ToolError("not there", ToolErrorKind.REFUSED)

        with pytest.raises(ToolError, match="not there"):
            await client.get(site.url("/a"), visit=visit)
        assert seen == ["/a", "/b"]
        assert site.paths == ["/a"]
        await client.close()
