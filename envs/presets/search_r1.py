"""Search-R1: `<search>` in one stream of text, three passages a search, exact match; one last round without search.

Source: `generation.py`, `qa_em.py` and `qa_em_format.py` of PeterGriffinJin/Search-R1 (arXiv 2503.09516).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from agentenv.env import Env
from agentenv.envs.presets._common import Variant, asked, compose, flat, known, rewarded, side_by_side
from agentenv.envs.presets._web import bound, expert, one_answer, prompted, text_search
from agentenv.envs.rewards import scores, tag_format
from agentenv.envs.rewards.geo import own_answer, results_text
from agentenv.envs.rewards.search import evidence_found
from agentenv.envs.search.answers import em_match, em_normal
from agentenv.envs.search.datasets import DATASETS
from agentenv.envs.search.sources import EMBEDDED, Searched, as_retriever, chosen
from agentenv.envs.search.tasks import search_tasks
from agentenv.reward import Component, EpisodeReward, Rubric
from agentenv.spec import Limits, Texts
from agentenv.task import OnError, TaskSet
from agentenv.tools.search.corpus import EngineName
from agentenv.trajectory import Trajectory
from agentenv.types import Task

Recipe = Literal["em", "format"]

TOOL = "search"
FORM = (
    "Answer the question below. Whenever you have got new information, first reason between <think> and </think>. If"
    " you then find that you do not know enough, ask a search engine by <search> query </search>: the best results come"
    " between <information> and </information>. You may search as often as you want. As soon as nothing more is needed,"
    " give the answer between <answer> and </answer>, without explaining it. For example, <answer> Paris </answer>."
    " Question: {question}\n"
)
AGAIN = (
    "\nMy last action is not a valid one. To search, I put a query between <search> and </search>; to answer, I put the"
    " answer between <answer> and </answer>. Let me try again.\n"
)
_TAGS = "think|search|information|answer"
_TEXT = rf"(?:(?!</?(?:{_TAGS})>).)*"
_ROUND = rf"<think>{_TEXT}</think>\s*<search>{_TEXT}</search>\s*<information>{_TEXT}</information>\s*"
_SEQUENCE = re.compile(rf"\s*(?:{_ROUND})*<think>{_TEXT}</think>\s*<answer>{_TEXT}</answer>\s*", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_FOUND = re.compile(r"<information>(.*?)</information>", re.DOTALL)


def search_r1(
    *,
    source: str | TaskSet = EMBEDDED,
    difficulty: int | None = 2,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    on_error: OnError = "raise",
    corpus: Searched = EMBEDDED,
    corpus_columns: Mapping[str, str] | None = None,
    engine: EngineName = "auto",
    k: int = 3,
    excerpt: int | None = 600,
    turns: int = 4,
    variant: Variant = "strict",
    scoring: Variant | None = None,
    recipe: Recipe = "em",
    limits: Limits | Mapping[str, Any] | None = None,
    seed: int = 0,
    render_mode: str | None = None,
) -> Env:
    """Make the Search-R1 environment.

    Args:
        source: "embedded" (an endless generator), what the search environment reads ("search-r1:FILE" ...), or a
            `TaskSet` of questions.
        difficulty: of "embedded", 1 to 5; None mixes them. The hardest take more searches than there are turns.
        split: of "embedded", "train" or "test".
        columns: of a file of questions, as for the search environment.
        on_error: of a file: "raise" at a malformed row, or "skip" it.
        corpus: what is searched: "embedded", "live:NAME" (a live engine, see `agentenv.tools.web.engines`), a file of
            documents, or a `Retriever`.
        corpus_columns: of a file of documents.
        engine: of a corpus, see `agentenv.tools.search.open_corpus`.
        k: passages a search.
        excerpt: characters of a passage; None for all of it. An observation has 500 tokens at most in any case.
        turns: that may search, 4 by default, 2 in the published GRPO script; one more follows without search.
        variant: "upstream" cuts a long observation without a sign that it was (its closing tag stays, which upstream
            cuts off too).
        scoring: which scorer is rewarded; as the variant by default. Upstream reads the last `<answer>` of the whole
            transcript and wants two of them, since its own prompt holds some: an episode without an answer is judged by
            the prompt's example or a reminder's text. The other scorer is recorded beside it.
        recipe: "em": 1 for an exact match. "format": 1 right and well formed, .8 right, .3 well formed and the answer
            stands in a result, .2 well formed, .1 answered, 0 neither.
        limits: budgets of the episode; what is given replaces the preset's field by field.
        seed: of the generator, and of the tasks that `reset` draws.
        render_mode: "ansi" or None.

    Upstream continues one assistant turn after each result; here the result is a user turn, as in all other systems
    that were trained on top of it. Its text is the same to the letter, so a completion engine that joins the messages
    without role markers sees upstream's stream. A turn may have 500 tokens, which is the engine's to hold.
    """
    known("variant", variant, Variant)
    known("scoring", scoring or variant, Variant)
    known("recipe", recipe, Recipe)
    options = {"seed": seed, "split": split, "difficulty": difficulty if source == EMBEDDED else None}
    tasks = chosen(source, EMBEDDED, search_tasks, options, DATASETS, columns, on_error)
    retriever = as_retriever(corpus, engine, corpus_columns)
    tool = text_search(retriever, TOOL, "search-r1", k=k, excerpt=excerpt, summary=None, sentences="")
    return compose(
        id="search-r1",
        tasks=asked(tasks.map(one_answer).map(expert(retriever, TOOL)), FORM),
        tools=[tool],
        dialect="tags",
        dialect_options={"block": "", "result": "\n\n<information>{}</information>\n\n", "quiet": True},
        system="",
        limits=limits,
        default_limits=Limits(
            turns=turns,
            calls_per_turn=1,
            extra_calls="first",
            observation_tokens=500,
            invalid_turns=turns + 1,
            on_turns="force",
        ),
        rubric=_rubric(scoring or variant, recipe),
        frame="",
        seed=seed,
        render_mode=render_mode,
        bind=bound,
        texts=Texts(force="", no_call=AGAIN, invalid=AGAIN, cut="" if variant == "upstream" else " [cut]"),
    )


# -- rewards -----------------------------------------------------------------------------------------------------------


def _rubric(scoring: str, recipe: str) -> Rubric:
    right, formatted = (1.0, 0.0) if recipe == "em" else (0.0, 1.0)
    form = tag_format("think (?:search think )*answer ", ("think", "search", "answer"))
    strict = graded(own_answer, lambda task, record: form(task, record) == 1.0, results_text)
    upstream = graded(answer_upstream, lambda _, record: _SEQUENCE.fullmatch(flat(record)) is not None, _informed)
    return Rubric(
        *side_by_side("em", scores(em_match, metadata=True), em_upstream, right, scoring),
        *side_by_side("formatted", strict, upstream, formatted, scoring),
        Component("evidence_found", evidence_found, weight=0.0),
        passes=rewarded("em", scoring),
    )


def graded(
    answer_of: Callable[[Trajectory], str | None],
    valid: Callable[[Task, Trajectory], bool],
    found: Callable[[Trajectory], str],
) -> EpisodeReward:
    """The reward of the recipe "format", by what finds the answer, tells the form, and gives the results' text."""

    def component(task: Task, trajectory: Trajectory) -> float | None:
        if task.answer is None:
            return None
        answer, well = answer_of(trajectory), valid(task, trajectory)
        if em_match(answer, task.answer):
            return 1.0 if well else 0.8
        if not well:
            return 0.0 if answer is None else 0.1
        several = task.answer if isinstance(task.answer, (list, tuple)) else (task.answer,)
        text = em_normal(found(trajectory))
        return 0.3 if any(em_normal(str(one)) in text for one in several) else 0.2

    return component


def answer_upstream(trajectory: Trajectory) -> str | None:
    """The last `<answer>` of the whole transcript, prompt and all; None where there are fewer than two of them."""
    found = _ANSWER.findall(prompted(trajectory) + flat(trajectory))
    return str(found[-1]).strip() if len(found) > 1 else None


def em_upstream(task: Task, trajectory: Trajectory) -> float | None:
    """Exact match of `answer_upstream`; None where the task has no reference."""
    return None if task.answer is None else em_match(answer_upstream(trajectory), task.answer)


def _informed(trajectory: Trajectory) -> str:
    return "\n".join(_FOUND.findall(flat(trajectory)))
