"""The pandas sandbox: what it shows, how it fails, and how its worker lives and dies."""

from __future__ import annotations

import datetime
import decimal
import gc
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentenv.errors import MissingExtraError, UsageError, WorkerError
from agentenv.tools.table import _execute, _pandas_worker, confine
from agentenv.tools.table.code_outcome import CodeTable
from agentenv.tools.table.pandas_code import PandasSandbox

CITIES = {"cities": (["city", "price"], [("Rome", 3.5), ("Oslo", None), ("Rome", 1.5)])}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[PandasSandbox]:
    with PandasSandbox(max_processes=2) as sandbox:
        yield sandbox


def value(sandbox: PandasSandbox, code: str, tables: Any = CITIES) -> str:
    outcome = sandbox.run(code, tables)
    assert outcome.ok, outcome
    return outcome.value


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("1 + 1", "2"),
        ("'a'", "'a'"),
        ("None", ""),
        ("x = 1", ""),
        ("", ""),
        ("df.price.sum()", "5.0"),
        ("np.float64(2.5)", "2.5"),
        ("tables['cities'].shape", "(3, 2)"),
        ("df.groupby('city').price.mean().to_dict()", "{'Oslo': nan, 'Rome': 2.5}"),
        ("pd.Timestamp('2020-07-01', tz='Europe/Paris').utcoffset().seconds", "7200"),
        ("'é'.encode('cp1252')", "b'\\xe9'"),
        ("import statistics\nstatistics.mean([1, 2])", "1.5"),
        ("def f(n):\n    yield n\nlist(f(3))", "[3]"),
        ("class A:\n    pass\nA.__module__", "'__main__'"),
        ("df", "   city  price\n0  Rome    3.5\n1  Oslo    NaN\n2  Rome    1.5"),
        ("df.city", "0    Rome\n1    Oslo\n2    Rome\nName: city, dtype: str"),
    ],
)
def test_the_last_expression_is_shown(sandbox: PandasSandbox, code: str, shown: str) -> None:
    expected = shown if pd.__version__ >= "3" else shown.replace("dtype: str", "dtype: object")
    assert value(sandbox, code) == expected


def test_prints_and_errors_stream_are_kept_in_order(sandbox: PandasSandbox) -> None:
    outcome = sandbox.run("import sys\nprint(1)\nprint(2, file=sys.stderr)\nprint(3)\n4", CITIES)
    assert (outcome.stdout, outcome.value, outcome.ok) == ("1\n2\n3\n", "4", True)
    assert outcome.seconds > 0


@pytest.mark.parametrize(
    ("code", "kind", "error"),
    [
        ("x = (", "syntax", "SyntaxError: '(' was never closed (line 1: x = ()"),
        ("x = 1\nx +\n", "syntax", "SyntaxError: invalid syntax (line 2: x +)"),
        ("x = 1\n\nx / 0", "exception", "ZeroDivisionError: division by zero (line 3: x / 0)"),
        ("df['nope']", "exception", "KeyError: 'nope' (line 1: df['nope'])"),
        ("def f():\n    return y\nf()", "exception", "NameError: name 'y' is not defined (line 2: return y)"),
        ("raise ValueError", "exception", "ValueError (line 1: raise ValueError)"),
        ("bytearray(1 << 40)", "memory", "MemoryError (line 1: bytearray(1 << 40)); one call may use 512 MB"),
        ("import os\nos._exit(3)", "crash", "the code ended its process without giving a result"),
    ],
)
def test_errors_name_the_line(sandbox: PandasSandbox, code: str, kind: str, error: str) -> None:
    outcome = sandbox.run(code, CITIES)
    assert (outcome.ok, outcome.error_kind, outcome.error) == (False, kind, error)


def test_an_error_keeps_what_was_printed(sandbox: PandasSandbox) -> None:
    outcome = sandbox.run("print('before')\n1 / 0", CITIES)
    assert (outcome.stdout, outcome.ok) == ("before\n", False)


def test_a_missing_module_says_what_there_is(sandbox: PandasSandbox) -> None:
    error = sandbox.run("import sklearn", CITIES).error
    assert error.startswith("ModuleNotFoundError: module 'sklearn' is not available here; there are pandas, numpy")


def test_a_refusal_says_what_to_do(sandbox: PandasSandbox) -> None:
    outcome = sandbox.run("pd.read_csv('data.csv')", CITIES)
    assert outcome.error_kind == "refused"
    assert outcome.error.endswith("files, network and processes cannot be reached from here: use df and tables")


def test_exit_is_an_end_and_no_error(sandbox: PandasSandbox) -> None:
    assert sandbox.run("print(1)\nexit_ = __import__('sys').exit\nexit_()", CITIES).ok
    assert sandbox.run("import sys\nsys.exit('no')", CITIES).error.startswith("SystemExit: no")


def test_host_paths_are_not_shown(sandbox: PandasSandbox) -> None:
    outcome = sandbox.run("print(pd.__file__)\nfrom pandas import nothing", CITIES)
    assert "site-packages" not in outcome.stdout + outcome.error
    assert "<python>" in outcome.stdout
    assert "<python>" in outcome.error


def test_the_deadline_is_kept(sandbox: PandasSandbox) -> None:
    outcome = sandbox.run("while True: pass", CITIES, seconds=0.3)
    assert outcome.error == "the code was stopped after 0.3 seconds, the limit for one call"
    assert outcome.error_kind == "timeout"


def test_texts_are_cut_and_say_so() -> None:
    with PandasSandbox(output_chars=50, max_processes=1) as small:
        outcome = small.run("print('x' * 1000)\n'y' * 1000", CITIES)
        assert outcome.stdout == "x" * 50 + "\n[cut: 50 of 1001 characters shown]"
        assert outcome.value == "'" + "y" * 49 + "\n[cut: 50 of 1002 characters shown]"
        frame = small.run("pd.DataFrame({'a': range(1000)})", CITIES).value
        assert frame.endswith("characters shown]\n[shape: 1000 x 1]")


def test_long_frames_state_their_shape(sandbox: PandasSandbox) -> None:
    text = value(sandbox, "pd.DataFrame({'a': range(1000), 'b': 1})")
    assert text.endswith("[1000 rows x 2 columns]")
    assert len(text.splitlines()) < 70
    assert value(sandbox, "pd.Series(range(1000))").endswith("Length: 1000, dtype: int64")


def test_equal_calls_give_equal_results() -> None:
    code = "import random\n(random.random(), np.random.rand(), set('abcdefgh'), df.sample(1).index.tolist())"
    with PandasSandbox(max_processes=1) as one, PandasSandbox(max_processes=1) as two:
        assert len({value(one, code), value(one, code), value(two, code)}) == 1


def test_tables_arrive_as_they_are(sandbox: PandasSandbox) -> None:
    day = datetime.date(2020, 5, 1)
    columns = ["i", "i", "f", "s", "b", "big", "day", "at", "dec", "mixed", "np", "raw", "time"]
    row = (1, 2, 0.5, "é", True, 2**70, day, datetime.datetime(2020, 5, 1, 12), decimal.Decimal("1.5"))
    row_1 = (*row, "x", np.int64(7), b"raw", datetime.time(1))
    row_2 = (2, 3, float("nan"), None, False, 1, None, None, None, 1, 8, b"", None)
    code = "(list(df.columns), df.iloc[0].tolist(), [str(t) for t in df.dtypes])"
    out = value(sandbox, code, {"t": (columns, [row_1, row_2])})
    assert "['i', 'i', 'f', 's', 'b', 'big', 'day', 'at', 'dec', 'mixed', 'np', 'raw', 'time']" in out
    assert "1180591620717411303424" in out
    assert out.count("datetime64") == 2
    small = (["i", "raw", "dec"], [(1, b"raw", decimal.Decimal("1.5"))])
    assert value(sandbox, "df.iloc[0].to_dict()", {"t": small}) == "{'i': 1, 'raw': b'raw', 'dec': 1.5}"


def test_odd_tables(sandbox: PandasSandbox) -> None:
    assert value(sandbox, "df is None, tables", {}) == "(True, {})"
    assert value(sandbox, "df.shape", {"t": ([], [])}) == "(0, 0)"
    assert value(sandbox, "df.shape, list(df)", {"t": (["a", "b"], [])}) == "((0, 2), ['a', 'b'])"
    zones = [(datetime.datetime(2020, 1, 1),), (datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),)]
    assert (
        value(sandbox, "df.a.tolist()", {"t": (["a"], zones)}) == "['2020-01-01T00:00:00', '2020-01-01T00:00:00+00:00']"
    )
    with pytest.raises(UsageError, match="as many values"):
        sandbox.run("1", {"t": (["a", "b"], [(1, 2), (1,)])})


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(), st.text(), st.floats(), st.booleans()), max_size=20))
def test_packed_tables_come_out_equal(rows: list[tuple[Any, ...]]) -> None:
    columns = ["i", "s", "f", "b"]
    clean = [(i, s.encode("utf-8", "replace").decode(), f, b) for i, s, f, b in rows]
    frame = _execute.frame(_pandas_worker.pack(columns, clean))
    assert list(frame.columns) == columns
    values: list[Any] = list(zip(*clean, strict=True)) or [[]] * 4
    expected = pd.DataFrame(dict(zip(columns, values, strict=True)))
    assert frame.astype(object).equals(expected.astype(object))


def test_many_threads_each_get_their_own_answer(sandbox: PandasSandbox) -> None:
    def call(n: int) -> str:
        return value(sandbox, f"df.n.sum() + {n}", {"t": (["n"], [(n % 5,)])})

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(call, range(60))) == [str(n % 5 + n) for n in range(60)]


def test_a_table_with_a_key_is_sent_once(sandbox: PandasSandbox) -> None:
    class Rows(list[Any]):
        read = 0

        def __iter__(self) -> Iterator[Any]:
            Rows.read += 1
            return super().__iter__()

    table = CodeTable(["a"], Rows([(1,), (2,)]), key="sha-of-it")
    for _ in range(3):
        assert value(sandbox, "df.a.sum()", {"t": table}) == "3"
    assert 0 < Rows.read <= 2


def test_tables_leave_the_worker_when_it_holds_too_much() -> None:
    with PandasSandbox(max_processes=1, cache_mb=1) as small:
        for n in range(6):
            assert value(small, "int(df.a.sum())", {"t": (["a"], [(n + 1_000_000,)] * 100_000)}) == str(
                (n + 1_000_000) * 100_000
            )
        assert small._worker is not None
        assert len(small._worker._held) <= 3


def test_a_killed_worker_is_replaced(sandbox: PandasSandbox) -> None:
    value(sandbox, "1")
    first = sandbox._worker
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    first._process.wait()
    assert value(sandbox, "2") == "2"
    assert sandbox._worker is not first


def test_a_worker_killed_under_a_call_is_replaced() -> None:
    with PandasSandbox(max_processes=2) as sandbox, ThreadPoolExecutor(1) as pool:
        sandbox._bwrap = ""  # so that the process to kill is the worker, not a bubblewrap around it
        value(sandbox, "1")
        assert sandbox._worker is not None
        slow = pool.submit(sandbox.run, "import time\ntime.sleep(0.8)\n'done'", CITIES)
        time.sleep(0.3)
        os.kill(sandbox._worker.pid, signal.SIGKILL)
        assert slow.result().value == "'done'"


def test_a_worker_that_always_dies_is_an_infrastructure_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(self: _pandas_worker.Worker, request: Any, tables: Any) -> Any:
        self._process.kill()
        self._process.wait()
        return start(self, request, tables)

    start = _pandas_worker.Worker.start
    monkeypatch.setattr(_pandas_worker.Worker, "start", dead)
    with PandasSandbox(max_processes=1) as sandbox:
        sandbox._bwrap = ""
        with pytest.raises(WorkerError, match="twice in a row"):
            sandbox.run("1", CITIES)


def test_close_can_be_followed_by_more_calls() -> None:
    sandbox = PandasSandbox(max_processes=1)
    sandbox.close()
    assert value(sandbox, "1") == "1"
    worker = sandbox._worker
    sandbox.close()
    assert worker is not None
    assert worker._process.returncode == 0
    assert value(sandbox, "2") == "2"
    sandbox.close()


def test_a_dropped_sandbox_takes_its_worker_along() -> None:
    sandbox = PandasSandbox(max_processes=1)
    value(sandbox, "1")
    worker = sandbox._worker
    assert worker is not None
    del sandbox
    gc.collect()
    assert worker._process.poll() is not None


def test_a_forked_host_starts_its_own_worker() -> None:
    code = """
        import os
        from agentenv.tools.table.pandas_code import PandasSandbox
        sandbox = PandasSandbox(max_processes=1)
        print(sandbox.run("1", {}).value, flush=True)
        if os.fork() == 0:
            print(sandbox.run("2", {}).value, flush=True)
            sandbox.close()
            os._exit(0)
        os.wait()
        print(sandbox.run("3", {}).value, sandbox._worker.alive(), flush=True)
    """
    assert host(code).stdout.split() == ["1", "2", "3", "True"]


def test_nothing_is_left_when_the_host_is_killed() -> None:
    code = """
        import os, threading, time
        from agentenv.tools.table.pandas_code import PandasSandbox
        sandbox = PandasSandbox(max_processes=2, seconds=60)
        sandbox.run("1", {})
        print(sandbox._worker.pid, flush=True)
        threading.Thread(target=sandbox.run, args=("while True: pass", {})).start()
        time.sleep(0.5)
        print(*[int(p) for p in os.listdir("/proc") if p.isdigit() and mine(p)], flush=True)
        os.kill(os.getpid(), 9)
    """
    helper = """
        def mine(pid):
            try:
                return b"_zygote.py" in open(f"/proc/{pid}/cmdline", "rb").read() and ppid(pid) in (me, worker())
            except OSError:
                return False
        def ppid(pid):
            return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
        def worker():
            return sandbox._worker.pid
        import os
        me = os.getpid()
    """
    lines = host(textwrap.dedent(helper) + textwrap.dedent(code)).stdout.splitlines()
    pids = {int(pid) for line in lines for pid in line.split()}
    assert len(pids) >= 2
    for _ in range(100):
        if not any(_runs(pid) for pid in pids):
            return
        time.sleep(0.05)
    pytest.fail("something outlived the host")


def test_an_interpreter_that_ends_without_close_ends_quietly() -> None:
    code = """
        from agentenv.tools.table.pandas_code import PandasSandbox
        sandbox = PandasSandbox()
        print(sandbox.run("1", {}).value)
    """
    done = host(code)
    assert (done.stdout.split(), done.stderr, done.returncode) == (["1"], "", 0)


def host(code: str) -> subprocess.CompletedProcess[str]:
    """Run code as a host process of its own, warnings as errors."""
    root = Path(confine.__file__).resolve().parents[2]
    words = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    return subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=120)


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_pandas_that_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "pandas" else real(name, *a))
    with pytest.raises(MissingExtraError, match=r"agentenv-gym\[table\]"):
        PandasSandbox()


@pytest.mark.parametrize("wrong", [{"memory_mb": 0}, {"seconds": -1.0}, {"output_chars": 0}, {"max_processes": 0}])
def test_limits_must_be_above_zero(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        PandasSandbox(**wrong)


@pytest.fixture
def bare_host(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = confine.Capabilities("5.4", 0, False, False, "", 0, ("Landlock is off",))
    monkeypatch.setattr(confine, "probe", lambda: bare)


@pytest.mark.usefixtures("bare_host")
def test_a_host_with_too_little_is_refused() -> None:
    with pytest.raises(UsageError, match=r"(?s)Landlock: missing.*allow_unconfined=True"):
        PandasSandbox()


@pytest.mark.usefixtures("bare_host")
def test_a_host_with_too_little_may_be_allowed() -> None:
    with PandasSandbox(allow_unconfined=True, memory_mb=128) as sandbox:
        assert value(sandbox, "df.price.sum()") == "5.0"
        assert sandbox.run("bytearray(1 << 30)", CITIES).error_kind == "memory"
        assert sandbox.run("while True: pass", CITIES, seconds=0.3).error_kind == "timeout"


def test_what_a_child_said_of_itself_counts_though_its_end_was_reported_too() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(b'{"error": "OSError: no"}\n{"timeout": false, "exit": 1}\n')
    theirs.close()
    status = _pandas_worker.Leash(ours).settle(1.0)
    assert status is not None
    assert status.error == "OSError: no"


def test_a_layer_that_does_not_apply_stops_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    promised = confine.probe()._replace(bwrap="")
    monkeypatch.setattr(confine, "probe", lambda: promised)
    with PandasSandbox(max_processes=1) as sandbox:
        sandbox._preload = ["no_such_module_here"]
        with pytest.raises(WorkerError, match="did not start: ModuleNotFoundError"):
            sandbox.run("1", CITIES)
        sandbox._preload = ["threading"]
        sandbox._layers = (*sandbox._layers, "magic")
        with pytest.raises(WorkerError, match=r"could not confine a call.*magic"):
            sandbox.run("print('ran')", CITIES)


SPOIL = """
import os
for {again}:
    for n in range(3, 9):
        try: os.write(n, {text})
        except OSError: pass
os._exit(0)
"""


def test_a_broken_answer_is_a_crash_of_the_code(sandbox: PandasSandbox) -> None:
    outcome = sandbox.run(
        "import os\nfor n in range(3, 9):\n    try: os.write(n, b'{\"a\"')\n    except OSError: pass\nos._exit(0)",
        CITIES,
    )
    assert outcome.error_kind == "crash"


def test_an_answer_without_end_is_cut_off() -> None:
    with PandasSandbox(output_chars=10, max_processes=1) as sandbox:
        outcome = sandbox.run(SPOIL.format(again="_ in iter(int, 1)", text="b'x' * 60000"), CITIES, seconds=20)
        assert (outcome.error_kind, outcome.seconds < 10) == ("crash", True)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (_pandas_worker.Status(timeout=True, exit=-9), "timeout"),
        (_pandas_worker.Status(exit=-9), "memory"),
        (_pandas_worker.Status(exit=-31), "refused"),
        (_pandas_worker.Status(exit=-11), "crash"),
        (_pandas_worker.Status(exit=0), "crash"),
    ],
)
def test_deaths_are_told_apart(status: _pandas_worker.Status, kind: str) -> None:
    from agentenv.tools.table.pandas_code import _death

    assert _death(status, 1.0, 512)[0] == kind


def test_the_run_itself_in_this_process() -> None:
    """What happens in the child, where coverage cannot look."""
    tables = {"t": pd.DataFrame({"a": [1, 2]})}
    assert _execute._run("df.a.sum()", tables, 99)["value"] == "3"
    assert _execute._run("x = (", tables, 99)["kind"] == "syntax"
    assert _execute._run("raise SystemExit", tables, 99)["kind"] == ""
    assert _execute._run("raise SystemExit(1)", tables, 99)["kind"] == "exception"
    assert _execute._run("class E(Exception):\n    def __str__(self): 1 / 0\nraise E", tables, 99)["error"].startswith(
        "E: (its"
    )
    assert _execute._show(None, 9) == ""
    assert _execute._show(tables["t"], 5).endswith("[shape: 2 x 1]")
    capture = _execute._Capture(5)
    assert (capture.write("123"), capture.write("4567"), capture.write("8"), capture.writable()) == (3, 4, 1, True)
    assert capture.text() == "12345\n[cut: 5 of 8 characters shown]"
    assert _execute._clean("a\ud800") == "a?"
    with pytest.raises(ModuleNotFoundError, match="not available"):
        _execute._Refusal.find_spec("x")
    assert msgspec.json.encode(_execute._reply())


def test_where_python_lies_is_not_shown(sandbox: PandasSandbox) -> None:
    outcome = sandbox.run("import site, sys; print(site.getsitepackages(), sys.prefix, sys.executable)", {})
    assert outcome.ok
    assert sys.prefix.count("/") == 1 or sys.prefix not in outcome.stdout
