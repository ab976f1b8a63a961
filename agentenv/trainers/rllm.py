"""rLLM over any environment: a rollout function and its evaluator.

    import rllm
    from agentenv.trainers.rllm import evaluate, flow
    trainer = AgentTrainer(agent_flow=rllm.rollout(flow), evaluator=rllm.evaluator(evaluate), ...)

Rows are `rllm_rows`. The model is asked through rLLM's gateway, which records tokens and log-probabilities. A thin
shim, held to rLLM's signature by a contract test, since no package of rLLM is on the package index.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agentenv.trainers.common import loaded_by
from agentenv.trainers.session import Session, converse, rows
from agentenv.types import Task

TESTED = ("0.3.0", "0.4.0")
"""The versions of rLLM whose signatures this adapter follows: the lowest, and the first that is too new."""


def rllm_rows(name: str, tasks: int | Iterable[Task] | None = None, **options: Any) -> list[dict[str, Any]]:
    """Tasks as rows of rLLM's data set; a task's `metadata` is its row."""
    return [
        {"question": row["prompt"][-1]["content"], "ground_truth": row["answer"], **row["extra_info"]}
        for row in rows(name, tasks, **options)
    ]


async def flow(task: Any, config: Any) -> Any:
    """Play the episode that a task's metadata name, with the model at `config.base_url`.

    Args:
        task: an `rllm.types.Task`.
        config: an `rllm.types.AgentConfig`.

    Returns:
        An `rllm.types.Episode` of one trajectory, with a step for each turn.

    Raises:
        InfrastructureError: the episode could not be scored.
        ConfigError: rLLM is of a version that was not tested.
    """
    loaded_by("rllm", TESTED)
    from openai import AsyncOpenAI
    from rllm.types import Episode, Step, Trajectory

    session = Session(task.metadata, "rllm")
    async with AsyncOpenAI(base_url=config.base_url, api_key="EMPTY") as client:
        try:
            turn = await converse(session, client, config.model)
        finally:
            session.close()
    texts = [node.message.text for node in session.record.path() if node.origin == "sampled"]
    steps = [Step(output=text, action=text) for text in texts]
    steps[-1].reward, steps[-1].done = turn.reward, True
    facts = {"reward": turn.reward, "answer": turn.info["answer"] or "", "stop_reason": turn.info["stop_reason"]}
    trajectory = Trajectory(name="agentenv", steps=steps, reward=turn.reward)
    return Episode(trajectories=[trajectory], artifacts=facts, is_correct=turn.reward >= 1.0)


def evaluate(task: Any, episode: Any) -> Any:
    """The reward that the environment gave, as an `rllm.eval.types.EvalOutput`."""
    from rllm.eval.types import EvalOutput

    return EvalOutput(reward=episode.artifacts["reward"], is_correct=episode.is_correct)
