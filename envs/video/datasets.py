"""Video data sets from local copies, each in its own format. Nothing is downloaded.

| name | what is read |
| --- | --- |
| `videosiah` | VideoSIAH (LongVT): rows for evaluation, rows for RL in verl's shape, conversations (`messages`) |
| `charades` | Charades-STA: the lines "ID START END##sentence", or rows with `video`, `caption` and `timestamp` |
| `videomme` | Video-MME: Parquet with `videoID`, `question`, `options`, `answer` |
| `lvbench` | LVBench: `video_info.meta.jsonl` with several questions a video, or one row a question |
| `longvideoreason` | LongVideo-Reason (LongVILA-R1): rows with `videos`, `problem`, `answer` |
| `columns` | any file of rows, by a column map |

A task's prompt is its video and the question, with the options as lines "A. ...". `answer` is the letter where there
are options, [start, end] in seconds where a moment is asked for (`metadata["answer_type"]` "span"), else text. Known
moments of the evidence stand in `evidence["spans"]`. A video is looked for when its row is read, and opened when its
task is asked for; with `on_error="skip"` it is also opened once when its row is read, and a row whose video cannot be
is skipped like any other that is malformed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentenv._taskrows import json_lines
from agentenv.envs.rewards.spans import answered_windows
from agentenv.envs.video.rows import Reader, as_span, as_spans, bare_options, letter_of, split_options
from agentenv.envs.zoom.rows import as_answer, as_text
from agentenv.errors import DataError, UnknownNameError
from agentenv.task import NumberedRows, OnError, TaskSet, existing
from agentenv.types import Task

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_CHARADES = re.compile(r"(\S+) (\d+(?:\.\d+)?) (\d+(?:\.\d+)?)##(.+)")
_FIELDS = ("question", "answer", "video", "videos", "options", "id", "spans")
_WHEN = "When does this happen in the video: {}? Answer with its start and end in seconds, as [start, end]."


# ---- VideoSIAH


def videosiah(path: str | Path, *, videos: str | Path | None = None, on_error: OnError = "raise") -> TaskSet:
    """VideoSIAH, from a copy of one of LongVT's data sets.

    Args:
        path: a Parquet, JSONL or JSON file. Its rows are of VideoSIAH-Eval (`video_path`, `question`, `answer`); or for
            RL, in verl's shape (`videos`, `reward_model`, `extra_info` with `question` and `video_segment`); or
            conversations (`messages`, also as JSON text), whose last answer is the reference.
        videos: the folder of the videos; see `files.find_video`.
        on_error: "raise" or "skip" malformed rows.

    Returns:
        Tasks with open answers; `video_segment` becomes `evidence["spans"]`.

    Raises:
        UnknownNameError: there is no such file or folder.
    """
    file = existing(path)
    reader = Reader(file, videos, on_error)

    def to_task(row: dict[str, Any]) -> Task:
        if row.get("messages"):
            return _conversation(reader, row)
        extra = row.get("extra_info") or {}
        number = extra.get("index", row.get("id", row["_line"]))
        source = str(row.get("data_source") or "videosiah")
        if not row.get("reward_model"):
            said, question = as_answer(row["answer"]), as_text(row["question"], "question")
            return reader.task(f"{file.stem}-{number}", row["video_path"], question, said, metadata={"source": source})
        truth = row["reward_model"]["ground_truth"]
        answer = as_span(truth) if isinstance(truth, (list, tuple)) else as_answer(truth)
        question = as_text(extra.get("question"), "question")
        spans = as_spans(extra.get("video_segment")) or ([answer] if isinstance(answer, list) else [])
        return reader.task(
            f"{file.stem}-{number}", row["videos"], question, answer, (), spans, metadata={"source": source}
        )

    return reader.read(to_task)


def _conversation(reader: Reader, row: dict[str, Any]) -> Task:
    messages = json.loads(row["messages"]) if isinstance(row["messages"], str) else row["messages"]
    asked = next((message for message in messages if message["role"] == "user"), None)
    said = [message for message in messages if message["role"] == "assistant"]
    answers = [found for message in said for found in _ANSWER.findall(_text(message["content"]))]
    if asked is None or not answers:
        raise DataError("the conversation has no question, or no <answer>")
    parts = asked["content"] if isinstance(asked["content"], (list, tuple)) else []
    shown = [part for part in parts if part.get("type") in ("video", "video_url")]
    if not shown:
        raise DataError("the first question of the conversation has no video")
    number = row.get("id", row["_line"])
    question = as_text(_text(asked["content"]), "question")
    return reader.task(
        f"{reader.file.stem}-{number}", shown, question, as_answer(answers[-1]), metadata={"source": "videosiah"}
    )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text") or "" for part in content if part.get("type") == "text").strip()


# ---- Charades-STA


def charades(path: str | Path, *, videos: str | Path | None = None, on_error: OnError = "raise") -> TaskSet:
    """Charades-STA: when does it happen?

    Args:
        path: `charades_sta_test.txt` or `..._train.txt`; or rows (JSONL, JSON, Parquet) with `video`, `caption` or
            `sentence`, and `timestamp` as [start, end].
        videos: the folder of the videos; see `files.find_video`.
        on_error: "raise" or "skip" malformed rows.

    Returns:
        Tasks whose answer, and evidence span, is [start, end] in seconds.

    Raises:
        UnknownNameError: there is no such file or folder.
    """
    file = existing(path)
    reader = Reader(file, videos, on_error)

    def to_task(row: dict[str, Any]) -> Task:
        sentence = as_text(row.get("caption") or row.get("sentence"), "sentence").strip().rstrip(".")
        span = as_span(row.get("timestamp", row.get("solution")))
        question = _WHEN.format(sentence)
        return reader.task(
            f"{file.stem}-{row['_line']}",
            row["video"],
            question,
            span,
            (),
            [span],
            {"source": "charades", "query": sentence},
        )

    return reader.read(to_task, (lambda: _charades_lines(file)) if file.suffix.lower() == ".txt" else None)


def _charades_lines(file: Path) -> NumberedRows:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            match = _CHARADES.fullmatch(line.strip())
            if match is not None:
                yield number, {"video": match[1], "timestamp": [match[2], match[3]], "caption": match[4]}
            elif line.strip():
                yield number, DataError(f'a line reads "ID START END##sentence", not {line.strip()!r:.80}')


# ---- Video-MME


def videomme(
    path: str | Path, duration: str = "", *, videos: str | Path | None = None, on_error: OnError = "raise"
) -> TaskSet:
    """Video-MME, from a copy of `lmms-lab/Video-MME`.

    Args:
        path: its Parquet file (or the same rows as JSONL or JSON), or the folder that holds one.
        duration: "short", "medium", "long", or all for "".
        videos: the folder of the videos; see `files.find_video`.
        on_error: "raise" or "skip" malformed rows.

    Returns:
        Tasks with options; metadata keep `duration`, `domain`, `sub_category` and `task_type`.

    Raises:
        UnknownNameError: there is no such file, folder or duration.
    """
    if duration not in ("", "short", "medium", "long"):
        raise UnknownNameError("duration of Video-MME", duration, ("short", "medium", "long"))
    reader = Reader(_only_file(existing(path), "**/*.parquet"), videos, on_error)

    def to_task(row: dict[str, Any]) -> Task:
        options = bare_options(row["options"])
        kept = {key: str(row.get(key) or "") for key in ("duration", "domain", "sub_category", "task_type")}
        letter = letter_of(row["answer"], options)
        question = as_text(row["question"], "question")
        return reader.task(
            f"videomme-{row['question_id']}",
            row["videoID"],
            question,
            letter,
            options,
            metadata={"source": "videomme", **kept},
        )

    tasks = reader.read(to_task)
    return tasks.filter(lambda task: bool(task.metadata["duration"] == duration)) if duration else tasks


def _only_file(path: Path, pattern: str) -> Path:
    """The file, or the first of its kind in a folder."""
    if not path.is_dir():
        return path
    found = sorted(path.glob(pattern))
    if not found:
        raise UnknownNameError("file", str(path / pattern), ())
    return found[0]


# ---- LVBench


def lvbench(path: str | Path, *, videos: str | Path | None = None, on_error: OnError = "raise") -> TaskSet:
    """LVBench, from a copy of `THUDM/LVBench`.

    Args:
        path: `video_info.meta.jsonl`, whose lines hold a video's `key` and its questions (`qa`); or rows (JSONL, JSON,
            Parquet) of one question each; or the folder that holds the former.
        videos: the folder of the videos, named by their key; see `files.find_video`.
        on_error: "raise" or "skip" malformed rows.

    Returns:
        Tasks with options, read out of the question. `time_reference` ("00:15-00:19") becomes `evidence["spans"]`;
        metadata keep it and `question_type`.

    Raises:
        UnknownNameError: there is no such file or folder.
    """
    file = _only_file(existing(path), "**/video_info.meta.jsonl")
    reader = Reader(file, videos, on_error)

    def to_task(row: dict[str, Any]) -> Task:
        question, options = split_options(as_text(row["question"], "question"))
        when = str(row.get("time_reference") or "")
        kinds = row.get("question_type") or row.get("type") or []
        letter = letter_of(row["answer"], options)
        spans = answered_windows(when)
        video = row.get("video_path") or row["key"]
        kept = {"question_type": [kinds] if isinstance(kinds, str) else list(kinds), "time_reference": when}
        return reader.task(
            f"lvbench-{row['uid']}", video, question, letter, options, spans, {"source": "lvbench", **kept}
        )

    lines = file.suffix.lower() in (".jsonl", ".ndjson")
    return reader.read(to_task, (lambda: _lvbench_rows(file)) if lines else None)


def _lvbench_rows(file: Path) -> NumberedRows:
    """The questions of every line, each with the key of its video."""
    for number, row in json_lines(file):
        if not isinstance(row, dict) or not isinstance(row.get("qa"), list):
            yield number, row
            continue
        for one in row["qa"]:
            yield number, {**row, **one} if isinstance(one, dict) else DataError("a question must be an object")


# ---- LongVideo-Reason


def longvideoreason(path: str | Path, *, videos: str | Path | None = None, on_error: OnError = "raise") -> TaskSet:
    """LongVideo-Reason (LongVILA-R1), and other rows in the same style.

    Args:
        path: a Parquet, JSONL or JSON file with `videos` or `video`, `problem` or `question`, `answer` or `solution`.
        videos: the folder of the videos; see `files.find_video`.
        on_error: "raise" or "skip" malformed rows.

    Returns:
        Tasks with options where the problem, or a column `options`, has some; what stands in `<answer>` of a solution
        is the answer. Metadata keep `problem_type`.

    Raises:
        UnknownNameError: there is no such file or folder.
    """
    file = existing(path)
    reader = Reader(file, videos, on_error)

    def to_task(row: dict[str, Any]) -> Task:
        question, options = split_options(as_text(row.get("problem") or row.get("question"), "problem"))
        options = options or bare_options(row.get("options") or ())
        said = as_answer(row.get("answer") or row.get("solution"))
        tagged = _ANSWER.findall(said)
        answer = tagged[-1].strip() if tagged else said
        number = row.get("problem_id", row.get("id", row["_line"]))
        kept = {"source": "longvideoreason", "problem_type": str(row.get("problem_type") or "")}
        answer = letter_of(answer, options) if options else answer
        return reader.task(
            f"{file.stem}-{number}", row.get("videos") or row["video"], question, answer, options, metadata=kept
        )

    return reader.read(to_task)


# ---- any data set


def from_columns(
    path: str | Path,
    columns: Mapping[str, str] | None = None,
    *,
    keep: Sequence[str] = (),
    videos: str | Path | None = None,
    on_error: OnError = "raise",
) -> TaskSet:
    """Any JSONL, JSON, TSV, CSV or Parquet file of questions on videos, by a column map.

    Args:
        path: the file.
        columns: field -> column, with the fields question, answer, video, videos, options, id and spans. Fields stand
            under their own names by default. An answer that is [start, end] asks for a moment; `spans` are the moments
            of the evidence, in seconds.
        keep: columns that go into the metadata.
        videos: the folder of the videos; see `files.find_video`.
        on_error: "raise" or "skip" malformed rows.

    Raises:
        UnknownNameError: there is no such file, folder or field.
    """
    file, given = existing(path), dict(columns or {})
    for field in given:
        if field not in _FIELDS:
            raise UnknownNameError("task field", field, _FIELDS)
    reader = Reader(file, videos, on_error)

    def to_task(row: dict[str, Any]) -> Task:
        values = {field: row[given[field]] if field in given else row.get(field) for field in _FIELDS}
        options = values["options"]
        options = bare_options(json.loads(options) if isinstance(options, str) else options or ())
        answer, spans = values["answer"], as_spans(values["spans"])
        if isinstance(answer, (list, tuple)):
            answer = as_span(answer)
            spans = spans or [answer]
        else:
            answer = letter_of(answer, options) if options else as_answer(answer)
        number = row["_line"] if values["id"] is None else values["id"]
        shown = values["videos"] if values["videos"] is not None else values["video"]
        metadata = {"source": file.stem, **{column: row[column] for column in keep}}
        question = as_text(values["question"], "question")
        return reader.task(f"{file.stem}-{number}", shown, question, answer, options, spans, metadata)

    return reader.read(to_task)


DATASETS: Mapping[str, Callable[..., TaskSet]] = {
    "videosiah": videosiah,
    "charades": charades,
    "videomme": videomme,
    "lvbench": lvbench,
    "longvideoreason": longvideoreason,
    "columns": from_columns,
}
"""Loaders by name."""
