"""One cassette, several processes: at once, and killed in the middle."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import agentenv
from agentenv.cassette import Cassette, Shelf, lint
from agentenv.trajectories.run import Run
from tests.cassette.oracle import Oracle, asking
from tests.conftest import ROOT

PLAY = """
import sys, agentenv
from tests.cassette.oracle import Oracle, asking
oracle = Oracle(0.05)
world = oracle.world(8)
run = agentenv.rollout(world, asking("a {}", "b {}"), group=4, concurrency=32, out=sys.argv[2], seed=int(sys.argv[4]),
                       cassette=sys.argv[1], cassette_mode=sys.argv[3])
print(len(oracle.asked))
"""
WRITE = """
import asyncio, sys
from agentenv.cassette import Cassette
from agentenv.types import ToolCall
from tests.cassette.oracle import Oracle
tape, tool = Cassette(sys.argv[1], "cache"), Oracle().tool()
async def main():
    for i in range(int(sys.argv[2]), 10**9):
        await tape.arun(tool, ToolCall("1", "look_up", "", {"query": f"{i} " + "x" * 3000}), {})
        print(i, flush=True)
asyncio.run(main())
"""


def start(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def seen(run: Run) -> dict[tuple[str, int], list[str]]:
    return {(record.task.id, record.group.index): [message.text for message in record.messages] for record in run}


def test_two_processes_share_a_cache_ask_once_and_replay_to_the_byte(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    processes = [start(PLAY, tape, tmp_path / f"run{i}", "cache", i) for i in range(2)]
    counts = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum(counts) == 16, "each of the sixteen questions is asked by one process, once"
    assert len(list(Shelf(tape, write=False).all())) == 16
    for i in range(2):
        again = Oracle()
        replayed = agentenv.rollout(
            again.world(8), asking("a {}", "b {}"), group=4, seed=i, cassette=tape, cassette_mode="replay"
        )
        assert seen(replayed) == seen(agentenv.load(tmp_path / f"run{i}"))
        assert again.asked == []


def test_two_processes_may_record_and_replay_at_once(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    recording = [start(PLAY, tape, tmp_path / f"run{i}", "record", i) for i in range(2)]
    assert [int(process.communicate(timeout=60)[0]) for process in recording] == [64, 64]
    replaying = [start(PLAY, tape, tmp_path / f"again{i}", "replay", i) for i in range(2)]
    assert [int(process.communicate(timeout=60)[0]) for process in replaying] == [0, 0]
    for i in range(2):
        assert seen(agentenv.load(tmp_path / f"again{i}")) == seen(agentenv.load(tmp_path / f"run{i}"))


def test_a_killed_process_loses_nothing_that_it_was_given(tmp_path: Path) -> None:
    moments = random.Random(0)
    tape = tmp_path / "tape"
    promised: set[int] = set()
    for attempt in range(5):
        with start(WRITE, tape, attempt * 1000) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(moments.random() * 0.1)
            process.kill()
            promised |= {attempt * 1000} | {int(line) for line in process.stdout.read().split(b"\n")[:-1]}
        kept = {
            int(recording.arguments.split('"query":"')[1].split()[0]) for recording in Shelf(tape, write=False).all()
        }
        assert promised <= kept
        assert list(lint(tape)) == []


def test_the_lock_of_a_killed_process_is_given_back(tmp_path: Path) -> None:
    script = PLAY.replace("Oracle(0.05)", "Oracle(60)")
    process = start(script, tmp_path / "tape", tmp_path / "run", "cache", 0)
    while not (tmp_path / "tape" / "locks").exists():
        time.sleep(0.05)
        assert process.poll() is None
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    oracle = Oracle()
    run = agentenv.rollout(oracle.world(8), asking("a {}"), cassette=tmp_path / "tape", cassette_mode="cache")
    assert len(oracle.asked) == 8
    assert all(record.stop_reason == "answer" for record in run)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_opens_the_file_anew(tmp_path: Path) -> None:
    with Cassette(tmp_path / "tape") as tape:
        before = tape.shelf._connection
        child = os.fork()
        if child == 0:  # pragma: no cover
            found = tape.shelf.newest("0" * 64)
            os._exit(0 if found is None and tape.shelf._connection is not before else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_cassette_that_cannot_be_written_can_be_replayed(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    recorded = agentenv.rollout(Oracle().world(1), asking("a"), cassette=tape, cassette_mode="record")
    for path in (*tape.iterdir(), tape):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        replayed = agentenv.rollout(Oracle().world(1), asking("a"), cassette=tape, cassette_mode="replay")
    finally:
        tape.chmod(0o755)
    assert seen(replayed) == seen(recorded)
