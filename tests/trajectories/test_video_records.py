"""Clips in records: one set of bytes however many episodes saw them, and nothing lost on the way."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.errors import PolicyError, UsageError
from agentenv.media import MediaStore, media_store, use_media_store
from agentenv.spec import Limits
from agentenv.trainers.common import blocks
from agentenv.trajectories import Run, Store, load
from agentenv.trajectories.media import images, videos
from agentenv.trajectory import Group, Trajectory
from agentenv.types import Image, StopReason, Text, Video, count_images, stamp
from tests.tools.video import clips
from tests.trajectories.film import clips_of, cuts, film, frames_of, opening, watched
from tests.trajectories.records import played


@pytest.fixture(autouse=True)
def own_store() -> Any:
    """A store of this test's own."""
    before = media_store()
    use_media_store(MediaStore())
    yield media_store()
    use_media_store(before)


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / "media").rglob("*") if p.is_file()}


@pytest.mark.parametrize("result", ["frames", "video"])
def test_a_group_keeps_one_set_of_frames_and_no_video(tmp_path: Path, result: str) -> None:
    group = [watched((2, 5), (6, 8), result=result) for _ in range(4)]
    for index, episode in enumerate(group):
        episode.group = Group("film", index, 4)
    with Store.create(tmp_path / "run") as store:
        for episode in group:
            store.write(episode)
    held = files(tmp_path / "run")
    assert held.keys() == set(frames_of(group[0]))
    assert len(held) == 4 + 3 + 2
    assert all(hashlib.sha256(data).hexdigest() == name for name, data in held.items())
    use_media_store(MediaStore())
    run = load(tmp_path / "run")
    assert [frames_of(episode) for episode in run] == [frames_of(episode) for episode in group]
    assert run.check_media() == []


def test_a_clip_is_its_file_its_times_and_its_frames() -> None:
    episode = watched((2, 5))
    again = Trajectory.from_json(episode.to_json())
    assert again.messages == episode.messages
    view, clip = clips_of(again)
    data = clips.video("mp4")[0]
    assert view.sha256 == clip.sha256 == hashlib.sha256(data).hexdigest()
    assert (view.handle, view.of, view.times) == ("video_1", "", (1.24, 3.72, 6.24, 8.72))
    assert (clip.handle, clip.of, clip.start, clip.end) == ("observation_1", "video_1", 2.0, 5.0)
    assert (clip.times, clip.rate, clip.fps, clip.duration) == ((2.0, 3.0, 4.0), 1.0, 25.0, 10.0)
    assert [clips.number(_opened(frame)) for frame in clip.frames] == [50, 75, 100]
    assert {image.sha256 for image in images(again)} == set(frames_of(episode))
    assert videos(again) == [clip.sha256]
    assert videos(watched((2, 5), result="frames")) == [clip.sha256]


def _opened(sha256: str) -> Any:
    from agentenv.media import decode

    return decode(media_store().get(sha256))


def test_both_forms_show_the_same_frames_and_times() -> None:
    (_, clip), apart = clips_of(watched((2, 5))), watched((2, 5), result="frames")
    shown = [part for part in apart.messages[3].parts if isinstance(part, Image)]
    assert [image.sha256 for image in shown] == list(clip.frames)
    assert [image.derived for image in shown] == [image.derived for image in clip.images()]
    assert [part.text for part in clip.as_frames() if isinstance(part, Text)] == [stamp(at) for at in (2, 3, 4)]
    assert all(stamp(at) in apart.messages[3].text for at in clip.times)


def test_a_missing_frame_is_named_and_a_missing_video_is_not_missed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    episode = watched((2, 5))
    with Store.create(tmp_path / "run") as store:
        store.write(episode)
    lost = clips_of(episode)[1].frames[1]
    (tmp_path / "run" / "media" / lost[:2] / lost).unlink()
    (problem,) = load(tmp_path / "run").check_media()
    assert f"a frame of episode {episode.id}" in str(problem)
    use_media_store(MediaStore())
    with Store.create(tmp_path / "other") as store, caplog.at_level(logging.WARNING, "agentenv"):
        store.write(episode)
    assert "is recorded without its pictures" in caplog.text
    assert len(load(tmp_path / "other")) == 1


def test_videos_are_copied_on_request(tmp_path: Path) -> None:
    with Store.create(tmp_path / "run") as store:
        store.write(watched((2, 5), (3, 4), name="vp9"))
    run = load(tmp_path / "run")
    data = clips.video("vp9")[0]
    name = hashlib.sha256(data).hexdigest()
    assert name not in files(tmp_path / "run")
    assert run.save_videos() == []
    assert files(tmp_path / "run")[name] == data
    use_media_store(MediaStore())
    assert run.save_videos() == []
    assert run.media.get(name) == data
    (tmp_path / "run" / "media" / name[:2] / name).unlink()
    assert run.save_videos() == [name]
    with pytest.raises(UsageError, match="in memory"):
        Run([]).save_videos()


@pytest.mark.parametrize("result", ["frames", "video"])
def test_frames_count_as_images(result: str) -> None:
    episode = played(cuts((2, 5), (6, 8))[:2], env=film(result, limits=Limits(images=4, on_images="stop")))
    assert episode.outcome is not None
    assert episode.outcome.stop_reason == StopReason.MAX_IMAGES
    env = film(result, limits=Limits(images=5))
    env.reset()
    for turn, left in zip(cuts((2, 5), (6, 8))[:2], (2, 0), strict=True):
        step = env.step(env.dialect.write(turn))
        assert step.observation.budget.images == left
    env.close()


def test_clips_keep_their_handles_in_a_fork() -> None:
    env = film()
    env.reset()
    env.step(env.dialect.write(cuts((2, 5))[0]))
    branch = env.fork()
    for one, window in ((env, (6, 8)), (branch, (7, 9))):
        one.step(one.dialect.write(cuts(window)[0]))
        clips_seen = clips_of(one.trajectory)
        assert [clip.handle for clip in clips_seen] == ["video_1", "observation_1", "observation_2"]
        assert (clips_seen[-1].start, clips_seen[-1].end) == window
        one.close()


def test_a_video_without_a_handle_gets_one() -> None:
    env = film()
    task = env.tasks[0]
    assert isinstance(task.prompt[0], Video)
    assert task.prompt[0].handle == ""
    shown = env.reset().observation.messages[-1].parts[0]
    assert isinstance(shown, Video)
    assert shown.handle == "video_1"
    env.close()


TIMES = st.lists(st.floats(0, 1e5, allow_nan=False), max_size=12).map(sorted)


@given(TIMES, st.sampled_from(["none", "before", "burnt"]))
def test_whatever_the_times_each_frame_is_one_image_in_order(times: list[float], timestamps: str) -> None:
    names = tuple(f"{place:064x}" for place in range(len(times)))
    clip = Video("ab" * 32, "video/mp4", 8, 8, 9.0, 25.0, times=tuple(times), frames=names, timestamps=timestamps)
    parts = clip.as_frames()
    assert [part.sha256 for part in parts if isinstance(part, Image)] == list(names)
    assert count_images((clip,)) == count_images(parts) == len(times)
    told = [part.text for part in parts if isinstance(part, Text)]
    assert told == ([stamp(time) for time in times] if timestamps == "before" else [])
    assert clip.rate >= 0


def test_trainers_are_given_the_frames_behind_their_times() -> None:
    clip = clips_of(watched((2, 5)))[1]
    made = blocks((clip,))
    assert [block.get("text") for block in made] == [stamp(2), None, stamp(3), None, stamp(4), None]
    assert [clips.number(block["image"]) for block in made if block["type"] == "image"] == [50, 75, 100]
    with pytest.raises(PolicyError, match="comes without frames"):
        blocks((Video("ab" * 32, "video/mp4", 8, 8, 9.0, 25.0),))


def test_frames_whose_times_a_record_does_not_tell_are_frames_all_the_same() -> None:
    names = tuple(f"{place:064x}" for place in range(3))
    clip = Video("ab" * 32, "video/mp4", 8, 8, 9.0, 25.0, times=(2.0,), frames=names, timestamps="before")
    assert [image.sha256 for image in clip.images()] == list(names)
    assert [(image.derived or {}).get("time") for image in clip.images()] == [2.0, None, None]
    assert [type(part) for part in clip.as_frames()] == [Text, Image, Image, Image]


def test_a_first_view_is_of_the_whole_video() -> None:
    view = opening("none", "vfr mp4")
    assert (view.timestamps, view.start, view.end) == ("none", 0.0, view.duration)
    truth = clips.video("vfr mp4")[1]
    shown = [clips.number(_opened(frame)) for frame in view.frames]
    assert shown == [clips.shown(truth, at) for at in view.times]
    assert view.of == ""
