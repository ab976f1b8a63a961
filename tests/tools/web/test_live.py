"""Pages of a real server: robots.txt, what is read of which document, pictures, and the tool over them."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from PIL import Image

import agentenv
from agentenv.errors import DataError, MissingExtraError, ToolError, ToolErrorKind, WorkerError
from agentenv.media import MediaStore, media_store
from agentenv.tools.web import CorpusPages, Link, LivePages, Page, Reader, WebClient, fetch_picture, web_fetch_tool
from agentenv.tools.web.live import kind_of
from agentenv.tools.web.readable import Readable, read_html, read_pdf
from agentenv.tools.web.reading import shared_reader
from tests.tools.web.site import PATIENCE, browsing, guard, serving

ARTICLE = """<!doctype html><html><head><title>Cats &amp; more</title>
<meta property="article:published_time" content="2024-03-05T10:00:00Z"></head>
<body><nav>menu</nav><main><h1>Cats</h1><p>A <a href="/dog">dog</a> is no cat.</p>
<table><tr><th>name</th><th>age</th></tr><tr><td>Tom</td><td>3</td></tr></table></main><footer>end</footer>"""


# -- robots.txt -------------------------------------------------------------------------------------------------------


async def test_a_site_says_what_robots_may_open() -> None:
    rules = "\ufeffUser-agent: *\nDisallow: /private\nAllow: /private/open\nDisallow: /*.cgi$\nCrawl-delay: 0.05\n"
    async with serving() as site, browsing(site, robots=True) as pages:
        site.put("/robots.txt", rules, Content_Type="text/plain")
        for path in ("/page", "/private/open", "/private/x", "/a.cgi", "/moved"):
            site.put(path, "<p>fine</p>")
        site.put("/moved", status=302, Location="/private/x")
        for path in ("/page", "/private/open"):
            assert (await pages.page(site.url(path))).text == "fine"
        for path in ("/private/x", "/a.cgi", "/moved"):
            with pytest.raises(ToolError, match=r"robots\.txt") as failed:
                await pages.page(site.url(path))
            assert failed.value.kind is ToolErrorKind.REFUSED
        assert site.paths.count("/robots.txt") == 1
        assert "/private/x" not in site.paths
        assert all("agentenv" in request.headers["User-Agent"] for request in site.requests)


async def test_a_site_without_rules_is_open_and_one_that_does_not_say_is_closed() -> None:
    async with serving() as site, browsing(site, robots=True) as pages:
        site.put("/page", "<p>fine</p>")
        assert (await pages.page(site.url("/page"))).text == "fine"
    async with serving() as site, browsing(site, robots=True) as pages:
        site.put("/robots.txt", status=503)
        with pytest.raises(ToolError, match="does not say now what robots may open") as failed:
            await pages.page(site.url("/page"))
        assert failed.value.kind is ToolErrorKind.UNAVAILABLE
        with pytest.raises(ToolError, match="There is no host"):
            await pages.page("http://nobody.invalid/")


# -- documents --------------------------------------------------------------------------------------------------------


async def test_a_page_is_read_with_title_date_and_links() -> None:
    async with serving() as site, browsing(site) as pages:
        site.put("/cats", ARTICLE)
        page = await pages.page(site.url("/cats"))
        assert (page.title, page.date, page.links) == ("Cats & more", "2024-03-05", (Link("dog", site.url("/dog")),))
        assert page.text == "# Cats\n\nA dog is no cat.\n\n| name | age |\n| --- | --- |\n| Tom | 3 |"
        assert not page.cut
        site.put("/cats", "<p>changed</p>")
        assert (await pages.page(site.url("/cats"))) is page, "the parts of one text belong together"


async def test_a_page_that_a_whole_group_opens_is_fetched_once() -> None:
    async with serving() as site, browsing(site) as pages:
        site.put("/cats", ARTICLE)
        found = await asyncio.gather(*(pages.page(site.url("/cats")) for _ in range(16)))
        assert len(site.requests) == 1
        assert len({page.text for page in found}) == 1


async def test_a_pdf_that_cannot_be_read_here_is_told_as_such(caplog: pytest.LogCaptureFixture) -> None:
    class Bare(Reader):
        async def read(self, kind: str, body: bytes, url: str, charset: str = "") -> Readable:
            raise MissingExtraError("pypdf", "pages", "reading PDF documents")

    async with serving() as site, browsing(site) as pages:
        pages.reader = Bare()
        with pytest.raises(ToolError, match="PDF document, and those cannot be read here"):
            await pages.page(site.put("/paper", pdf("x")))
        assert "agentenv-gym[pages]" in caplog.text
        with pytest.raises(MissingExtraError):
            await pages.page(site.put("/page", "<p>x</p>"))


async def test_many_pages_are_kept_and_the_oldest_forgotten() -> None:
    async with serving() as site, browsing(site) as pages:
        for number in range(260):
            site.put(f"/{number}", f"text {number}", Content_Type="text/plain")
            await pages.page(site.url(f"/{number}"))
        assert len(pages._kept) == 256


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (b"plain & simple <b>", "text/plain", "plain & simple <b>"),
        (b'{"a": 1}', "application/json", '{"a": 1}'),
        ("größer".encode("latin-1"), "text/plain; charset=iso-8859-1", "größer"),
        ("größer".encode("latin-1"), "text/plain", "größer"),
        ("größer".encode("utf-16"), "text/plain", "größer"),
        (b"<meta charset=windows-1251><main><p>\xef\xf0\xe8\xe2\xe5\xf2</p></main>", "text/html", "привет"),
        (b'<rss><channel><item><title>News</title></item></channel></rss>', "application/rss+xml", "News"),
        (
            b"<?xml version='1.0'?><rss><channel><title>News</title><item><title>One</title><description>"
            b"<![CDATA[<p>First &amp; last</p>]]></description></item></channel></rss>",
            "text/html",
            "News\nOne\n First & last",
        ),
        (b'{"a": "<html>"}', "application/json", '{"a": "<html>"}'),
        (b"no tags at all", "text/html", "no tags at all"),
        (b"", "", ""),
        (b"a\r\nb\r\n\r\n\r\n\r\nc \t\n", "text/plain", "a\nb\n\nc"),
    ],
)  # fmt: skip
async def test_documents_are_told_by_what_they_are(body: bytes, kind: str, text: str) -> None:
    async with serving() as site, browsing(site) as pages:
        site.put("/page", body, Content_Type=kind)
        assert (await pages.page(site.url("/page"))).text == text


def pdf(text: str) -> bytes:
    """A PDF document of one page."""
    stream = f"BT /F1 24 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return (
        out
        + b"xref\n0 6\n0000000000 65535 f \n"
        + table
        + b"trailer << /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % len(out)
    )


async def test_the_text_of_a_pdf_is_read() -> None:
    async with serving() as site, browsing(site) as pages:
        site.put("/paper", pdf("A paper on cats"), Content_Type="text/html")
        assert (await pages.page(site.url("/paper"))).text == "A paper on cats"
        site.put("/long", pdf("x") + b"%" * (3 << 20), Content_Type="application/pdf")
        with pytest.raises(ToolError, match="too long to be read"):
            await pages.page(site.url("/long"))


@pytest.mark.parametrize(("status", "why"), [(404, "no such page"), (403, "forbids"), (401, "password"), (418, "418")])
async def test_a_page_that_is_not_given_says_why(status: int, why: str) -> None:
    async with serving() as site, browsing(site) as pages:
        site.put("/page", "<p>no</p>", status)
        with pytest.raises(ToolError, match=why) as failed:
            await pages.page(site.url("/page"))
        assert failed.value.kind is ToolErrorKind.FAILED


def test_what_pretends_is_refused() -> None:
    films = b"\x1aE\xdf\xa3\x9f", b"7z\xbc\xaf\x27\x1c", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", bytes(range(1, 256))
    pretending = (b"\xff\xd8\xff\xe0", ""), (b"OggS..", "text/html"), (b"<html>", "video/mp4")
    for body, declared in (*pretending, *((body, "text/html") for body in films)):
        with pytest.raises(ToolError):
            kind_of(body, declared)
    assert kind_of(b"<p>a\x08b", "text/html") == "html"
    assert kind_of(b"<svg><title>T</title></svg>", "image/svg+xml") == "html"


async def test_pages_that_mark_nothing_get_a_second_opinion() -> None:
    menu = "".join(f"<div class='menu'><a href='/{i}'>x</a></div><script>var a{i} = {i};</script>" for i in range(400))
    story = "".join(f"<p>Sentence {i} of a story that goes on for a while, as stories do.</p>" for i in range(12))
    async with serving() as site, browsing(site) as pages:
        site.put("/story", f"<html><body>{menu}<div class='story'>{story}</div></body></html>")
        text = (await pages.page(site.url("/story"))).text
        assert "Sentence 11" in text


def test_what_workers_do_can_be_done_here() -> None:
    assert read_pdf(pdf("A paper")).text == "A paper"
    with pytest.raises(DataError, match="PDF"):
        read_pdf(b"%PDF-1.7 nothing")
    menu = "<div><script>var a = 1;</script></div>" * 400
    story = "".join(f"<p>Sentence {i} of a story that goes on for a while, as stories do.</p>" for i in range(8))
    page = f"<html><body>{menu}<div>{story}</div></body></html>".encode()
    assert "Sentence 7" in read_html(page, "https://e.org/").text
    assert read_html(b"", "https://e.org/").text == ""
    deep = read_html(b"<b>" * 5000 + b"deep", "https://e.org/", heuristics=False)
    assert deep.text in ("deep", "")
    odd = read_html(
        b"<main><p style='opacity:0.5'>seen</p><a href='http://[x'>l</a></main>", "https://e.org/", "klingon"
    )
    assert (odd.text, odd.links) == ("seen\n\nl", ())


# -- the reader's processes -------------------------------------------------------------------------------------------


async def test_a_reader_that_is_killed_is_replaced() -> None:
    reader = Reader(1, 5.0)
    html = b"<main><p>fine</p></main>"
    assert (await reader.read("html", html, "http://e.org/")).text == "fine"
    os.kill(reader._idle[0].process.pid, signal.SIGKILL)
    await asyncio.sleep(0.05)
    assert (await reader.read("html", html, "http://e.org/")).text == "fine"
    worker = reader._idle[0]
    os.kill(worker.process.pid, signal.SIGSTOP)
    reader.seconds = 0.1
    started = time.monotonic()
    with pytest.raises(ToolError) as failed:
        await reader.read("html", html, "http://e.org/")
    assert failed.value.kind is ToolErrorKind.TIMEOUT
    assert time.monotonic() - started < 3
    assert worker.process.returncode == -signal.SIGKILL
    reader.close()
    reader.close()


async def test_what_a_worker_lacks_is_told_here() -> None:
    from agentenv.tools.web import _reader
    from agentenv.tools.web._reader import Reply, Request

    assert isinstance(_reader.answer(Request("html", b"<p>x</p>", "http://e.org/", "", 1.0)), Reply)
    broken = _reader.answer(Request("pdf", b"%PDF-1.4 no", "http://e.org/", "", 1.0))
    assert "cannot be read" in broken.error


def test_a_missing_package_is_named() -> None:
    script = (
        "import sys, asyncio\n"
        "for name in ('selectolax', 'protego', 'pypdf', 'ddgs', 'html_to_markdown'): sys.modules[name] = None\n"
        "sys.modules['selectolax.lexbor'] = None\n"
        "from agentenv.tools.web import LivePages\n"
        "from agentenv.tools.web.readable import read_html, read_pdf\n"
        "from agentenv.tools.web.engines import make_engine\n"
        "for work in (LivePages, lambda: read_html(b'a', 'u'), lambda: read_pdf(b'x'), lambda: make_engine('ddgs')):\n"
        "    try: work()\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["MissingExtraError"] * 4
    assert "agentenv-gym[pages]" in lines[2]
    assert str(MissingExtraError("x", "search", "y"))


@pytest.mark.parametrize(
    ("module", "work"),
    [
        ("selectolax.lexbor", lambda: read_html(b"<p>x</p>", "https://e.org/")),
        ("html_to_markdown", lambda: read_html(b"<p>x</p>", "https://e.org/")),
        ("pypdf", lambda: read_pdf(b"%PDF-1.7")),
        ("protego", lambda: LivePages()),
        ("selectolax", lambda: LivePages()),
    ],
)
def test_packages_that_are_missing_are_named(
    module: str, work: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    if module == "selectolax":
        monkeypatch.setattr("agentenv.tools.web.live.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'agentenv-gym\[(search|pages)\]'"):
        work()


def test_a_page_is_read_without_the_second_opinion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trafilatura", None)
    page = b"<html><body>" + b"<script>var a = 1;</script>" * 200 + b"<p>short</p></body></html>"
    assert read_html(page, "https://e.org/").text == "short"


async def test_a_process_that_cannot_be_started_is_nobodys_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(1)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(WorkerError, match="no reading process could be started"):
        await reader.read("html", b"<p>x</p>", "https://e.org/")
    reader.close()


def test_a_forked_child_starts_readers_of_its_own() -> None:
    reader = Reader(1, 5.0)
    asyncio.run(reader.read("html", b"<p>x</p>", "https://e.org/"))
    worker = reader._idle[0]
    child = os.fork()
    if child == 0:  # pragma: no cover
        reader._after_fork()
        os._exit(0 if reader._idle == [] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert worker.alive
    reader.close()


async def test_the_event_loop_goes_on_while_a_document_is_read() -> None:
    async with serving() as site, browsing(site) as pages:
        site.put("/slow", b"<ul><li>" * 60_000)
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0.01)
                beats += 1

        heart = asyncio.create_task(beat())
        with pytest.raises(ToolError):
            await pages.page(site.url("/slow"))
        heart.cancel()
        assert beats > 10
    assert shared_reader() is shared_reader()


# -- pictures ---------------------------------------------------------------------------------------------------------


def encoded(form: str, size: tuple[int, int] = (30, 20)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "green").save(out, form)
    return out.getvalue()


async def test_a_picture_goes_through_the_checks_of_all_pictures() -> None:
    async with serving() as site:
        client = WebClient(guard(site), patience=PATIENCE)
        store = MediaStore()
        picture = await fetch_picture(client, site.put("/a", encoded("JPEG"), Content_Type="image/png"), store)
        assert (picture.mime, picture.width, picture.height) == ("image/jpeg", 30, 20)
        assert store.get(picture.sha256) == encoded("JPEG")
        cut = encoded("PNG", (300, 300))[:-30]
        for path, body in {"/html": b"<html>", "/svg": b"<svg/>", "/cut": cut, "/none": b""}.items():
            with pytest.raises(ToolError, match="does not hold a picture"):
                await fetch_picture(client, site.put(path, body, Content_Type="image/png"))
        with pytest.raises(ToolError, match="status 404"):
            await fetch_picture(client, site.url("/gone"))
        with pytest.raises(ToolError, match="more than 20 MB"):
            await fetch_picture(client, site.put("/big", b"\xff\xd8\xff" + b"x" * (21 << 20)))
        with pytest.raises(ToolError, match="not on the public internet"):
            await fetch_picture(client, "http://10.0.0.1/a.png", media_store())
        await client.close()


# -- live and offline are one tool ------------------------------------------------------------------------------------


async def test_the_live_page_and_its_offline_twin_read_the_same() -> None:
    async with serving() as site, browsing(site) as pages:
        site.put("/cats", ARTICLE)
        live = await web_fetch_tool(pages)(url=site.url("/cats"))
        page = await pages.page(site.url("/cats"))
        offline = await web_fetch_tool(CorpusPages.of([page]))(url=site.url("/cats"))
        assert offline == live
        tools = (web_fetch_tool(pages), web_fetch_tool(CorpusPages.of([page])))
        assert [tool.deterministic for tool in tools] == [False, True]
        assert len({tool.version for tool in tools}) == 2


def test_the_tool_keeps_the_contract() -> None:
    pages = CorpusPages.of([Page("https://e.org/a", "text")])
    report = agentenv.check_tool(web_fetch_tool(pages), [{"url": "https://e.org/a"}])
    assert report.ok, str(report)


async def test_pages_are_fetched_politely_by_default() -> None:
    pages = LivePages()
    assert pages.robots is not None
    assert pages.client.guard is not None
    assert pages.client.guard.allow == frozenset()
    assert not pages.client.guard.permits("127.0.0.1", 80)
    await pages.close()
