"""A private HTTP cache that obeys RFC 9111: what a server allows to be kept is not asked for again before its time.

Small and in memory, as it only spares servers within a run; what is to last goes into a cassette. An own one, as hishel
speaks to httpx only, at eight times aiohttp's cost a request.
"""

from __future__ import annotations

import email.utils
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace
from yarl import URL

from agentenv.tools.web.answers import Fetched

_HEURISTIC_SHARE = 0.1  # of the time since the last change, RFC 9111, 4.2.2
_HEURISTIC_MOST = 86_400.0
_KEPT_STATUSES = frozenset({200, 203, 301, 308, 404, 410})


class _Kept(Struct, frozen=True):
    answer: Fetched
    at: float  # when it was asked for, as Unix time
    age: float  # what it had then, in seconds
    lifetime: float


class HTTPCache:
    """Answers to GET requests of one client, which sends the same headers always. Thread-safe.

    Args:
        max_bytes: of all bodies together; the least recently used go first.
    """

    def __init__(self, max_bytes: int = 64 << 20) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def fresh(self, url: URL, accept: str = "") -> Fetched | None:
        """The kept answer, if it may be used without asking."""
        with self._lock:
            kept = self._kept.get((str(url), accept))
            if kept is None or kept.age + time.time() - kept.at >= kept.lifetime:
                return None
            self._kept.move_to_end((str(url), accept))
            return kept.answer

    def conditions(self, url: URL, accept: str = "") -> dict[str, str]:
        """Headers that ask only for what has changed; none where nothing is kept."""
        with self._lock:
            kept = self._kept.get((str(url), accept))
        if kept is None:
            return {}
        named = {"etag": "If-None-Match", "last-modified": "If-Modified-Since"}
        return {named[key]: value for key, value in kept.answer.headers.items() if key in named}

    def took(self, url: URL, answer: Fetched, asked_at: float, accept: str = "") -> Fetched:
        """Note an answer, if it may be kept; gives what it stands for (after 304, the kept one with new headers)."""
        key = (str(url), accept)
        with self._lock:
            old = self._drop(key)
            if answer.status == 304 and old is not None:
                answer = replace(old.answer, headers={**old.answer.headers, **answer.headers})
            control = _directives(answer.headers.get("cache-control", ""))
            size = len(answer.body)
            vary = {name.strip().lower() for name in answer.headers.get("vary", "").split(",")}
            forbidden = "no-store" in control or "*" in vary or answer.cut or size > self.max_bytes // 4
            if forbidden or answer.status not in _KEPT_STATUSES:
                return answer
            age = _seconds(answer.headers.get("age", "")) or 0.0
            self._kept[key] = _Kept(answer, asked_at, age, _lifetime(answer.headers, control, asked_at))
            self._size += size
            while self._size > self.max_bytes:
                self._drop(next(iter(self._kept)))
        return answer

    def _drop(self, key: tuple[str, str]) -> _Kept | None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._size -= len(kept.answer.body)
        return kept


def _directives(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name:
            found.setdefault(name.lower(), value.strip('" '))
    return found


def _lifetime(headers: Mapping[str, str], control: Mapping[str, str], now: float) -> float:
    """Seconds for which an answer is fresh, RFC 9111, 4.2.1 and 4.2.2."""
    if "no-cache" in control:
        return 0.0
    if "max-age" in control:
        return _seconds(control["max-age"]) or 0.0
    date = _moment(headers.get("date", "")) or now
    if "expires" in headers:
        expires = _moment(headers["expires"])
        return 0.0 if expires is None else max(0.0, expires - date)
    changed = _moment(headers.get("last-modified", ""))
    if changed is None or changed >= date:
        return 0.0
    return min(_HEURISTIC_MOST, _HEURISTIC_SHARE * (date - changed))


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def _moment(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
