"""Search over corpora of words with Zipf's frequencies: building, asking, and what is found beside exact BM25.

Times are CPU time of the thread that searches: what one core needs, whatever else the machine does.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from agentenv.tools.search import Corpus, Hit, open_corpus
from agentenv.tools.search.lexical import TantivyEngine
from tests.bench.figure import Figure, Group, Scale

VOCABULARY = 200_000
COMMON = 120  # the most frequent words, which count for no content
LENGTHS = (15, 75)  # words of a document
K = 10
TOP = 10


@lru_cache(maxsize=1)
def vocabulary() -> tuple[Any, Any]:
    """Words, and the cumulated frequencies of a Zipf-Mandelbrot law with English text's exponent."""
    rng = np.random.default_rng(1)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = sorted({"".join(rng.choice(letters, length)) for length in rng.integers(3, 10, 2 * VOCABULARY)})
    words = list(rng.permutation(words)[:VOCABULARY])
    frequencies = 1 / (np.arange(len(words)) + 2.7) ** 1.07
    return np.array(words), np.cumsum(frequencies / frequencies.sum())


def documents(size: int, seed: int = 0) -> Iterator[Hit]:
    words, cumulated = vocabulary()
    rng = np.random.default_rng(seed)
    for start in range(0, size, 10_000):
        lengths = rng.integers(*LENGTHS, min(10_000, size - start))
        drawn = np.minimum(np.searchsorted(cumulated, rng.random(int(lengths.sum()))), len(words) - 1)
        for number, part in enumerate(np.split(drawn, np.cumsum(lengths)[:-1]), start=start):
            yield Hit(str(number), "", " ".join(words[part]))


def queries(size: int, many: int, right: int = 2, frequent: bool = False) -> list[tuple[str, str]]:
    """(id of the document that is meant, content words of it and two others, `frequent`: one of these very common)."""
    words, _ = vocabulary()
    common, rng = set(words[:COMMON]), np.random.default_rng(2)
    chosen = set(rng.integers(0, size, 3 * many).tolist())
    out: list[tuple[str, str]] = []
    for number, hit in enumerate(documents(size)):
        if number in chosen:
            content = sorted(set(hit.text.split()) - common)
            if len(content) >= right:
                noise = (
                    words[rng.integers(COMMON, 5000)],
                    words[rng.integers(*((0, 12) if frequent else (COMMON, 5000)))],
                )
                out.append((hit.id, " ".join([*rng.choice(content, right, replace=False), *noise])))
    return out[:many]


def opened(folder: Path, size: int, engine: Any = "tantivy") -> tuple[Corpus, float]:
    """The corpus, and the CPU seconds that its documents and its index took to write (and many of them to make)."""
    made = list(documents(size)) if size <= 100_000 else None
    started = time.process_time()
    corpus = open_corpus(lambda: made or documents(size), engine=engine, key=f"bench-{size}", folder=folder)
    return corpus, time.process_time() - started


def timed(search: Callable[[str], Any], asked: Sequence[str]) -> tuple[float, float]:
    """Milliseconds of CPU that a query takes, the median and the 99th percentile."""
    for query in asked[:20]:
        search(query)
    taken = []
    for query in asked:
        started = time.thread_time()
        search(query)
        taken.append(time.thread_time() - started)
    return float(np.median(taken)) * 1e3, float(np.quantile(taken, 0.99)) * 1e3


def exact(size: int, engine: TantivyEngine, asked: Sequence[str], k1: float = 1.2, b: float = 0.75) -> list[list[str]]:
    """The best documents of each query by BM25 as it is defined, over the same words, with no shortcut at all."""
    analyse = engine._analyzer.analyze
    terms = [set(analyse(query)) for query in asked]
    wanted = set().union(*terms)
    postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
    lengths = np.zeros(size)
    for number, hit in enumerate(documents(size)):
        tokens = analyse(hit.text)
        lengths[number] = len(tokens)
        for term, count in Counter(token for token in tokens if token in wanted).items():
            postings[term].append((number, count))
    norm = k1 * (1 - b + b * lengths / lengths.mean())
    best = []
    for query in terms:
        scores = np.zeros(size)
        for term in query & set(postings):
            numbers, counts = np.array(postings[term]).T
            idf = np.log(1 + (size - len(numbers) + 0.5) / (len(numbers) + 0.5))
            scores[numbers] += idf * counts * (k1 + 1) / (counts + norm[numbers])
        order = np.lexsort((np.arange(size), -scores))[:TOP]
        best.append([str(number) for number in order if scores[number] > 0])
    return best


def recall(size: int, corpus: Corpus, meant: Sequence[tuple[str, str]]) -> Figure:
    asked = [query for _, query in meant]
    assert isinstance(corpus.engine, TantivyEngine)
    truth = exact(size, corpus.engine, asked)
    ours = [[hit.id for hit in corpus.find(query, TOP)] for query in asked]
    pairs = list(zip(meant, ours, truth, strict=True))
    found = float(np.mean([id in mine for (id, _), mine, _ in pairs]))
    possible = float(np.mean([id in theirs for (id, _), _, theirs in pairs]))
    alike = float(np.mean([len(set(mine) & set(theirs)) / max(1, len(theirs)) for _, mine, theirs in pairs]))
    why = f"what is meant is among the first ten in {found:.3f} of queries, by exact BM25 in {possible:.3f}; "
    why += f"{alike:.3f} of the ten are the same, as lengths are kept in one byte"
    return Figure("search_recall", found / max(possible, 1e-9), "x", least=0.995, why=why)


def with_frequent(corpus: Corpus, size: int, scale: Scale) -> str:
    asked = [query for _, query in queries(size, scale.of(200, 5), frequent=True)]
    middle, tail = timed(lambda query: corpus.find(query, K), asked)
    return f"with one of the twelve most frequent words, p50 {middle:.2f} and p99 {tail:.2f} ms"


def measure(scale: Scale) -> list[Figure]:
    figures = []
    with tempfile.TemporaryDirectory() as name:
        folder, small = Path(name), scale.of(100_000, 500)
        corpus, building = opened(folder, small)
        meant = queries(small, scale.of(1000, 20))
        asked = [query for _, query in meant]
        why = "one core; reads, writes and indexes documents of 45 words"
        figures.append(Figure("search_index_100000", building, "s", most=10.0, why=why))
        middle, tail = timed(lambda query: corpus.find(query, K), asked)
        bare, _ = timed(lambda query: corpus.engine.top(query, K), asked)
        why = f"ten hits of a query of four words; {bare:.3f} ms of it ranking, the rest reading the hits"
        figures.append(Figure("search_query_100000_p50", middle, "ms", most=0.5, why=why))
        figures.append(Figure("search_query_100000_p99", tail, "ms", most=2.0, why=with_frequent(corpus, small, scale)))
        figures.append(recall(small, corpus, meant))
        lite, took = opened(folder, small, "sqlite")
        median, last = timed(lambda query: lite.find(query, K), asked[: scale.of(200, 5)])
        why = f"the same by SQLite's FTS5, which comes with Python; p99 {last:.1f} ms, indexed in {took:.1f} s"
        figures.append(Figure("search_query_100000_sqlite_p50", median, "ms", why=why))
        large = scale.of(1_000_000, 2000)
        corpus, building = opened(folder, large)
        middle, tail = timed(lambda query: corpus.find(query, K), [q for _, q in queries(large, scale.of(500, 20))])
        why = f"p99 {tail:.2f} ms; {with_frequent(corpus, large, scale)}; made and indexed in {building:.0f} s of CPU"
        figures.append(Figure("search_query_1000000_p50", middle, "ms", most=1.0, why=why))
    return figures


def ask_many(times: int = 5000) -> None:
    """What `--profile search_query` looks into."""
    with tempfile.TemporaryDirectory() as name:
        corpus, _ = opened(Path(name), 20_000)
        for _, query in queries(20_000, times):
            corpus.find(query, K)


NAMES = (
    *("search_index_100000", "search_query_100000_p50", "search_query_100000_p99", "search_recall"),
    *("search_query_100000_sqlite_p50", "search_query_1000000_p50"),
)
GROUP = Group("search", NAMES, measure, {"search_query": ask_many})
