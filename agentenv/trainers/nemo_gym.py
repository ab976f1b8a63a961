"""NeMo-Gym over any environment of text: the two methods that its `GymnasiumServer` asks for.

    class Server(AgentEnvGym, GymnasiumServer):
        pass

Rows are `nemo_gym_rows`. A thin shim, held to the signature by a contract test; NeMo-Gym itself was not run here. Its
observations are strings, so environments that show pictures are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agentenv.errors import ConfigError
from agentenv.trainers.common import loaded_by
from agentenv.trainers.session import Session, rows
from agentenv.types import Task

TESTED = ("0.4.0", "0.5.0")
"""The versions of NeMo-Gym whose signatures this adapter follows: the lowest, and the first that is too new."""


def nemo_gym_rows(name: str, tasks: int | Iterable[Task] | None = None, **options: Any) -> list[dict[str, Any]]:
    """Tasks as lines of NeMo-Gym's data set, with the environment's own opening as the input of its agent.

    Raises:
        ConfigError: the environment shows pictures.
    """
    return [_row(row) for row in rows(name, tasks, **options)]


def _row(row: dict[str, Any]) -> dict[str, Any]:
    session = Session(row["extra_info"], "nemo-gym")
    messages = [{"role": message["role"], "content": _text(message)} for message in session.begin()]
    session.close()
    return {"responses_create_params": {"input": messages}, **row["extra_info"]}


def _text(message: dict[str, Any]) -> str:
    if not isinstance(message["content"], str):
        raise ConfigError("NeMo-Gym's observations are strings: an environment that shows pictures cannot be played")
    return message["content"]


class AgentEnvGym:
    """Goes before `GymnasiumServer` among a class's bases, whose `session_state` holds the episodes."""

    session_state: dict[str, Any]

    async def reset(self, metadata: dict[str, Any], session_id: str | None = None) -> tuple[str | None, dict[str, Any]]:
        """Start the episode that a row names. Its opening stands in the row already, so there is no observation.

        Raises:
            ConfigError: NeMo-Gym is of a version that was not tested.
        """
        loaded_by("nemo-gym", TESTED)
        session = Session(metadata, "nemo-gym")
        session.begin()
        self.session_state[str(session_id)] = session
        return None, {"task": session.task.id}

    async def step(
        self, action: Any, metadata: dict[str, Any], session_id: str | None = None
    ) -> tuple[str | None, float, bool, bool, dict[str, Any]]:
        """Take the model's turn.

        Returns:
            Observation, reward, terminated, truncated, and at the end what came of it.

        Raises:
            InfrastructureError: the episode could not be scored.
            ConfigError: a tool showed a picture.
        """
        session: Session = self.session_state[str(session_id)]
        text = "".join(_said(item) for item in action.output if item.type == "message")
        details = getattr(action, "incomplete_details", None)
        cut = getattr(details, "reason", None) == "max_output_tokens"
        turn = await session.astep(text, "length" if cut else "stop")
        seen = "\n".join(map(_text, turn.messages)) or None
        outcome = session.record.outcome
        terminated = outcome is not None and outcome.terminated
        return None if turn.done else seen, turn.reward, terminated, turn.done and not terminated, turn.info

    async def close_session(self, session_id: str | None) -> None:
        """Give back what the episode's tools were bound to."""
        session = self.session_state.pop(str(session_id), None)
        if session is not None:
            session.close()


def _said(item: Any) -> str:
    if isinstance(item.content, str):
        return item.content
    return "".join(part.text for part in item.content if part.type == "output_text")
