"""A place, a task that asks for it, and records of answers."""

from __future__ import annotations

from typing import Any

from agentenv.spec import EnvSpec, Limits, Texts
from agentenv.trajectory import Group, Node, Outcome, PolicyInfo, ToolRun, Trajectory
from agentenv.types import Message, Table, Task, Text, ToolCall

PARIS: dict[str, Any] = {
    "country": "France",
    "state": "Île-de-France",
    "city": "Paris",
    "lat": 48.8566,
    "lng": 2.3522,
    "names": {"city": ["Париж"], "country": ["FR", "Frankreich"]},
}


def record(answer: str | None, queries: tuple[str, ...] = (), results: str = "") -> Trajectory:
    calls = tuple(ToolCall(str(i), "search_web", "", {"query": query}) for i, query in enumerate(queries))
    nodes = [
        Node(Message("user", (Text("Where?"),)), -1, "task"),
        Node(Message("assistant", (), calls=calls), 0, "sampled"),
        Node(Message("tool", (Table(results, ("title",), ((results,),), 1),)), 1, "env"),
    ]
    runs = [ToolRun("0", "search_web", 1, 2, data={"query": "q", "ids": ["a"]})] if results else []
    spec = EnvSpec("t", "0", "", {}, (), "hermes", {}, "", Limits(), Texts(), "", (), "")
    outcome = Outcome("answer", True, False, answer=answer)
    return Trajectory("id", TASK, spec, "", PolicyInfo("p"), Group("t", 0, 1), 0, 0.0, nodes, [], runs, outcome)


TASK = Task("t", (Text("Where?"),), metadata={"place": PARIS})
NOWHERE = Task("n", (Text("Where?"),))
