"""The transport under a model client: JSON requests over aiohttp with retries, deadlines and readable failures.

No key and no header is ever part of an error: whatever a server says is cleaned before it is shown.
"""

from __future__ import annotations

import asyncio
import email.utils
import os
import random
import re
import resource
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import msgspec
from yarl import URL

from agentenv.errors import ConfigError, PolicyError
from agentenv.policy.sessions import Sessions

T = TypeVar("T")

PERMANENT = frozenset({401, 404})  # 403 may be one refused prompt of many
RETRIED = frozenset({408, 429, 500, 502, 503, 504, 529})
LARGEST = 256 * 2**20
"""Bytes of the largest answer that is read."""
_SHOWN = 400
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[^\s\"',;}<]+")
_HEADER = re.compile(r"(?i)((?:authorization|api[-_]?key|x-api-key)\W{1,5})(?!bearer|basic)[^\s\"',;}<]+")
_ESCAPE = re.compile(
    rb"(?is)\\(?:(?-i:u)d[89ab][0-9a-f]{2}\\(?-i:u)d[c-f][0-9a-f]{2}|(?P<lone>(?-i:u)d[89a-f][0-9a-f]{2})|.)"
)
"""An escape in a JSON string; `lone` is half of a surrogate pair without its other half."""
_MARKUP = re.compile(r"(?s)<(script|style)\b.*?</\1>|<[^>]*>")


class HTTPError(PolicyError):
    """The server answered with a status that is not success. `text` is its cleaned message."""

    def __init__(self, message: str, status: int, text: str) -> None:
        self.status, self.text = status, text
        super().__init__(message, permanent=status in PERMANENT)

    def __reduce__(self) -> tuple[type[HTTPError], tuple[str, int, str]]:
        return type(self), (str(self), self.status, self.text)


class TransientError(Exception):
    """Worth another try. `wait` is what the server asked for, in seconds."""

    def __init__(self, text: str, wait: float | None = None, error: HTTPError | None = None) -> None:
        self.wait, self.error = wait, error
        super().__init__(text)


@dataclass(frozen=True)
class Patience:
    """How long to try.

    Args:
        timeout: seconds for one attempt, from sending to the last byte.
        connect: seconds to connect.
        deadline: seconds for all attempts and pauses together.
        retries: attempts after the first.
        pause: seconds of the longest pause after the first failure; doubled after each further one. The pause itself is
            drawn evenly between 0 and that ("full jitter"), so that many clients do not come back at once.
        longest: seconds above which that does not grow.
    """

    timeout: float = 600.0
    connect: float = 10.0
    deadline: float = 1800.0
    retries: int = 5
    pause: float = 0.5
    longest: float = 30.0

    def wait(self, attempt: int, asked: float | None) -> float:
        """Seconds to wait after the failed attempt `attempt` (from 0), at least what the server asked for."""
        jitter = random.uniform(0, min(self.longest, self.pause * 2**attempt))
        return jitter + (asked or 0.0)


class Client:
    """Sends JSON to one server. One session per event loop, connections kept alive until `close` or the loop's end.

    Args:
        base_url: "http://host:port/v1"; a user, a password and a query are kept for requests and shown nowhere.
        key_variable: the environment variable that holds the key. It is read for each request and kept nowhere.
        patience: how long to try.
        concurrency: requests in flight at once; by default what the limit of open files allows.
        trust_env: use the proxy that HTTP_PROXY and its like name.
    """

    def __init__(
        self,
        base_url: str,
        key_variable: str,
        patience: Patience | None = None,
        concurrency: int | None = None,
        trust_env: bool = False,
    ) -> None:
        self._base = _checked(base_url)
        self.key_variable = key_variable
        self.patience = patience or Patience()
        self.concurrency = concurrency or _open_files()
        self._trust_env = trust_env
        self._sessions = Sessions(self._session, self.concurrency)

    @property
    def shown_url(self) -> str:
        """The address without user, password, query and fragment."""
        return str(self._base.with_user(None).with_query(None).with_fragment(None))

    def __repr__(self) -> str:
        return f"<Client {self.shown_url}>"

    async def post(
        self, path: str, body: bytes, read: Callable[[aiohttp.ClientResponse], Awaitable[T]]
    ) -> tuple[T, int]:
        """Send `body` and read the answer, trying again after what may pass.

        Args:
            path: below the base address.
            body: JSON.
            read: reads a successful response; it may raise TransientError.

        Returns:
            What `read` returned, and how many attempts came before.

        Raises:
            HTTPError: the server refused, or was still failing at the last attempt.
            PolicyError: there was no usable answer before the attempts or the time ran out.
        """
        ends = time.monotonic() + self.patience.deadline
        attempt = 0
        while True:
            try:
                return await self._attempt(path, body, read, ends), attempt
            except TransientError as error:
                pause = self.patience.wait(attempt, error.wait)
                if attempt >= self.patience.retries:
                    raise self._gave_up(error, f"after {attempt + 1} attempts") from None
                if time.monotonic() + pause >= ends:
                    raise self._gave_up(error, self._out_of_time(error.wait, ends, attempt + 1)) from None
            attempt += 1
            await asyncio.sleep(pause)

    def _out_of_time(self, asked: float | None, ends: float, attempts: int) -> str:
        deadline = f"the deadline of {self.patience.deadline:g} s"
        if asked is not None and time.monotonic() + asked >= ends:
            return f"after {attempts} attempts, and asked to wait {asked:.0f} s, longer than {deadline} allows"
        return f"within {deadline}, after {attempts} attempts"

    def _gave_up(self, error: TransientError, when: str) -> PolicyError:
        text = f"{self.shown_url} gave no usable answer {when}: {error}"
        return HTTPError(text, error.error.status, error.error.text) if error.error else PolicyError(text)

    async def _attempt(
        self, path: str, body: bytes, read: Callable[[aiohttp.ClientResponse], Awaitable[T]], ends: float
    ) -> T:
        place = await self._sessions.here()
        async with place.slots:  # outside the timeout: waiting for a turn is not the server's fault
            limit = min(self.patience.timeout, max(0.0, ends - time.monotonic()))
            sending: dict[str, Any] = {"data": body, "headers": self._headers(), "allow_redirects": False}
            try:
                async with asyncio.timeout(limit), place.session.post(self._url(path), **sending) as answer:
                    if answer.status != 200:
                        await self._refused(answer)
                    return await read(answer)
            except aiohttp.ServerTimeoutError:
                raise TransientError(f"no connection within {self.patience.connect:.3g} s") from None
            except TimeoutError:
                raise TransientError(f"no answer within {limit:.3g} s") from None
            except (aiohttp.ClientError, OSError) as error:
                raise TransientError(self.clean(_readable(error))) from None

    async def _refused(self, answer: aiohttp.ClientResponse) -> None:
        text = self.clean(said(await read_body(answer)))
        error = HTTPError(f"{self.shown_url} answered {answer.status}: {text}", answer.status, text)
        if answer.status in RETRIED and "insufficient_quota" not in text:
            raise TransientError(f"status {answer.status}: {text}", retry_after(answer.headers), error)
        raise error

    async def get(self, path: str, seconds: float = 5.0) -> Any:
        """The decoded JSON at `path`, or None where it cannot be had. Tried once; for hints in error messages."""
        place = await self._sessions.here()
        try:
            async with asyncio.timeout(seconds), place.session.get(self._url(path), headers=self._headers()) as answer:
                return msgspec.json.decode(await read_body(answer)) if answer.status == 200 else None
        except (aiohttp.ClientError, OSError, TransientError, msgspec.DecodeError):
            return None

    def clean(self, text: str) -> str:
        """A server's text, fit to be shown: no key, no credentials, one line, at most some 400 characters."""
        for secret in self._secrets():
            text = text.replace(secret, "***")
        text = _HEADER.sub(r"\1***", _BEARER.sub(r"\1 ***", text))
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return text if len(text) <= _SHOWN else text[:_SHOWN] + " ..."

    def _secrets(self) -> list[str]:
        key = os.environ.get(self.key_variable, "").strip()
        raw = [key, self._base.password or "", *self._base.query.values()]
        # A short one is a stand-in ("EMPTY", "x"), and taking it out would garble the message.
        secrets = {form for text in raw if len(text) >= 6 for form in _forms(text)}
        return sorted(secrets, key=len, reverse=True)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        key = os.environ.get(self.key_variable, "").strip()
        if key and self._base.user is None:
            headers["Authorization"] = f"Bearer {key}"
        return headers

    def _url(self, path: str) -> URL:
        return (self._base / path).with_query(self._base.query)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30, ttl_dns_cache=300),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.patience.connect),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=self._trust_env,
        )

    async def close(self) -> None:
        """Close the connections of this event loop, and of those that are closed already."""
        await self._sessions.close()


async def read_body(answer: aiohttp.ClientResponse) -> bytes:
    """The whole body.

    Raises:
        PolicyError: it is longer than `LARGEST`.
    """
    chunks: list[bytes] = []
    size = 0
    async for chunk in answer.content.iter_any():
        size += len(chunk)
        if size > LARGEST:
            raise PolicyError(f"the server's answer is longer than {LARGEST // 2**20} MiB")
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def decoded(body: bytes) -> Any:
    """The JSON in `body`. Half of a surrogate pair, which a model may well write, becomes U+FFFD, and so does a byte
    that is not UTF-8.

    Raises:
        msgspec.DecodeError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError):
        text = body.decode("utf-8", "replace").encode()
        return msgspec.json.decode(_ESCAPE.sub(lambda found: rb"\ufffd" if found["lone"] else found[0], text))


def said(body: bytes) -> str:
    """What an error body says: the message of OpenAI's or FastAPI's JSON, the visible text of HTML, or its start."""
    text = body[:100_000].decode("utf-8", "replace").strip()
    if text.startswith("<"):
        return _MARKUP.sub(" ", text)
    try:
        data = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return text or "(no text)"
    found = data.get("error", data) if isinstance(data, dict) else data
    if isinstance(found, dict):
        parts = [found.get(key) for key in ("message", "detail", "code", "type")]
        texts = [part if isinstance(part, str) else msgspec.json.encode(part).decode() for part in parts if part]
        return " / ".join(dict.fromkeys(texts)) or text
    return found if isinstance(found, str) else text


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: a number, or a date (RFC 9110, 10.2.3)."""
    text = headers.get("Retry-After", "").strip()
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _readable(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _forms(secret: str) -> set[str]:
    """A secret as it may be echoed: as it is, quoted for a URL, or escaped for JSON."""
    return {secret, urllib.parse.quote(secret, safe=""), msgspec.json.encode(secret).decode()[1:-1]}


def _checked(base_url: str) -> URL:
    try:
        url = URL(base_url.rstrip("/"))
        (url.host or "").encode("idna")  # what the resolver will do, and fail to
    except ValueError:
        raise ConfigError("base_url is not an address") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError("base_url must look like http://127.0.0.1:8000/v1")
    return url


def _open_files() -> int:
    """Connections that leave room for other open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4096 if soft == resource.RLIM_INFINITY else max(64, min(4096, soft - 256))
