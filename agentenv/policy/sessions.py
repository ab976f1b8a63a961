"""HTTP sessions that live as long as their event loop, as `asyncio.run` may be called often and closes none itself."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

import aiohttp


@dataclass(frozen=True)
class Place:
    """What one event loop has: a session, and a slot for each request in flight."""

    session: aiohttp.ClientSession
    slots: asyncio.Semaphore
    keeper: AsyncGenerator[None]


class Sessions:
    """One session per event loop.

    Args:
        make: makes a session, within the running loop.
        concurrency: slots that a loop has.
    """

    def __init__(self, make: Callable[[], aiohttp.ClientSession], concurrency: int) -> None:
        self._make, self._concurrency = make, concurrency
        self._places: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Place] = weakref.WeakKeyDictionary()

    async def here(self) -> Place:
        """The running loop's."""
        loop = asyncio.get_running_loop()
        place = self._places.get(loop)
        if place is None or place.session.closed:
            for ended in [known for known in self._places if known.is_closed() and self._places[known].session.closed]:
                self._places.pop(ended, None)
            session = self._make()
            place = Place(session, asyncio.Semaphore(self._concurrency), _until_the_loop_ends(session))
            await anext(place.keeper)
            self._places[loop] = place
        return place

    async def close(self) -> None:
        """Close the session of this event loop, and those of loops that are closed already."""
        here = asyncio.get_running_loop()
        for loop, place in list(self._places.items()):
            if loop is here or loop.is_closed():
                await place.keeper.aclose()
                del self._places[loop]


async def _until_the_loop_ends(session: aiohttp.ClientSession) -> AsyncGenerator[None]:
    """Closes the session when it is closed itself: by its owner, or by `asyncio.run` at the end of its loop, where
    the session lives and whence nobody could close it later.
    """
    try:
        yield
    finally:
        await session.close()
