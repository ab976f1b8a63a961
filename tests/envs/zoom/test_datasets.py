"""Local copies of visual-search data sets, as small faithful copies of each one's own format."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from agentenv.envs.zoom.datasets import (
    DATASETS,
    deepeyes,
    from_columns,
    geobench,
    hrbench,
    visualprobe,
    vstar,
)
from agentenv.envs.zoom.images import as_image
from agentenv.errors import DataError, UnknownNameError
from agentenv.media import media_store
from agentenv.types import Image as Part
from agentenv.types import Task, Text
from tests.pictures import encoded, scene


def jpeg(seed: int = 0, width: int = 64, height: int = 48) -> bytes:
    return encoded(scene(width, height, seed), "JPEG")


def question(task: Task) -> str:
    return "".join(part.text for part in task.prompt if isinstance(part, Text))


def pictures(task: Task) -> list[bytes]:
    return [media_store().get(part.sha256) for part in task.prompt if isinstance(part, Part)]


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


# ---- V*

ASKED = "What is the material of the glove?\n(A) rubber\n(B) cotton\nAnswer with the option's letter directly."


@pytest.fixture
def vstar_root(tmp_path: Path) -> Path:
    root = tmp_path / "vstar_bench"
    (root / "direct_attributes").mkdir(parents=True)
    (root / "relative_position").mkdir()
    (root / "direct_attributes" / "sa_4690.jpg").write_bytes(jpeg(1))
    (root / "direct_attributes" / "bad.jpg").write_bytes(jpeg(2))
    (root / "relative_position" / "sa_86.jpg").write_bytes(jpeg(3))
    note = {"target_object": ["glove"], "bbox": [[10, 20, 8, 6]], "question": "?", "options": ["rubber", "cotton"]}
    (root / "direct_attributes" / "sa_4690.json").write_text(json.dumps(note))
    (root / "direct_attributes" / "bad.json").write_text('{"bbox": 1}')
    (tmp_path / "secret.jpg").write_bytes(jpeg(4))
    row = {"image": "direct_attributes/sa_4690.jpg", "text": ASKED, "category": "direct_attributes", "label": "A"}
    right = row | {"question_id": "0"}
    rows: list[Any] = [
        right,
        right | {"image": "relative_position/sa_86.jpg", "category": "relative_position", "question_id": "1"},
        right | {"label": "C"},
        right | {"image": "direct_attributes/none.jpg"},
        right | {"image": "../secret.jpg"},
        right | {"image": "direct_attributes/bad.jpg"},
        right | {"text": "Which?\n(A) x\n(C) y"},
        right | {"text": " "},
        {"image": "direct_attributes/sa_4690.jpg"},
        "not json\n",
    ]
    lines(root / "test_questions.jsonl", rows)
    return root


def test_vstar(vstar_root: Path) -> None:
    tasks = vstar(vstar_root, on_error="skip")
    first, second = tasks
    assert first.id == "vstar-0"
    assert question(first) == "What is the material of the glove?\nA. rubber\nB. cotton"
    assert first.answer == "A"
    assert first.metadata["options"] == ["rubber", "cotton"]
    assert first.metadata["answer_type"] == "choice"
    assert first.evidence == {"image": "image_1", "boxes": [[10, 20, 18, 26]], "labels": ["glove"]}
    assert second.evidence == {}
    assert pictures(first) == [jpeg(1)]
    assert [error.line for error in tasks.skipped] == [3, 4, 5, 6, 7, 8, 9, 10]
    whys = [error.why for error in tasks.skipped]
    assert whys[0] == "the answer 'C' is none of the options A, B"
    assert whys[1:3] == ["there is no picture 'direct_attributes/none.jpg'", "there is no picture '../secret.jpg'"]
    assert "annotation bad.json is malformed" in whys[3]
    assert "not lettered in order" in whys[4]
    assert "question must be text" in whys[5]
    assert whys[6] == "no column 'text'"
    with pytest.raises(DataError, match=r"test_questions\.jsonl:3: the answer 'C'"):
        list(vstar(vstar_root))


def test_vstar_by_category(vstar_root: Path) -> None:
    assert [task.id for task in vstar(vstar_root, "relative_position", on_error="skip")] == ["vstar-1"]
    with pytest.raises(UnknownNameError, match="relative_position"):
        vstar(vstar_root, "relative")
    with pytest.raises(UnknownNameError, match=r"test_questions\.jsonl"):
        vstar(vstar_root.parent)


# ---- HR-Bench


def hr_rows() -> list[dict[str, Any]]:
    text = base64.b64encode(jpeg(1, 900, 700)).decode()
    row = {"index": 0, "question": 'What does the "sign" say?', "answer": "B", "category": "single"}
    row |= {"A": "stop", "B": "go\nslow", "C": "left", "D": "right", "cycle_category": "1_0", "image": text}
    assert len(text) > 4000
    return [
        row,
        row | {"index": 1, "answer": "C", "image": "0"},
        row | {"index": 2, "image": "7"},
        row | {"index": 3, "image": "!" * 2000},
        row | {"index": 4, "answer": "E"},
    ]


def test_hrbench_tsv_and_parquet(tmp_path: Path) -> None:
    rows = hr_rows()
    with (tmp_path / "hr_bench_4k.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
        file.write("one\tcell\n")
    tasks = hrbench(tmp_path, on_error="skip")
    first, second = tasks
    assert question(first) == 'What does the "sign" say?\nA. stop\nB. go\nslow\nC. left\nD. right'
    assert (first.answer, second.answer) == ("B", "C")
    assert first.metadata["cycle_category"] == "1_0"
    assert first.prompt[0] == second.prompt[0]
    assert pictures(first) == [jpeg(1, 900, 700)]
    assert [error.line for error in tasks.skipped] == [3, 4, 5, 6]
    whys = [error.why for error in tasks.skipped]
    assert "row '7' is referred to before it is given" in whys[0]
    assert "not base64" in whys[1]
    assert whys[3] == "2 cells for 10 columns"
    pq.write_table(pa.Table.from_pylist(rows[:2]), tmp_path / "hr_bench_8k.parquet")
    assert [task.answer for task in hrbench(tmp_path, "8k")] == ["B", "C"]
    assert [task.answer for task in hrbench(tmp_path / "hr_bench_8k.parquet")] == ["B", "C"]
    with pytest.raises(UnknownNameError, match="size of HR-Bench"):
        hrbench(tmp_path, "16k")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnknownNameError, match=r"hr_bench_4k\.parquet"):
        hrbench(tmp_path / "empty")


def test_a_tsv_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "x.tsv"
    file.write_bytes(b'index\tquestion\n0\t"never closed\n')
    with pytest.raises(DataError, match=r"x\.tsv:1: not CSV"):
        list(hrbench(file))
    file.write_bytes(b"index\tquestion\n0\t\xff\n")
    with pytest.raises(DataError, match="not CSV"):
        list(hrbench(file))
    file.write_bytes(b"")
    assert list(hrbench(file)) == []


# ---- VisualProbe


def test_visualprobe(tmp_path: Path) -> None:
    """Paths count from the data set's folder, or from the one above it as Mini-o3's BASE_IMAGE_DIR has it."""
    root = tmp_path / "VisualProbe_Hard"
    (root / "data").mkdir(parents=True)
    (root / "data" / "1.jpg").write_bytes(jpeg(1))
    row = {"images": ["VisualProbe_Hard/data/1.jpg"], "problem": "<image>\nWhat number?", "solution": "17"}
    rows = [
        row | {"doc_id": "vp-0", "data_source": "visual_probe"},
        row | {"images": "data/1.jpg", "doc_id": 1},
        row | {"images": ["data/2.jpg"]},
        row | {"solution": ""},
        row | {"problem": None},
    ]
    (root / "val.json").write_text(json.dumps(rows))
    tasks = visualprobe(root, on_error="skip")
    first, second = tasks
    assert (first.id, second.id) == ("vp-0", "1")
    assert question(first) == "What number?"
    assert first.answer == "17"
    assert first.metadata == {
        "source": "visualprobe",
        "data_source": "visual_probe",
        "answer_type": "text",
        "options": [],
    }
    assert pictures(first) == pictures(second) == [jpeg(1)]
    assert [error.line for error in tasks.skipped] == [3, 4, 5]
    assert [task.id for task in visualprobe(root / "val.json", on_error="skip")] == ["vp-0", "1"]
    with pytest.raises(UnknownNameError, match=r"val\.json"):
        visualprobe(tmp_path)


# ---- DeepEyes


def eyes_row(**changed: Any) -> dict[str, Any]:
    return {
        "data_source": "vstar",
        "prompt": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "<image>\nWhat colour is the cup?"},
        ],
        "images": [{"bytes": jpeg(5), "path": None}],
        "ability": "vl_agent",
        "env_name": "visual_toolbox_v2",
        "reward_model": {"ground_truth": "The cup is red.", "style": "model"},
        "extra_info": {"id": "saliency-7", "index": 7, "split": "train"},
        **changed,
    }


def test_deepeyes(tmp_path: Path) -> None:
    no_user = [{"role": "system", "content": "x"}]
    rows = [eyes_row(), eyes_row(images=[]), eyes_row(prompt=no_user), eyes_row(images=[{"bytes": b"x", "path": ""}])]
    file = tmp_path / "data_0.1.2_visual_toolbox_v2.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file)
    tasks = deepeyes(file, on_error="skip")
    (task,) = tasks
    assert task.id == "data_0.1.2_visual_toolbox_v2-saliency-7"
    assert question(task) == "What colour is the cup?"
    assert task.answer == "The cup is red."
    assert task.metadata["env_name"] == "visual_toolbox_v2"
    assert pictures(task) == [jpeg(5)]
    assert [error.line for error in tasks.skipped] == [2, 3, 4]
    assert "no picture" in tasks.skipped[0].why
    assert "no user message" in tasks.skipped[1].why
    assert "not a picture" in tasks.skipped[2].why


# ---- GeoBench


def test_geobench(tmp_path: Path) -> None:
    root = tmp_path / "GeoVistaBench"
    (root / "raw_image" / "u1").mkdir(parents=True)
    (root / "data" / "test").mkdir(parents=True)
    (root / "raw_image" / "u1" / "panorama-u1.jpg").write_bytes(jpeg(6))
    place = {"city": "Bergen", "province_or_state": "Vestland", "country": "Norway", "lat": 60.39, "lng": 5.32}
    noted = {"uid": "u1", "pano_id": "p", **place}
    row = {"id": "u1", "raw_image_path": "raw_image/u1/panorama-u1.jpg", "metadata": json.dumps(noted)}
    older = {"metadata": json.dumps({"uid": "u2", "location": {"country_name": "Peru"}}), "image": {"bytes": jpeg(7)}}
    file = root / "data" / "test" / "data-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist([row | {"data_type": "photo"}]), file)
    (task,) = geobench(file)
    assert task.id == "geobench-u1"
    assert task.answer == "Bergen"
    assert task.metadata["place"] == {
        "country": "Norway",
        "state": "Vestland",
        "city": "Bergen",
        "lat": 60.39,
        "lng": 5.32,
    }
    assert task.metadata["data_type"] == "photo"
    assert question(task) == "Please analyze where is the place."
    pq.write_table(pa.Table.from_pylist([older]), tmp_path / "train.parquet")
    (task,) = geobench(tmp_path / "train.parquet", question="Which country is it?")
    assert (task.id, task.answer, question(task)) == ("geobench-u2", "Peru", "Which country is it?")
    assert task.metadata["data_type"] == "panorama"
    bad = [{"metadata": "{}", "image": "x"}, {"metadata": "[]", "image": "x"}, row | {"raw_image_path": "none.jpg"}]
    tasks = geobench(lines(tmp_path / "bad.jsonl", bad), on_error="skip")
    assert list(tasks) == []
    assert ["name no place" in tasks.skipped[0].why, "must be an object" in tasks.skipped[1].why] == [True, True]
    for where in ({"lat": 91, "lng": 5}, {"lat": 9, "lng": "5 E"}):
        odd = lines(tmp_path / "odd.jsonl", [row | {"metadata": json.dumps({"city": "Bergen", **where})}])
        with pytest.raises(DataError, match="degrees are from"):
            list(geobench(odd))


# ---- columns


def test_any_file_by_a_column_map(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(8))
    rows = [
        {"q": "Which?", "gold": "cat", "picture": "a.jpg", "choices": ["dog", "cat"], "where": [1, 2, 3, 4], "n": 5},
        {"q": "<image>Read it.", "gold": 12, "picture": "a.jpg", "choices": None, "where": "[[1, 2, 3, 4]]", "n": 6},
    ]
    columns = {"question": "q", "answer": "gold", "image": "picture", "options": "choices", "boxes": "where", "id": "n"}
    file = lines(tmp_path / "rows.jsonl", rows)
    first, second = from_columns(file, columns, keep=["n"], box_format="xywh")
    assert (first.id, first.answer, second.answer) == ("rows-5", "B", "12")
    assert first.evidence == {"image": "image_1", "boxes": [[1, 2, 4, 6]]} == second.evidence
    assert question(second) == "Read it."
    assert first.metadata["n"] == 5
    with pytest.raises(UnknownNameError, match='did you mean "question"'):
        from_columns(file, {"questions": "q"})
    with pytest.raises(UnknownNameError, match="box format"):
        from_columns(file, columns, box_format="cxcywh")
    with pytest.raises(DataError, match=r"rows\.jsonl:1: no column 'nope'"):
        list(from_columns(file, {**columns, "image": "nope"}))


def test_usual_names_need_no_map(tmp_path: Path) -> None:
    uri = "data:image/png;base64," + base64.b64encode(encoded(scene(9, 9), "PNG")).decode()
    row = {"question": "Which?", "answer": "(b)", "images": [uri], "A": "dog", "B": "cat", "C": ""}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    (task,) = from_columns(tmp_path / "rows.json")
    assert (task.id, task.answer, task.metadata["options"]) == ("rows-1", "B", ["dog", "cat"])
    (tmp_path / "a.jpg").write_bytes(jpeg(8))
    (tmp_path / "rows.csv").write_text('question,answer,image,options\nWhich?,x,a.jpg,"[""x"", ""y""]"\n')
    (task,) = from_columns(tmp_path / "rows.csv")
    assert task.answer == "A"
    (tmp_path / "rows.xml").write_text("")
    with pytest.raises(UnknownNameError, match=r"kind of file '\.xml'"):
        from_columns(tmp_path / "rows.xml")


def test_loaders_by_name() -> None:
    assert list(DATASETS) == ["vstar", "hrbench", "visualprobe", "deepeyes", "geobench", "columns"]


# ---- pictures


def test_pictures_of_every_sort(tmp_path: Path) -> None:
    data = jpeg(9)
    (tmp_path / "a.jpg").write_bytes(data)
    text = base64.b64encode(jpeg(9, 640, 480)).decode()
    sha = as_image(data, tmp_path).sha256
    for value in ("a.jpg", bytearray(data), memoryview(data), {"bytes": data}, {"bytes": None, "path": "a.jpg"}):
        assert as_image(value, tmp_path).sha256 == sha
    assert as_image(text, tmp_path).width == 640
    assert as_image(f"data:;base64,{text}", tmp_path).width == 640
    assert as_image("\n".join(text[i : i + 76] for i in range(0, len(text), 76)), tmp_path).width == 640


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "CMYK", "I;16"])
def test_decoded_pictures_keep_their_pixels(tmp_path: Path, mode: str) -> None:
    picture = Image.new(mode, (7, 5)) if mode == "I;16" else scene(7, 5).convert(mode)
    part = as_image(picture, tmp_path)
    kept = Image.open(io.BytesIO(media_store().get(part.sha256)))
    assert (part.mime, part.width, part.height) == ("image/png", 7, 5)
    if mode not in ("CMYK", "I;16"):
        assert kept.convert(mode).tobytes() == picture.tobytes()


@pytest.mark.parametrize("value", [None, 7, "", "none.jpg", "../a.jpg", {}, {"path": None}, [], "/etc/passwd"])
def test_what_is_no_picture_is_an_error(tmp_path: Path, value: Any) -> None:
    with pytest.raises(DataError, match="picture"):
        as_image(value, tmp_path)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())

    def refused(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        as_image("a.jpg", tmp_path)
