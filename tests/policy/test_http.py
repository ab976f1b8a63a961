"""Failures of a real server: what is tried again, what is not, and what may never be said."""

from __future__ import annotations

import asyncio
import email.utils
import gc
import json
import pickle
import socket
import time
import traceback
import warnings
from typing import Any, cast
from unittest.mock import ANY

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from agentenv.errors import PolicyError
from agentenv.policy import OpenAIPolicy, make_policy
from agentenv.policy import http as transport
from agentenv.policy.http import Client, HTTPError, Patience, decoded, said
from agentenv.rollout import rollout
from agentenv.types import Action, Usage
from tests.policy.chat_server import (
    ChatServer,
    Fault,
    chat_server,
    completion,
    cut,
    delta,
    drop,
    echo,
    hang,
    status,
    stream,
    text,
)
from tests.policy.words import seen
from tests.worlds import sum_task, sums

KEY = 'sk-planted/"key"+0123456789'


def policy_of(server: ChatServer, **options: Any) -> OpenAIPolicy:
    return OpenAIPolicy("good-model", server.url, **{"pause": 0.001, **options})


async def failing(*faults: Fault, **options: Any) -> tuple[PolicyError, ChatServer]:
    async with chat_server() as server:
        server.faults = list(faults)
        policy = policy_of(server, **options)
        with pytest.raises(PolicyError) as caught:
            await policy.act(seen())
        await policy.close()
        return caught.value, server


@pytest.mark.parametrize(
    "fault",
    [
        *(status(code) for code in (408, 429, 500, 502, 503, 504, 529)),
        status(429, Retry_After="0"),
        status(503, Retry_After="Thu, 01 Jan 1970 00:00:00 GMT"),
        status(503, Retry_After="soon"),
        text('{"choices": [{"mess'),
        text("[" * 5000),
        text('{"choices": []}'),
        text('{"choices": [{"text": "old api"}]}'),
        text("[]"),
        text('{"error": {"message": "engine is dead"}}'),
        drop,
        cut,
        hang,
    ],
)
async def test_what_may_pass_is_tried_again(fault: Fault) -> None:
    async with chat_server() as server:
        server.faults = [fault, fault]
        policy = policy_of(server, timeout=0.3 if fault is hang else 60)
        action = await policy.act(seen())
        await policy.close()
    assert (action.text, action.retries, len(server.requests)) == ("hello", 2, 3)


@pytest.mark.parametrize("code", [301, 400, 401, 403, 404, 422])
async def test_what_will_not_pass_is_not_tried_again(code: int) -> None:
    error, server = await failing(status(code, {"error": {"message": "no such luck"}}))
    assert len(server.requests) == 1
    assert f"answered {code}: no such luck" in str(error)
    assert ".." not in str(error)
    assert error.permanent == (code in (401, 404))


async def test_a_spent_quota_is_not_tried_again() -> None:
    body = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
    error, server = await failing(status(429, body))
    assert len(server.requests) == 1
    assert "insufficient_quota" in str(error)


async def test_attempts_end(unused_tcp_port: int) -> None:
    error, server = await failing(*[status(503, {"detail": "busy"})] * 3, retries=2)
    assert len(server.requests) == 3
    assert "no usable answer after 3 attempts: status 503: busy" in str(error)
    policy = OpenAIPolicy("m", f"http://127.0.0.1:{unused_tcp_port}/v1", retries=1, pause=0.001)
    with pytest.raises(PolicyError, match=r"after 2 attempts: ClientConnector.*127.0.0.1"):
        await policy.act(seen())
    await policy.close()


async def test_the_deadline_holds_whatever_the_server_asks_for() -> None:
    started = time.monotonic()
    error, server = await failing(status(429, Retry_After="3600"), deadline=5.0)
    assert "after 1 attempts, and asked to wait 3600 s, longer than the deadline of 5 s allows" in str(error)
    assert "within" not in str(error)
    date = email.utils.formatdate(time.time() + 3600, usegmt=True)
    error, server = await failing(status(503, Retry_After=date), deadline=5.0)
    assert len(server.requests) == 1
    error, server = await failing(*[hang] * 9, deadline=0.3, timeout=0.1, retries=100)
    assert 1 <= len(server.requests) < 9
    assert "within the deadline of 0.3 s" in str(error)
    assert time.monotonic() - started < 20


def test_pauses_have_full_jitter_and_respect_the_server() -> None:
    patience = Patience(pause=1.0, longest=4.0)
    for attempt, most in ((0, 1), (1, 2), (2, 4), (9, 4)):
        pauses = [patience.wait(attempt, None) for _ in range(300)]
        assert 0 <= min(pauses) < 0.2 * most
        assert 0.8 * most < max(pauses) <= most
    assert patience.wait(0, 10.0) >= 10.0


async def test_errors_say_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    error, _ = await failing(status(401))
    assert "environment variable OPENAI_API_KEY, which is not set" in str(error)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    error, _ = await failing(status(403))
    assert "OPENAI_API_KEY, which is set: is it the right key?" in str(error)
    error, _ = await failing(status(307, Location="http://127.0.0.1/elsewhere"))
    assert "check base_url" in str(error)
    page = text("<html><style>x{}</style><h1>Welcome</h1></html>", kind="text/html")
    error, server = await failing(page)
    assert "web page; check base_url (it often ends in /v1): Welcome" in str(error)
    assert len(server.requests) == 1


async def test_a_wrong_model_is_named_beside_the_right_ones() -> None:
    async with chat_server() as server:
        policy = OpenAIPolicy("god-model", server.url)
        for models, hint in (
            (server.models, "does not serve the model 'god-model'; did you mean \"good-model\"?"),
            ({"data": [{"id": "god-model"}]}, "does serve the model"),
            ({"data": None}, "it often ends in /v1"),
            (["odd"], "it often ends in /v1"),
            (None, "it often ends in /v1"),
        ):
            server.models, policy._models = models, None
            server.faults = [status(404, {"message": "The model does not exist."})]
            with pytest.raises(PolicyError) as caught:
                await policy.act(seen())
            assert hint in str(caught.value)
            assert "does not exist. " in str(caught.value)
            assert caught.value.permanent
        server.faults = [status(404)]
        server.models = {"data": [{"id": "god-model"}]}
        with pytest.raises(PolicyError, match="it often ends in /v1"):  # the list is asked for once
            await policy.act(seen())
        await policy.close()


async def test_hints_are_left_out_where_they_cannot_be_had(unused_tcp_port: int) -> None:
    client = Client(f"http://127.0.0.1:{unused_tcp_port}/v1", "NO_KEY")
    assert await client.get("models") is None
    await client.close()


@pytest.mark.parametrize(
    "fault", [echo(401), echo(400), echo(500), echo(429), text(f"<p>Bearer {KEY}</p>", 502, "text/html")]
)
async def test_the_key_is_nowhere(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    async with chat_server() as server:
        server.faults = [fault] * 3
        policy = policy_of(server, retries=1, api_key_env="MY_KEY")
        with pytest.raises(PolicyError) as caught:
            await policy.act(seen())
        everything = [str(caught.value), repr(caught.value), repr(policy), repr(policy.info), repr(vars(policy))]
        everything += ["".join(traceback.format_exception(caught.value)), repr(vars(policy.client))]
        await policy.close()
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    for said_text in everything:
        for form in ("planted", "0123456789"):
            assert form not in said_text


@pytest.mark.parametrize(
    "echoed",
    [
        "Bearer abcdef123456",
        "authorization: tok_987654321",
        '{"Authorization":"Bearer zzz"}',
        "x-api-key = tok_987654321",
        "Basic dXNlcjpwYXNz",
    ],
)
def test_credentials_are_cleaned_even_when_they_are_not_ours(echoed: str) -> None:
    cleaned = Client("http://127.0.0.1/v1", "NO_KEY").clean(f"you sent {echoed}, which is wrong")
    for secret in ("abcdef123456", "987654321", "zzz", "dXNlcjpwYXNz"):
        assert secret not in cleaned
    assert cleaned.endswith("which is wrong")


def test_short_stand_ins_do_not_garble_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    assert (
        Client("http://127.0.0.1/v1", "OPENAI_API_KEY").clean("max exceeded \x1b[31m\n now") == "max exceeded [31m now"
    )
    assert len(Client("http://127.0.0.1/v1", "OPENAI_API_KEY").clean("a b " * 1000)) < 450


async def test_user_and_query_of_the_address_are_used_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    async with chat_server() as server:
        address = server.url.replace("http://", "http://me:hidden-word@") + "?api-version=secret-version"
        policy = OpenAIPolicy("m", address, retries=0)
        await policy.act(seen())
        server.faults = [status(500, {"error": {"message": "at hidden-word with secret-version"}})]
        with pytest.raises(PolicyError) as caught:
            await policy.act(seen())
        await policy.close()
    assert server.queries[0] == "api-version=secret-version"
    assert server.headers[0]["Authorization"].startswith("Basic ")
    for shown in (repr(policy), repr(policy.info), repr(policy.client), str(caught.value)):
        assert "hidden-word" not in shown
        assert "secret-version" not in shown


def test_error_bodies_are_read_in_every_usual_shape() -> None:
    for body, words in (
        (b'{"error": {"message": "a", "code": "b"}}', "a / b"),
        (b'{"error": "plain"}', "plain"),
        (b'{"detail": [{"loc": ["x"], "msg": "missing"}]}', '[{"loc":["x"],"msg":"missing"}]'),
        (b'{"object": "error", "message": "vllm"}', "vllm"),
        (b'{"other": 1}', '{"other": 1}'),
        (b"[1, 2]", "[1, 2]"),
        (b"", "(no text)"),
        (b"\xff\xfe oops", "\ufffd\ufffd oops"),
    ):
        assert said(body) == words


async def test_an_endless_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LARGEST", 1000)
    error, _ = await failing(text('{"x": "' + "y" * 5000 + '"}'))
    assert "longer than" in str(error)


def test_one_policy_serves_one_event_loop_after_another() -> None:
    async def once(policy: OpenAIPolicy | None, close: bool) -> OpenAIPolicy:
        async with chat_server() as server:
            policy = policy or policy_of(server)
            policy.client._base = Client(server.url, "")._base
            assert (await policy.act(seen())).text == "hello"
            if close:
                await policy.close()
            return policy

    policy = asyncio.run(once(None, True))
    asyncio.run(once(policy, True))


async def test_sessions_of_closed_loops_are_given_back(unused_tcp_port: int) -> None:
    policy = OpenAIPolicy("m", f"http://127.0.0.1:{unused_tcp_port}/v1", retries=0)

    def elsewhere() -> None:
        with pytest.raises(PolicyError):
            asyncio.run(policy.act(seen()))

    await asyncio.to_thread(elsewhere)
    assert len(policy.client._sessions._places) == 1
    await policy.close()
    assert len(policy.client._sessions._places) == 0


@pytest.mark.parametrize("closed", [True, False])
def test_a_rollout_leaves_no_session_open(closed: bool, unused_tcp_port: int) -> None:
    address = f"http://127.0.0.1:{unused_tcp_port}/v1"
    options: dict[str, Any] = {"retries": 0, "pause": 0.0}
    policy = make_policy("openai:m", base_url=address, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            rollout(sums(), policy, tasks=[sum_task(0)], attempts=1)
            if closed:
                asyncio.run(policy.close())
        places = list(cast("OpenAIPolicy", policy).client._sessions._places.values())
        assert len(places) == (0 if closed else 1)
        assert all(place.session.closed for place in places)
        del places, policy
        gc.collect()
    assert [str(warning.message) for warning in caught if issubclass(warning.category, ResourceWarning)] == []


def test_a_lone_surrogate_is_what_the_model_wrote() -> None:
    for body, value in (
        (b'{"a": "\\ud800"}', {"a": "\ufffd"}),
        (b'["\\ud83d\\ude00", "\\\\ud800", "\\ude00\\ud83d"]', ["\U0001f600", "\\ud800", "\ufffd\ufffd"]),
        (b'["\\uD800\\uD83D\\uDE00", "\\\\\\udfff\\n"]', ["\ufffd\U0001f600", "\\\ufffd\n"]),
        (b'["\xed\xa0\x80", "\xc3\xa9"]', ["\ufffd\ufffd\ufffd", "\xe9"]),
    ):
        assert decoded(body) == value
    for broken in (b'{"a": "\\ud800"', b"", b'"\\x"', b"\\ud800", b"nonsense"):
        with pytest.raises(msgspec.DecodeError):
            decoded(broken)


@given(st.text(st.characters(codec=None, categories=None)) | st.text(st.sampled_from("\\\ud800\udc00u d9")))
def test_whatever_was_escaped_is_read(written: str) -> None:
    whole = written.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert decoded(json.dumps([written]).encode()) == [whole]


async def test_answers_with_a_lone_surrogate_are_taken_at_once() -> None:
    async with chat_server() as server:
        policy = policy_of(server, retries=0)
        server.answer = completion("a\ud800b")
        assert await policy.act(seen()) == Action("a\ufffdb", usage=Usage(10, 5), seconds=ANY)
        server.faults = [stream(delta("a\udc00"), delta(finish="stop"))]
        assert (await policy.act(seen())).text == "a\ufffd"
        await policy.close()


async def test_connections_are_kept_alive() -> None:
    ports: set[Any] = set()

    async def noted(request: web.Request, server: ChatServer) -> web.Response:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername"))
        return web.json_response(completion("hi"))

    async with chat_server() as server:
        server.faults = [noted] * 5
        policy = policy_of(server)
        for _ in range(5):
            await policy.act(seen())
        await policy.close()
    assert len(ports) == 1


async def test_a_server_that_takes_no_connection_is_told_from_one_that_does_not_answer() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for client in waiting:  # they fill the queue of a listener that accepts nobody
            client.setblocking(False)
            client.connect_ex(address)
        patient = Client(f"http://127.0.0.1:{address[1]}/v1", "NO_KEY", Patience(connect=0.2, retries=0))
        with pytest.raises(PolicyError, match=r"no connection within 0\.2 s"):
            await patient.post("chat/completions", b"{}", transport.read_body)
        await patient.close()
        for client in waiting:
            client.close()


def test_errors_survive_a_process_border() -> None:
    error = pickle.loads(pickle.dumps(HTTPError("m", 500, "t")))
    assert (str(error), error.status, error.text) == ("m", 500, "t")


@pytest.fixture
def unused_tcp_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
