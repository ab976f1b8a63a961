"""Local models and clips: as images in this process, as videos in one that has torchvision."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentenv.errors import ConfigError, MissingExtraError, PolicyError
from agentenv.media import MediaStore, media_store, use_media_store
from agentenv.policy import TransformersPolicy, make_policy
from agentenv.rollout import play
from agentenv.types import Image, Message, Text, Video, stamp
from tests.conftest import ROOT
from tests.policy.tiny_vision import tiny_vision
from tests.policy.words import seen
from tests.trajectories.film import film, opening, watched

torch = pytest.importorskip("torch", reason="local models need torch (extra: local)")
TORCHVISION = Path(torch.__file__).parents[4] / "torchvision"  # beside the other packages, on nobody's path


@pytest.fixture(autouse=True)
def own_store() -> Iterator[None]:
    before = media_store()
    use_media_store(MediaStore())
    yield
    use_media_store(before)


def policy_of(**options: Any) -> TransformersPolicy:
    model, processor = tiny_vision("qwen3-vl")
    return TransformersPolicy(model, processor=processor, **{"max_new_tokens": 4, **options})


def test_each_frame_of_a_clip_is_an_image_behind_its_time() -> None:
    policy, episode = policy_of(), watched((2, 5), (6, 8))
    ids, tensors = policy._prepared(seen(*episode.messages, tools=()))
    assert tensors is not None
    assert len(tensors["image_grid_thw"]) == 4 + 3 + 2
    text = policy.tokenizer.decode(ids)
    for time in (2, 3, 4, 6, 7):
        assert f"{stamp(time)}<|vision_start|><|image_pad|>" in text
    apart = watched((2, 5), (6, 8), result="frames")
    assert policy._prepared(seen(*apart.messages, tools=()))[0] == ids
    assert policy.info.settings["video"] == "frames"


async def test_an_episode_with_a_clip_is_played() -> None:
    world, policy = film("video"), policy_of()
    record = await play(world, policy, world.tasks[0])
    assert record.outcome is not None
    assert record.outcome.error is None
    assert record.policy.capture == "ids_full"
    await policy.close()


def test_a_frame_that_is_lost_is_named() -> None:
    clip = opening()
    broken = Video(**{name: getattr(clip, name) for name in clip.__struct_fields__} | {"frames": ("ab" * 32,) * 4})
    with pytest.raises(PolicyError, match="image abababababab cannot be shown"):
        policy_of()._prepared(seen(Message("user", (broken, Text("x")))))
    blind = TransformersPolicy(*(tiny_vision("qwen3-vl")[0], tiny_vision("qwen3-vl")[1].tokenizer))
    with pytest.raises(PolicyError, match="text-only; video part found"):
        blind._prepared(seen(Message("user", (clip,))))
    assert isinstance(clip.images()[0], Image)


def test_without_torchvision_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingExtraError, match=r"clips as videos needs the package 'torchvision': .*\[local-video\]"):
        policy_of(video="video")
    with pytest.raises(MissingExtraError, match="torchvision"):
        make_policy(f"transformers:{tmp_path}", video="video")
    with pytest.raises(ConfigError, match="video='clip': expected 'frames' or 'video'"):
        policy_of(video="clip")


def test_a_torchvision_for_another_torch_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"does not work with this torch \(operator torchvision::nms"):
        policy_of(video="video")


@pytest.mark.skipif(not TORCHVISION.is_dir(), reason="make setup puts torchvision beside the other packages")
def test_as_videos_by_the_real_processors() -> None:
    paths = os.pathsep.join([str(TORCHVISION), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/policy/filmed.py"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
