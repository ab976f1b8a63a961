"""A small reference trainer in one file: supervised training on a recorded run, and GRPO on an environment.

    python -m agentenv.trajectories.grpo.train sft runs/expert --model MODEL --out runs/sft
    python -m agentenv.trajectories.grpo.train grpo table --model runs/sft/model --out runs/grpo -o difficulty=1

For reading, for debugging and for small models: one process, one device, torch and transformers (peft with --lora).
Every option is a field of `Config`. In the folder `out`: `metrics.jsonl`, one line a step; `rollouts/`, the run folders
of all episodes that were played; `checkpoint.pt`, from which --resume goes on; `model/`, the result.

Three things are worth reading. `Learner.update` is the step itself: a batch in which shared prompts are held once, a
row of it at a time, the logits only of what was sampled. `Player` plays the episodes of the next step while this one is
trained on, with its own copy of the weights, at most `staleness` steps old; log-probabilities and weight version stand
in every record, so the importance ratio corrects for the age. `objective` is the loss.
"""

from __future__ import annotations

import copy
import itertools
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from agentenv.env import Env
from agentenv.errors import AgentEnvError, MissingExtraError, UsageError
from agentenv.media import media_store
from agentenv.policy.transformers import TransformersPolicy
from agentenv.registry import make
from agentenv.rollout import rollout
from agentenv.trajectories.grpo.batch import Batch, batch
from agentenv.trajectories.grpo.config import Config, check_group, check_layout, check_sampling, parser
from agentenv.trajectories.grpo.folder import TrainingFolder
from agentenv.trajectories.grpo.groups import contested, drawn
from agentenv.trajectories.grpo.samples import Sample, samples, sequence, sequences, supervised
from agentenv.trajectories.grpo.tensors import Pictures, tensors
from agentenv.trajectories.grpo.written import written
from agentenv.trajectories.run import Run, TrajectoryGroup, load
from agentenv.types import Task


def objective(new: Any, old: Any, advantages: Any, weights: Any, config: Config) -> tuple[Any, Any]:
    """The clipped policy-gradient loss of some tokens, and which of them are clipped.

    With r = exp(new - old): minus the weighted sum of min(r * A, clip(r, 1 - clip_low, 1 + clip_high) * A). Source:
    PPO, arXiv 1707.06347, equation 7; two bounds as in DAPO, arXiv 2503.14476, section 3.1. A token whose old
    log-probability is not known (NaN) gets the plain policy gradient, -A * new: supervised training, where A = 1.

    Args:
        new: log-probabilities, shape (tokens,), through which the gradient flows.
        old: the same when the tokens were sampled.
        advantages: of the tokens.
        weights: of the tokens in the loss.
        config: for the bounds.
    """
    import torch

    known = ~torch.isnan(old)
    ratio = torch.exp(new - torch.where(known, old, new.detach()))
    bounded = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    gain = torch.minimum(ratio * advantages, bounded * advantages)
    clipped = known & (gain.detach() < (ratio * advantages).detach())
    return -(torch.where(known, gain, advantages * new) * weights).sum(), clipped


class Learner:
    """The model that learns, its optimiser and its place in the training run."""

    def __init__(self, policy: TransformersPolicy, config: Config) -> None:
        import torch

        check_layout(policy.model.config, config)
        self.config, self.policy, self.step, self.cursor = config, policy, 0, 0
        torch.manual_seed(config.seed)
        self.folder = TrainingFolder(config)
        self.wrapper = _with_adapters(policy.model, config.lora) if config.lora else None
        self.model: Any = copy.deepcopy(policy.model).float().train()
        self.reference = copy.deepcopy(self.model).eval() if config.kl else None
        self.trained = _trained(self.model)
        self.optimizer = torch.optim.AdamW(self.trained, config.learning_rate, weight_decay=config.weight_decay)
        self.banned = list(policy.info.settings.get("banned_tokens", ()))
        self.pictures = Pictures(policy.processor) if policy.processor is not None else None
        sections = getattr(self.model.config.get_text_config(), "rope_parameters", None) or {}
        self.rope: Literal["plain", "mrope"] = "mrope" if "mrope_section" in sections else "plain"
        self.merge = int(getattr(getattr(self.model.config, "vision_config", None), "spatial_merge_size", 2))

    def update(self, given: Sequence[Sample], *, sampled: bool = True) -> dict[str, float]:
        """One optimiser step on sequences; what it came to.

        Args:
            given: sequences with their advantages.
            sampled: a policy sampled them, so log-probabilities are divided by its temperature.
        """
        import torch

        self.model.train()
        config, started = self.config, time.perf_counter()
        made = batch(given, config.layout, row_tokens=config.row_tokens, rope=self.rope, merge=self.merge,
                     pixels=self.pictures)  # fmt: skip
        weights = made.weights(config.per, config.max_new_tokens)
        parts: list[dict[str, float]] = []
        for row, own in zip(made.rows(), weights, strict=True):
            if row.response_mask.any():
                parts.append(self._backward(row, own[: row.input_ids.shape[1]], sampled))
        norm = torch.nn.utils.clip_grad_norm_(self.trained, config.max_grad_norm)
        for settings in self.optimizer.param_groups:
            settings["lr"] = config.learning_rate * min(1.0, (self.step + 1) / max(1, config.warmup))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        told = {name: sum(part[name] for part in parts) for name in (parts[0] if parts else ())}
        tokens = {"tokens": made.tokens, "loss_tokens": int(made.response_mask.sum())}
        return {**told, "grad_norm": float(norm), **tokens, "train_seconds": time.perf_counter() - started}

    def _backward(self, row: Batch, weights: Any, sampled: bool) -> dict[str, float]:
        """The gradient of one row, added to what is there; its share of the batch's figures."""
        import torch

        data = tensors(row, self.model.device, attention=self.config.layout != "padded")
        at = data["response_mask"][0]
        new = self.logprobs(self.model, data, sampled)
        old, gains = data["logprobs"][0][at], data["advantages"][0][at]
        share = torch.as_tensor(weights, device=new.device)[at]
        loss, clipped = objective(new, old, gains, share, self.config)
        told = {"loss": loss, "clipped": (clipped * share).sum(), "nll": -(new * share).sum()}
        if sampled:
            told["drift"] = ((new - old).abs() * share).nansum()
        if self.reference is not None:
            with torch.no_grad():
                apart = self.logprobs(self.reference, data, sampled)
            away = apart - new  # Schulman's k3 estimator: unbiased, and never negative
            told["kl"] = ((away.exp() - away - 1) * share).sum()
            loss = loss + self.config.kl * told["kl"]
        loss.backward()
        return {name: float(value.detach()) for name, value in told.items()}

    def logprobs(self, model: Any, data: Mapping[str, Any], sampled: bool = True) -> Any:
        """Log-probabilities of a row's sampled tokens, shape (sampled tokens,): logits are made for no other token."""
        import torch

        at = data["response_mask"][0]
        media = {name: data[name] for name in data if name == "pixel_values" or name.endswith("grid_thw")}
        mixed = self.config.dtype == "bfloat16"
        with torch.autocast(model.device.type, torch.bfloat16, enabled=mixed):
            logits = model(
                input_ids=data["input_ids"],
                attention_mask=data.get("attention"),  # a row that is one sequence needs none
                position_ids=data["position_ids"],
                logits_to_keep=data["predictors"][0][at],
                use_cache=False,
                **media,
            ).logits[0]
        logits = logits.float() / (self.config.temperature if sampled else 1.0)
        if self.banned:
            logits[:, self.banned] = -torch.inf
        chosen = data["input_ids"][0][at]
        return torch.log_softmax(logits, dim=-1).gather(1, chosen[:, None]).squeeze(1)

    def weights(self) -> list[Any]:
        """A copy of the trained weights, for who plays."""
        return [weight.detach().to(self.policy.model.dtype, copy=True) for weight in self.trained]

    def save(self) -> None:
        """Write the checkpoint."""
        state = {"step": self.step, "cursor": self.cursor, "weights": self.trained}
        self.folder.save({**state, "optimizer": self.optimizer.state_dict()})

    def start(self, resume: bool) -> None:
        """Begin in an empty folder, or go on from its checkpoint (see `TrainingFolder.begin`)."""
        state = self.folder.begin(resume)
        if state is None:
            return
        _copy(state["weights"], self.trained)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.cursor = state["step"], state["cursor"]

    def finish(self) -> Path:
        """Write the model with its tokenizer or processor, adapters merged; its folder."""
        folder = self.folder.path / "model"
        _copy(self.trained, _trained(self.policy.model))
        model = self.policy.model if self.wrapper is None else self.wrapper.merge_and_unload()
        model.save_pretrained(folder)
        (self.policy.processor or self.policy.tokenizer).save_pretrained(folder)
        return folder


def _trained(model: Any) -> list[Any]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def _copy(weights: Sequence[Any], into: Sequence[Any]) -> None:
    import torch

    with torch.no_grad():
        for weight, own in zip(weights, into, strict=True):
            own.copy_(weight)


def _with_adapters(model: Any, rank: int) -> Any:
    """LoRA adapters on all linear layers but the head, put into the model in place; peft's wrapper of it."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise MissingExtraError("peft", "train", "lora") from None
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"))


class Played(Struct):
    """The episodes of a step: the groups that can be learned from, and figures over all that were played."""

    groups: list[TrajectoryGroup]
    cursor: int
    told: dict[str, Any]


class Player:
    """Plays the episodes of the steps to come, in a thread of its own."""

    def __init__(self, env: Env, learner: Learner) -> None:
        self.env, self.learner, self.cursor = env, learner, learner.cursor
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="agentenv-player")
        self._ahead: deque[Future[Played]] = deque()
        self._next = learner.step

    def played(self, step: int) -> Played:
        """The episodes of a step. Those of the next ones are begun, with the weights as they are now."""
        config = self.learner.config
        while self._next <= min(step + config.staleness, config.steps - 1):
            weights, version = self.learner.weights(), f"step-{self.learner.step}"
            self._ahead.append(self._thread.submit(self._play, self._next, weights, version))
            self._next += 1
        return self._ahead.popleft().result()

    def close(self) -> None:
        """End the thread; what was begun and not asked for is given up."""
        self._thread.shutdown(cancel_futures=True)

    def _play(self, step: int, weights: list[Any], version: str) -> Played:
        config, policy, started = self.learner.config, self.learner.policy, time.perf_counter()
        _copy(weights, _trained(policy.model))
        policy.version = version
        runs: list[Run] = []
        found = contested(self._groups(step, version, runs), config.groups, most=config.resample * config.groups)
        records = [record for run in runs for record in run.heads()]
        scored = [record.outcome.reward for record in records if record.outcome and record.outcome.reward is not None]
        endings = Counter(record.outcome.stop_reason for record in records if record.outcome)
        told = {
            "reward": sum(scored) / max(1, len(scored)),
            "episodes": len(records), "unscored": len(records) - len(scored),
            "groups": found.drawn, "equal_groups": found.equal, "endings": dict(endings), "version": version,
            "play_seconds": time.perf_counter() - started,
        }  # fmt: skip
        return Played(found.groups, self.cursor, told)

    def _groups(self, step: int, version: str, runs: list[Run]) -> Iterator[TrajectoryGroup]:
        """Groups of attempts at the next tasks, played as they are asked for, a step's number at a time."""
        config = self.learner.config
        for part in itertools.count():
            out = self.learner.folder.path / "rollouts" / f"{step:05d}-{part}"
            run = rollout(
                self.env, self.learner.policy, tasks=self._tasks(config.groups), group=config.group,
                concurrency=config.play_batch, seed=config.seed * 1_000_003 + step, out=out, resume=True,
                settings={"version": version},
            )  # fmt: skip
            runs.append(_shown(run))
            yield from run.groups()

    def _tasks(self, count: int) -> list[Task]:
        """The next tasks: a generator's one after the other, a finite set's in an order of its own for each round."""
        own, first = self.env.tasks, self.cursor
        self.cursor += count
        if own.infinite:
            return [own[index] for index in range(first, first + count)]
        if count > len(own):
            raise UsageError(f"groups={count}: the environment has {len(own)} tasks")
        places = drawn(len(own), first, count, self.learner.config.seed)
        return [own[place] for place in dict.fromkeys(places)]  # where two rounds meet, a task may come twice


def grpo(env: Env, policy: TransformersPolicy, config: Config, *, resume: bool = False, quiet: bool = False) -> Path:
    """Train a model on an environment; the folder with the trained model.

    Args:
        env: is played.
        policy: holds the model; it samples with the temperature of `config`.
        config: the settings.
        resume: go on from the checkpoint in `config.out`, where there is one.
        quiet: print nothing.

    Raises:
        UsageError: the policy samples otherwise than `config` says, the layout does not suit the model, a group is a
            single attempt, or the folder holds another training run.
        InfrastructureError: too many episodes in a row failed; --resume goes on.
    """
    check_sampling(policy.info.settings, config)
    check_group(config)
    learner = Learner(policy, config)
    learner.start(resume)
    player = Player(env, learner)
    try:
        while learner.step < config.steps:
            played = player.played(learner.step)
            told = _taught(learner, played.groups)
            learner.step, learner.cursor = learner.step + 1, played.cursor
            _tell(learner, {**played.told, **told}, quiet)
    finally:
        player.close()
    return learner.finish()


def _taught(learner: Learner, groups: Sequence[TrajectoryGroup]) -> dict[str, Any]:
    """The optimiser steps on a batch of rollouts; figures of the last."""
    config, told = learner.config, {}
    for part in range(config.updates):
        mine = [list(group) for group in groups[part :: config.updates]]
        given = samples(mine, config.method, rules=config.rules)
        if given:
            told = learner.update(given)
    return told


def sft(run: Run, policy: TransformersPolicy, config: Config, *, resume: bool = False, quiet: bool = False) -> Path:
    """Train a model on recorded episodes; the folder with the trained model.

    Args:
        run: the episodes, for instance `load("runs/expert").filter("reward >= 1")`.
        policy: holds the model.
        config: the settings.
        resume: go on from the checkpoint in `config.out`, where there is one.
        quiet: print nothing.
    """
    learner = Learner(policy, config)
    learner.start(resume)
    given = [sample for sample in supervised(_demonstrations(_shown(run), policy, config)) if sample.mask.any()]
    if not given:
        raise UsageError(f"no episode of the {len(run)} holds a turn to train on")
    while learner.step < config.steps:
        places = drawn(len(given), learner.step * config.batch, config.batch, config.seed)
        told = learner.update([given[place] for place in places], sampled=False)
        learner.step += 1
        _tell(learner, told, quiet)
    return learner.finish()


def _shown(run: Run) -> Run:
    """The run, its pictures known to this process: a run that was read from its folder was played in another."""
    if run.media.folder is not None:
        media_store().add_root(run.media.folder)
    return run


def _demonstrations(run: Run, policy: TransformersPolicy, config: Config) -> Iterator[Sample]:
    for record in run:
        if config.tokens == "recorded":
            yield from sequences(record)
        else:
            yield sequence(written(record, policy.renderer), group=record.group.id)


def _tell(learner: Learner, told: Mapping[str, Any], quiet: bool) -> None:
    learner.folder.log(learner.step, told)
    if learner.step % learner.config.save_every == 0 or learner.step == learner.config.steps:
        learner.save()
    if not quiet:
        shown = {k: f"{v:.4g}" for k, v in told.items() if isinstance(v, float)}
        sys.stderr.write(f"step {learner.step}: " + ", ".join(f"{k} {v}" for k, v in shown.items()) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    given = parser(__doc__ or "").parse_args(arguments)
    try:
        config = given.config()
        # What is played or trained on comes first: it is cheap to miss, and a model is not.
        source: Any = load(given.source) if given.what == "sft" else make(given.source, **given.options())
        policy = TransformersPolicy(
            given.model, device=config.device, dtype=config.dtype, temperature=config.temperature,
            max_new_tokens=config.max_new_tokens, batch_size=config.play_batch,
        )  # fmt: skip
        if given.what == "sft":
            folder = sft(source.filter(given.where) if given.where else source, policy, config, resume=given.resume)
        else:
            folder = grpo(source, policy, config, resume=given.resume)
    except AgentEnvError as error:
        sys.stderr.write(f"{error}\n")
        return 2 if isinstance(error, UsageError) else 1
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
