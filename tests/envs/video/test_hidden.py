"""What the generator promises: the first view does not hold the answer, and the clips of the evidence do."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from PIL import Image as Pillow

from agentenv.envs.video.draw import CARDS, DOOR, LAMP
from agentenv.envs.video.film import FPS, SIZE, Card, Cue, Door, Film, Lamp
from agentenv.envs.video.kept import film_video
from agentenv.envs.video.kinds import KINDS, Asked
from agentenv.envs.video.plan import LEVELS, MARGIN
from agentenv.envs.video.tasks import Plan, composed, looks
from agentenv.envs.video.view import FirstView, view_parts
from agentenv.envs.zoom.vocabulary import COLOURS
from agentenv.errors import UsageError
from agentenv.tools.video import Sampling
from tests.envs.video.readers import at, cut, difference, frames
from tests.envs.zoom.readers import TESSERACT, letters, ocr

VIEWS = st.lists(
    st.builds(
        FirstView,
        st.one_of(
            st.builds(lambda n: Sampling(fps=1.0, max_frames=n), st.integers(2, 96)),
            st.builds(lambda n: Sampling("qwen", 1.0, 4, n), st.integers(4, 96)),
        ),
    ),
    min_size=1,
    max_size=3,
).map(tuple)


@settings(max_examples=150)
@given(st.integers(0, 1 << 30), st.sampled_from(list(LEVELS)), st.integers(0, 99), VIEWS)
def test_nothing_shows_while_a_first_view_looks(
    seed: int, level: int, index: int, views: tuple[FirstView, ...]
) -> None:
    plan = Plan(seed=seed, levels=(level,), views=views)
    try:
        _, _, film, asked = composed(plan, index)
    except UsageError:  # it looks so often that nothing can be hidden
        return
    assert film.duration == LEVELS[level].seconds
    for moment in looks(views, LEVELS[level]):
        for cue in film.cues:
            assert not cue.start / FPS - MARGIN < moment - 1e-6 < cue.end / FPS + MARGIN - 2e-6
    for scene in film.scenes:
        inside = sorted((cue for cue in film.cues if scene.start <= cue.start < scene.end), key=lambda cue: cue.start)
        assert all(one.end < other.start for one, other in pairwise(inside))
        assert all(cue.end <= scene.end for cue in inside)
    assert all(0 <= start < end <= film.frames for start, end in asked.spans)


def test_the_moments_of_a_first_view_are_those_at_which_it_looks() -> None:
    _, _, film, _ = composed(Plan(levels=(1,)), 0)
    video = film_video(film)
    for sampling in (Sampling(fps=1.0, max_frames=16), Sampling("qwen", 1.0, 4, 24), Sampling(fps=0.05)):
        seen = view_parts(video, FirstView(sampling))
        told = FirstView(sampling).times(film.duration, FPS, film.frames)
        assert [time for time, _ in frames(seen)] == [int(moment * FPS + 1e-6) / FPS for moment in told]


@cache
def task(kind: str, index: int = 0, level: int = 1) -> tuple[Film, Asked]:
    _, _, film, asked = composed(Plan(seed=4, levels=(level,), kinds=(kind,)), index)
    return film, asked


def evidence(film: Film, asked: Asked) -> list[Cue]:
    """What shows in the film while the answer can be seen."""
    return [cue for cue in film.cues if any(start <= cue.start < end for start, end in asked.spans)]


def seen(film: Film, sampling: Sampling | None = None) -> list[tuple[float, Pillow.Image]]:
    """The first view of a film, or another one."""
    return frames(view_parts(film_video(film), FirstView() if sampling is None else FirstView(sampling)))


def closely(film: Film, asked: Asked) -> list[list[tuple[float, Pillow.Image]]]:
    """What a clip of each evidence span shows, two frames a second."""
    return [at(film_video(film), Sampling(fps=2.0).times(start / FPS, end / FPS)) for start, end in asked.spans]


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_first_view_is_the_same_without_the_evidence_and_a_clip_of_it_is_not(kind: str) -> None:
    film, asked = task(kind)
    shown = evidence(film, asked)
    assert shown
    without = replace(film, cues=tuple(cue for cue in film.cues if cue not in shown))
    for (time, one), (other_time, other) in zip(seen(film), seen(without), strict=True):
        assert time == other_time
        assert difference(one, other) < 12  # what compression does to a still picture
    for near, bare in zip(closely(film, asked), closely(without, asked), strict=True):
        assert max(difference(one, other) for (_, one), (_, other) in zip(near, bare, strict=True)) > 60


@pytest.mark.skipif(TESSERACT is None, reason="the program tesseract is not installed (make system)")
def test_ocr_reads_the_card_in_the_clip_and_not_in_the_first_view() -> None:
    near: list[Pillow.Image] = []
    far: list[Pillow.Image] = []
    answers: list[str] = []
    for level, index in ((1, 0), (1, 1), (2, 0), (3, 0)):
        film, asked = task("read-code", index, level)
        (card,) = [cue.thing for cue in evidence(film, asked) if isinstance(cue.thing, Card)]
        box = inner(CARDS[card.place])
        answers.append(letters(str(asked.answer)))
        near.append(cut(closely(film, asked)[0][1][1], box, SIZE, 2).convert("L"))
        far += [cut(one, inner(place), SIZE, 2).convert("L") for _, one in seen(film) for place in CARDS]
    pages = ocr([*near, *far], 7)
    read, rest = pages[: len(near)], pages[len(near) :]
    assert sum(answer in page for answer, page in zip(answers, read, strict=True)) >= len(answers) - 1, read
    assert not any(answer in page for answer in answers for page in rest)


def inner(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    return box[0] + 8, box[1] + 8, box[2] - 8, box[3] - 8


def colour(image: Pillow.Image, box: tuple[int, int, int, int]) -> str:
    """The named colour that is nearest to a thing's middle."""
    middle = ((box[0] + box[2]) // 2, (box[1] + box[3]) // 2)
    found = cut(image, (middle[0] - 4, middle[1] - 30, middle[0] + 4, middle[1] - 22), SIZE)
    if box == LAMP:
        found = cut(image, (middle[0] - 4, middle[1] - 4, middle[0] + 4, middle[1] + 4), SIZE)
    r, g, b = found.resize((1, 1), Pillow.Resampling.BOX).getpixel((0, 0))  # type: ignore[misc]
    names = {**COLOURS, "unlit": (70, 70, 74)}
    return min(names, key=lambda name: sum((x - y) ** 2 for x, y in zip((r, g, b), names[name], strict=True)))


def test_doors_and_lamps_have_their_colour_in_the_clip_and_not_in_the_first_view() -> None:
    film, asked = task("state")
    (door,) = [cue.thing for cue in evidence(film, asked) if isinstance(cue.thing, Door)]
    assert [colour(one, DOOR) for _, one in closely(film, asked)[0]][1] == door.colour == asked.answer
    (cue,) = evidence(film, asked)
    (scene,) = [one for one in film.scenes if one.start <= cue.start < one.end]
    assert {colour(one, DOOR) for time, one in seen(film) if scene.start <= time * FPS < scene.end} == {scene.door}
    film, asked = task("when-lamp")
    (lamp,) = [cue.thing for cue in evidence(film, asked) if isinstance(cue.thing, Lamp)]
    assert colour(closely(film, asked)[0][1][1], LAMP) == lamp.colour
    assert {colour(one, LAMP) for _, one in seen(film)} == {"unlit"}


def test_flashes_can_be_counted_at_a_frame_a_second() -> None:
    for index in range(3):
        film, asked = task("count", index)
        wanted = next(cue.thing for cue in evidence(film, asked) if isinstance(cue.thing, Lamp))
        start, end = asked.spans[0]
        moments = Sampling(fps=1.0).times(start / FPS, end / FPS)
        lit = [colour(one, LAMP) for _, one in at(film_video(film), moments)]
        runs = [name for name, before in zip(lit, ["", *lit], strict=False) if name != before and name != "unlit"]
        truth = [cue.thing.colour for cue in film.cues if start <= cue.start < end and isinstance(cue.thing, Lamp)]
        assert runs == truth
        assert wanted.colour in truth
        assert str(asked.answer) in {str(truth.count(name)) for name in truth}
