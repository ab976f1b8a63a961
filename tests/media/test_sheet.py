"""Clips for people: frames side by side, in a terminal, in a file and in a notebook."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from agentenv.cli.pictures import Gallery
from agentenv.errors import DataError
from agentenv.media import MediaStore, contact_sheet, media_store, use_media_store
from agentenv.media.sheet import _spread
from agentenv.policy import HumanPolicy
from agentenv.types import Image
from tests.pictures import encoded, scene
from tests.tools.video import clips
from tests.trajectories.film import clips_of, cuts, film, watched


@pytest.fixture(autouse=True)
def own_store() -> Iterator[None]:
    before = media_store()
    use_media_store(MediaStore())
    yield
    use_media_store(before)


def opened(data: bytes) -> Pillow.Image:
    return Pillow.open(io.BytesIO(data)).convert("RGB")


def test_frames_stand_in_order_under_their_times() -> None:
    clip = clips_of(watched((2, 9)))[1]
    data, width, height = contact_sheet(clip.images(), media_store().get, across=4)
    sheet = opened(data)
    assert sheet.size == (width, height) == (4 * clip.width, 2 * (clip.height + 16))
    tall = clip.height + 16
    for number, time in enumerate(clip.times):
        x, y = number % 4 * clip.width, number // 4 * tall
        cell = sheet.crop((x, y + 16, x + clip.width, y + tall))
        assert clips.number(cell) == round(25 * time)
        assert max(sheet.crop((x, y, x + clip.width, y + 16)).convert("L").tobytes()) > 100  # its time


def test_pictures_without_times_have_no_line_for_them() -> None:
    image = media_store().put(encoded(scene(200, 100, 1), "PNG"))
    assert contact_sheet([image], media_store().get, width=100)[1:] == (100, 50)
    with pytest.raises(DataError, match="no frames"):
        contact_sheet([], media_store().get)


@given(st.integers(1, 2000), st.integers(2, 40))
def test_of_many_frames_some_are_left_out_evenly(count: int, most: int) -> None:
    chosen = _spread(count, most)
    assert (chosen[0], chosen[-1]) == (0, count - 1)
    assert len(chosen) == min(count, most)
    assert chosen == sorted(set(chosen))
    gaps = [after - before for before, after in itertools.pairwise(chosen)]
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("result", ["frames", "video"])
def test_a_person_is_shown_one_sheet_a_clip(result: str) -> None:
    stream, told = io.StringIO(), list[str]()

    async def read(prompt: str) -> str:
        return "/quit"

    env = film(result)
    first = env.reset().observation
    gallery = Gallery(stream, {})
    for observation in (first, env.step(env.dialect.write(cuts((2, 5))[0])).observation):
        with pytest.raises(Exception, match="gave up"):
            asyncio.run(HumanPolicy(read, told.append, look=gallery).act(observation))
    env.close()
    places = re.findall(r"\((.*?) is in the file (.*?)\)", stream.getvalue())
    assert [name for name, _ in places] == ["video_1, 1.2 to 8.7 seconds,", "video_1, 2.0 to 4.0 seconds,"]
    assert all(opened(Path(place).read_bytes()).width > 300 for _, place in places)
    assert any("frames at 1.2, 3.7, 6.2, 8.7 seconds" in text for text in told)


def test_a_lost_frame_is_told() -> None:
    frames = clips_of(watched((2, 5)))[1].images()
    use_media_store(MediaStore())
    stream = io.StringIO()
    Gallery(stream, {})(frames)
    assert "cannot be shown: no media" in stream.getvalue()


@pytest.mark.parametrize("result", ["frames", "video"])
def test_a_notebook_shows_a_row_of_each_message(result: str) -> None:
    episode = watched((2, 5), result=result)
    page = episode._repr_html_()
    rows = re.findall(r"<img alt='(\d+ pictures)' src='data:image/jpeg;base64,([^']+)'>", page)
    assert [name for name, _ in rows] == ["4 pictures", "3 pictures"]
    assert opened(base64.b64decode(rows[1][1])).width == 3 * 128
    assert len(page) < 60_000
    use_media_store(MediaStore())
    assert "<div>(3 pictures)</div>" in episode._repr_html_()
    assert isinstance(clips_of(watched((2, 5)))[1].images()[0], Image)
