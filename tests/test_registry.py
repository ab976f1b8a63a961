from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentenv.env import Env
from agentenv.errors import ConfigError, UnknownNameError, UsageError
from agentenv.registry import Registration, load_object, make, options_of, register, registrations
from agentenv.spec import Limits
from agentenv.trajectory import Trajectory
from tests.conftest import ROOT
from tests.playing import answer, last
from tests.worlds import sums


def small(size: int = 3, dialect: str = "hermes", limits: Limits | None = None) -> Env:
    """A function that takes no other options."""
    return sums(size, dialect=dialect, limits=limits)


def fresh(name: str, **fields: Any) -> Registration:
    made = Registration(f"tests-{name}", f"{__name__}:small", **fields)
    register(made)
    return made


@pytest.mark.parametrize("name", ["tabel", "agentenv/tabel-v0", "Table", "tables"])
def test_an_unknown_environment_names_the_nearest(name: str) -> None:
    with pytest.raises(UnknownNameError, match='did you mean "table"'):
        make(name)


def test_a_registered_environment_is_made_by_its_name() -> None:
    made = fresh("plain", description="for tests", kwargs={"size": 5})
    assert registrations()["tests-plain"] is made
    for name in ("tests-plain", "agentenv/tests-plain-v0", "agentenv/tests-plain"):
        env = make(name)
        assert len(env.tasks) == 5
        assert env.env_spec.id == "tests-plain"
    assert len(make("tests-plain", size=2).tasks) == 2


def test_a_name_stands_for_one_thing() -> None:
    made = fresh("taken")
    register(made)
    with pytest.raises(UsageError, match="taken by"):
        register(Registration("tests-taken", "other:thing"))
    with pytest.raises(UsageError, match="module:attr"):
        register(Registration("tests-wrong", "no.colon"))
    assert "tests-wrong" not in registrations()


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no option 'sise'.*did you mean \"size\""):
        make(f"{__name__}:small", sise=3)
    assert list(options_of(small)) == ["size", "dialect", "limits"]
    assert make("tests.worlds:sums", size=2, system="x").env_spec.system == "x", "a function that takes any option"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("no_such_module:x", "no module 'no_such_module'"),
        ("agentenv.no_such:x", "no module 'agentenv.no_such'"),
        ("agentenv.env:NoSuch", "has no 'NoSuch'"),
        ("agentenv.env:Env.nothing", "has no 'Env.nothing'"),
        (":x", "module:attr"),
        ("agentenv.env:", "module:attr"),
        (".env:Env", "module:attr"),
        ("os:sep", "not a function"),
        ("os:getcwd", "made str"),
    ],
)
def test_an_entry_point_that_leads_nowhere(path: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        make(path)


def test_a_module_that_misses_another_one_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_things.py").write_text("import needs\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="needs"):
        load_object("needs_things:env")


def test_the_spec_rebuilds_the_environment() -> None:
    fresh("again")
    limits = Limits(turns=3)
    env = make("tests-again", size=7, limits=limits)
    last(env, answer("1"))
    spec = Trajectory.from_json(env.trajectory.to_json()).env
    assert (spec.id, spec.entry_point) == ("tests-again", f"{__name__}:small")
    assert spec.kwargs == {"size": 7, "limits": {"turns": 3}}
    assert spec.hash == env.env_spec.hash == env.trajectory.env_hash
    plain = make("tests-again", size=7)
    again = make(plain.env_spec.id, **plain.env_spec.kwargs)
    assert again.env_spec.hash == plain.env_spec.hash
    assert again.env_spec == plain.env_spec


def counting(*, count: int = 1) -> Env:
    """An environment with an option of its own that is called `count`."""
    return sums(size=count)


def test_an_own_option_called_count_is_the_environments() -> None:
    three: Any = 3
    env = make("tests.test_registry:counting", count=three)
    assert len(env.tasks) == 3
    assert env.env_spec.kwargs == {"count": 3}


def test_an_option_that_is_no_data_stands_as_its_repr() -> None:
    count: Any = len
    env = make("tests.worlds:sums", size=2, count=count)
    assert env.env_spec.kwargs == {"size": 2, "count": "<built-in function len>"}


_INSTALLED = """
import agentenv
from agentenv.registry import registrations
assert registrations()["from-package"].entry_point == "their_package:world"
env = agentenv.make("from-package", size=2)
print(len(env.tasks), env.env_spec.id)
try:
    agentenv.make("from-packge")
except agentenv.UsageError as error:
    print(error)
"""


def test_installed_packages_bring_environments(tmp_path: Path) -> None:
    (tmp_path / "their_package.py").write_text("from tests.worlds import sums\ndef world(size=3): return sums(size)\n")
    info = tmp_path / "their_package-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[agentenv.envs]\nfrom-package = their_package:world\n")
    told = in_fresh_process(_INSTALLED, f"{ROOT}:{tmp_path}")
    assert told.splitlines() == [
        "2 from-package",
        "unknown environment 'from-packge'; did you mean \"from-package\"?",
    ]


_LIGHT = """
import sys, builtins
opened = []
def watch(event, args):
    if event == "open" and isinstance(args[0], str) and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        opened.append(args[0])
sys.dont_write_bytecode = True
sys.addaudithook(watch)
import agentenv
heavy = {"torch", "transformers", "pandas", "pyarrow", "duckdb", "aiohttp", "pydantic", "datasets", "rich", "cyclopts"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert not [m for m in sys.modules if m.startswith(("agentenv.tools", "agentenv.envs", "agentenv.trajectories"))]
agentenv.make; agentenv.registrations()
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert not opened, opened
import agentenv.env, agentenv.rollout, agentenv.check, agentenv.policy, agentenv.dialects
heavy -= {"pydantic"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def test_importing_it_is_light_and_leaves_no_trace() -> None:
    assert in_fresh_process(_LIGHT, str(ROOT)) == ""


def in_fresh_process(code: str, path: str) -> str:
    """What a new Python prints that runs `code`; nothing may go to its standard error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout
