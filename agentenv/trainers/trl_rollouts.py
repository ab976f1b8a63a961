"""A rollout function for TRL: the whole rollout is agentenv's, the sampling is the trainer's own.

    spec = TRLSpec("table", tasks=200, dialect="tags", native=False)
    trainer = GRPOTrainer(model=model, args=GRPOConfig(**spec.config(), output_dir="out"),
                          **spec.trainer_arguments(rollouts=Rollouts(spec)))

Any dialect can be played, limits and retries are the environment's, and tools of all rollouts run at once, where TRL's
own loop runs them one after the other. Tokens are exact: what was sampled stays as it was sampled, and what the
environment adds is masked. TRL takes no pictures from a rollout function, so environments with pictures need its own
loop (`TRLSpec(native=True)`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from agentenv.calling import wait_for
from agentenv.errors import ConfigError, UsageError
from agentenv.policy.batching import Batcher, Job, Row
from agentenv.policy.exact import Request, Sampled, TokenPolicy
from agentenv.rollout import play
from agentenv.tokens import flat, stream
from agentenv.tokens.renderer import Renderer
from agentenv.tokens.template import TemplateRenderer
from agentenv.trainers.trl import TRLSpec
from agentenv.trajectory import PolicyInfo, Trajectory
from agentenv.types import Action, Observation, Usage


class TRLPolicy(TokenPolicy):
    """Samples with a `trl.GRPOTrainer`: turns that are asked for at once are one batch of its engine.

    Args:
        trainer: the trainer.
        renderer: of its model (see `renderer_of`).
        size: most turns in a batch.
        wait: seconds to wait for more turns after the first.
    """

    info = PolicyInfo("trl", settings={"loop": "rollout_func"}, capture="ids")

    def __init__(self, trainer: Any, renderer: Renderer, size: int, wait: float = 0.05) -> None:
        super().__init__(renderer)
        self._trainer, self._budget = trainer, int(trainer.max_completion_length)
        self._batcher = Batcher(self._batch, size, wait)

    async def take(self, observation: Observation, seed: str, group: str) -> Action:
        """One turn; "overflow" where what the environment added fills TRL's `max_completion_length`."""
        prompt, _ = await self._prompt(observation)
        if self._left(observation, len(prompt.ids)) <= 0:
            return Action("", finish_reason="overflow", usage=Usage(prompt.length, 0))
        action = await super().take(observation, seed, group)
        left = self._left(observation, len(prompt.ids))
        assert action.token_ids is not None
        return action if len(action.token_ids) < left else _cut(action, left, self.renderer.decoded)

    def _left(self, observation: Observation, length: int) -> int:
        """Tokens that the completion may still grow by: everything after the first prompt counts."""
        first = next((len(tokens.ids) for tokens in observation.tokens if tokens is not None), length)
        return self._budget - (length - first)

    async def sample(self, request: Request) -> Sampled:
        """Sample one turn in the trainer's next batch, and cut it behind the dialect's stop string."""
        if request.media:
            raise ConfigError(
                "TRL takes no pictures from a rollout function: use TRLSpec(native=True), or another trainer"
            )
        row = await self._batcher.run(Job(list(request.prompt.ids), request.seed, request.stop))
        return Sampled(row.ids, row.logprobs or None, row.finish, str(self._trainer.state.global_step))

    def _batch(self, jobs: Sequence[Job]) -> list[Row]:
        prompts = [job.prompt for job in jobs]
        sampled, logprobs = self._trainer._generate_single_turn(prompts, None, {}, num_generations=1)
        given = logprobs if logprobs is not None else [None] * len(jobs)
        return [self._row(*row) for row in zip(jobs, sampled, given, strict=True)]

    def _row(self, job: Job, ids: Sequence[int], logprobs: Sequence[float] | None) -> Row:
        count = stopped(ids, job.stop, self.renderer.decoded)
        ended = count is not None or (bool(ids) and ids[-1] in self.renderer.ends)
        kept = tuple(ids[:count])
        return Row("", kept, tuple((logprobs or ())[: len(kept)]), "stop" if ended else "length")

    async def close(self) -> None:
        """End the thread that samples."""
        await asyncio.to_thread(self._batcher.close)


def renderer_of(trainer: Any) -> Renderer:
    """What renders conversations for the trainer's model.

    Raises:
        ConfigError: its chat template goes back on what it wrote, and TRL has no variant of it that does not.
    """
    tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
    ends = [end for end in trainer.eos_token_ids if end is not None]
    return TemplateRenderer(tokenizer, _template(trainer), ends=ends, name="the trainer's model")


def _template(trainer: Any) -> str | None:
    """The chat template that TRL trains with: its own variant of a known one, which only appends; None for the model's.

    TRL puts it in place itself only where it runs the tools.
    """
    from trl.chat_template_utils import get_training_chat_template

    try:
        found: str | None = trainer.chat_template or get_training_chat_template(trainer.processing_class)
    except ValueError:  # a template that TRL does not know: the renderer proves it, or says what is wrong with it
        return None
    return found


def stopped(ids: Sequence[int], stops: Sequence[str], decoded: Callable[[Sequence[int]], str]) -> int | None:
    """How many ids it takes until a stop string is complete, as an engine with stop strings counts; None for never."""
    if not any(stop in decoded(ids) for stop in stops):
        return None
    low, high = 1, len(ids)
    while low < high:
        middle = (low + high) // 2
        complete = any(stop in decoded(ids[:middle]) for stop in stops)
        low, high = (low, middle) if complete else (middle + 1, high)
    return low


def _cut(action: Action, length: int, decoded: Callable[[Sequence[int]], str]) -> Action:
    ids = (action.token_ids or ())[:length]
    logprobs = None if action.logprobs is None else action.logprobs[:length]
    return replace(action, text=decoded(ids), token_ids=ids, logprobs=logprobs, finish_reason="length")


class Rollouts:
    """TRL's `rollout_func` for a spec with `native=False`.

    Args:
        spec: names tasks, rewards and records.
        wait: seconds for which a batch waits for more turns after the first.

    Raises:
        ConfigError: the spec is for TRL's own loop.
    """

    def __init__(self, spec: TRLSpec, wait: float = 0.05) -> None:
        if spec.native:
            raise ConfigError("a rollout function needs TRLSpec(native=False)")
        self._spec, self._wait = spec, wait
        self._known: tuple[Any, Renderer] | None = None

    def __call__(self, prompts: Sequence[Any], trainer: Any) -> dict[str, Any]:
        """Play one episode for each prompt.

        Returns:
            `prompt_ids`, `completion_ids`, `logprobs` (None where the engine gives none) and `env_mask` (1 = sampled).

        Raises:
            ConfigError: the trainer runs in several processes that sample together, which would wait for each other.
        """
        _check_alone(trainer)
        records = wait_for(self._play(trainer, len(prompts)))
        for world, record in zip(trainer.environments, records, strict=True):
            world._played(record)
        rows = [_row(record, trainer) for record in records]
        known = all(row["logprobs"] is not None for row in rows)
        columns = {name: [row[name] for row in rows] for name in ("prompt_ids", "completion_ids", "env_mask")}
        return {**columns, "logprobs": [row["logprobs"] for row in rows] if known else None}

    async def _play(self, trainer: Any, count: int) -> list[Trajectory]:
        if self._known is None or self._known[0] is not trainer:
            self._known = trainer, renderer_of(trainer)
        policy = TRLPolicy(trainer, self._known[1], count, self._wait)
        seen: Counter[str] = Counter()
        episodes = []
        for world in trainer.environments:
            task = self._spec.tasks[world._task]
            seed = int(trainer.state.global_step)
            episodes.append(play(self._spec.env.clone(), policy, task, seed=seed, sample=seen[task.id]))
            seen[task.id] += 1
        try:
            return list(await asyncio.gather(*episodes))
        finally:
            await policy.close()


def _check_alone(trainer: Any) -> None:
    together = not trainer.use_vllm or trainer.vllm_mode == "server" or trainer.vllm_tensor_parallel_size > 1
    if trainer.accelerator.num_processes > 1 and together:
        raise ConfigError(
            "with several processes this rollout function needs an engine of each process's own (vllm_mode='colocate',"
            " vllm_tensor_parallel_size=1): the others sample together, and episodes do not take turns together"
        )


def _row(record: Trajectory, trainer: Any) -> dict[str, Any]:
    """A record as TRL wants a completion; what could not be scored or is masked has a mask of zeros."""
    try:
        segments = stream(record)
    except UsageError:  # the engine failed before the first turn: something must stand there, and nothing is trained
        end = trainer._tokenizer.eos_token_id
        return {"prompt_ids": [end], "completion_ids": [end], "env_mask": [0], "logprobs": [0.0]}
    ids, mask, logprobs = flat(segments)
    first = len(segments[0].ids)
    trained = record.reward is not None and record.outcome is not None and not record.outcome.masked
    return {
        "prompt_ids": ids[:first],
        "completion_ids": ids[first:],
        "env_mask": mask[first:] if trained else [0] * (len(ids) - first),
        "logprobs": None if logprobs is None else logprobs[first:],
    }
