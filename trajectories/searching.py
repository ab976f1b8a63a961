"""How a policy searched, out of what its tools recorded.

A search is told by its data, never by its name: a tool run that recorded a `query` and the `ids` that it found. A page
is opened by a run that recorded a `url`. What failed recorded nothing, and counts for the tool of that name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from msgspec import Raw, Struct

from agentenv.trajectory import ToolRun, Trajectory
from agentenv.types import Task

if TYPE_CHECKING:
    from agentenv.trajectories.run import Run

_SHORTEST = 2
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_WORD = re.compile(r"-?\d+(?:\.\d+)?|[^\W_]+")


class SearchStats(Struct):
    """Figures of searching, over the episodes of a run that were offered the tools, whether they searched or not.

    Args:
        offered: episodes whose policy had such a tool; averages an episode are over these.
        episodes: of these that made a search or opened a page.
        searches: an episode, on average; failed ones count.
        failed: share of the searches that ended in an error.
        empty: share that found nothing.
        repeated: share that asked the tool what the episode had asked it before, up to case and blanks.
        query_has_answer: share whose query holds the reference answer, where there is one: a guess, or found before.
        result_has_answer: share of the episodes in which results and pages held the reference answer.
        pages: opened an episode, on average.
        sources: different documents found an episode, on average.
        cited: documents found or opened that an episode names, by address or id, in the turn that answers, on average.

    An answer of several parts, a set or the fields of a place, is held where all of its texts are.
    """

    offered: int = 0
    episodes: int = 0
    searches: float = 0.0
    failed: float = 0.0
    empty: float = 0.0
    repeated: float = 0.0
    query_has_answer: float | None = None
    result_has_answer: float | None = None
    pages: float = 0.0
    sources: float = 0.0
    cited: float = 0.0

    def lines(self) -> Iterator[str]:
        """The figures for a person."""
        yield (
            f"searching {self.searches:.2f} searches an episode ({self.episodes:,} of {self.offered:,} searched),"
            f" {self.failed:.1%} failed, {self.empty:.1%} found nothing, {self.repeated:.1%} repeated;"
            f" {self.pages:.2f} pages opened"
        )
        sources = f"sources   {self.sources:.2f} found an episode, {self.cited:.2f} cited"
        if self.query_has_answer is not None and self.result_has_answer is not None:
            sources += (
                f"; the answer stood in {self.query_has_answer:.1%} of the queries and was shown in"
                f" {self.result_has_answer:.1%} of the episodes"
            )
        yield sources


class Searched(Struct):
    """Counts of one episode; `None` where the task has no answer that can be looked for."""

    searches: int
    failed: int
    empty: int
    repeated: int
    query_has_answer: int | None
    result_has_answer: bool | None
    pages: int
    sources: int
    cited: int


def search_stats(run: Run) -> SearchStats | None:
    """The figures of a run, None where nobody searched. Reads whole records only where somebody did."""
    names = _tools(run.heads())
    if not names:
        return None
    counts = [searched(record, names) for record in run if any(tool.name in names for tool in record.env.tools)]
    made, share = sum(one.searches for one in counts), max(1, len(counts))
    asked = [one for one in counts if one.query_has_answer is not None]
    told = [bool(one.result_has_answer) for one in counts if one.result_has_answer is not None]
    return SearchStats(
        offered=len(counts),
        episodes=sum(bool(one.searches or one.pages) for one in counts),
        searches=made / share,
        failed=sum(one.failed for one in counts) / max(1, made),
        empty=sum(one.empty for one in counts) / max(1, made),
        repeated=sum(one.repeated for one in counts) / max(1, made),
        query_has_answer=_ratio(sum(one.query_has_answer or 0 for one in asked), sum(one.searches for one in asked)),
        result_has_answer=_ratio(sum(told), len(told)),
        pages=sum(one.pages for one in counts) / share,
        sources=sum(one.sources for one in counts) / share,
        cited=sum(one.cited for one in counts) / share,
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _tools(heads: Iterable[Any]) -> dict[str, str]:
    """Names of the tools that search ("query") and that open pages ("url"), by what some run of them recorded."""
    found: dict[str, str] = {}
    for head in heads:
        for call in head.tool_runs:
            if call.name in found:
                continue
            kind = _kind(call.data)
            if kind:
                found[call.name] = kind
    return found


def _kind(data: Any) -> str:
    if isinstance(data, Raw):
        text = bytes(data)
        has_query, has_url = b'"query":' in text and b'"ids":' in text, b'"url":' in text
    else:
        known = data or {}
        has_query, has_url = "query" in known and "ids" in known, "url" in known
    return "query" if has_query else "url" if has_url else ""


def searched(record: Trajectory, tools: dict[str, str]) -> Searched:
    """The counts of an episode.

    Args:
        record: the episode.
        tools: "query" for a tool that searches and "url" for one that opens pages, by name.
    """
    runs = [run for run in record.tool_runs if tools.get(run.name) == "query"]
    pages = [run for run in record.tool_runs if tools.get(run.name) == "url" and run.error_kind is None]
    arguments = [_arguments(record, run) for run in runs]
    asked = [(run.name, *_plain_values(given)) for run, given in zip(runs, arguments, strict=True)]
    found = [run.data or {} for run in runs if run.error_kind is None]
    seen = [run for run in (*runs, *pages) if run.error_kind is None and not record.nodes[run.node].rolled_back]
    answers = _answers(record.task)
    shown = " ".join(_shown(record, run) for run in seen) if answers else ""
    words = (" ".join(value for value in given.values() if isinstance(value, str)) for given in arguments)
    return Searched(
        searches=len(runs),
        failed=sum(run.error_kind is not None for run in runs),
        empty=sum(not data.get("ids") for data in found),
        repeated=len(asked) - len(set(asked)),
        query_has_answer=sum(_holds(_plain(text), answers) for text in words) if answers else None,
        result_has_answer=_holds(_plain(shown), answers) if answers else None,
        pages=len(pages),
        sources=len({str(one) for data in found for one in data.get("ids") or ()}),
        cited=_cited(record, [run.data or {} for run in seen]),
    )


def _arguments(record: Trajectory, run: ToolRun) -> dict[str, Any]:
    """What a call asked: its arguments, or the text that could not be read as such."""
    for call in record.nodes[run.call_node].message.calls:
        if call.id == run.call_id:
            return call.arguments or {"": call.arguments_raw}
    return {"query": str((run.data or {}).get("query", ""))}


def _plain_values(arguments: dict[str, Any]) -> list[str]:
    return [f"{name} {_plain(str(value))}" for name, value in sorted(arguments.items())]


def _shown(record: Trajectory, run: ToolRun) -> str:
    parts = run.parts or record.nodes[run.node].message.parts
    return " ".join(getattr(part, "text", "") for part in parts)


def _answers(task: Task) -> list[tuple[str, ...]]:
    """Answers, of which one must be found with all its texts; none that is no text, or too short to be looked for."""
    answer = task.answer
    if isinstance(answer, dict):
        several: list[tuple[Any, ...]] = [tuple(one for one in answer.values() if isinstance(one, str) and one)]
    elif isinstance(answer, (list, tuple)):
        several = [tuple(answer)] if task.metadata.get("answer_type") == "set" else [(one,) for one in answer]
    else:
        several = [(answer,)]
    plain = (tuple(_plain(str(one)) if _is_text(one) else "" for one in parts) for parts in several if parts)
    return [parts for parts in plain if min(map(len, parts)) >= _SHORTEST]


def _is_text(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _holds(text: str, answers: list[tuple[str, ...]]) -> bool:
    padded = f" {text} "
    return any(all(f" {part} " in padded for part in parts) for parts in answers)


def _plain(text: str) -> str:
    """Words in small letters, thousands without their commas."""
    text = unicodedata.normalize("NFKC", text).casefold()
    words = _WORD.findall(_THOUSANDS.sub("", text))
    return " ".join(words)


def _cited(record: Trajectory, found: Iterable[dict[str, Any]]) -> int:
    """How many of the documents that were found or opened the last turn of the policy names."""
    last = next((node for node in reversed(record.path()) if node.origin == "sampled"), None)
    if last is None:
        return 0
    said = f"{last.message.raw or ''} {last.message.text} {last.message.reasoning}"
    named: dict[str, set[str]] = {}
    for data in found:
        ids, urls = data.get("ids") or (), data.get("urls") or ()
        for id, url in (*zip_longest(map(str, ids), map(str, urls), fillvalue=""), ("", str(data.get("url", "")))):
            names = {id, url.removeprefix("doc:")}
            named.setdefault(url.removeprefix("doc:") or id, set()).update(names)
    return sum(any(_names(said, name) for name in names) for names in named.values())


def _names(text: str, name: str) -> bool:
    """Whether a text names a document, and not another one whose name begins or ends alike."""
    if len(name) <= _SHORTEST + 1 or name not in text:
        return False
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-]|[/?#.]\w)", text) is not None
