"""Exports of random episodes, through the chat templates of TRL's wheel: I12, what a row lacks is named, and I8, no row
is cut; I13, what is learned from is what the policy wrote.
"""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentenv.dialects import DIALECTS
from agentenv.spec import Limits
from agentenv.trajectories import Run
from agentenv.trajectories.formats import ExportReport
from agentenv.trajectory import Trajectory
from tests.trajectories.marked import LIMITS, SHAPES, Shape, episode, marks

pytest.importorskip("transformers", reason="the extra local is not installed")
pytest.importorskip("jinja2", reason="chat templates need jinja2")
_TRL = find_spec("trl")
TEMPLATES = Path(_TRL.origin or "").parent / "chat_templates" if _TRL else Path("nowhere")
if not TEMPLATES.is_dir():
    pytest.skip("TRL's chat templates are not installed", allow_module_level=True)

NAMES = sorted(path.stem for path in TEMPLATES.glob("*.jinja"))
SPOKEN = sorted(DIALECTS.keys() - {"code", "json_turn", "native"})
"""Dialects that can write every turn that is drawn here."""
OPTIONS = st.fixed_dictionaries({
    "mode": st.sampled_from(["structured", "structured", "rendered"]),
    "reasoning": st.sampled_from(["field", "inline", "drop"]),
    "arguments": st.sampled_from(["dict", "json"]),
    "parallel": st.sampled_from(["keep", "split"]),
})  # fmt: skip


def exported(record: Trajectory, form: str, **options: Any) -> tuple[list[dict[str, Any]], ExportReport]:
    with tempfile.TemporaryDirectory() as folder:
        report = Run([record]).export(form, folder, on_loss="note", **options)
        return [json.loads(line) for line in Path(report.files[0]).read_text().splitlines()], report


def dialects(options: dict[str, Any]) -> st.SearchStrategy[str]:
    return st.sampled_from(SPOKEN if options["mode"] == "rendered" else [*SPOKEN, "native"])


def probed(
    record: Trajectory, form: str, name: str, options: dict[str, Any]
) -> tuple[list[dict[str, Any]], ExportReport]:
    """The rows of a record under a chat template: one, or none since the template refuses it."""
    rows, report = exported(record, form, template=str(TEMPLATES / f"{name}.jinja"), **options)
    assert rows or report.skipped[0][1].startswith("the chat template refuses it: ")
    return rows, report


@cache
def template(name: str) -> str:
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


def rendered(name: str, row: dict[str, Any], **options: Any) -> tuple[str, list[Any]]:
    """A row as transformers renders it for a trainer, with the stretches that are the assistant's."""
    from transformers.utils.chat_template_utils import render_jinja_template

    tokens = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "")
    texts, spans = render_jinja_template(
        [row["messages"]], tools=row["tools"] or None, chat_template=template(name), **tokens, **options
    )
    return str(texts[0]), list(spans[0]) if spans else []


def places(text: str, texts: list[str]) -> list[int]:
    """Where each text stands, -1 for nowhere; none of them twice."""
    assert all(text.count(one) <= 1 for one in texts)
    return [text.find(one) for one in texts]


def by_message(row: dict[str, Any], texts: list[str]) -> list[list[str]]:
    """The texts that each message of a row holds."""
    return [[text for text in texts if text in json.dumps(message)] for message in row["messages"]]


def in_order(text: str, messages: list[list[str]]) -> bool:
    """Whether what is left of each message stands behind all that is left of those before it."""
    found = [[place for place in places(text, held) if place >= 0] for held in messages]
    found = [held for held in found if held]
    return all(max(first) < min(then) for first, then in itertools.pairwise(found))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=5, deadline=None)
@given(data=st.data(), shapes=SHAPES, limits=LIMITS, options=OPTIONS)
def test_what_a_template_leaves_out_is_named(
    name: str, data: st.DataObject, shapes: list[Shape], limits: Limits, options: dict[str, Any]
) -> None:
    record = episode(data.draw(dialects(options)), shapes, limits)
    form = data.draw(st.sampled_from(["trl-sft", "qwen-messages"]))
    rows, report = probed(record, form, name, options)
    if not rows:
        return
    given_marks = list(marks(record))
    text, _ = rendered(name, rows[0])
    there = places(text, [mark.text for mark in given_marks])
    lost = {mark.loss for mark, place in zip(given_marks, there, strict=True) if place < 0}
    if options["mode"] == "rendered":  # calls are a part of what the policy says there, and results of user turns
        lost = {{"calls": "content", "results": "prompt"}.get(loss, loss) for loss in lost}
    assert lost <= report.dropped.keys()
    assert in_order(text, by_message(rows[0], [mark.text for mark in given_marks])) or "order" in report.dropped


SFT = st.fixed_dictionaries({
    "mode": st.sampled_from(["structured", "rendered"]),
    "reasoning": st.sampled_from(["field", "inline"]),
})  # fmt: skip
TRAINING = [name for name in NAMES if re.search(r"{%-?\s*generation\s*-?%}", template(name))]
"""Templates that mark what the assistant wrote, by which TRL knows what to learn from."""


@pytest.mark.parametrize("name", TRAINING)
@settings(max_examples=4, deadline=None)
@given(data=st.data(), shapes=SHAPES, limits=LIMITS, options=SFT)
def test_labels_are_what_the_policy_wrote(
    name: str, data: st.DataObject, shapes: list[Shape], limits: Limits, options: dict[str, Any]
) -> None:
    record = episode(data.draw(dialects(options)), shapes, limits)
    rows, _ = probed(record, "trl-sft", name, options)
    if not rows:
        return
    text, spans = rendered(name, rows[0], return_assistant_tokens_mask=True)
    labels = "|".join(text[start:stop] for start, stop in spans)
    for mark in marks(record):
        own = mark.loss in ("reasoning", "content", "calls")
        assert labels.count(mark.text) == (own and mark.text in text), mark


TIGHT = st.builds(
    Limits,
    turns=st.integers(1, 5),
    calls=st.none() | st.integers(0, 5),
    tokens=st.none() | st.integers(50, 400),
    invalid_turns=st.just(9),
    on_turns=st.sampled_from(["stop", "force", "mask"]),
    on_calls=st.sampled_from(["stop", "force", "error"]),
    on_tokens=st.sampled_from(["stop", "force"]),
)
ALL = ("masked", "length", "unscored")


@pytest.mark.parametrize("form", ["trl-sft", "qwen-messages", "longvt"])
@settings(max_examples=30, deadline=None)
@given(shapes=SHAPES, limits=TIGHT, dialect=st.sampled_from([*SPOKEN, "native"]))
def test_no_row_is_cut(form: str, shapes: list[Shape], limits: Limits, dialect: str) -> None:
    record = episode(dialect, shapes, limits)
    options = {"container": "jsonl"} if form == "longvt" else {}
    rows, report = exported(record, form, include=ALL, **options)
    if not rows:
        (reason,) = [reason for _, reason in report.skipped]
        assert "beside the text" in reason if form == "longvt" else reason == "a call in its middle has no result"
        return
    said, path = rows[0]["messages"], record.path()
    assert [m["role"] for m in said].count("assistant") == sum(node.origin == "sampled" for node in path)
    if form == "longvt":
        for message, node in zip(said, path, strict=True):  # thoughts that came beside the text stand before it
            text = "".join(part["text"] for part in message["content"])
            assert text == node.message.text or text.endswith(f"</think>\n\n{node.message.text}")
        return
    turns = [place for place, message in enumerate(said) if message["role"] == "assistant"]
    for place in turns:
        asked = [call["id"] for call in said[place].get("tool_calls", ())]
        shown = [message["tool_call_id"] for message in said[place + 1 :][: len(asked)] if message["role"] == "tool"]
        assert asked == shown or place == turns[-1]
        assert shown in ([], asked)
    assert [mark.text for mark in marks(record) if mark.text in json.dumps(said)] == [
        text for held in by_message(rows[0], [mark.text for mark in marks(record)]) for text in held
    ]
