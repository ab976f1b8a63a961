"""Pictures in a cassette: named by content, kept beside it, shown again with the same handles."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image as Pillow

from agentenv.cassette import Cassette, lint
from agentenv.env import Env
from agentenv.media import EpisodeMedia, MediaStore, media_store, use_media_store
from agentenv.task import TaskSet
from agentenv.tool import Bound, tool
from agentenv.types import Image, Part, Task, Text

CALLS = [0]


def picture(colour: int) -> bytes:
    out = io.BytesIO()
    Pillow.new("RGB", (40, 30), (colour, 0, 0)).save(out, "PNG")
    return out.getvalue()


@tool(timeout=5.0)
def look_alike(image: str, media: Bound[EpisodeMedia]) -> list[Part]:
    """Find a picture that looks like it.

    Args:
        image: which.
        media: bound.
    """
    CALLS[0] += 1
    media.resolve(image)
    found = media.add(media.store.put(picture(CALLS[0] % 256)))
    return [Text(f"{found.handle} looks like {image}"), found]


def world(colour: int = 7) -> Env:
    prompt = (media_store().put(picture(colour)), Text("what is it ?"))
    return Env(id="alike", tasks=TaskSet.generate(lambda i: Task(f"t{i}", prompt), 1), tools=[look_alike])


def play(env: Env) -> list[Part]:
    env.reset(seed=0)
    for image in ("image_1", "observation_1"):
        env.step(f'<tool_call>{{"name": "look_alike", "arguments": {{"image": "{image}"}}}}</tool_call>')
    return [part for message in env.trajectory.messages for part in message.parts]


@pytest.fixture(autouse=True)
def _own_store() -> object:
    before = media_store()
    use_media_store(MediaStore())
    yield
    use_media_store(before)


def test_pictures_are_replayed_in_a_process_that_never_had_them(tmp_path: Path) -> None:
    with Cassette(tmp_path / "tape", "record") as tape:
        recorded = play(world().use_cassette(tape))
    use_media_store(MediaStore())
    asked = CALLS[0]
    with Cassette(tmp_path / "tape", "replay") as tape:
        replayed = play(world().use_cassette(tape))
    assert replayed == recorded
    assert CALLS[0] == asked
    images = [part for part in replayed if isinstance(part, Image)]
    assert [image.handle for image in images] == ["image_1", "observation_1", "observation_2"]
    assert all(media_store().get(image.sha256) for image in images)
    assert list(lint(tmp_path / "tape")) == []


def test_the_content_of_the_picture_decides_and_not_its_handle(tmp_path: Path) -> None:
    with Cassette(tmp_path / "tape") as tape:
        play(world().use_cassette(tape))
        asked = CALLS[0]
        env = world().use_cassette(tape)
        play(env)
        assert CALLS[0] == asked
        assert [run.cache for run in env.trajectory.tool_runs] == ["hit", "hit"]
        play(world(colour=8).use_cassette(tape))
        assert CALLS[0] > asked


def test_lint_tells_of_pictures_that_are_gone(tmp_path: Path) -> None:
    with Cassette(tmp_path / "tape", "record") as tape:
        play(world().use_cassette(tape))
    next(path for path in (tmp_path / "tape" / "media").rglob("*") if path.is_file()).unlink()
    (problem,) = lint(tmp_path / "tape")
    assert "no media" in problem.what


def test_a_picture_that_is_nowhere_is_not_recorded_but_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    @tool(timeout=5.0)
    def lost(media: Bound[EpisodeMedia]) -> Image:
        """Show a picture that nobody has.

        Args:
            media: bound.
        """
        return media.add(Image("0" * 64, "image/png", 1, 1))

    env = Env(id="lost", tasks=TaskSet.generate(lambda i: Task(f"t{i}", (Text("?"),)), 1), tools=[lost])
    with Cassette(tmp_path / "tape", "record") as tape:
        env.use_cassette(tape).reset(seed=0)
        observation = env.step('<tool_call>{"name": "lost", "arguments": {}}</tool_call>').observation
        assert any(isinstance(part, Image) for part in observation.messages[-1].parts)
        assert list(tape.shelf.all()) == []
    assert "lost is not recorded" in caplog.text
