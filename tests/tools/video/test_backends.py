"""decord and torchcodec behind our process and timer: right where they are, and what they get wrong."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentenv.errors import DataError, MissingExtraError, UnknownNameError, UsageError
from agentenv.media import DecodeCache, MediaStore
from agentenv.tools.video import DecodePool, Frame, Limits, Shape, VideoReader, decode_pool, put_video
from agentenv.tools.video.backends import check_backend
from tests.tools.video import clips

RGB = Shape(clips.WIDTH, clips.HEIGHT, "RGB")
SOUND = ["mp4", "mp4 fast start", "mkv", "no b-frames", "one group", "vfr mp4", "vfr mkv"]
SOUND += ["vp9", "10 bit", "4:4:4", "avi"]
WRONG = ["open gop", "edit list", "hevc open gop"]

needs_decord = pytest.mark.skipif(find_spec("decord") is None, reason="decord has no wheel for this machine")


@pytest.fixture(scope="module")
def pool() -> Any:
    made = DecodePool(1, 20.0, backend="decord")
    yield made
    made.close()


def frames(pool: DecodePool, data: bytes, times: list[float], shape: Shape = RGB) -> list[Frame]:
    store = MediaStore()
    video = put_video(store, data, pool=pool)
    return VideoReader(store, DecodeCache(), pool).frames(video.sha256, times, shape)


def numbers(found: list[Frame]) -> list[int]:
    return [clips.number(np.frombuffer(one.data, np.uint8).reshape(one.height, one.width, 3)) for one in found]


def moments(truth: clips.Truth) -> list[float]:
    return [0.0, *(at + 0.007 for at, _ in truth[3:-1:17]), truth[-1][0]]


@needs_decord
@pytest.mark.parametrize("name", SOUND)
def test_decord_gives_the_right_frames_of_these(pool: DecodePool, name: str) -> None:
    data, truth = clips.video(name)
    times = moments(truth)
    found = frames(pool, data, times)
    assert numbers(found) == [clips.shown(truth, time) for time in times]
    assert [one.seconds for one in found] == pytest.approx([_shown_at(truth, time) for time in times], abs=2e-3)


def _shown_at(truth: clips.Truth, time: float) -> float:
    return [at for at, _ in truth if at <= time + 1e-6][-1]


@needs_decord
@pytest.mark.parametrize("name", WRONG)
def test_decord_gives_wrong_frames_of_these(pool: DecodePool, name: str) -> None:
    """When one of these comes right, the page on what decord gets wrong must change."""
    data, truth = clips.video(name)
    times = moments(truth)
    try:
        found = numbers(frames(pool, data, times))
    except DataError:
        return
    assert found != [clips.shown(truth, time) for time in times]


@needs_decord
def test_decord_refuses_what_it_cannot_open(pool: DecodePool) -> None:
    with pytest.raises(DataError, match="decord cannot decode the video"):
        frames(pool, clips.video("av1")[0], [1.0])
    with pytest.raises(DataError, match="MPEG-TS"):  # wrong frames, where it does not hang
        frames(pool, clips.video("ts")[0], [1.0])
    reader = VideoReader(MediaStore(), DecodeCache(), pool, Limits(frames=2))
    video = put_video(reader.store, clips.video("mp4")[0], pool=pool)
    with pytest.raises(DataError, match="at most 2 at once"):
        reader.frames(video.sha256, [0.0, 1.0, 2.0], RGB)


@needs_decord
def test_shapes_are_those_of_the_engine(pool: DecodePool) -> None:
    data = clips.video("mp4")[0]
    half = Shape(80, 48, "PNG", box=(0.0, 0.0, 0.5, 1.0), label=True)
    ours, theirs = (frames(one, data, [4.0], half)[0] for one in (decode_pool(), pool))
    assert (ours.stamp, ours.seconds, ours.width, ours.height) == (theirs.stamp, 4.0, 80, 48)
    turned = clips.rotated(data)
    upright = Shape(clips.HEIGHT, clips.WIDTH, "RGB")
    (found,) = frames(pool, turned, [4.0], upright)
    pixels = np.frombuffer(found.data, np.uint8).reshape(clips.WIDTH, clips.HEIGHT, 3)
    assert clips.number(np.rot90(pixels, 1)) == 100


@needs_decord
def test_frames_of_one_decoder_are_not_taken_for_anothers(pool: DecodePool) -> None:
    store, cache = MediaStore(), DecodeCache()
    video = put_video(store, clips.video("mp4")[0], pool=pool)
    for one in (decode_pool(), pool):
        VideoReader(store, cache, one).frames(video.sha256, [1.0], RGB)
    assert cache.stats.made >= 3  # what it is, and the frame twice


@pytest.mark.skipif(find_spec("torchcodec") is None, reason="torchcodec needs FFmpeg's libraries installed beside it")
def test_torchcodec_gives_the_right_frames_but_of_mpeg_ts() -> None:
    own = DecodePool(1, 60.0, backend="torchcodec")
    for name in [*SOUND, *WRONG, "av1"]:
        data, truth = clips.video(name)
        times = moments(truth)
        assert numbers(frames(own, data, times)) == [clips.shown(truth, time) for time in times], name
    own.close()


def test_what_is_not_installed_or_not_accepted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match='did you mean "decord"'):
        check_backend("decrod")
    with pytest.raises(UnknownNameError):
        decode_pool("opencv")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(MissingExtraError, match=r"agentenv-gym\[torchcodec\]"):
        check_backend("torchcodec")
    (tmp_path / "decord").mkdir()
    (tmp_path / "decord" / "__init__.py").write_text("")
    (tmp_path / "decord2-3.4.0.dist-info").mkdir()
    (tmp_path / "decord2-3.4.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: decord2\nVersion: 3.4.0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match="decord2 is installed"):
        check_backend("decord")
