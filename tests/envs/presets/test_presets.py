from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import agentenv
from agentenv.dialects import make_dialect
from agentenv.envs.presets._common import flat, last_answer_anywhere
from agentenv.errors import ConfigError, UnknownNameError
from agentenv.policy import ReferencePolicy, ScriptedPolicy
from agentenv.registry import load_object, registrations
from agentenv.rollout import play_group, score_group
from agentenv.trajectory import Trajectory
from agentenv.types import Action, Image
from tests.envs.presets.transcripts import ANSWER, grounding, hermes, made, one_task, play
from tests.pictures import encoded, scene

ZOOM = hermes("image_zoom_in_tool", bbox_2d=[100, 100, 400, 300])
CROP = hermes("crop_image_normalized", bbox_2d=[0.1, 0.1, 0.4, 0.4], target_image=1)
LOOK = hermes("image_zoom_in_tool", bbox_2d=[100, 100, 400, 300], label="sign", img_idx=0)
GROUND = grounding([0.1, 0.1, 0.4, 0.4])


def values(record: Trajectory) -> dict[str, float | None]:
    assert record.outcome is not None
    return {name: score.value for name, score in record.outcome.rewards.items()}


def boxes(record: Trajectory) -> list[list[int]]:
    """The regions that were shown, in pixels of the original."""
    images = [p for m in record.messages for p in m.parts if isinstance(p, Image) and p.derived]
    return [image.derived["box"] for image in images if image.derived and image.derived["op"] == "crop"]


# -- endings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "turns", "stop", "masked"),
    [
        ("deepeyes", {}, [ZOOM] * 5, "max_turns", False),
        ("deepeyes", {"size": "32b"}, [ZOOM] * 20, "max_turns", False),
        ("deepeyes", {"limits": {"turns": 40}}, [ZOOM] * 33, "max_images", False),
        ("deepeyes", {}, ["<think>Hm.</think> I do not know."], "no_call", False),
        ("deepeyes", {}, ["<tool_call>{nonsense}</tool_call>"] * 5, "max_turns", False),
        ("pixel_reasoner", {}, [CROP] * 4, "max_calls", False),
        ("pixel_reasoner", {}, [CROP] * 3 + ["\\boxed{B}"], "answer", False),
        ("pixel_reasoner", {}, ["x" * 60_000 + CROP], "max_tokens", False),
        ("mini_o3", {}, [GROUND] * 6, "max_turns", True),
        ("mini_o3", {}, [GROUND] * 5 + [ANSWER], "answer", False),
        ("mini_o3", {"turns": 12}, [GROUND] * 11 + [ANSWER], "answer", False),
        ("mini_o3", {"turns": 32}, [GROUND] * 12, "max_images", True),
        ("mini_o3", {}, ["x" * 130_000 + GROUND], "max_tokens", True),
        ("mini_o3", {}, ["<think>I cannot tell.</think>"], "no_call", False),
        ("qwen3vl_zoom", {}, [LOOK] * 20 + ["B"], "answer", False),
        ("qwen3vl_zoom", {}, [LOOK] * 21, "max_turns", False),
    ],
)
def test_each_limit_ends_the_episode_as_the_system_does(
    name: str, options: dict[str, Any], turns: list[str], stop: str, masked: bool
) -> None:
    env = made(name, **options)
    results = play(env, *turns)
    outcome = env.trajectory.outcome
    assert outcome is not None
    assert (outcome.stop_reason, outcome.masked, len(results)) == (stop, masked, len(turns))


def test_the_forced_turn_of_qwen_has_no_tools() -> None:
    env = made("qwen3vl_zoom")
    last = play(env, *[LOOK] * 20)[-1]
    assert last.observation.tools == ()
    assert "final answer now" in last.observation.messages[-1].text


def test_engines_stop_at_the_end_of_a_grounding() -> None:
    env = made("mini_o3")
    assert env.reset(seed=0).observation.stop == ("</grounding>",)
    cut = GROUND.removesuffix("</grounding>")
    assert boxes_after(env, cut) == [[120, 80, 480, 320]]


def boxes_after(env: Any, *turns: str) -> list[list[int]]:
    play(env, *turns)
    return boxes(env.trajectory)


# -- what models meet --------------------------------------------------------------------------------------------------


def test_the_schemas_are_those_that_checkpoints_know() -> None:
    def schema(name: str, **options: Any) -> tuple[str, dict[str, str], list[str]]:
        tool = made(name, **options).env_spec.tools[0]
        kinds = {key: value["type"] for key, value in tool.parameters["properties"].items()}
        return tool.name, kinds, tool.parameters["required"]

    zoom = {"bbox_2d": "array", "label": "string"}
    assert schema("deepeyes") == ("image_zoom_in_tool", zoom, ["bbox_2d"])
    assert schema("deepeyes", variant="upstream") == ("image_zoom_in_tool", zoom, ["bbox"])
    crop = {"bbox_2d": "array", "target_image": "number"}
    assert schema("pixel_reasoner") == ("crop_image_normalized", crop, ["bbox_2d", "target_image"])
    look = {"bbox_2d": "array", "label": "string", "img_idx": "number"}
    assert schema("qwen3vl_zoom") == ("image_zoom_in_tool", look, ["bbox_2d", "label", "img_idx"])


def test_frames_are_declared() -> None:
    frames = {name: made(name).env_spec.frame for name in ("deepeyes", "pixel_reasoner", "mini_o3", "qwen3vl_zoom")}
    assert frames == {
        "deepeyes": "pixels_shown",
        "pixel_reasoner": "relative_1",
        "mini_o3": "relative_1",
        "qwen3vl_zoom": "relative_1000",
    }


def test_the_unit_is_guessed_upstream_only() -> None:
    """[.5, .5, 1, 1] of 1000 x 1000 is the lower right quarter; upstream makes the upper left corner of it."""
    call = hermes("crop_image_normalized", bbox_2d=[0.5, 0.5, 1, 1], target_image=1)
    square = one_task(1000, 1000)
    assert boxes_after(made("pixel_reasoner", source=square), call) == [[400, 400, 1000, 1000]]
    assert boxes_after(made("pixel_reasoner", source=square, variant="upstream"), call) == [[0, 0, 101, 101]]
    fractions = hermes("crop_image_normalized", bbox_2d=[0.5, 0.5, 0.9, 0.9], target_image=1)
    assert boxes_after(made("pixel_reasoner", source=square, variant="upstream"), fractions) == [[400, 400, 1000, 1000]]


def test_mini_o3_crops_the_original_under_each_of_its_names() -> None:
    for source in ("original_image", "observation_0", "image_1"):
        assert boxes_after(made("mini_o3"), grounding([0.0, 0.0, 0.5, 0.5], source)) == [[0, 0, 600, 400]]
    env = made("mini_o3")
    shown = play(env, grounding([0, 0, 1, 0.5], "observation_3"))[-1].observation.messages[-1].text
    assert shown.startswith("ERROR occurs during grounding. Error Information: There is no image")


def test_deepeyes_uses_the_last_call_and_says_nothing_of_the_others() -> None:
    env = made("deepeyes")
    second = hermes("image_zoom_in_tool", bbox_2d=[0, 0, 301, 203])
    shown = play(env, ZOOM + second)[-1].observation.messages[-1]
    assert boxes(env.trajectory) == [[0, 0, 300, 200]]
    assert "not run" not in shown.text


def test_an_answer_ends_a_deepeyes_episode_even_beside_a_call() -> None:
    env = made("deepeyes")
    assert play(env, ZOOM + ANSWER)[-1].info["stop_reason"] == "answer"


def test_deepeyes_always_crops_the_original_and_resizes_in_eval_only() -> None:
    sizes = []
    for crops in ("train", "eval"):
        env = made("deepeyes", crops=crops)
        image = next(p for p in play(env, ZOOM)[-1].observation.messages[-1].parts if isinstance(p, Image))
        sizes.append((image.width, image.height))
    assert sizes[0] == tuple(boxes_size(boxes(env.trajectory)[0]))
    assert sizes[1] == (308, 196)


def boxes_size(box: list[int]) -> list[int]:
    return [box[2] - box[0], box[3] - box[1]]


def test_deepeyes_rotates_where_it_is_asked_to() -> None:
    env = made("deepeyes", rotate=True)
    play(env, hermes("image_rotate_tool", angle=90), ANSWER)
    assert [tool.name for tool in env.env_spec.tools] == ["image_zoom_in_tool", "image_rotate_tool"]
    assert values(env.trajectory)["tool"] == 1.0


# -- rewards -----------------------------------------------------------------------------------------------------------


def test_deepeyes_rewards_a_crop_only_with_a_right_answer() -> None:
    def total(*turns: str, **options: Any) -> float | None:
        env = made("deepeyes", **options)
        play(env, *turns)
        return env.trajectory.reward

    wrong = ANSWER.replace(">B<", ">A<")
    assert total(ZOOM, ANSWER) == pytest.approx(2.0)
    assert total(ANSWER) == pytest.approx(0.8)
    assert total(ZOOM, wrong) == pytest.approx(0.0)
    assert total(wrong.replace("</think>", "")) == pytest.approx(-0.2)
    assert total(ANSWER, rows="math") == pytest.approx(1.2)
    assert total("<think><answer>A</answer>", rows="math") == pytest.approx(-0.4)
    assert total("<answer>" + "B " * 600 + "</answer>") == pytest.approx(-0.2), "too long is wrong, and ill-formed"


def test_upstream_judges_the_template_where_no_answer_was_given() -> None:
    """The observation's template says <answer>...</answer>; upstream takes "..." for the answer."""
    env = made("deepeyes", source=one_task(answer="...", metadata={}))
    play(env, *[ZOOM] * 5)
    assert last_answer_anywhere(env.trajectory) == "..."
    scored = values(env.trajectory)
    assert (scored["accuracy"], scored["accuracy_upstream"]) == (0.0, 0.0)
    env = made("deepeyes", source=one_task(answer="the sign", metadata={}))
    play(env, "<think>It may be <answer>the sign</answer></think> no answer")
    scored = values(env.trajectory)
    assert (scored["accuracy"], scored["accuracy_upstream"]) == (0.0, 1.0)


def test_the_chosen_scorer_is_rewarded_and_the_other_recorded() -> None:
    for scoring, weights in (("strict", (0.8, 0.0)), ("upstream", (0.0, 0.8))):
        env = made("deepeyes", scoring=scoring)
        play(env, ANSWER)
        assert env.trajectory.outcome is not None
        rewards = env.trajectory.outcome.rewards
        assert (rewards["accuracy"].weight, rewards["accuracy_upstream"].weight) == weights


def test_a_right_answer_after_a_failed_call_counts_nothing_for_pixel_reasoner() -> None:
    bad = hermes("crop_image_normalized", bbox_2d=[0.1, 0.1, 0.4, 0.4], target_image=9)
    for turns, accuracy in (((bad, "\\boxed{B}"), 0.0), ((bad, CROP, "\\boxed{B}"), 1.0), (("\\boxed{B}",), 1.0)):
        env = made("pixel_reasoner")
        play(env, *turns)
        assert values(env.trajectory)["accuracy"] == accuracy


async def test_curiosity_is_paid_when_the_group_is_complete() -> None:
    env = made("pixel_reasoner")
    first = ScriptedPolicy([CROP, "\\boxed{B}"])
    others = ScriptedPolicy(["\\boxed{B}"])
    task = env.tasks[0]
    played = [await play_group(env, policy, task, 1, seed=0) for policy in (first, *[others] * 7)]
    members = score_group(env, task, [group[0] for group in played])
    totals = [member.reward for member in members]
    assert totals == pytest.approx([1.0 + 0.25 * (0.3 - 1 / 8) / 2.0 / (1 / 8), *[1.0] * 7])


# -- the parts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["deepeyes", "pixel_reasoner", "mini_o3"])
def test_words_that_are_not_known_are_refused(name: str) -> None:
    with pytest.raises(UnknownNameError, match="strict"):
        made(name, variant="stict")


def test_sources_are_those_of_the_zoom_environment(tmp_path: Path) -> None:
    (tmp_path / "sign.png").write_bytes(encoded(scene(300, 200), "PNG"))
    (tmp_path / "rows.jsonl").write_text('{"question": "Which colour?", "image": "sign.png", "answer": "blue"}\n')
    env = made("mini_o3", source=str(tmp_path / "rows.jsonl"))
    assert env.reset(seed=0).observation.messages[-1].text == "Which colour?"
    assert play(env, ANSWER.replace(">B<", ">blue<"))[-1].reward == 1.0
    with pytest.raises(UnknownNameError, match="vstar:PATH"):
        made("mini_o3", source="vstarr")
    with pytest.raises(UnknownNameError, match="test_questions"):
        made("mini_o3", source=f"vstar:{tmp_path}")


def test_demonstrations_are_written_as_the_system_writes() -> None:
    for name in ("deepeyes", "mini_o3", "pixel_reasoner", "qwen3vl_zoom"):
        env = made(name)
        record = asyncio.run(play_group(env, ReferencePolicy(), env.tasks[0], 1))[0]
        (box,) = boxes(record)
        left, top, right, bottom = box
        assert left < 300 < 420 < right
        assert top < 200 < 280 < bottom


def test_limits_are_replaced_field_by_field() -> None:
    limits = made("mini_o3", limits={"turns": 9}).env_spec.limits
    assert (limits.turns, limits.images, limits.on_turns) == (9, 11, "mask")
    whole = made("mini_o3", limits=agentenv.Limits(turns=2)).env_spec.limits
    assert (whole.turns, whole.images) == (2, None)
    with pytest.raises(ConfigError, match="turns"):
        made("mini_o3", limits={"turn": 9})


def test_every_preset_is_registered_and_rebuilds_from_its_record() -> None:
    presets = [item for item in registrations().values() if item.preset]
    assert {item.id for item in presets} >= {"deepeyes", "mini-o3", "pixel-reasoner", "qwen3vl-zoom", "thyme"}
    assert all(callable(load_object(item.entry_point)) for item in presets)
    env = made("deepeyes", variant="upstream", size="32b")
    env.reset(seed=0)
    spec = env.trajectory.env
    assert spec.entry_point.endswith("deepeyes:deepeyes")
    assert {key: spec.kwargs[key] for key in ("variant", "size")} == {"variant": "upstream", "size": "32b"}


def test_tool_output_and_questions_cannot_speak_as_the_model() -> None:
    env = made("mini_o3", source=one_task(metadata={"options": ["red", "blue"]}))
    play(env, GROUND, ANSWER)
    assert "<image>" in flat(env.trajectory)
    told = make_dialect("hermes", env.env_spec.tools, answer="text", block="Just ask.")
    assert told.instructions() == "Just ask."
    assert make_dialect("private_tag", env.env_spec.tools).instructions().startswith("You can call")
    assert told.results(()) == ()
    assert told.parse(Action("fine")).answer == "fine"


@pytest.mark.parametrize("name", ["deepeyes", "pixel_reasoner", "mini_o3", "qwen3vl_zoom", "thyme"])
def test_presets_pass_the_contract_of_environments(name: str) -> None:
    report = agentenv.check_env(made(name, **({"curious": False} if name == "pixel_reasoner" else {})))
    assert all(finding.level == "ok" for finding in report.findings), report


def test_generated_scenes_are_the_default_tasks() -> None:
    env = agentenv.make("agentenv.envs.presets.mini_o3:mini_o3", difficulty=1, split="test")
    observation = env.reset(seed=0).observation
    image = next(part for part in observation.messages[-1].parts if isinstance(part, Image))
    assert 1_900_000 < image.width * image.height <= 2_000_000
    result = asyncio.run(env.astep(grounding([0.0, 0.0, 0.1, 0.1])))
    shown = next(part for part in result.observation.messages[-1].parts if isinstance(part, Image))
    assert shown.derived is not None
    assert max(shown.derived["size"]) > 4000
