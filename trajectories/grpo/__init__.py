"""Groups of attempts at one task, as GRPO and its relatives learn from them."""

from agentenv.trajectories.grpo.advantages import (
    METHODS,
    advantages,
    branched,
    copg,
    copg_loss,
    dr_grpo,
    grpo,
    process_grpo,
    reinforce_pp,
    rloo,
    zero_variance,
)
from agentenv.trajectories.grpo.groups import Contested, Member, Rules, contested, judged

__all__ = [
    "METHODS",
    "Contested",
    "Member",
    "Rules",
    "advantages",
    "branched",
    "contested",
    "copg",
    "copg_loss",
    "dr_grpo",
    "grpo",
    "judged",
    "process_grpo",
    "reinforce_pp",
    "rloo",
    "zero_variance",
]
