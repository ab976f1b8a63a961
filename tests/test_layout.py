"""The house as DESIGN fixes it: what stands at the top, where the links lead, how long a file may be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

ROOMS = ("tools", "envs", "trajectories")
TOP = {"pyproject.toml", "agentenv", *ROOMS, "tests", "README.md"}
BESIDE = {".ci", "Makefile", "uv.lock", "LICENSE", "CHANGELOG.md", ".gitignore", ".github"}
HOME = ("agentenv", *ROOMS)
LONGEST, LONGEST_TEST, LONGEST_FUNCTION = 400, 600, 60


def sources(*rooms: str) -> Iterator[Path]:
    """The Python files of the rooms, each once: links are not followed."""
    for room in rooms:
        for path in sorted((ROOT / room).rglob("*.py")):
            if not any((ROOT / p).is_symlink() for p in path.relative_to(ROOT).parents):
                yield path


def tracked() -> set[str]:
    """What stands at the top of the repository, in so far as git knows or would take it."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {line.split("/", 1)[0] for line in names.splitlines()}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="an unpacked sdist has no git")
def test_the_top_level_is_fixed() -> None:
    top = tracked()
    assert top <= TOP | BESIDE
    assert top >= TOP


@pytest.mark.parametrize("room", ROOMS)
def test_the_links_lead_to_the_rooms(room: str) -> None:
    link = ROOT / "agentenv" / room
    assert link.is_symlink()
    assert link.readlink() == Path("..") / room
    assert link.resolve() == ROOT / room
    assert (ROOT / room / "__init__.py").is_file()
    assert (ROOT / room / "README.md").is_file()


def test_rooms_import_by_their_long_name_only() -> None:
    short = re.compile(r"^\s*(?:from|import) (tools|envs|trajectories)\b", re.MULTILINE)
    assert [p for p in sources(*HOME, "tests") if short.search(p.read_text())] == []


@pytest.mark.parametrize("path", [*sources(*HOME, "tests")], ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= (LONGEST_TEST if path.is_relative_to(ROOT / "tests") else LONGEST)
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert {f.name: size for f in functions if (size := _length(f)) > LONGEST_FUNCTION} == {}


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of its body, the docstring left out."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", [*sources(*HOME)], ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_prints_and_nothing_is_left_to_do(path: Path) -> None:
    tree = ast.parse(path.read_text())
    called = [n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    assert "print" not in called
    assert "breakpoint" not in called
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", path.read_text())
    assert not re.search(r"#\s*type:\s*ignore(?!\[)", path.read_text())
    assert not re.search(r"\b(/root|/home/\w+|/work)/", path.read_text()), "a path of some machine"


def test_the_ground_floor_imports_no_room() -> None:
    allowed = {"agentenv/__init__.py"}  # the command line and the trainers' adapters stand above the rooms
    into = re.compile(r"^(?:from|import) agentenv\.(?:tools|envs|trajectories)\b", re.MULTILINE)
    for path in sources("agentenv"):
        name = str(path.relative_to(ROOT))
        if name not in allowed and not name.startswith(("agentenv/cli/", "agentenv/trainers/")):
            assert not into.search(path.read_text()), name


def test_tools_and_trajectories_do_not_know_each_other() -> None:
    for room, other in (("tools", "trajectories"), ("trajectories", "tools")):
        assert [p for p in sources(room) if f"agentenv.{other}" in p.read_text()] == []


def test_it_says_that_it_is_typed() -> None:
    assert (ROOT / "agentenv" / "py.typed").exists()
    assert sys.version_info >= (3, 11)
