"""Every document of the list is read within its bounds, and nothing of it reaches a policy as control."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import time

import pytest
from aiohttp import web

from agentenv.dialects import neutralise
from agentenv.env import Env
from agentenv.errors import ToolError, ToolErrorKind
from agentenv.task import TaskSet
from agentenv.tools.web import LivePages, Page, web_fetch_tool
from agentenv.types import Task, Text
from tests.tools.web.hostile_documents import DOCUMENTS, Document
from tests.tools.web.site import Site, browsing, serving

LIMIT = 2 << 20
CONTROL = re.compile(
    r"<\|[^<>\n]{1,64}\|>|</?(?:tool_call|tool_response|image|video|answer|information|think|s)>|\[INST\]|<<SYS>>"
)


def test_the_list_is_long_enough() -> None:
    assert len(DOCUMENTS) >= 40
    assert len({document.what for document in DOCUMENTS}) == len(DOCUMENTS)


async def shown(pages: LivePages, url: str) -> str:
    """What a policy sees of a page, through an environment."""
    tasks = TaskSet.generate(lambda i: Task(f"t{i}", (Text("open it"),)), 1)
    env = Env(id="hostile", tasks=tasks, tools=[web_fetch_tool(pages)])
    await env.areset(seed=0)
    call = json.dumps({"name": "web_fetch", "arguments": {"url": url}})
    step = await env.astep(f"<tool_call>{call}</tool_call>")
    assert env.trajectory.tool_runs[0].bug is None, env.trajectory.tool_runs[0].bug
    text = step.observation.messages[-1].text
    assert text.startswith("<tool_response>\n")
    assert text.endswith("\n</tool_response>")
    return text.removeprefix("<tool_response>\n").removesuffix("\n</tool_response>")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.what)
async def test_the_document_is_held(document: Document) -> None:
    async with serving() as site, browsing(site) as pages:
        site.put("/page", document.body, headers=document.headers)
        url = site.url("/page")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        text = await shown(pages, url)
        assert not CONTROL.search(text)
        assert neutralise(text)[1] == 0
        assert len(text) < 20_000
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10, "kilobytes"
        await HOLDS[document.holds](document, pages, url)


async def bounded(document: Document, pages: LivePages, url: str) -> None:
    page = await pages.page(url)
    assert page.cut
    assert 1000 < len(page.text) <= LIMIT


async def refused(document: Document, pages: LivePages, url: str) -> None:
    with pytest.raises(ToolError) as failed:
        await pages.page(url)
    assert failed.value.kind in (ToolErrorKind.FAILED, ToolErrorKind.UNAVAILABLE)


async def survived(document: Document, pages: LivePages, url: str) -> None:
    found = (await asyncio.gather(pages.page(url), return_exceptions=True))[0]
    if isinstance(found, ToolError):
        assert found.kind in (ToolErrorKind.FAILED, ToolErrorKind.TIMEOUT)
    else:
        assert isinstance(found, Page)
        assert len(found.text) <= LIMIT
        assert all(link.url.startswith("http") for link in found.links)


async def harmless(document: Document, pages: LivePages, url: str) -> None:
    text = await shown(pages, url)
    assert "\u2039" in text, "it is still told that something stood there"


async def clean(document: Document, pages: LivePages, url: str) -> None:
    assert (await pages.page(url)).text == document.text


async def empty(document: Document, pages: LivePages, url: str) -> None:
    assert (await pages.page(url)).text == ""
    assert "no text on this page" in await shown(pages, url)


async def linkless(document: Document, pages: LivePages, url: str) -> None:
    assert (await pages.page(url)).links == ()


HOLDS = {check.__name__: check for check in (bounded, refused, survived, harmless, clean, empty, linkless)}


async def test_a_server_that_drips_is_given_up_at_the_one_deadline() -> None:
    async with serving() as site, browsing(site) as pages:

        async def drip(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "text/html"})
            await response.prepare(request)
            try:
                while True:
                    await response.write(b"x")
                    await asyncio.sleep(0.05)
            except ConnectionError:
                return response

        site.pages["/drip"] = drip
        started = time.monotonic()
        with pytest.raises(ToolError) as failed:
            await pages.page(site.url("/drip"))
        assert failed.value.kind is ToolErrorKind.TIMEOUT
        assert time.monotonic() - started < 6


async def test_what_does_not_speak_http_is_told_as_such() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org ESMTP\r\n" * 100)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.2", 0)
    fake = Site()
    fake.port = server.sockets[0].getsockname()[1]
    async with server, browsing(fake) as pages:
        with pytest.raises(ToolError, match=r"does not speak HTTP|cannot be reached") as failed:
            await pages.page(fake.url("/"))
        assert failed.value.kind is ToolErrorKind.UNAVAILABLE
