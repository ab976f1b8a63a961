"""Settings of the reference trainer, and its command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from agentenv.errors import UsageError
from agentenv.spec import pairs
from agentenv.trajectories.grpo.batch import Layout, Per
from agentenv.trajectories.grpo.groups import Rules
from agentenv.trajectories.grpo.samples import Method


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a training run.

    Args:
        out: folder of the training run.
        steps: optimiser steps in all for sft; batches of rollouts for grpo.
        seed: of episodes, task order and LoRA weights.
        learning_rate: of AdamW.
        warmup: steps over which the learning rate rises; it is constant after them.
        weight_decay: of AdamW.
        max_grad_norm: longer gradients are scaled down to this norm.
        dtype: "bfloat16" trains with automatic mixed precision and plays in bfloat16; weights stay float32.
        device: "auto" takes a GPU where there is one.
        lora: rank of LoRA adapters on all linear layers (needs peft); 0 trains all weights.
        layout: padded, packed or shared; see `agentenv.trajectories.grpo.batch.batch`.
        row_tokens: most tokens in a row, which is a forward pass.
        per: how token losses are averaged (see `Batch.weights`); with "constant" by `max_new_tokens`.
        save_every: steps between checkpoints; the last step always has one.
        batch: episodes a step, of sft.
        tokens: of sft, "written" tokenises the episodes for this model; "recorded" takes the ids in the records, which
            must be this model's own.
        groups: of grpo, tasks a step.
        group: of grpo, attempts at each task.
        method: how advantages are computed (see `agentenv.trajectories.grpo.samples.samples`).
        rules: which attempts count (see `agentenv.trajectories.grpo.groups.Rules`).
        resample: groups of equal rewards are replaced by others until so many times `groups` were played (DAPO);
            1 plays each step's groups once, and leaves those of equal rewards out of the batch.
        updates: optimiser steps on each batch of rollouts, each on its share of the groups.
        staleness: how many steps old the weights may be that played a batch; 0 plays and trains by turns.
        clip_low: a ratio counts from 1 - clip_low on.
        clip_high: a ratio counts up to 1 + clip_high.
        kl: weight of the divergence from the initial model; 0 keeps no copy of it.
        temperature: of sampling.
        max_new_tokens: most tokens in a turn.
        play_batch: turns that are sampled at once, and episodes that are played at once.
    """

    out: str
    steps: int = 100
    seed: int = 0
    learning_rate: float = 1e-5
    warmup: int = 5
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    lora: int = 0
    layout: Layout = "shared"
    row_tokens: int = 2048
    per: Per = "token"
    save_every: int = 10
    batch: int = 16
    tokens: Literal["written", "recorded"] = "written"
    groups: int = 8
    group: int = 8
    method: Method = "grpo"
    rules: Rules = field(default_factory=Rules)
    resample: int = 1
    updates: int = 1
    staleness: int = 1
    clip_low: float = 0.2
    clip_high: float = 0.28
    kl: float = 0.0
    temperature: float = 1.0
    max_new_tokens: int = 256
    play_batch: int = 32


def check_layout(model: Any, config: Config) -> None:
    """Refuse layouts that a model would compute wrongly, without a word.

    Args:
        model: its configuration.
        config: for the layout.

    Raises:
        UsageError: the model has layers that look at a window, or carry a state along, and sequences share rows.
    """
    kinds = set(getattr(model.get_text_config(), "layer_types", None) or ()) - {"full_attention"}
    if kinds and config.layout != "padded":
        raise UsageError(
            f"this model has layers of the kind {', '.join(sorted(kinds))}, to which sequences in one row are one long"
            ' sequence: take layout="padded"'
        )


def check_sampling(settings: Mapping[str, Any], config: Config) -> None:
    """Refuse a policy whose log-probabilities would not be those of the distribution that is trained.

    Args:
        settings: of the policy, as its records carry them.
        config: for the temperature.

    Raises:
        UsageError: another temperature, none at all, or tokens that are cut off.
    """
    found = settings.get("temperature")
    if found != config.temperature or not config.temperature > 0:
        raise UsageError(f"the policy samples at temperature {found}, training assumes {config.temperature} (above 0)")
    if settings.get("top_p", 1.0) < 1.0 or settings.get("top_k", 0):
        raise UsageError("the policy cuts unlikely tokens off (top_p, top_k): their probabilities would not be trained")


def check_group(config: Config) -> None:
    """Refuse groups in which nothing can be compared.

    Raises:
        UsageError: a single attempt at each task, whose advantage is always 0.
    """
    if config.group < 2 and config.method != "process_grpo":
        raise UsageError(
            f"group={config.group}: {config.method} compares attempts at the same task, and one alone has the advantage"
            " 0, from which nothing is learned: take group=2 or more"
        )


class Arguments(argparse.Namespace):
    """What was given on the command line."""

    what: str
    source: str
    model: str
    where: str
    resume: bool
    option: list[str]

    def config(self) -> Config:
        """The settings.

        Raises:
            UsageError: one of them cannot be read.
        """
        given = {name: getattr(self, name) for name in Config.__struct_fields__}
        given = {name: value for name, value in given.items() if value is not None}
        given["rules"] = pairs(given.pop("rules", ()), "--rules")
        try:
            return msgspec.convert(given, Config, strict=False)
        except (msgspec.ValidationError, UsageError) as error:
            raise UsageError(f"settings: {error}") from None

    def options(self) -> dict[str, Any]:
        """The environment's options."""
        return pairs(self.option)


def parser(about: str) -> argparse.ArgumentParser:
    """The parser of the command line: every field of `Config` is an option."""
    told = _told(Config.__doc__ or "")
    made = argparse.ArgumentParser(
        prog="python -m agentenv.trajectories.grpo.train",
        description=about,
        usage="%(prog)s {sft,grpo} SOURCE --model MODEL --out OUT [SETTINGS]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("what", choices=("sft", "grpo"), help="supervised training, or GRPO")
    made.add_argument("source", help="of sft: a recorded run; of grpo: the name of an environment")
    made.add_argument("--model", required=True, help="a folder, or a name that transformers resolves")
    made.add_argument("--where", default="", help="of sft, which episodes, for instance: reward >= 1")
    made.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    made.add_argument("-o", "--option", action="append", default=[], metavar="KEY=VALUE", help="of the environment")
    for part in msgspec.structs.fields(Config):
        name, needed = part.name.replace("_", "-"), part.name == "out"
        many: dict[str, Any] = {"nargs": "*", "metavar": "KEY=VALUE"} if part.name == "rules" else {}
        usual = "" if needed or many else f" [{part.default}]"
        about_it = (told.get(part.name, "") + usual).replace("%", "%%")
        made.add_argument(f"--{name}", required=needed, help=about_it, **many)
    parse = made.parse_args
    made.parse_args = lambda args=None, namespace=None: parse(args, namespace or Arguments())  # type: ignore[method-assign,assignment]
    return made


def _told(docstring: str) -> dict[str, str]:
    """What a docstring says of each argument."""
    found = re.findall(r"^ {8}(\w+): ((?:.|\n {12})+)", docstring, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}
