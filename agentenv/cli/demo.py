"""`agentenv demo`: the whole chain in under a minute."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from agentenv.cli import common
from agentenv.cli.runs import side_by_side
from agentenv.errors import InfrastructureError, UsageError
from agentenv.registry import registrations

if TYPE_CHECKING:
    from agentenv.policy.base import Policy
    from agentenv.trajectories.run import Run
    from agentenv.trajectory import Trajectory

_MARK = "made by agentenv demo: the folders run-*, sft* and grpo beside this file are replaced by the next one"
_RUNS = ("expert", "weak", "model", "zoom", "video", "search")
_MADE = (*(f"run-{name}" for name in _RUNS), "sft", *(f"sft-{name}" for name in _RUNS[3:]), "grpo")
_TASKS, _GROUP = 24, 4
_LOOKS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "zoom": ("PIL", 4, {"difficulty": 1}),
    "video": ("av", 3, {"difficulty": 1, "kinds": ["read-code", "order", "when-lamp"], "cache": None}),
    "search": ("reverse_geocode", 3, {"difficulty": 2}),
}
"""Environments of things to look at or to look up: the module they need, how many tasks are played, their options."""
_WIDTH = 600


def demo(
    *,
    out: Path = Path("runs/demo"),
    base_url: str | None = None,
    model: str | None = None,
    tasks: Annotated[int, Parameter(show_default=True)] = _TASKS,
    group: Annotated[int, Parameter(show_default=True)] = _GROUP,
) -> int:
    """Play the table, the zoom, the video and the search environment, record, measure, and export training data.

    Over tables three policies can play: an expert who knows the tasks' evidence, one that makes mistakes, and, where a
    server is given, a model. Then the expert looks at a few large pictures and videos, and searches an offline corpus
    (whose index is written at the first time), if the extras `image`, `video` and `search` are installed. An earlier
    demo in the folder is replaced; a folder that holds anything else is refused.

    For example:

    ```
    agentenv demo
    agentenv demo --base-url http://127.0.0.1:8000/v1 --model Qwen/Qwen3-8B
    ```

    Args:
        out: where everything goes.
        base_url: address of an OpenAI-compatible server.
        model: the model's name on it.
        tasks: how many tasks are played.
        group: attempts at each.
    """
    if (base_url is None) != (model is None):
        raise UsageError("give both --base-url and --model, or neither")
    common.at_least(1, **{"--tasks": tasks, "--group": group})
    common.usable_folder(out)
    started = time.monotonic()
    _clear(out)
    runs, trouble = _play(out, base_url, model, tasks, group)
    common.console().print(side_by_side({name: run.stats() for name, run in runs.items()}))
    _show_episode(runs["weak"])
    exports = _export(runs, out)
    for name, (needed, _, _) in _LOOKS.items():
        if find_spec(needed) is not None:
            runs[f"expert ({name})"], exports[f"sft-{name}"] = _look(out, name)
        else:
            extra = registrations()[name].extra
            common.say(f"(no {name}: that environment needs pip install 'agentenv-gym[{extra}]')")
    _where(out, runs, exports, time.monotonic() - started)
    if trouble:
        common.note(f"agentenv: the model did not play to the end: {trouble}")
    return 1 if trouble else 0


def _clear(out: Path) -> None:
    """Take away what an earlier demo made, and nothing else."""
    mark = out / ".demo"
    if out.exists() and any(out.iterdir()) and not mark.exists():
        raise UsageError(f"{out} holds something that is no demo; choose another folder with --out")
    for name in _MADE:
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    mark.write_text(f"{_MARK}\n", encoding="utf-8")


def _policies(base_url: str | None, model: str | None) -> dict[str, Policy]:
    players = {"expert": common.make_player("reference", {}), "weak": common.make_player("weak", {"skill": 0.6})}
    if base_url is not None:
        players["model"] = common.make_player(f"openai:{model}", {"base_url": base_url, "retries": 1})
    return players


def _play(out: Path, base_url: str | None, model: str | None, tasks: int, group: int) -> tuple[dict[str, Run], str]:
    from agentenv.trajectories import load

    runs: dict[str, Run] = {}
    trouble = ""
    for name, player in _policies(base_url, model).items():
        dialect = "native" if name == "model" else "hermes"
        common.say(f"playing {tasks} tasks, {group} attempts each: {name}")
        folder = out / f"run-{name}"
        try:
            trouble = (
                asyncio.run(_rollout(player, folder, name, tasks, group, "table", {"dialect": dialect})) or trouble
            )
        except InfrastructureError as error:
            trouble = str(error)
        runs[name] = load(folder)
    return runs, trouble


async def _rollout(
    player: Policy, folder: Path, name: str, tasks: int, group: int, env: str, options: dict[str, Any]
) -> str:
    """Play one policy; what went wrong with its engine, if anything."""
    from agentenv.progress import RolloutProgress
    from agentenv.rollout import arollout

    world = common.make_env(env, options)
    progress = RolloutProgress(f"{env} / {name}")
    try:
        with common.complaints():
            await arollout(
                world, player, tasks=tasks, group=group, seed=0, out=folder,
                attempts=1, give_up_after=8, progress=progress,
            )  # fmt: skip
    finally:
        await player.close()
        world.close()
    return next(iter(progress.tally.errors), "") if progress.tally.failed else ""


def _show_episode(run: Run) -> None:
    """One episode to read: the first in which a mistake was made, if there is one."""
    failed = [record for record in run if record.reward == 0.0 and record.tool_runs]
    record = failed[0] if failed else run[0]
    common.say("\nOne episode of the weak policy, to the letter (the system prompt left out):\n")
    for message in record.messages[1:]:
        text = message.text if len(message.text) <= _WIDTH else message.text[:_WIDTH] + " ..."
        common.say(f"  [{message.role}]\n" + "\n".join(f"    {line}" for line in text.strip().splitlines()))
    common.say(_ending(record))


def _ending(record: Trajectory) -> str:
    outcome = record.outcome
    assert outcome is not None
    scores = ", ".join(f"{name} {common.number(score.value)}" for name, score in outcome.rewards.items())
    return f"  ended: {outcome.stop_reason}; answer {outcome.answer!r}, reference {record.task.answer!r}; {scores}\n"


def _export(runs: dict[str, Run], out: Path) -> dict[str, Path]:
    """What a trainer reads: SFT rows of the expert's right answers, and the weak policy's groups with advantages."""
    wanted: dict[str, tuple[str, str, str, dict[str, Any]]] = {
        "sft": ("expert", "reward >= 1", "trl-sft", {"on_loss": "note"}),
        "grpo": ("weak", "", "grpo-groups", {}),
    }
    folders = {}
    for name, (source, where, format, options) in wanted.items():
        run = runs[source].filter(where) if where else runs[source]
        folders[name] = out / name
        common.say(str(run.export(format, folders[name], **options)))
    return folders


def _look(out: Path, name: str) -> tuple[Run, Path]:
    """The expert looks at large pictures or long videos, or looks things up; what it saw becomes rows for a trainer."""
    from agentenv.trajectories import load

    _, tasks, options = _LOOKS[name]
    common.say(f"\nplaying {tasks} tasks of the {name} environment: expert")
    player = common.make_player("reference", {})
    asyncio.run(_rollout(player, out / f"run-{name}", "expert", tasks, 1, name, options))
    run = load(out / f"run-{name}")
    _show_look(run)
    common.say(str(run.filter("reward >= 1").export("trl-sft", out / f"sft-{name}", on_loss="note")))
    return run, out / f"sft-{name}"


def _show_look(run: Run) -> None:
    """What the expert was asked, where the pictures lie that it was shown, and what it searched for."""
    from agentenv.types import Image, Video

    record = run[0]
    shown = [part for message in record.messages for part in message.parts if isinstance(part, (Image, Video))]
    common.say(f"  asked: {record.messages[1].text.strip().splitlines()[-1]}")
    for part in shown:
        size = f"{part.width} x {part.height}"
        where = f"{len(part.frames)} frames" if isinstance(part, Video) else run.media.path(part.sha256)
        common.say(f"  {part.handle:<14} {size:>11}  {where}")
    for found in (call.data or {} for call in record.tool_runs):
        if found.get("ids"):
            common.say(f"  searched: {found['query']}  ->  {found['urls'][0] or found['ids'][0]}")
    common.say(_ending(record).rstrip())


def _where(out: Path, runs: dict[str, Run], exports: dict[str, Path], seconds: float) -> None:
    rows = [(f"episodes of policy {name!r}", str(run.path)) for name, run in runs.items()]
    rows += [("SFT rows (TRL, OpenAI style)", str(exports["sft"])), ("GRPO groups", str(exports["grpo"]))]
    rows += [(f"SFT rows of {name!r}", str(exports[f"sft-{name}"])) for name in _LOOKS if f"sft-{name}" in exports]
    common.say(f"\nAll of it is in {out}{os.sep} ({seconds:.1f} s):")
    wide = max(len(what) for what, _ in rows)
    for what, where in rows:
        common.say(f"  {what:<{wide}} {where}")
    common.say("Go on with:")
    common.say(f"  agentenv stats {shlex.quote(str(runs['weak'].path))}")
    common.say("  agentenv play table")
    for name in _LOOKS:
        if f"sft-{name}" in exports:
            common.say(f"  agentenv play {name}")
    common.say(
        "  agentenv chat --table FILE.csv --policy openai:MODEL --base-url URL   (or --image, --video, --corpus)"
    )
