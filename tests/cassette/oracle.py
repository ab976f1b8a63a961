"""A world whose answers change with every call: what a replay must hold still."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from agentenv.env import Env
from agentenv.errors import ToolError, ToolErrorKind
from agentenv.spec import Limits
from agentenv.task import TaskSet
from agentenv.tool import Tool
from agentenv.types import Observation, Task, Text


class Oracle:
    """Counts its answers, and keeps what it was asked."""

    def __init__(self, seconds: float = 0.0, fail: ToolErrorKind | None = None) -> None:
        self.seconds, self.fail = seconds, fail
        self.asked: list[str] = []
        self.numbers = itertools.count(1)

    def tool(self, **options: Any) -> Tool:
        async def look_up(query: str, k: int = 3) -> str:
            """Look something up.

            Args:
                query: what.
                k: how many.
            """
            self.asked.append(query)
            if self.seconds:
                await asyncio.sleep(self.seconds)
            if self.fail is not None:
                raise ToolError(f"not now ({next(self.numbers)})", self.fail)
            return f"{query}: answer {next(self.numbers)}"

        return Tool(look_up, **options)

    def world(self, tasks: int = 3, **options: Any) -> Env:
        questions = TaskSet.generate(lambda i: Task(f"t{i}", (Text(f"what is {i} ?"),), str(i)), tasks)
        return Env(**{"id": "oracle", "tasks": questions, "tools": [self.tool()], "limits": Limits(turns=6), **options})


def asking(*queries: str, name: str = "look_up") -> Callable[[Observation], str]:
    """A policy that asks these, one a turn, and then answers. "{}" stands for the number of the task."""

    def act(observation: Observation) -> str:
        messages = [message for message in observation.messages if message.role != "system"]
        turn = len(messages) // 2
        if turn >= len(queries):
            return "<answer>done</answer>"
        number = messages[0].text.split()[-2]
        query = queries[turn].format(number)
        return f'<tool_call>{{"name": "{name}", "arguments": {{"query": "{query}"}}}}</tool_call>'

    return act
