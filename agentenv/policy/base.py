"""What a policy is: whatever, given an observation, takes an action."""

from __future__ import annotations

from abc import ABC, abstractmethod

from agentenv.trajectory import PolicyInfo
from agentenv.types import Action, Observation, Task


class Policy(ABC):
    """Base of the policies.

    One policy object plays many episodes, many of them at once. State of a single episode lives in what `begin`
    returns.
    """

    info: PolicyInfo = PolicyInfo("policy")
    """Who this is, as records carry it. Holds no key and no header."""

    def begin(self, task: Task, *, seed: int, sample: int = 0) -> Policy:
        """The policy for one episode: itself where it keeps no state.

        Args:
            task: the task; a model must not look at its answer, a demonstrator may.
            seed: the episode's seed, to be passed on to whatever samples.
            sample: which attempt of its group this is, from 0.
        """
        return self

    async def ready(self) -> None:  # noqa: B027  (most policies need nothing)
        """See that it can play, before the first episode of a run.

        Raises:
            PolicyError: it cannot; the text says what to change.
        """

    @abstractmethod
    async def act(self, observation: Observation) -> Action:
        """Take one turn.

        Raises:
            PolicyError: the engine did not answer usefully, after all retries. The episode is then unscored.
        """

    async def close(self) -> None:  # noqa: B027  (most policies hold nothing)
        """Give back connections, processes and memory. Called once, after the last episode."""
