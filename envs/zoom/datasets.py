"""Visual-search data sets from local copies, each in its own format. Nothing is downloaded.

| name | what is read |
| --- | --- |
| `vstar` | V*: `test_questions.jsonl` with its pictures and, where they are there, their annotations |
| `hrbench` | HR-Bench: TSV or Parquet with base64 pictures and the options A to D |
| `visualprobe` | VisualProbe (Mini-o3): `train.json` or `val.json` beside its pictures |
| `deepeyes` | DeepEyes-47k: Parquet in verl's shape with embedded pictures |
| `geobench` | GeoBench and GeoVistaBench: Parquet with pictures or their paths, and the place as JSON |
| `columns` | any file of rows, by a column map |

A task's prompt is its pictures and the question, with the options as lines "A. ...". `answer` is the letter where there
are options; they stand in `metadata["options"]`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from agentenv.envs.zoom.images import as_image
from agentenv.envs.zoom.rows import as_answer, as_letter, as_text, make_task, read_set
from agentenv.errors import DataError, UnknownNameError
from agentenv.task import OnError, TaskSet, existing
from agentenv.types import Image, Task

_IMAGE_MARK = re.compile(r"<image>\s*")
_FIELDS = ("question", "answer", "image", "images", "options", "id", "boxes")


# ---- V*


def vstar(root: str | Path, category: str = "", *, on_error: OnError = "raise") -> TaskSet:
    """V*, from a copy of `craigwu/vstar_bench`.

    Args:
        root: the folder that holds `test_questions.jsonl` and the folders of pictures.
        category: "direct_attributes", "relative_position", or both for "".
        on_error: "raise" or "skip" malformed rows.

    Returns:
        Tasks whose options are read out of the question. The annotation beside a picture (`target_object` and `bbox`
        as x, y, width, height) becomes `evidence["boxes"]`.

    Raises:
        UnknownNameError: there is no such folder, or no question of the category.
    """
    file = existing(existing(root) / "test_questions.jsonl")

    def to_task(row: dict[str, Any]) -> Task:
        question, options = _options_in(as_text(row["text"], "question"))
        label, kind = as_letter(row["label"], options), str(row["category"])
        metadata = {"source": "vstar", "category": kind}
        return make_task(
            f"vstar-{row['question_id']}",
            [as_image(row["image"], file.parent)],
            question,
            label,
            options,
            metadata,
            _vstar_evidence(file.parent / str(row["image"])),
        )

    tasks = TaskSet.from_jsonl(file, to_task, on_error=on_error, name="vstar")
    if not category:
        return tasks
    if category not in ("direct_attributes", "relative_position"):
        raise UnknownNameError("category of V*", category, ("direct_attributes", "relative_position"))
    return tasks.filter(lambda task: bool(task.metadata["category"] == category))


def _options_in(text: str) -> tuple[str, list[str]]:
    """The question and its options, where these stand in it as lines "(A) ..."."""
    lines = text.split("\n")
    marked = [re.fullmatch(r"\(([A-Z])\)\s*(.*)", line.strip()) for line in lines]
    options = [match[2] for match in marked if match]
    if [match[1] for match in marked if match] != list(ascii_uppercase[: len(options)]):
        raise DataError(f"the options are not lettered in order: {text!r:.120}")
    first = next((i for i, match in enumerate(marked) if match), len(lines))
    return "\n".join(lines[:first]).strip(), options


def _vstar_evidence(picture: Path) -> dict[str, Any]:
    file = picture.with_suffix(".json")
    if not file.is_file():
        return {}
    try:
        noted = json.loads(file.read_text(encoding="utf-8"))
        boxes = [[x, y, x + w, y + h] for x, y, w, h in noted["bbox"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"the annotation {file.name} is malformed: {type(error).__name__}: {error}"[:200]) from None
    return {"image": "image_1", "boxes": boxes, "labels": noted.get("target_object", [])}


# ---- HR-Bench


def hrbench(path: str | Path, size: str = "4k", *, on_error: OnError = "raise") -> TaskSet:
    """HR-Bench, from a copy of `DreamMr/HR-Bench`.

    Args:
        path: its TSV or Parquet file, or the folder that holds `hr_bench_<size>.tsv` or `.parquet`.
        size: "4k" or "8k", of a folder.
        on_error: "raise" or "skip" malformed rows; the "line" of an error is the row's number, from 1.

    Returns:
        Tasks whose metadata keep `category` (single, cross) and `cycle_category`, by which the four turns of a question
        are told apart.

    Raises:
        UnknownNameError: there is no such file or size.
    """
    if size not in ("4k", "8k"):
        raise UnknownNameError("size of HR-Bench", size, ("4k", "8k"))
    file = existing(path)
    if file.is_dir():
        tsv = file / f"hr_bench_{size}.tsv"
        file = tsv if tsv.exists() else existing(file / f"hr_bench_{size}.parquet")
    shown: dict[str, Image] = {}

    def to_task(row: dict[str, Any]) -> Task:
        options = [str(row[letter]) for letter in "ABCD"]
        metadata = {"source": "hrbench"} | {key: str(row.get(key) or "") for key in ("category", "cycle_category")}
        image = _shared(row, shown, file.parent)
        answer = as_letter(row["answer"], options)
        question = as_text(row["question"], "question")
        return make_task(f"{file.stem}-{row['index']}", [image], question, answer, options, metadata)

    return read_set(file, to_task, on_error)


def _shared(row: dict[str, Any], shown: dict[str, Image], base: Path) -> Image:
    """The picture of a row; a short number stands for the picture of the row with that index."""
    value = row["image"]
    if isinstance(value, str) and len(value) < 16 and value.strip().isdigit():
        if value.strip() not in shown:
            raise DataError(f"the picture of row {value.strip()!r} is referred to before it is given")
        return shown[value.strip()]
    image = as_image(value, base)
    shown[str(row["index"])] = image
    return image


# ---- VisualProbe


def visualprobe(path: str | Path, *, on_error: OnError = "raise") -> TaskSet:
    """VisualProbe, from a copy of one of Mini-o3's data sets.

    Args:
        path: `train.json` or `val.json` (a list of rows with `images`, `problem`, `solution` and `doc_id`), or the
            folder that holds one of them.
        on_error: "raise" or "skip" malformed rows; the "line" of an error is the row's number, from 1.

    Returns:
        Tasks with open answers. Paths of pictures count from the file's folder or from the one above it, as both are
        in use.

    Raises:
        UnknownNameError: there is no such file.
    """
    file = existing(path)
    if file.is_dir():
        file = next((file / name for name in ("val.json", "train.json") if (file / name).exists()), file / "val.json")
    existing(file)

    def to_task(row: dict[str, Any]) -> Task:
        given = row["images"] if isinstance(row["images"], (list, tuple)) else [row["images"]]
        images = [as_image(value, _base_of(value, file.parent)) for value in given]
        question = _IMAGE_MARK.sub("", as_text(row["problem"], "problem")).strip()
        metadata = {"source": "visualprobe"} | {k: row[k] for k in ("data_source", "category") if row.get(k)}
        return make_task(
            str(row.get("doc_id", row["_line"])), images, question, as_answer(row["solution"]), (), metadata
        )

    return read_set(file, to_task, on_error)


def _base_of(value: Any, folder: Path) -> Path:
    return folder.parent if isinstance(value, str) and not (folder / value[:1024]).is_file() else folder


# ---- DeepEyes


def deepeyes(source: str | Path, *, on_error: OnError = "raise") -> TaskSet:
    """DeepEyes-47k, from its Parquet files (verl's shape).

    Args:
        source: a Parquet, JSONL or JSON file with `prompt`, `images`, `reward_model` and `env_name`.
        on_error: "raise" or "skip" malformed rows.

    Returns:
        Tasks whose question is the last user message without the mark `<image>`. Metadata keep `data_source`,
        `ability` and `env_name`, which says which tool a row is for.

    Raises:
        UnknownNameError: there is no such file.
    """
    file = existing(source)

    def to_task(row: dict[str, Any]) -> Task:
        turns = [turn["content"] for turn in row["prompt"] if turn["role"] == "user"]
        if not turns:
            raise DataError("the prompt has no user message")
        question = _IMAGE_MARK.sub("", as_text(turns[-1], "user message")).strip()
        images = [as_image(value, file.parent) for value in row["images"] or ()]
        if not images:
            raise DataError("the row has no picture")
        extra = row.get("extra_info") or {}
        kept = {key: str(row.get(key) or "") for key in ("data_source", "ability", "env_name")}
        number = extra.get("id", extra.get("index", row["_line"]))
        answer = as_answer(row["reward_model"]["ground_truth"])
        return make_task(f"{file.stem}-{number}", images, question, answer, (), {"source": "deepeyes", **kept})

    return read_set(file, to_task, on_error)


# ---- GeoBench

_PLACES: Mapping[str, tuple[str, ...]] = {
    "country": ("country", "country_name", "nation"),
    "state": ("province_or_state", "state", "province", "admin1", "region"),
    "city": ("city", "city_name", "town", "locality"),
    "lat": ("lat", "latitude"),
    "lng": ("lng", "lon", "long", "longitude"),
}
_MOST = {"lat": 90, "lng": 180}


def geobench(
    path: str | Path, *, question: str = "Please analyze where is the place.", on_error: OnError = "raise"
) -> TaskSet:
    """GeoBench or GeoVistaBench, from its Parquet file (or the same rows as JSONL).

    Args:
        path: the file; paths of pictures (`raw_image_path`) count from its folder or one of the two above it.
        question: what is asked of every picture; by default what GeoVista asks.
        on_error: "raise" or "skip" malformed rows.

    Returns:
        Tasks whose answer is the city, or the least that is known; metadata `place` holds country, state, city, lat
        and lng as far as they are known, and `data_type` (photo, panorama, satellite).

    Raises:
        UnknownNameError: there is no such file.
    """
    file = existing(path)

    def to_task(row: dict[str, Any]) -> Task:
        noted = row["metadata"]
        noted = json.loads(noted) if isinstance(noted, str) else noted
        if not isinstance(noted, dict):
            raise DataError(f"the metadata must be an object, not {noted!r:.60}")
        place = _place(noted)
        answer = place.get("city") or place.get("state") or place.get("country")
        if answer is None:
            raise DataError("the metadata name no place")
        value = row.get("raw_image_path") or row.get("image")
        image = as_image(value, _root_of(value, file.parent))
        kind = str(row.get("data_type") or noted.get("data_type") or "panorama")
        metadata = {"source": "geobench", "data_type": kind, "place": place}
        number = row.get("id") or noted.get("uid") or row["_line"]
        return make_task(f"geobench-{number}", [image], question, str(answer), (), metadata)

    return read_set(file, to_task, on_error)


def _place(noted: Mapping[str, Any]) -> dict[str, Any]:
    inner = noted.get("location")
    layers = [noted, inner] if isinstance(inner, Mapping) else [noted]
    found = {
        name: layer[key]
        for layer in reversed(layers)
        for name, keys in _PLACES.items()
        for key in reversed(keys)
        if layer.get(key) not in (None, "")
    }
    return {name: _degrees(name, found[name]) if name in _MOST else found[name] for name in _PLACES if name in found}


def _degrees(name: str, value: Any) -> float:
    try:
        degrees = float(value)
    except (TypeError, ValueError):
        degrees = math.nan
    if not -_MOST[name] <= degrees <= _MOST[name]:
        raise DataError(f"{name} is {value!r:.40}; degrees are from -{_MOST[name]} to {_MOST[name]}")
    return degrees


def _root_of(value: Any, folder: Path) -> Path:
    if not isinstance(value, str):
        return folder
    roots = (folder, folder.parent, folder.parent.parent)
    return next((root for root in roots if (root / value[:1024]).is_file()), folder)


# ---- any data set


def from_columns(
    path: str | Path,
    columns: Mapping[str, str] | None = None,
    *,
    keep: Sequence[str] = (),
    box_format: str = "xyxy",
    on_error: OnError = "raise",
) -> TaskSet:
    """Any JSONL, JSON, TSV, CSV or Parquet file of questions on pictures, by a column map.

    Args:
        path: the file; paths of pictures count from its folder.
        columns: field -> column, with the fields question, answer, image, images, options, id and boxes. Fields stand
            under their own names by default; options may also stand in columns A, B, C ...
        keep: columns that go into the metadata.
        box_format: "xyxy" or "xywh" of `boxes`, in pixels of the first picture.
        on_error: "raise" or "skip" malformed rows.

    Raises:
        UnknownNameError: there is no such file, field or box format.
    """
    file, given = existing(path), dict(columns or {})
    for field in given:
        if field not in _FIELDS:
            raise UnknownNameError("task field", field, _FIELDS)
    if box_format not in ("xyxy", "xywh"):
        raise UnknownNameError("box format", box_format, ("xyxy", "xywh"))

    def to_task(row: dict[str, Any]) -> Task:
        values = {field: row[given[field]] if field in given else row.get(field) for field in _FIELDS}
        pictures = values["images"] if values["images"] is not None else [values["image"]]
        images = [as_image(value, file.parent) for value in pictures]
        options = _listed(values["options"]) or _lettered(row)
        answer = as_letter(values["answer"], options) if options else as_answer(values["answer"])
        number = row["_line"] if values["id"] is None else values["id"]
        metadata = {"source": file.stem, **{column: row[column] for column in keep}}
        question = _IMAGE_MARK.sub("", as_text(values["question"], "question")).strip()
        boxes = _boxes(values["boxes"], box_format)
        evidence = {"image": "image_1", "boxes": boxes} if boxes else {}
        return make_task(f"{file.stem}-{number}", images, question, answer, options, metadata, evidence)

    return read_set(file, to_task, on_error)


def _listed(value: Any) -> list[str]:
    if isinstance(value, str):
        value = json.loads(value)
    return [str(option) for option in value or ()]


def _lettered(row: Mapping[str, Any]) -> list[str]:
    options = []
    for letter in ascii_uppercase:
        if row.get(letter) in (None, ""):
            break
        options.append(str(row[letter]))
    return options


def _boxes(value: Any, box_format: str) -> list[list[float]]:
    value = json.loads(value) if isinstance(value, str) else value
    if not value:
        return []
    several = value if isinstance(value[0], (list, tuple)) else [value]
    boxes = []
    for a, b, c, d in several:
        boxes.append([a, b, a + c, b + d] if box_format == "xywh" else [a, b, c, d])
    return boxes


DATASETS: Mapping[str, Callable[..., TaskSet]] = {
    "vstar": vstar,
    "hrbench": hrbench,
    "visualprobe": visualprobe,
    "deepeyes": deepeyes,
    "geobench": geobench,
    "columns": from_columns,
}
"""Loaders by name."""
