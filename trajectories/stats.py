"""What a run came to, in figures that say how sure they are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import NormalDist, median
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, field

from agentenv.trajectories.searching import SearchStats, search_stats

if TYPE_CHECKING:
    from agentenv.trajectories.run import Run

_POINTS = (50, 90, 99)


class Interval(Struct, frozen=True):
    """A mean and a confidence interval. `method` is "wilson" where all values are 0 or 1, else "normal"."""

    mean: float
    low: float
    high: float
    n: int
    level: float
    method: str


class ToolStats(Struct):
    """Calls of one tool: how many, how many failed and why, how many came from a cache, and their mean duration."""

    calls: int = 0
    errors: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    cached: int = 0
    seconds: float = 0.0

    @property
    def error_rate(self) -> float:
        """Share of the calls that failed."""
        return self.errors / self.calls if self.calls else 0.0


class Stats(Struct):
    """Figures of a run.

    Args:
        episodes, tasks, groups: counts; a group is one policy's attempts at one task.
        unscored: episodes without a reward; they count in no mean.
        problems: damaged records that were left out.
        reward: mean reward; None where nothing was scored.
        pass_at: probability that at least one of k attempts passes, by k, over the tasks with at least k scored ones.
        passes: what says that an attempt passed: components of the reward, or "" for the reward itself.
        pass_rates: tasks by pass rate, in tenths: 0, (0, 0.1], ... (0.9, 1), 1.
        zero_variance: share of the groups of two or more scored attempts whose rewards are all equal.
        stop_reasons: episodes by ending.
        scores: mean of each reward component.
        turns, calls, tokens, seconds: median, 90th and 99th percentile and mean an episode.
        tools: by name.
        cost: US dollars, model and tools.
        search: how the policy searched; None where no episode did.
        medians: of the components that are no shares (a distance in kilometres, say): those with values beyond -1 to 1.
    """

    episodes: int
    tasks: int
    groups: int
    unscored: int
    problems: int
    reward: Interval | None
    pass_at: dict[int, float]
    pass_rates: dict[str, int]
    zero_variance: float | None
    stop_reasons: dict[str, int]
    scores: dict[str, Interval]
    turns: dict[str, float]
    calls: dict[str, float]
    tokens: dict[str, float]
    seconds: dict[str, float]
    tools: dict[str, ToolStats]
    cost: float
    search: SearchStats | None = None
    medians: dict[str, float] = field(default_factory=dict)
    passes: list[str] = field(default_factory=list)

    def to_json(self) -> bytes:
        """The figures as JSON."""
        return msgspec.json.encode(self)

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def stats(run: Run) -> Stats:
    """The figures of a run; one pass over its columns and one over its tool calls."""
    rewards = run.column("reward")
    groups = run.groups()
    contested = [group for group in groups if sum(reward is not None for reward in group.rewards) > 1]
    names = [name.removeprefix("score.") for name in run.columns.names if name.startswith("score.")]
    scores = {name: [value for value in run.column(f"score.{name}") if value is not None] for name in names}
    return Stats(
        episodes=len(run),
        tasks=len(set(zip(run.column("env"), run.column("task_id"), strict=True))),
        groups=len(groups),
        unscored=sum(reward is None for reward in rewards),
        problems=len(run.problems),
        reward=interval(rewards),
        pass_at=pass_at_k([group.passes for group in groups]),
        pass_rates=_histogram(group.pass_rate for group in groups),
        zero_variance=sum(group.zero_variance for group in contested) / len(contested) if contested else None,
        stop_reasons=dict(Counter(str(reason) for reason in run.column("stop_reason")).most_common()),
        scores={name: mean for name, values in scores.items() if (mean := interval(values)) is not None},
        turns=percentiles(run.column("turns")),
        calls=percentiles(run.column("calls")),
        tokens=percentiles(run.column("tokens")),
        seconds=percentiles(run.column("seconds")),
        tools=_tools(run),
        cost=math.fsum(run.column("cost")),
        search=search_stats(run),
        medians={name: median(values) for name, values in scores.items() if any(abs(value) > 1 for value in values)},
        passes=sorted(run.columns.passes),
    )


def interval(values: Iterable[float | None], level: float = 0.95) -> Interval | None:
    """Mean and confidence interval of the values that are not None; None where there are none.

    Wilson's score interval (Wilson 1927) where all values are 0 or 1, since the normal one is wrong near the ends;
    otherwise mean +- z * s / sqrt(n), with s the sample deviation. Attempts at one task are taken as independent, which
    makes the interval too narrow where tasks differ much in difficulty.
    """
    known = [float(value) for value in values if value is not None]
    if not known:
        return None
    n, mean, z = len(known), math.fsum(known) / len(known), NormalDist().inv_cdf(0.5 + level / 2)
    if all(value in (0.0, 1.0) for value in known):
        centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
        return Interval(mean, max(0.0, centre - half), min(1.0, centre + half), n, level, "wilson")
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (n - 1)) if n > 1 else math.inf
    half = z * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, level, "normal")


def pass_at_k(groups: Sequence[Sequence[bool | None]]) -> dict[int, float]:
    """pass@k for k = 1, 2, 4 ... up to the largest group: 1 - C(n - c, k) / C(n, k), mean over groups of at least k.

    Source: the unbiased estimator of Chen et al. 2021, arXiv 2107.03374, section 2.1, with n scored attempts of which c
    passed; `groups` say so of each attempt, None for one that is unscored.
    """
    counts = []
    for passes in groups:
        scored = [one for one in passes if one is not None]
        counts.append((len(scored), sum(scored)))
    result, k = {}, 1
    while any(n >= k for n, _ in counts):
        fit = [1 - math.comb(n - c, k) / math.comb(n, k) for n, c in counts if n >= k]
        result[k] = math.fsum(fit) / len(fit)
        k *= 2
    return result


def percentiles(values: Iterable[float | None]) -> dict[str, float]:
    """Median, 90th and 99th percentile (nearest rank) and mean of the values that are not None; empty without any."""
    known = sorted(float(value) for value in values if value is not None)
    if not known:
        return {}
    ranks = {f"p{point}": known[math.ceil(point / 100 * len(known)) - 1] for point in _POINTS}
    return {**ranks, "mean": math.fsum(known) / len(known)}


def _histogram(rates: Iterable[float | None]) -> dict[str, int]:
    names = ["0", *(f"({i / 10:.1f}, {(i + 1) / 10:.1f}]" for i in range(9)), "(0.9, 1)", "1"]
    counts = dict.fromkeys(names, 0)
    for rate in rates:
        if rate is None:
            continue
        place = 0 if rate == 0 else 11 if rate == 1 else min(10, math.ceil(round(rate * 10, 9)))
        counts[names[place]] += 1
    return counts


def _tools(run: Run) -> dict[str, ToolStats]:
    tools: dict[str, ToolStats] = {}
    for head in run.heads():
        for call in head.tool_runs:
            tool = tools.setdefault(call.name, ToolStats())
            tool.calls += 1
            tool.seconds += call.seconds
            tool.cached += bool(call.cache) and call.cache != "miss"
            if call.error_kind is not None:
                tool.errors += 1
                tool.kinds[call.error_kind] = tool.kinds.get(call.error_kind, 0) + 1
    for tool in tools.values():
        tool.seconds /= tool.calls
    return dict(sorted(tools.items()))


def _lines(s: Stats) -> Iterable[str]:
    yield f"episodes  {s.episodes} ({s.tasks} tasks, {s.groups} groups; {s.unscored} unscored, {s.problems} damaged)"
    if s.reward:
        yield f"reward    {_shown(s.reward)}"
    for name, mean in s.scores.items():
        yield f"  {name}: {_shown(mean)}" + (f", median {s.medians[name]:.4g}" if name in s.medians else "")
    if s.pass_at:
        by = ", ".join(filter(None, s.passes))
        yield (
            "pass@k    "
            + "  ".join(f"{k}: {value:.3f}" for k, value in s.pass_at.items())
            + (f"  (by {by})" if by else "")
        )
        yield "pass rate " + "  ".join(f"{name}: {count}" for name, count in s.pass_rates.items() if count)
    if s.zero_variance is not None:
        yield f"groups    {s.zero_variance:.0%} with equal rewards, which teach a group-relative method nothing"
    yield "endings   " + "  ".join(f"{reason}: {count}" for reason, count in s.stop_reasons.items())
    for name in ("turns", "calls", "tokens", "seconds"):
        values = getattr(s, name)
        if values:
            yield f"{name:<9} " + "  ".join(f"{point}: {value:.4g}" for point, value in values.items())
    for name, tool in s.tools.items():
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(tool.kinds.items()))
        rate = f"{tool.error_rate:.1%} errors" + (f" ({kinds})" if kinds else "")
        spent = f"{tool.cached} cached, {tool.seconds:.3g} s"
        yield f"tool {name or '(unreadable call)'}: {tool.calls} calls, {rate}, {spent}"
    if s.search:
        yield from s.search.lines()
    if s.cost:
        yield f"cost      {s.cost:.4f} USD"


def _shown(value: Interval) -> str:
    return f"{value.mean:.4f} [{value.low:.4f}, {value.high:.4f}] {value.level:.0%} {value.method}, n={value.n}"
