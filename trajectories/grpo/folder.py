"""The folder of a training run: its metrics, and the checkpoint from which it goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from agentenv.errors import UsageError
from agentenv.trajectories.grpo.config import Config

_MAY_CHANGE = ("out", "steps", "save_every", "device")


class TrainingFolder:
    """Where a training run keeps what it comes to.

    Args:
        config: its settings; `out` is the folder.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.path = config, Path(config.out)
        self._checkpoint, self._metrics = self.path / "checkpoint.pt", self.path / "metrics.jsonl"

    def begin(self, resume: bool) -> dict[str, Any] | None:
        """Begin in a new folder, or go on from the checkpoint that is there; what it holds, None where there is none.

        Metrics of steps after the checkpoint are forgotten: these steps are done again.

        Raises:
            UsageError: there is a training run in the folder already, or it was started with other settings.
        """
        import torch

        there = [self._checkpoint, self._metrics, self.path / "rollouts"]
        if not resume and any(path.exists() for path in there):
            raise UsageError(f"{self.path} holds a training run; go on with --resume, or choose another folder")
        self.path.mkdir(parents=True, exist_ok=True)
        if not self._checkpoint.exists():
            self._metrics.unlink(missing_ok=True)
            return None
        state: dict[str, Any] = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        now, then = msgspec.to_builtins(self.config), state["config"]
        other = [name for name in now if name not in _MAY_CHANGE and now[name] != then.get(name)]
        if other:
            raise UsageError(f"{self.path} was started with {other[0]}={then.get(other[0])!r}, not {now[other[0]]!r}")
        lines = self._metrics.read_text().splitlines() if self._metrics.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= state["step"]]
        self._metrics.write_text("".join(line + "\n" for line in kept))
        return state

    def log(self, step: int, told: Mapping[str, Any]) -> None:
        """Add a line to the metrics."""
        line = {"step": step, **{name: round(v, 6) if isinstance(v, float) else v for name, v in told.items()}}
        with self._metrics.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint: the old one or the new one is there, whole, whatever happens."""
        import torch

        partial = self.path / ".checkpoint.partial"
        torch.save({**state, "config": msgspec.to_builtins(self.config)}, partial)
        partial.replace(self._checkpoint)
