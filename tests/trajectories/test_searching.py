"""Behaviour of search, counted out of records: in memory, from a folder, and for runs in which nobody searched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import agentenv
from agentenv.env import Env
from agentenv.reward import Component, Rubric, exact_match
from agentenv.spec import Limits
from agentenv.task import TaskSet
from agentenv.tools.search import Hit, open_corpus, web_search_tool
from agentenv.tools.web.fetch import web_fetch_tool
from agentenv.tools.web.pages import CorpusPages, Page
from agentenv.trajectories.searching import SearchStats
from agentenv.types import Observation, Task, Text, ToolResult
from tests.worlds import sums

DOCS = [
    Hit("a", "Ada", "Ada Town has 1,234 inhabitants.", "https://x.example/ada"),
    Hit("b", "Bob", "Bob Town has 99 inhabitants.", "https://x.example/bob"),
]


@agentenv.tool(timeout=5.0)
def other_search(query: str, box: list[int]) -> ToolResult:
    """Search elsewhere.

    Args:
        query: what for.
        box: where.
    """
    return ToolResult("", "other_search", (Text("nothing"),), data={"query": query, "ids": ["z"]})


def world(answer: Any = "1234", limits: Limits | None = None, kind: str = "") -> Env:
    corpus = open_corpus(DOCS)
    pages = CorpusPages.of(Page(hit.url, hit.text, hit.title) for hit in DOCS)
    return Env(
        id="towns",
        tasks=TaskSet.of(
            [Task("t", (Text("How many inhabitants has Ada Town?"),), answer, metadata={"answer_type": kind})]
        ),
        tools=[web_search_tool(corpus), other_search, web_fetch_tool(pages)],
        limits=limits or Limits(turns=9, on_turns="force"),
        rubric=Rubric(Component("right", exact_match)),
    )


def playing(*calls: tuple[str, dict[str, Any]], last: str = "I read https://x.example/ada.") -> Any:
    def policy(observation: Observation) -> str:
        number = sum(message.role == "assistant" for message in observation.messages)
        if number >= len(calls):
            return f"{last}\n<answer>1234</answer>"
        name, arguments = calls[number]
        return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"

    return policy


def find(query: str) -> tuple[str, dict[str, Any]]:
    return "web_search", {"query": query}


PLAYED = playing(
    find("Ada Town"),
    find("  ada   TOWN"),
    find("has Ada Town 1,234 inhabitants"),
    find("zzz"),
    find(" "),
    ("web_fetch", {"url": "https://x.example/ada"}),
    ("web_fetch", {"url": "https://x.example/none"}),
)


@pytest.mark.parametrize("kept", [False, True])
def test_what_was_searched_is_counted(kept: bool, tmp_path: Path) -> None:
    run = agentenv.rollout(world(), PLAYED, out=tmp_path / "run" if kept else None)
    found = run.stats().search
    assert found is not None
    assert (found.offered, found.episodes, found.searches, found.pages) == (1, 1, 5.0, 1.0)
    assert found.failed == pytest.approx(1 / 5)
    assert found.empty == pytest.approx(1 / 5)
    assert found.repeated == pytest.approx(1 / 5)
    assert found.query_has_answer == pytest.approx(1 / 5)
    assert found.result_has_answer == 1.0
    assert (found.sources, found.cited) == (2.0, 1.0)
    text = str(run.stats())
    assert (
        "5.00 searches an episode (1 of 1 searched), 20.0% failed, 20.0% found nothing, 20.0% repeated; 1.00 pages"
        in text
    )
    assert "2.00 found an episode, 1.00 cited" in text


@pytest.mark.parametrize("answer", [{"lat": 12.5}, True, None, "7", ["x"], []])
def test_an_answer_that_cannot_be_looked_for_is_left_out(answer: Any) -> None:
    found = agentenv.rollout(world(answer=answer), playing(find("Bob"))).stats().search
    assert found is not None
    assert found.query_has_answer is None
    assert found.result_has_answer is None
    assert "answer stood" not in "\n".join(found.lines())


@pytest.mark.parametrize(
    ("answer", "kind", "queries", "held"),
    [
        ({"city": "Ada Town", "state": "", "lat": 1.5}, "", ("inhabitants",), (0.0, 1.0)),
        ({"city": "Ada Town", "country": "Utopia"}, "", ("Ada Town Utopia",), (1.0, 0.0)),
        (["Ada", "Bob"], "set", ("Ada",), (0.0, 0.0)),
        (["Ada", "Bob"], "set", ("inhabitants",), (0.0, 1.0)),
        (["Zoe", "Bob"], "text", ("Bob",), (1.0, 1.0)),
    ],
)
def test_answers_of_several_texts(answer: Any, kind: str, queries: tuple[str, ...], held: tuple[float, float]) -> None:
    found = agentenv.rollout(world(answer, kind=kind), playing(*map(find, queries))).stats().search
    assert found is not None
    assert (found.query_has_answer, found.result_has_answer) == held


def test_averages_are_over_all_episodes_that_had_the_tools() -> None:
    """Of four attempts, one searches three times, once by another tool with the same words, and one number is a box."""

    def policy(observation: Observation) -> str:
        first = next(numbers) if len(observation.messages) == 2 else 1
        if first == 0:
            calls = [find("Ada"), find("ada"), ("other_search", {"query": "Ada", "box": [1234, 5]})]
            return "".join(f"<tool_call>{json.dumps({'name': n, 'arguments': a})}</tool_call>" for n, a in calls)
        return "<answer>1234</answer>"

    numbers = iter(range(9))
    found = agentenv.rollout(world(), policy, group=4, concurrency=1).stats().search
    assert found is not None
    assert (found.offered, found.episodes, found.searches) == (4, 1, 0.75)
    assert found.repeated == pytest.approx(1 / 3)
    assert (found.query_has_answer, found.result_has_answer) == (0.0, 0.25)
    assert "0.75 searches an episode (1 of 4 searched)" in "\n".join(found.lines())


@pytest.mark.parametrize(
    ("said", "cited"),
    [
        ("see https://x.example/ada.", 1),
        ("see (https://x.example/ada) and https://x.example/ada", 1),
        ("https://x.example/adam https://x.example/ada.html https://x.example/ada/b", 0),
        ("https://x.example/ada, https://x.example/bob", 2),
        ("Ada and Bob", 0),
    ],
)
def test_a_document_is_cited_once_under_its_own_name(said: str, cited: int) -> None:
    opened = ("web_fetch", {"url": "https://x.example/bob"})
    found = agentenv.rollout(world(), playing(find("Ada"), opened, last=said)).stats().search
    assert found is not None
    assert found.cited == cited


def test_only_what_was_shown_counts() -> None:
    found = agentenv.rollout(world(), playing(find("99"))).stats().search
    assert found is not None
    assert found.result_has_answer == 0.0


def test_runs_without_search_have_none() -> None:
    run = agentenv.rollout(sums(), "reference", tasks=2)
    assert run.stats().search is None
    assert "searching" not in str(run.stats())


def test_the_figures_are_plain_data() -> None:
    run = agentenv.rollout(world(), PLAYED)
    assert json.loads(run.stats().to_json())["search"]["searches"] == 5.0
    assert len(list(SearchStats(query_has_answer=0.5, result_has_answer=1.0).lines())) == 2
