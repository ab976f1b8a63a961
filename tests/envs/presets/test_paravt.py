from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

import agentenv
from agentenv.envs.presets.paravt import BUDGETS, drawn
from agentenv.envs.rewards import token_f1
from agentenv.errors import PolicyError, UsageError
from agentenv.policy import ScriptedPolicy, make_policy
from agentenv.policy.base import Policy
from agentenv.rollout import play
from agentenv.trajectory import Trajectory
from agentenv.types import Action, Image, Observation, Task, Text, Usage
from tests.envs.presets.transcripts import equals_golden
from tests.envs.presets.transcripts import play as played
from tests.envs.presets.videos import QUESTION, crop, film, frames, made, one_video, right, values


def watching(observation: Observation) -> Action:
    """Tells how many frames it sees, and the time of the first."""
    parts = observation.messages[-1].parts
    count = sum(isinstance(part, Image) for part in parts)
    first = next(part.text for part in parts if isinstance(part, Text))
    text = f"<think>Let me see.</think>{count} frames from {first}; <answer>75</answer> is drawn in."
    return Action(text, usage=Usage(100, 20, 0.25))


READER = make_policy(watching)
TURNS = (crop(2, 6) + "\n" + crop(8, 30, path="other.mp4") + "\n" + crop(5, None), crop(4, 4.5), right())


def test_a_scripted_episode_reads_as_its_golden_file() -> None:
    env = made("paravt", reader=READER, budgets=[4])
    played(env, *TURNS)
    equals_golden("paravt", env)


def test_it_passes_the_contract_of_environments() -> None:
    report = agentenv.check_env(made("paravt"), quiet=True)
    assert all(finding.level == "ok" for finding in report.findings), report


# -- the second model --------------------------------------------------------------------------------------------------


def test_what_was_watched_by_whom_is_recorded() -> None:
    env = made("paravt", reader=READER, budgets=[4])
    played(env, crop(2, 6), right())
    (run,) = env.trajectory.tool_runs
    assert run.data is not None
    assert run.data["times"] == [2.0, 3.32, 4.68, 6.0]
    assert len(run.data["frames"]) == 4
    assert run.data["said"].startswith("<think>")
    assert (run.usage, run.cost) == (Usage(100, 20, 0.25), 0.25)
    assert env.trajectory.usage().cost == 0.25
    assert Trajectory.from_json(env.trajectory.to_json()).tool_runs[0].data == run.data


def test_only_words_come_back_and_tags_in_them_are_harmless() -> None:
    env = made("paravt", reader=READER, budgets=[4])
    played(env, crop(2, 6), right())
    assert frames(env) == [4, 0]
    said = env.trajectory.messages[-2].text
    assert "4 frames from" in said
    assert "<answer>" not in said
    assert "Let me see" not in said


def test_the_reader_is_told_the_question_and_the_window() -> None:
    seen: list[Observation] = []

    def spy(observation: Observation) -> str:
        seen.append(observation)
        return "Nothing."

    played(made("paravt", reader=make_policy(spy)), crop(2, 30), right())
    (observation,) = seen
    assert observation.tools == ()
    assert QUESTION in observation.messages[-1].text
    assert "from 2 to 30 seconds" in observation.messages[-1].text
    assert sum(isinstance(part, Image) for part in observation.messages[-1].parts) == 8


def test_the_same_window_is_told_with_the_same_seed() -> None:
    class Seeds(Policy):
        seeds: list[int] = []  # noqa: RUF012

        def begin(self, task: Task, *, seed: int, sample: int = 0) -> Policy:
            self.seeds.append(seed)
            return READER

        async def act(self, observation: Observation) -> Action:
            raise AssertionError

    played(made("paravt", reader=Seeds()), crop(2, 6) + crop(2, 6) + crop(2, 7), right())
    assert len(set(Seeds.seeds)) == 2


def test_a_long_summary_is_cut_and_an_empty_one_is_an_error() -> None:
    env = made("paravt", reader=ScriptedPolicy(["word " * 1000]))
    played(env, crop(2, 6), right())
    assert "[cut: 2048 of 4999 characters shown]" in env.trajectory.messages[-2].text
    env = made("paravt", reader=ScriptedPolicy(["<think>Hm.</think>"]))
    played(env, crop(2, 6), right())
    assert "nothing was told" in env.trajectory.messages[-2].text
    assert values(env.trajectory)["call_ran"] == 0.0


async def test_a_reader_that_fails_leaves_the_episode_unscored() -> None:
    def down(observation: Observation) -> str:
        raise PolicyError("the engine is down")

    env = made("paravt", reader=make_policy(down))
    record = await play(env, ScriptedPolicy([crop(2, 6), right()]), env.tasks[0])
    assert (record.stop_reason, record.reward) == ("policy_error", None)


def test_without_a_reader_the_policy_sees_the_frames_with_their_times() -> None:
    env = made("paravt", budgets=[4])
    played(env, crop(2, 6) + crop(7, 99), right())
    assert frames(env) == [4, 6]
    assert "<2.0 seconds>" in env.trajectory.messages[-2].text


# -- the first view ----------------------------------------------------------------------------------------------------


def test_the_number_of_frames_is_drawn_by_the_prompt_alone() -> None:
    tasks = [Task(f"t{i}", (film(), Text(f"Question {i}?"))) for i in range(500)]
    counts = Counter(drawn(task, BUDGETS) for task in tasks)
    assert set(counts) == set(BUDGETS)
    assert min(counts.values()) > 60
    again = Task("another id", tasks[7].prompt, "x", seed=9)
    assert drawn(again, BUDGETS) == drawn(tasks[7], BUDGETS)


def test_all_members_of_a_group_see_the_same_frames() -> None:
    run = agentenv.rollout(made("paravt"), ScriptedPolicy([right()]), tasks=1, group=3)
    first = {r.messages[1].parts for r in run}
    assert len(first) == 1


@pytest.mark.parametrize("budgets", [[], [1, 4]])
def test_budgets_that_make_no_sense_are_refused(budgets: list[int]) -> None:
    with pytest.raises(UsageError, match="budgets"):
        made("paravt", budgets=budgets)


# -- rewards -----------------------------------------------------------------------------------------------------------


def reward(*turns: str, **options: Any) -> float | None:
    env = made("paravt", reader=READER, **options)
    played(env, *turns)
    return env.trajectory.reward


def test_the_reward_adds_up() -> None:
    assert reward(crop(2, 6), right()) == pytest.approx(1 + 0.7 + 0.8)
    assert reward(crop(2, 6) + crop(3, 4).replace("<think>I look closer.</think>", ""), right()) == pytest.approx(2.5)
    assert reward(right()) == pytest.approx(1 + 0.7)
    assert reward(crop(2, 6), right("76")) == pytest.approx(0.7 + 0.3)
    assert reward(crop(20, 6), right("76")) == pytest.approx(0.7 + 0.1)
    assert reward("<think>so <answer>75</answer>") == pytest.approx(-0.3)
    assert reward("<answer>75</answer>") == pytest.approx(1.0)
    assert reward(crop(2, 6), right(), format_weight=0.5) == pytest.approx(1 + 0.35 + 0.8)
    assert reward(crop(2, 6), right(), scale=10, bias=-0.2) == pytest.approx((2.5 - 0.2) * 10)


@pytest.mark.parametrize(
    ("answer", "metadata", "said", "accuracy"),
    [
        ("B", {"options": ["red", "blue"]}, "B", 1.0),
        ("B", {"options": ["red", "blue"]}, "red", 0.0),
        ([2.0, 6.0], {"answer_type": "span"}, "2 to 4 seconds", 0.5),
        ("a red car", {"answer_type": "words"}, "the red bus", 0.5),
        ("75", {}, "75", 1.0),
    ],
)
async def test_accuracy_goes_by_the_type_of_task(answer: Any, metadata: Any, said: str, accuracy: float) -> None:
    source = one_video(answer=answer, metadata=metadata)
    for judge in (None, ScriptedPolicy(["Verdict: 1"])):
        env = made("paravt", source=source, judge=judge)
        record = await play(env, ScriptedPolicy([right(said)]), env.tasks[0])
        assert values(record)["accuracy"] == pytest.approx(accuracy)


async def test_open_answers_are_judged() -> None:
    env = made("paravt", judge=ScriptedPolicy(["Verdict: 1"]))
    record = await play(env, ScriptedPolicy([right("seventy-five, I think")]), env.tasks[0])
    assert values(record)["accuracy"] == 1.0


def test_the_f1_of_words() -> None:
    assert token_f1("the red car", "Red car!") == 1.0
    assert token_f1("red", ["red car", "blue car"]) == pytest.approx(0.5)
    assert token_f1(None, "red") == token_f1("", "red") == token_f1("red", "") == 0.0
