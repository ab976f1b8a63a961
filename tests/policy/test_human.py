"""A person at the terminal, played by lines that are given, by a pipe and by a pseudo-terminal."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from agentenv.policy import HumanPolicy, PersonLeftError
from agentenv.policy.human import LineReader, shown
from agentenv.types import Action, Image, Message, Observation, Table, Text, ToolSpec, Video
from tests.policy.words import seen


def person(*lines: str) -> tuple[HumanPolicy, list[str]]:
    given, written = iter(lines), list[str]()

    async def read(prompt: str) -> str:
        line = next(given, None)
        if line is None:
            raise EOFError
        return line

    return HumanPolicy(read, written.append), written


async def answered(*lines: str, observation: Observation | None = None) -> Action:
    return await person(*lines)[0].act(observation or seen())


async def test_text_ends_at_an_empty_line_or_at_the_end() -> None:
    assert (await answered("", "  ", "one", " two", "", "three")).text == "one\n two"
    assert (await answered("one", "two")).text == "one\ntwo"


async def test_shortcuts_write_in_the_dialect_of_the_conversation() -> None:
    call = await answered('/table_query {"sql": "SELECT 1", "limit": 2}')
    assert (
        call.text == '<tool_call>\n{"name": "table_query", "arguments": {"sql": "SELECT 1", "limit": 2}}\n</tool_call>'
    )
    assert (await answered("/table_query SELECT 1")).text.endswith('{"sql": "SELECT 1"}}\n</tool_call>')
    native = await answered("/table_head cities", observation=seen(dialect="native"))
    assert [(c.name, c.arguments) for c in native.calls] == [("table_head", {"table": "cities"})]
    broken = await answered('/table_head {"table"', observation=seen(dialect="native"))
    assert broken.calls[0].arguments is None
    assert (await answered("/table_head", observation=seen(dialect="native"))).calls[0].arguments == {}
    assert (await answered("/answer  Oslo ")).text == "<answer>Oslo</answer>"
    several = ToolSpec("two", "Two texts.", {"properties": {"a": {"type": "string"}, "b": {"type": "string"}}})
    unclear = await answered("/two text", observation=seen(dialect="native", tools=(several,)))
    assert unclear.calls[0].error


async def test_help_tools_and_slips_of_the_keyboard() -> None:
    policy, written = person("/help", "/tools", "/table_qery x", "/answer 3")
    assert (await policy.act(seen())).text == "<answer>3</answer>"
    said = "\n".join(written)
    assert said.count("/TOOL") == 4
    assert "/table_query (sql, limit): Run SQL over the tables." in said
    assert 'did you mean "table_query" or' in said
    policy, written = person('/table_query {"sql": "x", "limit": 2}', "/answer 3")
    await policy.act(seen(dialect="tags"))
    assert any(line.startswith("That cannot be said here: ") for line in written)
    policy, written = person("/tools", "/answer 3")
    await policy.act(seen(tools=()))
    assert "(no tools now)" in written


async def test_only_what_is_new_is_shown() -> None:
    policy, written = person("hi", "", "ho")
    await policy.act(seen())
    assert [text for text in written if text.startswith("[")] == ["[system]\nAnswer.", "[user]\nWhich city is largest?"]
    written.clear()
    result = Message("tool", (Table("a\n1", ("a",), ((1,),), 1),), name="table_query")
    await policy.act(seen(Message("user", (Text("q"),)), Message("assistant", (Text("hi"),)), result, new=1))
    assert written == ["[tool (table_query)]\na\n1"]
    media = (
        Text("see"),
        Image("ab" * 32, "image/png", 4, 3, "image_1"),
        Video("cd" * 32, "video/mp4", 8, 6, 1.0, 25.0),
    )
    lines = ["[user]", "see", "[image image_1, 4 x 3]", "[video cdcdcdcdcdcd, 8 x 6]"]
    assert shown(Message("user", media)) == "\n".join(lines)


async def test_giving_up_is_clean() -> None:
    for lines in ((), ("/quit",), ("", "/help")):
        with pytest.raises(PersonLeftError, match="gave up"):
            await answered(*lines)


async def test_episodes_take_turns() -> None:
    busy, most = 0, 0

    async def read(prompt: str) -> str:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.001)
        busy -= 1
        return "/answer x"

    policy = HumanPolicy(read, lambda text: None)
    await asyncio.gather(*(policy.act(seen()) for _ in range(5)))
    assert most == 1


async def test_lines_of_a_pipe_are_read_and_none_is_lost() -> None:
    there, here = os.pipe()
    shown_text = io.StringIO()
    with os.fdopen(there) as source, os.fdopen(here, "w") as sink:
        read = LineReader(source, shown_text)
        waiting = asyncio.create_task(read("> "))
        await asyncio.sleep(0.02)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        sink.write("first\r\nsecond\n")
        sink.flush()
        assert [await read("> "), await read("> ")] == ["first", "second"]
        sink.close()
        with pytest.raises(EOFError):
            await read("> ")
    assert shown_text.getvalue() == "> " * 4
    source.close()
    with pytest.raises(EOFError):
        await LineReader(source, shown_text)("> ")


SCRIPT = """
import asyncio, sys
from agentenv.policy import HumanPolicy
from agentenv.types import Budget, Message, Observation, Text
policy = HumanPolicy()
said = Observation((Message("user", (Text("Which?"),)),), (), Budget(), dialect="hermes")
print(repr(asyncio.run(policy.act(said)).text))
"""


def test_ctrl_c_passes_and_does_not_wait_for_enter() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    seen_prompt = _until(process.stdout.read, "> ")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert "Which?" in seen_prompt
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors


def test_the_terminal_works() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input="one\ntwo\n\n", capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.endswith("'one\\ntwo'\n")


def _until(read: Callable[[int], str], end: str) -> str:
    got = ""
    timer = threading.Timer(30, lambda: None)
    while not got.endswith(end):
        piece = read(1)
        assert piece, got
        got += piece
    timer.cancel()
    return got


async def test_a_person_is_shown_frames_of_a_video_together() -> None:
    looked: list[object] = []

    async def read(prompt: str) -> str:
        return "/answer x"

    def frame(second: float, of: str = "v") -> Image:
        return Image(f"{of}{second}", "image/jpeg", 8, 8, "", {"op": "frame", "from": of, "time": second})

    video = Video("v", "video/mp4", 8, 8, 9.0, 1.0, "video_1", times=(1.0, 2.0), frames=("a", "b"))
    picture = Image("p", "image/png", 8, 8, "image_1")
    parts = (video, Text("?"), picture, Text("<3.0 seconds>"), frame(3.0), Text("<4.0 seconds>"), frame(4.0))
    written: list[str] = []
    policy = HumanPolicy(read, written.append, look=looked.append)
    await policy.act(seen(Message("user", (*parts, frame(1.0, "w")))))
    assert looked == [video.images(), picture, (frame(3.0), frame(4.0)), (frame(1.0, "w"),)]
    assert "[video video_1, 8 x 8, frames at 1.0, 2.0 seconds]" in "\n".join(written)
