"""MMSearch-R1: search with the whole picture once and by text twice, in three rounds; exact match, less after a search.

Source: the rollout worker, `mmsearch.py` and the prompts of EvolvingLMMs-Lab/multimodal-search-r1 (arXiv 2506.20670).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentenv.env import Env
from agentenv.envs.mm_search import EMBLEMS
from agentenv.envs.mm_search.datasets import DATASETS
from agentenv.envs.presets._common import Variant, asked, compose, known, restated, side_by_side
from agentenv.envs.presets._web import (
    GIVE_UP,
    SummaryModel,
    bound,
    closeups,
    expert,
    searched_pictures,
    text_search,
    whole_picture,
)
from agentenv.envs.rewards import JudgeModel, judged, tag_format, tool_used
from agentenv.envs.rewards.search import evidence_found
from agentenv.envs.rewards.shaping import written
from agentenv.envs.search.answers import em_match
from agentenv.envs.search.sources import EMBEDDED, Searched, as_retriever, chosen
from agentenv.errors import ToolError, ToolErrorKind
from agentenv.reward import Component, Rubric
from agentenv.spec import Limits
from agentenv.task import OnError, TaskSet
from agentenv.tool import Tool
from agentenv.tools.image import Output
from agentenv.tools.search import ImageRetriever, image_search_tool
from agentenv.tools.search.corpus import EngineName
from agentenv.trajectory import Trajectory
from agentenv.types import Task

IMAGE, TEXT = "image_search", "text_search"
KINDS = ("only-emblem", "emblem-population", "emblem-state")
SHOWN = Output(max_pixels=672 * 672)
FORM = (
    "\nAnswer the question about the picture. First reason between <reason> and </reason>. If you are certain, answer"
    " between <answer> and </answer>. If you cannot tell what the picture shows, end your turn with"
    " <search><img></search>, which finds pictures like it with their titles. If you know what it shows and a fact is"
    " missing, end your turn with <text_search>query</text_search>, which finds texts. One of the three, once a turn;"
    " results come between <information> and </information>.\nQuestion: {question}"
)
_TOLD = "Searched results: <information>{}</information>\nOriginal user's question: {question}\n"
_CHOICE = (
    " between <answer> and </answer>, or, if a fact is still missing, end your turn with"
    " <text_search>query</text_search>."
)
AFTER_IMAGE = (
    "Reason between <reason> and </reason> on what the titles and pictures say of the picture. Then answer" + _CHOICE
)
AFTER_TEXT = (
    "Reason between <reason> and </reason> on what the results say of the question. Then answer between <answer> and"
    f" </answer>, without explaining it; if something is still missing, end your turn with '{GIVE_UP}'."
)
TAGS = ("reason", "search", "text_search", "answer")
_ENDS = {
    "answer": ("<answer>", "</answer>"),
    "picture": ("<search><img></search>",),
    "text": ("<text_search>", "</text_search>"),
}
_SHAPES = (("answer",), ("picture", "answer"), ("text", "answer"), ("picture", "text", "answer"))
AFTER_ERROR = "Reason between <reason> and </reason> on what to do now. Then answer" + _CHOICE


def mmsearch_r1(
    *,
    source: str | TaskSet = EMBLEMS,
    difficulty: int | None = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    on_error: OnError = "raise",
    corpus: Searched = EMBEDDED,
    corpus_columns: Mapping[str, str] | None = None,
    pictures: str | Path | ImageRetriever = EMBEDDED,
    engine: EngineName = "auto",
    k: int = 5,
    excerpt: int | None = 600,
    summary: SummaryModel = None,
    variant: Variant = "strict",
    scoring: Variant | None = None,
    judge: JudgeModel = None,
    limits: Limits | Mapping[str, Any] | None = None,
    seed: int = 0,
    render_mode: str | None = None,
) -> Env:
    """Make the MMSearch-R1 environment.

    Args:
        source: "emblems" (an endless generator; each picture shows one emblem), what the mm-search environment reads
            ("fvqa:FILE" ...), or a `TaskSet` whose prompts are one picture and a question.
        difficulty: of "emblems", 1 or 2; None mixes them.
        split: of "emblems", "train" or "test".
        columns: of a file of questions, as for the mm-search environment.
        on_error: of a file: "raise" at a malformed row, or "skip" it.
        corpus: what is searched by text: "embedded", "live:NAME" (a live engine, see `agentenv.tools.web.engines`), a
            file of documents, or a `Retriever`.
        corpus_columns: of a file of documents.
        pictures: what is searched by picture, as for the mm-search environment.
        engine: of a corpus, see `agentenv.tools.search.open_corpus`.
        k: results of a search.
        excerpt: characters of a document that are read; None for all of it.
        summary: a model that sums up what a text search found (upstream Qwen3-32B), or a function; what it wrote is
            recorded. Without one, or where it fails, the policy reads the documents themselves.
        variant: "upstream" ends the episode at a search that a cap forbids; "strict" answers it with an error.
        scoring: which scorers are rewarded; as the variant by default. Of format, upstream knows four shapes: answer;
            picture and answer; text and answer; picture, text and answer, each turn from its first character to its
            last. "strict" takes the second text search, which the caps allow, as well formed, and text around the tags.
            Upstream takes a search off that was asked for, strict one that found something. The others are recorded.
        judge: a model that judges answers, which the paper finds better than exact match; exact match without one.
        limits: budgets of the episode; what is given replaces the preset's field by field.
        seed: of the generator, and of the tasks that `reset` draws.
        render_mode: "ansi" or None.

    The reward is .9 accuracy + .1 format; a right answer after any search loses a tenth of the .9 (`searched`). After a
    text search the policy is told to answer or to give up, though a second one is run. The words around results are
    those of the rollouts that the checkpoints come from; upstream's demo has others.
    """
    known("variant", variant, Variant)
    known("scoring", scoring or variant, Variant)
    options = {"seed": seed, "split": split, "difficulty": difficulty}
    tasks = chosen(source, EMBLEMS, closeups(KINDS), options, DATASETS, columns, on_error)
    retriever = as_retriever(corpus, engine, corpus_columns)
    text = text_search(retriever, TEXT, "mmsearch", k=k, excerpt=excerpt, summary=summary, sentences="5 or fewer")
    return compose(
        id="mmsearch-r1",
        tasks=asked(tasks.map(expert(retriever, TEXT, whole_picture(IMAGE, "picture"))), FORM, SHOWN),
        tools=[_image_search(pictures, k), text],
        dialect="tags",
        dialect_options={
            "block": "",
            "think_tag": "reason",
            "tags": {"search": IMAGE, TEXT: TEXT},
            "results": {IMAGE: _TOLD + AFTER_IMAGE, TEXT: _TOLD + AFTER_TEXT},
            "error": _TOLD + AFTER_ERROR,
            "quiet": True,
        },
        system="",
        limits=limits,
        default_limits=Limits(
            turns=3,
            calls_per_turn=1,
            extra_calls="last",
            calls_per_tool={IMAGE: 1, TEXT: 2},
            on_calls_per_tool="stop" if variant == "upstream" else "error",
            invalid_turns=0,
            no_call="stop",
        ),
        rubric=_rubric(scoring or variant, judge),
        frame="",
        seed=seed,
        render_mode=render_mode,
        bind=bound,
    )


def _image_search(pictures: str | Path | ImageRetriever, k: int) -> Tool:
    made = image_search_tool(
        searched_pictures(pictures), name=IMAGE, by=("phrase",), phrase="picture", ground=_no_part, k=k
    )
    picture = {"type": "string", "description": "Always <img>: the whole picture."}
    schema = {"type": "object", "properties": {"picture": picture}, "required": ["picture"]}
    return restated(made, "Find pictures like this one, with their titles.", schema)


def _no_part(file: bytes, words: str) -> None:
    """A grounder that refuses: this system searches with all of the picture.

    Raises:
        ToolError: always, since the words that mean the whole picture never come here.
    """
    raise ToolError("Only the whole picture can be searched for.", ToolErrorKind.INVALID_ARGUMENTS)


def _rubric(scoring: str, judge: JudgeModel) -> Rubric:
    form = tag_format("(?:reason search )?(?:reason text_search ){0,2}reason answer ", TAGS)
    found, asked_for = (-0.09, 0.0) if scoring == "strict" else (0.0, -0.09)
    return Rubric(
        Component("accuracy", judged(judge, rule=em_match), 0.9),
        Component("searched", tool_used(), found, gate="accuracy"),
        Component("searched_upstream", wanted_search, asked_for, gate="accuracy"),
        *side_by_side("format", form, format_upstream, 0.1, scoring),
        Component("evidence_found", evidence_found, weight=0.0),
        passes="accuracy",
    )


def wanted_search(task: Task, trajectory: Trajectory) -> float:
    """1.0 where the policy asked for a search, whatever became of it: what upstream takes off."""
    return float(bool(trajectory.tool_runs))


def format_upstream(task: Task, trajectory: Trajectory) -> float:
    """1.0 where the turns have one of upstream's four shapes; nothing may stand before `<reason>` or behind the end."""
    turns = [turn.strip() for turn in written(trajectory)]
    shape = tuple(next((kind for kind in _ENDS if _ends_as(kind, turn)), "") for turn in turns)
    return float(shape in _SHAPES)


def _ends_as(kind: str, turn: str) -> bool:
    """Whether a turn reasons once and ends with what `kind` is, once, and holds no other."""
    ends = _ENDS[kind]
    once = all(turn.count(tag) == 1 for tag in ("<reason>", "</reason>", *ends))
    others = (tag for other, tags in _ENDS.items() if other != kind for tag in tags)
    form = rf"<reason>.*</reason>.*{'.*'.join(ends)}"
    return once and not any(tag in turn for tag in others) and re.fullmatch(form, turn, re.DOTALL) is not None
