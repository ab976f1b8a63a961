"""What the presets that search share: where they search, what they ask, and what an expert does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from agentenv.envs.mm_search import as_pictures
from agentenv.envs.mm_search.tasks import mm_search_tasks
from agentenv.envs.search.tasks import search_steps
from agentenv.media import EpisodeMedia, decode_cache, media_store
from agentenv.policy import Policy
from agentenv.task import TaskSet
from agentenv.tool import Tool
from agentenv.tools.image import Output, Renderer, view_of
from agentenv.tools.search import Corpus, ImageRetriever, PolicySummary, Retriever, Summariser, web_search_tool
from agentenv.tools.search.pipeline import Budget, Pipeline
from agentenv.tools.search.text_tool import ABOUT
from agentenv.trajectory import Trajectory
from agentenv.types import Image, Task, Text

SummaryModel = Policy | Summariser | str | Mapping[str, Any] | None
WHOLE = "<img>"
"""How MMSearch-R1 and DeepMMSearch-R1 write all of the picture."""
GIVE_UP = "Unable to answer due to lack of relevant information"
"""How a policy of these two gives up."""
_ROOM = 0.5
_CLOSE = Output(max_pixels=1_000_000, format="PNG")


def searched_pictures(pictures: str | Path | ImageRetriever) -> ImageRetriever:
    """What pictures are searched: "embedded", "emblems", a file of pictures with captions, or a retriever."""
    return as_pictures(pictures)


def summary_of(model: SummaryModel, sentences: str) -> Summariser | None:
    """A summariser: a function as it is, or a model that is asked for so many sentences."""
    if model is None or (callable(model) and not isinstance(model, Policy)):
        return model
    return PolicySummary(model, sentences=sentences)


def text_search(
    retriever: Retriever, name: str, format: str, *, k: int, excerpt: int | None, summary: SummaryModel, sentences: str
) -> Tool:
    """The text search of a preset: its name, its format, and a summariser where there is one."""
    stages = Pipeline(k=k, budget=Budget(characters=excerpt), format=format, summarise=summary_of(summary, sentences))
    return web_search_tool(retriever, name=name, pipeline=stages, question=summary is not None, description=ABOUT)


def bound(task: Task) -> Mapping[str, Any]:
    """What the search tools are bound to: the pictures of the prompt, and the question for the summariser."""
    return {"media": EpisodeMedia(task.prompt), "question": question_of(task)}


def question_of(task: Task) -> str:
    """The question alone."""
    texts = "\n".join(part.text for part in task.prompt if isinstance(part, Text)).strip()
    return str(task.metadata.get("question", texts))


def one_answer(task: Task) -> Task:
    """The task with an answer that must name several things as one text, so that none alone is right by exact match."""
    if task.metadata.get("answer_type") == "set" and isinstance(task.answer, list):
        return replace(task, answer=", ".join(map(str, task.answer)))
    return task


def expert(
    retriever: Retriever, tool: str, first: Callable[[Task], list[dict[str, Any]]] = lambda task: []
) -> Callable[[Task], Task]:
    """Adds what an expert does to tasks whose evidence has `hops`: `first`, then one search for each of them."""

    def with_steps(task: Task) -> Task:
        if not task.evidence.get("hops") or "steps" in task.evidence or not isinstance(retriever, Corpus):
            return task
        steps = [*first(task), *search_steps(task, retriever, tool=tool, fetch="")]
        return replace(task, evidence={**task.evidence, "steps": steps})

    return with_steps


def whole_picture(tool: str, argument: str) -> Callable[[Task], list[dict[str, Any]]]:
    """The first step of an expert who searches with all of the picture."""
    step = {"tool": tool, "arguments": {argument: WHOLE}, "thought": "I do not know what this is; I search for it."}
    return lambda task: [step]


# -- pictures ----------------------------------------------------------------------------------------------------------


def closeups(kinds: Sequence[str]) -> Callable[..., TaskSet]:
    """A generator of questions on one emblem that fills the picture, since these systems search with all of it."""

    def generate(**options: Any) -> TaskSet:
        return mm_search_tasks(kinds=kinds, **options).map(closeup)

    return generate


def closeup(task: Task) -> Task:
    """The task with its scene cut to the plaque that it asks about, the label beneath it included."""
    image = next(part for part in task.prompt if isinstance(part, Image))
    view = view_of(image)
    left, top, right, bottom = task.evidence["boxes"][0]
    room = round(_ROOM * (right - left))
    box = max(0, left - room), max(0, top - room), min(view.size[0], right + room), min(view.size[1], bottom + room)
    shown = Renderer(media_store(), decode_cache()).show(replace(view, box=box), "crop", _CLOSE)
    kept = {key: value for key, value in task.evidence.items() if key not in ("boxes", "texts", "emblems")}
    prompt = tuple(shown if part is image else part for part in task.prompt)
    return replace(task, prompt=prompt, evidence=kept)


# -- transcripts -------------------------------------------------------------------------------------------------------


def prompted(trajectory: Trajectory) -> str:
    """The text that stands before the policy's first turn."""
    texts = []
    for node in trajectory.path():
        if node.origin == "sampled":
            break
        texts.append(node.message.text)
    return "\n".join(texts)


def last_turn(trajectory: Trajectory) -> str | None:
    """All of the policy's last turn, thoughts included: what scorers read that split at the last assistant marker."""
    turns = [node.message for node in trajectory.path() if node.origin == "sampled"]
    if not turns:
        return None
    return turns[-1].raw if turns[-1].raw is not None else turns[-1].text
