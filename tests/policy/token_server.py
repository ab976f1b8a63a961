"""A real server on loopback that answers as vLLM and SGLang do where they are given token ids."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


class TokenServer:
    """Says `says`, or what `script` makes of a prompt; `spoil` changes answers before they go out."""

    def __init__(self, says: list[int]) -> None:
        self.says, self.port, self.scale_out, self.delay, self.aborted = says, 0, True, 0.0, 0
        self.raw = False
        self.script: Callable[[list[int]], list[int]] = lambda ids: self.says
        self.expand: Callable[[list[int], int], list[int]] = lambda ids, media: ids
        self.spoil: Callable[[dict[str, Any]], None] = lambda answer: None
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.models: Any = {"data": [{"id": "good", "max_model_len": 128}]}
        self.info: Any = {"model_path": "/models/good", "served_model_name": "good", "has_image_understanding": True}
        self.server: Any = {"context_length": 128}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def turns(self) -> list[dict[str, Any]]:
        """The requests for turns: those that are no probes."""
        bodies = [body for _, body in self.requests if body]
        asked = [(body, body.get("sampling_params", body)) for body in bodies]
        return [body for body, params in asked if 1 not in (params.get("max_tokens"), params.get("max_new_tokens"))]

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """vLLM's `/inference/v1/generate`."""
        if not self.scale_out:
            return web.json_response({"error": {"message": "start with --enable-scale-out"}}, status=403)
        body = await self._body(request)
        if "token_ids" not in body:
            return web.json_response({"detail": "token_ids: field required"}, status=422)
        ids = self._sampled(body["sampling_params"])
        entries = [{"token_id": token, "logprob": -0.5, "top_logprobs": self._top(body)} for token in ids]
        choice = {"index": 0, "finish_reason": "stop", "token_ids": ids, "logprobs": {"content": entries}}
        choice["weight_versions"] = [{"version": "step-3", "start": 0, "end": len(ids)}]
        given = self.expand(body["token_ids"], len(body.get("content_parts", ())))
        return self._answer({"choices": [choice], "prompt_token_ids": given, "usage": {"prompt_tokens": len(given)}})

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """vLLM's `/v1/completions`."""
        body = await self._body(request)
        ids = self._sampled(body)
        top = [{str(n): entry["logprob"] for n, entry in enumerate(self._top({"sampling_params": body}))} for _ in ids]
        logprobs = {"token_logprobs": [-0.5] * len(ids), "top_logprobs": top}
        choice = {"index": 0, "text": "?", "finish_reason": "stop", "token_ids": ids, "logprobs": logprobs}
        return self._answer({"choices": [{**choice, "prompt_token_ids": body["prompt"]}]})

    async def sglang(self, request: web.Request) -> web.StreamResponse:
        """SGLang's `/generate`."""
        body = await self._body(request)
        says = self.script(body["input_ids"])
        pairs = [[-0.5, token, None] for token in says]
        given = self.expand(body["input_ids"], len(body.get("image_data", ())))
        about: dict[str, Any] = {
            "output_token_logprobs": pairs,
            "finish_reason": {"type": "stop"},
            "weight_version": "step-4",
        }
        top = self._top(body)[1:][: body.get("top_logprobs_num", 0)]
        about |= {"prompt_tokens": len(given), "output_top_logprobs": [[[one["logprob"], 7, None] for one in top]]}
        answer = {"text": "?", "output_ids": says, "meta_info": about}
        return self._answer(answer | ({"prompt_token_ids": given} if body.get("return_prompt_token_ids") else {}))

    async def _body(self, request: web.Request) -> dict[str, Any]:
        body: dict[str, Any] = await request.json()
        self.requests.append((request.path, body))
        try:
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        return body

    def _sampled(self, sampling: dict[str, Any]) -> list[int]:
        return self.says[: sampling["max_tokens"]]

    def _top(self, body: dict[str, Any]) -> list[dict[str, float]]:
        """The token that was sampled, an unlikely one, and the likeliest, as many in all as were asked for."""
        cool = 1.0 if self.raw else body["sampling_params"]["temperature"]
        likely = [{"logprob": -0.5}, {"logprob": -0.5 - 0.8 / cool}]
        return [{"logprob": -3.0}, *likely][: body["sampling_params"].get("logprobs")]

    def _answer(self, answer: dict[str, Any]) -> web.Response:
        self.spoil(answer)
        return web.json_response(answer)

    async def list_models(self, request: web.Request) -> web.Response:
        return web.json_response(self.models) if self.models else web.Response(status=404)

    async def model_info(self, request: web.Request) -> web.Response:
        return web.json_response(self.info) if self.info else web.Response(status=404)

    async def server_info(self, request: web.Request) -> web.Response:
        return web.json_response(self.server) if self.server else web.Response(status=404)


@asynccontextmanager
async def token_server(says: list[int]) -> AsyncIterator[TokenServer]:
    server = TokenServer(says)
    app = web.Application(client_max_size=2**28)
    app.router.add_post("/inference/v1/generate", server.generate)
    app.router.add_post("/v1/completions", server.completions)
    app.router.add_post("/generate", server.sglang)
    app.router.add_get("/v1/models", server.list_models)
    app.router.add_get("/model_info", server.model_info)
    app.router.add_get("/get_server_info", server.server_info)  # as earlier versions call it
    app.router.add_get("/health", server.model_info)
    runner = web.AppRunner(app, shutdown_timeout=0.05, access_log=None, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()
