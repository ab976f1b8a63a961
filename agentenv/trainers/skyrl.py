"""SkyRL over any environment. Importing this module imports skyrl_gym.

    skyrl_gym.register(id="agentenv", entry_point="agentenv.trainers.skyrl:AgentEnvText")

`skyrl_rows` gives the rows of its data set, whose column `env_class` is "agentenv". Prompts and observations come from
the environment; pictures travel as `image_url` parts, which SkyRL's generator for vision models takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput, ConversationType

from agentenv.trainers.common import loaded_by
from agentenv.trainers.session import Session, rows
from agentenv.types import Task

TESTED = ("0.4.0", "0.5.0")
"""The versions of SkyRL's gym that this adapter was run with: the lowest, and the first that is too new."""
loaded_by("skyrl-gym", TESTED)

NAME = "agentenv"


def skyrl_rows(name: str, tasks: int | Iterable[Task] | None = None, **options: Any) -> list[dict[str, Any]]:
    """Tasks as rows of SkyRL's data set (see `agentenv.trainers.session.rows`)."""
    return [
        {
            "data_source": f"agentenv/{name}",
            "prompt": row["prompt"],
            "env_class": NAME,
            "reward_spec": {"method": "rule", "ground_truth": row["answer"]},
            "extra_info": row["extra_info"],
        }
        for row in rows(name, tasks, **options)
    ]


class AgentEnvText(BaseTextEnv):  # type: ignore[misc]  # skyrl_gym is not typed
    """One episode. The reward comes with the last step; an episode that could not be scored raises.

    Args:
        env_config: SkyRL's settings for this class; nothing of it is used.
        extras: the row, less its prompt. SkyRL adds its own `max_turns`, at which the episode is cut and scored as it
            stands, since its generator leaves that to the environment.
    """

    def __init__(self, env_config: Any = None, extras: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.session = Session((extras or {}).get("extra_info") or {}, "skyrl")
        self.max_turns = (extras or {}).get("max_turns") or 1_000_000

    def init(self, prompt: ConversationType) -> tuple[ConversationType, dict[str, Any]]:
        """The environment's own opening; the row's prompt is what it was made from."""
        return self.session.begin(), {"task": self.session.task.id}

    def step(self, action: str) -> BaseTextEnvStepOutput:
        """Take the model's turn."""
        self.turns += 1
        turn = self.session.step(action)
        if not turn.done and self.turns >= self.max_turns:
            turn = self.session.cut()
        return BaseTextEnvStepOutput(
            observations=[] if turn.done else turn.messages,
            reward=turn.reward,
            done=turn.done,
            metadata=turn.info,
            postprocessed_action=None,
        )

    def get_metrics(self) -> dict[str, Any]:
        """The reward's components, turns and calls of the episode."""
        outcome = self.session.record.outcome
        if outcome is None:
            return {"turns": self.turns}
        scores = {name: score.value for name, score in outcome.rewards.items() if score.value is not None}
        return {**scores, **outcome.metrics}

    def close(self) -> None:
        """Give back what the tools were bound to."""
        self.session.close()
