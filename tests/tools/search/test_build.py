"""Things that are made once, by several processes at once, and by ones that die."""

from __future__ import annotations

import io
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentenv.errors import StoreError
from agentenv.tools.search.build import ShownProgress, cache_folder, counted, made_once


def _slowly(folder: str) -> None:
    def make(place: Path) -> None:
        with (Path(folder) / "made").open("a") as file:
            file.write("x")
        (place / "a").write_text("1")
        time.sleep(0.2)
        (place / "b").write_text("2")

    found = made_once(Path(folder) / "index", make)
    assert sorted(file.name for file in found.iterdir()) == ["a", "b"]


def test_of_several_processes_one_makes_it_and_all_find_it_whole(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=_slowly, args=(str(tmp_path),)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "made").read_text() == "x"


def test_who_waits_for_another_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def make(place: Path) -> None:
        begun.set()
        assert go_on.wait(10)

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(made_once, tmp_path / "index", make)
        assert begun.wait(10)
        second = threads.submit(made_once, tmp_path / "index", make)
        while not caplog.messages and not second.done():
            time.sleep(0.01)
        go_on.set()
        assert first.result() == second.result()
    assert caplog.messages == ["another process makes the search data index; this one waits for it"]


def test_what_fails_leaves_nothing_and_can_be_made_later(tmp_path: Path) -> None:
    def fail(place: Path) -> None:
        (place / "half").write_text("x")
        raise KeyError("interrupted")

    with pytest.raises(KeyError):
        made_once(tmp_path / "index", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["index.lock"]
    assert list(made_once(tmp_path / "index", lambda place: None).iterdir()) == []


def test_the_remains_of_a_process_that_died_are_swept_away(tmp_path: Path) -> None:
    (tmp_path / "index.part").mkdir()
    (tmp_path / "index.part" / "half").write_text("x")
    assert list(made_once(tmp_path / "index", lambda place: None).iterdir()) == []
    assert not (tmp_path / "index.part").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"cannot be written.*AGENTENV_CACHE"):
        made_once(tmp_path / "file" / "index", lambda place: None)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AGENTENV_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder("search") == Path.home() / ".cache" / "agentenv" / "search"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "agentenv"
    monkeypatch.setenv("AGENTENV_CACHE", str(tmp_path / "own"))
    assert cache_folder("a", "b") == tmp_path / "own" / "a" / "b"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_short_work_is_not_shown_and_long_work_is() -> None:
    quick, slow, live = io.StringIO(), io.StringIO(), Terminal()
    for stream, every in ((quick, 60.0), (slow, 0.0)):
        assert list(counted(range(5), "reading", None, ShownProgress(every, stream), every=2)) == [0, 1, 2, 3, 4]
    assert quick.getvalue() == ""
    assert slow.getvalue() == "reading: 2\nreading: 4\nreading: 5 of 5\n"
    shown = ShownProgress(stream=live)
    shown("reading", 1, 9)
    assert live.getvalue() == ""
    shown._next = 0.0
    shown("reading", 2, 9)
    shown("reading", 3, 9)
    shown("reading", 9, 9)
    assert live.getvalue() == "\rreading: 2 of 9\rreading: 9 of 9\n"
