"""geo: the chain to a place scores one, guessing near zero (what pictures show: test_proof)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import agentenv
from agentenv.check import check_env
from agentenv.envs.corpus.places import atlas
from agentenv.envs.geo import geo
from agentenv.envs.geo.tasks import geo_tasks
from agentenv.envs.rewards.geo import hierarchy, levels
from agentenv.envs.rewards.geo_distance import FARTHEST_KM
from agentenv.envs.sights.things import Placard, Plaque, drawable, width
from agentenv.errors import UnknownNameError, UsageError
from agentenv.media import media_store
from agentenv.task import TaskSet
from agentenv.trajectory import Trajectory
from agentenv.types import Image, Task, Text
from tests.pictures import encoded, scene


def scores(record: Trajectory) -> dict[str, float | None]:
    assert record.outcome is not None
    return {name: score.value for name, score in record.outcome.rewards.items()}


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_chain_of_evidence_scores_one(split: str) -> None:
    run = agentenv.rollout("geo", "reference", tasks=15, split=split)
    for record in run:
        found = scores(record)
        assert record.reward == found["place"] == found["city"] == found["within_3km"] == 1.0
        assert (found["upstream"], found["distance_km"]) == (4.0, 0.0)
        assert (found["evidence_found"], found["evidence_seen"]) == (1.0, 1.0), record.task.id


def test_guessing_the_largest_town_scores_near_zero() -> None:
    tasks = list(geo_tasks(seed=3, first_view=420).take(25))
    guess = atlas().towns[0]
    said = json.dumps({"country": atlas().countries[guess.country].name, "state": guess.state, "city": guess.name})
    usual = json.dumps({"country": "India"})
    for text in (said, usual):
        value = sum(hierarchy(levels(text, task.metadata["place"])) / 4 for task in tasks) / len(tasks)
        assert value < 0.08


def test_what_stands_there_by_level() -> None:
    for number, most in ((1, 4), (2, 3), (3, 2), (4, 2), (5, 1)):
        tasks = list(geo_tasks(difficulty=number, first_view=420).take(4))
        assert {len(task.evidence["boxes"]) for task in tasks} <= set(range(1, most + 1))
        assert max(len(task.evidence["boxes"]) for task in tasks) == most


def test_text_is_small_in_the_first_view() -> None:
    for level in range(1, 6):
        task = geo_tasks(difficulty=level)[1]
        picture = task.prompt[0]
        assert isinstance(picture, Image)
        assert task.metadata["em"] * 640 / max(picture.width, picture.height) <= 3.5


def test_tasks_are_a_function_of_seed_and_index(tmp_path: Path) -> None:
    assert geo_tasks(seed=1, cache=tmp_path)[3] == geo_tasks(seed=1)[3] != geo_tasks(seed=2)[3]
    trained = {task.metadata["place"]["city"] for task in geo_tasks(first_view=420).take(6)}
    tested = {task.metadata["place"]["city"] for task in geo_tasks(first_view=420, split="test").take(6)}
    assert not trained & tested


def test_letters_of_several_scripts_are_drawn() -> None:
    assert all(map(drawable, ("Łódź", "Αθήνα", "Москва", "Hà Nội")))
    assert not any(map(drawable, ("上海", "תל אביב")))
    placard = Placard(("Αθήνα", "Athens"), "blue")
    assert placard.texts == ("Αθήνα", "Athens")
    assert placard.size[0] > width("Athens")
    wide, high = placard.draw(20, 1.0).size
    assert (wide, high) == pytest.approx([20 * length for length in placard.size], abs=1)


def test_a_plaque_names_its_label() -> None:
    from agentenv.envs.corpus.emblems import Emblem

    emblem = Emblem("plain", "red", "red", "star", "white", 1)
    assert (Plaque(emblem).texts, Plaque(emblem, "KA7").texts) == ((), ("KA7",))


def test_shaping_is_a_choice() -> None:
    plain, shaped = geo(), geo(leak=1.0, align=1.0, scoring="upstream")
    weights = [{part.name: part.weight for part in env.rubric.components} for env in (plain, shaped)]
    assert (weights[0]["leak"], weights[0]["alignment"]) == (0.0, 0.0)
    assert (weights[1]["leak"], weights[1]["alignment"]) == (1.0, 1.0)


def test_geobench_rows_are_played(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(scene(400, 300), "PNG"))
    place = {"country": "France", "state": "Normandy", "city": "Rouen", "lat": 49.44, "lng": 1.1}
    row = {"id": "1", "raw_image_path": "a.png", "metadata": json.dumps(place)}
    (tmp_path / "bench.jsonl").write_text(json.dumps(row) + "\n")
    env = geo(source=f"geobench:{tmp_path / 'bench.jsonl'}", tools=["image_zoom"])
    run = agentenv.rollout(env, lambda observation: "<answer>Rouen, Normandy, France (49.44, 1.10)</answer>")
    found = scores(run[0])
    assert (run[0].reward, found["within_3km"], found["evidence_found"]) == (1.0, 1.0, None)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"difficulty": 9}, UsageError, "1 to 5"),
        ({"split": "dev"}, UnknownNameError, "split"),
        ({"source": "geobenhc:x"}, UnknownNameError, "geobench:PATH"),
        ({"tools": ["web_serch"]}, UnknownNameError, "web_search"),
        ({"scoring": "strikt"}, UnknownNameError, "strict"),
        ({"leak": -1.0}, UsageError, "0 and more"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        geo(**options)  # type: ignore[arg-type]


def test_a_task_without_a_picture_is_refused() -> None:
    with pytest.raises(UsageError, match="no image"):
        geo(source=TaskSet.of([Task("x", (Text("Where?"),), "y")]), tools=["image_zoom"]).tasks[0]


def test_the_contract_holds() -> None:
    report = check_env("geo", difficulty=5)
    assert report.ok, str(report)


@pytest.mark.parametrize("name", ["geo", "geovista"])
def test_an_answer_without_coordinates_is_measured_by_its_names(name: str) -> None:
    place = {"country": "United States", "state": "Illinois", "city": "Springfield", "lat": 39.8017, "lng": -89.6437}
    photo = media_store().put(encoded(scene(400, 300), "PNG"))
    tasks = TaskSet.of([Task("x", (photo, Text("Where?")), metadata={"place": place})])

    def played(**options: Any) -> dict[str, float | None]:
        env = agentenv.make(name, source=tasks, **options)
        return scores(agentenv.rollout(env, lambda observation: "<answer>Springfield, Illinois, USA</answer>")[0])

    found = played()
    assert (found["within_3km"], found["coordinates_given"], found["geocoded"]) == (1.0, 0.0, 1.0)
    assert (found["distance_km"] or 0.0) < 0.1
    plain = played(geocode=False)
    assert (plain["within_3km"], plain["distance_km"], plain.get("geocoded")) == (0.0, FARTHEST_KM, None)
    with pytest.raises(UsageError, match="option geocode is 'yes'; it wants true or false or none"):
        agentenv.make(name, geocode="yes")
