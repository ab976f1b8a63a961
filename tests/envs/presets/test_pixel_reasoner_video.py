from __future__ import annotations

from typing import Any

import pytest

import agentenv
from agentenv.envs.presets.pixel_reasoner import _frame_steps
from agentenv.errors import UsageError
from agentenv.policy import ScriptedPolicy
from agentenv.rollout import play_group, score_group
from agentenv.types import Image
from tests.envs.presets.transcripts import equals_golden, hermes
from tests.envs.presets.transcripts import play as played
from tests.envs.presets.videos import made, one_video, values

BOXED = "The number is \\boxed{75}."


def select(*numbers: float) -> str:
    return hermes("select_frames", target_frames=list(numbers))


def env(**options: Any) -> Any:
    return made("pixel-reasoner", video=True, **options)


def test_a_scripted_episode_reads_as_its_golden_file() -> None:
    world = env()
    crop = hermes("crop_image_normalized", bbox_2d=[0.25, 0.25, 0.5, 0.5], target_image=17)
    played(world, select(4, 5), select(0), crop, BOXED)
    equals_golden("pixel-reasoner-video", world)


def test_it_passes_the_contract_of_environments() -> None:
    report = agentenv.check_env(env(curious=False), quiet=True)
    assert all(finding.level == "ok" for finding in report.findings), report


def test_selected_frames_are_the_numbered_ones_in_the_order_that_was_asked_for() -> None:
    world = env()
    played(world, select(16, 1, 16))
    first = [part for part in world.trajectory.messages[1].parts if isinstance(part, Image)]
    assert (len(first), first[0].handle) == (16, "image_1")
    shown = world.trajectory.messages[-1]
    times = [part.derived["time"] for part in shown.parts if isinstance(part, Image) and part.derived]
    assert times == [(first[15].derived or {})["time"], (first[0].derived or {})["time"]]
    assert shown.text.strip() == "Here are the selected frames (Frame Size: 160x96, Numbered 1 to 2):"


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([17], "There is no frame 17; frames are numbered 1 to 16."),
        ([0], "There is no frame 0"),
        ([1.5], "There is no frame 1.5"),
        ([-1], "There is no frame -1"),
        ([1] * 9, "at most 8"),
        ([], "at least 1"),
    ],
)
def test_frames_that_cannot_be_selected(numbers: list[float], said: str) -> None:
    world = env()
    played(world, select(*numbers))
    text = world.trajectory.messages[-1].text
    assert text.startswith("\nExecution error:\n")
    assert said in text


def test_a_selected_frame_joins_the_images_and_numbers_stay_those_of_the_first_view() -> None:
    world = env()
    played(world, select(2), hermes("crop_image_normalized", bbox_2d=[0, 0, 0.5, 0.5], target_image=17), select(17))
    assert [run.error_kind for run in world.trajectory.tool_runs] == [None, None, "invalid_arguments"]


def test_an_expert_selects_the_frames_of_the_evidence() -> None:
    world = env(source=one_video(evidence={"spans": [[2.0, 3.0], [9.99, 10.0]]}))
    task = world.tasks[0]
    assert task.evidence["steps"] == [{"tool": "select_frames", "arguments": {"target_frames": [4, 5, 16]}}]
    assert _frame_steps(env(source=one_video(evidence={"spans": []})).tasks[0]) == []


async def test_curiosity_is_that_for_videos() -> None:
    world = env()
    first, others = ScriptedPolicy([select(1), BOXED]), ScriptedPolicy([BOXED])
    task = world.tasks[0]
    group = [(await play_group(world, policy, task, 1, seed=0))[0] for policy in (first, *[others] * 7)]
    members = score_group(world, task, group)
    assert members[0].reward == pytest.approx(1.0 + 0.25 * (0.3 - 1 / 8) / 1.5 / (1 / 8))
    assert values(members[1])["accuracy"] == 1.0


def test_scenes_are_no_videos() -> None:
    with pytest.raises(UsageError, match="source of videos"):
        env(source="scenes")
