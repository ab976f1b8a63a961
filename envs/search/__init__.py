"""The search environment: questions that must be looked up, over an offline corpus of real facts.

env = agentenv.make("search", difficulty=3)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from agentenv.dialects import neutralise
from agentenv.env import Env
from agentenv.envs.rewards import judged, scores
from agentenv.envs.rewards.judge import JudgeModel
from agentenv.envs.rewards.search import evidence_found
from agentenv.envs.search.answers import em_match, search_match
from agentenv.envs.search.datasets import DATASETS
from agentenv.envs.search.sources import EMBEDDED, as_retriever, chosen, search_tools
from agentenv.envs.search.tasks import search_steps, search_tasks
from agentenv.reward import Component, Rubric
from agentenv.spec import Limits, Texts, settings
from agentenv.task import OnError, TaskSet
from agentenv.tools.search import Corpus, Formatter, Retriever
from agentenv.tools.search.corpus import EngineName
from agentenv.tools.web.pages import Pages
from agentenv.types import Task, Text

SYSTEM = (
    "You answer questions by looking things up. Search first, open a page where its excerpt is too short, and follow up"
    " what you find; do not rely on memory. The answer is only what is asked for: a name, a number, or names separated"
    " by commas."
)


def search(
    *,
    source: str | TaskSet = EMBEDDED,
    difficulty: int | None = None,
    kinds: Iterable[str] | None = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    on_error: OnError = "raise",
    corpus: str | Path | Mapping[str, Any] | Retriever = EMBEDDED,
    corpus_columns: Mapping[str, Any] | None = None,
    engine: EngineName = "auto",
    k: int = 5,
    excerpt: int | None = 240,
    format: str | Formatter = "plain",
    fetch: bool = True,
    pages: Pages | None = None,
    dialect: str = "hermes",
    dialect_options: Mapping[str, Any] | None = None,
    judge: JudgeModel = None,
    limits: Limits | Mapping[str, Any] | None = None,
    texts: Texts | Mapping[str, Any] | None = None,
    system: str = SYSTEM,
    seed: int = 0,
    render_mode: str | None = None,
) -> Env:
    """Make the search environment.

    Args:
        source: where the tasks come from: "embedded" (an endless generator over the embedded corpus),
            "search-r1:FILE", "hotpotqa:FILE", "browsecomp:FILE", or a JSONL, JSON, TSV, CSV or Parquet file with a
            column map; or a `TaskSet`.
        difficulty: of "embedded", 1 (one document) to 5 (over all neighbours of a country).
        kinds: of "embedded", which kinds of question; all by default.
        split: of "embedded", "train" (the default) or "test".
        columns: of a file: field -> column, with fields out of question, answer, id.
        on_error: "raise" stops at a malformed row of a data set, naming its file and line; "skip" goes on and lists
            it in `env.tasks.skipped`.
        corpus: what is searched: "embedded"; a JSONL or Parquet file of documents, indexed once; "live:NAME", a live
            engine ("live:brave"; "live:searxng:http://HOST:PORT", where it is elsewhere than usual), or {"live": NAME,
            "rate": searches a second, ...} with its options; or a `Retriever`, which the caller closes.
        corpus_columns: of a file of documents: see `agentenv.tools.search.Columns`.
        engine: of a corpus: "auto" (tantivy where it is installed, else sqlite), or by name.
        k: results of a search.
        excerpt: characters of a document that a search shows; None for all of it.
        format: how results are written, see `agentenv.tools.search.FORMATS`.
        fetch: there is also a tool that opens pages.
        pages: where pages come from; by default the corpus itself, or the open web for a live engine.
        dialect: how calls and results are written.
        dialect_options: options of the dialect.
        judge: a model (a policy, or its name, "openai:MODEL") that judges answers which the rules do not find right;
            none by default.
        limits: budgets of the episode; 24 turns and a forced answer by default.
        texts: what the environment says outside tool results.
        system: the system prompt, before the dialect's instructions.
        seed: of the generator, and of the tasks that `reset` draws.
        render_mode: "ansi" or None.

    Rewarded is `accuracy`; recorded beside it are `em` (Search-R1's exact match) and `evidence_found` (the share of
    the evidence documents that searches showed). The first use writes the index of the corpus, which takes some 5 s.

    Raises:
        UnknownNameError: a name that does not exist; the nearest is named.
        UsageError: an option that makes no sense, or not for this source.
        MissingExtraError: the extra `search` is not installed.
    """
    options = {"seed": seed, "difficulty": difficulty, "kinds": kinds, "split": split}
    tasks = chosen(source, EMBEDDED, search_tasks, options, DATASETS, columns, on_error)
    retriever = as_retriever(corpus, engine, corpus_columns)

    def ask(task: Task) -> Task:
        return asked(task, retriever, excerpt, "web_fetch" if fetch else "")

    return Env(
        id="search",
        tasks=tasks.map(ask),
        tools=search_tools(retriever, k=k, shown=excerpt, format=format, fetch=fetch, pages=pages),
        dialect=dialect,
        dialect_options=dialect_options,
        system=system,
        limits=settings(Limits, limits, Limits(turns=24, on_turns="force")),
        texts=settings(Texts, texts, Texts()),
        rubric=Rubric(
            Component("accuracy", judged(judge, rule=search_match, first_rule=True)),
            Component("em", scores(em_match, metadata=True), weight=0.0),
            Component("evidence_found", evidence_found, weight=0.0),
        ),
        seed=seed,
        render_mode=render_mode,
    )


def asked(task: Task, retriever: Retriever, shown: int | None, fetch: str) -> Task:
    """The task as it is asked: control text made harmless, and the expert's steps where its evidence gives them."""
    prompt = tuple(Text(neutralise(part.text)[0]) if isinstance(part, Text) else part for part in task.prompt)
    evidence = task.evidence
    if evidence.get("hops") and "steps" not in evidence and isinstance(retriever, Corpus):
        evidence = {**evidence, "steps": search_steps(task, retriever, shown=shown, fetch=fetch)}
    return replace(task, prompt=prompt, evidence=evidence)
