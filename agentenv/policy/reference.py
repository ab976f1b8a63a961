"""A policy that plays a task's own evidence, the way an expert would; or, with less skill, the way a beginner would."""

from __future__ import annotations

import json
import random
from collections.abc import Collection
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from agentenv.dialects.base import Dialect, Turn
from agentenv.dialects.code import Code
from agentenv.errors import ConfigError, PolicyError, UsageError, did_you_mean
from agentenv.policy import mistakes
from agentenv.policy.base import Policy
from agentenv.policy.writing import Writer, call
from agentenv.trajectory import PolicyInfo
from agentenv.types import Action, Observation, Table, Task

_FIRST = (
    "I need to look this up before I answer.",
    "The question is about the data, so I query it first.",
    "Let me get the relevant values first.",
)
_NEXT = (
    "That helps; one more step is needed.",
    "Now I can take the next step.",
    "With this result I can ask for the rest.",
)
_LAST = (
    "The result answers the question.",
    "This is what was asked for.",
    "I have what I need to answer.",
)
_GUESS = "I think I know this."
_AGAIN = "That call went wrong; I write it again with care."


class Move(Struct, frozen=True):
    """One call that a demonstrator means to make, and what it thinks before it."""

    tool: str
    arguments: dict[str, Any]
    thought: str = ""
    malformed: bool = False


class Plan(Struct, frozen=True):
    """What a demonstrator means to do. `answer` None: whatever the last result shows, else `guess`."""

    moves: tuple[Move, ...]
    answer: str | None
    last: str
    guess: str = ""


class ReferencePolicy(Policy):
    """Plays `task.evidence["steps"]` call by call, then answers with `task.answer`.

    A step is {"tool": name, "arguments": {...}, "thought": "..."}, where the thought may be left out; or a piece of
    SQL, bare or as {"sql": ...}, which goes to `sql_tool`. Evidence that has no steps but "sql" is read as its steps.
    Where `sql_tool` cannot be called, since it is not offered or the dialect is "code", SQL goes to `python_tool`, as
    the code sql("..."). Lists are answered joined by ", ", but the first of several right texts alone (metadata
    `answer_type` "text"). Where tools are switched off, it answers at once.

    Args:
        skill: probability that an episode is played without a mistake. The others hold one that beginners make: a guess
            without looking, a misspelt column, a wrong filter, an early end, a broken call. Some are then put right.
        seed: mixed with each episode's seed; equal seeds give equal turns.
        say: where the thoughts go: "reasoning", "content", or "nowhere".
        dialect: the dialect to write in; the one that the observation names by default.
        sql_tool: the tool that takes bare SQL.
        sql_argument: its argument.
        python_tool: the tool that takes Python code in which `sql` runs a query.
        python_argument: its argument.
    """

    def __init__(
        self,
        *,
        skill: float = 1.0,
        seed: int = 0,
        say: Literal["reasoning", "content", "nowhere"] = "reasoning",
        dialect: Dialect | None = None,
        sql_tool: str = "table_query",
        sql_argument: str = "sql",
        python_tool: str = "table_python",
        python_argument: str = "code",
    ) -> None:
        if not 0 <= skill <= 1:
            raise ConfigError(f"skill={skill}: a probability lies between 0 and 1")
        if say not in ("reasoning", "content", "nowhere"):
            raise ConfigError(f'say={say!r}: must be "reasoning", "content" or "nowhere"')
        self.skill, self.seed, self.say, self.dialect = skill, seed, say, dialect
        self.sql_tool, self.sql_argument = sql_tool, sql_argument
        self.python_tool, self.python_argument = python_tool, python_argument
        name = "reference" if skill == 1 else "weak"
        self.info = PolicyInfo(name, settings={"skill": skill, "seed": seed, "say": say})

    @staticmethod
    def weak(
        *,
        skill: float = 0.5,
        seed: int = 0,
        say: Literal["reasoning", "content", "nowhere"] = "reasoning",
        dialect: Dialect | None = None,
        sql_tool: str = "table_query",
        sql_argument: str = "sql",
        python_tool: str = "table_python",
        python_argument: str = "code",
    ) -> ReferencePolicy:
        """A demonstrator that makes mistakes; see the class for the arguments."""
        return ReferencePolicy(
            skill=skill,
            seed=seed,
            say=say,
            dialect=dialect,
            sql_tool=sql_tool,
            sql_argument=sql_argument,
            python_tool=python_tool,
            python_argument=python_argument,
        )

    def begin(self, task: Task, *, seed: int, sample: int = 0) -> Policy:
        """The demonstrator of one episode, its plan made.

        Raises:
            PolicyError: the task has no answer, or its evidence is not made of steps.
        """
        rng = random.Random(f"{self.seed}/{seed}/{sample}/{task.id}")
        plan = _expert(task, self._moves(task), rng)
        if rng.random() >= self.skill:
            plan = _beginner(task, plan, rng)
        return _Demonstrator(self, plan)

    async def act(self, observation: Observation) -> Action:
        raise PolicyError("the reference policy must know its task: play the policy that begin(task) returns")

    def as_offered(self, move: Move, names: Collection[str], dialect: Dialect) -> Move:
        """The move with its SQL in Python code, where that can be called and SQL cannot."""
        if isinstance(dialect, Code):
            names = {dialect.tool.name} & set(names)
        sql = move.arguments.get(self.sql_argument)
        is_sql = move.tool == self.sql_tool and len(move.arguments) == 1 and isinstance(sql, str)
        if not is_sql or self.sql_tool in names or self.python_tool not in names:
            return move
        code = f"sql({json.dumps(sql, ensure_ascii=False)})"
        return replace(move, tool=self.python_tool, arguments={self.python_argument: code})

    def _moves(self, task: Task) -> list[Move]:
        steps = task.evidence.get("steps", task.evidence.get("sql", ()))
        steps = [steps] if isinstance(steps, (str, dict)) else steps
        return [self._move(task, number, step) for number, step in enumerate(steps)]

    def _move(self, task: Task, number: int, step: Any) -> Move:
        if isinstance(step, str):
            return Move(self.sql_tool, {self.sql_argument: step})
        if isinstance(step, dict) and isinstance(step.get("sql"), str):
            return Move(self.sql_tool, {self.sql_argument: step["sql"]}, step.get("thought", ""))
        if isinstance(step, dict) and isinstance(step.get("tool"), str) and isinstance(step.get("arguments"), dict):
            return Move(step["tool"], step["arguments"], step.get("thought", ""))
        raise PolicyError(
            f"step {number + 1} of the evidence of task {task.id!r} cannot be played: it is neither SQL nor an object "
            f'with "tool" and "arguments"'
        )


class _Demonstrator(Policy):
    def __init__(self, policy: ReferencePolicy, plan: Plan) -> None:
        self._policy, self._plan, self._done, self.info = policy, plan, 0, policy.info
        self._writer = Writer(policy.dialect)

    async def act(self, observation: Observation) -> Action:
        dialect = self._writer(observation)
        move = self._next(observation, dialect)
        if move is None:
            return dialect.write(self._said(self._plan.last, Turn(answer=self._answer(observation))))
        try:
            action = dialect.write(self._said(move.thought, Turn(calls=(call(move.tool, move.arguments),))))
        except UsageError as error:
            raise PolicyError(f"the evidence cannot be written in the dialect {dialect.name!r}: {error}") from None
        return mistakes.malformed(action) if move.malformed else action

    def _next(self, observation: Observation, dialect: Dialect) -> Move | None:
        if self._done >= len(self._plan.moves) or not observation.tools:
            return None
        names = [tool.name for tool in observation.tools]
        move = self._policy.as_offered(self._plan.moves[self._done], names, dialect)
        if move.tool not in names:
            if self._done:  # it was offered before, so its budget is spent: answer with what is known
                return None
            near = did_you_mean(move.tool, names)
            raise PolicyError(f"the evidence calls the tool {move.tool!r}, which is not offered{near}")
        self._done += 1
        return move

    def _said(self, thought: str, turn: Turn) -> Turn:
        if not thought or self._policy.say == "nowhere":
            return turn
        return replace(turn, reasoning=thought) if self._policy.say == "reasoning" else replace(turn, content=thought)

    def _answer(self, observation: Observation) -> str:
        return self._plan.answer if self._plan.answer is not None else _read_off(observation) or self._plan.guess


def answer_text(answer: Any) -> str:
    """A reference answer as an answer is given: lists joined by ", ", booleans as true and false."""
    if isinstance(answer, str):
        return answer
    if isinstance(answer, bool):
        return "true" if answer else "false"
    if isinstance(answer, (list, tuple)):
        return ", ".join(map(answer_text, answer))
    return json.dumps(answer, ensure_ascii=False) if isinstance(answer, dict) else str(answer)


def _expert(task: Task, moves: list[Move], rng: random.Random) -> Plan:
    if task.answer is None:
        raise PolicyError(f"task {task.id!r} has no reference answer, so there is nothing to demonstrate")
    thoughts = [rng.choice(_NEXT if index else _FIRST) for index in range(len(moves))]
    told = tuple(replace(move, thought=move.thought or said) for move, said in zip(moves, thoughts, strict=True))
    last = task.evidence.get("conclusion") or (rng.choice(_LAST) if moves else _GUESS)
    several = isinstance(task.answer, (list, tuple)) and task.metadata.get("answer_type") == "text"
    return Plan(told, answer_text(task.answer[0] if several else task.answer), last)


def _beginner(task: Task, plan: Plan, rng: random.Random) -> Plan:
    guess = mistakes.guess(task, rng)
    options = [Plan((), guess, _GUESS)]
    if plan.moves:
        index = rng.randrange(len(plan.moves))
        options += _spoilt(task, plan, index, guess, rng)
    return rng.choice(options)


def _spoilt(task: Task, plan: Plan, index: int, guess: str, rng: random.Random) -> list[Plan]:
    """The mistakes that can be made at the move `index`."""
    move, before, after = plan.moves[index], plan.moves[:index], plan.moves[index + 1 :]
    again = (replace(move, thought=_AGAIN), *after)
    mended = rng.random() < 0.5
    rest, answer = (again, plan.answer) if mended else ((), guess)
    plans = [Plan((*before, replace(move, malformed=True), *rest), answer, plan.last)]
    misspelt = mistakes.misspelt(move.arguments, task, rng)
    if misspelt:
        plans.append(Plan((*before, replace(move, arguments=misspelt), *rest), answer, plan.last))
    filtered = mistakes.wrong_filter(move.arguments, rng)
    if filtered:
        plans.append(Plan((*before, replace(move, arguments=filtered), *after), None, plan.last, guess))
    if len(plan.moves) > 1:
        plans.append(Plan(plan.moves[:-1], guess, plan.last))
    return plans


def _read_off(observation: Observation) -> str:
    """The first column of the last table that was shown."""
    for message in observation.messages[observation.new :][::-1]:
        for part in message.parts:
            if isinstance(part, Table) and part.rows and part.columns:
                return ", ".join(answer_text(row[0]) for row in part.rows)
    return ""
