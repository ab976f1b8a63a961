"""`agentenv chat`, called as a function of its arguments, against a real server on loopback and scripted policies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import agentenv
from agentenv.cli.toolbox import TOOLS, make_tools
from agentenv.envs.mm_search import ALL_TOOLS as PICTURE_TOOLS
from agentenv.envs.video.toolbox import NAMES as FILM_TOOLS
from agentenv.tools import table
from agentenv.types import Image, Video
from tests.e2e.helpers import model_server
from tests.pictures import encoded, photo
from tests.policy.chat_server import ChatServer, completion, status
from tests.policy.smollm import smollm_folder
from tests.shell import Result, Shell
from tests.tools.video import clips

TABLE_TOOLS = [value for value in vars(table).values() if isinstance(value, agentenv.Tool)]


def looks_up(request: dict[str, Any]) -> dict[str, Any]:
    if request["messages"][-1]["role"] == "tool":
        return completion(f"It says: {request['messages'][-1]['content']}")
    call = {"name": "table_query", "arguments": '{"sql": "SELECT sum(price) AS total FROM sales"}'}
    said = {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "function": call}]}
    return completion(said, "tool_calls")


def talk(sh: Shell, server: ChatServer, *more: str, typed: str) -> Result:
    Path("sales.csv").write_text("item,price\ntea,3\ncake,4\n")
    return sh("chat", "-p", "openai:m", "--base-url", server.url, "--table", "sales.csv", *more, typed=typed)


def test_chat_shows_calls_and_results(sh: Shell) -> None:
    with model_server() as server:
        server.answer = looks_up
        told = talk(sh, server, "--system", "Be brief.", "--out", "talk", typed="How much?\n\n/tools\n/help\nAgain?\n")
    assert '-> table_query {"sql":"SELECT sum(price) AS total FROM sales"}' in told.out
    assert "   | 7 |" in told.out
    assert "table_values: Show the distinct values" in told.out
    (record,) = agentenv.load("talk")
    assert [m.role for m in record.messages] == ["system", *["user", "assistant", "tool", "assistant"] * 2]
    assert record.messages[0].text.startswith("Be brief.")
    rows = sh("export", "talk", "-f", "trl-sft", "--out", "sft", "--json").json
    assert rows["written"] == 1


def test_chat_asks_and_takes_no_edits_that_are_wrong(sh: Shell) -> None:
    with model_server() as server:
        server.answer = looks_up
        said = [
            "One?",
            "maybe",
            "n",
            "Two?",
            "e",
            '{"sq": 1}',
            "not json",
            '{"sql": "SELECT 5 AS five"}',
            "Three?",
            "e",
            "",
        ]
        told = talk(
            sh, server, "--ask", "--out", "talk", typed="\n".join([*said, "Four?", "a", "Five?", "/new", "Six?"])
        )
    assert 'did you mean "sql"' in told.out
    assert "The person changed the arguments" in told.out
    first, second = sorted(agentenv.load("talk"), key=lambda record: record.started)
    assert [run.error_kind for run in first.tool_runs] == ["denied", None, None, None, None]
    assert len(second.tool_runs) == 1


def test_nobody_there_to_ask_is_a_no(sh: Shell) -> None:
    with model_server() as server:
        server.answer = looks_up
        told = talk(sh, server, "--ask", typed="One?\n")
        assert "(denied)" in told.out
        assert "(denied)" in talk(sh, server, "--ask", typed="One?\ne\n").out


def test_chat_with_an_environments_tools_over_ones_own_table(sh: Shell) -> None:
    with model_server() as server:
        server.answer = looks_up
        told = talk(sh, server, "--env", "table", "--dialect", "native", "--out", "talk", typed="How much?\n")
    assert "   | 7 |" in told.out
    (record,) = agentenv.load("talk")
    assert (record.env.id, record.reward, record.env.rubric[0]["name"]) == ("table", None, "unrated")


def test_chat_goes_on_after_the_model_has_failed(sh: Shell) -> None:
    with model_server() as server:
        server.faults.append(status(400, {"error": {"message": "bad luck"}}))
        told = talk(sh, server, "--tools", "table_query", typed="One?\nTwo?\n/quit\n")
    assert "(ended: " in told.out
    assert "bad luck" in told.out
    assert "hello" in told.out


def test_a_tool_of_ones_own_and_one_that_is_slow_or_broken(sh: Shell) -> None:
    Path("mine.py").write_text(
        "import asyncio, time\nfrom agentenv.tool import tool\n"
        "@tool(timeout=0.05)\nasync def nap() -> str:\n    'Sleep.'\n    await asyncio.sleep(5)\n    return ''\n"
        "@tool\ndef lines() -> str:\n    'Many lines.'\n    return 'x' * 500 + '\\n' * 30\n"
        "other = 3\n"
    )
    script = [f'<tool_call>{{"name": "{name}", "arguments": {{}}}}</tool_call>' for name in ("nap", "lines")]
    Path("turns.json").write_text(json.dumps([*script, "<answer>so</answer>"]))
    told = sh(
        "chat", "-p", "scripted:turns.json", "--tools", "mine:nap,mine:lines", "--dialect", "hermes", typed="Go\n"
    )
    assert "(timeout)" in told.out
    assert "... and 15 lines more" in told.out
    assert " ...\n" in told.out
    assert "unknown tool" in sh("chat", "-p", "random", "--tools", "mine:other").err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--tools", "table_qery"], 'did you mean "table_query"'),
        (["--tools", "table_query"], "give some, with --table FILE"),
        (["--env", "table"], "give some, with --table FILE"),
        (["--env", "table", "--tools", "table_query"], "not both"),
        (["--table", "nowhere.csv"], "nowhere.csv"),
        (["--dialect", "nativ"], 'did you mean "native"'),
    ],
)
def test_a_chat_that_cannot_be(sh: Shell, arguments: list[str], hint: str) -> None:
    told = sh("chat", "-p", "random", *arguments)
    assert (told.code, hint in told.err) == (2, True), told.err


# -- tools by name, and files for them --------------------------------------------------------------------------------


def calls_of(*calls: tuple[str, dict[str, Any]]) -> None:
    """A script, turns.json, that makes these calls, one a turn, and then answers."""
    turns = [f"<tool_call>{json.dumps({'name': name, 'arguments': given})}</tool_call>" for name, given in calls]
    Path("turns.json").write_text(json.dumps([*turns, "<answer>so</answer>"]))


def scripted(sh: Shell, *arguments: str, typed: str = "Go on\n") -> Result:
    return sh("chat", "-p", "scripted:turns.json", "--dialect", "hermes", *arguments, typed=typed)


def kinds(record: agentenv.Trajectory) -> list[tuple[str, str | None]]:
    return [(run.name, run.error_kind) for run in record.tool_runs]


@pytest.fixture
def media(sh: Shell) -> None:
    Path("photo.jpg").write_bytes(encoded(photo(1600, 900), "JPEG"))
    Path("film.mp4").write_bytes(clips.video("mp4")[0])


def test_every_tool_has_a_name() -> None:
    assert set(TOOLS) == {*PICTURE_TOOLS, *FILM_TOOLS, *(tool.name for tool in TABLE_TOOLS)}
    made = {tool.name: tool for tool in make_tools(TOOLS)}
    assert list(made) == list(TOOLS)
    assert {name: "tables" if tool.needs == "table" else "media" for name, tool in TOOLS.items() if tool.needs} == {
        name: bound for name, tool in made.items() for bound in tool.bound
    }


def test_list_shows_the_tools(sh: Shell) -> None:
    assert "--video FILE" in sh("list", "--tools").out
    listed = sh("list", "--tools", "--json").json
    assert [tool["name"] for tool in listed] == list(TOOLS)
    assert listed[0]["needs"] == "table"


def test_chat_searches_the_offline_corpus(sh: Shell) -> None:
    calls_of(
        ("web_search", {"query": "Reykjavík, Capital Region, Iceland"}), ("web_fetch", {"url": "doc:town/3413829"})
    )
    told = scripted(sh, "--tools", "web_search, web_fetch", "--out", "talk")
    assert "-> web_search" in told.out
    assert "Iceland" in told.out
    (record,) = agentenv.load("talk")
    assert [name for name, _ in kinds(record)] == ["web_search", "web_fetch"]
    assert kinds(record)[0][1] is None
    assert record.env.kwargs["tools"] == ["web_search", "web_fetch"]


def test_chat_searches_documents_of_ones_own_with_options(sh: Shell) -> None:
    Path("docs.jsonl").write_text('{"body": "Eight screws hold the rotor."}\n{"body": "The stator has a rotor."}\n')
    calls_of(("web_search", {"query": "screws of the rotor"}))
    told = scripted(sh, "--corpus", "docs.jsonl", "-o", "corpus_columns.text=body", "-o", "k=1", typed="Go\n/tools\n")
    assert "Eight screws" in told.out
    assert "stator" not in told.out
    assert "web_fetch: " in told.out


def test_chat_searches_by_a_live_engine(sh: Shell) -> None:
    answer = {"results": [{"title": "Rotors", "url": "https://rotors.example/a", "content": "Eight screws"}]}
    with model_server() as server:
        server.get["/search"] = answer
        calls_of(("web_search", {"query": "rotor"}))
        told = scripted(sh, "--corpus", f"live:searxng:http://127.0.0.1:{server.port}")
    assert "https://rotors.example/a" in told.out


@pytest.mark.usefixtures("media")
def test_chat_looks_at_a_picture_and_finds_out_what_it_shows(sh: Shell) -> None:
    calls_of(
        ("image_zoom", {"bbox_2d": [0, 0, 200, 200], "image": "image_1"}),
        ("image_search", {"image": "observation_1"}),
        ("image_info", {}),
    )
    told = scripted(
        sh, "--tools", "image_zoom,image_search,image_info", "--image", "photo.jpg", "--out", "talk", typed="One\nTwo\n"
    )
    assert "is in the file" in told.out, told.out
    (record,) = agentenv.load("talk")
    assert kinds(record)[:3] == [("image_zoom", None), ("image_search", None), ("image_info", None)]
    opening = record.messages[1]
    assert isinstance(opening.parts[0], Image)
    assert (opening.parts[0].width, record.env.frame) == (1024, "relative_1000")
    assert "1600 x 900 pixels, shown reduced" in opening.text
    assert opening.text.endswith("One")
    assert [message.role for message in record.messages].count("user") >= 2
    assert sh("export", "talk", "-f", "trl-sft", "--out", "sft", "--json").json["written"] == 1


@pytest.mark.usefixtures("media")
def test_chat_looks_at_a_video_and_a_picture_together(sh: Shell) -> None:
    calls_of(
        ("video_clip", {"video": "video_1", "start": 0.5, "end": 1.0}),
        ("image_zoom", {"bbox_2d": [0, 0, 500, 500], "image": "image_1"}),
        ("video_info", {}),
    )
    given = ("--video", "film.mp4", "--image", "photo.jpg", "--out", "talk")
    told = scripted(sh, "--tools", "video_clip,video_info,image_zoom", *given)
    (record,) = agentenv.load("talk")
    assert kinds(record) == [("video_clip", None), ("image_zoom", None), ("video_info", None)], told.out
    parts = record.messages[1].parts
    assert [type(part) for part in parts if not isinstance(part, agentenv.Text)] == [Image, Video]
    assert agentenv.load("talk").check_media() == []


@pytest.mark.usefixtures("media")
@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--image", "photo.jpg"], {"image_zoom"}),
        (["--video", "film.mp4"], {"video_clip"}),
        (["--image", "photo.jpg", "--corpus", "embedded"], {"image_zoom", "web_search", "web_fetch"}),
        (["--tools", "", "--image", "photo.jpg"], set()),
        ([], set()),
    ],
)
def test_files_bring_their_tools(sh: Shell, arguments: list[str], wanted: set[str]) -> None:
    told = sh("chat", "-p", "random", *arguments, typed="/tools\n")
    named = {line.partition(":")[0].removeprefix("you> ").strip() for line in told.out.splitlines() if ": " in line}
    assert named & set(TOOLS) == wanted, told.out + told.err


@pytest.mark.usefixtures("media")
def test_an_environment_plays_over_ones_own_picture(sh: Shell) -> None:
    call = '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 300, 300]}}</tool_call>'
    Path("turns.json").write_text(json.dumps([call, "<answer>so</answer>"]))
    sh("chat", "-p", "scripted:turns.json", "--env", "deepeyes", "--image", "photo.jpg", "--out", "talk", typed="Go\n")
    (record,) = agentenv.load("talk")
    assert (record.env.id, record.reward, kinds(record)) == ("deepeyes", None, [("image_zoom_in_tool", None)])


@pytest.mark.usefixtures("media")
def test_a_model_on_a_server_is_shown_the_picture_and_the_crop(sh: Shell) -> None:
    def looks(request: dict[str, Any]) -> dict[str, Any]:
        if any(message["role"] == "tool" for message in request["messages"]):
            return completion("It is noise.")
        call = {"name": "image_zoom", "arguments": '{"bbox_2d": [0, 0, 300, 300], "image": "image_1"}'}
        said = {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "type": "function", "function": call}]}
        return completion(said, "tool_calls")

    with model_server() as server:
        server.answer = looks
        told = sh("chat", "-p", "openai:m", "--base-url", server.url, "--image", "photo.jpg", typed="What is it?\n")
        sent = [json.dumps(request).count("data:image/jpeg;base64,") for request in server.requests]
    assert "It is noise." in told.out
    assert sent == [1, 2]


@pytest.mark.slow
@pytest.mark.usefixtures("media")
def test_a_small_local_model_chats_with_tools_by_name(sh: Shell) -> None:
    policy = ("-p", f"transformers:{smollm_folder()}", "-P", "max_new_tokens=4", "--dialect", "hermes")
    told = sh("chat", *policy, "--tools", "web_search", "--out", "talk", typed="Where is Oslo?\nAnd Rome?\n/quit\n")
    (record,) = agentenv.load("talk")
    assert (told.code, record.policy.name) == (0, "transformers")
    assert [m.role for m in record.messages].count("assistant") >= 2
    assert all(node.tokens is not None for node in record.nodes if node.origin == "sampled")
    blind = sh("chat", *policy, "--image", "photo.jpg", typed="What is it?\n")
    assert "(ended: " in blind.out
    assert "image" in blind.out


@pytest.mark.usefixtures("media")
@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--tools", "image_zom"], 'did you mean "image_zoom"'),
        (["--tools", "image_zoom"], "give some, with --image FILE"),
        (["--tools", "image_search"], "give some, with --image FILE"),
        (["--tools", "video_clip", "--image", "photo.jpg"], "give some, with --video FILE"),
        (["--env", "longvt"], "--image FILE or --video FILE"),
        (["--env", "zoom", "--corpus", "embedded"], "no option 'corpus'"),
        (["--tools", "image_zoom", "--corpus", "docs.jsonl"], "neither is among the tools"),
        (["--tools", "web_search", "--corpus", "live:brav"], 'did you mean "brave"'),
        (["--tools", "web_search", "--corpus", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--tools", "web_search", "-o", "kk=3"], 'did you mean "k"'),
        (["--image", "phot.jpg"], 'did you mean "photo.jpg"'),
        (["--image", "."], "is a folder"),
        (["--image", "photo.jpg", "-o", "frame=pixel"], "relative_1000"),
        (["--tools", "test_chat_tools:needy"], "which only an environment can give it"),
        (["--tools", "web_search,web_search"], "web_search"),
    ],
)
def test_tools_and_files_that_cannot_be(sh: Shell, arguments: list[str], hint: str) -> None:
    Path("test_chat_tools.py").write_text(
        "from agentenv.tool import Bound, tool\n"
        "@tool\ndef needy(x: int, world: Bound[object]) -> str:\n    'Needs a world.'\n    return ''\n"
    )
    told = sh("chat", "-p", "random", *arguments)
    assert (told.code, hint in told.err) == (2, True), told.err


def test_files_that_cannot_be_read(sh: Shell) -> None:
    Path("bad.jpg").write_text("<html>")
    Path("bad.mp4").write_text("nothing")
    for kind, file in (("--image", "bad.jpg"), ("--video", "bad.mp4")):
        told = sh("chat", "-p", "random", kind, file)
        assert (told.code, f"agentenv: {file}: " in told.err) == (1, True), told.err
    assert "who answers?" in sh("chat").err
