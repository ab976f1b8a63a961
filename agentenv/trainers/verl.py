"""verl over any environment: rows for its data set, and an agent loop of its own that plays one episode a sample.

    python -m agentenv.trainers.verl zoom --tasks 2000 --out data/zoom --option difficulty=3

writes `train.parquet` and `agentenv.yaml`, and prints the overrides that verl's trainer needs. Each sample then runs
`agentenv.trainers.verl_loop.AgentEnvLoop`: the rollout is agentenv's own, tokens are verl's (its continuous-token
builder, its server), and pictures that tools return are appended in the order of their placeholders.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from agentenv.env import Env
from agentenv.errors import ConfigError, MissingExtraError, UsageError
from agentenv.registry import make
from agentenv.trainers.common import chosen, opening
from agentenv.types import Task

TESTED = ("0.9.1", "0.10.0")
"""The versions of verl that the loop was run with: the lowest, and the first that is too new."""
AGENT = "agentenv"
LOOP = "agentenv.trainers.verl_loop.AgentEnvLoop"


def verl_rows(name: str, tasks: int | Iterable[Task] | None = None, **options: Any) -> list[dict[str, Any]]:
    """Tasks as rows of verl's data set: `data_source`, `prompt`, `ability`, `reward_model`, `extra_info`, `agent_name`.

    `prompt` is for people and for length filters; the loop asks the environment for its own, pictures included.

    Args:
        name: of the environment, which every rollout worker makes anew.
        tasks: how many, or which; all of a set that has an end by default.
        **options: of the environment; plain data.

    Raises:
        UsageError: the tasks are endless and no number was given, or an option is no plain data.
        ConfigError: the environment is in the native dialect, whose calls only a server's parser reads.
    """
    env = make(name, **options)
    check_dialect(env)
    try:
        settings = json.dumps(options, sort_keys=True)
    except TypeError as error:
        raise UsageError(f"options of an environment for verl must be plain data: {error}") from None
    return [_row(env, name, settings, index, task) for index, task in enumerate(chosen(env, tasks))]


def _row(env: Env, name: str, settings: str, index: int, task: Task) -> dict[str, Any]:
    messages = opening(env, task).messages
    extra = {"index": index, "agentenv": json.dumps({"env": name, "task": task.id}), "agentenv_options": settings}
    return {
        "data_source": f"agentenv/{name}",
        # A marker such as <image> would make verl's reader look for a picture column.
        "prompt": [{"role": m.role, "content": m.text.replace("<", "\u2039")} for m in messages],
        "ability": name,
        "reward_model": {"style": "rule", "ground_truth": json.dumps(task.answer, ensure_ascii=False, default=str)},
        "extra_info": extra,
        "agent_name": AGENT,
    }


def write(
    out: str | Path, name: str, tasks: int | Iterable[Task] | None = None, *, records: str = "", **options: Any
) -> list[str]:
    """Write `train.parquet` and `agentenv.yaml` into a folder, and say which overrides verl needs.

    Args:
        out: the folder.
        name: of the environment.
        tasks: see `verl_rows`.
        records: a folder in which every rollout worker keeps its episodes as a run folder of its own; "" keeps none.
        **options: of the environment.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError("pyarrow", "data", "a Parquet file for verl") from None
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(verl_rows(name, tasks, **options)), folder / "train.parquet")
    loop = f"- name: {AGENT}\n  _target_: {LOOP}\n" + (f"  records: {json.dumps(records)}\n" if records else "")
    (folder / "agentenv.yaml").write_text(loop, encoding="utf-8")
    return overrides(folder, make(name, **options))


def overrides(folder: Path, env: Env) -> list[str]:
    """Command-line overrides of verl's trainer for a folder that `write` made."""
    rollout = "actor_rollout_ref.rollout"
    return [
        f"data.train_files={folder.resolve() / 'train.parquet'}",
        "data.return_raw_chat=True",
        f"{rollout}.mode=async",
        f"{rollout}.calculate_log_probs=True",
        f"{rollout}.agent.agent_loop_config_path={folder.resolve() / 'agentenv.yaml'}",
        f"{rollout}.agent.default_agent_loop={AGENT}",
        f"data.max_response_length={env.rules.limits.tokens or 8192}",
    ]


def check_dialect(env: Env) -> None:
    """Refuse a dialect whose calls do not stand in the text.

    Raises:
        ConfigError: it is the native one.
    """
    if env.dialect.native:
        raise ConfigError(
            f"environment {env.env_spec.id!r} is in the native dialect, whose calls only a server's parser reads; verl"
            " gives token ids: use a text dialect, for instance hermes, which writes Qwen's own calls"
        )


def _main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m agentenv.trainers.verl", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("env", help="name of the environment")
    parser.add_argument("--out", required=True, help="folder for train.parquet and agentenv.yaml")
    parser.add_argument("--tasks", type=int, help="how many tasks; all of a set that has an end by default")
    parser.add_argument("--records", default="", help="folder in which rollout workers keep every episode")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="option of the environment")
    given = parser.parse_args(arguments)
    options = dict(_option(text) for text in given.option)
    lines = write(given.out, given.env, given.tasks, records=given.records, **options)
    sys.stdout.write("python -m verl.trainer.main_ppo \\\n  " + " \\\n  ".join(lines) + "\n")
    return 0


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"option {text!r}: write NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


if __name__ == "__main__":
    raise SystemExit(_main())
