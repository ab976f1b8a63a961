"""The commands, called as functions of their arguments; `tests/e2e` runs them as processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import agentenv
from agentenv.cli import main
from agentenv.errors import UsageError
from agentenv.reward import Component, Rubric
from agentenv.trajectories.store import Store
from agentenv.trajectory import ErrorInfo, Outcome
from tests.e2e.helpers import model_server
from tests.policy.chat_server import completion
from tests.shell import Shell

SUMS = "tests.worlds:sums"

lenient = Rubric(Component("any", lambda task, record: 1.0))
ranked = Rubric(Component("rank", lambda task, group: list(range(len(group))), scope="group"))
not_a_rubric = 3


@pytest.fixture
def run(sh: Shell) -> str:
    """A run folder with twelve episodes of the weak policy."""
    assert sh("rollout", SUMS, "-p", "weak", "--tasks", "6", "--group", "2", "--out", "run", "--quiet").code == 0
    return "run"


# -- list, info, check ----------------------------------------------------------------------------------------------


def test_list_knows_the_table(sh: Shell) -> None:
    assert "table" in sh("list").out
    assert "table" in {item["id"] for item in sh("list", "--json").json}
    assert {item["preset"] for item in sh("list", "--presets", "--json").json} <= {True}
    assert sh("list", "--presets").code == 0


def test_info_tells_what_one_must_know(sh: Shell) -> None:
    told = sh("info", "table", "-o", "difficulty=1")
    for word in ("difficulty", "table_query", "sql (string)", "dialect  hermes", "denotation (weight 1)", "[user]"):
        assert word in told.out
    facts = sh("info", "agentenv/table-v0", "--json").json
    assert {option["name"] for option in facts["options"]} >= {"source", "difficulty", "dialect", "limits"}
    assert facts["tasks"]["count"] is None
    assert facts["sample"]["messages"][-1]["role"] == "user"
    assert facts["tools"][0]["parameters"]["properties"]["sql"]


def test_info_shows_options_even_of_what_cannot_be_made(sh: Shell) -> None:
    told = sh("info", "table", "-o", "dialect=hermis")
    assert told.code == 2
    assert 'did you mean "hermes"' in told.err
    assert "difficulty" in told.out
    assert "cannot_be_made" in sh("info", "table", "-o", "limits.turn=3", "--json").json


def test_an_option_of_the_wrong_kind_is_named(sh: Shell) -> None:
    told = sh("check", "table", "-o", "limits.turn=3")
    assert (told.code, "turn" in told.err) == (2, True)
    (sh.folder / "needy.py").write_text("def needy(*, path): ...\n")
    assert "missing a required argument: 'path'" in sh("check", "needy:needy").err
    assert "(required)" in sh("info", "needy:needy").out


def test_check_fails_where_the_contract_is_broken(sh: Shell) -> None:
    assert sh("check", SUMS).code == 0
    (sh.folder / "broken.py").write_text(
        "from tests.worlds import sums\nfrom agentenv.tool import tool\n"
        "@tool(inline=True)\ndef add(a: int, b: int) -> str:\n    'Add.'\n    raise OSError('broken')\n"
        "def broken():\n    return sums(tools=(add,))\n"
    )
    told = sh("check", "broken:broken", "--json")
    assert (told.code, told.json["ok"]) == (1, False)
    assert "ERROR" in sh("check", "broken:broken").out


# -- play -----------------------------------------------------------------------------------------------------------


def test_play_takes_short_forms_and_shows_the_reward(sh: Shell) -> None:
    told = sh("play", SUMS, "--out", "mine", typed='add {"a": 1, "b": 2}\nanswer 80\n')
    assert "reward: 1" in told.out
    assert "right: 1 (weight 1)" in told.out
    record = agentenv.load("mine")[0]
    assert [call.arguments for node in record.nodes for call in node.message.calls] == [{"a": 1, "b": 2}]


@pytest.mark.parametrize(
    ("choice", "question"),
    [
        (["--task", "1"], "What is 7 +"),
        (["--task", "sum-2"], "What is 14 +"),
        (["--seed", "3"], "What is"),
        ([], "What is 0 +"),
    ],
)
def test_play_plays_the_task_that_is_asked_for(sh: Shell, choice: list[str], question: str) -> None:
    assert question in sh("play", SUMS, *choice, typed="/quit\n").out


def test_play_shows_the_raw_prompt_on_request(sh: Shell) -> None:
    assert "<tools>" not in sh("play", SUMS, typed="").out
    assert "<tools>" in sh("play", SUMS, "--raw", typed="").out


def test_play_names_the_nearest_task(sh: Shell) -> None:
    assert "did you mean" in sh("play", SUMS, "--task", "sum-33").err
    assert "no task number 99" in sh("play", SUMS, "--task", "99").err


def test_a_turn_of_several_lines_that_begins_with_a_word_stays_text(sh: Shell) -> None:
    told = sh("play", SUMS, typed="Let me see\nadd nothing\n\nanswer 80\n")
    assert "neither a tool call nor an answer" in told.out
    assert "reward: 1" in told.out


# -- rollout --------------------------------------------------------------------------------------------------------


def test_rollout_records_and_says_where(sh: Shell) -> None:
    told = sh("rollout", SUMS, "-p", "reference", "--tasks", "3", "--group", "2", "--json")
    facts = told.json
    assert (told.code, facts["episodes"], facts["mean_reward"], facts["interrupted"]) == (0, 6, 1.0, False)
    assert facts["out"].startswith("runs/sums-reference-")
    assert len(agentenv.load(facts["out"])) == 6


def test_flags_win_over_the_file_and_the_rest_of_it_counts(sh: Shell) -> None:
    Path("run.toml").write_text(
        'env = "table"\npolicy = "weak"\ntasks = 4\nseed = 9\n[options]\ndifficulty = 1\nlimits.turns = 4\n'
        "[policy_options]\nskill = 0.1\nseed = 3\n"
    )
    told = sh("rollout", "--config", "run.toml", "--tasks", "2", "-P", "skill=0.9", "--dry-run", "--json", "--out", "x")
    chosen = told.json["settings"]
    assert (chosen["tasks"], chosen["seed"], chosen["options"]) == (2, 9, {"difficulty": 1, "limits": {"turns": 4}})
    assert chosen["policy_options"] == {"skill": 0.9, "seed": 3}
    assert told.json["episodes"] == 2
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('polcy = "weak"', 'did you mean "policy"'),
        ("tasks = 'many'", "Expected `int | null`"),
        ("tasks = ", "is not TOML"),
        ('env = "tabel"\npolicy = "weak"', 'did you mean "table"'),
        ('env = "table"', "which policy?"),
        ("", "which environment?"),
        (f'env = "{SUMS}"\npolicy = "weak"\n[policy_options]\nskil = 1', 'did you mean "skill"'),
        ('env = "table"\npolicy = "weak"\n[options]\ndificulty = 1', 'did you mean "difficulty"'),
        ('env = "table"\npolicy = "weak"', "endless"),
    ],
)
def test_a_wrong_config_is_refused_with_the_nearest_right_one(sh: Shell, text: str, hint: str) -> None:
    Path("run.toml").write_text(text)
    told = sh("rollout", "--config", "run.toml", "--dry-run")
    assert (told.code, hint in told.err) == (2, True), told.err


def test_a_config_file_that_is_not_there(sh: Shell) -> None:
    Path("run.toml").touch()
    assert 'did you mean "run.toml"' in sh("rollout", "--config", "runn.toml").err
    assert "cannot be read" in sh("rollout", "--config", ".").err


def test_dry_run_prints_what_a_config_file_holds(sh: Shell) -> None:
    told = sh(
        "rollout", SUMS, "-p", "weak", "-P", "skill=0.5", "-o", "size=7", "--group", "3", "--out", "x", "--dry-run"
    )
    assert "# would play 21 episodes, 0 are there already" in told.out
    Path("again.toml").write_text(told.out)
    assert sh("rollout", "--config", "again.toml", "--quiet").code == 0
    assert len(agentenv.load("x")) == 21


def test_resume_plays_what_is_missing_and_a_run_is_never_overwritten(sh: Shell, run: str) -> None:
    saved = f"{run}/config.toml"
    assert "already holds a run" in sh("rollout", "--config", saved).err
    assert "add --resume" in sh("rollout", "--config", saved, "--dry-run").err
    assert "12 are there already" in sh("rollout", "--config", saved, "--resume", "--dry-run").out
    facts = sh("rollout", "--config", saved, "--resume", "--tasks", "8", "--json", "--quiet").json
    assert (facts["before"], facts["played"], facts["episodes"]) == (12, 4, 16)
    assert "of the 4 played now" in sh("rollout", "--config", saved, "--resume", "--tasks", "10", "--quiet").out
    assert "seed was 0" in sh("rollout", "--config", saved, "--resume", "--seed", "1").err


def test_a_run_that_is_given_up_says_so_and_how_to_go_on(sh: Shell) -> None:
    told = sh("rollout", SUMS, "-p", "scripted:turns.json", "--give-up-after", "2", "--out", "x")
    assert told.code == 2  # there is no such file
    Path("turns.json").write_text("[]")
    told = sh("rollout", SUMS, "-p", "scripted:turns.json", "--give-up-after", "2", "--concurrency", "1", "--out", "x")
    assert told.code == 1
    assert "given up: " in told.out
    assert "in a row failed" in told.err
    assert "agentenv rollout --config x/config.toml --resume" in told.out


def test_secrets_are_never_written_down(sh: Shell) -> None:
    told = sh(
        "rollout", SUMS, "-p", "openai:m", "--base-url", "http://me:hunter2@127.0.0.1:9/v1?key=hunter2",
        "-P", "retries=0", "-P", "extra_body.api_key=hunter2", "--tasks", "1", "--attempts", "1", "--out", "x",
    )  # fmt: skip
    assert told.code == 1
    assert "a secret is never written down" in told.out
    for path in Path("x").rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes(), path
    assert "http://127.0.0.1:9/v1" in Path("x/config.toml").read_text()
    assert "hunter2" not in told.out + told.err


# -- stats, score, export -------------------------------------------------------------------------------------------


def test_stats_of_one_and_of_two(sh: Shell, run: str) -> None:
    assert "episodes  12 (6 tasks" in sh("stats", run).out
    assert sh("stats", run, "--json").json["episodes"] == 12
    sh("rollout", SUMS, "-p", "reference", "--tasks", "6", "--out", "expert", "--quiet")
    both = sh("stats", run, "expert")
    assert "expert" in both.out
    assert "pass@2" in both.out
    assert set(sh("stats", run, "expert", "--json").json) == {run, "expert"}
    assert sh("stats", run, "--where", "reward >= 1", "--json").json["reward"]["mean"] == 1.0
    assert 'did you mean "reward"' in sh("stats", run, "--where", "rewrd >= 1").err
    assert sh("stats").code == 2


def test_scoring_again_changes_nothing_unless_told_to(sh: Shell, run: str) -> None:
    own = sh("score", run, "--json").json
    assert (own["count"], own["rewards_changed"]) == (12, 0)
    other = sh("score", run, "--rubric", "tests.test_cli:lenient")
    assert "nothing was written" in other.out
    assert [record.reward for record in agentenv.load(run)].count(0.0) > 0
    assert "amended" in sh("score", run, "--rubric", "tests.test_cli:lenient", "--write").out
    assert [record.reward for record in agentenv.load(run)] == [1.0] * 12
    back = sh("score", run, "--rubric", "right", "--write", "--json").json
    assert back["old_mean"] == 1.0 != back["new_mean"] == own["new_mean"]


def test_group_rewards_and_unscored_episodes_when_scoring_again(sh: Shell, run: str) -> None:
    records = list(agentenv.load(run))
    with Store.open(run) as store:
        failed = Outcome("policy_error", False, True, error=ErrorInfo("PolicyError", "away"))
        store.amend(records[0].id, failed)
    told = sh("score", run, "--rubric", "tests.test_cli:ranked", "--write", "--json").json
    new = [episode["new"] for episode in told["episodes"]]
    assert new == [None, 0.0] + [0.0, 1.0] * 5
    with Store.open(run) as store:
        store.amend(records[1].id, failed)
    assert sh("score", run, "--rubric", "tests.test_cli:ranked").code == 0


def test_many_changes_are_cut_in_the_table(sh: Shell) -> None:
    sh("rollout", SUMS, "-p", "reference", "--group", "2", "--out", "big", "--quiet")
    told = sh("score", "big", "--rubric", "tests.test_cli:ranked")
    assert "20 changed" in told.out
    sh("rollout", SUMS, "-p", "reference", "--group", "3", "--out", "bigger", "--quiet")
    assert "and 20 more" in sh("score", "bigger", "--rubric", "tests.test_cli:ranked").out


def test_a_rubric_that_is_none(sh: Shell, run: str) -> None:
    assert 'did you mean "right"' in sh("score", run, "--rubric", "rigth").err
    assert "is a int, not an agentenv.Rubric" in sh("score", run, "--rubric", "tests.test_cli:not_a_rubric").err
    sh("export", run, "-f", "jsonl", "--out", "lines")
    assert "only a run folder" in sh("score", "lines/train.jsonl", "--write").err
    assert sh("score", "lines/train.jsonl").code == 0


def test_export_selects_and_writes(sh: Shell, run: str) -> None:
    report = sh("export", run, "-f", "trl-sft", "--out", "sft", "--where", "reward >= 1", "--limit", "3", "--json").json
    assert (report["written"], report["format"]) == (3, "trl-sft")
    rows = [json.loads(line) for line in Path("sft/train.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    told = sh("export", run, "-f", "grpo-groups", "--out", "groups", "-o", "method=rloo", "-o", "min_size=2")
    assert "12 written to groups/train.jsonl" in told.out


def test_an_export_that_writes_nothing_fails_and_says_why(sh: Shell, run: str) -> None:
    told = sh("export", run, "-f", "tokens", "--out", "tokens")
    assert (told.code, "tokens: 0 written" in told.out) == (1, True)
    assert "lacks token ids (capture 'text'): play with a policy that works with token ids" in told.out


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["run", "-f", "trl-stf", "--out", "x"], 'did you mean "trl-sft"'),
        (["run", "-f", "trl-sft", "--out", "x", "-o", "nam=y"], 'did you mean "name"'),
        (["run", "-f", "trl-sft"], "export needs --out"),
        ([], "export needs RUN, --format, --out"),
        (["run", "-f", "trl-sft", "--out", "x", "--where", "reward ="], "cannot be read"),
        (["run", "-f", "trl-sft", "--out", "x", "-o", "name"], "write key=value"),
    ],
)
def test_a_wrong_export_says_what_is_right(sh: Shell, run: str, arguments: list[str], hint: str) -> None:
    told = sh("export", *arguments)
    assert (told.code, hint in told.err) == (2, True), told.err


def test_formats_are_listed_with_what_they_drop(sh: Shell) -> None:
    assert "trl-sft: " in sh("formats").out
    assert "drops" in sh("export", "--list").out
    facts = sh("export", "--list", "--json").json
    assert {"trl-sft", "grpo-groups", "jsonl"} <= {item["name"] for item in facts["formats"]}
    assert facts["aliases"]["openai-messages"]["format"] == "trl-sft"


# -- demo, new ------------------------------------------------------------------------------------------------------


def test_demo_with_a_model(sh: Shell) -> None:
    with model_server() as server:
        server.answer = completion("Kazakhstan")
        told = sh("demo", "--tasks", "3", "--group", "2", "--base-url", server.url, "--model", "m")
    assert told.code == 0
    assert len(agentenv.load("runs/demo/run-model")) == 6
    assert "runs/demo/sft" in told.out
    assert "One episode of the weak policy" in told.out


def test_demo_goes_on_where_the_model_fails_and_says_so(sh: Shell) -> None:
    told = sh("demo", "--tasks", "2", "--base-url", "http://127.0.0.1:9/v1", "--model", "m")
    assert told.code == 1
    assert "the model did not play to the end" in told.err
    assert Path("runs/demo/grpo/train.jsonl").exists()
    assert sh("demo", "--model", "m").code == 2


def test_demo_refuses_a_folder_that_holds_something_else(sh: Shell) -> None:
    Path("mine").mkdir()
    Path("mine/notes.txt").touch()
    assert (sh("demo", "--out", "mine").code, Path("mine/notes.txt").exists()) == (2, True)


def test_a_second_demo_replaces_the_first_and_nothing_beside_it(sh: Shell) -> None:
    for _ in range(2):
        assert sh("demo", "--tasks", "2", "--group", "1").code == 0
        Path("runs/demo/notes.txt").touch()
    assert Path("runs/demo/notes.txt").exists()
    assert len(agentenv.load("runs/demo/run-weak")) == 2


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("json", "installed module"),
        ("1st", "cannot be the name"),
        ("class", "cannot be the name"),
        ("mm-search", "comes with agentenv"),
    ],
)
def test_new_refuses_names_that_would_not_work(sh: Shell, name: str, hint: str) -> None:
    told = sh("new", "env", name)
    assert (told.code, hint in told.err, list(Path().iterdir())) == (2, True, [])


def test_new_writes_two_files_and_overwrites_none(sh: Shell) -> None:
    told = sh("new", "env", "fresh-market", "--dir", "envs/mine")
    assert told.code == 0
    assert 'fresh_market = "fresh_market:fresh_market"' in told.out
    assert {path.name for path in Path("envs/mine").iterdir()} == {"fresh_market.py", "test_fresh_market.py"}
    assert "is there already" in sh("new", "env", "fresh-market", "--dir", "envs/mine").err


# -- the command line itself -------------------------------------------------------------------------------------------


def test_exit_codes_of_the_command_line_itself(sh: Shell) -> None:
    assert (sh("--version").code, sh().code, sh("rollout", "--help").code) == (0, 0, 0)
    assert (sh("nonsense").code, sh("info").code, sh("rollout", "table", "--tasks", "many").code) == (2, 2, 2)
    with pytest.raises(UsageError):
        main(["info", "tabel", "--debug"])


def test_the_help_of_the_long_commands_has_examples(sh: Shell) -> None:
    for name in ("rollout", "export", "chat", "play", "stats", "score", "demo"):
        assert f"agentenv {name}" in sh(name, "--help").out.replace("Usage: agentenv", "")


def test_other_errors_are_not_hidden(sh: Shell) -> None:
    Path("buggy.py").write_text("def buggy():\n    return 1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        main(["check", "buggy:buggy"])


# -- what people get wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["demo", "--out", "FILE"], "FILE is a file"),
        (["demo", "--tasks", "0"], "--tasks must be at least 1, not 0"),
        (["new", "env", "harbour", "--dir", "FILE/mine"], "is a file"),
        (["play", SUMS, "--seed", "-1"], "--seed must be at least 0"),
        (["check", SUMS, "--episodes", "-3"], "--episodes must be at least 1"),
        (["export", "run", "-f", "jsonl", "--out", "x", "--limit", "-1"], "--limit must be at least 1"),
        (["rollout", SUMS, "-p", "weak", "--tasks", "0"], "tasks must be at least 1"),
        (["rollout", SUMS, "-p", "weak", "--concurrency", "0"], "concurrency must be at least 1"),
        (["rollout", SUMS, "-p", "weak", "-P", "skill=x"], "(with skill)"),
        (["rollout", SUMS, "-p", "weak", "--out", "FILE", "--dry-run"], "is a file"),
        (["rollout", SUMS, "-p", "weak", "--out", "full", "--dry-run"], "holds no run"),
        (["rollout", SUMS, "-p", "weak", "--resume"], "name its folder with --out"),
        (["rollout", SUMS, "-p", "weak", "--resume", "--out", "nowhere"], "no run at nowhere"),
        (["rollout", "table", "-p", "weak"], "endless"),
        (["chat", "-p", "random", "--out", "FILE"], "is a file"),
        (["info", "table", "-o", "source=missing"], "unknown source"),
        # what is not there
        (["stats", "nowhere"], "no run at nowhere"),
        (["score", "nowhere"], "no run at nowhere"),
        (["export", "nowhere", "-f", "jsonl", "--out", "x"], "no run at nowhere"),
        (["cassette", "nowhere"], "no cassette at nowhere"),
        (["cassette", "nowhere", "--lint"], "no cassette at nowhere"),
        (["rollout", SUMS, "-p", "replay:nowhere"], "at nowhere"),
        (["rollout", SUMS, "-p", "scripted:nowhere"], "nowhere"),
        (["rollout", "--config", "nowhere.toml"], "nowhere.toml"),
        (
            ["rollout", SUMS, "-p", "weak", "--cassette", "nowhere", "--cassette-mode", "replay"],
            "no cassette at nowhere",
        ),
        (["rollout", SUMS, "-p", "weak", "--cassette", "c", "--cassette-mode", "rewind"], "not 'rewind'"),
        (["rollout", SUMS, "-p", "weak", "--cassette-max-age", "5"], "of a --cassette in the mode cache"),
    ],
)
def test_wrong_usage_is_one_readable_line_and_leaves_nothing(sh: Shell, arguments: list[str], hint: str) -> None:
    Path("FILE").touch()
    Path("full").mkdir()
    Path("full/notes.txt").touch()
    told = sh(*arguments)
    assert (told.code, hint in told.err, told.err.count("\n")) == (2, True, 1), told.err
    assert not list(Path().glob("runs/*"))


def test_an_error_of_the_system_is_one_line_too(sh: Shell) -> None:
    Path("odd.py").write_text("def odd():\n    open('/nowhere/x')\n")
    told = sh("check", "odd:odd")
    assert (told.code, told.err) == (1, "agentenv: /nowhere/x: No such file or directory\n")
    with pytest.raises(FileNotFoundError):
        main(["check", "odd:odd", "--debug"])


def test_rows_that_were_skipped_are_told_of(sh: Shell) -> None:
    Path("rows.jsonl").write_text(
        '{"question": "How many?", "answer": "1", "table": {"header": ["a"], "rows": [["1"]]}}\n{"question": 3}\n'
    )
    source = ("-o", "source=rows.jsonl", "-o", "on_error=skip")
    facts = sh("info", "table", *source, "--json").json
    assert (facts["skipped"], "rows.jsonl:2" in facts["skipped_rows"][0]) == (1, True)
    assert "1 row of the data set" in sh("info", "table", *source).out
    told = sh("rollout", "table", "-p", "random", *source, "--out", "x")
    assert "1 row of the data set skipped" in told.err
    assert sh("rollout", "table", "-p", "random", *source, "--out", "y", "--json", "--quiet").json["skipped"] == 1
    Path("rows.jsonl").write_text('{"question": 3, "answer": "1", "table": "none"}\n')
    for more, why in ((["--out", "z"], "0 tasks"), (["--dry-run"], "is empty")):
        told = sh("rollout", "table", "-p", "random", *source, *more)
        assert (told.code, why in told.err, "rows.jsonl:1" in told.err) == (2, True, True), told.err
    assert "is empty" in sh("info", "table", *source).err


def test_play_takes_the_form_that_it_shows(sh: Shell) -> None:
    told = sh("play", SUMS, typed='/add {"a": 1, "b": 2}\n/answer 80\n')
    assert "reward: 1" in told.out
    assert "no command" not in told.out
