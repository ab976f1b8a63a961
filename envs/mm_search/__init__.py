"""The multimodal search environment: a picture and a question that only searching with a part of it can answer.

env = agentenv.make("mm-search", difficulty=3)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentenv.env import Env
from agentenv.envs.corpus.emblems import emblem_index
from agentenv.envs.corpus.pictures import picture_index
from agentenv.envs.mm_search.datasets import DATASETS
from agentenv.envs.mm_search.tasks import mm_search_tasks
from agentenv.envs.rewards import evidence_seen, judged, scores
from agentenv.envs.rewards.judge import JudgeModel
from agentenv.envs.rewards.search import evidence_found
from agentenv.envs.search.answers import em_match, search_match
from agentenv.envs.search.sources import EMBEDDED, as_retriever, chosen, search_tools
from agentenv.envs.sights.stage import FIRST_VIEW, look_and_search
from agentenv.envs.zoom.toolbox import NAMES, as_shown, image_tools
from agentenv.errors import UnknownNameError
from agentenv.reward import Component, Rubric
from agentenv.spec import Limits, Texts, settings
from agentenv.task import OnError, TaskSet
from agentenv.tool import Tool
from agentenv.tools.image import Frame, Output
from agentenv.tools.search import Corpus, Formatter, ImageRetriever, Retriever, image_search_tool, open_images
from agentenv.tools.search.corpus import EngineName
from agentenv.types import Image, Task

EMBLEMS = "emblems"
SYSTEM = (
    "You answer questions about pictures by looking things up. You are shown a reduced view; zoom in to read small"
    " things. Search with a picture, or with the part of it that matters, to find out what it shows; then search for"
    " texts on what you found. Do not rely on memory. The answer is only what is asked for: a name or a number."
)
TOOLS = ("image_zoom", "image_search", "web_search", "web_fetch")
ALL_TOOLS = (*NAMES, "image_search", "web_search", "web_fetch")


def mm_search(
    *,
    source: str | TaskSet = EMBLEMS,
    difficulty: int | None = None,
    kinds: Iterable[str] | None = None,
    split: str | None = None,
    cache: str | None = None,
    columns: Mapping[str, str] | None = None,
    on_error: OnError = "raise",
    tools: Sequence[str] = TOOLS,
    corpus: str | Path | Mapping[str, Any] | Retriever = EMBEDDED,
    corpus_columns: Mapping[str, Any] | None = None,
    pictures: str | Path | ImageRetriever = EMBEDDED,
    engine: EngineName = "auto",
    k: int = 5,
    excerpt: int | None = 240,
    format: str | Formatter = "plain",
    frame: str = "relative_1000",
    first_view: int = FIRST_VIEW,
    dialect: str = "hermes",
    dialect_options: Mapping[str, Any] | None = None,
    judge: JudgeModel = None,
    limits: Limits | Mapping[str, Any] | None = None,
    texts: Texts | Mapping[str, Any] | None = None,
    system: str = SYSTEM,
    seed: int = 0,
    render_mode: str | None = None,
) -> Env:
    """Make the multimodal search environment.

    Args:
        source: where the tasks come from: "emblems" (an endless generator, of things and flags too), "fvqa:FILE",
            "infoseek:FILE", "simplevqa:FILE", "mmsearch:FILE", or a JSONL, JSON, TSV, CSV or Parquet file with a column
            map; or a `TaskSet` whose prompts hold images.
        difficulty: of "emblems", 1 (the only emblem) to 5 (ten others, three documents).
        kinds: of "emblems", which kinds of question; all by default.
        split: of "emblems", "train" (the default) or "test".
        cache: of "emblems", a folder that keeps rendered scenes for the next time.
        columns: of a file: field -> column, with fields out of question, answer, image, images, id, and others of
            `agentenv.envs.zoom.datasets.from_columns`.
        on_error: "raise" stops at a malformed row of a data set, naming its file and line; "skip" goes on and lists
            it in `env.tasks.skipped`.
        tools: which tools the policy has, of image_zoom (and the zoom environment's others), image_search, web_search
            and web_fetch.
        corpus: what web_search searches, as for the search environment: "embedded", a file, "live:NAME", a `Retriever`.
        corpus_columns: of a file of documents: see `agentenv.tools.search.Columns`.
        pictures: what image_search searches: "embedded" (the emblems, and captioned pictures of things and flags where
            their package is installed), "emblems" alone, a file of pictures with captions, or an `ImageRetriever`.
        engine: of a corpus: "auto" (tantivy where it is installed, else sqlite), or by name.
        k: results of a search.
        excerpt: characters of a document that a search shows; None for all of it.
        format: how text results are written, see `agentenv.tools.search.FORMATS`.
        frame: the coordinate frame of all boxes: "relative_1000", "relative_1", "pixels_shown" or "pixels_original".
        first_view: longer side in pixels of what the policy is shown first.
        dialect: how calls and results are written.
        dialect_options: options of the dialect.
        judge: a model (a policy, or its name, "openai:MODEL") that judges answers which the rules do not find right;
            none by default.
        limits: budgets of the episode; 20 turns and a forced answer by default.
        texts: what the environment says outside tool results.
        system: the system prompt, before the dialect's instructions.
        seed: of the generator, and of the tasks that `reset` draws.
        render_mode: "ansi" or None.

    Rewarded is `accuracy`; recorded beside it are `em` (exact match), `evidence_found` (the share of the evidence
    documents and pictures that searches showed) and `evidence_seen` (the share of the evidence boxes that crops show).

    Raises:
        UnknownNameError: a name that does not exist; the nearest is named.
        UsageError: an option that makes no sense, or not for this source.
        MissingExtraError: the extra `search` is not installed.
    """
    place = Frame.of(frame)
    options = {"seed": seed, "difficulty": difficulty, "kinds": kinds, "split": split, "cache": cache}
    if source == EMBLEMS:
        options["first_view"] = first_view
    tasks = chosen(source, EMBLEMS, mm_search_tasks, options, DATASETS, columns, on_error)
    named = list(tools)
    wants_text = bool({"web_search", "web_fetch"} & set(named))
    retriever = as_retriever(corpus, engine, corpus_columns) if wants_text else None
    own = retriever if isinstance(retriever, Corpus) else None
    view = Output(max_side=first_view, max_pixels=first_view**2)

    def steps(task: Task, image: Image) -> list[dict[str, Any]]:
        zoom, by_picture, fetch = (n if n in named else "" for n in ("image_zoom", "image_search", "web_fetch"))
        return look_and_search(task, image, place, own, excerpt, zoom=zoom, image_search=by_picture, fetch=fetch)

    return Env(
        id="mm-search",
        tasks=tasks.map(lambda task: as_shown(task, view, steps)),
        tools=sight_tools(named, place, retriever, pictures, k=k, shown=excerpt, format=format),
        dialect=dialect,
        dialect_options=dialect_options,
        system=system,
        limits=settings(Limits, limits, Limits(turns=20, images=40, on_turns="force")),
        texts=settings(Texts, texts, Texts()),
        rubric=Rubric(
            Component("accuracy", judged(judge, rule=search_match, first_rule=True)),
            Component("em", scores(em_match, metadata=True), weight=0.0),
            Component("evidence_found", evidence_found, weight=0.0),
            Component("evidence_seen", evidence_seen(), weight=0.0),
        ),
        frame=frame,
        seed=seed,
        render_mode=render_mode,
    )


def sight_tools(
    names: Sequence[str],
    frame: Frame,
    corpus: Retriever | None,
    pictures: str | Path | ImageRetriever,
    *,
    k: int,
    shown: int | None,
    format: str | Formatter,
) -> list[Tool]:
    """Tools by name that look at pictures and search with them and for texts, in the order of the names.

    Raises:
        UnknownNameError: there is no such tool.
        UsageError: pages are wanted of a retriever that has none.
    """
    made: dict[str, Tool] = {}
    if corpus is not None:
        found = search_tools(corpus, k=k, shown=shown, format=format, fetch="web_fetch" in names, pages=None)
        made |= {tool.name: tool for tool in found}
    if "image_search" in names:
        index = as_pictures(pictures)
        by = ("image", "box", *(["query"] if isinstance(index, Retriever) else []))
        made["image_search"] = image_search_tool(index, by=by, frame=frame, k=min(k, 3))
    for name in names:
        if name not in ALL_TOOLS:
            raise UnknownNameError("tool", name, ALL_TOOLS)
    looking = [name for name in names if name not in made]
    made |= {tool.name: tool for tool in image_tools(looking, frame)}
    return [made[name] for name in names]


def as_pictures(pictures: str | Path | ImageRetriever) -> ImageRetriever:
    """What is searched by picture: "embedded", "emblems", a file of pictures with captions, or a retriever as it is."""
    if not isinstance(pictures, (str, Path)):
        return pictures
    if pictures in (EMBEDDED, EMBLEMS):
        return picture_index() if pictures == EMBEDDED else emblem_index()
    if not Path(pictures).suffix and not Path(pictures).exists():
        raise UnknownNameError(
            "collection of pictures", str(pictures), (EMBEDDED, EMBLEMS, "FILE.jsonl", "FILE.parquet")
        )
    return open_images(pictures)
