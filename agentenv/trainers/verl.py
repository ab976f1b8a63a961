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
from agentenv.errors import MissingExtraError, UsageError
from agentenv.registry import make
from agentenv.trainers.session import rows
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
        UsageError, ConfigError: see `agentenv.trainers.session.rows`.
    """
    return [
        {
            "data_source": f"agentenv/{name}",
            "prompt": row["prompt"],
            "ability": name,
            "reward_model": {"style": "rule", "ground_truth": row["answer"]},
            "extra_info": row["extra_info"],
            "agent_name": AGENT,
        }
        for row in rows(name, tasks, **options)
    ]


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
