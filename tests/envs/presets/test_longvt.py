from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentenv
from agentenv.env import Env
from agentenv.envs.presets.longvt import verdict_upstream
from agentenv.errors import UnknownNameError
from agentenv.policy import ReferencePolicy, ScriptedPolicy
from agentenv.rollout import play
from agentenv.types import Image, Task, Text, Video
from tests.envs.presets.transcripts import equals_golden, hermes
from tests.envs.presets.transcripts import play as played
from tests.envs.presets.videos import crop, film, frames, made, one_video, right, values
from tests.tools.video import clips

THOUGHT = "<think>I look closer.</think>"
TURNS = (
    crop(2, 6),
    crop(8, 30, path="/data/films/other.mp4"),
    hermes("crop_video", video_path="video_1.mp4", start_time=5),
    crop(4, 4.5) + "\n" + crop(20, 25),
    right(),
)


@pytest.mark.parametrize("variant", ["strict", "upstream"])
def test_a_scripted_episode_reads_as_its_golden_file(variant: str) -> None:
    env = made("longvt", variant=variant)
    played(env, *TURNS)
    equals_golden("longvt" + ("" if variant == "strict" else "-upstream"), env)


def test_it_passes_the_contract_of_environments() -> None:
    report = agentenv.check_env(made("longvt"), quiet=True)
    assert all(finding.level == "ok" for finding in report.findings), report


def test_films_are_the_default_tasks_and_a_demonstration_earns_everything(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run = agentenv.rollout("longvt", "reference", tasks=2, difficulty=1, frames=32, out=tmp_path / "run")
    assert [record.reward for record in run] == [3.0, 3.0]


def test_data_sets_are_those_of_the_video_environment(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "A1.mp4").write_bytes(clips.video("mp4")[0])
    (tmp_path / "sta.txt").write_text("A1 2.0 6.0##a number is shown.\n")
    source = f"charades:{tmp_path / 'sta.txt'}"
    run = agentenv.rollout("longvt", "reference", source=source, videos=str(tmp_path / "clips"), recipe="grounding")
    assert [record.reward for record in run] == [2.0]
    run = agentenv.rollout("paravt", "reference", source=source, videos=str(tmp_path / "clips"))
    assert [record.reward for record in run] == [pytest.approx(2.5)]


# -- endings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "turns", "stop"),
    [
        ({}, [crop(1, 2)] * 5, "max_turns"),
        ({}, [crop(1, 2) * 5, right()], "answer"),
        ({}, [crop(1, 2) * 6], "max_calls"),
        ({"variant": "upstream"}, [crop(1, 2) * 5], "max_calls"),
        ({"variant": "upstream"}, [crop(1, 2) * 4, right()], "answer"),
        ({}, ["<tool_call>{nonsense}</tool_call>"], "invalid"),
        ({}, ["<think>Hm.</think> I do not know."], "no_call"),
        ({"limits": {"tokens": 600}}, [crop(0, 10)], "max_tokens"),
    ],
)
def test_each_limit_ends_the_episode_as_the_system_does(options: dict[str, Any], turns: list[str], stop: str) -> None:
    env = made("longvt", **options)
    results = played(env, *turns)
    assert (env.trajectory.stop_reason, len(results)) == (stop, len(turns))


def test_frames_cost_tokens_and_an_observation_without_room_is_rolled_back() -> None:
    env = made("longvt", limits={"tokens": 700}, first_view="frames")
    played(env, crop(0, 10))
    assert frames(env) == [10], "the clip was never seen"
    assert values(env.trajectory)["time"] == 0.0
    asked = env.trajectory.messages[1]
    images = [part for part in asked.parts if isinstance(part, Image)]
    assert (images[0].width % 28, images[0].height % 28) == (0, 0)
    each = images[0].width // 28 * images[0].height // 28 + 2
    assert env.rules.count(asked) == pytest.approx(10 * each + len(asked.text) / 4, abs=5)


def test_a_video_part_costs_half_of_what_its_frames_cost() -> None:
    def cost(form: str) -> int:
        env = made("longvt", first_view=form)
        env.reset(seed=0)
        return env.rules.count(env.trajectory.messages[1]) - len(env.trajectory.messages[1].text) // 4

    assert cost("video") == pytest.approx(cost("frames") / 2, abs=4)


# -- what models meet --------------------------------------------------------------------------------------------------


def tool_of(env: Env) -> tuple[str, dict[str, str], list[str]]:
    tool = env.env_spec.tools[0]
    kinds = {key: value["type"] for key, value in tool.parameters["properties"].items()}
    return tool.description, kinds, tool.parameters["required"]


def test_the_schema_is_that_which_checkpoints_know() -> None:
    kinds = {"video_path": "string", "start_time": "number", "end_time": "number"}
    assert tool_of(made("longvt")) == ("Crop a video to a specified duration.", kinds, [])
    assert tool_of(made("longvt", schema="eval"))[2] == list(kinds)
    assert made("longvt").env_spec.frame == "seconds"


@pytest.mark.parametrize(
    ("options", "call", "shown"),
    [
        ({}, crop(8, 11), 2),
        ({"clamp_end": False}, crop(8, 11), "leaves the video"),
        ({"variant": "upstream"}, crop(8, 11), "leaves the video"),
        ({"variant": "upstream", "clamp_end": True}, crop(8, 11), 2),
        ({}, crop(-1, 2), "leaves the video"),
        ({}, crop(12, 13), "starts at 12 s"),
        ({}, crop(3, 3), "empty"),
        ({}, crop(3, None), "'end_time' is missing"),
        ({}, crop(3, 5, path=" "), "'video_path' is missing"),
        ({}, crop(3, 5, path="../../etc/passwd"), 2),
        ({"variant": "upstream"}, crop(3, 5, path="/etc/passwd"), "There is no image or video"),
        ({"variant": "upstream"}, crop(3, 5), 2),
        ({"schema": "eval"}, hermes("crop_video", start_time=1, end_time=2), "'video_path' is missing"),
    ],
)
def test_what_a_call_may_say(options: dict[str, Any], call: str, shown: int | str) -> None:
    env = made("longvt", **options)
    played(env, call)
    last = env.trajectory.messages[-1]
    if isinstance(shown, int):
        assert sum(isinstance(part, Image) for part in last.parts) == shown
        assert last.text.endswith("Here are the processed result\n</tool_response>")
    else:
        assert last.text.startswith("<tool_response>\nTool execution failed: ")
        assert shown in last.text


def test_the_first_view_is_a_video_or_frames() -> None:
    env = made("longvt", frames=4)
    env.reset(seed=0)
    parts = env.trajectory.messages[1].parts
    assert isinstance(parts[0], Video)
    assert (len(parts[0].frames), parts[0].handle, parts[0].sha256) == (4, "video_1", film().sha256)
    played(env, crop(2, 6), right())
    assert env.trajectory.reward == 3.0
    env = made("longvt", frames=4, first_view="frames")
    env.reset(seed=0)
    assert [type(part) for part in env.trajectory.messages[1].parts] == [Image] * 4 + [Text]


@pytest.mark.parametrize("option", ["variant", "scoring", "recipe", "schema", "first_view"])
def test_words_that_are_not_known_are_refused(option: str) -> None:
    with pytest.raises(UnknownNameError, match="known"):
        made("longvt", **{option: "nonsense"})
    with pytest.raises(UnknownNameError, match="films"):
        made("longvt", source="filmz")


# -- rewards -----------------------------------------------------------------------------------------------------------


def scored(*turns: str, **options: Any) -> dict[str, float | None]:
    env = made("longvt", **options)
    played(env, *turns)
    return values(env.trajectory) | {"reward": env.trajectory.reward}


@pytest.mark.parametrize(
    ("recipe", "reward"),
    [("iou", 2.5), ("recall", 2.5), ("tool", 3.0), ("plain", 2.0), ("default", 1.0), ("grounding", 1.0), ("eval", 1.0)],
)
def test_each_recipe_weighs_its_parts(recipe: str, reward: float) -> None:
    got = scored(crop(2, 4), right(), recipe=recipe)
    assert got["reward"] == pytest.approx(reward)
    assert all(got[name] == got[f"{name}_upstream"] for name in ("accuracy", "format", "time", "tool") if name in got)


def test_recall_is_hacked_by_widening_and_iou_is_not() -> None:
    assert scored(crop(0, 10), right(), recipe="recall")["time"] == 1.0
    assert scored(crop(0, 10), right())["time"] == pytest.approx(0.4)


def test_grounding_scores_an_answered_window() -> None:
    assert scored(right("[2, 4]"), recipe="grounding")["grounding"] == 0.5


def test_a_failed_call_earns_its_window_upstream_only() -> None:
    got = scored(crop(2, 6, path="/etc/passwd"), right(), variant="upstream")
    assert (got["time"], got["time_upstream"]) == (0.0, 1.0)


def test_upstream_reads_calls_as_python() -> None:
    null = hermes("crop_video", video_path="video_1.mp4", start_time=2, end_time=6, fps=None)
    got = scored(crop(8, 9), null, right())
    assert (got["time"], got["time_upstream"]) == (0.0, 0.0), "null is passed over, the window before is far off"
    got = scored(crop(2, 6), null.replace("null", "nul\\d"), right())
    assert got["time_upstream"] == 1.0
    python = "{'name': 'crop_video', 'arguments': {'start_time': 2, 'end_time': 6}}"
    python = f"{THOUGHT}<tool_call>{python}</tool_call>"
    assert scored(python, right())["time_upstream"] == 0.0, "nothing came back"
    for body in ("[" * 9_000, "x" * 11_000, "[1]", '{"name": "other", "arguments": {}}', "{'a': 1}"):
        assert scored(crop(2, 6) + f"<tool_call>{body}</tool_call>", right())["time_upstream"] == 1.0


def test_upstream_wants_one_list_of_two_numbers() -> None:
    env = made("longvt", source=one_video(evidence={"spans": [[2.0, 4.0], [4.0, 6.0]]}))
    played(env, crop(2, 6), right())
    assert (values(env.trajectory)["time"], values(env.trajectory)["time_upstream"]) == (1.0, 0.0)
    for spans, earned in (([[2.0, 6.0]], 1.0), (np.array([[2.0, 6.0]]), 0.0)):
        task = Task("film", (), "75", {"spans": spans})
        assert {c.name: c.fn(task, env.trajectory) for c in env.rubric.components}["time_upstream"] == earned
    env = made("longvt", source=one_video(evidence={}))
    played(env, crop(2, 6), right())
    assert values(env.trajectory)["time"] is None
    assert env.trajectory.reward is None


def test_format() -> None:
    def form(*turns: str) -> tuple[float | None, float | None]:
        got = scored(*turns)
        return got["format"], got["format_upstream"]

    assert form(crop(2, 6), right()) == (1.0, 1.0)
    assert form(right()) == (1.0, 1.0)
    assert form("<answer>75</answer>") == (0.0, 0.0)
    assert form(crop(2, 6).replace(THOUGHT, ""), right()) == (0.0, 0.0)
    assert form(crop(2, 6), right() + right()) == (0.0, 0.0)
    assert form("so: " + right()) == (1.0, 0.0), "upstream wants nothing around an answer without tools"
    assert form(crop(2, 6) + crop(2, 6).replace(THOUGHT, ""), right()) == (0.0, 0.0), (
        "a thought stands before each call"
    )
    assert form(crop(2, 6), right("75 " * 400)) == (0.0, 0.0)
    assert form(right("75 </think>")) == (0.0, 0.0)


def test_long_answers_are_wrong_and_ill_formed() -> None:
    got = scored(right("75 " * 400))
    assert (got["accuracy"], got["format"]) == (0.0, 0.0)


def test_a_tool_bonus_stands_behind_the_gate_of_accuracy() -> None:
    assert scored(crop(2, 6), right("76"), recipe="tool")["tool"] == 0.0
    assert scored(right(), recipe="tool")["tool"] == 0.0
    got = scored(crop(2, 99, path="x"), right(), recipe="tool", variant="upstream")
    assert (got["tool"], got["tool_upstream"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("Verdict: 1", 1.0),
        ("Verdict: 0.5", 0.5),
        ("0.5 s off. Verdict: 1", 0.5),
        ("Verdict: 0", 0.0),
        ("no", None),
    ],
)
def test_upstream_finds_a_half_anywhere(reply: str, found: float | None) -> None:
    assert verdict_upstream(reply) == found


async def test_a_judge_may_give_half() -> None:
    for reply, values_ in (("Verdict: 0.5", (0.5, 0.5)), ("0.5 s late.\nVerdict: 1", (1.0, 0.5))):
        env = made("longvt", judge=ScriptedPolicy([reply]))
        record = await play(env, ScriptedPolicy([crop(2, 6), right("a car")]), env.tasks[0])
        got = values(record)
        assert (got["accuracy"], got["accuracy_upstream"]) == values_


async def test_a_span_is_measured_and_never_judged() -> None:
    source = one_video(answer=[2.0, 6.0], metadata={"answer_type": "span"})
    env = made("longvt", source=source, judge=ScriptedPolicy([]))
    record = await play(env, ScriptedPolicy([crop(2, 6), right("[2, 4]")]), env.tasks[0])
    assert values(record)["accuracy"] == 0.5


async def test_the_published_evaluation_asks_the_rules_first() -> None:
    env = made("longvt", recipe="eval", judge=ScriptedPolicy([]))
    record = await play(env, ScriptedPolicy([right()]), env.tasks[0])
    assert record.reward == 1.0


def test_a_record_is_rebuilt_and_demonstrated() -> None:
    env = made("longvt")
    record = asyncio.run(play(env, ReferencePolicy(), env.tasks[0]))
    assert record.reward == 3.0
    again = agentenv.make("longvt", **{**record.env.kwargs, "source": one_video()})
    assert again.env_spec.hash == record.env_hash
