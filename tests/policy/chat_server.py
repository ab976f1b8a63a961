"""A real chat-completions server on loopback, which fails on request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Fault = Callable[[web.Request, "ChatServer"], Awaitable[web.StreamResponse]]


def completion(message: dict[str, Any] | str, finish: str = "stop", **choice: Any) -> dict[str, Any]:
    """A whole answer."""
    said = {"role": "assistant", "content": message} if isinstance(message, str) else message
    return {
        "choices": [{"index": 0, "message": said, "finish_reason": finish, **choice}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }


class ChatServer:
    """Serves `answer` to every request that no fault in `faults` takes; keeps what it was sent."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.queries: list[str] = []
        self.answer: dict[str, Any] | Callable[[dict[str, Any]], dict[str, Any]] = completion("hello")
        self.models: Any = {"data": [{"id": "good-model"}, {"id": "other"}]}
        self.get: dict[str, Any] = {}  # what further addresses answer
        self.delay = 0.0
        self.now = self.most = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        self.headers.append(dict(request.headers))
        self.queries.append(request.query_string)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if self.faults:
                return await self.faults.pop(0)(request, self)
            if self.delay:
                await asyncio.sleep(self.delay)
            answer = self.answer(self.requests[-1]) if callable(self.answer) else self.answer
            return web.json_response(answer)
        finally:
            self.now -= 1

    async def other(self, request: web.Request) -> web.Response:
        return web.json_response(self.get[request.path]) if request.path in self.get else web.Response(status=404)

    async def list_models(self, request: web.Request) -> web.Response:
        return web.json_response(self.models) if self.models is not None else web.Response(status=404)


@asynccontextmanager
async def chat_server() -> AsyncIterator[ChatServer]:
    server = ChatServer()
    app = web.Application(client_max_size=2**28)
    app.router.add_post("/v1/chat/completions", server.chat)
    app.router.add_get("/v1/models", server.list_models)
    app.router.add_get("/{path:.*}", server.other)
    runner = web.AppRunner(app, shutdown_timeout=0.05, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=2048)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()


def status(code: int, body: Any = None, **headers: str) -> Fault:
    """Answers with a status and a JSON body."""

    async def fault(request: web.Request, server: ChatServer) -> web.Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response(body if body is not None else {"error": {"message": "no"}}, status=code, headers=given)

    return fault


def text(body: str, code: int = 200, kind: str = "application/json") -> Fault:
    """Answers with a body to the letter."""

    async def fault(request: web.Request, server: ChatServer) -> web.Response:
        return web.Response(text=body, status=code, content_type=kind)

    return fault


def echo(code: int) -> Fault:
    """Answers with everything that it was sent, headers and all."""

    async def fault(request: web.Request, server: ChatServer) -> web.Response:
        sent = json.dumps({"headers": dict(request.headers), "message": f"you sent {request.headers['Authorization']}"})
        return web.Response(text=sent, status=code, content_type="application/json")

    return fault


async def hang(request: web.Request, server: ChatServer) -> web.StreamResponse:
    """Never answers."""
    await asyncio.sleep(3600)
    raise AssertionError


async def drop(request: web.Request, server: ChatServer) -> web.StreamResponse:
    """Hangs up without a word."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def cut(request: web.Request, server: ChatServer) -> web.StreamResponse:
    """Hangs up in the middle of the body."""
    answer = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
    await answer.prepare(request)
    await answer.write(b'{"choices": [')
    assert request.transport is not None
    request.transport.abort()
    return answer


def stream(*events: Any, done: bool = True, abort: bool = False) -> Fault:
    """Answers with server-sent events; a string stands for itself."""

    async def fault(request: web.Request, server: ChatServer) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for event in events:
            data = event if isinstance(event, str) else json.dumps(event)
            await answer.write(f"data: {data}\n\n".encode())
            await asyncio.sleep(0)
        if abort:
            await asyncio.sleep(0.02)
            assert request.transport is not None
            request.transport.abort()
            return answer
        if done:
            await answer.write(b"data: [DONE]\n\n")
        return answer

    return fault


def delta(content: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One chunk of a stream."""
    change = {} if content is None else {"content": content}
    return {"choices": [{"index": 0, "delta": {**change, **more.pop("change", {})}, "finish_reason": finish, **more}]}
