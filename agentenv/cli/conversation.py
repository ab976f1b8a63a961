"""An agent with tools and a person who asks: the environment behind `agentenv chat`, and how a conversation goes on.

Each question is played as an episode of its own budget, in one conversation, which is one record.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from agentenv.cli.toolbox import EMBEDDED, binding, make_tools
from agentenv.env import Env
from agentenv.errors import InfrastructureError, PolicyError, ToolError, ToolErrorKind
from agentenv.policy.base import Policy
from agentenv.reward import Component, Rubric
from agentenv.rules import Counters
from agentenv.snapshot import Snapshot
from agentenv.spec import Limits
from agentenv.task import TaskSet
from agentenv.tool import Tool, as_parts
from agentenv.trajectory import Node, ToolRun, Trajectory, new_id
from agentenv.types import Action, Message, Observation, Part, StopReason, Task, Text

SYSTEM = "You are a helpful assistant. Use the tools to look facts up instead of guessing."


class Terminal(Protocol):
    """Where a conversation is shown, and where a person is asked."""

    def turn(self, action: Action) -> None:
        """The model has written a turn."""

    def call(self, name: str, arguments: Mapping[str, Any]) -> None:
        """A call is about to be run."""

    def result(self, run: ToolRun, parts: Sequence[Part]) -> None:
        """A call came to this."""

    async def allow(self, tool: Tool, arguments: dict[str, Any]) -> dict[str, Any] | None:
        """The arguments with which a call may be run; None where it may not."""


def agent(
    *,
    tools: Iterable[str] = (),
    corpus: str = EMBEDDED,
    corpus_columns: Mapping[str, Any] | None = None,
    pictures: str = EMBEDDED,
    frame: str = "relative_1000",
    k: int = 5,
    dialect: str = "native",
    system: str = SYSTEM,
    turns: int = 20,
) -> Env:
    """An environment for conversations: tools by name, and no tasks of its own.

    Args:
        tools: names out of `toolbox.TOOLS`, or module:attr of a `Tool`. They are bound to the question's files.
        corpus: what web_search and web_fetch work on; see `toolbox.make_tools`, also for the next four.
        corpus_columns: of a file of documents.
        pictures: what image_search searches.
        frame: the coordinate frame of all boxes.
        k: results of a search.
        dialect: how calls and results are written.
        system: the system prompt.
        turns: turns of the model for each question.
    """
    found = make_tools(tools, corpus=corpus, corpus_columns=corpus_columns, pictures=pictures, frame=frame, k=k)
    return Env(
        id="chat",
        tasks=TaskSet.of((), name="a person's questions"),
        tools=found,
        dialect=dialect,
        system=system,
        limits=Limits(turns=turns, on_turns="force", no_call="answer"),
        rubric=unrated(),
        bind=binding(found),
        frame=frame if any("media" in tool.bound for tool in found) else "",
    )


def unrated() -> Rubric:
    """The rubric of what nobody has a reference for: every reward is None."""
    return Rubric(Component("unrated", no_reference))


def no_reference(task: Task, trajectory: Trajectory) -> None:
    """No reward, since there is no reference answer."""
    return None


def over_own_questions(env: Env) -> Env:
    """The environment with its tools and prompts, for questions that have no reference answer."""
    spec = env.env_spec
    env.rubric = unrated()
    env.env_spec = replace(spec, rubric=env.rubric.spec(), tasks="a person's questions")
    return env.made_by(spec.id, spec.entry_point, spec.kwargs)


class Conversation:
    """A conversation of a person with an agent, recorded as one trajectory that grows.

    Args:
        env: gives the tools, the dialect and the limits of each question. Its tools are wrapped, to be shown and asked
            for.
        policy: the agent.
        terminal: where it is shown.
        given: what the tools work on, and what the agent is shown of it before the first question (see
            `toolbox.attached`).
    """

    def __init__(self, env: Env, policy: Policy, terminal: Terminal, given: Task) -> None:
        self._env, self._policy, self._terminal, self._given = env, policy, terminal, given
        gate = asyncio.Lock()  # the calls of a turn run at once, and a person answers one question at a time
        env.rules.tools = {name: _watched(tool, terminal, gate) for name, tool in env.rules.tools.items()}
        self._actor: Policy | None = None

    def forget(self) -> None:
        """The next question opens a new conversation."""
        self._actor = None

    async def ask(self, question: str) -> Trajectory:
        """Let the agent answer a question, and return the record of the conversation so far.

        Whatever goes wrong ends the question with its reason and leaves the conversation usable.
        """
        observation = self._opened(question) if self._actor is None else self._continued(question)
        try:
            return await self._played(observation)
        except PolicyError as error:
            return self._env.abort(StopReason.POLICY_ERROR, error)
        except InfrastructureError as error:
            return self._env.abort(StopReason.ENV_ERROR, error)
        except asyncio.CancelledError:
            return self._env.abort(StopReason.CANCELLED)

    def _opened(self, question: str) -> Observation:
        task = replace(self._given, id=f"chat-{new_id()}", prompt=(*self._given.prompt, Text(question)))
        self._actor = self._policy.begin(task, seed=0)
        return self._env.start(task, policy=self._policy.info)

    def _continued(self, question: str) -> Observation:
        record, episode = self._env.trajectory, self._env.episode
        assert episode is not None
        leaf = record.nodes.index(record.path()[-1])
        asked = Node(Message("user", (Text(question),)), leaf, "task")
        grown = replace(record, nodes=[*record.nodes, asked], outcome=None)
        snapshot = Snapshot(episode.task, grown.to_json(), Counters(), record.seconds, None, None, None, False)
        observation = self._env.restore(snapshot)
        again = self._env.trajectory
        again.id, again.forked_from = record.id, record.forked_from
        return observation

    async def _played(self, observation: Observation) -> Trajectory:
        assert self._actor is not None
        while True:
            action = await self._actor.act(observation)
            self._terminal.turn(action)
            before = len(self._env.trajectory.tool_runs)
            step = await self._env.astep(action)
            self._show_results(self._env.trajectory, before)
            if step.terminated or step.truncated:
                return self._env.trajectory
            observation = step.observation

    def _show_results(self, record: Trajectory, first: int) -> None:
        for run in record.tool_runs[first:]:
            self._terminal.result(run, run.parts or record.nodes[run.node].message.parts)


def _watched(tool: Tool, terminal: Terminal, gate: asyncio.Lock) -> Tool:
    """The tool, shown to the person and run as they allow. Its timeout counts from when it runs."""

    @functools.wraps(tool.fn)
    async def run(**kwargs: Any) -> Any:
        bound = {name: kwargs.pop(name) for name in tool.bound}
        async with gate:
            terminal.call(tool.name, kwargs)
            allowed = await terminal.allow(tool, kwargs)
        if allowed is None:
            raise ToolError("The person did not allow this call.", ToolErrorKind.DENIED)
        value = await _in_time(tool, {**allowed, **bound})
        return value if allowed == kwargs else _with_note(allowed, value)

    made = Tool(run, name=tool.name, timeout=None, cost=tool.cost, concurrency=tool.concurrency, version=tool.version)
    made.deterministic = tool.deterministic
    return made


async def _in_time(tool: Tool, kwargs: dict[str, Any]) -> Any:
    try:
        async with asyncio.timeout(tool.timeout):
            made = tool.fn(**kwargs) if tool.is_async else asyncio.to_thread(tool.fn, **kwargs)
            return await made if inspect.isawaitable(made) else made
    except TimeoutError:
        text = f"{tool.name} did not finish within {tool.timeout:g} seconds and was given up."
        raise ToolError(text, ToolErrorKind.TIMEOUT) from None


def _with_note(arguments: dict[str, Any], value: Any) -> tuple[Part, ...]:
    changed = msgspec.json.encode(arguments, enc_hook=repr).decode()
    return (Text(f"(The person changed the arguments to {changed}.)\n"), *as_parts(value))
