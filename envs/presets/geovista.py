"""GeoVista: zoom and web search to tell where a picture was taken; results repeat the call; city 4, state 2, country 1.

Source: `inference_agent_tool_mode.py`, `search_agent_v1.py` and `reward_score/` of ekonwang/GeoVista (2511.15705).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from msgspec.structs import replace

from agentenv.env import Env
from agentenv.envs.geo import DATASETS, PLACES
from agentenv.envs.geo.tasks import geo_tasks
from agentenv.envs.presets._common import Variant, asked, box_schema, compose, known, restated, rewarded, side_by_side
from agentenv.envs.presets._web import SummaryModel, bound, expert, last_turn, text_search
from agentenv.envs.rewards import Judge, JudgeModel, model_of, within_length
from agentenv.envs.rewards.geo import (
    KNOWN_PLACES,
    LEVELS,
    AnswerOf,
    alignment,
    hierarchy,
    level_right,
    levels,
    own_answer,
    query_leak,
)
from agentenv.envs.rewards.geo_distance import Geocoder, distances
from agentenv.envs.rewards.geo_text import Mode
from agentenv.envs.rewards.geocode import geocoder
from agentenv.envs.rewards.search import evidence_found
from agentenv.envs.search.sources import EMBEDDED, Searched, as_retriever, chosen
from agentenv.envs.sights.stage import FIRST_VIEW
from agentenv.envs.zoom.toolbox import zoom_steps
from agentenv.errors import UsageError
from agentenv.reward import Component, Rubric
from agentenv.spec import Limits, Texts
from agentenv.task import OnError, TaskSet
from agentenv.tool import Tool
from agentenv.tools.image import CropRules, Frame, Naming, Output, SmartResize, image_zoom_tool
from agentenv.tools.search.corpus import EngineName
from agentenv.trajectory import Trajectory
from agentenv.types import Image, Task

Recipe = Literal["base", "v1", "v2", "v3", "v4"]

ZOOM, SEARCH = "image_zoom_in_tool", "search_web"
FRAMES = {
    "strict": Frame.of("pixels_shown", seen="qwen2.5-vl", rounding="truncate"),
    "upstream": Frame.of("pixels_shown", rounding="truncate"),
}
QUESTION = "Please analyze where is the place."
SYSTEM = """\
You find out where pictures were taken: country, state or region, and city.

# Tools
You may call tools for this. Their signatures stand between <tools> and </tools>:
<tools>
{zoom}
</tools>
<tools>
{search}
</tools>

# How to call a tool
Write a JSON object with the tool's name and its arguments between <tool_call> and </tool_call>:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>

Think between <think> and </think> before you call a tool or answer; call one tool a turn. Once you are sure, answer \
between <answer> and </answer>."""
ECHO = "<tool_call>{call}</tool_call>"
SHOWN = Output(max_pixels=2_000_000, max_side=1 << 16, filter="bicubic")
HIDING = Output(max_side=FIRST_VIEW, max_pixels=FIRST_VIEW**2)
CROPPED = Output(
    resize=SmartResize(28, 256 * 256, 2048 * 1024),
    max_side=1 << 16,
    max_pixels=1 << 26,
    filter="bicubic",
    format="JPEG",
)
HINT = "Now you must try to identify the place where the original image is located, without more tool uses."
UNUSED = "You should consider using web search tool to find more information about the location."
_LONGEST, _MOST = 20_000, 4.0
# What of leak and alignment each recipe counts.
SHAPING: Mapping[str, tuple[float, float]] = {"v1": (1.0, 1.0), "v2": (0.0, 1.0)}


def geovista(
    *,
    source: str | TaskSet = PLACES,
    difficulty: int | None = 1,
    split: str | None = None,
    cache: str | None = None,
    columns: Mapping[str, str] | None = None,
    on_error: OnError = "raise",
    corpus: Searched = EMBEDDED,
    corpus_columns: Mapping[str, str] | None = None,
    engine: EngineName = "auto",
    k: int = 10,
    excerpt: int | None = 600,
    summary: SummaryModel = None,
    variant: Variant = "strict",
    scoring: Variant | None = None,
    recipe: Recipe = "base",
    judge: JudgeModel = None,
    geocode: bool | None = None,
    limits: Limits | Mapping[str, Any] | None = None,
    seed: int = 0,
    render_mode: str | None = None,
) -> Env:
    """Make the GeoVista environment.

    Args:
        source: "places" (an endless generator), "geobench:FILE" (GeoBench, GeoVistaBench), or a `TaskSet` whose prompts
            are one picture and whose metadata hold the `place`.
        difficulty: of "places", 1 (the town's name stands there) or 2 (in another script or spelling, with what
            misleads); harder ones need a search by picture, which this system has not.
        split: of "places", "train" or "test".
        cache: of "places", a folder that keeps rendered scenes for the next time.
        columns: of a file, as for the zoom environment.
        on_error: of a file: "raise" at a malformed row, or "skip" it.
        corpus: what is searched: "embedded", "live:NAME" (a live engine; upstream Tavily), a file of documents, or a
            `Retriever`.
        corpus_columns: of a file of documents.
        engine: of a corpus, see `agentenv.tools.search.open_corpus`.
        k: results of a search.
        excerpt: characters of a document that are read; None for all of it.
        summary: a model that sums results up, or a function; upstream has none.
        variant: "upstream" keeps the first of the two tool blocks without the wrapper of type and function, and takes
            boxes as pixels of the image that is sent; "strict" as pixels of what the model's processor makes of it.
        scoring: which scorer is rewarded; as the variant by default. Upstream looks for the names anywhere in the last
            turn, thoughts included, and the right city makes state and country right whatever else is said; strict
            reads the answer, and a level counts only where no level above it is wrong. The other one stands beside it.
        recipe: "base": 4 for the city, else 2 for the state, else 1 for the country (recorded as a share of 4). "v1":
            that, less .5 for each query that names the place, or a town or sight that everybody knows (2 at most), and
            1 more or less where results name the city and the answer does or does not. "v2": without the queries. "v3":
            1 for the country. "v4": 1 for the city. A task that does not say what is scored is unscored.
        judge: a model that is asked of each level which the rules do not find right (upstream gpt-4o-mini); the rules
            alone where there is none.
        geocode: whether an answer without coordinates is measured from where the city, state or country lies that it
            names, as GeoNames has it (`agentenv.envs.rewards.geocode`); None where its data packages are installed.
            `coordinates_given` and `geocoded` say which way the coordinates came about. Upstream asks Google.
        limits: budgets of the episode; what is given replaces the preset's field by field.
        seed: of the generator, and of the tasks that `reset` draws.
        render_mode: "ansi" or None.

    Six turns, five crops, two searches, one call a turn, a crop always of the original. Two turns before the end a
    policy that has not searched is reminded of it, and before the last turn it is told to answer. A call that failed
    does not count towards its cap. Upstream scales a box by the ratio of the widths alone, which is the same to within
    a pixel, and ends errors with a traceback, which no policy is shown here.
    """
    for what, value, names in (("variant", variant, Variant), ("scoring", scoring or variant, Variant)):
        known(what, value, names)
    known("recipe", recipe, Recipe)
    options = {"seed": seed, "split": split, "cache": cache}
    if source == PLACES:
        options["difficulty"] = difficulty
        if difficulty not in (1, 2):
            raise UsageError(f"difficulty is 1 or 2 here, not {difficulty!r}: harder ones need a search by picture")
    tasks = chosen(source, PLACES, geo_tasks, options, DATASETS, columns, on_error)
    retriever = as_retriever(corpus, engine, corpus_columns)
    view = HIDING if source == PLACES else SHOWN
    tools = [
        _zoom(FRAMES[variant]),
        text_search(retriever, SEARCH, "geovista", k=k, excerpt=excerpt, summary=summary, sentences="10-12"),
    ]
    wrapped = "<tool_response>{}</tool_response>"
    return compose(
        id="geovista",
        tasks=asked(tasks.map(without_emblem), QUESTION, view).map(expert(retriever, SEARCH, look(FRAMES[variant]))),
        tools=tools,
        dialect="hermes",
        dialect_options={
            "block": "",
            "results": {
                ZOOM: wrapped.format(
                    f"For the image, You have zoomed in on the following area: {ECHO}, and the cropped image is as"
                    " follows: {}"
                ),
                SEARCH: wrapped.format(f"For {ECHO}, the search results are as follows:\n{{}}"),
            },
            "error": "Tool call error: {}",
            "quiet": True,
        },
        system=_system(tools, variant),
        limits=limits,
        default_limits=Limits(
            turns=6,
            calls_per_turn=1,
            extra_calls="first",
            calls_per_tool={ZOOM: 5, SEARCH: 2},
            failed_calls="free",
            invalid_turns=6,
            hint_turns=1,
            no_call="answer",
        ),
        rubric=_rubric(scoring or variant, recipe, judge, geocoder(geocode)),
        frame="pixels_shown",
        seed=seed,
        render_mode=render_mode,
        bind=bound,
        texts=Texts(hint=HINT, unused={SEARCH: UNUSED}, joint=""),
    )


def without_emblem(task: Task) -> Task:
    """A generated task without its emblem as evidence, since nothing can be searched with a picture here."""
    evidence = dict(task.evidence)
    if not evidence.pop("emblems", None):
        return task
    documents = [one for one in evidence["documents"] if not one.startswith("emblem-")]
    signs = {key: evidence[key][1:] for key in ("boxes", "texts")}
    return replace(task, evidence={**evidence, **signs, "documents": documents})


def look(frame: Frame) -> Callable[[Task], list[dict[str, Any]]]:
    """The zooms of an expert: to the signs, of which two searches leave time for three."""

    def steps(task: Task) -> list[dict[str, Any]]:
        image = next(part for part in task.prompt if isinstance(part, Image))
        return zoom_steps(task, image, frame, tool=ZOOM, which="")[:3]

    return steps


def _system(tools: list[Tool], variant: str) -> str:
    zoom, search = (tool.spec.openai() for tool in tools)
    shown = zoom["function"] if variant == "upstream" else zoom
    return SYSTEM.format(zoom=json.dumps(shown), search=json.dumps(search))


def _zoom(frame: Frame) -> Tool:
    made = image_zoom_tool(
        frame,
        name=ZOOM,
        crop=CropRules(max_aspect=128),
        output=CROPPED,
        naming=Naming(image="", only="image_1", label="label"),
        text="",
    )
    properties = {
        "bbox_2d": box_schema(
            "Region to zoom into, as [x1, y1, x2, y2]: (x1, y1) is its top left corner, (x2, y2) its bottom right one,"
            " in pixels of the image as you see it."
        ),
        "label": {"type": "string", "description": "Name of the object in the region (optional)."},
    }
    return restated(
        made,
        "Zoom into a region of the image: it is cropped by a bounding box, with an optional label of the object.",
        {"type": "object", "properties": properties, "required": ["bbox_2d"]},
    )


# -- rewards -----------------------------------------------------------------------------------------------------------


def _rubric(scoring: str, recipe: str, judge: JudgeModel, places: Geocoder | None) -> Rubric:
    leak, align = SHAPING.get(recipe, (0.0, 0.0))
    level = {"v3": "country", "v4": "city"}.get(recipe, "")
    strict, upstream = placed(judge, "strict", own_answer, level), placed(judge, "upstream", last_turn, level)
    return Rubric(
        *side_by_side("place", strict, upstream, 1.0 if level else _MOST, scoring),
        Component("leak", query_leak(known=KNOWN_PLACES), weight=leak),
        *side_by_side("alignment", alignment(), alignment("upstream", last_turn), align, scoring),
        *(Component(name, level_right(name), weight=0.0) for name in LEVELS),
        *distances(places),
        Component("evidence_found", evidence_found, weight=0.0),
        passes=rewarded("place", scoring),
    )


def placed(
    judge: JudgeModel, mode: Mode, answer_of: AnswerOf, level: str = ""
) -> Callable[[Task, Trajectory], float | Awaitable[float | None] | None]:
    """A component: the share of 4 for the most exact level that is right; with `level`, 1 for that one alone.

    Without a judge by the rules of `rewards.geo.levels`; with one, it is asked of each level that the rules do not find
    right, the most exact first. No verdict leaves the component unscored, and so does a task that does not know any of
    the levels.
    """
    asked_of = ("city", "state", "country") if not level else (level,)
    ask = None if judge is None else Judge(model_of(judge))

    def value(name: str) -> float:
        return 1.0 if level else hierarchy({name: True}) / _MOST

    def by_rules(task: Task, trajectory: Trajectory) -> float | None:
        right = levels(answer_of(trajectory), task.metadata.get("place") or {}, mode)
        known = [name for name in asked_of if name in right]
        return next((value(name) for name in known if right[name]), 0.0) if known else None

    async def by_judge(task: Task, trajectory: Trajectory) -> float | None:
        """What the rules and the judge say together."""
        place, text = task.metadata.get("place") or {}, answer_of(trajectory)
        right = levels(text, place, mode)
        known = [name for name in asked_of if name in right]
        if not known or not text or not within_length(text, _LONGEST):
            return by_rules(task, trajectory)
        for name in known:
            said = 1.0 if right[name] else await _asked(ask, name, place, text)
            if said is None or said >= 1.0:
                return None if said is None else value(name)
        return 0.0

    return by_rules if ask is None else by_judge


async def _asked(judge: Judge | None, level: str, place: Mapping[str, Any], text: str) -> float | None:
    """Whether a judge finds the country, state or city of an answer right."""
    above = ", ".join(str(place[one]) for one in reversed(LEVELS[: LEVELS.index(level)]) if place.get(one))
    gold = f"{place[level]} ({above})" if above else str(place[level])
    assert judge is not None
    return await judge.compare(f"In which {level} was the picture taken?", gold, text)
