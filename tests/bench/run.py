"""All figures in one readable table: `python -m tests.bench.run`.

Each group is measured in a process of its own, one after the other, so that no figure disturbs another. Nothing here
fails because a machine is slow: the table says what was held and what was missed.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import re
import subprocess
import sys
from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.table import Table

from tests.bench import (
    batches,
    clips,
    endurance,
    episodes,
    imports,
    install,
    searching,
    table_code,
    tables,
    token_truth,
    turns,
    web,
    zoom_memory,
)
from tests.bench.figure import ROOT, Figure, Group, Scale, shown

ALL = (
    *(episodes.GROUP, endurance.WAITING, endurance.MEMORY, tables.GROUP),
    *(table_code.GROUP, imports.GROUP, zoom_memory.GROUP, clips.GROUP, searching.GROUP, web.GROUP),
    *(batches.GROUP, token_truth.GROUP, turns.GROUP, install.GROUP),
)
GROUPS = {group.name: group for group in ALL}
WORK = {name: work for group in ALL for name, work in group.work.items()}


def measured(group: Group, *, quick: bool = False) -> list[Figure]:
    """The figures of a group, taken in a fresh process.

    Raises:
        CalledProcessError: it could not be measured; the reason stands on standard error.
    """
    command = [sys.executable, "-m", "tests.bench.run", "--group", group.name, *(["--quick"] if quick else [])]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout, type=list[Figure])


def wanted(only: str, *, with_install: bool) -> list[Group]:
    """The groups of which the expression names the group or a figure."""
    groups = [group for group in ALL if with_install or group is not install.GROUP]
    return [group for group in groups if any(re.search(only, name) for name in (group.name, *group.figures))]


def asked_for(group: Group, figure: Figure, only: str) -> bool:
    return re.search(only, group.name) is not None or re.search(only, figure.name) is not None


def table(figures: Sequence[Figure]) -> Table:
    out = Table("figure", "measured", "target", "", "where it goes", title="agentenv: figures", show_lines=False)
    for column in out.columns[:4]:
        column.no_wrap = True
    for figure in figures:
        number = "-" if figure.measured is None else f"{shown(figure.measured)} {figure.unit}"
        style = {"held": "green", "MISSED": "bold red"}.get(figure.verdict, "dim")
        out.add_row(figure.name, number, figure.target, f"[{style}]{figure.verdict}[/]", figure.why)
    return out


def profile(name: str, lines: int) -> None:
    """Print the functions in which most of the time of a work is spent."""
    WORK[name]()  # what happens only once is not what is asked for
    profiler = cProfile.Profile()
    profiler.runcall(WORK[name])
    pstats.Stats(profiler).strip_dirs().sort_stats("tottime").print_stats(lines)


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.run", description=__doc__)
    parser.add_argument("--only", default=".", metavar="REGEX", help="groups and figures with such a name")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--quick", action="store_true", help="tiny counts: shows that it works, measures nothing")
    parser.add_argument("--install", action="store_true", help="also the size of the core installation (downloads)")
    parser.add_argument("--profile", choices=sorted(WORK), metavar="NAME", help=f"top functions of: {', '.join(WORK)}")
    parser.add_argument("--lines", type=int, default=30, help="functions that --profile shows")
    parser.add_argument("--group", choices=sorted(GROUPS), help=argparse.SUPPRESS)
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    options = arguments(given)
    if options.profile:
        return profile(options.profile, options.lines)
    if options.group:
        figures = GROUPS[options.group].measure(Scale(options.quick))
        sys.stdout.buffer.write(msgspec.json.encode(figures))
        return None
    found: list[Figure] = []
    for group in wanted(options.only, with_install=options.install):
        found += [f for f in measured(group, quick=options.quick) if asked_for(group, f, options.only)]
    if options.json:
        rows = [{**msgspec.structs.asdict(f), "target": f.target, "verdict": f.verdict} for f in found]
        print(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
        return None
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table(found))
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    console.print(f"Python {sys.version.split()[0]}, {os.cpu_count()} processors, load average {load}")
    return None


if __name__ == "__main__":
    main()
