"""Does a model learn in these environments? `python -m tests.bench.learning table` (or zoom).

Four models are measured on held-out tasks: the base, the base after supervised training on some episodes of the
reference policy (the cold start), that after GRPO, and the base after GRPO without a cold start; the reference trainer
makes them. Everything is in the folder `--out`: run folders, metrics, models and `results.json`; an interrupted study
goes on with --resume. Another --seed is another draw of everything, tasks and random weights included: settings were
chosen without a look at it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

import agentenv
from agentenv.env import Env
from agentenv.policy.transformers import TransformersPolicy
from agentenv.trajectories.grpo.config import Config
from agentenv.trajectories.grpo.train import grpo, sft
from agentenv.trajectories.run import Run
from agentenv.trajectories.stats import interval
from tests.bench import learning_table, learning_zoom


class Study(Struct, frozen=True):
    """What is studied.

    Args:
        env: makes the environment of a split, "train" or "test".
        model: makes the base model's folder, below the one that is given; random weights by the seed.
        expert: the policy whose episodes the cold start learns from.
        shown: how many of its episodes.
        held_out: tasks of the split "test" that every model plays, each once.
        cold: settings of the supervised training.
        learn: settings of GRPO, with and without a cold start.
    """

    env: Callable[[str], Env]
    model: Callable[[Path, int], Path]
    expert: Callable[[], agentenv.Policy]
    shown: int
    held_out: int
    cold: dict[str, Any]
    learn: dict[str, Any]


STUDIES = {"table": Study(**learning_table.STUDY), "zoom": Study(**learning_zoom.STUDY)}


AWAY = 100_000
"""Tasks between those of one seed and the next."""


class Bench:
    """One study in its folder.

    Args:
        study: what to do.
        out: where.
        seed: which tasks, samples and random weights.
        comparison: also GRPO without a cold start.
    """

    def __init__(self, study: Study, out: Path, seed: int = 0, comparison: bool = True) -> None:
        self.study, self.out, self.seed, self.comparison = study, out, seed, comparison
        self.held_out: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """Train and measure what is not there yet; the results, as they stand in `results.json`."""
        study, out = self.study, self.out
        base = study.model(out, self.seed)
        self.measure("base", base)
        cold = self.trained(
            "cold-start", lambda policy, config: sft(self.expert(), policy, config, resume=True), base, study.cold
        )
        self.measure("cold start", cold)
        both = self.trained("grpo", self.taught, cold, study.learn)
        self.measure("cold start, then GRPO", both)
        if self.comparison:
            bare = self.trained("grpo-only", self.taught, base, study.learn)
            self.measure("GRPO without a cold start", bare)
        settings = {name: getattr(study, name) for name in ("shown", "held_out", "cold", "learn")}
        curves = {stage: curve(out / stage) for stage in ("grpo", "grpo-only")[: 1 + self.comparison]}
        results = {
            "study": out.name,
            "seed": self.seed,
            "settings": settings,
            "held_out": self.held_out,
            "curves": curves,
        }
        (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        return results

    def env(self, split: str) -> Env:
        """The environment of a split, with the tasks of this seed."""
        env = self.study.env(split)
        env.tasks = env.tasks.skip(AWAY * self.seed)
        return env

    def expert(self) -> Run:
        """Episodes of the reference policy, those that were right."""
        options = {"tasks": self.study.shown, "out": self.out / "expert", "resume": True, "seed": 1 + 10 * self.seed}
        return agentenv.rollout(self.env("train"), self.study.expert(), **options).filter("reward >= 1")

    def taught(self, policy: TransformersPolicy, config: Config) -> Path:
        return grpo(self.env("train"), policy, config, resume=True)

    def trained(
        self, name: str, train: Callable[[TransformersPolicy, Config], Path], base: Path, settings: dict[str, Any]
    ) -> Path:
        """The model that a stage made; not made again where it is there."""
        folder = self.out / name
        config = Config(out=str(folder), seed=self.seed, **settings)
        if not (folder / "model" / "config.json").exists():
            print(f"== {name}: {config.steps} steps", flush=True)
            train(self.policy(base, config), config)
        return folder / "model"

    def policy(self, model: Path, config: Config) -> TransformersPolicy:
        return TransformersPolicy(
            model,
            dtype=config.dtype,
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
            batch_size=config.play_batch,
        )

    def measure(self, name: str, model: Path) -> None:
        """Success on the held-out tasks, with its 95 % interval."""
        study, config = self.study, Config(out="", **self.study.learn)
        run = agentenv.rollout(
            self.env("test"),
            self.policy(model, config),
            tasks=study.held_out,
            concurrency=config.play_batch,
            seed=2 + 10 * self.seed,
            out=self.out / "held-out" / name.replace(" ", "-").replace(",", ""),
            resume=True,
        )
        found = interval(run.column("reward"))
        assert found is not None
        self.held_out[name] = {**msgspec.structs.asdict(found), "endings": run.stats().stop_reasons}
        print(f"== {name}: {found.mean:.3f} [{found.low:.3f}, {found.high:.3f}], n={found.n}", flush=True)


def curve(folder: Path, name: str = "reward") -> list[float]:
    """A figure of each step of a training run."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)[name] for line in lines if name in json.loads(line)]


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.learning", description=__doc__)
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--out", default="runs/learning", help="folder of the studies")
    parser.add_argument("--resume", action="store_true", help="go on where it was interrupted")
    parser.add_argument("--seed", type=int, default=0, help="other tasks, samples and random weights")
    parser.add_argument("--no-comparison", action="store_true", help="leave out GRPO without a cold start")
    options = parser.parse_args(given)
    out = Path(options.out) / (options.study if options.seed == 0 else f"{options.study}-{options.seed}")
    if out.exists() and not options.resume:
        parser.error(f"{out} exists; go on with --resume, or choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    results = Bench(STUDIES[options.study], out, options.seed, not options.no_comparison).run()
    for stage, values in results["curves"].items():
        print(f"reward by step, {stage}:", " ".join(f"{value:.2f}" for value in values))


if __name__ == "__main__":
    main()
