"""How a policy searched, out of what its tools recorded.

A search is told by its data, never by its name: a tool run that recorded a `query` and the `ids` that it found. A page
is opened by a run that recorded a `url`. What failed recorded nothing, and counts for the tool of that name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from msgspec import Raw, Struct

from agentenv.trajectory import ToolRun, Trajectory

if TYPE_CHECKING:
    from agentenv.trajectories.run import Run

_SHORTEST = 2
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_WORD = re.compile(r"-?\d+(?:\.\d+)?|[^\W_]+")


class SearchStats(Struct):
    """Figures of searching, over the episodes of a run that were offered the tools, whether they searched or not.

    Args:
        episodes: that made a search or opened a page.
        searches: an episode of these, on average; failed ones count.
        failed: share of the searches that ended in an error.
        empty: share that found nothing.
        repeated: share that asked what the episode had asked before, up to case and blanks.
        query_has_answer: share whose query holds the reference answer, where there is one: a guess, or found before.
        result_has_answer: share of the episodes in which some result or page held the reference answer.
        pages: opened an episode, on average.
        sources: different documents found an episode, on average.
        cited: different sources named an episode, by address or id, in the turn that answers, on average.
    """

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
            f"searching {self.searches:.2f} searches an episode, {self.failed:.1%} failed, {self.empty:.1%} found"
            f" nothing, {self.repeated:.1%} repeated; {self.pages:.2f} pages opened"
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
    counts = [searched(record, names) for record in run]
    active = [one for one in counts if one.searches or one.pages]
    made, share = sum(one.searches for one in active), max(1, len(active))
    asked = [one for one in active if one.query_has_answer is not None]
    told = [bool(one.result_has_answer) for one in active if one.result_has_answer is not None]
    return SearchStats(
        episodes=len(active),
        searches=made / share,
        failed=sum(one.failed for one in active) / max(1, made),
        empty=sum(one.empty for one in active) / max(1, made),
        repeated=sum(one.repeated for one in active) / max(1, made),
        query_has_answer=_ratio(sum(one.query_has_answer or 0 for one in asked), sum(one.searches for one in asked)),
        result_has_answer=_ratio(sum(told), len(told)),
        pages=sum(one.pages for one in active) / share,
        sources=sum(one.sources for one in active) / share,
        cited=sum(one.cited for one in active) / share,
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
    asked = [_asked(record, run) for run in runs]
    data = [run.data or {} for run in runs if run.error_kind is None]
    answers = _answers(record.task.answer)
    sources = {str(one) for found in data for key in ("ids", "urls") for one in found.get(key) or () if one}
    shown = " ".join(_shown(record, run) for run in (*runs, *pages) if run.error_kind is None) if answers else ""
    return Searched(
        searches=len(runs),
        failed=sum(run.error_kind is not None for run in runs),
        empty=sum(not found.get("ids") for found in data),
        repeated=len(asked) - len(set(asked)),
        query_has_answer=sum(_holds(one, answers) for one in asked) if answers else None,
        result_has_answer=_holds(_plain(shown), answers) if answers else None,
        pages=len(pages),
        sources=len({str(one) for found in data for one in found.get("ids") or ()}),
        cited=_cited(record, sources),
    )


def _asked(record: Trajectory, run: ToolRun) -> str:
    """What a call asked, as plain text: its arguments, of which a query is compared and looked into."""
    for call in record.nodes[run.call_node].message.calls:
        if call.id == run.call_id:
            values = [f"{value}" for value in (call.arguments or {}).values()] or [call.arguments_raw]
            return f" {' '.join(_plain(value) for value in values)} "
    return f" {_plain(str((run.data or {}).get('query', '')))} "


def _shown(record: Trajectory, run: ToolRun) -> str:
    parts = run.parts or record.nodes[run.node].message.parts
    return " ".join(getattr(part, "text", "") for part in parts)


def _answers(answer: Any) -> list[str]:
    """Texts of which one is the answer; none where it is no text, or too short to be looked for."""
    several = answer if isinstance(answer, (list, tuple)) else [answer]
    plain = [_plain(str(one)) for one in several if isinstance(one, (str, int, float)) and not isinstance(one, bool)]
    return [one for one in plain if len(one) >= _SHORTEST]


def _holds(text: str, answers: list[str]) -> bool:
    padded = f" {text} "
    return any(f" {answer} " in padded for answer in answers)


def _plain(text: str) -> str:
    """Words in small letters, thousands without their commas."""
    text = unicodedata.normalize("NFKC", text).casefold()
    words = _WORD.findall(_THOUSANDS.sub("", text))
    return " ".join(words)


def _cited(record: Trajectory, sources: set[str]) -> int:
    """How many of the sources the last turn of the policy names."""
    last = next((node for node in reversed(record.path()) if node.origin == "sampled"), None)
    if last is None:
        return 0
    said = f"{last.message.raw or ''} {last.message.text} {last.message.reasoning}"
    return sum(len(source) > 3 and source in said for source in sources)
