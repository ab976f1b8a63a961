"""Visual questions that need knowledge, from local copies, each in its own format. Nothing is downloaded.

| name | what is read |
| --- | --- |
| `fvqa` | FVQA of MMSearch-R1: Parquet in verl's shape with `images`, `prompt` and `reward_model` |
| `infoseek` | InfoSeek: JSONL with `question`, `image_id` and `answer`, beside a folder of pictures |
| `simplevqa` | SimpleVQA: JSONL or Parquet with `image` in base64, `question` and `answer` |
| `mmsearch` | MMSearch: Parquet with `query`, `query_image`, `gt_answer` and `alternative_gt_answers` |
| `columns` | any file of rows, by a column map |

`answer` is a string, or a list of strings of which one must be said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentenv.envs.search.datasets import listed_answers
from agentenv.envs.zoom.datasets import from_columns
from agentenv.envs.zoom.images import as_image
from agentenv.envs.zoom.rows import as_text, read_set
from agentenv.errors import DataError
from agentenv.task import OnError, TaskSet, existing
from agentenv.types import Image, Task, Text

_MARK = re.compile(r"<image>\s*")
_ENDINGS = ("", ".jpg", ".JPEG", ".jpeg", ".png", ".webp")


def _task(id: str, images: Sequence[Image], question: Any, answer: Any, metadata: dict[str, Any]) -> Task:
    if not images:
        raise DataError("the row has no picture")
    said = _MARK.sub("", as_text(question, "question")).strip()
    return Task(id, (*images, Text(said)), listed_answers(answer), metadata={**metadata, "answer_type": "text"})


def _images(value: Any, base: Path) -> list[Image]:
    several = value if isinstance(value, (list, tuple)) else [value]
    return [as_image(one, base) for one in several if one is not None]


def fvqa(path: str | Path, *, on_error: OnError = "raise") -> TaskSet:
    """FVQA, from a copy of `lmms-lab/FVQA`.

    Args:
        path: a Parquet, JSONL or JSON file with `prompt`, `images` and `reward_model` (`ground_truth`, and
            `candidate_answers` where other answers are right, too).
        on_error: "raise" or "skip" malformed rows.

    Returns:
        Tasks that ask the last user message without the mark `<image>`. Metadata keep `data_source` and `category`
        (search_required, search_free), by which the two halves are balanced.

    Raises:
        UnknownNameError: there is no such file.
    """
    file = existing(path)

    def to_task(row: dict[str, Any]) -> Task:
        turns = [turn["content"] for turn in row["prompt"] if turn["role"] == "user"]
        if not turns:
            raise DataError("the prompt has no user message")
        model = row["reward_model"]
        answers = [model["ground_truth"], *_others(model.get("candidate_answers"))]
        kept = {key: str(row[key]) for key in ("data_source", "category") if row.get(key)}
        number = row.get("data_id", row["_line"])
        return _task(
            f"fvqa-{number}", _images(row["images"], file.parent), turns[-1], answers, {"source": "fvqa", **kept}
        )

    return read_set(file, to_task, on_error)


def _others(value: Any) -> list[Any]:
    """More right answers: a list, or its JSON text."""
    if isinstance(value, str):
        value = json.loads(value) if value.strip().startswith("[") else [value]
    return [one for one in value or () if str(one).strip()]


def infoseek(path: str | Path, images: str | Path = "", *, on_error: OnError = "raise") -> TaskSet:
    """InfoSeek.

    Args:
        path: its JSONL file, with `data_id`, `image_id`, `question` and `answer` or `answer_eval`, whose `range` of a
            number is kept: an answer within it is right.
        images: the folder of pictures, named by `image_id`; `images` beside the file by default.
        on_error: "raise" or "skip" malformed rows.

    Raises:
        UnknownNameError: there is no such file or folder.
    """
    file = existing(path)
    folder = existing(images) if images else file.parent / "images"

    def to_task(row: dict[str, Any]) -> Task:
        name = str(row["image_id"])
        picture = next((name + ending for ending in _ENDINGS if (folder / (name + ending)).is_file()), name)
        marked = row.get("answer_eval") or ()
        answers = [*_others(row.get("answer")), *(one for one in marked if isinstance(one, str))]
        spans = [one["range"] for one in marked if isinstance(one, Mapping) and one.get("range")]
        kept: dict[str, Any] = {"data_split": str(row["data_split"])} if row.get("data_split") else {}
        if spans:
            low, high = map(float, spans[0])
            kept["range"] = [low, high]
        id = f"infoseek-{row.get('data_id', row['_line'])}"
        return _task(id, _images(picture, folder), row["question"], answers, {"source": "infoseek", **kept})

    return read_set(file, to_task, on_error)


def simplevqa(path: str | Path, language: str = "", *, on_error: OnError = "raise") -> TaskSet:
    """SimpleVQA.

    Args:
        path: JSONL, JSON or Parquet with `data_id`, `image` (base64, or a path), `question`, `answer` and `language`.
        language: "EN" or "CN"; both for "".
        on_error: "raise" or "skip" malformed rows.

    Raises:
        UnknownNameError: there is no such file.
    """
    file = existing(path)

    def to_task(row: dict[str, Any]) -> Task:
        kept = {key: str(row[key]) for key in ("language", "original_category", "source") if row.get(key)}
        id = f"simplevqa-{row.get('data_id', row['_line'])}"
        metadata = {**kept, "source": "simplevqa"}
        return _task(id, _images(row["image"], file.parent), row["question"], row["answer"], metadata)

    tasks = read_set(file, to_task, on_error)
    return tasks.filter(lambda task: bool(task.metadata.get("language") == language)) if language else tasks


def mmsearch(path: str | Path, *, on_error: OnError = "raise") -> TaskSet:
    """MMSearch, its end-to-end rows.

    Args:
        path: Parquet, JSONL or JSON with `sample_id`, `query`, `query_image`, `gt_answer` and
            `alternative_gt_answers`. Rows without a picture are malformed here: they are for the search environment.
        on_error: "raise" or "skip" malformed rows.

    Raises:
        UnknownNameError: there is no such file.
    """
    file = existing(path)

    def to_task(row: dict[str, Any]) -> Task:
        answers = [row["gt_answer"], *_others(row.get("alternative_gt_answers"))]
        kept = {key: str(row[key]) for key in ("area", "subfield", "timestamp") if row.get(key)}
        id = f"mmsearch-{row.get('sample_id', row['_line'])}"
        images = _images(row.get("query_image"), file.parent)
        return _task(id, images, row["query"], answers, {"source": "mmsearch", **kept})

    return read_set(file, to_task, on_error)


DATASETS: Mapping[str, Callable[..., TaskSet]] = {
    "fvqa": fvqa,
    "infoseek": infoseek,
    "simplevqa": simplevqa,
    "mmsearch": mmsearch,
    "columns": from_columns,
}
"""Loaders by name."""
