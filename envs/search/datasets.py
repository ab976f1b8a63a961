"""Question answering sets from local copies, each in its own format. Nothing is downloaded.

| name | what is read |
| --- | --- |
| `search-r1` | Search-R1's NQ and HotpotQA: Parquet or JSONL with `golden_answers`, or verl's `reward_model` |
| `hotpotqa` | HotpotQA as published: JSON with `supporting_facts`, whose titles are kept as evidence |
| `browsecomp` | BrowseComp: CSV with `problem` and `answer`, plain or under its `canary`; sets in its shape |
| `columns` | any file of rows, by a column map |

`answer` is a string, or a list of strings of which one must be said (`answer_type` "text" either way).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentenv.envs.zoom.rows import as_answer, as_text, read_set
from agentenv.errors import DataError, UnknownNameError
from agentenv.task import OnError, TaskSet, existing
from agentenv.types import Task, Text

_FIELDS = ("question", "answer", "id")


def _qa(id: str, question: Any, answer: Any, metadata: dict[str, Any], evidence: dict[str, Any] | None = None) -> Task:
    said = as_text(question, "question").strip()
    return Task(id, (Text(said),), listed_answers(answer), evidence or {}, metadata={**metadata, "answer_type": "text"})


def listed_answers(value: Any) -> str | list[str]:
    """An answer, or several of which one must be said.

    Raises:
        DataError: it is empty.
    """
    if isinstance(value, (list, tuple)):
        several = list(dict.fromkeys(as_answer(one) for one in value))
        if not several:
            raise DataError("the list of answers is empty")
        return several if len(several) > 1 else several[0]
    return as_answer(value)


def search_r1(path: str | Path, *, on_error: OnError = "raise") -> TaskSet:
    """Search-R1's training and test sets (NQ, HotpotQA and others), from Parquet, JSONL or JSON.

    Args:
        path: a file of FlashRAG's rows (`id`, `question`, `golden_answers`) or of verl's (`prompt`, `reward_model`
            with the `target`s, `data_source`).
        on_error: "raise" or "skip" malformed rows.

    Returns:
        Tasks that ask the bare question; a list answer means any of them. Metadata keep `data_source`.

    Raises:
        UnknownNameError: there is no such file.
    """
    file = existing(path)

    def to_task(row: dict[str, Any]) -> Task:
        answers = row.get("golden_answers")
        if answers is None:
            if "reward_model" not in row:
                raise DataError("neither a column 'golden_answers' nor 'reward_model'")
            answers = row["reward_model"]["ground_truth"]
            answers = answers.get("target") if isinstance(answers, Mapping) else answers
        question = row.get("question") or _asked_in(row["prompt"])
        source = str(row.get("data_source") or file.stem)
        number = row.get("id", (row.get("extra_info") or {}).get("index", row["_line"]))
        return _qa(f"{file.stem}-{number}", question, answers, {"source": "search-r1", "data_source": source})

    return read_set(file, to_task, on_error)


def _asked_in(prompt: Any) -> str:
    """The question at the end of verl's prompt, which begins with Search-R1's instructions."""
    if not isinstance(prompt, list) or not prompt or not isinstance(prompt[-1], Mapping):
        raise DataError(f"the prompt must be a list of messages, not {prompt!r:.60}")
    said = as_text(prompt[-1].get("content"), "prompt")
    return said.rpartition("Question:")[2].strip() or said


def hotpotqa(path: str | Path, *, on_error: OnError = "raise") -> TaskSet:
    """HotpotQA as published (`hotpot_dev_distractor_v1.json` and others).

    Args:
        path: its JSON file, or the same rows as JSONL or Parquet.
        on_error: "raise" or "skip" malformed rows; the "line" of an error is the row's number, from 1.

    Returns:
        Tasks whose `evidence["titles"]` are the pages of the supporting facts; metadata keep `type` (bridge,
        comparison) and `level`.

    Raises:
        UnknownNameError: there is no such file.
    """
    file = existing(path)

    def to_task(row: dict[str, Any]) -> Task:
        facts = row.get("supporting_facts") or ()
        titles = facts["title"] if isinstance(facts, Mapping) else [title for title, _ in facts]
        kept = {key: str(row[key]) for key in ("type", "level") if row.get(key)}
        number = row.get("_id", row.get("id", row["_line"]))
        evidence = {"titles": list(dict.fromkeys(map(str, titles)))} if len(titles) else {}
        return _qa(f"hotpotqa-{number}", row["question"], row["answer"], {"source": "hotpotqa", **kept}, evidence)

    return read_set(file, to_task, on_error)


def browsecomp(path: str | Path, *, on_error: OnError = "raise") -> TaskSet:
    """BrowseComp and sets in its shape.

    Args:
        path: CSV, TSV, JSON, JSONL or Parquet with `problem` (or `question`) and `answer`. Where a row has a `canary`,
            both are XORed with its SHA-256 and written in base64, as the set is published, and are read out of it.
        on_error: "raise" or "skip" malformed rows.

    Raises:
        UnknownNameError: there is no such file.
    """
    file = existing(path)

    def to_task(row: dict[str, Any]) -> Task:
        canary = str(row.get("canary") or "")
        question, answer = row.get("problem", row.get("question")), row["answer"]
        if canary:
            question, answer = (_revealed(as_text(text, "problem"), canary) for text in (question, answer))
        topic = row.get("problem_topic") or row.get("topic")
        kept = {"topic": str(topic)} if topic else {}
        return _qa(f"{file.stem}-{row.get('id', row['_line'])}", question, answer, {"source": "browsecomp", **kept})

    return read_set(file, to_task, on_error)


def _revealed(text: str, canary: str) -> str:
    """Source: `browsecomp_eval.py` of OpenAI's simple-evals."""
    try:
        hidden = base64.b64decode(text, validate=True)
        key = hashlib.sha256(canary.encode()).digest()
        return bytes(byte ^ key[i % len(key)] for i, byte in enumerate(hidden)).decode()
    except (binascii.Error, ValueError):
        raise DataError("the row has a canary, but is not hidden under it") from None


def from_columns(
    path: str | Path,
    columns: Mapping[str, str] | None = None,
    *,
    keep: Sequence[str] = (),
    on_error: OnError = "raise",
) -> TaskSet:
    """Any JSONL, JSON, TSV, CSV or Parquet file of questions, by a column map.

    Args:
        path: the file.
        columns: field -> column, with the fields question, answer and id, which stand under their own names by default.
            The answer may be a list, also as JSON text.
        keep: columns that go into the metadata.
        on_error: "raise" or "skip" malformed rows.

    Raises:
        UnknownNameError: there is no such file or field.
    """
    file, given = existing(path), dict(columns or {})
    for field in given:
        if field not in _FIELDS:
            raise UnknownNameError("task field", field, _FIELDS)

    def to_task(row: dict[str, Any]) -> Task:
        values = {field: row[given[field]] if field in given else row.get(field) for field in _FIELDS}
        for field in ("question", "answer"):
            if field not in given and field not in row:
                names = ", ".join(name for name in row if name != "_line")
                raise DataError(f"no column {field!r}; say columns={{{field!r}: ...}}; there are {names}")
        answer = _listed(values["answer"])
        number = row["_line"] if values["id"] is None else values["id"]
        metadata = {"source": file.stem, **{column: row[column] for column in keep}}
        return _qa(f"{file.stem}-{number}", values["question"], answer, metadata)

    return read_set(file, to_task, on_error)


def _listed(answer: Any) -> Any:
    """A list that stands there as JSON text; anything else as it is, such as a text that begins with a bracket."""
    if isinstance(answer, str) and answer.startswith("["):
        with suppress(ValueError):
            return json.loads(answer)
    return answer


DATASETS: Mapping[str, Callable[..., TaskSet]] = {
    "search-r1": search_r1,
    "hotpotqa": hotpotqa,
    "browsecomp": browsecomp,
    "columns": from_columns,
}
"""Loaders by name."""
