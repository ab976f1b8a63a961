"""Stages between a search and what a model reads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.errors import ConfigError, PolicyError, UnknownNameError
from agentenv.media import MediaStore, media_store
from agentenv.tools.search.pipeline import COLUMNS, UNSUMMARISED, Budget, Pipeline, cut, hits_of
from agentenv.tools.search.types import Hit, Summary
from agentenv.types import Image, Table, Text, ToolResult, Usage
from tests.pictures import encoded, scene

HITS = [Hit(str(i), f"Title {i}", f"text {i} " * 20, f"https://example.org/{i}", 5.0 - i) for i in range(5)]


def finished(pipeline: Pipeline, hits: Sequence[Hit] = HITS, **options: Any) -> ToolResult:
    return asyncio.run(pipeline.finish("search", "a query", hits, **options))


def table(result: ToolResult) -> Table:
    found = [part for part in result.parts if isinstance(part, Table)]
    assert len(found) == 1
    return found[0]


def test_the_hits_are_the_rows_of_what_is_read() -> None:
    result = finished(Pipeline(k=2), data={"handle": "image_1"}, cost=0.01)
    shown = table(result)
    assert shown.columns == COLUMNS
    assert shown.query == "a query"
    assert [row["id"] for row in hits_of(shown)] == ["0", "1"]
    assert hits_of(shown)[0]["score"] == 5.0
    assert hits_of(Table("", ("x",), (), 0)) == []
    urls = ["https://example.org/0", "https://example.org/1"]
    assert result.data == {"handle": "image_1", "query": "a query", "ids": ["0", "1"], "urls": urls}
    assert result.cost == 0.01
    assert result.usage is None


def test_no_hits_are_no_error() -> None:
    result = finished(Pipeline(rerank=lambda q, h: h, summarise=lambda q, h, a: "x"), [])
    assert table(result).text == "No results."
    assert table(result).rows == ()
    assert result.error_kind is None


def test_a_reranker_chooses_from_the_candidates() -> None:
    async def later(query: str, hits: Sequence[Hit]) -> list[Hit]:
        return sorted(hits, key=lambda hit: hit.score)

    for rerank in (later, lambda query, hits: hits[::-1]):
        pipeline = Pipeline(k=2, candidates=4, rerank=rerank)
        assert pipeline.wanted == 4
        assert finished(pipeline, HITS[:4]).data == {
            "query": "a query", "ids": ["3", "2"], "urls": ["https://example.org/3", "https://example.org/2"]
        }  # fmt: skip


def test_a_summary_stands_for_the_hits_and_is_recorded_with_its_cost() -> None:
    async def summarise(query: str, hits: Sequence[Hit], question: str) -> Summary:
        return Summary(f"{len(hits)} hits for {query}, asked {question}", "small-model", Usage(100, 20, 0.002), 0.5)

    result = finished(Pipeline(summarise=summarise), question="why?", cost=0.001)
    assert table(result).text == "5 hits for a query, asked why?"
    assert len(table(result).rows) == 5
    assert result.usage == Usage(100, 20, 0.002)
    assert result.cost == pytest.approx(0.003)
    assert result.data is not None
    assert result.data["summary"] == {"text": table(result).text, "model": "small-model", "seconds": 0.5}


def test_a_plain_function_may_sum_up() -> None:
    result = finished(Pipeline(summarise=lambda query, hits, question: "all of it"))
    assert table(result).text == "all of it"
    assert result.data is not None
    assert "lambda" in result.data["summary"]["model"]


@pytest.mark.parametrize("error", [PolicyError("no server"), KeyError("a bug")])
def test_where_the_summary_fails_the_hits_are_shown_and_it_is_said(error: Exception) -> None:
    def summarise(query: str, hits: Sequence[Hit], question: str) -> str:
        raise error

    result = finished(Pipeline(summarise=summarise, k=1))
    assert table(result).text.startswith(f"{UNSUMMARISED}\n\n[1] Title 0")
    assert result.data is not None
    assert result.data["summary_error"] == f"{type(error).__name__}: {error}"
    assert "summary" not in result.data


def test_an_empty_summary_is_none() -> None:
    result = finished(Pipeline(summarise=lambda *_: "  "))
    assert result.data is not None
    assert result.data["summary_error"] == "the summary is empty"
    result = finished(Pipeline(summarise=lambda *_: None))  # type: ignore[arg-type]
    assert result.data is not None
    assert result.data["summary_error"] == "the summary is NoneType, not a text"


def test_pictures_come_from_the_episodes_store_or_the_processs() -> None:
    own, theirs = MediaStore(), media_store().put(encoded(scene(seed=77), "PNG"))
    mine = own.put(encoded(scene(seed=78), "PNG"))
    hits = [Hit("a", "A", "", image=mine.sha256), Hit("b", "B", "", image=theirs.sha256)]
    result = finished(Pipeline(format="mmsearch"), hits, store=own)
    assert [part for part in result.parts if isinstance(part, Image)] == [mine, theirs]
    assert theirs.sha256 in own
    assert [type(part) for part in result.parts] == [Table, Image, Text, Image, Text]


def test_a_format_may_hold_parts_of_its_own() -> None:
    image = media_store().put(encoded(scene(), "PNG"))
    result = finished(Pipeline(format=lambda results: [image, "seen"]))
    assert [type(part) for part in result.parts] == [Image, Table]


# ---- budgets ---------------------------------------------------------------------------------------------------------


def test_texts_are_cut_at_a_word() -> None:
    assert cut("one two three", 10) == "one two..."
    assert cut("onetwothree", 8) == "onetw..."
    assert cut("abcdef", 3) == "abc"
    hit = Budget(characters=20, title=10).apply(Hit("x", "A long title", "words " * 10))
    assert (hit.title, hit.text) == ("A long...", "words words words...")


def test_tokens_are_counted_by_a_quarter_of_characters_or_a_function() -> None:
    hit = Hit("x", "", "word " * 100)
    assert len(Budget(None, tokens=10).apply(hit).text) <= 40
    exact = Budget(None, tokens=10, count=lambda text: len(text.split()))
    assert exact.apply(hit).text == "word word word word word word word word word word..."
    assert exact.apply(Hit("x", "", "few words")).text == "few words"
    assert Budget(None, tokens=1, count=lambda text: 5 * bool(text)).apply(hit).text == ""


@given(st.text(), st.integers(1, 50))
def test_a_cut_is_never_too_long_and_begins_as_the_text(text: str, most: int) -> None:
    kept = cut(text, most)
    assert len(kept) <= most or kept == text
    assert kept == text or text.startswith(kept.removesuffix("..."))


def test_settings_that_make_no_sense() -> None:
    options: list[dict[str, Any]] = [{"k": 0}, {"k": 5, "candidates": 3}]
    for wrong in options:
        with pytest.raises(ConfigError):
            Pipeline(**wrong)
    with pytest.raises(ConfigError):
        Budget(characters=0)
    with pytest.raises(UnknownNameError):
        Pipeline(format="qwenn")


def test_settings_name_what_decides_a_result() -> None:
    def rerank(query: str, hits: Sequence[Hit]) -> Sequence[Hit]:
        return hits

    base = Pipeline().settings
    assert Pipeline(rerank=rerank).settings != base
    assert Pipeline(k=3).settings != base
    assert Pipeline(format="qwen").settings != base
    assert Pipeline(budget=Budget(characters=10)).settings != base
