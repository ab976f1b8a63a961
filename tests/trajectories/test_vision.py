"""Exports for vision models: every picture where the policy saw it, and nothing that a trainer would trip over."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentenv.dialects.base import Turn
from agentenv.errors import UsageError
from agentenv.media import MediaStore, media_store, use_media_store
from agentenv.trajectories import ExportReport, Run
from agentenv.trajectories.formats.pictures import seen
from agentenv.trajectory import Trajectory
from agentenv.types import Image, Text
from tests.trajectories.camera import camera, shot, twice
from tests.trajectories.records import played, turns

_TRL = find_spec("trl")
TEMPLATES = Path(_TRL.origin).parent / "chat_templates" if _TRL and _TRL.origin else None
needs_templates = pytest.mark.skipif(
    TEMPLATES is None, reason="TRL's wheel ships the chat templates; make setup has it"
)


def template(name: str) -> str:
    assert TEMPLATES is not None
    return str(TEMPLATES / f"{name}.jinja")


def export(records: list[Trajectory], out: Path, **options: Any) -> tuple[list[dict[str, Any]], ExportReport]:
    """The rows of a JSONL export, and its report."""
    report = Run(records).export("trl-sft", out, on_loss="note", **options)
    return [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()], report


def parts(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for message in row["messages"]:
        yield from message["content"]


def hashes(row: dict[str, Any], folder: Path) -> list[str]:
    """SHA-256 of the pictures of a row, of their bytes, in order."""
    found = []
    for part in parts(row):
        if part["type"] == "image":
            data = part["image"].partition(",")[2]
            content = base64.b64decode(data) if data else (folder / part["image"]).read_bytes()
            found.append(hashlib.sha256(content).hexdigest())
    return found


def nulls(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is None or any(map(nulls, inner))


@pytest.mark.parametrize("images", ["files", "uri"])
@pytest.mark.parametrize("mode", ["structured", "rendered"])
@pytest.mark.parametrize("dialect", ["hermes", "tags", "native"])
def test_the_pictures_are_those_that_the_policy_saw(tmp_path: Path, dialect: str, mode: str, images: str) -> None:
    episodes = [shot(1, 2, dialect=dialect), twice(3, 1, dialect=dialect), shot(dialect=dialect)]
    if (dialect, mode) == ("native", "rendered"):
        _, report = export(episodes, tmp_path, mode=mode, images=images)
        assert report.skipped[0][1].startswith("calls were made beside the text")
        return
    rows, report = export(episodes, tmp_path, mode=mode, images=images)
    assert len(rows) == 3
    assert report.media == (4 if images == "files" else 0)
    for row, episode in zip(rows, episodes, strict=True):
        assert hashes(row, tmp_path) == seen(episode)
        assert row["images"] == []
        assert row["tools"] == []
        assert not nulls(row)
        assert all(isinstance(message["content"], list) for message in row["messages"])
        assert all(part.get("text", "x") for part in parts(row))
    assert "derived" not in report.dropped


def test_a_turn_of_calls_alone_has_no_content(tmp_path: Path) -> None:
    rows, _ = export([shot(1)], tmp_path)
    system, user, calls, result, answer = rows[0]["messages"]
    assert calls["content"] == []
    assert calls["tool_calls"][0]["function"] == {"name": "snap", "arguments": {"seed": 1}}
    assert [part["type"] for part in user["content"]] == ["image", "text"]
    assert [part["type"] for part in result["content"]] == ["image", "text"]
    assert result["role"] == "tool"
    assert answer["content"] == [{"type": "text", "text": "ANSWER[0]"}]
    assert system["content"][0]["text"].startswith("SYSTEM[be brief]\n\n# Tools\n")
    assert '"name": "snap"' in system["content"][0]["text"]
    assert "<answer>" not in system["content"][0]["text"]


def test_rendered_turns_are_to_the_letter(tmp_path: Path) -> None:
    episode = shot(1)
    rows, _ = export([episode], tmp_path, mode="rendered")
    for message, row in zip(episode.messages, rows[0]["messages"], strict=True):
        assert row["role"] == message.role
        assert "".join(part.get("text", "") for part in row["content"]) == message.text


@needs_templates
def test_the_tools_stand_where_the_template_would_put_them(tmp_path: Path) -> None:
    """TRL hands no tools to the template of a vision model: the row must render as if it had."""
    from transformers.utils.chat_template_utils import render_jinja_template

    episode = twice(1, 2)
    rows, report = export([episode], tmp_path)
    assert any("tools written into the system message" in change for change in report.merged)
    source = Path(template("qwen3_vl")).read_text()
    system = [{"role": "system", "content": [{"type": "text", "text": "SYSTEM[be brief]"}]}]
    tools = [tool.openai() for tool in episode.env.tools]
    baked = render_jinja_template([rows[0]["messages"]], chat_template=source)[0]
    given = render_jinja_template([system + rows[0]["messages"][1:]], tools=tools, chat_template=source)[0]
    assert baked == given
    assert baked[0].count("<|image_pad|>") == 3


def test_an_episode_without_a_system_prompt_gets_one_for_its_tools(tmp_path: Path) -> None:
    rows, _ = export([shot(1, system="", dialect="native")], tmp_path)
    assert rows[0]["messages"][0]["role"] == "system"
    assert rows[0]["messages"][0]["content"][0]["text"].startswith("# Tools")


def test_a_missing_picture_skips_its_episode(tmp_path: Path) -> None:
    first = shot(1)
    use_media_store(MediaStore())
    second = shot(0)
    rows, report = export([first, second], tmp_path)
    assert [row["id"] for row in rows] == [second.id]
    assert report.skipped == [(first.id, "a picture of it is missing or damaged")]


def test_text_that_looks_like_a_picture_skips_its_episode(tmp_path: Path) -> None:
    """Outside text is neutralised before a policy sees it; what the policy writes itself is not."""
    for number, text in enumerate(("<|image_pad|>", "<image>", "a [IMG] b", "<|vision_start|>", "<img>a.jpg</img>")):
        _, report = export([shot(1, answer=text)], tmp_path / str(number))
        assert [reason for _, reason in report.skipped] == ["a text in it would be taken for a picture"]


@pytest.mark.parametrize("format", ["trl-sft", "qwen-messages", "longvt"])
def test_a_skipped_episode_leaves_no_pictures(format: str, tmp_path: Path) -> None:
    good, bad = shot(1), shot(1, 2, answer="<image>")
    own = set(seen(good))
    assert own < set(seen(bad))
    report = Run([bad, good, shot(3, answer="<image>")]).export(format, tmp_path, on_loss="note", container="jsonl")
    assert (report.written, len(report.skipped)) == (1, 2)
    there = {file.stem for file in (tmp_path / "images").rglob("*.png")}
    assert (there, report.media) == (own, len(own))


def test_the_name_that_search_systems_have_for_the_picture_is_text(tmp_path: Path) -> None:
    rows, _ = export([shot(1, answer="<search><img></search>")], tmp_path)
    assert "<img>" in str(rows[0]["messages"][-1])


def test_pictures_that_the_policy_did_not_see_skip_the_episode(tmp_path: Path) -> None:
    episode = shot(1)
    run = episode.tool_runs[0]
    other = [part for part in shot(2).tool_runs[0].parts if isinstance(part, Image)]
    episode.tool_runs[0] = msgspec.structs.replace(run, parts=(*other, Text("SNAPPED[1]")))
    _, report = export([episode], tmp_path)
    assert [reason for _, reason in report.skipped] == ["its results hold other pictures than the policy saw"]


def test_a_run_without_pictures_stays_as_it_was(tmp_path: Path) -> None:
    rows, _ = export([played(turns())], tmp_path)
    assert "images" not in rows[0]
    assert isinstance(rows[0]["messages"][0]["content"], str)
    assert not (tmp_path / "images").exists()


def test_text_episodes_beside_others_take_their_form(tmp_path: Path) -> None:
    rows, _ = export([shot(1), played(turns())], tmp_path)
    assert rows[1]["images"] == []
    assert rows[1]["tools"] == []
    assert all(isinstance(message["content"], list) for message in rows[1]["messages"])


@pytest.mark.parametrize("container", ["jsonl", "parquet"])
@pytest.mark.parametrize("images", ["files", "uri"])
def test_datasets_gives_back_what_was_written(tmp_path: Path, images: str, container: str) -> None:
    datasets = pytest.importorskip("datasets", reason="make setup installs it")
    episodes = [shot(1, 2), twice(3, 1)]
    rows, _ = export(episodes, tmp_path / "plain", images=images)
    Run(episodes).export("trl-sft", tmp_path / "out", on_loss="note", images=images, container=container)
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert [dict(row) for row in loaded] == rows
    card = (tmp_path / "out" / "README.md").read_text()
    assert ("image_root" in card) == (images == "files")


def test_bytes_in_a_column(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="make setup installs it")
    episodes = [shot(1, 2), twice(3, 1)]
    options = {"images": "column", "mode": "rendered", "container": "parquet", "on_loss": "note"}
    Run(episodes).export("trl-sft", tmp_path / "out", **options)
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    for row in loaded:
        places = [part for part in parts(row) if part["type"] == "image"]
        assert places == [{"type": "image"}] * 3
        assert [picture.size for picture in row["images"]] == [(40, 40)] * 3
    raw = loaded.cast_column("images", datasets.List(datasets.Image(decode=False)))
    for row, episode in zip(raw, episodes, strict=True):
        assert [hashlib.sha256(cell["bytes"]).hexdigest() for cell in row["images"]] == seen(episode)


@pytest.mark.parametrize("options", [{}, {"mode": "rendered"}, {"container": "parquet"}])
def test_a_column_needs_what_the_trainer_needs(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="column"):
        Run([shot(1)]).export("trl-sft", tmp_path / "out", images="column", **options)


def test_the_root_of_the_paths(tmp_path: Path) -> None:
    rows, _ = export([shot(1)], tmp_path, image_root="/data/sft")
    names = [part["image"] for part in parts(rows[0]) if part["type"] == "image"]
    assert all(name.startswith("/data/sft/images/") and name.endswith(".png") for name in names)
    assert (tmp_path / names[0].removeprefix("/data/sft/")).is_file()


def test_an_export_leaves_no_pictures_of_an_earlier_one(tmp_path: Path) -> None:
    mine = tmp_path / "images" / "mine.txt"
    export([shot(1, 2)], tmp_path)
    mine.write_text("kept")
    export([shot(1)], tmp_path)
    held = [path for path in (tmp_path / "images").rglob("*") if path.is_file()]
    assert len(held) == 3
    assert mine in held
    export([shot(5)], tmp_path, name="other")
    assert len(list((tmp_path / "images").rglob("*.png"))) == 3
    mine.unlink()
    (tmp_path / "other.jsonl").unlink()
    export([played(turns())], tmp_path)
    assert not (tmp_path / "images").exists()


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="would drop"):
        Run([shot(1)]).export("trl-sft", tmp_path / "out", on_loss="fail", reasoning="drop")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_same_episodes_give_the_same_bytes(tmp_path: Path) -> None:
    episodes = [shot(1, 2)]
    first, second = (export(episodes, tmp_path / name)[1] for name in "ab")
    assert first.sha256 == second.sha256
    assert "3 pictures beside it" in str(first)


@needs_templates
@pytest.mark.parametrize(
    ("family", "mode", "lost"),
    [
        ("qwen3_vl", "structured", set()),
        ("qwen3_vl", "rendered", set()),
        ("qwen2_5_vl", "rendered", set()),
        ("qwen2_5_vl", "structured", {"calls"}),
        ("gemma4_v3", "structured", {"images"}),
        ("gemma4_v3", "rendered", set()),
    ],
)
def test_the_probe_sees_pictures_that_a_template_leaves_out(
    tmp_path: Path, family: str, mode: str, lost: set[str]
) -> None:
    _, report = export([shot(1, 2)], tmp_path, mode=mode, template=template(family), reasoning="inline")
    assert set(report.dropped) & {"images", "results", "calls", "content", "prompt", "tools"} >= lost
    if not lost:
        assert "images" not in report.dropped
    assert report.written == 1


def test_groups_are_not_concerned(tmp_path: Path) -> None:
    report = Run([shot(1)]).export("grpo-groups", tmp_path)
    assert (report.written, report.media) == (1, 0)


@pytest.fixture(autouse=True)
def own_store() -> Iterator[MediaStore]:
    """A store of this test's own."""
    before = media_store()
    use_media_store(MediaStore())
    yield media_store()
    use_media_store(before)


def test_the_turn_of_a_policy_holds_no_empty_text(tmp_path: Path) -> None:
    episode = played([Turn("", "", (), "ANSWER[0]")], env=camera())
    rows, _ = export([episode], tmp_path, reasoning="inline")
    assert rows[0]["messages"][-1]["content"] == [{"type": "text", "text": "ANSWER[0]"}]
