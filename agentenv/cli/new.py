"""`agentenv new env`: a working environment to start from."""

from __future__ import annotations

import keyword
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Annotated

from cyclopts import App, Parameter

from agentenv.cli import common
from agentenv.errors import UsageError
from agentenv.registry import BUILT_IN

app = App(name="new", help="Write a new environment with its test.", default_parameter=Parameter(show_default=False))


@app.command(name="env")
def new_env(name: str, /, *, dir: Annotated[Path, Parameter()] = Path()) -> None:
    """Write a working environment and its test, to be changed into your own.

    Writes NAME.py and test_NAME.py, and overwrites nothing.

    For example:

    ```
    agentenv new env my_env
    agentenv check my_env:my_env
    python -m pytest test_my_env.py
    ```

    Args:
        name: its name, which is also that of its module and of its function.
        dir: the folder; made if need be.
    """
    module = _module_name(name)
    written = {dir / f"{module}.py": "env.py.tmpl", dir / f"test_{module}.py": "test_env.py.tmpl"}
    for path in written:
        if path.exists():
            raise UsageError(f"{path} is there already; choose another name or another --dir")
    _refuse_taken(module)
    common.usable_folder(dir)
    dir.mkdir(parents=True, exist_ok=True)
    for path, template in written.items():
        text = (files("agentenv.cli") / "scaffold" / template).read_text(encoding="utf-8")
        path.write_text(Template(text).substitute(name=module), encoding="utf-8")
        common.say(f"wrote {path}")
    _next_steps(module, dir)


def _module_name(name: str) -> str:
    module = name.replace("-", "_")
    if not module.isidentifier() or keyword.iskeyword(module) or not module.isascii():
        raise UsageError(f"{name!r} cannot be the name of a Python module; take letters, digits and underscores")
    return module


def _refuse_taken(module: str) -> None:
    if module in BUILT_IN or module.replace("_", "-") in BUILT_IN:
        raise UsageError(f"{module!r} is the name of an environment that comes with agentenv; choose another one")
    if find_spec(module) is not None:
        raise UsageError(f"{module!r} is the name of an installed module, which yours would hide; choose another one")


def _next_steps(module: str, folder: Path) -> None:
    common.say("\nTry it" + ("" if folder == Path() else f" (in {folder})") + ":")
    common.say(f"  agentenv check {module}:{module}")
    common.say(f"  agentenv play {module}:{module}")
    common.say(f"  python -m pytest test_{module}.py")
    common.say(f"To make it known as {module!r} wherever your package is installed, put into its pyproject.toml:")
    common.say(f'  [project.entry-points."agentenv.envs"]\n  {module} = "{module}:{module}"')
