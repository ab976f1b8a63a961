"""TRL's own GRPO trainer whose model writes what it is told: everything but the sampling is the trainer's own code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agentenv.policy import make_policy
from agentenv.rollout import play
from agentenv.trainers.trl import TRLSpec
from agentenv.types import Message, Task
from tests.trainers.trl import seeing
from tests.trainers.trl.tiny import model, template, tokenizer

trl: Any = pytest.importorskip("trl", reason="tests/trainers/run.sh installs it")
END = "<|im_end|>"


def settings(out: Path, **changes: Any) -> dict[str, Any]:
    """Arguments of a GRPOConfig for one CPU step."""
    base = {
        "output_dir": str(out), "max_steps": 1, "per_device_train_batch_size": 4, "num_generations": 2,
        "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "save_strategy": "no",
        "seed": 0, "temperature": 1.0, "beta": 0.0,
    }  # fmt: skip
    return {**base, **changes}


def as_text(message: Message) -> str:
    """An assistant's turn in the words of Qwen's template."""
    calls = [
        f"<tool_call>\n{json.dumps({'name': c.name, 'arguments': c.arguments}, ensure_ascii=False)}\n</tool_call>"
        for c in message.calls
    ]
    return "\n".join(text for text in (message.text, *calls) if text) + END


async def turns_of(spec: TRLSpec, task: Task) -> list[str]:
    """The turns of the demonstrator in a task, as the model is to write them."""
    record = await play(spec.env.clone(), make_policy("reference"), task)
    return [as_text(node.message) for node in record.path() if node.origin == "sampled"]


class Scripted(trl.GRPOTrainer):  # type: ignore[misc]
    """A trainer whose samples are given: `script[task id]` holds the turns of each of its rollouts, in order.

    Attributes:
        prompts: the token ids that each generation was asked with.
    """

    script: dict[str, list[Sequence[str]]]

    def play(self, script: dict[str, list[Sequence[str]]]) -> None:
        """Train one step on these samples."""
        self.script, self.prompts = script, list[list[int]]()
        self._live: list[tuple[list[int], list[str]]] = []
        self.train()

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], images: Any, fields: Any, num_generations: int, has_tool_images: bool = False
    ) -> tuple[list[list[int]], None]:
        if not self._live:
            left = {task: [list(turns) for turns in rollouts] for task, rollouts in self.script.items()}
            self._live = [
                ([], left[world._task].pop(0)) for world, _ in zip(self.environments, prompt_ids, strict=True)
            ]
            chosen = self._live
        else:
            waiting = list(self._live)
            chosen = [waiting.pop(self._next(waiting, ids)) for ids in prompt_ids]
        made = []
        for ids, (seen, turns) in zip(prompt_ids, chosen, strict=True):
            said = self._tokenizer(turns.pop(0), add_special_tokens=False)["input_ids"]
            self.prompts.append(list(ids))
            seen[:] = [*ids, *said]
            made.append(said)
        return made, None

    @staticmethod
    def _next(waiting: list[tuple[list[int], list[str]]], ids: list[int]) -> int:
        """Which rollout goes on from these ids: its own, to the letter, stand at their beginning."""
        return next(i for i, (seen, turns) in enumerate(waiting) if turns and ids[: len(seen)] == seen)


def trainer(spec: TRLSpec, out: Path, **changes: Any) -> Scripted:
    """A trainer on a tiny Qwen3, with the spec's own data, environments, rewards and settings."""
    tokens = tokenizer(template("qwen3"))
    return _made(spec, model(tokens), tokens, out, changes)


def seeing_trainer(spec: TRLSpec, out: Path, **changes: Any) -> Scripted:
    """As `trainer`, on a tiny Qwen3-VL with its real image processor."""
    processor = seeing.processor()
    return _made(spec, seeing.model(processor), processor, out, changes)


def _made(spec: TRLSpec, model: Any, processing: Any, out: Path, changes: dict[str, Any]) -> Scripted:
    config = trl.GRPOConfig(**settings(out, **spec.config(**changes)))
    return Scripted(model=model, processing_class=processing, args=config, **spec.trainer_arguments())
