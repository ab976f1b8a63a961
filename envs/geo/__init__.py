"""The geo environment: where was this picture taken? Zoom to the signs, search with the emblem, answer with the place.

env = agentenv.make("geo", difficulty=3)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from agentenv.env import Env
from agentenv.envs.geo.tasks import geo_tasks
from agentenv.envs.mm_search import TOOLS, sight_tools
from agentenv.envs.rewards import evidence_seen
from agentenv.envs.rewards.geo import alignment, geo_reward, level_right, query_leak
from agentenv.envs.rewards.geo_distance import Geocoder, distances
from agentenv.envs.rewards.geo_text import Mode
from agentenv.envs.rewards.geocode import geocoder
from agentenv.envs.rewards.search import evidence_found
from agentenv.envs.search.sources import EMBEDDED, as_retriever, chosen
from agentenv.envs.sights.stage import FIRST_VIEW, look_and_search
from agentenv.envs.zoom.datasets import from_columns, geobench
from agentenv.envs.zoom.toolbox import as_shown
from agentenv.errors import UnknownNameError, UsageError
from agentenv.reward import Component, Rubric
from agentenv.spec import Limits, Texts, settings
from agentenv.task import OnError, TaskSet
from agentenv.tools.image import Frame, Output
from agentenv.tools.search import Corpus, Formatter, ImageRetriever, Retriever
from agentenv.tools.search.corpus import EngineName
from agentenv.types import Image, Task

PLACES = "places"
SYSTEM = (
    "You find out where pictures were taken. You are shown a reduced view: zoom in to read signs, search with the part"
    " of the picture that shows an emblem or a building, and search for texts to confirm the place and its coordinates."
)
DATASETS: Mapping[str, Callable[..., TaskSet]] = {"geobench": geobench, "columns": from_columns}


def geo(
    *,
    source: str | TaskSet = PLACES,
    difficulty: int | None = None,
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
    scoring: Mode = "strict",
    leak: float = 0.0,
    align: float = 0.0,
    geocode: bool | None = None,
    dialect: str = "hermes",
    dialect_options: Mapping[str, Any] | None = None,
    limits: Limits | Mapping[str, Any] | None = None,
    texts: Texts | Mapping[str, Any] | None = None,
    system: str = SYSTEM,
    seed: int = 0,
    render_mode: str | None = None,
) -> Env:
    """Make the geo environment.

    Args:
        source: where the tasks come from: "places" (an endless generator), "geobench:FILE" (GeoBench, GeoVistaBench),
            or a `TaskSet` whose metadata hold the `place`.
        difficulty: of "places", 1 (the town's name stands there) to 5 (nothing but an emblem).
        split: of "places", "train" (the default) or "test".
        cache: of "places", a folder that keeps rendered scenes for the next time.
        columns: of a file, as for the zoom environment.
        on_error: "raise" stops at a malformed row of a data set, naming its file and line; "skip" goes on and lists
            it in `env.tasks.skipped`.
        tools: which tools the policy has, of image_zoom (and the zoom environment's others), image_search, web_search
            and web_fetch.
        corpus: what web_search searches, as for the search environment: "embedded", a file, "live:NAME", a `Retriever`.
        corpus_columns: of a file of documents: see `agentenv.tools.search.Columns`.
        pictures: what image_search searches, as for the mm-search environment.
        engine: of a corpus: "auto" (tantivy where it is installed, else sqlite), or by name.
        k: results of a search.
        excerpt: characters of a document that a search shows; None for all of it.
        format: how text results are written, see `agentenv.tools.search.FORMATS`.
        frame: the coordinate frame of all boxes: "relative_1000", "relative_1", "pixels_shown" or "pixels_original".
        first_view: longer side in pixels of what the policy is shown first.
        scoring: which levels count as right, see `agentenv.envs.rewards.geo.levels`.
        leak: weight of what is taken off for queries that name the place or a "famous" one (GeoVista's v1 has 1).
        align: weight of the alignment of answer and results (GeoVista's v1 and v2 have 1).
        geocode: whether an answer without coordinates is measured from where the city, state or country lies that it
            names, as GeoNames has it (`agentenv.envs.rewards.geocode`); None where its data packages are installed.
            `coordinates_given` and `geocoded` say which way the coordinates came about.
        dialect: how calls and results are written.
        dialect_options: options of the dialect.
        limits: budgets of the episode; 16 turns and a forced answer by default.
        texts: what the environment says outside tool results.
        system: the system prompt, before the dialect's instructions.
        seed: of the generator, and of the tasks that `reset` draws.
        render_mode: "ansi" or None.

    Rewarded is `place`: the 4/2/1 hierarchy of city, state and country as a share of the most that can be had. Recorded
    beside it are `country`, `state` and `city`, `within_3km`, `distance_km`, how the coordinates came about, the
    hierarchy as upstream has it, leak and alignment, `evidence_found` and `evidence_seen`.

    Raises:
        UnknownNameError: a name that does not exist; the nearest is named.
        UsageError: an option that makes no sense, or not for this source.
        MissingExtraError: the extra `search` is not installed.
    """
    if scoring not in get_args(Mode):
        raise UnknownNameError("scoring", scoring, get_args(Mode))
    if min(leak, align) < 0:
        raise UsageError("leak and align are weights of 0 and more")
    place = Frame.of(frame)
    options: dict[str, Any] = {"seed": seed, "difficulty": difficulty, "split": split, "cache": cache}
    if source == PLACES:
        options["first_view"] = first_view
    tasks = chosen(source, PLACES, geo_tasks, options, DATASETS, columns, on_error)
    named = list(tools)
    wants_text = bool({"web_search", "web_fetch"} & set(named))
    retriever = as_retriever(corpus, engine, corpus_columns) if wants_text else None
    own = retriever if isinstance(retriever, Corpus) else None
    view = Output(max_side=first_view, max_pixels=first_view**2)

    def steps(task: Task, image: Image) -> list[dict[str, Any]]:
        zoom, by_picture, fetch = (n if n in named else "" for n in ("image_zoom", "image_search", "web_fetch"))
        return look_and_search(task, image, place, own, excerpt, zoom=zoom, image_search=by_picture, fetch=fetch)

    return Env(
        id="geo",
        tasks=tasks.map(lambda task: as_shown(task, view, steps)),
        tools=sight_tools(named, place, retriever, pictures, k=k, shown=excerpt, format=format),
        dialect=dialect,
        dialect_options=dialect_options,
        system=system,
        limits=settings(Limits, limits, Limits(turns=16, images=40, on_turns="force")),
        texts=settings(Texts, texts, Texts()),
        rubric=_rubric(scoring, leak, align, geocoder(geocode)),
        frame=frame,
        seed=seed,
        render_mode=render_mode,
    )


def _rubric(scoring: Mode, leak: float, align: float, places: Geocoder | None) -> Rubric:
    return Rubric(
        Component("place", geo_reward(mode=scoring, scale=True)),
        Component("leak", query_leak(), weight=leak),
        Component("alignment", alignment(scoring), weight=align),
        *(Component(level, level_right(level, scoring), weight=0.0) for level in ("country", "state", "city")),
        *distances(places),
        Component("upstream", geo_reward(mode="upstream"), weight=0.0),
        Component("evidence_found", evidence_found, weight=0.0),
        Component("evidence_seen", evidence_seen(), weight=0.0),
        passes="place",
    )
