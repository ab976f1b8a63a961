"""The learning bench runs from the base to the last figure; what it comes to is not a test's business."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("torch", reason="the trainer needs torch (extra: local)")

import agentenv
from tests.bench import learning, learning_curves, learning_zoom
from tests.policy.tiny import save_tiny
from tests.trajectories.grpo.babble import babble

LEARNED = Path(__file__).parent / "learned"


def test_four_models_are_measured_and_nothing_is_done_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = {"max_new_tokens": 6, "play_batch": 8, "steps": 1}
    study = learning.Study(
        env=lambda split: babble(),
        model=lambda out, seed: save_tiny(out / "base"),
        expert=lambda: agentenv.make_policy(lambda obs: "ab"),
        shown=4,
        held_out=4,
        cold={**common, "batch": 2},
        learn={**common, "groups": 2, "group": 4},
    )
    (tmp_path / "base").mkdir()
    results = learning.Bench(study, tmp_path).run()
    found = results["held_out"]
    assert list(found) == ["base", "cold start", "cold start, then GRPO", "GRPO without a cold start"]
    assert all(figure["low"] <= figure["mean"] <= figure["high"] for figure in found.values())
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert [len(curve) for curve in results["curves"].values()] == [1, 1]
    svg = ElementTree.fromstring(learning_curves.drawn([results, results]))
    assert len(svg.findall("{http://www.w3.org/2000/svg}polyline")) == 8
    capsys.readouterr()
    assert learning.Bench(study, tmp_path).run() == results
    assert "steps" not in capsys.readouterr().out


def test_an_expert_solves_the_boards_and_the_first_view_shows_no_pattern() -> None:
    run = agentenv.rollout(learning_zoom.env("test"), learning_zoom.expert(), tasks=6)
    assert run.column("reward") == [1.0] * 6
    assert {record.task.id for record in run} == {f"board-{10_000_000 + index}" for index in range(6)}
    views = [learning_zoom.seen_first(name) for name in learning_zoom.PATTERNS]
    assert max(abs(int(value) - views[0][0]) for view in views for value in view) <= 2


def test_the_readme_tells_what_was_measured() -> None:
    studies = [json.loads((LEARNED / f"{name}.json").read_text()) for name in ("table", "zoom")]
    assert (LEARNED / "curves.svg").read_text() == learning_curves.drawn(studies)
    readme = (LEARNED.parents[2] / "README.md").read_text()
    for study in studies:
        told = [f"{f['mean']:.2f} [{f['low']:.2f}, {f['high']:.2f}]" for f in study["held_out"].values()]
        assert f"| {' | '.join(told)} |" in readme
        given = learning.STUDIES[study["study"]]
        assert study["settings"] == {name: getattr(given, name) for name in study["settings"]}


def test_the_readme_tells_of_the_second_draw() -> None:
    readme = " ".join((LEARNED.parents[2] / "README.md").read_text().split())
    for name, steps in (("table-1", 36), ("zoom-1", 40), ("zoom-1-longer", 120)):
        study = json.loads((LEARNED / f"{name}.json").read_text())
        given = learning.STUDIES[name.partition("-")[0]]
        assert study["settings"] == {**study["settings"], "cold": given.cold, "learn": {**given.learn, "steps": steps}}
        for stage in ("cold start", "cold start, then GRPO"):
            found = study["held_out"][stage]
            assert f"{found['mean']:.2f} [{found['low']:.2f}, {found['high']:.2f}] after" in readme
        alone = study["held_out"].get("GRPO without a cold start")
        assert alone is None or alone["mean"] == 0
