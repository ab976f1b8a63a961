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
from agentenv.types import Observation, Task, Text
from tests.worlds import sums

DOCS = [
    Hit("a", "Ada", "Ada Town has 1,234 inhabitants.", "https://x.example/ada"),
    Hit("b", "Bob", "Bob Town has 99 inhabitants.", "https://x.example/bob"),
]


def world(answer: Any = "1234", limits: Limits | None = None) -> Env:
    corpus = open_corpus(DOCS)
    pages = CorpusPages.of(Page(hit.url, hit.text, hit.title) for hit in DOCS)
    return Env(
        id="towns",
        tasks=TaskSet.of([Task("t", (Text("How many inhabitants has Ada Town?"),), answer)]),
        tools=[web_search_tool(corpus), web_fetch_tool(pages)],
        limits=limits or Limits(turns=9, on_turns="force"),
        rubric=Rubric(Component("right", exact_match)),
    )


def playing(*calls: tuple[str, dict[str, Any]], answer: str = "1234") -> Any:
    def policy(observation: Observation) -> str:
        number = sum(message.role == "assistant" for message in observation.messages)
        if number >= len(calls):
            return f"I read https://x.example/ada.\n<answer>{answer}</answer>"
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
    assert (found.episodes, found.searches, found.pages) == (1, 5.0, 1.0)
    assert found.failed == pytest.approx(1 / 5)
    assert found.empty == pytest.approx(1 / 5)
    assert found.repeated == pytest.approx(1 / 5)
    assert found.query_has_answer == pytest.approx(1 / 5)
    assert found.result_has_answer == 1.0
    assert (found.sources, found.cited) == (2.0, 1.0)
    text = str(run.stats())
    assert "5.00 searches an episode, 20.0% failed, 20.0% found nothing, 20.0% repeated; 1.00 pages opened" in text
    assert "2.00 found an episode, 1.00 cited" in text


def test_an_answer_that_cannot_be_looked_for_is_left_out() -> None:
    found = agentenv.rollout(world(answer={"city": "Ada"}), playing(find("Bob"))).stats().search
    assert found is not None
    assert found.query_has_answer is None
    assert found.result_has_answer is None
    assert "answer stood" not in "\n".join(found.lines())


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
