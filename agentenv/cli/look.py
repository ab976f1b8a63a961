"""`agentenv list`, `info` and `check`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agentenv.cli import common
from agentenv.cli.common import Flag, Options
from agentenv.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from agentenv.env import Env


def list_envs(*, presets: Flag = False, tools: Flag = False, json: Flag = False) -> None:
    """Show the environments that can be made by name.

    `module:attr` of any function that returns an Env does as a name too, wherever a command takes one.

    Args:
        presets: only those that play a published system.
        tools: the tools of `agentenv chat --tools` instead.
        json: print JSON.
    """
    import msgspec

    from agentenv.registry import registrations

    if tools:
        _list_tools(json)
        return
    chosen = [item for item in registrations().values() if item.preset or not presets]
    chosen.sort(key=lambda item: (item.preset, item.id))
    if json:
        common.print_json([msgspec.structs.asdict(item) for item in chosen])
        return
    shown = common.table("name", "what", "preset", "needs")
    for item in chosen:
        about, preset = item.description or item.entry_point, "yes" if item.preset else ""
        shown.add_row(item.id, about, preset, _plain(_package(item.extra)))
    common.console().print(shown if chosen else "none")


def _list_tools(json: bool) -> None:
    import msgspec

    from agentenv.cli.toolbox import TOOLS

    if json:
        common.print_json([{"name": name, **msgspec.structs.asdict(tool)} for name, tool in TOOLS.items()])
        return
    shown = common.table("name", "what", "works on", "needs")
    for name, tool in TOOLS.items():
        shown.add_row(name, tool.about, f"--{tool.needs} FILE" if tool.needs else "", _plain(_package(tool.extra)))
    common.console().print(shown)


def _package(extra: str) -> str:
    return f"agentenv-gym[{extra}]" if extra else ""


def info(env: str, /, *, option: Options = [], json: Flag = False) -> int:  # noqa: B006  (cyclopts never changes it)
    """Tell about an environment: its options, tools, limits, dialect, reward, and a sample task.

    Where it cannot be made with the options given, the options it has are shown, and the exit code is 2.

    Args:
        env: its name, or module:attr.
        option: an option of the environment, as key=value (TOML; a.b=1 nests). Repeatable.
        json: print JSON.
    """
    factory = common.find_factory(env)
    about: dict[str, Any] = {"id": env, "description": _description(env, factory), "options": options_table(factory)}
    try:
        world = common.make_env(env, common.pairs(option))
    except UsageError as error:
        about["cannot_be_made"] = str(error)
    else:
        try:
            about |= _inside(world)
        finally:
            world.close()
    if json:
        common.print_json(about)
    else:
        _show(about, common.console())
    if "cannot_be_made" not in about:
        return 0
    common.note(f"agentenv: {about['cannot_be_made']}")
    return 2


def check(
    env: str,
    /,
    *,
    episodes: int = 5,
    option: Options = [],  # noqa: B006
    json: Flag = False,
) -> int:
    """Test an environment against the contract, and print what was found.

    Exits with 1 where the contract is broken; warnings alone are fine.

    Args:
        env: its name, or module:attr.
        episodes: how many episodes of random play to try.
        option: an option of the environment, as key=value (TOML; a.b=1 nests). Repeatable.
        json: print JSON.
    """
    import msgspec

    from agentenv.check import check_env

    common.at_least(1, **{"--episodes": episodes})
    options = common.pairs(option)
    common.make_env(env, options).close()
    report = check_env(env, episodes=episodes, quiet=True, **options)
    if json:
        common.print_json({"ok": report.ok, **msgspec.to_builtins(report)})
    else:
        common.say(str(report))
    return 0 if report.ok else 1


def options_table(factory: Callable[..., Any]) -> list[dict[str, Any]]:
    """The options of an environment's function: name, type, default and what the docstring says."""
    from docstring_parser import parse

    from agentenv.registry import options_of

    said = {item.arg_name: " ".join((item.description or "").split()) for item in parse(factory.__doc__ or "").params}
    rows = []
    for name, parameter in options_of(factory).items():
        if parameter.kind is parameter.VAR_KEYWORD:
            rows.append({"name": f"**{name}", "type": _type(parameter), "required": False, "about": said.get(name, "")})
            continue
        row: dict[str, Any] = {"name": name, "type": _type(parameter), "required": parameter.default is parameter.empty}
        if parameter.default is not parameter.empty:
            row["default"] = parameter.default
        rows.append({**row, "about": said.get(name, "")})
    return rows


def _type(parameter: inspect.Parameter) -> str:
    kind = parameter.annotation
    if kind is parameter.empty:
        return ""
    return kind if isinstance(kind, str) else inspect.formatannotation(kind)


def _description(env: str, factory: Callable[..., Any]) -> str:
    from docstring_parser import parse

    from agentenv.registry import registrations

    doc = parse(factory.__doc__ or "")
    said = "\n\n".join(text for text in (doc.short_description, doc.long_description) if text)
    known = registrations().get(env.removeprefix("agentenv/").removesuffix("-v0"))
    return said or (known.description if known else "")


def _inside(env: Env) -> dict[str, Any]:
    import msgspec

    spec = env.env_spec
    if env.tasks.size == 0:
        common.note_skipped(env)
        raise UsageError(f"the environment's set of tasks ({env.tasks.name}) is empty")
    limits = {name: getattr(spec.limits, name) for name in spec.limits.__struct_fields__}
    return {
        "version": spec.version,
        "hash": spec.hash,
        "tools": [msgspec.to_builtins(tool) for tool in spec.tools],
        "dialect": spec.dialect,
        "limits": {name: value for name, value in limits.items() if value not in (None, {}, 0)},
        "frame": spec.frame,
        "rubric": list(spec.rubric),
        "tasks": {"name": env.tasks.name, "count": env.tasks.size},
        "sample": _sample(env),
        **common.skipped(env),
    }


def _sample(env: Env) -> dict[str, Any]:
    task = env.tasks[0]
    messages = env.start(task).messages
    tables = [{"name": item.name, "columns": list(item.columns), "rows": len(item.rows)} for item in task.tables]
    return {
        "id": task.id,
        "messages": [{"role": message.role, "text": message.text} for message in messages],
        "tables": tables,
        "answer": task.answer,
    }


def _show(about: dict[str, Any], out: Console) -> None:
    heading = f"{about['id']}  (version {about['version']}, spec {about['hash']})" if "hash" in about else about["id"]
    out.print(_plain(heading), style="bold")
    out.print(_plain(about["description"]) + "\n", markup=False)
    _show_options(about["options"], out)
    if "cannot_be_made" in about:
        return
    for tool in about["tools"]:
        _show_tool(tool, out)
    facts = {
        "dialect": about["dialect"],
        "limits": ", ".join(f"{name}={value}" for name, value in about["limits"].items()),
        "reward": "; ".join(_component(item) for item in about["rubric"]),
        "tasks": f"{about['tasks']['name']}, {about['tasks']['count'] or 'endless'}",
    }
    for name, value in facts.items():
        out.print(f"[bold]{name}[/bold]  {_plain(value)}")
    if about["skipped"]:
        rows = "".join(f"\n  {row}" for row in about["skipped_rows"])
        out.print(f"[bold]skipped[/bold]  {common.plural(about['skipped'], 'row')} of the data set{_plain(rows)}")
    out.print(f"\n[bold]sample task[/bold] {_plain(about['sample']['id'])}")
    for message in about["sample"]["messages"]:
        out.print(f"[dim]\\[{message['role']}][/dim]\n{_plain(message['text'])}")
    out.print(f"[dim]\\[reference answer][/dim]\n{_plain(about['sample']['answer'])}")


def _show_options(options: list[dict[str, Any]], out: Console) -> None:
    if not options:
        return
    shown = common.table("option (-o)", "type", "default", "about")
    for item in options:
        default = "(required)" if item["required"] else repr(item["default"]) if "default" in item else ""
        shown.add_row(*(_plain(text) for text in (item["name"], item["type"], default, item["about"])))
    out.print(shown)


def _show_tool(tool: dict[str, Any], out: Console) -> None:
    out.print(f"[bold]tool[/bold]  {_plain(tool['name'])}: {_plain(tool['description'])}")
    required = tool["parameters"].get("required", [])
    for name, schema in tool["parameters"].get("properties", {}).items():
        kind = schema.get("type") or "/".join(str(s.get("type", "any")) for s in schema.get("anyOf", [])) or "any"
        default = "" if name in required else f", default {schema.get('default')!r}"
        out.print(_plain(f"      {name} ({kind}{default}): {schema.get('description', '')}"), soft_wrap=True)
    out.print()


def _component(item: dict[str, Any]) -> str:
    gate = f", if {item['gate']}" if item["gate"] else ""
    return f"{item['name']} (weight {item['weight']:g}{gate})"


def _plain(value: Any) -> str:
    from rich.markup import escape

    return escape(common.printable(str(value)))
