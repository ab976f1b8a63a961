"""Questions over the embedded corpus, generated from a seed: none can be answered without looking things up.

    search_tasks(seed=0, difficulty=3).take(100)

The facts are small and many (inhabitants, coordinates, divisions of 88,000 towns), so that they can hardly be known and
not be guessed. Every task keeps the chain of documents to its answer, with a query that finds each.

Difficulty: 1, one document; 2, one leads to the next; 3, comparisons and places with the same name; 4, an intersection,
four documents; 5, over all neighbours of a country, five documents and more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from random import Random
from typing import Any

from msgspec import Struct

from agentenv.envs._options import check_drawing, chosen_kinds
from agentenv.envs.corpus import Atlas, atlas, corpus_version
from agentenv.envs.corpus.articles import PACKAGE as ARTICLES
from agentenv.envs.corpus.packages import kinds_at_hand
from agentenv.envs.corpus.words import PACKAGE as WORDS
from agentenv.envs.search.questions import ARTICLES_KIND, KINDS, LEVELS, WORDS_KIND, ask
from agentenv.envs.zoom.vocabulary import Split
from agentenv.errors import UsageError
from agentenv.task import TaskSet
from agentenv.tools.search import Corpus
from agentenv.tools.search.pipeline import cut
from agentenv.types import Task, Text

_VERSION = 2
_NEEDS = {ARTICLES_KIND: ARTICLES, WORDS_KIND: WORDS}  # packages that may be missing, by the kind that needs them
_THOUGHTS = (
    "I do not know this; I look it up.",
    "That leads on; I look up the next one.",
    "One more fact is needed.",
)
_READ = "The excerpt ends too early; I open the page."


class _Plan(Struct, frozen=True):
    """The settings of a generator; part of every seed."""

    seed: int
    split: str
    difficulty: int | None
    kinds: tuple[str, ...]
    left_out: tuple[str, ...]
    named: bool
    corpus: str

    @property
    def prefix(self) -> str:
        level = "" if self.difficulty is None else f"-d{self.difficulty}"
        narrow = "-" + "+".join(self.kinds) if self.named else "".join(f"-no-{kind}" for kind in self.left_out)
        return f"search-{self.split}{level}{narrow}-s{self.seed}"


def search_tasks(
    seed: int = 0,
    difficulty: int | None = None,
    kinds: Iterable[str] | None = None,
    length: int | None = None,
    split: Split = "train",
) -> TaskSet:
    """A seeded set of questions over the embedded corpus.

    Args:
        seed: another seed, another sequence of tasks.
        difficulty: 1 to 5, see above; None mixes all of them evenly.
        kinds: which kinds of question, out of `questions.KINDS`; all of them by default, "article" and "namesake"
            only where the package of the articles, or of the dictionary, is installed.
        length: how many tasks; None for no end.
        split: "train" or "test". The place or article that decides a task never does so in both.

    Returns:
        Tasks whose `answer` is a string, or a list of them for a set; `evidence` holds `documents` (ids in the order of
        the chain) and `hops`: a query, the document that it finds, and the fact that is needed of it; `metadata` kind,
        difficulty, answer_type, split, hops and the version of the corpus.

    Raises:
        UnknownNameError: a kind or split that does not exist.
        UsageError: a difficulty out of range, or none of the kinds is of this difficulty.
        MissingExtraError: a package that the corpus needs is not installed.
    """
    check_drawing(split, difficulty, LEVELS)
    fit = tuple(kind for kind in chosen_kinds(kinds, KINDS) if difficulty in (None, KINDS[kind][0]))
    if not fit:
        raise UsageError(f"none of the kinds of question is of difficulty {difficulty}")
    chosen = kinds_at_hand(fit, _NEEDS, named=kinds is not None)
    left_out = tuple(kind for kind in fit if kind not in chosen)
    version = hashlib.sha256(corpus_version().encode()).hexdigest()[:12]
    plan = _Plan(seed, split, difficulty, chosen, left_out, kinds is not None, version)
    return TaskSet.generate(lambda index: _task(plan, index, atlas()), length, name=plan.prefix)


def _task(plan: _Plan, index: int, places: Atlas) -> Task:
    rng = Random(f"agentenv/search/{_VERSION}/{plan.prefix}/{index}")
    levels = sorted({KINDS[kind][0] for kind in plan.kinds})
    level = levels[index % len(levels)]
    kind = rng.choice([kind for kind in plan.kinds if KINDS[kind][0] == level])
    asked = ask(kind, rng, places, "test" if plan.split == "test" else "train")
    hops = [{"query": hop.query, "document": hop.document, "fact": hop.fact} for hop in asked.hops]
    answer = list(asked.answer) if isinstance(asked.answer, tuple) else asked.answer
    metadata: dict[str, Any] = {
        "kind": kind,
        "difficulty": level,
        "answer_type": asked.answer_type,
        "split": plan.split,
        "hops": len(hops),
        "source": "embedded",
        "corpus": plan.corpus,
    }
    documents = list(dict.fromkeys(hop.document for hop in asked.hops))
    evidence = {"documents": documents, "hops": hops}
    return Task(f"{plan.prefix}-{index}", (Text(asked.text),), answer, evidence, metadata=metadata, seed=plan.seed)


def search_steps(
    task: Task,
    corpus: Corpus,
    *,
    shown: int | None = None,
    tool: str = "web_search",
    argument: str = "query",
    fetch: str = "web_fetch",
) -> list[dict[str, Any]]:
    """What an expert does: one search for each hop, and a look into the page where the fact is not in the excerpt.

    Args:
        task: its `evidence["hops"]` are played.
        corpus: holds the documents.
        shown: how many characters of a document a search shows; None for all of it.
        tool: name of the search tool.
        argument: its argument.
        fetch: name of the tool that opens pages, "" where there is none.

    Returns:
        Steps that the `reference` policy plays: {"tool", "arguments", "thought"}.
    """
    steps: list[dict[str, Any]] = []
    for number, hop in enumerate(task.evidence.get("hops") or ()):
        thought = _THOUGHTS[min(number, len(_THOUGHTS) - 1)]
        steps.append({"tool": tool, "arguments": {argument: hop["query"]}, "thought": thought})
        document = corpus.get(hop["document"])
        if fetch and shown is not None and document is not None:
            seen = (cut(document.text, shown), document.title)
            if not any(hop["fact"] in text for text in seen):
                steps.append({"tool": fetch, "arguments": {"url": document.url}, "thought": _READ})
    return steps
