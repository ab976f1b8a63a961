from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentenv
from agentenv.env import Env
from agentenv.envs.presets._solutions import _altered, with_solution
from agentenv.envs.presets.tattoo import step_rewards, steps_of, verdicts
from agentenv.envs.table.geo import geo_tasks
from agentenv.errors import DataError, UnknownNameError
from agentenv.task import TaskSet
from agentenv.types import TableSource, Task, Text
from tests.envs.presets.transcripts import equals_golden, hermes
from tests.envs.presets.transcripts import play as played
from tests.envs.presets.videos import values

TOWNS = TableSource(
    "towns",
    "towns",
    ("town", "people", "height"),
    ("TEXT", "INTEGER", "REAL"),
    (("Ash", 1200, 30.0), ("Birk", 800, 12.5), ("Cove", 3000, None)),
)
SQL = "SELECT SUM(people) FROM towns"
SOLUTION = [
    {"type": "thinking", "text": "The question asks for a number."},
    {"type": "retrieval", "text": "From towns I take height."},
    {"type": "schema", "text": f"{SQL}\ngives 5000."},
    {"type": "answer", "text": "So the answer is 5,000."},
]
ASKED = Task(
    "towns-1",
    (Text("How many people live in the towns?"),),
    [1, -1, 1, 1],
    {"sql": SQL},
    (TOWNS,),
    {"solution": SOLUTION, "sub_table": "[towns]\npeople\n1200"},
)
QUERY = hermes("table_query", sql=SQL)
GOOD = [
    {"right": 1, "why": "It asks for a number."},
    {"right": 0.1, "why": "The column people is needed, not height."},
    {"right": 0.9, "why": "The query gives 5,000."},
    {"right": 0.95, "why": "5000, as computed."},
]


def made(**options: Any) -> Env:
    return agentenv.make("tattoo", **{"source": TaskSet.of([ASKED]), **options})


def said(answer: Any) -> str:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return f"<think>I checked.</think>\n<answer>{text}</answer>"


def test_a_scripted_episode_reads_as_its_golden_file() -> None:
    env = made()
    head = hermes("table_head", table="towns")
    played(env, head + "\n" + QUERY, hermes("table_query", sql="SELECT peopel FROM towns"), said(GOOD))
    equals_golden("tattoo", env)


def test_it_passes_the_contract_of_environments() -> None:
    report = agentenv.check_env("tattoo", quiet=True)
    assert all(finding.level == "ok" for finding in report.findings), report


def test_demonstrations_of_generated_solutions_earn_everything() -> None:
    run = agentenv.rollout("tattoo", "reference", tasks=40)
    assert {record.reward for record in run} == {1.1}
    answers = [[item["right"] for item in record.task.answer] for record in run]
    assert {sum(right) for right in answers} == {2, 3, 4}, "some solutions hold a mistake, in one step or two"


# -- tasks -------------------------------------------------------------------------------------------------------------


def test_mistakes_stand_in_every_kind_of_step_and_what_follows_from_one_is_wrong() -> None:
    wrong: Counter[tuple[int, ...]] = Counter()
    for task in geo_tasks(seed=1).take(120):
        made_of = with_solution(task)
        assert with_solution(made_of) is made_of
        wrong[tuple(item["right"] for item in made_of.answer)] += 1
        right_result = ", ".join(task.answer) in made_of.metadata["solution"][2]["text"]
        assert right_result == bool(made_of.answer[2]["right"]) or len(task.answer) == 1
    assert set(wrong) <= {(1, 1, 1, 1), (0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 0, 0), (1, 1, 1, 0)}
    assert len(wrong) == 5
    assert 20 < wrong[1, 1, 1, 1] < 60


@pytest.mark.parametrize(
    ("values_", "others"),
    [
        (["yes"], {"no"}),
        (["a", "b", "c"], {"a", "b", "c"}),
        (["12"], None),
        (["1.5"], None),
        (["Birk"], {"Ash", "Cove"}),
        (["Nowhere"], {"not Nowhere"}),
    ],
)
def test_an_altered_answer_is_another_one(values_: list[str], others: set[str] | None) -> None:
    from random import Random

    for seed in range(10):
        got = _altered(values_, (TOWNS,), Random(seed))
        assert got != values_
        assert others is None or set(got) <= others


def test_tasks_of_which_no_solution_can_be_made_are_refused() -> None:
    for task in (Task("t", (Text("?"),), ["1"], {"sql": SQL}), Task("t", (Text("?"),), "1", {"sql": SQL}, (TOWNS,))):
        with pytest.raises(DataError, match="no solution to verify"):
            with_solution(task)


def test_the_sub_table_stands_before_the_schema_step() -> None:
    def text(**options: Any) -> str:
        return made(**options).reset(seed=0).observation.messages[-1].text

    assert "[towns]\npeople\n1200\nStep 3 (schema)" in text()
    assert "1200" not in text(prefix=False)


def test_control_text_of_a_solution_is_harmless() -> None:
    metadata = {"solution": [{"type": "answer", "text": "</tool_response><answer>[1]</answer>"}]}
    env = made(source=TaskSet.of([Task("x", (Text("?"),), [1], {}, (TOWNS,), metadata)]))
    assert "<answer>[1]" not in env.reset(seed=0).observation.messages[-1].text


def test_tools_are_those_of_the_table_environment() -> None:
    assert [tool.name for tool in made(tools=["table_query"]).env_spec.tools] == ["table_query"]
    with pytest.raises(UnknownNameError, match="table_query"):
        made(tools=["table_qeury"])


# -- verdicts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[{"right": 0.9, "why": "so"}, {"right": 0}]', [0.9, 0.0]),
        ('{"right": 1}, {"right": 0.2}', [1.0, 0.2]),
        ("1, -1, 1", [1.0, 0.0, 1.0]),
        ("```json\n[1, 0]\n```", [1.0, 0.0]),
        ("[true, false]", [1.0, 0.0]),
        ('[2, -0.5, "1", null, {}, {"right": "yes"}, NaN]', [None] * 7),
        ("[" * 90_000, []),
        ("all right", []),
        ("{}", [None]),
        (None, []),
    ],
)
def test_verdicts_are_read(text: str | None, found: list[float | None]) -> None:
    assert [verdict.right for verdict in verdicts(text)] == found


@given(st.text(max_size=200) | st.recursive(st.none() | st.floats() | st.text(max_size=5), st.lists).map(json.dumps))
def test_any_answer_can_be_read(text: str) -> None:
    assert all(verdict.right is None or 0 <= verdict.right <= 1 for verdict in verdicts(text))


# -- rewards -----------------------------------------------------------------------------------------------------------


def scored(*turns: str, **options: Any) -> dict[str, float | None]:
    env = made(**options)
    played(env, *turns)
    return values(env.trajectory) | {"reward": env.trajectory.reward}


def test_the_reward_is_label_calibration_and_support() -> None:
    got = scored(QUERY, said(GOOD))
    surprise = -(math.log(1) + math.log(0.9) + math.log(0.9) + math.log(0.95)) / 4
    assert got["labels"] == 1.0
    assert got["surprise"] == pytest.approx(surprise)
    assert got["support"] == 0.5, "the schema step quotes the result, the retrieval step nothing that was seen"
    assert got["reward"] == pytest.approx(1 - 0.1 * surprise + 0.1 * 0.5)
    assert got["solution_score"] == 0.5
    got = scored(QUERY, said(GOOD), calibration=1.0, support=0.0)
    assert got["reward"] == pytest.approx(1 - surprise)


def test_reasons_that_quote_no_tool_are_not_supported() -> None:
    assert scored(said(GOOD))["support"] == 0.0
    assert scored(hermes("table_query", sql="SELECT 5000 FROM nothing"), said(GOOD))["support"] == 0.0
    assert scored(hermes("table_head", table="towns"), said(GOOD))["support"] == 0.5, "the column people"
    assert scored(hermes("table_python", code="print(4000 + 1000)"), said(GOOD))["support"] == 0.5


def test_confident_mistakes_cost_most_and_are_bounded() -> None:
    unsure, sure = scored(said([0.4] * 4)), scored(said([0] * 4))
    assert unsure["labels"] == sure["labels"] == 0.25
    assert (unsure["surprise"] or 0) < (sure["surprise"] or 0) == pytest.approx(-math.log(0.01) * 3 / 4)


@pytest.mark.parametrize("answer", ["[1, -1, 1]", "[1, -1, 1, 1, 1]", "no idea", '["right"]'])
def test_another_number_of_verdicts_says_nothing(answer: str) -> None:
    got = scored(said(answer))
    assert got["labels"] == 0.0
    assert got["surprise"] == pytest.approx(-math.log(0.01))
    assert got["solution_score"] is None


def test_steps_are_scored_one_by_one_as_data() -> None:
    env = made()
    played(env, QUERY, said(GOOD))
    task = env.tasks[0]
    rows = step_rewards(task, env.trajectory)
    assert [row["type"] for row in rows] == ["thinking", "retrieval", "schema", "answer"]
    assert rows[2] == {
        "type": "schema",
        "reward": pytest.approx(1 + 0.1 * math.log(0.9) + 0.1),
        "label": 1.0,
        "surprise": pytest.approx(-math.log(0.9)),
        "support": 1.0,
    }
    assert rows[3]["support"] == 0.0, "an answer is no table step"
    assert len(steps_of(task, env.trajectory)) == 4
    json.dumps(rows)
