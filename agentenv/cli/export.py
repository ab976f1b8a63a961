"""`agentenv export` and `formats`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from agentenv.cli import common
from agentenv.cli.common import Flag
from agentenv.cli.runs import open_run
from agentenv.errors import UsageError

if TYPE_CHECKING:
    from agentenv.trajectories.formats import Format


def export(
    run: str | None = None,
    /,
    *,
    format: Annotated[str | None, Parameter(name=["--format", "-f"])] = None,
    out: str | None = None,
    where: str | None = None,
    limit: int | None = None,
    option: Annotated[list[str], Parameter(name=["--option", "-o"], negative=())] = [],  # noqa: B006
    list: Flag = False,
    json: Flag = False,
) -> int:
    """Turn a recorded run into training data. Exits with 1 where no episode could be written.

    For example:

    ```
    agentenv export runs/expert --format trl-sft --out sft
    agentenv export runs/expert -f trl-sft --out sft --where 'reward >= 1'
    agentenv export runs/weak -f grpo-groups --out groups -o container=parquet
    agentenv export --list
    ```

    Args:
        run: a run folder, or a .jsonl file of records.
        format: the name of the format; `agentenv formats` shows them with their options.
        out: the folder to write to: a new or an empty one, or one with an earlier export of this format.
        where: only the episodes for which this holds, for instance: reward >= 1 and 0 < pass_rate < 1
        limit: at most so many episodes, the first ones.
        option: an option of the format, as key=value (TOML). Repeatable.
        list: show the formats instead.
        json: print JSON.
    """
    if list:
        formats(json=json)
        return 0
    missing = [name for name, value in (("RUN", run), ("--format", format), ("--out", out)) if value is None]
    if run is None or format is None or out is None:
        raise UsageError(
            f"export needs {', '.join(missing)}, for instance: agentenv export runs/x --format trl-sft --out sft"
        )
    common.at_least(1, **{"--limit": limit})
    report = (open_run(run, where)[:limit]).export(format, out, **common.pairs(option))
    if json:
        common.print_json(report)
    else:
        common.say(str(report))
    return 0 if report.written else 1


def formats(*, json: Flag = False) -> None:
    """Show the formats of `export`, with their options and what each cannot carry."""
    from agentenv.trajectories.formats import ALIASES, formats

    made = [_about(item) for item in formats()]
    if json:
        aliases = {name: {"format": real, "options": options} for name, (real, options) in ALIASES.items()}
        common.print_json({"formats": made, "aliases": aliases})
        return
    for item in made:
        common.say(f"{item['name']}: {item['about']}")
        options = ", ".join(f"{name}={_default(value)}" for name, value in item["options"].items())
        common.say(f"    options (-o key=value): {options}")
        for name, why in item["drops"].items():
            common.say(f"    drops {name}: {why}")
    for name, (real, fixed) in ALIASES.items():
        common.say(f"{name}: {real} with {', '.join(f'{key}={value}' for key, value in fixed.items())}")


def _about(format: Format) -> dict[str, Any]:
    defaults = {info.name: info.default for info in msgspec.structs.fields(format.options)}
    columns = dict(format.columns)
    return {"name": format.name, "about": format.about, "options": defaults, "columns": columns, "drops": format.drops}


def _default(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=repr).decode()
