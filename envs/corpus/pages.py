"""The documents of a corpus as pages that `web_fetch` opens."""

from __future__ import annotations

from agentenv.tools.search import Corpus
from agentenv.tools.web.pages import CorpusPages, Page


def corpus_pages(corpus: Corpus) -> CorpusPages:
    """Pages of a corpus, by the address that a search result shows or by "doc:ID"; nothing is fetched."""

    def find(name: str) -> Page | None:
        hit = corpus.at_url(name) or corpus.at_url(f"https://{name}") or corpus.get(name)
        return None if hit is None else Page(hit.url or f"doc:{hit.id}", hit.text, hit.title, hit.date)

    return CorpusPages(find, corpus.name, corpus.version)
