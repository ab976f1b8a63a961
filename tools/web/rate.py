"""Politeness: how often a host is asked."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import OrderedDict

from msgspec import Struct

from agentenv.errors import ConfigError

_MOST_HOSTS = 4096


class Rate(Struct, frozen=True):
    """A token bucket.

    Args:
        per_second: requests a second in the long run.
        burst: requests that may come at once after a pause.

    Raises:
        ConfigError: no request would ever be sent.
    """

    per_second: float
    burst: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.per_second < math.inf or self.burst < 1:
            raise ConfigError("rate: more than 0 requests a second, and at least 1 at once; None for no limit")


class Turns:
    """Gives each host's requests their turns, in all threads and event loops of the process.

    An own one, as aiolimiter's buckets belong to one event loop each, and sync callers start many.

    Args:
        rate: of every host; None lets all go at once.
    """

    def __init__(self, rate: Rate | None) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        # The time at which a host's bucket would be full again (the "theoretical arrival time" of GCRA), and the
        # time before which it asked not to be asked.
        self._full: OrderedDict[str, float] = OrderedDict()
        self._closed: dict[str, float] = {}
        self._gaps: dict[str, float] = {}

    def reserve(self, host: str) -> float:
        """Take the next turn; gives the seconds until then."""
        now = time.monotonic()
        with self._lock:
            wait = self._closed.get(host, 0.0) - now
            gap = self._gaps.get(host, 1 / self._rate.per_second if self._rate else 0.0)
            if gap > 0:
                burst = self._rate.burst if self._rate and host not in self._gaps else 1
                full = max(self._full.get(host, 0.0), now, now + wait) + gap
                self._full[host] = full
                self._full.move_to_end(host)
                if len(self._full) > _MOST_HOSTS:
                    gone, _ = self._full.popitem(last=False)
                    self._gaps.pop(gone, None)
                    self._closed.pop(gone, None)
                wait = max(wait, full - burst * gap - now)
        return max(0.0, wait)

    async def wait(self, host: str) -> None:
        """Wait for the next turn."""
        seconds = self.reserve(host)
        if seconds > 0:
            await asyncio.sleep(seconds)

    def held(self, host: str) -> float:
        """For how many seconds more the host wants to be left alone."""
        with self._lock:
            return max(0.0, self._closed.get(host, 0.0) - time.monotonic())

    def hold(self, host: str, seconds: float) -> None:
        """The host asked to be left alone for so long: nobody asks it before."""
        with self._lock:
            self._closed[host] = max(self._closed.get(host, 0.0), time.monotonic() + seconds)

    def slow_down(self, host: str, gap: float) -> None:
        """The host wants so many seconds between requests."""
        with self._lock:
            usual = 1 / self._rate.per_second if self._rate else 0.0
            if gap > usual:
                self._gaps[host] = gap
