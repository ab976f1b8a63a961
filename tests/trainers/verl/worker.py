"""verl's own rollout worker on a CPU, whose server replays turns and scores them with a real model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentenv.trainers.verl import write
from tests.trainers.trl.tiny import model, template, tokenizer

pytest.importorskip("verl", reason="tests/trainers/run.sh installs it")

END = "<|im_end|>"
WIDTH = {"prompt_length": 2560, "response_length": 768}


class Server:
    """Stands in for verl's client of its inference servers: gives written turns, with a real model's log-probabilities.

    Args:
        tokens: the tokenizer.
        turns: the turns of each rollout, in the order in which rollouts ask for the first time.
        network: scores what is given; None gives no log-probabilities.

    Attributes:
        asked: ids, pictures and sampling parameters of each request.
    """

    def __init__(self, tokens: Any, turns: Sequence[Sequence[str]], network: Any = None) -> None:
        self.tokens, self.network = tokens, network
        self.waiting = [list(rollout) for rollout in turns]
        self.live: dict[str, list[str]] = {}
        self.asked: list[tuple[list[int], int, dict[str, Any]]] = []

    async def generate(
        self,
        request_id: str,
        *,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        image_data: Any = None,
        **_: Any,
    ) -> Any:
        from verl.workers.rollout.replica import TokenOutput

        if request_id not in self.live:
            self.live[request_id] = self.waiting.pop(0)
        self.asked.append((list(prompt_ids), len(image_data or ()), dict(sampling_params)))
        text = self.live[request_id].pop(0)
        if text == "aborted":
            return TokenOutput(token_ids=[], stop_reason="aborted")
        ids = self.tokens(text, add_special_tokens=False)["input_ids"]
        return TokenOutput(
            token_ids=ids,
            log_probs=None if self.network is None else scores(self.network, prompt_ids, ids),
            stop_reason="completed",
            extra_fields={"max_global_steps": 3, "min_global_steps": 3},
        )


def scores(network: Any, before: list[int], ids: list[int]) -> list[float]:
    """Log-probabilities of `ids` after `before`, from one forward pass."""
    import torch

    with torch.no_grad():
        logits = network(torch.tensor([[*before, *ids]])).logits[0, len(before) - 1 : -1]
    return [float(row[i]) for row, i in zip(logits.log_softmax(-1), ids, strict=True)]


def saved(folder: Path) -> tuple[Any, Any]:
    """A tiny Qwen3 with its tokenizer, in a folder as verl reads it."""
    tokens = tokenizer(template("qwen3"))
    network = model(tokens).eval()
    network.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return network, tokens


def configuration(folder: Path, lines: Iterable[str]) -> Any:
    """verl's own configuration with the overrides that agentenv prints, and a CPU's."""
    import verl
    from hydra import compose, initialize_config_dir

    own = [
        f"actor_rollout_ref.model.path={folder}", "actor_rollout_ref.rollout.name=vllm",
        f"data.max_prompt_length={WIDTH['prompt_length']}", f"data.max_response_length={WIDTH['response_length']}",
    ]  # fmt: skip
    with initialize_config_dir(str(Path(verl.__file__).parent / "trainer" / "config"), version_base=None):
        return compose("ppo_trainer", overrides=[*(line for line in lines if "max_response" not in line), *own])


class Rollout:
    """A data set that agentenv wrote, and verl's worker over it, for a vision model where a processor is given."""

    def __init__(
        self, tmp: Path, name: str, server: Any, folder: Path, tasks: int, processor: Any = None, **options: Any
    ) -> None:
        from verl.experimental.agent_loop.agent_loop import AgentLoopWorker

        lines = write(tmp / "data", name, tasks, records=str(tmp / "records"), **options)
        self.config = configuration(folder, lines)
        self.worker = AgentLoopWorker(self.config, server)
        if processor is not None:  # verl would load it from the folder, videos and so torchvision included
            self.worker.processor, self.worker.hf_model_type = processor, "qwen3_vl"
            self.worker.tokenizer = processor.tokenizer
        self.rows = rows(tmp / "data" / "train.parquet")

    async def play(self, indices: Sequence[int]) -> Any:
        """What the worker makes of these rows: a `DataProto` as the trainer gets it."""
        import numpy as np
        from verl.protocol import DataProto

        picked = [self.rows[i] for i in indices]
        columns = {
            "raw_prompt": [row["prompt"] for row in picked], "extra_info": [row["extra_info"] for row in picked],
            "agent_name": [row["agent_name"] for row in picked], "index": list(indices),
        }  # fmt: skip
        arrays = {}
        for name, values in columns.items():
            arrays[name] = np.empty(len(values), dtype=object)
            arrays[name][:] = values
        batch = DataProto.from_dict(non_tensors=arrays, meta_info={"global_steps": 3})
        return await self.worker.generate_sequences(batch)


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file."""
    import pyarrow.parquet as pq

    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found
