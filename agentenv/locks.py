"""Locks by name, for the tasks of one event loop: equal work is done once, and the others wait for it."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Hashable


class KeyedLocks:
    """A lock for each key and event loop. One that nobody holds or waits for is forgotten."""

    def __init__(self) -> None:
        self._locks: weakref.WeakValueDictionary[tuple[int, Hashable], asyncio.Lock] = weakref.WeakValueDictionary()

    def of(self, key: Hashable) -> asyncio.Lock:
        """The lock of a key in the running loop. Use it at once: `async with locks.of(key): ...`."""
        place = (id(asyncio.get_running_loop()), key)
        lock = self._locks.get(place)
        if lock is None:
            lock = self._locks[place] = asyncio.Lock()
        return lock
