"""`agentenv train`: the reference trainer."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from agentenv.cli import common


def train(*arguments: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> int:
    """Train a small model: on recorded episodes (sft), or by GRPO on an environment (grpo).

    A reference trainer for small models and for debugging: one process, one device, torch and transformers.

    For example:

    ```
    agentenv train sft runs/expert --where 'reward >= 1' --model MODEL --out runs/sft --steps 50
    agentenv train grpo table -o difficulty=1 --model runs/sft/model --out runs/grpo --steps 100
    agentenv train grpo table -o difficulty=1 --model runs/sft/model --out runs/grpo --steps 200 --resume
    agentenv train settings
    ```

    Args:
        arguments: "sft" and a run, or "grpo" and an environment, with settings; "settings" shows all of these.
    """
    common.see_working_directory()
    from agentenv.trajectories.grpo.train import main

    return main(["--help"] if arguments[:1] in ((), ("settings",)) else arguments)
