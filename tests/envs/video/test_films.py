"""Films as files: what is encoded, that it is the same everywhere, and how it is kept between runs."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import pytest
from msgspec.structs import replace

from agentenv.envs.video import kept
from agentenv.envs.video.encode import encode
from agentenv.envs.video.film import FPS, GROUP, SIZE, Film, stretches
from agentenv.envs.video.kept import default_cache, film_video, recipe
from agentenv.envs.video.tasks import Plan, composed, film_tasks
from agentenv.errors import DataError
from agentenv.media import MediaStore, media_store, use_media_store
from agentenv.tools.video.decode import probe, stamps
from agentenv.types import Video

FILM = composed(Plan(levels=(1,), seed=21), 0)[2]


@pytest.fixture
def fresh() -> Any:
    """A store of its own, in which no film is yet."""
    before = media_store()
    use_media_store(MediaStore())
    kept._known.clear()
    yield
    use_media_store(before)
    kept._known.clear()


def test_a_film_is_a_sound_h264_file_of_constant_rate() -> None:
    data = encode(FILM)
    info, found = stamps(io.BytesIO(data))
    assert (info.format, info.codec, info.width, info.height, info.fps) == ("mp4", "h264", *SIZE, float(FPS))
    assert (info.duration, info.frames, info.audio) == (FILM.duration, FILM.frames, False)
    assert [info.seconds(stamp) for stamp in found] == pytest.approx([k / FPS for k in range(FILM.frames)])
    assert probe(io.BytesIO(data)).rotation == 0
    container: Any = av.open(io.BytesIO(data))
    with container:
        keys = [packet.pts for packet in container.demux(video=0) if packet.is_keyframe]
        base = container.streams.video[0].time_base
    assert len(keys) == len(list(stretches(FILM)))
    seconds = [float(key * base) for key in keys]
    assert max(b - a for a, b in zip(seconds, [*seconds[1:], FILM.duration], strict=True)) <= GROUP / FPS


def test_every_packet_decodes_without_a_complaint() -> None:
    container: Any = av.open(io.BytesIO(encode(FILM)))
    with container:
        container.streams.video[0].codec_context.options = {"err_detect": "explode"}
        assert sum(1 for _ in container.decode(video=0)) == FILM.frames


def test_stretches_cover_the_film_and_equal_ones_come_again() -> None:
    for level in (1, 3):
        film = composed(Plan(levels=(level,)), 1)[2]
        cut = list(stretches(film))
        assert sum(stretch.length for stretch in cut) == film.frames
        assert all(0 < stretch.length <= GROUP for stretch in cut)
        assert len(set(cut)) < len(cut)


def test_the_same_film_is_the_same_bytes_and_another_is_not() -> None:
    assert encode(FILM) == encode(FILM)
    other = Film(FILM.scenes, FILM.cues[1:])
    assert recipe(other) != recipe(FILM) == recipe(replace(FILM))


def test_a_film_is_kept_in_a_folder_and_taken_from_there(tmp_path: Path, fresh: None) -> None:
    video = film_video(FILM, tmp_path / "films")
    (file,) = (tmp_path / "films").iterdir()
    assert file.name == f"{recipe(FILM)}.mp4"
    assert (video.mime, video.width, video.height, video.duration, video.fps) == ("video/mp4", *SIZE, 120.0, FPS)
    assert file.read_bytes() == media_store().get(video.sha256)
    kept._known.clear()
    file.write_bytes(b"what was kept")  # is taken as it is: its name is all of what it is made of
    assert media_store().get(film_video(FILM, tmp_path / "films").sha256) == b"what was kept"


def test_a_film_is_encoded_once_a_process(tmp_path: Path, fresh: None) -> None:
    first = film_video(FILM)
    started = time.process_time()
    assert film_video(FILM) is first
    assert time.process_time() - started < 0.1
    use_media_store(MediaStore())
    assert film_video(FILM).sha256 == first.sha256


def test_the_usual_folder_is_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh: None) -> None:
    monkeypatch.delenv("AGENTENV_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "agentenv" / "films"
    _ = film_tasks(difficulty=1)[0]
    assert len(list(default_cache().glob("*.mp4"))) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "agentenv" / "films"


def test_the_least_recently_used_films_go_first(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "middle", "old")):
        (tmp_path / f"{name}.mp4").write_bytes(bytes(100))
        os.utime(tmp_path / f"{name}.mp4", (1e9 - age, 1e9 - age))
    kept._trim(tmp_path, 250)
    assert sorted(file.stem for file in tmp_path.iterdir()) == ["middle", "new"]
    kept._trim(tmp_path, 0)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, fresh: None) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot be read: Not a directory; give another folder"):
        film_video(FILM, tmp_path / "file")
    with pytest.raises(DataError, match=r"cannot be kept: .*; give another folder"):
        film_video(FILM, Path("/proc/nowhere"))
    assert film_video(FILM, tmp_path / "file", must=False).duration == 120.0
    assert film_video(FILM, Path("/proc/nowhere"), must=False).duration == 120.0
    kept._known.clear()
    (tmp_path / f"{recipe(FILM)}.mp4").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        film_video(FILM, tmp_path)


def test_many_threads_share_a_folder(tmp_path: Path, fresh: None) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: film_video(FILM, tmp_path), range(4)))
    assert len({video.sha256 for video in made}) == 1
    assert [file.suffix for file in tmp_path.iterdir()] == [".mp4"]


_PROCESS = """
import sys
from agentenv.envs.video.tasks import film_tasks
print([task.prompt[0].sha256 for task in film_tasks(3, 1, cache=sys.argv[1]).take(2)])
"""


def test_many_processes_share_a_folder_and_see_the_same_videos(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PROCESS, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate()[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    tasks = film_tasks(3, 1, cache=None).take(2)
    assert said == {f"{[task.prompt[0].sha256 for task in tasks if isinstance(task.prompt[0], Video)]}\n"}
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".mp4", ".mp4"]
