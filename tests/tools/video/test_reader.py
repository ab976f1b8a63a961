"""Processes that decode and can be killed; frames shared by all who ask."""

from __future__ import annotations

import array
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import msgspec
import numpy as np
import pytest

from agentenv.errors import DataError, StoreError, ToolError, ToolErrorKind, UsageError, WorkerError
from agentenv.media import DecodeCache, MediaStore
from agentenv.tools.video import DecodePool, Limits, Shape, VideoReader, decode_pool, put_video, reader
from agentenv.tools.video._worker import Reply, Request, answer, serve
from tests.tools.video import clips

RGB = Shape(clips.WIDTH, clips.HEIGHT, "RGB")


@pytest.fixture(scope="module")
def pool() -> Any:
    made = DecodePool(2, 20.0)
    yield made
    made.close()


class World:
    """A store with one video, a cache of its own, and a pool that counts the calls."""

    backend = "pyav"

    def __init__(self, pool: DecodePool, name: str = "mp4", cache_bytes: int = 64 << 20) -> None:
        reader._BOOK.renew()
        self.store, self.cache = MediaStore(), DecodeCache(cache_bytes)
        self.truth = clips.video(name)[1]
        self.sha = put_video(self.store, clips.video(name)[0], pool=pool).sha256
        self.calls: list[Request] = []
        self.inner = pool
        self.reader = VideoReader(self.store, self.cache, self)  # type: ignore[arg-type]  # a pool, for its readers

    def call(self, request: Request, descriptor: int) -> Reply:
        self.calls.append(request)
        return self.inner.call(request, descriptor)

    def numbers(self, times: list[float], shape: Shape = RGB) -> list[int]:
        frames = self.reader.frames(self.sha, times, shape)
        return [clips.number(np.frombuffer(f.data, np.uint8).reshape(f.height, f.width, 3)) for f in frames]

    @property
    def decodes(self) -> int:
        return sum(request.kind == "frames" for request in self.calls)


@pytest.mark.parametrize("name", ["mp4", "vfr mkv", "ts", "edit list", "avi"])
def test_frames_come_right_through_the_process_and_the_cache(pool: DecodePool, name: str) -> None:
    world = World(pool, name)
    times = [0.0, 3.21, 1.5, 1.5, 2.7, 1e9, -1.0]
    expected = [clips.shown(world.truth, max(0.0, at)) for at in times]
    assert world.numbers(times) == expected
    assert world.numbers(times) == expected
    assert world.decodes == 1
    assert world.numbers([2.71, 1.52, 0.001]) == [clips.shown(world.truth, at) for at in (2.71, 1.52, 0.001)]


def test_other_times_of_the_same_frame_are_known(pool: DecodePool) -> None:
    world = World(pool)
    world.numbers([1.0, 2.0])
    assert world.numbers([1.01, 2.03]) == [25, 50]
    assert world.decodes == 1
    assert world.numbers([1.01, 2.05]) == [25, 51]
    assert [len(request.times) for request in world.calls if request.kind == "frames"] == [2, 1]


def test_a_group_decodes_once(pool: DecodePool) -> None:
    world = World(pool)
    times = [k / 3 for k in range(24)]
    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(lambda _: world.numbers(times), range(16)))
    assert all(result == [clips.shown(world.truth, at) for at in times] for result in results)
    assert world.decodes == 1


def test_overlapping_requests_decode_only_what_is_missing(pool: DecodePool) -> None:
    world = World(pool)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda k: world.numbers([k + j / 2 for j in range(4)]), range(8)))
    asked = [time for request in world.calls if request.kind == "frames" for time in request.times]
    assert len(asked) == len(set(asked))


def test_without_a_budget_it_still_works_and_keeps_nothing(pool: DecodePool) -> None:
    world = World(pool, cache_bytes=0)
    assert world.numbers([1.0]) == world.numbers([1.0]) == [25]
    assert world.decodes == 2
    assert world.cache.stats.bytes == 0
    small = World(pool, cache_bytes=200_000)
    for k in range(9):
        small.numbers([k, k + 0.5])
    assert small.cache.stats.bytes <= 200_000
    assert small.cache.stats.evicted > 0


def test_files_on_disk_and_in_memory_read_alike(pool: DecodePool, tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(clips.video("mp4")[0])
    store = MediaStore(tmp_path / "run")
    video = put_video(store, file, pool=pool)
    assert (video.mime, video.width, video.height, video.duration, video.fps) == ("video/mp4", 160, 96, 10.0, 25.0)
    frames = VideoReader(store, DecodeCache(), pool).frames(video.sha256, [4.0], RGB)
    assert frames == World(pool).reader.frames(video.sha256, [4.0], RGB)
    with pytest.raises(DataError, match="cannot be read"):
        put_video(store, tmp_path / "none.mp4", pool=pool)
    with pytest.raises(StoreError):
        VideoReader(MediaStore(), DecodeCache(), pool).info("0" * 64)


def test_stamps_are_read_once(pool: DecodePool) -> None:
    world = World(pool)
    assert len(world.reader.stamps(world.sha)) == len(world.reader.stamps(world.sha)) == 250
    assert [request.kind for request in world.calls] == ["stamps"]
    assert world.reader.info(world.sha).frames == world.reader.info(world.sha).frames == 250


@pytest.mark.parametrize(("data", "words"), [(b"", "empty"), (b"x" * 99, "not a video"), (clips.sound(), "only sound")])
def test_what_is_no_video_is_not_kept(pool: DecodePool, data: bytes, words: str) -> None:
    store = MediaStore()
    with pytest.raises(DataError, match=words):
        put_video(store, data, pool=pool)
    assert not store._memory


def test_no_descriptor_and_no_flight_is_left(pool: DecodePool) -> None:
    World(pool).numbers([1.0])
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        world = World(pool)
        world.numbers([1.0, 5.0])
        world.cache.clear()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
    assert not reader._BOOK.flights


def test_hundreds_of_clips_leave_nothing_behind() -> None:
    """One process, which is never replaced, and no cache; ten thousand are among the figures of tests/bench."""
    own = DecodePool(1, 20.0, recycle=1 << 30)
    world = World(own, cache_bytes=0)

    def held() -> tuple[int, int, int]:
        (worker,) = own.processes()
        files = [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in ("self", worker)]
        return files[0], files[1], int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * 4096

    for number in range(400):
        world.numbers([number % 9, number % 9 + 0.5], Shape(32, 20, "RGB"))
        if number == 100:
            before = held()
    after = held()
    assert (after[0] <= before[0] + 1, after[1]) == (True, before[1])
    assert after[2] < before[2] + (8 << 20)
    own.close()


def test_a_failure_reaches_all_who_asked_for_the_same(pool: DecodePool) -> None:
    world = World(pool)
    world.reader.info(world.sha)
    entered, calls = threading.Event(), []

    def fail(request: Request, descriptor: int) -> Reply:
        calls.append(request)
        entered.set()
        time.sleep(0.3)
        raise DataError("broken")

    world.call = fail  # type: ignore[method-assign]
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(world.numbers, [1.0, 2.0])
        entered.wait()
        others = [threads.submit(world.numbers, [1.0, 2.0]) for _ in range(3)]
        for future in (first, *others):
            with pytest.raises(DataError, match="broken"):
                future.result()
    assert len(calls) == 1
    assert not reader._BOOK.flights


def stalled(pool: DecodePool) -> int:
    """Stop the pool's only process, as a decoder that hangs would; gives its id."""
    (pid,) = pool.processes()
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_a_decoder_that_hangs_is_killed_and_replaced() -> None:
    pool = DecodePool(1, 0.5)
    world = World(pool)
    world.numbers([1.0])
    pid = stalled(pool)
    with pytest.raises(ToolError, match=r"within 0\.5 seconds") as caught:
        world.numbers([5.0])
    assert caught.value.kind is ToolErrorKind.TIMEOUT
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    pool.seconds = 20.0
    assert world.numbers([5.0]) == [125]
    pool.close()


def test_a_decoder_that_works_too_long_ends_itself() -> None:
    pool = DecodePool(1, 20.0)
    world = World(pool)
    world.numbers([1.0])
    pool.seconds = 0.001
    with pytest.raises(ToolError, match="could not be decoded within"):
        world.numbers([k / 25 for k in range(250)], Shape(1600, 960, "PNG"))
    pool.close()


def test_a_decoder_that_crashes_or_runs_out_of_memory_harms_nobody_else() -> None:
    pool = DecodePool(1, 20.0, memory=900 << 20)
    world = World(pool)
    world.numbers([1.0])
    pid = stalled(pool)
    threading.Timer(0.2, os.kill, (pid, signal.SIGSEGV)).start()
    threading.Timer(0.3, os.kill, (pid, signal.SIGCONT)).start()
    with pytest.raises(ToolError, match="broke down"):
        world.numbers([5.0])
    with pytest.raises((ToolError, DataError), match=r"broke down|memory"):
        world.numbers([5.0], Shape(14_000, 14_000, "RGB"))
    assert world.numbers([5.0]) == [125]
    pool.close()


def test_a_worker_that_died_idle_is_replaced_and_workers_are_renewed() -> None:
    pool = DecodePool(1, 20.0, recycle=3)
    world = World(pool)
    (pid,) = pool.processes()
    os.kill(pid, signal.SIGKILL)
    while pool._idle[0].alive:
        time.sleep(0.01)
    assert world.numbers([1.0]) == [25]
    assert world.numbers([2.0]) == [50]
    second = pool.processes()
    assert second != [pid]
    world.numbers([3.0])
    assert world.numbers([4.0]) == [100]
    assert pool.processes() != second
    pool.close()
    with pytest.raises(WorkerError, match="closed"):
        world.numbers([9.0])


def test_a_forked_child_starts_its_own() -> None:
    shared = decode_pool()
    world = World(shared)
    world.numbers([1.0])
    ours = shared.processes()
    with ThreadPoolExecutor(1):  # the child of a process without threads of its own
        pass
    shared._idle[0].forget()
    shared._after_fork()
    assert shared.processes() == []
    for pid in ours:
        os.waitpid(pid, 0)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError):
        DecodePool(seconds=0.0)


def test_a_process_that_cannot_start_is_the_infrastructures_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    pool = DecodePool(1, 5.0)
    with pytest.raises(WorkerError, match="could be started"):
        put_video(MediaStore(), clips.video("mp4")[0], pool=pool)
    assert pool._count == 0


# -- the program of the process, run in a thread -----------------------------------------------------------------------


def ask(control: socket.socket, request: Request, descriptor: int) -> Reply:
    body = msgspec.msgpack.encode(request)
    socket.send_fds(control, [len(body).to_bytes(4, "little")], [descriptor])
    control.sendall(body)
    size = int.from_bytes(control.recv(4, socket.MSG_WAITALL), "little")
    return msgspec.msgpack.decode(control.recv(size, socket.MSG_WAITALL), type=Reply)


def test_the_worker_answers_and_sets_its_alarm(tmp_path: Path) -> None:
    place = tmp_path / "a.mp4"
    place.write_bytes(clips.video("mp4")[0])
    ours, theirs = socket.socketpair()
    alarms: list[float] = []
    thread = threading.Thread(target=serve, args=(theirs, alarms.append))
    thread.start()
    with place.open("rb") as file:
        got = ask(ours, Request("frames", Limits(), 7.0, (1.0,), RGB), file.fileno())
        assert clips.number(np.frombuffer(got.pictures[got.shown[0]], np.uint8).reshape(96, 160, 3)) == 25
        assert len(ask(ours, Request("stamps", Limits(), 7.0), file.fileno()).stamps) == 8 * 250
        probed = ask(ours, Request("probe", Limits(), 7.0), file.fileno()).info
        assert probed is not None
        assert probed.frames == 250
        assert "large" in ask(ours, Request("probe", Limits(pixels=1), 7.0), file.fileno()).error
    ours.close()
    thread.join(5)
    theirs.close()
    assert not thread.is_alive()
    assert alarms == [7.0, 0.0] * 4


def test_a_request_that_is_cut_off_ends_the_worker(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with (tmp_path / "x").open("wb") as file:
        socket.send_fds(ours, [(9).to_bytes(4, "little")], [file.fileno()])
        ours.close()
        with pytest.raises(EOFError), theirs:
            serve(theirs, lambda _: None)


def test_answers_are_plain() -> None:
    with TemporaryFile() as file:
        file.write(clips.video("mp4")[0])
        file.flush()
        reply = answer(Request("stamps", Limits(), 1.0), file.fileno())
    assert array.array("q", reply.stamps)[1] > 0
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(reply), type=Reply) == reply
