"""DeepMMSearch-R1: one search with the picture or what a phrase finds in it, then texts; results are summed up.

Source: arXiv 2510.12801. No code is published, so there is no upstream variant.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentenv.env import Env
from agentenv.envs.mm_search import EMBLEMS
from agentenv.envs.mm_search.datasets import DATASETS
from agentenv.envs.presets._common import asked, compose
from agentenv.envs.presets._web import (
    GIVE_UP,
    SummaryModel,
    bound,
    closeups,
    expert,
    searched_pictures,
    summary_of,
    text_search,
    whole_picture,
)
from agentenv.envs.rewards import JudgeModel, judged, normal, tag_format
from agentenv.envs.rewards.search import evidence_found
from agentenv.envs.search.answers import search_match
from agentenv.envs.search.sources import EMBEDDED, Searched, as_retriever, chosen
from agentenv.media import media_store
from agentenv.policy import Policy
from agentenv.reward import Component, Rubric
from agentenv.spec import Limits, Texts
from agentenv.task import OnError, TaskSet
from agentenv.tools.search import Grounder, ImageRetriever, PolicyGrounder, image_search_tool
from agentenv.tools.search.corpus import EngineName
from agentenv.trajectory import Trajectory
from agentenv.types import Task

IMAGE, TEXT = "img_search", "text_search"
TAGS = ("reason", IMAGE, TEXT, "answer")
KINDS = ("only-emblem", "emblem-population", "emblem-state", "emblem-capital", "emblem-largest")
FORM = (
    "\nAnswer the question about the picture. Reason between <reason> and </reason> before each step, then take one"
    " step:\n"
    "- <answer>answer</answer>, if you know it.\n"
    "- <img_search><img></img_search>: search with the whole picture.\n"
    "- <img_search>referring expression</img_search>: search with the one thing in the picture that it describes.\n"
    "- <text_search>query</text_search>: search the web for texts.\n"
    "You can search with the picture only once. Results come between <information> and </information>.\n"
    "Question: {question}"
)
_TOLD = "<information>\n{}\n</information>\n"
_TEXT_STEP = " or search for texts with <text_search>query</text_search>."
AFTER_IMAGE = (
    "Reason between <reason> and </reason> on what the picture shows, now that you have these results. Then answer"
    " between <answer> and </answer>," + _TEXT_STEP
)
AFTER_TEXT = (
    "Reason between <reason> and </reason> on whether these results answer the question. Then answer between <answer>"
    f" and </answer>, search again with <text_search>query</text_search>, or give up: <answer>{GIVE_UP}</answer>."
)
FORCE = f"No search is left. Answer now between <answer> and </answer>, or give up: <answer>{GIVE_UP}</answer>."
Ground = Policy | Grounder | str | Mapping[str, Any] | None


def deepmmsearch_r1(
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
    ground: Ground = None,
    summary: SummaryModel = None,
    judge: JudgeModel = None,
    limits: Limits | Mapping[str, Any] | None = None,
    seed: int = 0,
    render_mode: str | None = None,
) -> Env:
    """Make the DeepMMSearch-R1 environment.

    Args:
        source: "emblems" (an endless generator; each picture shows one emblem), what the mm-search environment reads
            ("infoseek:FILE" ...), or a `TaskSet` whose prompts are one picture and a question.
        difficulty: of "emblems", 1, 2, 3 or 5; None mixes them.
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
        ground: a model that sees pictures and boxes what a phrase describes (upstream Grounding DINO), or a function
            (see `Grounder`). Without one the whole picture is searched whatever the phrase says.
        summary: a model that sums results up (upstream gpt-5-chat), in 4 to 5 sentences of pictures and 10 to 12 of
            texts, or a function; what it wrote is recorded. Without one, or where it fails, the policy reads the
            results themselves.
        judge: a model that judges answers; the rules of the mm-search environment where there is none.
        limits: budgets of the episode; what is given replaces the preset's field by field. A response may have 8,192
            tokens, which is the engine's to hold.
        seed: of the generator, and of the tasks that `reset` draws.
        render_mode: "ansi" or None.

    The reward is .9 accuracy + .1 format: each turn reasons and then takes one step, the last one an answer.
    """
    options = {"seed": seed, "split": split, "difficulty": difficulty}
    tasks = chosen(source, EMBLEMS, closeups(KINDS), options, DATASETS, columns, on_error)
    retriever = as_retriever(corpus, engine, corpus_columns)
    by_picture = image_search_tool(
        searched_pictures(pictures),
        name=IMAGE,
        by=("phrase",),
        phrase="what",
        ground=_grounder(ground),
        k=k,
        summarise=summary_of(summary, "4-5"),
        question=summary is not None,
    )
    by_text = text_search(retriever, TEXT, "plain", k=k, excerpt=excerpt, summary=summary, sentences="10-12")
    return compose(
        id="deepmmsearch-r1",
        tasks=asked(tasks.map(expert(retriever, TEXT, whole_picture(IMAGE, "what"))), FORM),
        tools=[by_picture, by_text],
        dialect="tags",
        dialect_options={
            "block": "",
            "think_tag": "reason",
            "results": {IMAGE: _TOLD + AFTER_IMAGE, TEXT: _TOLD + AFTER_TEXT},
            "error": _TOLD + AFTER_TEXT,
            "quiet": True,
        },
        system="",
        limits=limits,
        default_limits=Limits(
            turns=11,
            calls=10,
            calls_per_turn=1,
            extra_calls="first",
            calls_per_tool={IMAGE: 1},
            failed_calls="free",
            invalid_turns=2,
            on_turns="force",
        ),
        rubric=Rubric(
            Component("accuracy", judged(judge, rule=search_match), 0.9),
            Component("format", tag_format("(?:reason (?:img|text)_search )*reason answer ", TAGS), 0.1),
            Component("gave_up", gave_up, 0.0),
            Component("evidence_found", evidence_found, weight=0.0),
            passes="accuracy",
        ),
        frame="",
        seed=seed,
        render_mode=render_mode,
        bind=bound,
        texts=Texts(force=FORCE),
    )


def _grounder(ground: Ground) -> Grounder:
    if ground is None:
        return everything
    return ground if callable(ground) and not isinstance(ground, Policy) else PolicyGrounder(ground)


def everything(file: bytes, words: str) -> tuple[int, int, int, int]:
    """The box of the whole picture, whatever the words: a grounder where there is no model for one."""
    image = media_store().put(file)
    return 0, 0, image.width, image.height


def gave_up(task: Task, trajectory: Trajectory) -> float:
    """1.0 where the answer is the sentence that gives up."""
    return float(normal(trajectory.answer or "") == normal(GIVE_UP))
