"""The jigsaw environment: pictures cut up and shuffled, or with boxes of theirs exchanged; endless and label-free.

env = agentenv.make("jigsaw", kind="full", grids=[(2, 1), (2, 2), (3, 3)])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from agentenv.dialects import neutralise
from agentenv.env import Env
from agentenv.envs.jigsaw.scoring import (
    adjacency_score,
    adjacency_upstream,
    box_score,
    format_score,
    full_score,
    full_upstream,
    letter_score,
)
from agentenv.envs.jigsaw.tasks import SCENES, jigsaw_tasks
from agentenv.envs.zoom.toolbox import Rules, Shown, image_tools
from agentenv.errors import UnknownNameError
from agentenv.reward import Component, EpisodeReward, Rubric
from agentenv.spec import Limits, Texts, settings
from agentenv.task import TaskSet
from agentenv.tools.image import Frame, view_of
from agentenv.trajectory import Trajectory
from agentenv.types import Image, Part, Task, Text

SYSTEM = (
    "You solve jigsaw puzzles of pictures. Work out from what the patches show, and from how their edges continue,"
    " where each belongs. The answer is only what is asked for: numbers, or a letter, with no other words."
)


def jigsaw(
    *,
    source: str | TaskSet = SCENES,
    kind: str = "full",
    grids: Sequence[Sequence[int]] = ((2, 2),),
    per_grid: int = 1000,
    turn: bool = False,
    mask: float = 0.0,
    wide: Sequence[float] = (0.4, 0.6),
    high: Sequence[float] = (0.4, 0.6),
    forward: bool = True,
    max_side: int = 1024,
    scoring: str = "full",
    format_weight: float = 0.0,
    tools: Iterable[str] = (),
    frame: str = "pixels_shown",
    seen: str | None = None,
    crop: Rules = None,
    output: Shown = None,
    dialect: str = "hermes",
    dialect_options: Mapping[str, Any] | None = None,
    limits: Limits | Mapping[str, Any] | None = None,
    texts: Texts | Mapping[str, Any] | None = None,
    system: str = SYSTEM,
    seed: int = 0,
    render_mode: str | None = None,
) -> Env:
    """Make the jigsaw environment (Jigsaw-R1's puzzles).

    Args:
        source: "scenes" (drawn pictures without end) or a folder of pictures; or a `TaskSet` of `jigsaw_tasks` of the
            same kind.
        kind: "full" (the permutation), "pair" (how two patches lie to each other) or "box" (where a box comes from).
        grids: rows and columns; several make a curriculum.
        per_grid: tasks of each grid but the last.
        turn: exchange rows and columns in half of the tasks.
        mask: share of each patch's side whose pixels are blacked.
        wide: of "box", least and greatest width of a box as shares of a region's.
        high: of "box", the same for its height.
        forward: of "full", ask for the place of every patch; else for the patch of every place.
        max_side: larger pictures are reduced to this longer side.
        scoring: of "full": "full" (share of positions) or "adjacency" (share of neighbouring pairs).
        format_weight: what an answer of the right form earns besides; upstream 1.
        tools: which image tools the policy has: none by default.
        frame: the coordinate frame of the answers of "box", and of the tools.
        seen: with "pixels_shown", the model family whose processor resizes what the policy sees.
        crop: of the zoom tool.
        output: of the image tools.
        dialect: how calls, results and answers are written.
        dialect_options: options of the dialect.
        limits: budgets of the episode; 4 turns and a forced answer by default.
        texts: what the environment says outside tool results.
        system: the system prompt, before the dialect's instructions.
        seed: of the puzzles, and of the tasks that `reset` draws.
        render_mode: "ansi" or None.

    Rewarded is the kind's score. Of "full", all four scores are recorded, upstream's defective ones included.

    Raises:
        UnknownNameError: a name that does not exist; the nearest is named.
        UsageError: a setting of the puzzles that makes no sense.
        MissingExtraError: the extra `image` is not installed.
    """
    place = Frame.of(frame, seen=seen)
    tasks = (
        source
        if isinstance(source, TaskSet)
        else jigsaw_tasks(
            source,
            kind,  # type: ignore[arg-type]  # checked there
            grids=[(m, n) for m, n in grids],
            per_grid=per_grid,
            turn=turn,
            mask=mask,
            wide=(wide[0], wide[1]),
            high=(high[0], high[1]),
            forward=forward,
            max_side=max_side,
            seed=seed,
        )
    )
    return Env(
        id="jigsaw",
        tasks=tasks.map(lambda task: _asked(task, place)),
        tools=image_tools(tools, place, crop, output),
        dialect=dialect,
        dialect_options=dialect_options,
        system=system,
        limits=settings(Limits, limits, Limits(turns=4, on_turns="force")),
        texts=settings(Texts, texts, Texts()),
        rubric=_rubric(kind, scoring, format_weight),
        frame=frame,
        seed=seed,
        render_mode=render_mode,
    )


def _asked(task: Task, frame: Frame) -> Task:
    """The task as it is asked: its image named, and the answer of a box puzzle in the declared frame."""
    image = next(part for part in task.prompt if isinstance(part, Image))
    answer, more = task.answer, ""
    if task.metadata["kind"] == "box":
        answer = frame.written(task.evidence["boxes"][0], view_of(image), (image.width, image.height))
        more = f" Write them {frame.describes}, separated by commas."
    parts: list[Part] = []
    for part in task.prompt:
        if isinstance(part, Image):
            parts.append(replace(part, handle="image_1"))
        else:
            parts.append(Text(neutralise(part.text)[0] + more) if isinstance(part, Text) else part)
    return replace(task, prompt=tuple(parts), answer=answer)


def _rubric(kind: str, rewarded: str, format_weight: float) -> Rubric:
    if rewarded not in ("full", "adjacency"):
        raise UnknownNameError("scoring", rewarded, ("full", "adjacency"))
    form = Component("format", form_of_answer, weight=format_weight)
    if kind != "full":
        return Rubric(Component("score", score_of_answer), form, passes="score")
    others: dict[str, EpisodeReward] = {
        "full": share_of_positions,
        "adjacency": share_of_pairs,
        "full_upstream": share_of_positions_upstream,
        "adjacency_upstream": share_of_pairs_upstream,
    }
    return Rubric(
        *(Component(name, fn, weight=float(name == rewarded)) for name, fn in others.items()), form, passes=rewarded
    )


def score_of_answer(task: Task, trajectory: Trajectory) -> float:
    """The letter of a pair puzzle, the overlap of a box puzzle."""
    if task.metadata["kind"] == "pair":
        return letter_score(trajectory.answer, task.answer)
    return box_score(trajectory.answer, task.answer)


def share_of_positions(task: Task, trajectory: Trajectory) -> float:
    """`scoring.full_score` of the answer."""
    return full_score(trajectory.answer, task.answer, *_grid(task))


def share_of_pairs(task: Task, trajectory: Trajectory) -> float:
    """`scoring.adjacency_score` of the answer."""
    return adjacency_score(trajectory.answer, task.answer, *_grid(task))


def share_of_positions_upstream(task: Task, trajectory: Trajectory) -> float:
    """`scoring.full_upstream` of the answer."""
    return full_upstream(trajectory.answer, task.answer, *_grid(task))


def share_of_pairs_upstream(task: Task, trajectory: Trajectory) -> float:
    """`scoring.adjacency_upstream` of the answer."""
    return adjacency_upstream(trajectory.answer, task.answer, *_grid(task), forward=bool(task.metadata["forward"]))


def form_of_answer(task: Task, trajectory: Trajectory) -> float:
    """`scoring.format_score` of the answer."""
    return format_score(trajectory.answer, str(task.metadata["kind"]), *_grid(task))


def _grid(task: Task) -> tuple[int, int]:
    return int(task.metadata["m"]), int(task.metadata["n"])
