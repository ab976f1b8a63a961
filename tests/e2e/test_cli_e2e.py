"""The command line as people use it: real processes, real signals, a real terminal, a real model server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import agentenv
from agentenv.types import StopReason
from tests.e2e.helpers import (
    PATIENCE,
    SLOW,
    Terminal,
    environment,
    journal_lines,
    model_server,
    ran,
    started,
    until,
)
from tests.policy.chat_server import completion, delta, stream


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A working directory with a slow environment in it."""
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    return tmp_path


def attempts(run: Path) -> list[tuple[str, int]]:
    return sorted((record.task.id, record.group.index) for record in agentenv.load(run))


def test_help_says_what_there_is_and_how_it_ends(tmp_path: Path) -> None:
    told = ran(tmp_path, "--help")
    assert told.returncode == 0
    for name in ("list", "info", "check", "new", "play", "chat", "rollout", "demo", "stats", "score", "export"):
        assert f"│ {name} " in told.stdout
    assert "--install-completion" in told.stdout
    assert "130 interrupted" in " ".join(told.stdout.split())
    assert ran(tmp_path, "--version").stdout.strip() == agentenv.__version__


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from agentenv.cli import main; main(['--help']);"
        "print(sorted({'torch', 'pandas', 'duckdb', 'aiohttp', 'pydantic', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.stdout.splitlines()[-1], done.stderr) == ("[]", "")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["rolout"], "Did you mean"),
        (["rollout", "table", "--polcy", "reference"], "--policy"),
        (["info", "tabel"], 'did you mean "table"'),
        (["rollout", "table", "-p", "referense"], 'did you mean "reference"'),
        (["stats", "nowhere"], "there is no run at nowhere"),
        (["info", "no.such:thing"], "no module"),
    ],
)
def test_a_wrong_word_gives_the_right_one_and_code_2(tmp_path: Path, arguments: list[str], hint: str) -> None:
    told = ran(tmp_path, *arguments)
    assert told.returncode == 2
    assert hint in told.stderr
    assert "Traceback" not in told.stderr
    assert told.stdout == ""


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    assert "Traceback" in ran(tmp_path, "info", "tabel", "--debug").stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_flags(tmp_path: Path, shell: str) -> None:
    told = ran(tmp_path, "--install-completion", "--shell", shell, "--output", "completion", home=str(tmp_path))
    assert told.returncode == 0, told.stderr
    script = (tmp_path / "completion").read_text()
    assert "rollout" in script
    assert "policy-option" in script


def test_a_pipe_that_closes_early_is_no_trouble(tmp_path: Path) -> None:
    command = f"{sys.executable} -m agentenv.cli info table --json | head -c 10"
    told = subprocess.run(
        command, shell=True, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert told.stderr == ""


def test_ctrl_c_keeps_what_is_done_and_the_printed_command_plays_the_rest(slow: Path) -> None:
    settings = ("-p", "reference", "--group", "2", "--concurrency", "2", "--out", "run", "--seed", "5")
    with started(slow, "rollout", "slow:slow", *settings) as playing:
        until(lambda: journal_lines(slow / "run") >= 6)
        playing.send_signal(signal.SIGINT)
        out, errors = playing.communicate(timeout=PATIENCE)
    assert playing.returncode == 130
    assert "Traceback" not in errors
    kept = attempts(slow / "run")
    assert 6 <= len(kept) < 80
    assert "interrupted" in out
    resume = out.split("go on with:")[1].strip()
    assert resume == "agentenv rollout --config run/config.toml --resume"
    again = ran(slow, *resume.split()[1:], "--json", "--concurrency", "16")
    facts = json.loads(again.stdout)
    assert (again.returncode, facts["before"], facts["played"]) == (0, len(kept), 80 - len(kept))
    assert attempts(slow / "run") == sorted((f"sum-{i}", k) for i in range(40) for k in range(2))


def test_a_second_ctrl_c_ends_at_once(slow: Path) -> None:
    stuck = SLOW.replace("time.sleep(0.02)", "time.sleep(20)")
    (slow / "slow.py").write_text(stuck, encoding="utf-8")
    with started(slow, "rollout", "slow:slow", "-p", "reference", "--out", "run") as playing:
        until(lambda: (slow / "run" / "config.toml").exists())
        time.sleep(0.5)  # let it get into the tool
        playing.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            playing.wait(1)  # a thread is still in the tool
        playing.send_signal(signal.SIGINT)
        assert playing.wait(10) == 130
        assert "Traceback" not in playing.communicate()[1]


def test_kill_9_loses_only_the_episodes_in_flight(slow: Path) -> None:
    with started(slow, "rollout", "slow:slow", "-p", "reference", "--concurrency", "2", "--out", "run") as playing:
        until(lambda: journal_lines(slow / "run") >= 5)
        playing.kill()
        playing.communicate()
    kept = attempts(slow / "run")
    assert 5 <= len(kept) < 40
    again = ran(slow, "rollout", "--config", "run/config.toml", "--resume", "--json")
    facts = json.loads(again.stdout)
    assert (facts["before"], facts["played"]) == (len(kept), 40 - len(kept))
    assert attempts(slow / "run") == sorted((f"sum-{i}", 0) for i in range(40))


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(slow: Path) -> None:
    told = ran(slow, "rollout", "slow:slow", "-p", "reference", "--tasks", "5", "--out", "run")
    assert told.stderr.strip().splitlines()[-1].startswith("slow:slow / reference: 5/5 episodes, episodes/s ")
    assert ran(slow, "rollout", "slow:slow", "-p", "random", "--tasks", "5", "--out", "b", "--quiet").stderr == ""


def test_progress_is_live_at_a_terminal(slow: Path) -> None:
    settings = ("-p", "reference", "--tasks", "20", "--concurrency", "1", "--out", "run")
    terminal = Terminal(slow, "rollout", "slow:slow", *settings)
    early = terminal.wait_for("left")  # the time that is left is told while it runs
    assert "episodes/s" in early
    assert "20/20" not in early
    terminal.wait_for("20/20")
    assert terminal.ended() == 0
    assert "done: 20 of 20 episodes in run" in terminal.screen


def test_play_at_a_terminal(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "play", "table", "--task", "3", "--out", "mine")
    terminal.wait_for("> ")
    terminal.type("table_query SELECT count(*) AS n FROM countries")
    terminal.wait_for("(1 row)")
    terminal.type("table_hed countries")
    terminal.wait_for('did you mean "table_head"')
    terminal.type("answer 42")
    terminal.wait_for("reward: ")
    assert terminal.ended() == 0
    record = agentenv.load(tmp_path / "mine")[0]
    assert (record.policy.name, record.answer, len(record.tool_runs)) == ("human", "42", 1)


def test_leaving_play_is_no_failure(tmp_path: Path) -> None:
    told = ran(tmp_path, "play", "tests.worlds:sums", input="/quit\n")
    assert told.returncode == 0
    assert "nothing is scored" in told.stdout


def test_demo_twice(tmp_path: Path) -> None:
    assert ran(tmp_path, "demo", "--tasks", "2", "--group", "1").returncode == 0
    told = ran(tmp_path, "demo", "--tasks", "6", "--group", "2")
    assert told.returncode == 0, told.stderr
    assert "One episode of the weak policy" in told.stdout
    for path in ("runs/demo/run-expert", "runs/demo/run-weak", "runs/demo/sft", "runs/demo/grpo"):
        assert path in told.stdout
    rows = [json.loads(line) for line in (tmp_path / "runs/demo/sft/train.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    assert rows[0]["messages"][-1]["role"] == "assistant"
    assert len((tmp_path / "runs/demo/grpo/train.jsonl").read_text().splitlines()) == 12
    for name, tasks, least in (("sft-zoom", 4, 8), ("sft-video", 3, 3 * 16 + 5)):
        seeing = [json.loads(line) for line in (tmp_path / f"runs/demo/{name}/train.jsonl").read_text().splitlines()]
        assert len(seeing) == tasks
        parts = [part for row in seeing for message in row["messages"] for part in message["content"]]
        pictures = {part["image"] for part in parts if part["type"] == "image"}
        assert len(pictures) >= least
        assert all((tmp_path / "runs/demo" / name / picture).stat().st_size > 1000 for picture in pictures)


def test_demo_leaves_foreign_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    told = ran(tmp_path, "demo", "--out", "mine")
    assert told.returncode == 2
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_new_environment_works_and_so_does_its_test(tmp_path: Path) -> None:
    assert ran(tmp_path, "new", "env", "my-market").returncode == 0
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_market.py"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert "5 passed" in done.stdout, done.stdout
    assert ran(tmp_path, "check", "my_market:my_market").returncode == 0


def looks_up(request: dict[str, Any]) -> dict[str, Any]:
    """A model that looks once, then answers with what it saw."""
    last = request["messages"][-1]
    if last["role"] == "tool":
        return completion(f"It says: {last['content']}")
    call = {"name": "table_query", "arguments": '{"sql": "SELECT sum(price) AS total FROM sales"}'}
    said = {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "function": call}]}
    return completion(said, "tool_calls")


@pytest.fixture
def sales(tmp_path: Path) -> Path:
    (tmp_path / "sales.csv").write_text("item,price\ntea,3\ncake,4\n", encoding="utf-8")
    return tmp_path


def test_chat_asks_before_calls_and_keeps_one_record_a_conversation(sales: Path) -> None:
    with model_server() as server:
        server.answer = looks_up
        terminal = Terminal(sales, "chat", "--table", "sales.csv", "-p", "openai:m", "--base-url", server.url,
                            "--ask", "--out", "talk")  # fmt: skip
        terminal.wait_for("you> ")
        terminal.type("How much?")
        terminal.wait_for("run it?")
        terminal.type("no")
        asked_again(terminal, "did not allow")
        terminal.type("Please, how much?")
        terminal.wait_for("run it?")
        terminal.type("edit")
        terminal.wait_for("arguments as JSON")
        terminal.type('{"sql": "SELECT max(price) AS top FROM sales"}')
        asked_again(terminal, "| 4 |")
        terminal.type("/new")
        terminal.wait_for("you> ")
        terminal.type("And now?")
        terminal.wait_for("run it?")
        terminal.type("always")
        asked_again(terminal, "| 7 |")
        terminal.type("/quit")
        assert terminal.ended() == 0
    first, second = sorted(agentenv.load(sales / "talk"), key=lambda record: record.started)
    assert [run.error_kind for run in first.tool_runs] == ["denied", None]
    assert [message.role for message in first.messages].count("user") == 2
    assert first.messages[-1].text.startswith("It says: (The person changed the arguments")
    assert (first.reward, first.stop_reason, second.stop_reason) == (None, "answer", "answer")
    assert "item TEXT, price INTEGER" in server.requests[0]["messages"][1]["content"]


def test_chat_streams(sales: Path) -> None:
    with model_server() as server:
        server.faults.append(stream(delta("It "), delta("is \x1b[31m"), delta("seven.", finish="stop")))
        told = ran(sales, "chat", "-p", "openai:m", "--base-url", server.url, input="How much?\n")
    assert told.returncode == 0
    assert "It is \\x1b[31mseven." in told.stdout
    assert server.requests[0]["stream"] is True


def asked_again(terminal: Terminal, after: str) -> None:
    """Wait for a text and the prompt after it, which may come with it or by itself."""
    if "you> " not in terminal.wait_for(after).rpartition(after)[2]:
        terminal.wait_for("you> ")


def test_ctrl_c_stops_an_answer_and_not_the_chat(sales: Path) -> None:
    with model_server() as server:
        server.delay = 30.0
        terminal = Terminal(sales, "chat", "-p", "openai:m", "--base-url", server.url, "--out", "talk")
        terminal.wait_for("you> ")
        terminal.type("How much?")
        until(lambda: server.requests)
        terminal.press(b"\x03")
        asked_again(terminal, StopReason.CANCELLED.value)
        server.delay = 0.0
        terminal.type("Still there?")
        asked_again(terminal, "hello")
        terminal.press(b"\x03")
        assert terminal.ended() == 130
    assert [record.stop_reason for record in agentenv.load(sales / "talk")] == ["answer"]


def test_a_model_that_is_not_there_leaves_a_run_that_says_so(tmp_path: Path) -> None:
    told = ran(tmp_path, "rollout", "tests.worlds:sums", "-p", "openai:m", "--base-url", "http://127.0.0.1:9/v1",
               "-P", "retries=0", "--tasks", "3", "--attempts", "1", "--out", "run")  # fmt: skip
    assert told.returncode == 1
    assert "3 episodes unscored: PolicyError" in told.stderr
    assert "agentenv rollout --config run/config.toml --resume" in told.stdout
    assert [record.reward for record in agentenv.load(tmp_path / "run")] == [None] * 3
