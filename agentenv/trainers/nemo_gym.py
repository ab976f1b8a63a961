"""NeMo-Gym over any environment of text: the methods that its `GymnasiumServer` asks for. The whole of an app.py:

    from agentenv.trainers.nemo_gym import AgentEnvGym
    from resources_servers.gymnasium import GymnasiumServer

    class Server(AgentEnvGym, GymnasiumServer):
        pass

    if __name__ == "__main__":
        Server.run_webserver()

Rows are `nemo_gym_rows`, its agent is `gymnasium_agent`. Its observations are strings, so environments that show
pictures are refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from agentenv.errors import ConfigError, UsageError
from agentenv.trainers.common import loaded_by
from agentenv.trainers.session import Session, rows
from agentenv.types import Task

TESTED = ("0.4.0", "0.8.0")
"""The versions of NeMo-Gym that this adapter was run with: the lowest, and the first that is too new."""


def nemo_gym_rows(name: str, tasks: int | Iterable[Task] | None = None, **options: Any) -> list[dict[str, Any]]:
    """Tasks as lines of NeMo-Gym's data set, with the environment's own opening as the input of its agent.

    Raises:
        ConfigError: the environment shows pictures.
    """
    return [_row(row) for row in rows(name, tasks, **options)]


def _row(row: dict[str, Any]) -> dict[str, Any]:
    session = Session(row["extra_info"], "nemo-gym")
    params: dict[str, Any] = {"input": [{"role": one["role"], "content": _text(one)} for one in session.begin()]}
    if stops := session.env.dialect.stop:
        # The Responses API has no word for these; NeMo-Gym's server of vLLM models hands them on from here.
        more = {"stop": list(stops), "include_stop_str_in_output": True}
        params["metadata"] = {"extra_body": json.dumps(more)}
    session.close()
    return {"responses_create_params": params, **row["extra_info"]}


def _text(message: dict[str, Any]) -> str:
    if not isinstance(message["content"], str):
        raise ConfigError("NeMo-Gym's observations are strings: an environment that shows pictures cannot be played")
    return message["content"]


class AgentEnvGym:
    """Goes before `GymnasiumServer` among a class's bases, whose `session_state` holds the episodes."""

    session_state: dict[str, Any]

    def setup_webserver(self) -> Any:
        """The application, and a way to close an episode that the agent leaves, which NeMo-Gym 0.7 asks for."""
        app = super().setup_webserver()  # type: ignore[misc]  # of GymnasiumServer
        app.router.add_route("/close", self._closed, methods=["POST"])
        return app

    async def _closed(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        await self.close_session(request.session.get("session_id"))
        return JSONResponse({})

    async def reset(self, metadata: dict[str, Any], session_id: str | None = None) -> tuple[str | None, dict[str, Any]]:
        """Start the episode that a row names. Its opening stands in the row already, so there is no observation.

        Raises:
            ConfigError: NeMo-Gym is of a version that was not tested.
        """
        loaded_by("nemo-gym", TESTED)
        await self.close_session(session_id)
        session = Session(metadata, "nemo-gym")
        session.begin()
        self.session_state[str(session_id)] = session
        return None, {"task": session.task.id, "supports_explicit_close": True}

    async def step(
        self, action: Any, metadata: dict[str, Any], session_id: str | None = None
    ) -> tuple[str | None, float, bool, bool, dict[str, Any]]:
        """Take the model's turn.

        Returns:
            Observation, reward, terminated, truncated, and at the end what came of it.

        Raises:
            InfrastructureError: the episode could not be scored.
            ConfigError: a tool showed a picture.
            UsageError: no episode of this session has begun in this process.
        """
        session: Session | None = self.session_state.get(str(session_id))
        if session is None:
            raise UsageError(
                f"no episode of session {session_id} has begun here: reset comes first, its cookie goes along with each"
                " step, and the server has one process (num_workers)"
            )
        try:
            return await _step(session, action)
        except Exception:
            await self.close_session(session_id)
            raise

    async def close_session(self, session_id: str | None) -> None:
        """Give back what the episode's tools were bound to."""
        session = self.session_state.pop(str(session_id), None)
        if session is not None:
            session.close()


async def _step(session: Session, action: Any) -> tuple[str | None, float, bool, bool, dict[str, Any]]:
    details = getattr(action, "incomplete_details", None)
    cut = getattr(details, "reason", None) == "max_output_tokens"
    turn = await session.astep("".join(map(_said, action.output)), "length" if cut else "stop")
    seen = "\n".join(map(_text, turn.messages)) or None
    outcome = session.record.outcome
    terminated = outcome is not None and outcome.terminated
    return None if turn.done else seen, turn.reward, terminated, turn.done and not terminated, turn.info


def _said(item: Any) -> str:
    """What the model wrote. NeMo-Gym cuts thoughts out of the text, where the environment looks for them."""
    if item.type == "reasoning":
        return "".join(f"<think>{part.text}</think>" for part in item.summary)
    if item.type != "message":
        return ""
    if isinstance(item.content, str):
        return item.content
    return "".join(part.text for part in item.content if part.type == "output_text")
