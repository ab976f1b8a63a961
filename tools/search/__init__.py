"""Search tools: by text and by picture, over a corpus on disk or a live engine, through a pipeline of plain stages.

    corpus = open_corpus("docs.jsonl", columns={"text": "body"})
    tool = web_search_tool(corpus, format="search-r1", k=3)

A `Retriever` finds documents (`Hit`); the `Pipeline` reorders, cuts, sums up and writes them. Corpora are indexed once
into a cache folder and are shared by processes; tantivy and the models behind pictures are imported when they are used.
"""

from __future__ import annotations

from agentenv.tools.search.build import cache_folder
from agentenv.tools.search.corpus import Corpus, open_corpus
from agentenv.tools.search.dense import Embedder, EmbeddingReranker
from agentenv.tools.search.documents import Columns
from agentenv.tools.search.formats import FORMATS, make_formatter, picture
from agentenv.tools.search.ground import PolicyGrounder
from agentenv.tools.search.image_tool import image_search_tool
from agentenv.tools.search.images import ImageCorpus, open_images
from agentenv.tools.search.looks import PictureEmbedder
from agentenv.tools.search.pipeline import Budget, Pipeline, hits_of
from agentenv.tools.search.summary import PolicySummary
from agentenv.tools.search.text_tool import web_search_tool
from agentenv.tools.search.types import (
    Formatter,
    Grounder,
    Hit,
    ImageRetriever,
    Reranker,
    Results,
    Retriever,
    Summariser,
    Summary,
)

__all__ = [
    "FORMATS",
    "Budget",
    "Columns",
    "Corpus",
    "Embedder",
    "EmbeddingReranker",
    "Formatter",
    "Grounder",
    "Hit",
    "ImageCorpus",
    "ImageRetriever",
    "PictureEmbedder",
    "Pipeline",
    "PolicyGrounder",
    "PolicySummary",
    "Reranker",
    "Results",
    "Retriever",
    "Summariser",
    "Summary",
    "cache_folder",
    "hits_of",
    "image_search_tool",
    "make_formatter",
    "open_corpus",
    "open_images",
    "picture",
    "web_search_tool",
]
