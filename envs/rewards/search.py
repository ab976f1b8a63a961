"""What an episode found by searching, out of what its tools recorded: never out of the text that a model wrote."""

from __future__ import annotations

from agentenv.trajectory import Trajectory
from agentenv.types import Task


def found_documents(trajectory: Trajectory) -> list[str]:
    """Ids of the documents that searches showed, in order, each once. Failed and rolled-back calls showed nothing."""
    found: dict[str, None] = {}
    for run in trajectory.tool_runs:
        if run.error_kind is None and not trajectory.nodes[run.node].rolled_back:
            found.update(dict.fromkeys(map(str, (run.data or {}).get("ids") or ())))
    return list(found)


def evidence_found(task: Task, trajectory: Trajectory) -> float | None:
    """The share of the task's evidence documents that some search showed; None where the task names none."""
    wanted = task.evidence.get("documents") or ()
    if not wanted:
        return None
    found = set(found_documents(trajectory))
    return sum(document in found for document in wanted) / len(wanted)
