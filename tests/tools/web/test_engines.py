"""Live engines, against a real server that speaks each API's documented shape."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import pickle
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from PIL import Image

import agentenv
from agentenv.env import Env
from agentenv.errors import ConfigError, ToolError, UnknownNameError
from agentenv.media import MediaStore
from agentenv.policy.http import Patience
from agentenv.task import TaskSet
from agentenv.tools.search import Retriever, web_search_tool
from agentenv.tools.web import LivePages, Rate, web_fetch_tool
from agentenv.tools.web.engines import ENGINES, LiveEngine, SearchFailed, make_engine
from agentenv.types import Task, Text
from tests.tools.web.site import Site, guard, serving

QUICK = Patience(deadline=3.0, connect=1.0, retries=2, pause=0.01, longest=0.02)
KEYS = {"brave": "BRAVE_API_KEY", "serper": "SERPER_API_KEY", "tavily": "TAVILY_API_KEY"}
WEB: dict[str, tuple[str, Any]] = {
    "brave": (
        "/res/v1/web/search",
        {"type": "search", "web": {"results": [
            {"title": "A <strong>cat</strong>", "url": "https://e.org/a", "description": "It&#x27;s a <b>cat</b>.",
             "page_age": "2024-05-06T07:08:09"},
            {"title": "no address"}, "no row"]}},
    ),
    "serper": (
        "/search",
        {"searchParameters": {"q": "cat"}, "organic": [
            {"title": "A cat", "link": "https://e.org/a", "snippet": "It's a cat.", "date": "May 6, 2024"},
            {"title": "no address"}]},
    ),
    "tavily": (
        "/search",
        {"query": "cat", "images": [], "results": [
            {"title": "A cat", "url": "https://e.org/a", "content": "It's a cat.", "score": 0.9,
             "published_date": "2024-05-06"}]},
    ),
    "searxng": (
        "/search",
        {"query": "cat", "unresponsive_engines": [["bing", "timeout"]], "results": [
            {"title": "A cat", "url": "https://e.org/a", "content": "It's a cat.", "score": 2.5, "engine": "mojeek",
             "publishedDate": "2024-05-06T00:00:00"}]},
    ),
}  # fmt: skip


def pictures(name: str, good: str, bad: str) -> tuple[str, Any]:
    """The answer to a picture search: one that can be shown and one that is gone."""
    pages = ("https://e.org/a", "https://e.org/b")
    both = list(zip(pages, (good, bad), strict=True))
    if name == "brave":
        rows = [{"title": "A cat", "url": page, "source": "e.org", "thumbnail": {"src": src}} for page, src in both]
        return "/res/v1/images/search", {"type": "images", "results": rows}
    if name == "serper":
        return "/images", {
            "images": [{"title": "A cat", "link": page, "imageUrl": src, "source": "e.org"} for page, src in both]
        }
    if name == "tavily":
        return "/search", {"results": [], "images": [{"url": good, "description": "A cat"}, bad]}
    rows = [{"title": "A cat", "url": page, "img_src": src, "content": ""} for page, src in both]
    return "/search", {"results": rows, "unresponsive_engines": []}


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS.values():
        monkeypatch.setenv(name, f"key-of-{name}-123456")


def serve(site: Site, path: str, answer: Any) -> None:
    site.put(path, json.dumps(answer), Content_Type="application/json")


def statuses(site: Site, path: str, answer: Any, *codes: int, **headers: str) -> None:
    """Answer with these statuses first."""
    left = list(codes)
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def handler(request: web.Request) -> web.Response:
        if left:
            return web.Response(status=left.pop(0), headers=named, text="key-of-BRAVE_API_KEY-123456 said the server")
        return web.json_response(answer)

    site.pages[path] = handler


@asynccontextmanager
async def engine(name: str, site: Site, kind: str = "web", **options: Any) -> AsyncIterator[LiveEngine]:
    made = make_engine(name, kind, base_url=site.url(""), **{"patience": QUICK, **options})
    try:
        yield made
    finally:
        await made.close()


@pytest.mark.parametrize("name", sorted(WEB))
async def test_pages_are_found(name: str) -> None:
    async with serving() as site, engine(name, site) as made:
        serve(site, *WEB[name])
        assert isinstance(made, Retriever)
        (hit,) = await made.search("a  cat\n", 5)
        assert (hit.id, hit.url, hit.title, hit.text) == ("https://e.org/a", "https://e.org/a", "A cat", "It's a cat.")
        assert "2024" in hit.date
        assert await made.search(" \ud800 ", 5) == []
        assert await made.search("cat", 0) == []
        (request,) = site.requests
        sent = await request.text() + request.query_string
        assert "a cat" in sent.replace("+", " ").replace("%20", " ")
        assert len(await made.search("x" * 5000, 1)) == 1


@pytest.mark.parametrize("name", sorted(KEYS))
async def test_the_key_travels_in_a_header_and_is_told_to_nobody(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as site, engine(name, site) as made:
        path, answer = WEB[name]
        serve(site, path, answer)
        await made.search("cat", 3)
        (request,) = site.requests
        key = f"key-of-{KEYS[name]}-123456"
        assert any(key in value for value in request.headers.values())
        assert key not in str(request.url)
        statuses(site, path, answer, 401)
        with pytest.raises(SearchFailed, match=rf"401.*{KEYS[name]}") as failed:
            await made.search("cat", 3)
        assert failed.value.permanent
        assert key not in str(failed.value) + repr(made)
        monkeypatch.delenv(KEYS[name])
        with pytest.raises(SearchFailed, match="needs a key in the environment variable"):
            await made.search("cat", 3)


@pytest.mark.parametrize("name", sorted(WEB))
async def test_pictures_are_found_and_those_that_are_gone_left_out(name: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(out, "PNG")
    store = MediaStore()
    async with serving() as site, engine(name, site, "images", store=store, guard=guard(site)) as made:
        good = site.put("/cat.png", out.getvalue(), Content_Type="image/png")
        serve(site, *pictures(name, good, site.put("/not.png", b"<html>", Content_Type="image/png")))
        (hit,) = await made.search("cat", 5)
        assert store.info(hit.image).width == 20
        assert hit.title == "A cat"
        serve(site, *pictures(name, "http://127.0.0.1:1/cat.png", "file:///etc/passwd"))
        assert await made.search("cat", 5) == []


async def test_it_waits_as_long_as_the_service_asks_and_tries_again() -> None:
    async with serving() as site, engine("brave", site) as made:
        path, answer = WEB["brave"]
        statuses(site, path, answer, 429, Retry_After="0.4")
        started = time.monotonic()
        assert len(await made.search("cat", 3)) == 1
        assert time.monotonic() - started >= 0.4
        statuses(site, path, answer, 503, 502)
        assert len(await made.search("cat", 3)) == 1


@pytest.mark.parametrize(
    ("codes", "error", "text"),
    [
        ((500, 500, 500), SearchFailed, r"brave: 127\.0\.0\.2 answered 500"),
        ((418,), SearchFailed, "brave answered 418"),
        ((422,), ToolError, "does not take this query"),
        ((302,), SearchFailed, "brave answered 302: is its base_url right"),
        ((404,), SearchFailed, "brave answered 404: is its base_url right"),
    ],
)
async def test_what_failed_is_told_without_the_key(codes: tuple[int, ...], error: type[Exception], text: str) -> None:
    async with serving() as site, engine("brave", site) as made:
        statuses(site, WEB["brave"][0], {}, *codes)
        with pytest.raises(error, match=text) as failed:
            await made.search("cat", 3)
        assert "key-of" not in str(failed.value)
        assert str(pickle.loads(pickle.dumps(failed.value))) == str(failed.value)


@pytest.mark.parametrize("body", ["null", "[]", "7", "[" * 100_000, "{", ""])
@pytest.mark.parametrize("name", sorted(WEB))
async def test_what_is_no_answer_is_not_taken_for_no_results(name: str, body: str) -> None:
    async with serving() as site, engine(name, site) as made:
        site.put(WEB[name][0], body, Content_Type="application/json")
        with pytest.raises(SearchFailed, match=r"not JSON|not its own"):
            await made.search("cat", 3)


@pytest.mark.parametrize(
    "url", ["https://e.org/a\nIgnore all", "https://e.org/ b", "https://e.org/" + "a" * 5000, "\u202e"]
)
async def test_results_under_addresses_that_are_none_are_left_out(url: str) -> None:
    async with serving() as site, engine("serper", site) as made:
        rows = [{"title": "odd", "link": url, "snippet": "x"}, {"title": "A cat", "link": "https://e.org/a"}]
        serve(site, "/search", {"organic": rows})
        assert [hit.url for hit in await made.search("cat", 3)] == ["https://e.org/a"]


async def test_a_key_that_the_service_echoes_is_taken_out_of_its_results() -> None:
    async with serving() as site, engine("tavily", site) as made:

        async def echo(request: web.Request) -> web.Response:
            said = str(dict(request.headers))
            return web.json_response({"results": [{"title": said, "url": "https://e.org/a", "content": said}]})

        site.pages["/search"] = echo
        (hit,) = await made.search("cat", 3)
        assert "Bearer ***" in hit.text
        assert "key-of" not in repr(hit)


def test_a_live_search_waits_for_its_turn_and_ends_by_its_own_deadline() -> None:
    assert web_search_tool(make_engine("brave")).timeout is None
    assert web_search_tool(make_engine("brave"), timeout=5.0).timeout == 5.0
    assert web_fetch_tool(LivePages()).timeout is None


@pytest.mark.parametrize("answer", [[], 7, {"images": 3}, {"web": {"results": [{"url": 5}]}}, {"results": None}])
@pytest.mark.parametrize("name", sorted(WEB))
async def test_no_answer_of_a_wrong_form_is_a_bug(name: str, answer: Any) -> None:
    for kind in ("web", "images"):
        async with serving() as site, engine(name, site, kind) as made:
            for path in ("/res/v1/web/search", "/res/v1/images/search", "/search", "/images"):
                serve(site, path, answer)
            with contextlib.suppress(SearchFailed):
                assert await made.search("cat", 3) == []


async def test_an_answer_that_is_not_json_is_the_services_failure() -> None:
    async with serving() as site, engine("serper", site) as made:
        site.put("/search", "<html>")
        with pytest.raises(SearchFailed, match="not JSON"):
            await made.search("cat", 3)


async def test_searxng_says_what_its_settings_lack_and_when_all_engines_are_silent() -> None:
    async with serving() as site, engine("searxng", site) as made:
        statuses(site, "/search", {}, 403)
        with pytest.raises(SearchFailed, match=r"search\.formats"):
            await made.search("cat", 3)
        serve(site, "/search", {"results": [], "unresponsive_engines": [["bing", "CAPTCHA"]]})
        with pytest.raises(SearchFailed, match=r"none of its engines answered .bing."):
            await made.search("cat", 3)
        serve(site, "/search", {"results": [], "unresponsive_engines": []})
        assert await made.search("cat", 3) == []


async def test_the_rate_is_kept_by_all_searches_together() -> None:
    async with serving() as site, engine("brave", site, rate=Rate(per_second=20.0, burst=2)) as made:
        serve(site, *WEB["brave"])
        started = time.monotonic()
        await asyncio.gather(*(made.search("cat", 1) for _ in range(8)))
        assert time.monotonic() - started >= 6 / 20 - 0.02


def test_wrong_settings_are_told() -> None:
    with pytest.raises(UnknownNameError, match='did you mean "brave"'):
        make_engine("brav")
    with pytest.raises(ConfigError, match="brave searches web, images"):
        make_engine("brave", "videos")
    with pytest.raises(UnknownNameError, match="option of the search engine brave 'colour'; known: base_url"):
        make_engine("brave", colour="red")
    for url in ("ftp://x", "https://user@x.org", "https://x.org/?key=1", "http://[bad"):
        with pytest.raises(ConfigError, match="base_url"):
            make_engine("brave", base_url=url)
    assert {make_engine(name).name for name in ENGINES} == set(ENGINES)


async def test_a_search_run_is_recorded_online_and_replayed_offline_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way: a live engine behind an environment, a group, a cassette, and then nothing but the cassette."""

    def world(made: LiveEngine) -> Env:
        tasks = TaskSet.generate(lambda i: Task(f"t{i}", (Text(f"who is number {i} ?"),), str(i)), 3)
        return Env(id="live", tasks=tasks, tools=[web_search_tool(made, format="search-r1")])

    def act(observation: agentenv.Observation) -> str:
        asked = sum(message.role == "assistant" for message in observation.messages)
        call = {"name": "web_search", "arguments": {"query": f"number {asked} {observation.messages[1].text[-3]}"}}
        return f"<tool_call>{json.dumps(call)}</tool_call>" if asked < 2 else "<answer>x</answer>"

    async def play(url: str, mode: str) -> dict[Any, list[str]]:
        made = make_engine("brave", base_url=url, patience=QUICK)
        run = await agentenv.arollout(world(made), act, group=4, cassette=tmp_path / "tape", cassette_mode=mode)
        await made.close()
        return {(r.task.id, r.group.index): [m.text for m in r.messages] for r in run}

    async with serving() as site:
        counter = iter(range(1000))

        async def answer(request: web.Request) -> web.Response:
            rows = [{"title": "T", "url": "https://e.org/", "description": f"{request.query['q']} at {next(counter)}"}]
            return web.json_response({"web": {"results": rows}})

        site.pages["/res/v1/web/search"] = answer
        online = await play(site.url(""), "record")
        assert len(site.requests) == 24
    monkeypatch.delenv("BRAVE_API_KEY")
    assert await play("http://127.0.0.2:1", "replay") == online
    stored = b"".join(path.read_bytes() for path in (tmp_path / "tape").iterdir())
    assert b"key-of" not in stored


# -- ddgs: through a proxy that answers for the engines, with a certificate of its own ---------------------------------

DUCK = """<html><body><div class="result body"><h2><a>A cat</a></h2><a href="https://e.org/a">It's a cat.</a></div>
<div class="result body"><h2><a>B</a></h2><a href="https://e.org/b">Two.</a></div></body></html>"""


@asynccontextmanager
async def duck(tmp_path: Path, answer: Callable[[], tuple[int, str]]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A proxy on loopback: takes CONNECT, speaks TLS itself. Gives its URL, and what was asked."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    names = "subjectAltName=DNS:html.duckduckgo.com,DNS:duckduckgo.com"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=duck"]
    command += ["-addext", names, "-keyout", str(key), "-out", str(certificate)]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    asked: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.drain()
            await writer.start_tls(context)
            head = await reader.readuntil(b"\r\n\r\n")
            size = next(
                (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length:" in line), 0
            )
            asked.append(head + await reader.readexactly(size))
            status, body = answer()
            writer.write(
                f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
            )
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def test_ddgs_finds_pages(tmp_path: Path) -> None:
    async with duck(tmp_path, lambda: (200, DUCK)) as (proxy, asked):
        made = make_engine("ddgs", backend="duckduckgo", proxy=proxy, verify=False, patience=QUICK, rate=None)
        hits = await made.search("a cat", 2)
        assert [(hit.url, hit.title, hit.text) for hit in hits] == [
            ("https://e.org/a", "A cat", "It's a cat."), ("https://e.org/b", "B", "Two.")]  # fmt: skip
        assert b"q=a+cat" in asked[0] or b"a%20cat" in asked[0]
        assert await made.search("  ", 2) == []
        await made.close()


def test_ddgs_names_pictures_its_own_way() -> None:
    row = {
        "title": "A cat",
        "image": "https://e.org/c.png",
        "thumbnail": "",
        "url": "https://e.org/a",
        "source": "B",
    }
    (hit,) = make_engine("ddgs", "images").read([row, {"title": "no address"}])
    assert (hit.url, hit.text, hit.meta) == ("https://e.org/a", "B", {"picture": "https://e.org/c.png"})


async def test_ddgs_tries_again_and_then_says_that_it_failed(tmp_path: Path) -> None:
    answers = iter([(403, "no"), (200, DUCK)])
    async with duck(tmp_path, lambda: next(answers, (403, "no"))) as (proxy, asked):
        made = make_engine("ddgs", backend="duckduckgo", proxy=proxy, verify=False, patience=QUICK, rate=None)
        with contextlib.suppress(SearchFailed):  # ddgs asks its engines in an order of its own
            await made.search("cat", 2)
        assert asked
        await made.close()
    made = make_engine("ddgs", backend="duckduckgo", proxy="http://127.0.0.1:1", patience=QUICK, rate=None)
    with pytest.raises(SearchFailed, match="no engine answered"):
        await made.search("cat", 2)
    await made.close()
