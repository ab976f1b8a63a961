"""Any environment as a taskset of verifiers, and so of prime-rl. Importing this module imports verifiers.

verifiers finds a taskset by the name of a module, so give it one, on the path of the run, of two lines:

    from agentenv.trainers.verifiers import AgentEnvHarness, AgentEnvTaskset
    __all__ = ["AgentEnvHarness", "AgentEnvTaskset"]

and configure it: `--env.taskset.id my_module --env.taskset.env table --env.taskset.tasks 100
--env.agent.runtime.type subprocess`. The harness plays in this process, every model call through verifiers' own
endpoint, which records tokens and log-probabilities; pictures travel as `image_url` parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import verifiers.v1 as vf
from openai import APIStatusError, AsyncOpenAI
from pydantic import Field

from agentenv.trainers.common import loaded_by
from agentenv.trainers.session import Session, Turn, converse, rows

TESTED = ("0.4.0", "0.5.0")
"""The versions of verifiers that this adapter was run with: the lowest, and the first that is too new."""
loaded_by("verifiers", TESTED)


class AgentEnvData(vf.TaskData):  # type: ignore[misc]  # verifiers is not followed by mypy
    """A task, as a row names it."""

    extra_info: dict[str, Any]
    answer: str = ""


class AgentEnvTask(vf.Task[AgentEnvData]):  # type: ignore[misc]
    """The task's reward is the total of the environment's rubric, its metrics the components."""

    @vf.reward  # type: ignore[untyped-decorator]
    async def reward(self, trace: Any) -> float:
        """The total."""
        return float(trace.info["agentenv"]["reward"])

    @vf.metric  # type: ignore[untyped-decorator]
    async def components(self, trace: Any) -> Mapping[str, float]:
        """The components of the reward that have a value."""
        scores = trace.info["agentenv"]["rewards"]
        return {name: float(value) for name, value in scores.items() if value is not None}


class AgentEnvTasksetConfig(vf.TasksetConfig):  # type: ignore[misc]
    """Which environment, and which of its tasks.

    Args:
        env: the environment's name.
        tasks: how many; all of a set that has an end by default.
        options: of the environment.
    """

    env: str = "table"
    tasks: int | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class AgentEnvTaskset(vf.Taskset[AgentEnvTask, AgentEnvTasksetConfig]):  # type: ignore[misc]
    """The tasks of an environment."""

    def load(self) -> Iterable[AgentEnvTask]:
        """One task for each of the environment's."""
        config = self.config
        for row in rows(config.env, config.tasks, **config.options):
            data = AgentEnvData(prompt=row["prompt"], extra_info=row["extra_info"], answer=row["answer"])
            yield AgentEnvTask(data, config.task)


class AgentEnvHarness(vf.Harness[vf.HarnessConfig]):  # type: ignore[misc]
    """Plays the environment with the model behind the endpoint. Nothing runs in the runtime."""

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: Any,
        trace: Any,
        runtime: Any,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: AgentEnvData,
    ) -> Any:
        """Play one episode; the reward goes into `trace.info`.

        Raises:
            InfrastructureError: the episode could not be scored.
        """
        session = Session(data.extra_info, "verifiers")
        async with AsyncOpenAI(base_url=endpoint, api_key=secret, max_retries=0) as client:
            try:
                turn = await converse(session, client, ctx.model)
            except APIStatusError:
                if trace.stop_condition is None:
                    raise
                turn = session.cut()  # verifiers refused the turn: a limit of the run was reached
            finally:
                session.close()
        trace.info["agentenv"] = _facts(turn)
        return vf.ProgramResult(0, "", "")


def _facts(turn: Turn) -> dict[str, Any]:
    return {"reward": turn.reward, **turn.info}
