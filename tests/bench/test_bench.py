"""Every figure can be computed. What it comes to is for `make bench` to say, never for a test."""

from __future__ import annotations

import json
import math

import pytest
from msgspec.structs import replace

from tests.bench import clips, episodes, install, run
from tests.bench.figure import Figure, Group, shares

MEASURED = [group for group in run.ALL if group is not install.GROUP]


@pytest.mark.parametrize("group", MEASURED, ids=lambda group: group.name)
def test_every_figure_of_the_group_can_be_computed(group: Group) -> None:
    figures = run.measured(group, quick=True)
    assert [figure.name for figure in figures] == list(group.figures)
    for figure in figures:
        if figure.measured is None and figure.name in clips.OPTIONAL:
            assert "not installed" in figure.why
        elif figure.measured is None:
            assert figure.name in episodes.PEER_FIGURES
            assert "GEM_PYTHON" in figure.why
        else:
            assert math.isfinite(figure.measured)
            assert figure.measured >= 0
            assert figure.why


def test_what_is_held_and_what_is_missed() -> None:
    figure = Figure("f", 2.0, "x", most=3.0)
    assert (figure.target, figure.verdict) == ("<= 3 x", "held")
    assert replace(figure, measured=3.1).verdict == "MISSED"
    assert replace(figure, measured=None).verdict == "not measured"
    assert (Figure("f", 9.0).target, Figure("f", 9.0).verdict) == ("-", "-")
    assert Figure("f", 9999.0, "/s", least=10_000).verdict == "MISSED"
    assert Figure("f", 0.0, "packages", most=0).verdict == "held"


def test_the_runner_shows_what_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    run.main(["--only", "^heavy", "--quick", "--json"])
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["verdict"]) == ("heavy_imports", "held")
    run.main(["--only", "^heavy", "--quick"])
    assert "heavy_imports" in capsys.readouterr().out


def test_installing_must_be_asked_for() -> None:
    assert install.GROUP not in run.wanted(".", with_install=False)
    assert install.GROUP in run.wanted("core", with_install=True)


def test_shares_name_the_modules_that_take_the_time() -> None:
    text = shares(lambda: episodes.stepping(20))
    assert {"episode", "dialects"} & {part.split()[0] for part in text.split(", ")}
