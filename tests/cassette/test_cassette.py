"""Recording and replaying in one process."""

from __future__ import annotations

import asyncio
import logging
import pickle
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import agentenv
from agentenv.cassette import Cassette, CassetteMiss, Shelf, lint, open_cassette
from agentenv.cassette.keys import asked, plain
from agentenv.errors import ConfigError, InfrastructureError, StoreError, ToolErrorKind, UsageError
from agentenv.tool import Bound, tool
from agentenv.trajectories.run import Run
from agentenv.types import Table, ToolCall, ToolResult
from tests.cassette.oracle import Oracle, asking

CALL = '<tool_call>{"name": "look_up", "arguments": {"query": "q"}}</tool_call>'


def seen(run: Run) -> list[list[str]]:
    ordered = sorted(run, key=lambda record: (record.task.id, record.group.index))
    return [[message.text for message in record.messages] for record in ordered]


def tells(run: Run) -> list[str]:
    return [tool_run.cache for record in run for tool_run in record.tool_runs]


def played(oracle: Oracle, tape: Path | Cassette, mode: str = "cache", *queries: str, **options: Any) -> Run:
    policy = asking(*(queries or ("about {}", "about {}", "more on {}")))
    return agentenv.rollout(oracle.world(), policy, group=4, cassette=tape, cassette_mode=mode, **options)


def test_a_replay_gives_every_episode_the_bytes_that_it_was_given(tmp_path: Path) -> None:
    oracle = Oracle(0.001)
    recorded = played(oracle, tmp_path / "tape", "record")
    assert len(oracle.asked) == 3 * 4 * 3
    assert set(tells(recorded)) == {"record"}
    assert len({text for texts in seen(recorded) for text in texts[2:] if "answer" in text}) > 12
    again = Oracle()
    replayed = played(again, tmp_path / "tape", "replay", concurrency=5)
    assert again.asked == []
    assert seen(replayed) == seen(recorded)
    assert set(tells(replayed)) == {"replay"}


def test_a_cache_asks_once_for_a_whole_group_and_its_run_can_be_replayed(tmp_path: Path) -> None:
    oracle = Oracle(0.02)
    first = played(oracle, tmp_path / "tape")
    assert sorted(oracle.asked) == sorted(["about 0", "about 1", "about 2", "more on 0", "more on 1", "more on 2"])
    assert tells(first).count("miss") == 6
    assert tells(first).count("hit") == 30
    assert seen(played(Oracle(), tmp_path / "tape", "replay")) == seen(first)


def test_what_is_too_old_is_asked_for_again_and_the_replay_still_agrees(tmp_path: Path) -> None:
    with Cassette(tmp_path / "tape", "cache", max_age=0.0) as tape:
        recorded = played(Oracle(), tape)
    assert set(tells(recorded)) == {"miss"}
    with Cassette(tmp_path / "tape", "cache", max_age=60.0) as tape:
        assert set(tells(played(Oracle(), tape, seed=9))) == {"hit"}
    assert seen(played(Oracle(), tmp_path / "tape", "replay")) == seen(recorded)
    late = played(Oracle(), tmp_path / "tape", "replay", seed=9)
    assert {text for texts in seen(late) for text in texts} <= {text for texts in seen(recorded) for text in texts}


def test_a_miss_in_a_replay_ends_the_episode_unscored_and_says_what_is_missing(tmp_path: Path) -> None:
    played(Oracle(), tmp_path / "tape", "record", "about {}")
    with pytest.raises(agentenv.AgentEnvError, match=r"holds no answer to look_up .*about 0\?.*nearest.*about 0"):
        played(Oracle(), tmp_path / "tape", "replay", "about {}?", concurrency=1)
    run = agentenv.rollout(
        Oracle().world(), asking("entirely else"), tasks=1, cassette=tmp_path / "tape", cassette_mode="replay"
    )
    assert (run[0].stop_reason, run[0].reward) == ("env_error", None)
    assert run[0].outcome
    assert run[0].outcome.error
    assert "nearest" not in run[0].outcome.error.message
    miss = CassetteMiss("t", "{}", "{1}")
    assert str(pickle.loads(pickle.dumps(miss))) == str(miss)


def test_a_miss_can_be_told_to_the_policy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    played(Oracle(), tmp_path / "tape", "record", "about {}")
    with Cassette(tmp_path / "tape", "replay", on_miss="tell") as tape, caplog.at_level(logging.WARNING, "agentenv"):
        run = played(Oracle(), tape, "replay", "else")
    assert set(tells(run)) == {"missing"}
    assert "cannot be looked up now" in run[0].messages[-2].text
    assert "holds no answer" in caplog.text
    assert tape.stats == {"missing": 12}


def test_verify_tells_what_has_changed_and_shows_what_is_kept(tmp_path: Path) -> None:
    recorded = played(Oracle(), tmp_path / "tape", "record", "about {}")
    other = Oracle()
    next(other.numbers)
    changed = played(other, tmp_path / "tape", "verify", "about {}")
    assert "changed" in tells(changed)
    assert seen(changed) == seen(recorded)
    steady = agentenv.rollout(
        "tests.worlds:sums", "reference", tasks=1, cassette=tmp_path / "s", cassette_mode="record"
    )
    same = agentenv.rollout("tests.worlds:sums", "reference", tasks=2, cassette=tmp_path / "s", cassette_mode="verify")
    assert tells(steady) == ["record"] * 4
    assert tells(same) == ["verified"] * 4 + ["unverified"] * 4


def test_errors_that_may_pass_are_kept_for_the_replay_alone(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    recorded = played(Oracle(fail=ToolErrorKind.UNAVAILABLE), tape, "record", "about {}")
    assert seen(played(Oracle(), tape, "replay", "about {}")) == seen(recorded)
    well = Oracle()
    cached = played(well, tape, "cache", "about {}")
    assert len(well.asked) == 3
    assert "answer" in cached[0].messages[-2].text


def test_a_group_does_not_wait_for_a_dead_server_one_after_the_other(tmp_path: Path) -> None:
    dead = Oracle(0.05, fail=ToolErrorKind.TIMEOUT)
    run = played(dead, tmp_path / "tape", "cache", "about {}")
    assert len(dead.asked) == 3, "once for each group of four"
    assert sorted(tells(run)) == ["hit"] * 9 + ["miss"] * 3
    assert seen(played(Oracle(), tmp_path / "tape", "replay", "about {}")) == seen(run)


def test_an_engine_that_is_out_of_reach_fails_all_who_wait_for_it(tmp_path: Path) -> None:
    asked: list[str] = []

    @tool
    async def look_up(query: str) -> str:
        """Look up.

        Args:
            query: what.
        """
        asked.append(query)
        await asyncio.sleep(0.02)
        raise InfrastructureError("out of reach")

    with Cassette(tmp_path / "tape") as tape:
        call = ToolCall("1", "look_up", "{}", {"query": "q"})

        async def all_at_once() -> list[Any]:
            return await asyncio.gather(*(tape.arun(look_up, call, {}) for _ in range(5)), return_exceptions=True)

        assert [str(result) for result in asyncio.run(all_at_once())] == ["out of reach"] * 5
        assert asked == ["q"]
        asyncio.run(all_at_once())
        assert asked == ["q", "q"], "who comes later asks again"
        assert list(tape.shelf.all()) == []


def test_plain_data_that_a_tool_is_bound_to_is_part_of_the_question(tmp_path: Path) -> None:
    @tool
    async def summary(query: str, question: Bound[str]) -> str:
        """Sum up.

        Args:
            query: what.
            question: bound.
        """
        return f"{query} for {question}"

    world = Oracle().world(2, tools=[summary], bind=lambda task: {"question": task.id})
    run = agentenv.rollout(world, asking("q", name="summary"), group=2, cassette=tmp_path / "tape")
    assert sorted(tells(run)) == ["hit", "hit", "miss", "miss"]
    assert len({record.messages[-2].text for record in run}) == 2


async def test_two_cassettes_of_one_folder_wait_for_each_other(tmp_path: Path) -> None:
    oracle = Oracle(0.05)
    call = ToolCall("1", "look_up", "{}", {"query": "q"})
    with Cassette(tmp_path / "tape") as one, Cassette(tmp_path / "tape") as two:
        results = await asyncio.gather(*(tape.arun(oracle.tool(), call, {}) for tape in (one, two, one, two)))
    assert oracle.asked == ["q"]
    assert sorted(result.cache for result in results) == ["hit", "hit", "hit", "miss"]


def test_a_file_that_breaks_is_the_infrastructures_fault(tmp_path: Path) -> None:
    with Cassette(tmp_path / "tape") as tape:
        connection = sqlite3.connect(tmp_path / "tape" / "cassette.sqlite")
        connection.execute("DROP TABLE recordings")
        connection.close()
        with pytest.raises(StoreError, match="failed"):
            tape.shelf.newest("0" * 64)
        with pytest.raises(StoreError, match="failed"):
            tape.shelf.add(asked(Oracle().tool(), ToolCall("1", "look_up", "{}", {"query": "q"}), {}, None),
                           ToolResult("1", "look_up", ()), lasting=True)  # fmt: skip


def test_lasting_errors_are_cached_for_a_while(tmp_path: Path) -> None:
    failing = Oracle(fail=ToolErrorKind.FAILED)
    played(failing, tmp_path / "tape", "cache", "about {}")
    assert len(failing.asked) == 3
    with Cassette(tmp_path / "tape", "cache", error_age=0.0) as tape:
        played(failing, tape, "cache", "about {}")
    assert len(failing.asked) > 3


@pytest.mark.parametrize(("repeat", "expected"), [("first", [1, 1, 1]), ("sequence", [1, 2, 2]), ("sample", None)])
def test_who_was_not_recorded_is_answered_by_the_repeat_policy(
    tmp_path: Path, repeat: str, expected: list[int] | None
) -> None:
    with Cassette(tmp_path / "tape", "record") as tape:
        one = Oracle().world(1).use_cassette(tape)
        one.reset(seed=0)
        for _ in range(2):
            one.step(CALL)
    with Cassette(tmp_path / "tape", "replay", repeat=repeat) as tape:
        other = Oracle().world(1).use_cassette(tape)
        other.reset(seed=1)
        shown = [other.step(CALL).observation.messages[-1].text for _ in range(3)]
        numbers = [int(text.split("answer ")[1].split()[0]) for text in shown]
        assert numbers == expected if expected else set(numbers) <= {1, 2}
        with pytest.raises(CassetteMiss):
            other.step(CALL.replace('"q"', '"else"'))


def test_arguments_are_compared_as_the_tool_understands_them(tmp_path: Path) -> None:
    oracle = Oracle()
    with Cassette(tmp_path / "tape") as tape:
        env = oracle.world().use_cassette(tape)
        env.reset(seed=0)
        for arguments in ('{"query": "q"}', '{"k": 3, "query": "q"}', '{"k": 3.0, "query": "q"}', '{"query": 5}', "{}"):
            env.step(f'<tool_call>{{"name": "look_up", "arguments": {arguments}}}</tool_call>')
    assert oracle.asked == ["q"]
    assert [run.error_kind for run in env.trajectory.tool_runs] == [None] * 3 + ["invalid_arguments"] * 2


def test_tools_that_are_not_named_go_past_the_cassette(tmp_path: Path) -> None:
    with Cassette(tmp_path / "tape", tools=["another"]) as tape:
        assert set(tells(played(Oracle(), tape))) == {""}
    with Cassette(tmp_path / "tape", "live") as live:
        assert set(tells(played(Oracle(), live))) == {""}


class Notebook:
    """Something with a state."""

    def __init__(self) -> None:
        self.pages: list[str] = []


@tool(timeout=5.0)
def note(query: str, notebook: Bound[Notebook]) -> str:
    """Write something down.

    Args:
        query: what.
        notebook: where.
    """
    notebook.pages.append(query)
    return f"{len(notebook.pages)} pages"


def test_a_tool_with_a_state_is_replayed_by_what_came_before_and_never_cached(tmp_path: Path) -> None:
    world = Oracle().world(1, tools=[note], bind=lambda task: {"notebook": Notebook()})
    policy = asking("a", "a", "b", name="note")
    recorded = agentenv.rollout(world, policy, cassette=tmp_path / "tape", cassette_mode="record")
    assert [texts[3] for texts in seen(recorded)] != [texts[5] for texts in seen(recorded)]
    replayed = agentenv.rollout(world, policy, cassette=tmp_path / "tape", cassette_mode="replay", seed=3)
    assert seen(replayed) == seen(recorded)
    cached = agentenv.rollout(world, policy, cassette=tmp_path / "tape", cassette_mode="cache")
    assert tells(cached) == ["miss"] * 3
    with pytest.raises(agentenv.AgentEnvError, match="holds no answer"):
        agentenv.rollout(world, asking("b", name="note"), group=3, cassette=tmp_path / "tape", cassette_mode="replay")


def test_what_a_tool_is_bound_to_may_say_what_it_is(tmp_path: Path) -> None:
    class Named(Notebook):
        cassette_key = "always the same"

    with Cassette(tmp_path / "tape") as tape:
        call = ToolCall("1", "note", "{}", {"query": "a"})
        results = [asyncio.run(tape.arun(note, call, {"notebook": Named()})) for _ in range(2)]
        assert [result.cache for result in results] == ["miss", "hit"]
        assert (
            asked(note, call, {"notebook": Notebook()}, None).key != asked(note, call, {"notebook": Named()}, None).key
        )


def test_secrets_are_neither_kept_nor_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "s3cret-value-123")

    @tool
    async def leak(query: str, api_key: str = "") -> ToolResult:
        """Say too much.

        Args:
            query: what.
            api_key: never mind.
        """
        rows = ((query, "s3cret-value-123"), ("half \ud800", 1))
        return ToolResult(
            "", "", (Table(f"{query} with s3cret-value-123 \ud800", ("a", "b"), rows, 2),), data={"k": rows}
        )

    call = ToolCall("1", "leak", "{}", {"query": "q", "api_key": "another-secret"})
    with Cassette(tmp_path / "tape", "record") as tape:
        result = asyncio.run(tape.arun(leak, call, {}))
    assert result.parts[0].text == "q with *** \ufffd"  # type: ignore[union-attr]
    assert "s3cret" not in repr(result)
    stored = b"".join(path.read_bytes() for path in (tmp_path / "tape").iterdir())
    assert b"s3cret-value" not in stored
    assert b"another-secret" not in stored
    assert list(lint(tmp_path / "tape")) == []


def test_what_cannot_be_written_is_shown_and_not_recorded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    @tool
    async def odd() -> Table:
        """Return a row that is no data."""
        return Table("shown", ("a",), ((object(),),), 1)

    with Cassette(tmp_path / "tape", "record") as tape:
        result = asyncio.run(tape.arun(odd, ToolCall("1", "odd", "{}", {}), {}))
        assert result.parts[0].text == "shown"  # type: ignore[union-attr]
        assert list(tape.shelf.all()) == []
    assert "odd is not recorded" in caplog.text


def test_arguments_of_any_type_are_compared_as_data() -> None:
    class Place(BaseModel):
        x: int

    class Other:
        def __repr__(self) -> str:
            return "other"

    assert plain({"a": Place(x=1), "b": Other(), "c": [2.0, 1e300, True], "token": "x"}) == {
        "a": {"x": 1}, "b": "other", "c": [2, 1e300, True]}  # fmt: skip


def test_lint_finds_what_is_damaged_and_what_looks_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Cassette(tmp_path / "tape", "record", tools=["look_up"]) as tape:
        for query in ("plain", "Bearer abcdefghijklmnopqrstuvwxyz", "mine-is-known-42"):
            call = ToolCall("1", "look_up", "{}", {"query": query})
            asyncio.run(tape.arun(Oracle().tool(), call, {}))
    with sqlite3.connect(tmp_path / "tape" / "cassette.sqlite") as connection:
        connection.execute("UPDATE recordings SET result = x'00' WHERE id = 1")
    connection.close()
    monkeypatch.setenv("MY_TOKEN", "mine-is-known-42")
    problems = {problem.id: problem.what for problem in lint(tmp_path / "tape")}
    assert problems[1].startswith("recording 1 of look_up is damaged")
    assert "looks like a secret" in problems[2]
    assert "environment variable" in problems[3]


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    wrong: tuple[dict[str, Any], ...] = ({"mode": "rerun"}, {"repeat": "last"}, {"on_miss": "guess"})
    for settings in wrong:
        with pytest.raises(ConfigError, match="a cassette's"):
            Cassette(tmp_path / "tape", **settings)
    for age in (-1.0, "1h", True):
        with pytest.raises(ConfigError, match="max_age is a number of seconds"):
            Cassette(tmp_path / "tape", max_age=age)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="there is no cassette"):
        Cassette(tmp_path / "none", "replay")
    assert open_cassette(None) is None
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be opened"):
        Cassette(tmp_path / "file")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "cassette.sqlite").write_text("no database at all" * 100)
    with pytest.raises(StoreError, match="cannot"):
        Cassette(tmp_path / "odd", "replay")


def test_a_cassette_of_another_schema_is_refused(tmp_path: Path) -> None:
    Cassette(tmp_path / "tape").close()
    with sqlite3.connect(tmp_path / "tape" / "cassette.sqlite") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    for mode in ("replay", "cache"):
        with pytest.raises(StoreError, match="schema 99"):
            Cassette(tmp_path / "tape", mode)


def test_make_takes_a_cassette_that_is_no_part_of_the_spec(tmp_path: Path) -> None:
    plain_env = agentenv.make("tests.worlds:sums", size=1)
    env = agentenv.make("tests.worlds:sums", size=1, cassette=tmp_path / "tape", cassette_mode="record")
    assert env.env_spec.hash == plain_env.env_spec.hash
    env.reset(seed=0)
    env.step('<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>')
    assert env.trajectory.tool_runs[0].cache == "record"
    twin = env.fork()
    twin.step('<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>')
    assert twin.trajectory.tool_runs[-1].cache == "record"
    assert len(list(Shelf(tmp_path / "tape", write=False).all("add"))) == 2
    assert "mode record" in repr(env._cassette)


def test_a_closed_cassette_opens_again_by_itself(tmp_path: Path) -> None:
    tape = Cassette(tmp_path / "tape")
    tape.close()
    assert tape.shelf.newest("0" * 64) is None


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_plain_data_is_normal_once_it_is_normal(value: Any) -> None:
    assert plain(plain(value)) == plain(value)
