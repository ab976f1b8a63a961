"""Readers of question answering sets and of visual ones: real rows, and malformed ones with file and line."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentenv
from agentenv.envs.mm_search import datasets as visual
from agentenv.envs.mm_search import mm_search
from agentenv.envs.search import datasets, search
from agentenv.envs.search.answers import search_match
from agentenv.errors import DataError, UnknownNameError
from agentenv.task import TaskSet
from agentenv.tools.search import open_corpus
from agentenv.types import Image, Text
from tests.pictures import encoded, scene


def written(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def question(tasks: TaskSet, index: int = 0) -> str:
    part = tasks[index].prompt[-1]
    assert isinstance(part, Text)
    return part.text


def test_search_r1_in_both_shapes(tmp_path: Path) -> None:
    flash = {"id": "test_0", "question": "who wrote it", "golden_answers": ["Ann", "Ann B."], "data_source": "nq"}
    verl = {
        "prompt": [{"role": "user", "content": "Say <answer> Beijing </answer>. Question: who?\n"}],
        "reward_model": {"ground_truth": {"target": ["Bob"]}},
        "extra_info": {"index": 7},
        "data_source": "hotpotqa",
    }
    tasks = datasets.search_r1(written(tmp_path / "nq.jsonl", flash, verl))
    assert [task.id for task in tasks] == ["nq-test_0", "nq-7"]
    assert [task.answer for task in tasks] == [["Ann", "Ann B."], "Bob"]
    assert [question(tasks, i) for i in range(2)] == ["who wrote it", "who?"]
    assert tasks[1].metadata == {"source": "search-r1", "data_source": "hotpotqa", "answer_type": "text"}


def test_hotpotqa(tmp_path: Path) -> None:
    row = {
        "_id": "5a8b",
        "question": "Were A and B of one land?",
        "answer": "yes",
        "supporting_facts": [["A", 0], ["B", 0], ["A", 1]],
        "context": [["A", ["A is here."]]],
        "type": "comparison",
        "level": "hard",
    }
    (tmp_path / "dev.json").write_text(json.dumps([row, {**row, "_id": "x", "supporting_facts": {"title": ["C"]}}]))
    tasks = datasets.hotpotqa(tmp_path / "dev.json")
    assert tasks[0].evidence == {"titles": ["A", "B"]}
    assert tasks[1].evidence == {"titles": ["C"]}
    assert tasks[0].metadata["type"] == "comparison"


def hidden(text: str, canary: str) -> str:
    key = hashlib.sha256(canary.encode()).digest()
    return base64.b64encode(bytes(b ^ key[i % 32] for i, b in enumerate(text.encode()))).decode()


def test_browsecomp_plain_and_hidden(tmp_path: Path) -> None:
    with (tmp_path / "bc.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["problem", "answer", "problem_topic", "canary"])
        rows.writerow([hidden("Which café?", "key 1"), hidden("Łódź", "key 1"), "Art", "key 1"])
        rows.writerow(["Which one?", "This", "", ""])
        rows.writerow(["Which one?", "This", "", "key 1"])
    tasks = datasets.browsecomp(tmp_path / "bc.csv", on_error="skip")
    assert [(question(tasks, i), tasks[i].answer) for i in range(len(tasks))] == [
        ("Which café?", "Łódź"),
        ("Which one?", "This"),
    ]
    assert tasks[0].metadata["topic"] == "Art"
    assert "not hidden under it" in str(tasks.skipped[0])


def test_any_file_by_a_column_map(tmp_path: Path) -> None:
    file = written(
        tmp_path / "own.jsonl",
        {"q": "A?", "gold": '["x", "y"]', "n": 3, "set": "dev"},
        {"q": "B?", "gold": "z", "n": 4},
        {"q": "C?", "gold": "[sic]", "n": 5},
    )
    tasks = datasets.from_columns(file, {"question": "q", "answer": "gold", "id": "n"}, keep=["q"])
    assert [(task.id, task.answer) for task in tasks] == [("own-3", ["x", "y"]), ("own-4", "z"), ("own-5", "[sic]")]
    with pytest.raises(UnknownNameError, match="answer"):
        datasets.from_columns(file, {"answr": "gold"})


@pytest.mark.parametrize(
    ("read", "row", "why"),
    [
        (datasets.search_r1, {"question": "who?", "golden_answers": []}, "list of answers is empty"),
        (datasets.search_r1, {"question": " ", "golden_answers": ["x"]}, "question must be text"),
        (datasets.search_r1, {"golden_answers": ["x"]}, "prompt"),
        (datasets.search_r1, {"golden_answers": ["x"], "prompt": []}, "the prompt must be a list of messages"),
        (datasets.search_r1, {"question": "who?"}, "neither a column 'golden_answers' nor 'reward_model'"),
        (datasets.hotpotqa, {"question": "who?"}, "answer"),
        (datasets.browsecomp, {"problem": "who?"}, "answer"),
        (datasets.from_columns, {"question": "who?", "answer": None}, "answer must be text"),
        (datasets.from_columns, {"q": "who?", "answer": "x"}, "say columns={'question': ...}; there are q, answer"),
        (visual.fvqa, {"prompt": [], "images": [], "reward_model": {}}, "no user message"),
        (visual.mmsearch, {"query": "who?", "gt_answer": "x"}, "no picture"),
        (visual.infoseek, {"image_id": "none", "question": "who?", "answer": ["x"]}, "none"),
        (visual.simplevqa, {"image": "%%%", "question": "who?", "answer": "x"}, "%%%"),
    ],
)
def test_malformed_rows_carry_file_and_line(read: Callable[..., TaskSet], row: Any, why: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    file = written(tmp_path / "rows.jsonl", row)
    with pytest.raises(DataError, match=r"rows\.jsonl") as raised:
        list(read(file))
    assert raised.value.line == 1
    assert why in str(raised.value)
    assert len(read(file, on_error="skip")) == 0
    with pytest.raises(UnknownNameError, match="rows"):
        read(tmp_path / "rowz.jsonl")


def test_visual_sets(tmp_path: Path) -> None:
    data = encoded(scene(400, 300), "PNG")
    picture = base64.b64encode(data).decode()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "oven_1.png").write_bytes(data)
    sets: dict[str, dict[str, Any]] = {
        "fvqa": {
            "data_id": "f1",
            "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "<image>\nWho is it?"}],
            "images": [{"bytes": None, "path": "images/oven_1.png"}],
            "reward_model": {"ground_truth": "Ann", "candidate_answers": '["Anna"]'},
            "category": "search_required",
        },
        "infoseek": {
            "data_id": "i1",
            "image_id": "oven_1",
            "question": "Who is it?",
            "answer": ["Ann"],
            "answer_eval": ["Anna"],
        },
        "simplevqa": {"data_id": 5, "image": picture, "question": "Who is it?", "answer": "Ann", "language": "EN"},
        "mmsearch": {
            "sample_id": "m1",
            "query": "Who is it?",
            "query_image": picture,
            "gt_answer": "Ann",
            "alternative_gt_answers": ["Anna"],
        },
    }
    for name, row in sets.items():
        file = written(tmp_path / f"{name}.jsonl", row)
        tasks = visual.DATASETS[name](file)
        task = tasks[0]
        assert isinstance(task.prompt[0], Image), name
        assert question(tasks) == "Who is it?"
        assert task.answer == ("Ann" if name == "simplevqa" else ["Ann", "Anna"])
        assert task.metadata["source"] == name
        env = mm_search(source=f"{name}:{file}", tools=["image_zoom"])
        assert "400 x 300 pixels" in "".join(getattr(part, "text", "") for part in env.tasks[0].prompt)
    number = {**sets["infoseek"], "answer": ["30"], "answer_eval": [{"wikidata": 30.0, "range": [27.0, 33.0]}]}
    (task,) = visual.infoseek(written(tmp_path / "numbers.jsonl", number))
    assert (task.answer, task.metadata["range"]) == ("30", [27.0, 33.0])
    assert [search_match(said, task.answer, task.metadata) for said in ("30", "about 32 m", "26", "x")] == [1, 1, 0, 0]
    english = visual.simplevqa(tmp_path / "simplevqa.jsonl", language="CN")
    assert len(english) == 0


def test_sets_are_played_over_a_corpus_of_ones_own(tmp_path: Path) -> None:
    docs = written(tmp_path / "wiki.jsonl", {"id": "1", "contents": '"Ann"\nAnn wrote it.'})
    rows = written(tmp_path / "nq.jsonl", {"id": "a", "question": "who wrote it", "golden_answers": ["Ann"]})
    env = search(source=f"search-r1:{rows}", corpus=docs, corpus_columns={"title_line": True})
    obs, _ = env.reset(seed=0)
    step = env.step('<tool_call>{"name": "web_search", "arguments": {"query": "who wrote it"}}</tool_call>')
    assert "Ann wrote it." in step.observation.messages[-1].text
    assert env.step("<answer>ann</answer>").reward == 1.0
    assert obs.tools
    assert open_corpus(docs)


def test_of_several_right_answers_the_reference_gives_one(tmp_path: Path) -> None:
    rows = written(tmp_path / "nq.jsonl", {"question": "which mountain", "golden_answers": ["Fuji", "Mount Fuji"]})
    env = search(source=f"search-r1:{rows}", corpus=open_corpus([{"text": "y"}]))
    (record,) = agentenv.rollout(env, "reference", tasks=1)
    assert (record.answer, record.reward) == ("Fuji", 1.0)


def test_other_files_are_read_by_columns(tmp_path: Path) -> None:
    rows = written(tmp_path / "qa.jsonl", {"q": "who?", "a": "Ann"})
    env = search(
        source=str(rows), columns={"question": "q", "answer": "a"}, corpus=open_corpus([{"id": "x", "text": "y"}])
    )
    assert env.tasks[0].answer == "Ann"
