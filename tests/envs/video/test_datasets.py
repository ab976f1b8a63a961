"""Local copies of data sets: the formats they come in, and what is malformed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentenv
from agentenv.envs.video import video
from agentenv.envs.video.answers import video_match
from agentenv.envs.video.datasets import (
    charades,
    from_columns,
    longvideoreason,
    lvbench,
    videomme,
    videosiah,
)
from agentenv.envs.video.files import find_video
from agentenv.envs.video.rows import as_span, split_options
from agentenv.envs.video.source import video_tasks
from agentenv.errors import DataError, UnknownNameError, UsageError
from agentenv.media import media_store
from agentenv.task import TaskSet
from agentenv.types import Task, Text, Video
from tests.tools.video import clips


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the videos a.mp4, b.mkv and broken.mp4."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(clips.video("mp4")[0])
    (tmp_path / "videos" / "b.mkv").write_bytes(clips.video("mkv")[0])
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"\0\0\0 ftypisom" + bytes(400))
    return tmp_path


def lines(file: Path, *rows: Any) -> Path:
    file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return file


def shown(task: Task) -> tuple[Video, str]:
    video, text = task.prompt
    assert isinstance(video, Video)
    assert isinstance(text, Text)
    assert (video.duration, video.width, video.fps) == (10.0, clips.WIDTH, 25.0)
    assert media_store().path(video.sha256) is not None
    return video, text.text


def test_videosiah_for_evaluation_and_for_rl(root: Path) -> None:
    file = lines(
        root / "eval.jsonl",
        {"video_path": "a.mp4", "question": "Which dish?", "answer": "soup"},
        {
            "data_source": "longvt",
            "videos": [{"type": "video", "video": "file:///elsewhere/data/b.mkv", "fps": 1}],
            "prompt": [{"role": "user", "content": "<video>When? ..."}],
            "reward_model": {"style": "rule", "ground_truth": "the red one"},
            "extra_info": {"index": 7, "question": "Which one?", "video_segment": [2, 4.5]},
        },
        {
            "videos": ["a"],
            "reward_model": {"ground_truth": [1.0, 2.0]},
            "extra_info": {"index": 8, "question": "When does it fall?"},
        },
    )
    first, second, third = videosiah(file)
    assert (shown(first)[1], first.answer, first.evidence) == ("Which dish?", "soup", {})
    assert (shown(second)[1], second.answer, second.id) == ("Which one?", "the red one", "eval-7")
    assert second.evidence == {"video": "video_1", "spans": [[2.0, 4.5]]}
    assert (third.answer, third.metadata["answer_type"], third.evidence["spans"]) == ([1.0, 2.0], "span", [[1.0, 2.0]])


def test_videosiah_conversations(root: Path) -> None:
    messages = [
        {"role": "system", "content": "You are ..."},
        {
            "role": "user",
            "content": [
                {"type": "video_url", "video_url": {"url": "videos/a.mp4"}},
                {"type": "text", "text": "What is in the bowl?"},
            ],
        },
        {"role": "assistant", "content": "<think>no</think><answer>first</answer>"},
        {"role": "assistant", "content": [{"type": "text", "text": "<answer> soup </answer>"}]},
    ]
    file = lines(root / "sft.jsonl", {"messages": messages}, {"messages": json.dumps(messages), "id": "x"})
    assert [(shown(task)[1], task.answer) for task in videosiah(file)] == [("What is in the bowl?", "soup")] * 2
    bad = lines(root / "bad.jsonl", {"messages": messages[:2]}, {"messages": [{"role": "user", "content": "?"}]})
    tasks = videosiah(bad, on_error="skip")
    assert list(tasks) == []
    assert [str(error.line) for error in tasks.skipped] == ["1", "2"]


def test_charades(root: Path) -> None:
    file = root / "charades_sta_test.txt"
    file.write_text("a 2.0 4.5##person opens the door.\n\nb 0.0 3##person sits down.\n")
    first, second = charades(file, videos=root / "videos")
    assert shown(first)[1].startswith("When does this happen in the video: person opens the door?")
    assert (first.answer, first.evidence["spans"]) == ([2.0, 4.5], [[2.0, 4.5]])
    assert (second.answer, second.metadata["query"]) == ([0.0, 3.0], "person sits down")
    rows = lines(root / "rows.jsonl", {"video": "a.mp4", "caption": "it falls", "timestamp": [1, 2]})
    assert charades(rows)[0].answer == [1.0, 2.0]
    file.write_text("a 2.0 4.5 person\n" + "a 5 4##turned\n")
    tasks = charades(file, on_error="skip")
    assert list(tasks) == []
    assert ["##sentence" in tasks.skipped[0].why, "end after" in tasks.skipped[1].why] == [True, True]
    with pytest.raises(DataError, match=r"charades_sta_test.txt.*1"):
        list(charades(file))


def test_videomme_in_parquet(root: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [
        {
            "video_id": "001",
            "videoID": name,
            "question_id": f"001-{i}",
            "duration": duration,
            "domain": "Knowledge",
            "sub_category": "Law",
            "task_type": "Counting",
            "question": "How many?",
            "options": ["A. one", "B. two", "C. three", "D. four"],
            "answer": "B",
        }
        for i, (name, duration) in enumerate([("a", "short"), ("b", "long")], 1)
    ]
    (root / "videomme").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist(rows), root / "videomme" / "test-00000-of-00001.parquet")
    tasks = videomme(root)
    assert shown(tasks[0])[1] == "How many?\nA. one\nB. two\nC. three\nD. four"
    assert (tasks[0].id, tasks[0].answer, tasks[0].metadata["options"]) == (
        "videomme-001-1",
        "B",
        ["one", "two", "three", "four"],
    )
    assert video_match("B. two", "B", tasks[0].metadata) == 1.0
    assert [task.id for task in videomme(root, "long")] == ["videomme-001-2"]
    with pytest.raises(UnknownNameError, match="duration"):
        videomme(root, "longer")
    with pytest.raises(UnknownNameError):
        videomme(root / "videos")


def test_lvbench_with_several_questions_a_line(root: Path) -> None:
    asked = "What is drawn?\n(A) a cat\n(B) a dog\n(C) a cow\n(D) a hen"
    one = {"uid": "1", "question": asked, "answer": "C", "question_type": ["event"], "time_reference": "00:02-00:05"}
    row = {"key": "a", "type": "cartoon", "qa": [one, {**one, "uid": "2", "time_reference": ""}, "odd"]}
    file = lines(root / "video_info.meta.jsonl", row, "{not json", {**one, "uid": "3", "key": "none"})
    tasks = lvbench(root, on_error="skip")
    first, second = tasks
    assert shown(first)[1] == "What is drawn?\nA. a cat\nB. a dog\nC. a cow\nD. a hen"
    assert (first.answer, first.evidence["spans"], first.metadata["question_type"]) == ("C", [[2.0, 5.0]], ["event"])
    assert second.evidence == {}
    assert {error.line for error in tasks.skipped} == {1, 2, 3}
    assert any("there is no video 'none'" in error.why for error in tasks.skipped)
    with pytest.raises(DataError, match=r"video_info.meta.jsonl"):
        list(lvbench(file))
    flat = lines(root / "flat.json", json.dumps([{**one, "video_path": "a.mp4"}]))
    assert lvbench(flat)[0].answer == "C"


def test_longvideoreason(root: Path) -> None:
    file = lines(
        root / "reason.jsonl",
        {"videos": "longvila_videos/a.mp4", "problem": "Why?\nA. rain\nB. snow", "answer": "B", "reasoning": "..."},
        {"video": "b", "question": "<video>\nWho?", "solution": "<answer>the cook</answer>", "problem_id": 9},
        {"video": "b", "problem": "Which?", "options": ["A. x", "B. y"], "answer": "B. y", "problem_id": 10},
    )
    first, second, third = longvideoreason(file)
    assert (first.answer, first.metadata["options"]) == ("B", ["rain", "snow"])
    assert (shown(second)[1], second.answer, second.id) == ("Who?", "the cook", "reason-9")
    assert third.answer == "B"


def test_any_file_by_a_column_map(root: Path) -> None:
    file = lines(
        root / "mine.jsonl",
        {"q": "What?", "a": "a hat", "clip": "a", "when": [[1, 2], [3, 4]], "kind": "x"},
        {"q": "When?", "a": [2, 3], "clip": "a", "when": None, "kind": "y"},
        {"q": "Which?", "a": "two", "clip": ["a", "b"], "when": "[5, 6]", "kind": "z", "options": '["one", "two"]'},
    )
    columns = {"question": "q", "answer": "a", "video": "clip", "spans": "when"}
    first, second, third = from_columns(file, columns, keep=("kind",))
    assert (first.answer, first.evidence["spans"], first.metadata["kind"]) == ("a hat", [[1.0, 2.0], [3.0, 4.0]], "x")
    assert (second.answer, second.evidence["spans"]) == ([2.0, 3.0], [[2.0, 3.0]])
    assert (third.answer, third.evidence["spans"], len(third.prompt)) == ("B", [[5.0, 6.0]], 3)
    with pytest.raises(UnknownNameError, match="task field"):
        from_columns(file, {"quest": "q"})
    with pytest.raises(DataError, match=r"mine.jsonl:1: the answer must be text"):
        list(from_columns(file))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"question": "?", "answer": "x", "video": "none"}, "there is no video 'none'"),
        ({"question": "?", "answer": "x", "video": 3}, "the path of a file"),
        ({"question": "?", "answer": "x", "video": "../outside"}, "there is no video"),
        ({"question": "", "answer": "x", "video": "a"}, "the question must be text"),
        ({"question": "?", "answer": "", "video": "a"}, "the answer must be text"),
        ({"question": "?", "answer": [3, 2], "video": "a"}, "end after its start"),
        ({"question": "?", "answer": [3], "video": "a"}, r"must be \[start, end\]"),
        ({"question": "?", "answer": "x", "video": "a", "spans": "noon"}, r"must be \[start, end\]"),
        ({"question": "?", "answer": "C", "video": "a", "options": ["x", "y"]}, "none of the options"),
    ],
)
def test_a_malformed_row_is_named_or_skipped(root: Path, row: dict[str, Any], why: str) -> None:
    (root.parent / "outside.mp4").write_bytes(b"x")
    good = {"question": "?", "answer": "x", "video": "a"}
    file = lines(root / "rows.jsonl", good, row, good)
    with pytest.raises(DataError, match=why) as caught:
        list(from_columns(file))
    assert (caught.value.file, caught.value.line) == (str(file), 2)
    tasks = from_columns(file, on_error="skip")
    assert [task.id for task in tasks] == ["rows-1", "rows-3"]
    assert [error.line for error in tasks.skipped] == [2]


def test_a_video_that_cannot_be_opened_is_skipped_or_told_when_it_is_asked_for(root: Path) -> None:
    rows = [{"question": "?", "answer": "x", "video": name} for name in ("a", "broken")]
    file = lines(root / "rows.jsonl", *rows)
    tasks = from_columns(file)
    assert len(tasks) == 2
    with pytest.raises(DataError, match="video"):
        _ = tasks[1]
    skipping = from_columns(file, on_error="skip")
    assert len(skipping) == 1
    assert [error.line for error in skipping.skipped] == [2]


def test_counting_a_set_opens_no_video(root: Path) -> None:
    (root / "videos" / "a.mp4").write_bytes(clips.video("10 bit")[0])
    tasks = from_columns(lines(root / "rows.jsonl", {"question": "?", "answer": "x", "video": "a"}))
    before = dict(media_store()._files)
    assert len(tasks) == 1
    assert media_store()._files == before
    first = tasks[0].prompt[0]
    assert tasks[0].prompt[0] is first  # opened once
    assert isinstance(first, Video)
    (root / "videos" / "a.mp4").write_bytes(clips.video("mp4")[0])
    changed = tasks[0].prompt[0]
    assert isinstance(changed, Video)
    assert changed.sha256 != first.sha256


def test_paths_from_other_machines_are_found_by_name_and_none_leads_out(root: Path) -> None:
    assert find_video("/data/x/a.mp4", root) == root / "videos" / "a.mp4"
    assert find_video("D:\\x\\b", root) == root / "videos" / "b.mkv"
    assert find_video("a", root / "annotations") == root / "videos" / "a.mp4"
    (root / "videos" / "link.mp4").symlink_to("/etc/passwd")
    for name in ("../../../etc/passwd", "link", "", " ", "x" * 2000, "a\0b", None, ["a"]):
        with pytest.raises(DataError):
            find_video(name, root, root / "videos")


@given(st.text(max_size=200))
def test_options_are_read_out_of_any_text(text: str) -> None:
    question, options = split_options(text)
    assert len(options) != 1
    if not options:
        assert question == text.strip()


@given(st.one_of(st.text(max_size=30), st.lists(st.one_of(st.floats(), st.text(max_size=3)), max_size=3), st.none()))
def test_a_moment_is_one_or_is_refused(value: Any) -> None:
    try:
        start, end = as_span(value)
    except (DataError, ValueError):
        return
    assert 0 <= start < end


# ---- in the environment


def test_data_sets_by_name_in_the_environment(root: Path) -> None:
    (root / "sta.txt").write_text("a 2.0 4.5##person opens the door.\n")
    lines(root / "rows.jsonl", {"question": "What?", "answer": "a hat", "video": "a", "spans": [[3, 4]]})
    for source in (f"charades:{root / 'sta.txt'}", str(root / "rows.jsonl"), f"columns:{root / 'rows.jsonl'}"):
        run = agentenv.rollout("video", "reference", source=source, videos=str(root / "videos"))
        assert [record.reward for record in run] == [1.0]
        assert [record.outcome.rewards["spans_seen"].value for record in run if record.outcome] == [1.0]
    named = {"question": "question", "answer": "answer", "video": "video"}
    assert len(video(source=f"columns:{root / 'rows.jsonl'}", columns=named).tasks) == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"source": "film"}, 'did you mean "films"'),
        ({"source": "charade:x"}, "unknown source of video tasks"),
        ({"source": "x.jsonl", "difficulty": 2}, "difficulty is an option of source='films'"),
        ({"source": "x.jsonl", "split": "test"}, "split is an option of source='films'"),
        ({"source": "x.jsonl"}, "unknown file"),
        ({"difficulty": 6}, "difficulty is 1 to 5"),
        ({"kinds": ["read"]}, "kind of question"),
        ({"kinds": []}, "no kind of question"),
        ({"split": "dev"}, "split"),
    ],
)
def test_wrong_settings_say_what_is_wrong(options: dict[str, Any], error: str) -> None:
    with pytest.raises(UsageError, match=error):
        video_tasks(**options)


def test_own_tasks_are_taken_as_they_are() -> None:
    mine = TaskSet.of([Task("t", (Text("?"),), "x")])
    assert video_tasks(mine) is mine
    with pytest.raises(UsageError, match="task 't' has no video"):
        _ = video(source=mine).tasks[0]
