from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import agentenv
from agentenv.envs.presets._web import GIVE_UP, summary_of, text_search
from agentenv.envs.presets.geovista import HINT
from agentenv.envs.search.sources import as_retriever
from agentenv.errors import ConfigError, UnknownNameError, UsageError
from agentenv.media import media_store
from agentenv.policy import ScriptedPolicy
from agentenv.spec import Texts
from agentenv.tools.image import SmartResize
from agentenv.tools.search import PolicySummary
from agentenv.tools.web.engines import LiveEngine
from agentenv.types import Image
from tests.envs.presets.looked_up import PLACE, documents, made
from tests.envs.presets.transcripts import hermes, play
from tests.pictures import encoded, scene

SEARCH = "<think>I look.</think>\n<search>Blue Tower</search>"
WHOLE = "<reason>I look.</reason>\n<search><img></search>"
TEXT = "<reason>I look.</reason>\n<text_search>Port Amber</text_search>"
RIGHT = "<reason>I see.</reason>\n<answer>41,200</answer>"
ZOOM = hermes("image_zoom_in_tool", bbox_2d=[0, 0, 300, 300])
WEB = hermes("search_web", query="Port Amber")


def values(env: Any) -> dict[str, float | None]:
    assert env.trajectory.outcome is not None
    return {name: score.value for name, score in env.trajectory.outcome.rewards.items()}


def rewarded(env: Any, *turns: str) -> float:
    play(env, *turns)
    reward = env.trajectory.outcome.reward
    assert reward is not None
    return float(round(reward, 6))


# -- Search-R1 ---------------------------------------------------------------------------------------------------------


def test_search_r1_has_one_more_turn_without_search(tmp_path: Path) -> None:
    env = made("search-r1", tmp_path)
    last = play(env, *[SEARCH] * 4)[-1]
    assert last.observation.tools == ()
    assert last.observation.messages[-1].text.endswith("</information>\n\n")
    assert env.step(SEARCH).truncated
    assert env.trajectory.outcome is not None
    assert env.trajectory.outcome.stop_reason == "max_turns"


def test_a_long_observation_is_cut_at_500_tokens(tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    file.write_text('{"id": "a", "title": "A", "text": "' + "word " * 900 + '"}', encoding="utf-8")
    for variant, end in (("strict", " [cut]</information>\n\n"), ("upstream", "o</information>\n\n")):
        env = made("search-r1", tmp_path, corpus=str(file), excerpt=None, variant=variant)
        shown = play(env, "<search>word</search>")[-1].observation.messages[-1].text
        assert (1990 < len(shown) < 2060 and shown.rstrip(" ").endswith(end)) or "wor" in shown[-30:]


@pytest.mark.parametrize(
    ("turns", "strict", "upstream"),
    [
        ([SEARCH, "<think>a</think>\n<answer>41,200</answer>"], 1.0, 1.0),
        ([SEARCH, "<answer>41,200</answer>"], 0.8, 0.8),
        (["<think>a</think><search>Port Amber</search>", "<think>a</think>\n<answer>7</answer>"], 0.3, 0.3),
        ([SEARCH.replace("Blue Tower", "Red Mill"), "<think>a</think>\n<answer>7</answer>"], 0.2, 0.2),
        (["<answer>7</answer>"], 0.1, 0.1),
        (["hm"] * 5, 0.0, 0.1),  # upstream takes the example of the prompt, or the reminder, for an answer
    ],
)
def test_the_format_recipe(turns: list[str], strict: float, upstream: float, tmp_path: Path) -> None:
    env = made("search-r1", tmp_path, recipe="format", k=1)
    play(env, *turns)
    found = values(env)
    assert (found["formatted"], found["formatted_upstream"]) == (strict, upstream)


def test_the_example_of_the_prompt_can_be_right_upstream(tmp_path: Path) -> None:
    task = made("search-r1", tmp_path).tasks[0]
    env = made("search-r1", tmp_path, source=agentenv.TaskSet.of([agentenv.Task("p", task.prompt, "Paris")]))
    play(env, "<think>a</think><search>x</search>", *["<search>x</search>"] * 4)
    found = values(env)
    assert (found["em"], found["em_upstream"]) == (0.0, 1.0)


def test_sets_are_one_answer(tmp_path: Path) -> None:
    task = agentenv.Task("s", made("search-r1", tmp_path).tasks[0].prompt, ["A", "B"], metadata={"answer_type": "set"})
    env = made("search-r1", tmp_path, source=agentenv.TaskSet.of([task]))
    assert rewarded(env, "<answer>A</answer>") == 0.0
    assert rewarded(env, "<answer>A, B</answer>") == 1.0


# -- MMSearch-R1 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("turns", "strict", "upstream"),
    [
        ([RIGHT], 1.0, 1.0),
        ([WHOLE, RIGHT], 0.91, 0.91),
        ([TEXT, RIGHT], 0.91, 0.91),
        ([WHOLE, TEXT, RIGHT], 0.91, 0.91),
        ([TEXT, TEXT, RIGHT], 0.91, 0.81),  # not one of upstream's four shapes
        (["<answer>41200</answer>"], 0.9, 0.9),
        ([WHOLE, "<reason>a</reason><answer>7</answer>"], 0.1, 0.1),
        ([WHOLE, TEXT, TEXT], 0.0, 0.0),
    ],
)
def test_the_reward_of_mmsearch_r1(turns: list[str], strict: float, upstream: float, tmp_path: Path) -> None:
    for scoring, reward in (("strict", strict), ("upstream", upstream)):
        assert rewarded(made("mmsearch-r1", tmp_path, scoring=scoring), *turns) == reward


def test_mmsearch_r1_searches_with_the_whole_picture_only(tmp_path: Path) -> None:
    env = made("mmsearch-r1", tmp_path)
    seen = play(env, "<reason>a</reason><search>the tower</search>")[-1].observation.messages[-1].text
    assert "Only the whole picture can be searched for." in seen
    assert "</information>\nOriginal user's question: How many" in seen


@pytest.mark.parametrize(
    ("turns", "strict", "upstream"),
    [
        (["Well. " + RIGHT], 1.0, 0.0),
        ([RIGHT + "\nDone."], 1.0, 0.0),
        ([RIGHT.replace("</answer>", "")], 1.0, 0.0),
        (["<reason>a</reason> so <answer>b</answer>\n"], 1.0, 1.0),
        ([WHOLE, RIGHT.replace("I see.", "<text_search>")], 0.0, 0.0),
        ([WHOLE, WHOLE, RIGHT], 0.0, 0.0),
        ([TEXT + " now", RIGHT], 1.0, 0.0),
        ([WHOLE, TEXT], 0.0, 0.0),
    ],
)
def test_what_upstream_takes_for_its_format(turns: list[str], strict: float, upstream: float, tmp_path: Path) -> None:
    env = made("mmsearch-r1", tmp_path)
    play(env, *turns)
    if env.trajectory.outcome is None:
        env.step("")
    found = values(env)
    assert (found["format"], found["format_upstream"]) == (strict, upstream)


def test_upstream_takes_off_a_search_that_failed(tmp_path: Path) -> None:
    turns = ["<reason>a</reason><search>the tower</search>", RIGHT]
    assert rewarded(made("mmsearch-r1", tmp_path), *turns) == 1.0
    assert rewarded(made("mmsearch-r1", tmp_path, scoring="upstream"), *turns) == 0.81


def test_after_a_text_search_mmsearch_r1_is_told_to_answer_or_to_give_up(tmp_path: Path) -> None:
    env = made("mmsearch-r1", tmp_path)
    told = play(env, TEXT)[-1].observation.messages[-1].text
    assert told.startswith("Searched results: <information>1. ")
    assert "<text_search>" not in told
    assert env.step(f"<reason>a</reason>\n{GIVE_UP}").truncated is False
    assert (env.trajectory.outcome.stop_reason, env.trajectory.reward) == ("no_call", 0.0)  # type: ignore[union-attr]


# -- DeepMMSearch-R1 ---------------------------------------------------------------------------------------------------


def test_ten_calls_and_a_forced_answer(tmp_path: Path) -> None:
    env = made("deepmmsearch-r1", tmp_path)
    last = play(env, *[TEXT] * 11)[-1]
    assert "No search is left." in last.observation.messages[-1].text
    assert last.observation.tools == ()
    env.step(f"<reason>a</reason><answer>{GIVE_UP}</answer>")
    found = values(env)
    assert (found["accuracy"], found["gave_up"], found["format"]) == (0.0, 1.0, 1.0)


def test_a_phrase_is_grounded_by_a_function_or_a_model(tmp_path: Path) -> None:
    asked: list[str] = []

    def left_half(file: bytes, words: str) -> tuple[int, int, int, int]:
        asked.append(words)
        return 0, 0, 120, 240

    call = "<reason>a</reason><img_search>the tower</img_search>"
    model = ScriptedPolicy(["[0, 0, 500, 1000]"])
    for ground in (left_half, model):
        env = made("deepmmsearch-r1", tmp_path, ground=ground)
        play(env, call)
        assert (env.trajectory.tool_runs[0].data or {})["box"] == [0, 0, 120, 240]
    assert asked == ["the tower"]


def test_a_phrase_that_nothing_matches_can_be_said_in_other_words(tmp_path: Path) -> None:
    env = made("deepmmsearch-r1", tmp_path, ground=lambda file, words: (0, 0, 9, 9) if words == "tower" else None)
    calls = [f"<reason>a</reason><img_search>{words}</img_search>" for words in ("a mill", "tower", "<img>")]
    results = play(env, *calls)
    assert "Say it in other words" in results[0].observation.messages[-1].text
    assert [run.error_kind for run in env.trajectory.tool_runs] == ["failed", None, "limit"]


def test_results_are_summed_up_and_recorded(tmp_path: Path) -> None:
    env = made("deepmmsearch-r1", tmp_path, summary=lambda query, hits, question: f"{len(hits)} on {question}")
    seen = play(env, TEXT)[-1].observation.messages[-1].text
    assert "on How many inhabitants has the city where this stands?" in seen
    assert (env.trajectory.tool_runs[0].data or {})["summary"]["text"] in seen


def test_a_summariser_is_a_function_a_model_or_none() -> None:
    function: Any = repr
    assert summary_of(None, "4") is None
    assert summary_of(function, "4") is function
    assert isinstance(summary_of(ScriptedPolicy(["x"]), "4-5"), PolicySummary)


# -- GeoVista ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "strict", "upstream"),
    [
        ("Port Amber, Coast, Westland", 4, 4),
        ('{"country": "Westland", "state": "Coast", "city": "Dry Hill"}', 2, 2),
        ('{"country": "Westland", "state": "Plain", "city": "Dry Hill"}', 1, 1),
        ('{"country": "Eastland", "state": "Coast", "city": "Port Amber"}', 0, 4),
        ("Nowhere", 0, 0),
    ],
)
def test_the_hierarchy_of_geovista(answer: str, strict: float, upstream: float, tmp_path: Path) -> None:
    env = made("geovista", tmp_path)
    play(env, f"<answer>{answer}</answer>")
    found = values(env)
    assert (found["place"], found["place_upstream"]) == (strict / 4, upstream / 4)


def test_recipes_of_geovista(tmp_path: Path) -> None:
    turns = [WEB, f"<answer>{PLACE['city']}, {PLACE['country']}</answer>"]
    rewards = {r: rewarded(made("geovista", tmp_path, recipe=r), *turns) for r in ("base", "v1", "v2", "v3", "v4")}
    assert rewards == {"base": 4.0, "v1": 4.5, "v2": 5.0, "v3": 1.0, "v4": 1.0}


@pytest.mark.parametrize(
    ("right", "reward"), [(("city",), 4.0), (("state",), 2.0), (("country",), 1.0), ((), 0.0), (None, None)]
)
def test_a_judge_is_asked_from_the_city_upwards(
    right: tuple[str, ...] | None, reward: float | None, tmp_path: Path
) -> None:
    def judge(observation: Any) -> str:
        asked = observation.messages[-1].text
        return "hm" if right is None else str(int(any(f"In which {level}" in asked for level in right)))

    env = made("geovista", tmp_path, judge=agentenv.make_policy(judge))
    play(env, "<answer>the harbour town</answer>")
    assert (values(env)["place"], env.trajectory.reward) == (None if reward is None else reward / 4, reward)
    play(env, f"<answer>{PLACE['city']}, {PLACE['country']}</answer>")
    assert values(env)["place"] == 1.0


def test_what_a_task_of_geovista_does_not_know_is_unscored(tmp_path: Path) -> None:
    photo = made("geovista", tmp_path).tasks[0].prompt
    for place, recipe, judge in (
        ({"lat": 1.0, "lng": 2.0}, "base", None),
        ({"country": "Westland"}, "v4", None),
        ({"country": "Westland"}, "v4", ScriptedPolicy(["1"])),
        ({}, "base", ScriptedPolicy(["1"])),
    ):
        task = agentenv.Task("p", photo, place, metadata={"place": place})
        env = made("geovista", tmp_path, source=agentenv.TaskSet.of([task]), recipe=recipe, judge=judge)
        play(env, "<answer>Westland</answer>")
        assert (values(env)["place"], env.trajectory.reward) == (None, None)


def test_boxes_of_geovista_are_of_the_image_as_it_is_sent_upstream(tmp_path: Path) -> None:
    photo = media_store().put(encoded(scene(3000, 2000), "PNG"))
    source = agentenv.TaskSet.of([agentenv.Task("p", (photo,), PLACE, metadata={"place": PLACE})])
    boxes = []
    for variant in ("strict", "upstream"):
        env = made("geovista", tmp_path, source=source, variant=variant)
        play(env, hermes("image_zoom_in_tool", bbox_2d=[100, 200, 866, 577]))
        boxes.append((env.trajectory.messages[-1].parts[1].derived or {})["box"])  # type: ignore[union-attr]
    shown = env.tasks[0].prompt[0]
    assert isinstance(shown, Image)
    width, height = SmartResize(28, 3136, 12_845_056).size(shown.width, shown.height)
    assert boxes[1] == pytest.approx([n * 3000 / shown.width for n in (100, 200, 866, 577)], abs=1)
    ratios = (3000 / width, 2000 / height) * 2
    assert boxes[0] == [int(n * ratio) for n, ratio in zip((100, 200, 866, 577), ratios, strict=True)]


def test_calls_of_geovista_that_failed_do_not_count(tmp_path: Path) -> None:
    wrong = hermes("search_web", query="")
    env = made("geovista", tmp_path)
    play(env, wrong, wrong, WEB, WEB, WEB)
    assert [run.error_kind is None for run in env.trajectory.tool_runs] == [False, False, True, True, False]
    assert env.trajectory.messages[-1].text.endswith("is reached." + HINT)


def test_caps_of_geovista_are_errors_and_the_last_turn_can_answer(tmp_path: Path) -> None:
    env = made("geovista", tmp_path)
    results = play(env, WEB, WEB, WEB, ZOOM, ZOOM, "It is Port Amber, Westland.")
    assert results[2].observation.messages[-1].text.startswith("Tool call error: This call was not run")
    assert "consider" not in results[3].observation.messages[-1].text
    assert env.trajectory.answer == "It is Port Amber, Westland."


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "most"), [("search-r1", 1.0), ("mmsearch-r1", 0.91), ("deepmmsearch-r1", 1.0), ("geovista", 4.0)]
)
def test_the_reference_policy_scores_all_that_can_be_had(name: str, most: float) -> None:
    run = agentenv.rollout(name, "reference", tasks=2)
    assert [round(record.outcome.reward or 0.0, 6) for record in run if record.outcome] == [most] * 2
    assert all(value in (1.0, None) for record in run for value in [_found(record)])
    assert run.stats().pass_at == {1: 1.0}


def _found(record: Any) -> float | None:
    value: float | None = record.outcome.rewards["evidence_found"].value
    return value


def test_names_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    for name, option in (("search-r1", "recipe"), ("geovista", "recipe"), ("mmsearch-r1", "variant")):
        with pytest.raises(UnknownNameError, match=option):
            made(name, tmp_path, **{option: "none"})
    for name, option, value in (
        ("geovista", "judge", 5),
        ("deepmmsearch-r1", "ground", 5),
        ("mmsearch-r1", "summary", 5),
    ):
        with pytest.raises(UsageError, match=rf"option {option} is 5; it wants"):
            made(name, tmp_path, **{option: value})
    for difficulty in (3, None):
        with pytest.raises(UsageError, match="1 or 2 here"):
            agentenv.make("geovista", difficulty=difficulty)
    with pytest.raises(UnknownNameError, match="engine"):
        as_retriever("live:none")
    with pytest.raises(UnknownNameError, match=r"texts\.unused"):
        agentenv.Env(id="x", tasks=made("search-r1", tmp_path).tasks, texts=Texts(unused={"none": "x"}))


def test_live_engines_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAVE_API_KEY", "x")
    engine = as_retriever("live:brave")
    assert isinstance(engine, LiveEngine)
    assert not text_search(engine, "s", "plain", k=2, excerpt=None, summary=None, sentences="").deterministic


def test_pictures_are_shown_within_672_squared(tmp_path: Path) -> None:
    from tests.envs.presets.looked_up import placed

    env = made("mmsearch-r1", tmp_path, source=placed(), corpus=documents(tmp_path))
    shown = [part for part in env.tasks[0].prompt if isinstance(part, Image)]
    assert shown[0].width * shown[0].height <= 672 * 672 < 1120 * 840


def test_forms_are_checked() -> None:
    with pytest.raises(ConfigError):
        agentenv.make("geovista", limits={"turnz": 3})
