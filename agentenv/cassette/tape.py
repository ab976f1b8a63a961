"""The cassette: decides, call by call, whether the world is asked or the recording answers."""

from __future__ import annotations

import asyncio
import difflib
import logging
import os
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, get_args

import msgspec
from msgspec.structs import replace

from agentenv.calling import arun_call
from agentenv.cassette.keys import Asked, asked, environment_secrets
from agentenv.cassette.shelf import Recording, Shelf, media_of
from agentenv.episode import Episode
from agentenv.errors import ConfigError, InfrastructureError, StoreError, ToolError, ToolErrorKind
from agentenv.locks import KeyedLocks
from agentenv.media import MediaStore, media_store
from agentenv.tool import Tool, failure
from agentenv.types import Image, Part, Text, ToolCall, ToolResult, Video

logger = logging.getLogger("agentenv")

Mode = Literal["live", "record", "cache", "replay", "verify"]
"""live: the cassette is not used. record: always ask, and keep the answer. cache: ask what is not kept yet, once for
all who want it. replay: never ask. verify: ask what is kept and compare; the episode is given what is kept."""
Repeat = Literal["first", "sequence", "sample"]
MODES = get_args(Mode)

# Errors that the same call would meet again. Others are kept only for the replay of the very episode that met them.
_LASTING = frozenset({None, ToolErrorKind.FAILED.value, ToolErrorKind.REFUSED.value, "invalid_arguments"})
_PROVISIONAL = re.compile("\ufdd0[0-9]+\ufdd1")
_MOST_HINTS = 2000
_MOST_FAILED = 1000

_encoder = msgspec.json.Encoder()
_results = msgspec.json.Decoder(ToolResult)


class CassetteMiss(InfrastructureError):
    """A replay was asked for something that was never recorded. `tool` and `arguments` say what."""

    permanent = True

    def __init__(self, tool: str, arguments: str, nearest: str = "") -> None:
        self.tool, self.arguments, self.nearest = tool, arguments, nearest
        near = f"; the nearest recording is {_short(nearest)}" if nearest else ""
        super().__init__(f"the cassette holds no answer to {tool} {_short(arguments)}{near}")

    def __reduce__(self) -> tuple[type[CassetteMiss], tuple[str, str, str]]:
        return type(self), (self.tool, self.arguments, self.nearest)


class Cassette:
    """Recorded tool results in a folder, shared by episodes, threads and processes.

    Args:
        path: the folder.
        mode: see `Mode`.
        max_age: in "cache", seconds after which a recording is asked for anew; None for never.
        error_age: the same for recorded errors.
        repeat: in "replay", what an episode is given that was not recorded itself: the "first" recording of the call,
            one after the other for its repeated calls ("sequence"), or one drawn by the episode's seed ("sample").
        on_miss: in "replay": "raise" a `CassetteMiss`, which ends the episode unscored, or "tell" the policy.
        tools: names of the tools that go through it; all by default.

    Raises:
        ConfigError: a setting is none of those.
        UsageError: there is nothing to replay or to verify in the folder.
        StoreError: the folder cannot be opened.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: Mode | str = "cache",
        *,
        max_age: float | None = None,
        error_age: float = 300.0,
        repeat: Repeat | str = "first",
        on_miss: Literal["raise", "tell"] | str = "raise",
        tools: Collection[str] | None = None,
    ) -> None:
        _one_of("mode", mode, MODES)
        _one_of("repeat", repeat, get_args(Repeat))
        _one_of("on_miss", on_miss, ("raise", "tell"))
        for name, age in (("max_age", max_age), ("error_age", error_age)):
            _an_age(name, age)
        self.mode, self.max_age, self.error_age = mode, max_age, error_age
        self.repeat, self.on_miss, self.tools = repeat, on_miss, tools
        self.shelf = Shelf(path, write=mode in ("record", "cache"))
        self.stats: Counter[str] = Counter()
        self.flights = KeyedLocks()  # equal calls of one event loop wait for one another
        self.failed: OrderedDict[str, tuple[float, ToolResult | InfrastructureError]] = OrderedDict()

    async def arun(
        self, tool: Tool, call: ToolCall, bound: Mapping[str, Any], episode: Episode | None = None
    ) -> ToolResult:
        """Run a call through the cassette; `cache` of the result says where it came from.

        Raises:
            CassetteMiss: see `on_miss`.
            InfrastructureError: as `agentenv.calling.arun_call`.
        """
        if self.mode == "live" or (self.tools is not None and tool.name not in self.tools):
            return await arun_call(tool, call, bound)
        started = time.perf_counter()
        try:
            wanted = asked(tool, call, bound, episode)
        except ToolError as error:
            return failure(call, error, time.perf_counter() - started)
        run = _Run(self, tool, call, bound, wanted, started)
        result = await getattr(run, self.mode)()
        self.stats[result.cache] += 1
        return result  # type: ignore[no-any-return]

    async def arun_all(
        self, tools: Mapping[str, Tool], calls: Sequence[ToolCall], bound: Mapping[str, Any], episode: Episode | None
    ) -> Sequence[ToolResult]:
        """Run the calls of a turn at once; see `arun`."""
        return await asyncio.gather(*(self.arun(tools[call.name], call, bound, episode) for call in calls))

    def close(self) -> None:
        """Close the folder."""
        self.shelf.close()

    def __enter__(self) -> Cassette:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Cassette {self.shelf.path}, mode {self.mode}>"


def open_cassette(cassette: str | os.PathLike[str] | Cassette | None, mode: Mode | str = "cache") -> Cassette | None:
    """The cassette at a path, in a mode; a cassette as it is; None for None.

    Raises:
        ConfigError, StoreError: as `Cassette`.
    """
    return cassette if cassette is None or isinstance(cassette, Cassette) else Cassette(cassette, mode)


class _Run:
    """One call on its way through a cassette, a method for each mode."""

    def __init__(
        self, tape: Cassette, tool: Tool, call: ToolCall, bound: Mapping[str, Any], wanted: Asked, started: float
    ) -> None:
        self.tape, self.tool, self.call, self.bound = tape, tool, call, bound
        self.asked, self.started = wanted, started
        self.shelf = tape.shelf

    async def record(self) -> ToolResult:
        return await self._ask("record")

    async def cache(self) -> ToolResult:
        if self.asked.stateful:  # what is kept may have been answered in the place of calls that really ran
            return replace(await self._live(), cache="miss")
        found = self._fresh()
        if found is None:
            async with self.tape.flights.of(self.asked.key):
                found = self._fresh()
                if found is None:
                    if (failed := self._failed_meanwhile()) is not None:
                        return await self._kept(failed, "hit")
                    async with self.shelf.alone(self.asked.key):
                        found = self._fresh()
                        if found is None:
                            return await self._ask_for_all()
        first = self.shelf.nth(self.asked.key, 0)
        if first is None or first.id != found.id:
            self.shelf.use(self.asked, found)
        return self._given(found, "hit")

    def _failed_meanwhile(self) -> ToolResult | None:
        """How the call failed for somebody else while this one waited for it: not everybody waits for a dead server."""
        at, failed = self.tape.failed.get(self.asked.key, (0.0, None))
        if failed is None or at < self.started:
            return None
        if isinstance(failed, InfrastructureError):
            raise failed
        return replace(failed, call_id=self.call.id, seconds=self._seconds)

    async def _ask_for_all(self) -> ToolResult:
        """Ask, and let those who wait for the answer know where there is none that lasts."""
        failed: ToolResult | InfrastructureError | None = None
        try:
            result = await self._ask("miss")
            failed = None if result.error_kind in _LASTING else result
            return result
        except InfrastructureError as error:
            failed = error
            raise
        finally:
            if failed is not None:
                self.tape.failed[self.asked.key] = (time.perf_counter(), failed)
                while len(self.tape.failed) > _MOST_FAILED:
                    self.tape.failed.popitem(last=False)

    async def replay(self) -> ToolResult:
        found = self.shelf.used(self.asked) or self._instead()
        if found is not None:
            return self._given(found, "replay")
        if self.tape.on_miss == "raise":
            known = self.shelf.arguments(self.asked.tool, _MOST_HINTS)
            near = difflib.get_close_matches(self.asked.arguments, known, n=1, cutoff=0.75)
            raise CassetteMiss(self.asked.tool, self.asked.arguments, near[0] if near else "")
        miss = CassetteMiss(self.asked.tool, self.asked.arguments)
        told = ToolError("This cannot be looked up now. Try something else.", ToolErrorKind.UNAVAILABLE)
        logger.warning("%s", miss)
        return replace(failure(self.call, told, self._seconds), cache="missing")

    async def verify(self) -> ToolResult:
        found = self.shelf.used(self.asked) or self._instead()
        if found is None:
            return replace(await self._live(), cache="unverified")
        kept, now = found.result, _settled(await self._live())
        same = (kept.parts, kept.error_kind, kept.stop) == (now.parts, now.error_kind, now.stop)
        if not same:
            logger.warning("%s %s is answered otherwise now", self.asked.tool, _short(self.asked.arguments))
        return self._given(found, "verified" if same else "changed")

    def _instead(self) -> Recording | None:
        """A recording of the call by another episode, as the repeat policy says."""
        if self.tape.repeat == "first":
            return self.shelf.nth(self.asked.key, 0)
        count = self.shelf.count(self.asked.key)
        if not count:
            return None
        drawn = int(self.asked.who[:8] or "0", 16) + self.asked.occurrence
        number = drawn % count if self.tape.repeat == "sample" else min(self.asked.occurrence, count - 1)
        return self.shelf.nth(self.asked.key, number)

    def _fresh(self) -> Recording | None:
        found = self.shelf.newest(self.asked.key)
        if found is None:
            return None
        most = self.tape.max_age
        if found.error is not None:
            most = self.tape.error_age if most is None else min(most, self.tape.error_age)
        return found if most is None or time.time() - found.at < most else None

    async def _live(self) -> ToolResult:
        return await arun_call(self.tool, self.call, self.bound)

    async def _ask(self, told: str) -> ToolResult:
        """Ask the world and keep what it says, before anybody is given it."""
        return await self._kept(await self._live(), told)

    async def _kept(self, result: ToolResult, told: str) -> ToolResult:
        try:
            result = _fit(result)
            await asyncio.to_thread(self._keep, _settled(result))
        except (StoreError, TypeError, ValueError) as error:  # the two latter: rows that are no plain data
            logger.warning("%s is not recorded: %s", self.asked.tool, error)
        return replace(result, cache=told)

    def _keep(self, kept: ToolResult) -> None:
        if names := media_of(kept.parts):
            self._store.save(names, self.shelf.path)
        self.shelf.add(self.asked, kept, lasting=kept.error_kind in _LASTING)

    def _given(self, recording: Recording, told: str) -> ToolResult:
        kept = recording.result
        if media_of(kept.parts):
            self._store.add_root(self.shelf.path)
        spent = {"seconds": self._seconds, "cost": 0.0, "usage": None}
        return replace(kept, call_id=self.call.id, name=self.call.name, cache=told, **spent)

    @property
    def _store(self) -> MediaStore:
        return getattr(self.bound.get("media"), "store", None) or media_store()

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self.started


def _settled(result: ToolResult) -> ToolResult:
    """A result as it is kept: provisional handles counted from 0, so that equal results are equal; no traceback."""
    names: dict[str, str] = {}

    def final(text: str) -> str:
        return _PROVISIONAL.sub(lambda found: names.setdefault(found[0], f"\ufdd0{len(names)}\ufdd1"), text)

    parts: list[Part] = []
    for part in result.parts:
        if isinstance(part, (Image, Video)) and "\ufdd0" in part.handle:
            part = replace(part, handle=final(part.handle))
        elif isinstance(part, Text) and "\ufdd0" in part.text:
            part = replace(part, text=final(part.text))
        parts.append(part)
    return replace(result, call_id="", parts=tuple(parts), bug=None, cache="")


def _fit(result: ToolResult) -> ToolResult:
    """A result as it can be written down: without this process's secrets, and without half characters."""
    try:
        data = _encoder.encode(result)
    except UnicodeEncodeError:
        data = _encoder.encode(_whole(msgspec.to_builtins(result)))
        result = _results.decode(data)
    found = [secret for secret in map(_written, environment_secrets()) if secret in data]
    for secret in found:
        data = data.replace(secret, b"***")
    return _results.decode(data) if found else result


def _written(secret: str) -> bytes:
    return _encoder.encode(secret.encode("utf-8", "replace").decode())[1:-1]


def _whole(value: Any) -> Any:
    """Plain data whose texts can be written as UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, (list, tuple)) else value


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:197] + "..."


def _an_age(name: str, value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and not (number and value >= 0):
        raise ConfigError(f"a cassette's {name} is a number of seconds, 0 or more, not {value!r}")


def _one_of(name: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise ConfigError(f"a cassette's {name} is {', '.join(known)}, not {value!r}")
