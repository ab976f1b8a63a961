"""Clips in exports: as the frames that the policy saw, or as videos for the trainers that read those."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentenv.cli import main
from agentenv.errors import UsageError
from agentenv.media import MediaStore, media_store, use_media_store
from agentenv.trajectories import ExportReport, Run, load
from agentenv.trajectories.formats.pictures import seen
from agentenv.trajectory import Trajectory
from agentenv.types import stamp
from tests.tools.video import clips
from tests.trajectories.film import clips_of, frames_of, watched
from tests.trajectories.records import played, turns
from tests.trajectories.test_vision import needs_templates, template

FILM = clips.video("mp4")[0]
NAME = hashlib.sha256(FILM).hexdigest()


@pytest.fixture(autouse=True)
def own_store() -> Iterator[MediaStore]:
    before = media_store()
    use_media_store(MediaStore())
    yield media_store()
    use_media_store(before)


def export(format: str, record: Trajectory, out: Path, **options: Any) -> tuple[list[dict[str, Any]], ExportReport]:
    """The rows of a JSONL export, and its report."""
    report = Run([record]).export(format, out, on_loss="note", **{"container": "jsonl", **options})
    return [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()], report


def parts(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for message in row["messages"] for part in message["content"]]


def content(part: dict[str, Any], folder: Path) -> str:
    """SHA-256 of the picture that a part names."""
    address = part["image"] if part["type"] == "image" else part["image_url"]["url"]
    data = address.partition(",")[2]
    return hashlib.sha256(base64.b64decode(data) if data else (folder / address).read_bytes()).hexdigest()


def before(row: dict[str, Any], kind: str) -> list[str]:
    """How the texts end that stand before the parts of a kind."""
    found = parts(row)
    texts = [one.get("text", "") for one, other in itertools.pairwise(found) if other["type"] == kind]
    return [text[text.rfind("<") :] for text in texts]


@pytest.mark.parametrize("format", ["trl-sft", "qwen-messages"])
@pytest.mark.parametrize("mode", ["structured", "rendered"])
@pytest.mark.parametrize("images", ["files", "uri"])
def test_as_frames_each_is_an_image_behind_the_time_that_was_seen(
    tmp_path: Path, format: str, mode: str, images: str
) -> None:
    episode = watched((2, 5), (6, 8))
    rows, report = export(format, episode, tmp_path, mode=mode, images=images, video="frames")
    assert report.skipped == []
    shown = [part for part in parts(rows[0]) if part["type"] == "image"]
    assert [content(part, tmp_path) for part in shown] == frames_of(episode) == seen(episode)
    times = [*clips_of(episode)[0].times, 2, 3, 4, 6, 7]
    assert before(rows[0], "image") == [stamp(time) for time in times]
    assert rows[0].get("images") == ([] if format == "trl-sft" else None)
    assert "frames" not in report.dropped


@pytest.mark.parametrize("mode", ["structured", "rendered"])
def test_both_forms_of_a_clip_give_the_same_row(tmp_path: Path, mode: str) -> None:
    rows = [
        export("trl-sft", watched((2, 5), result=result), tmp_path / result, mode=mode)[0][0]
        for result in ("frames", "video")
    ]
    said = [[message["content"] for message in row["messages"]] for row in rows]
    assert said[0] == said[1]


@pytest.mark.parametrize("video", ["reference", "list"])
def test_trl_is_given_no_videos(tmp_path: Path, video: str) -> None:
    with pytest.raises(UsageError, match=r"TRL hands no videos to a model.*qwen-messages"):
        export("trl-sft", watched((2, 5)), tmp_path, video=video)


def test_a_reference_is_the_file_with_the_window_and_the_size(tmp_path: Path) -> None:
    rows, report = export("qwen-messages", watched((2, 5)), tmp_path)
    view, clip = [part for part in parts(rows[0]) if part["type"] == "video"]
    path = f"videos/{NAME[:2]}/{NAME}.mp4"
    assert view == {"type": "video", "video": path, "nframes": 4, "resized_height": 77, "resized_width": 129}
    assert (clip["video"], clip["video_start"], clip["video_end"], clip["nframes"]) == (path, 2.0, 5.0, 3)
    assert (tmp_path / path).read_bytes() == FILM
    assert (
        before(rows[0], "video") == ["", "<2.0 to 4.0 seconds>"]
        or before(rows[0], "video")[-1] == "<2.0 to 4.0 seconds>"
    )
    assert (report.dropped["frames"], report.media) == (1, 1)
    assert rows[0]["tools"][0]["function"]["name"] == "video_clip"


def test_a_list_is_the_frames_that_the_policy_saw(tmp_path: Path) -> None:
    episode = watched((2, 5), (6, 6.5))
    rows, report = export("qwen-messages", episode, tmp_path, video="list")
    films = [part for part in parts(rows[0]) if part["type"] == "video"]
    assert [len(film["video"]) for film in films] == [4, 3, 2]  # a single frame is a pair: videos have no fewer
    assert [film.get("sample_fps") for film in films] == [pytest.approx(0.401, abs=0.001), 1.0, None]
    named = [Path(name).stem for film in films for name in film["video"]]
    assert list(dict.fromkeys(named)) == seen(episode)
    assert all((tmp_path / name).is_file() for film in films for name in film["video"])
    assert "frames" not in report.dropped


def test_a_single_frame_is_no_window_to_choose_from(tmp_path: Path) -> None:
    rows, _ = export("qwen-messages", watched((6, 6.5)), tmp_path)
    film = [part for part in parts(rows[0]) if part["type"] == "video"][1]
    assert len(film["video"]) == 2
    assert "video_start" not in film


def test_qwens_utilities_choose_the_very_frames_of_a_clip_that_went_by_their_rule(tmp_path: Path) -> None:
    from agentenv.tools.video import qwen_indices

    rows, _ = export("qwen-messages", watched((2, 6), rule="qwen"), tmp_path)
    film = [part for part in parts(rows[0]) if part["type"] == "video"][1]
    window = (film["video_start"], film["video_end"])
    chosen = qwen_indices(250, 25.0, *window, frames=film["nframes"])
    clip = clips_of(watched((2, 6), rule="qwen"))[1]
    assert [number / 25 for number in chosen] == pytest.approx(clip.times)


def test_a_video_that_is_lost_skips_the_episode_and_its_frames_do_not(tmp_path: Path) -> None:
    episode = watched((2, 5))
    held = {name: media_store().get(name) for name in frames_of(episode)}
    use_media_store(MediaStore())
    for data in held.values():
        media_store().put_bytes(data)
    _, report = export("qwen-messages", episode, tmp_path / "a")
    assert report.skipped == [
        (
            episode.id,
            "a video of it is not at hand, or damaged: see run.save_videos() and rollout --videos, or write its frames",
        )
    ]
    assert export("qwen-messages", episode, tmp_path / "b", video="list")[1].written == 1
    assert export("trl-sft", episode, tmp_path / "c")[1].written == 1


def test_a_large_file_is_copied_from_where_it_lies_and_never_believed(tmp_path: Path) -> None:
    episode = watched((2, 5), name="vp9")
    name = clips_of(episode)[0].sha256
    kept = {frame: media_store().get(frame) for frame in frames_of(episode)}
    source = tmp_path / "film.webm"
    source.write_bytes(clips.video("vp9")[0])
    use_media_store(MediaStore())
    for data in kept.values():
        media_store().put_bytes(data)
    assert media_store().put_file(source) == name
    rows, report = export("qwen-messages", episode, tmp_path / "a")
    path = next(part["video"] for part in parts(rows[0]) if part["type"] == "video")
    assert (tmp_path / "a" / path).read_bytes() == source.read_bytes()
    assert name not in media_store()._memory
    run = tmp_path / "run"
    (run / "media" / name[:2]).mkdir(parents=True)
    (run / "media" / name[:2] / name).write_bytes(b"other")
    damaged = Run([episode], folder=run)
    report = damaged.export("qwen-messages", tmp_path / "b", on_loss="note")
    assert "damaged" in report.skipped[0][1]
    assert not (tmp_path / "b" / "videos").exists() or not list((tmp_path / "b" / "videos").rglob("*.*"))
    source.unlink()
    assert damaged.export("jsonl", tmp_path / "c", video="reference", on_loss="note").dropped == {"videos": 1}


def test_a_column_is_trls(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is of trl-sft"):
        export("qwen-messages", watched((2, 5)), tmp_path, images="column")


def test_text_alone_goes_into_qwens_messages_too(tmp_path: Path) -> None:
    rows, report = export("qwen-messages", played(turns()), tmp_path)
    assert report.written == 1
    assert all(part["type"] == "text" for part in parts(rows[0]))


@needs_templates
@pytest.mark.parametrize(
    ("video", "kind", "count"), [("reference", "video", 2), ("list", "video", 2), ("frames", "image", 7)]
)
def test_the_template_of_qwen_writes_a_placeholder_for_each(tmp_path: Path, video: str, kind: str, count: int) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    source = template("qwen3_vl")
    rows, report = export("qwen-messages", watched((2, 5)), tmp_path, video=video, template=source, reasoning="inline")
    assert not {"images", "calls", "content", "prompt", "tools", "order"} & set(report.dropped)
    made = render_jinja_template([rows[0]["messages"]], tools=rows[0]["tools"], chat_template=Path(source).read_text())
    assert made[0][0].count(f"<|{kind}_pad|>") == count


def test_records_take_their_videos_along_on_request(tmp_path: Path) -> None:
    episode = watched((2, 5))
    for video, held in (("frames", False), ("reference", True)):
        out = tmp_path / video
        report = Run([episode]).export("jsonl", out, video=video)
        assert report.media == 4 + 3 + held
        use_media_store(MediaStore())
        run = load(out / "train.jsonl")
        assert run.check_media() == []
        assert (NAME in run.media) == held
        assert run[0].messages == episode.messages
        for name in frames_of(episode):
            media_store().put_bytes((out / "media" / name[:2] / name).read_bytes())
        media_store().put_bytes(FILM)
    use_media_store(MediaStore())
    report = Run([episode]).export("jsonl", tmp_path / "lost", video="reference", on_loss="note")
    assert report.dropped == {"media": 1, "videos": 1}


def test_the_command_line_keeps_videos_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "tests.trajectories.film:film"
    turns = tmp_path / "turns.json"
    turns.write_text(json.dumps(["<answer>ANSWER[0]</answer>"]))
    play = ["rollout", name, "--policy", f"scripted:{turns}", "--quiet"]
    assert main([*play, "--out", str(tmp_path / "with"), "--videos"]) == 0
    assert main([*play, "--out", str(tmp_path / "without")]) == 0
    use_media_store(MediaStore())
    for run, written, code in (("with", 1, 0), ("without", 0, 1)):
        out = str(tmp_path / f"{run}-rows")
        assert main(["export", str(tmp_path / run), "-f", "qwen-messages", "--out", out]) == code
        assert f"qwen-messages: {written} written" in capsys.readouterr().out


class TestLongvt:
    """lmms-engine knows text, image_url and video_url, users, assistants and the system, and no windows."""

    @pytest.mark.parametrize("dialect", ["hermes", "tags"])
    def test_the_question_names_its_video_and_results_hold_images(self, tmp_path: Path, dialect: str) -> None:
        episode = watched((2, 5), dialect=dialect)
        rows, report = export("longvt", episode, tmp_path)
        assert {message["role"] for message in rows[0]["messages"]} == {"system", "user", "assistant"}
        assert {part["type"] for part in parts(rows[0])} == {"text", "image_url", "video_url"}
        (film,) = [part["video_url"]["url"] for part in parts(rows[0]) if part["type"] == "video_url"]
        assert (tmp_path / film).read_bytes() == FILM
        shown = [content(part, tmp_path) for part in parts(rows[0]) if part["type"] == "image_url"]
        assert shown == list(clips_of(episode)[1].frames)
        assert before(rows[0], "image_url") == [stamp(time) for time in (2, 3, 4)]
        assert report.dropped == {"frames": 1}

    def test_in_parquet_the_messages_are_json_text(self, tmp_path: Path) -> None:
        import pyarrow.parquet as pq

        episode = watched((2, 5))
        Run([episode]).export("longvt", tmp_path / "p", on_loss="note")
        rows, _ = export("longvt", episode, tmp_path / "j")
        (row,) = pq.read_table(tmp_path / "p" / "train.parquet").to_pylist()
        assert json.loads(row["messages"]) == rows[0]["messages"]

    def test_what_it_cannot_hold_is_said(self, tmp_path: Path) -> None:
        native = watched((2, 5), dialect="native")
        assert "beside the text" in export("longvt", native, tmp_path / "a")[1].skipped[0][1]
        lost = watched((2, 5), name="vp9")
        use_media_store(MediaStore())
        assert "not at hand" in export("longvt", lost, tmp_path / "b")[1].skipped[0][1]
        assert "missing" in export("longvt", lost, tmp_path / "c", video="frames")[1].skipped[0][1]
        low = export("longvt", watched((2, 5)), tmp_path / "d", min_reward=2.0)[1]
        assert low.skipped[0][1] == "reward below 2"

    def test_frames_are_written_in_full_on_request(self, tmp_path: Path) -> None:
        episode = watched((2, 5))
        rows, report = export("longvt", episode, tmp_path, video="frames", image_root="/data")
        named = [part["image_url"]["url"] for part in parts(rows[0]) if part["type"] == "image_url"]
        assert [Path(name).stem for name in named] == frames_of(episode)
        assert all(name.startswith("/data/images/") for name in named)
        assert report.dropped == {}
