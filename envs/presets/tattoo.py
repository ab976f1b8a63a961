"""TaTToo: a verifier of table reasoning, which checks a solution step by step with the table environment's tools.

No code is published. What is known comes from secondary notes of the paper (arXiv 2510.06217): the kinds of step, the
tools, and the form of the reward of a step. Prompt, answer format and the rule for tool support are ours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from agentenv.dialects import neutralise
from agentenv.env import Env
from agentenv.envs.presets._common import compose
from agentenv.envs.presets._solutions import question, with_solution
from agentenv.envs.rewards import normal
from agentenv.envs.table import _tool as table_tool
from agentenv.envs.table.overview import overview
from agentenv.envs.table.source import table_tasks
from agentenv.reward import Component, EpisodeReward, Rubric
from agentenv.spec import Limits
from agentenv.task import TaskSet
from agentenv.tools.table import TableSession
from agentenv.trajectory import Trajectory
from agentenv.types import Table, Task, Text

SYSTEM = (
    "You verify solutions of questions about tables, step by step. A step is right when it is true of the tables and of"
    " the question. Check with the tools what can be checked: look rows and columns up, and compute again what was"
    " computed. Do not trust a step because it sounds right, and do not excuse one that follows from a wrong one."
)
FORM = (
    "For each step, give the probability that it is right, and why, with the values that the tools gave you. The answer"
    ' is a JSON list with one object for each of the {count} steps, in order: [{{"right": 0.95, "why": "..."}}, ...]'
)
TOOLS = ("table_query", "table_python", "table_head", "table_values")
TABLE_STEPS = ("retrieval", "schema")
LEAST = 0.01
"""The probability that is taken for a smaller one, or for one that was not stated, so that its logarithm is finite."""


def tattoo(
    *,
    source: str | TaskSet = "geo",
    difficulty: int | None = None,
    split: str = "train",
    tools: Iterable[str] = TOOLS,
    prefix: bool = True,
    calibration: float = 0.1,
    support: float = 0.1,
    limits: Limits | Mapping[str, Any] | None = None,
    seed: int = 0,
    render_mode: str | None = None,
) -> Env:
    """Make the TaTToo environment.

    Args:
        source: "geo" (generated questions with generated solutions), or a `TaskSet` whose prompts are a question over
            `tables`, with `metadata["solution"]` a list of {"type", "text"} (types retrieval, schema, thinking, answer)
            and `answer` a list of 1 and -1, one a step. Table tasks with SQL as evidence get a generated solution.
        difficulty: of "geo", 1 to 5; None mixes them.
        split: of "geo", "train" or "test".
        tools: computation and look-up: some of the table environment's.
        prefix: put the sub-table that was retrieved, `metadata["sub_table"]`, before each schema step, since verifiers
            lose it with distance.
        calibration: weight of -log of the probability given to the true label. The published value is not known, nor
            is its probability stated by the verifier: there it is the model's own, of the label's token.
        support: weight of tool support. The published value is not known.
        limits: budgets of the episode; what is given replaces the preset's field by field. None is published.
        seed: of the generator, and of the tasks that `reset` draws.
        render_mode: "ansi" or None.

    The reward of a step is 1 for the right label, - calibration * -log R(true label), + support where the reasons given
    for a retrieval or schema step quote a cell, or the whole text, that a tool gave; an episode has the mean over the
    steps. `step_rewards` gives them one by one. Recorded beside it is `solution_score`, the mean of the labels -1 and 1
    that the verifier gave, by which the best of several solutions is chosen.
    """
    tasks = table_tasks(source, seed=seed, difficulty=difficulty, split=split)

    def ask(task: Task) -> Task:
        return _asked(with_solution(task), prefix)

    return compose(
        id="tattoo",
        tasks=tasks.map(ask),
        tools=[table_tool(name) for name in tools],
        dialect="hermes",
        dialect_options={},
        system=SYSTEM,
        limits=limits,
        default_limits=Limits(turns=10, on_turns="force"),
        rubric=Rubric(
            Component("labels", mean(lambda step: step.agrees)),
            Component("surprise", mean(lambda step: step.surprise), -calibration),
            Component("support", mean(lambda step: step.supported, TABLE_STEPS), support),
            Component("solution_score", solution_score, 0.0),
            passes="labels",
        ),
        frame="",
        seed=seed,
        render_mode=render_mode,
        bind=lambda task: {"tables": TableSession(task.tables)},
    )


def _asked(task: Task, prefix: bool) -> Task:
    prefix_text = f"{task.metadata['sub_table']}\n" if prefix and task.metadata.get("sub_table") else ""
    lines = [overview(task.tables, "schema") + f"Question: {question(task)}\n\nSolution:"]
    steps = task.metadata["solution"]
    for number, step in enumerate(steps, 1):
        above = prefix_text if step["type"] == "schema" else ""
        lines.append(f"{above}Step {number} ({step['type']}): {step['text']}")
    text = "\n".join(lines) + "\n\n" + FORM.format(count=len(steps))
    return replace(task, prompt=(Text(neutralise(text)[0]),))


# -- verdicts ----------------------------------------------------------------------------------------------------------


class Verdict(Struct, frozen=True):
    """What a verifier says of a step: the probability that it is right (None where it gives none), and why."""

    right: float | None
    why: str = ""


def verdicts(text: str | None) -> list[Verdict]:
    """The verdicts that an answer gives: JSON objects, or bare numbers, of which -1 and 1 are labels. Never raises.

    >>> [verdict.right for verdict in verdicts('[{"right": 0.9, "why": "so"}, -1, 0.25, "?"]')]
    [0.9, 0.0, 0.25, None]
    """
    given = (text or "").strip()[:100_000]
    start, end = given.find("["), given.rfind("]")
    for piece in (given, f"[{given}]", given[start : end + 1]):
        try:
            found = json.loads(piece)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, list):
            return [_verdict(item) for item in found]
    return []


def _verdict(item: Any) -> Verdict:
    if isinstance(item, dict):
        return Verdict(_probability(item.get("right")), str(item.get("why", "")))
    return Verdict(_probability(item))


def _probability(value: Any) -> float | None:
    if not isinstance(value, (int, float)) or not (0 <= value <= 1 or value == -1):
        return None
    return max(0.0, float(value))


# -- rewards -----------------------------------------------------------------------------------------------------------


class Step(Struct, frozen=True):
    """How a verifier did on one step.

    Args:
        type: of the step.
        agrees: 1.0 where its label is the true one, taken as right from a probability of 0.5 on.
        surprise: -log of the probability that it gave to the true label.
        supported: 1.0 where its reasons quote what a tool gave.
    """

    type: str
    agrees: float
    surprise: float
    supported: float


def steps_of(task: Task, trajectory: Trajectory) -> list[Step]:
    """How the verifier did on each step. An answer with another number of verdicts says nothing of any."""
    truth = [(verdict.right or 0.0) >= 0.5 for verdict in map(_verdict, task.answer)]
    said = verdicts(trajectory.answer)
    if len(said) != len(truth):
        said = [Verdict(None)] * len(truth)
    cells = seen_cells(trajectory)
    found = []
    for step, right, verdict in zip(task.metadata["solution"], truth, said, strict=True):
        given = verdict.right
        stated = 0.0 if given is None else given if right else 1.0 - given
        quoted = f" {normal(verdict.why)} "
        supported = float(any(f" {cell} " in quoted for cell in cells))
        agrees = float(given is not None and (given >= 0.5) == right)
        found.append(Step(step["type"], agrees, -math.log(max(LEAST, stated)) + 0.0, supported))
    return found


def seen_cells(trajectory: Trajectory) -> set[str]:
    """What tools gave, cell by cell, normalised: columns and cells of tables, short texts as a whole."""
    found: set[str] = set()
    for run in trajectory.tool_runs:
        if run.error_kind is not None or trajectory.nodes[run.node].rolled_back:
            continue
        for part in run.parts or trajectory.nodes[run.node].message.parts:
            if isinstance(part, Table):
                found |= {normal(_written(cell)) for row in (part.columns, *part.rows) for cell in row}
            elif isinstance(part, Text) and len(part.text) <= 100:
                found.add(normal(part.text))
    return {cell for cell in found if len(cell) > 1 or cell.isdigit()}


def _written(cell: Any) -> str:
    """A cell as a person writes it: 30280.0 is 30280."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def mean(of: Callable[[Step], float], types: Iterable[str] = ()) -> EpisodeReward:
    """A component: the mean of something over the steps, or over those of some types; 0 where there are none."""
    wanted = frozenset(types)

    def component(task: Task, trajectory: Trajectory) -> float:
        values = [of(step) for step in steps_of(task, trajectory) if not wanted or step.type in wanted]
        return math.fsum(values) / len(values) if values else 0.0

    return component


def step_rewards(
    task: Task, trajectory: Trajectory, calibration: float = 0.1, support: float = 0.1
) -> list[dict[str, Any]]:
    """The reward of each step with its parts, as data:

        s = [label agrees] - calibration * (-log R(true label)) + support * [reasons quote a tool's output]

    Source: secondary notes of arXiv 2510.06217; see `tattoo` for what is ours.
    """
    rows = []
    for step in steps_of(task, trajectory):
        backed = step.supported if step.type in TABLE_STEPS else 0.0
        total = step.agrees - calibration * step.surprise + support * backed
        parts = {"label": step.agrees, "surprise": step.surprise, "support": backed}
        rows.append({"type": step.type, "reward": total, **parts})
    return rows


def solution_score(task: Task, trajectory: Trajectory) -> float | None:
    """The mean of the labels that the verifier gave, -1 to 1; None where it did not label every step."""
    said = verdicts(trajectory.answer)
    if len(said) != len(task.metadata["solution"]) or any(verdict.right is None for verdict in said):
        return None
    return sum(1.0 if (verdict.right or 0.0) >= 0.5 else -1.0 for verdict in said) / len(said)
