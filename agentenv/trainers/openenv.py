"""Any environment as an OpenEnv server. Importing this module imports openenv.

    AGENTENV_ENV=table AGENTENV_OPTIONS='{"difficulty": 2}' \
        uvicorn --factory agentenv.trainers.openenv:served --host 127.0.0.1 --port 8000

Each client's session is an episode. An action is {"text": the model's turn}; an observation holds the messages that
came to it, in OpenAI's form, pictures as data URLs. `reset(task=...)` plays a task by its id, `reset(seed=...)` the one
at that place.
"""

from __future__ import annotations

import json
import os
from functools import partial
from itertools import islice
from typing import Any

from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, EnvironmentMetadata, Observation, State
from pydantic import Field

from agentenv.env import Env
from agentenv.errors import UsageError
from agentenv.registry import make
from agentenv.trainers.common import loaded_by
from agentenv.trainers.session import Session, Turn, check_dialect
from agentenv.types import Task

TESTED = ("0.3.0", "0.4.0")
"""The versions of OpenEnv that this adapter was run with: the lowest, and the first that is too new."""
loaded_by("openenv-core", TESTED)


class TurnAction(Action):  # type: ignore[misc]  # openenv is not followed by mypy
    """The model's turn: its text, and whether it was cut short ("length")."""

    text: str
    finish: str = "stop"


class TurnObservation(Observation):  # type: ignore[misc]
    """What the model sees next. `reward` comes with the end; `info` then says how it came about."""

    messages: list[dict[str, Any]] = Field(default_factory=list)
    info: dict[str, Any] = Field(default_factory=dict)


class AgentEnvironment(Environment):  # type: ignore[misc]
    """One client's environment.

    Args:
        env: is cloned.
    """

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, env: Env) -> None:
        super().__init__()
        self._env, self._turns = env, 0
        self._session: Session | None = None

    def reset(
        self, seed: int | None = None, episode_id: str | None = None, task: str | None = None, **_: Any
    ) -> TurnObservation:
        """Start an episode of the named task, or of the one at the place `seed`.

        Raises:
            UsageError: there are not so many tasks.
            UnknownNameError: there is no such task.
        """
        self.close()
        chosen = self._env.tasks[task] if task is not None else _at(self._env, seed or 0)
        self._session, self._turns = Session.of(self._env, chosen, "openenv", seed or 0), 0
        return TurnObservation(messages=self._session.begin())

    def step(self, action: TurnAction, timeout_s: float | None = None, **_: Any) -> TurnObservation:
        """Take the model's turn."""
        return self._seen(self._playing.step(action.text, action.finish))

    async def step_async(self, action: TurnAction, timeout_s: float | None = None, **_: Any) -> TurnObservation:
        """As `step`; the calls of the turn run at once."""
        return self._seen(await self._playing.astep(action.text, action.finish))

    def _seen(self, turn: Turn) -> TurnObservation:
        self._turns += 1
        reward = turn.reward if turn.done else None
        return TurnObservation(messages=turn.messages, done=turn.done, reward=reward, info=turn.info)

    @property
    def _playing(self) -> Session:
        if self._session is None:
            raise UsageError("no episode is open: call reset first")
        return self._session

    @property
    def state(self) -> State:
        """Which task is played, and how many turns were taken."""
        task = None if self._session is None else self._session.task.id
        return State(episode_id=task, step_count=self._turns)

    def get_metadata(self) -> EnvironmentMetadata:
        """Name and version of the environment."""
        spec = self._env.env_spec
        return EnvironmentMetadata(name=spec.id, description=f"agentenv environment {spec.id}", version=spec.version)

    def close(self) -> None:
        """Give back what the episode's tools were bound to."""
        if self._session is not None:
            self._session.close()


def _at(env: Env, place: int) -> Task:
    found = next(islice(env.tasks, place, None), None)
    if found is None:
        raise UsageError(f"the environment has no task at place {place}")
    return found


def app(name: str, sessions: int = 64, **options: Any) -> Any:
    """The FastAPI application of an environment.

    Args:
        name: of the environment.
        sessions: clients at once.
        **options: of the environment.

    Raises:
        ConfigError: the environment is in the native dialect.
    """
    env = make(name, **options)
    check_dialect(env)
    return create_fastapi_app(partial(AgentEnvironment, env), TurnAction, TurnObservation, max_concurrent_envs=sessions)


def served() -> Any:
    """The application that the environment variables AGENTENV_ENV and AGENTENV_OPTIONS (JSON) name, for uvicorn.

    Raises:
        UsageError: AGENTENV_ENV is not set.
    """
    name = os.environ.get("AGENTENV_ENV")
    if not name:
        raise UsageError("set AGENTENV_ENV to the name of an environment")
    return app(name, **json.loads(os.environ.get("AGENTENV_OPTIONS", "{}")))
