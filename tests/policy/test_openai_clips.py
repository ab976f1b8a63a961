"""Clips on their way to a server, as images or as a video: all frames, in order, with their times."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.errors import ConfigError, PolicyError
from agentenv.media import MediaStore, media_store, use_media_store
from agentenv.policy import OpenAIPolicy
from agentenv.policy.wire import clip_metadata, shown, wire_messages
from agentenv.rollout import play
from agentenv.trajectory import Trajectory
from agentenv.types import Image, Message, Observation, Text, Video, is_stamp, stamp
from tests.policy.chat_server import chat_server, completion
from tests.policy.words import seen
from tests.trajectories.film import clips_of, film, frames_of

WINDOWS = ((2, 5), (6, 8))


@pytest.fixture(autouse=True)
def own_store() -> Iterator[None]:
    before = media_store()
    use_media_store(MediaStore())
    yield
    use_media_store(before)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Looks at two windows, one a turn, then answers."""
    turn = sum(message["role"] == "assistant" for message in request["messages"])
    native = "tools" in request
    if turn >= len(WINDOWS):
        return completion("ANSWER[0]" if native else "<answer>ANSWER[0]</answer>")
    start, end = WINDOWS[turn]
    arguments = json.dumps({"video": "video_1", "start": start, "end": end})
    if not native:
        return completion(f'<tool_call>\n{{"name": "video_clip", "arguments": {arguments}}}\n</tool_call>')
    call = {"id": f"c{turn}", "type": "function", "function": {"name": "video_clip", "arguments": arguments}}
    return completion({"content": None, "tool_calls": [call]}, "tool_calls")


async def played(result: str, dialect: str, **options: Any) -> tuple[Trajectory, list[dict[str, Any]]]:
    world = film(result, dialect=dialect)
    async with chat_server() as server:
        server.answer = answer
        policy = OpenAIPolicy("good-model", server.url, pause=0.001, **options)
        record = await play(world, policy, world.tasks[0])
        await policy.close()
        return record, server.requests


def items(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for message in request["messages"]:
        yield from message["content"] if isinstance(message["content"], list) else ()


def pictures(item: dict[str, Any]) -> list[str]:
    """SHA-256 of the files that an item holds."""
    if item["type"] == "text":
        return []
    head, *data = item[item["type"]]["url"].split(",")
    assert head == {"image_url": "data:image/jpeg;base64", "video_url": "data:video/jpeg;base64"}[item["type"]]
    return [hashlib.sha256(base64.b64decode(one, validate=True)).hexdigest() for one in data]


def arrived(request: dict[str, Any]) -> list[str]:
    return [name for item in items(request) for name in pictures(item)]


def written(request: dict[str, Any]) -> str:
    """All text of a request, with the pictures marked."""
    texts = []
    for message in request["messages"]:
        content = message["content"] or ""
        texts += [content] if isinstance(content, str) else [item.get("text", "[]") for item in content]
    return "".join(texts)


@pytest.mark.parametrize("tool_media", ["tool", "user"])
@pytest.mark.parametrize("dialect", ["native", "hermes"])
@pytest.mark.parametrize("result", ["frames", "video"])
async def test_every_frame_arrives_as_an_image_behind_its_time(result: str, dialect: str, tool_media: str) -> None:
    record, requests = await played(result, dialect, tool_media=tool_media)
    assert record.reward == 1.0
    whole = frames_of(record)
    assert len(whole) == 4 + 3 + 2
    assert [arrived(request) for request in requests] == [whole[:count] for count in (4, 7, 9)]
    text = written(requests[-1])
    times = [*clips_of(record)[0].times, 2, 3, 4, 6, 7]
    assert all(f"{stamp(time)}[]" in text for time in times)
    assert text.count("[]") == text.count(" seconds>") == 9
    assert "media_io_kwargs" not in requests[-1]


async def test_both_forms_of_a_clip_are_the_same_to_a_model_that_sees_images() -> None:
    for dialect in ("native", "hermes"):
        (_, apart), (_, joined) = [await played(result, dialect) for result in ("frames", "video")]
        assert written(apart[-1]) == written(joined[-1])
        assert arrived(apart[-1]) == arrived(joined[-1])


@pytest.mark.parametrize("tool_media", ["tool", "user"])
@pytest.mark.parametrize("dialect", ["native", "hermes"])
async def test_a_clip_arrives_as_one_video_of_just_its_frames(dialect: str, tool_media: str) -> None:
    record, requests = await played("video", dialect, tool_media=tool_media, video="video")
    assert record.reward == 1.0
    sent = [pictures(item) for item in items(requests[-1]) if item["type"] == "video_url"]
    assert sent == [list(clip.frames) for clip in clips_of(record)]
    assert "<2.0 to 4.0 seconds>[]" in written(requests[-1])
    assert record.policy.settings["video"] == "video"
    # Of a single video vLLM can be told when its frames are shown; of several only that it is to take them all.
    first, last = (request["media_io_kwargs"]["video"] for request in (requests[0], requests[-1]))
    assert first["frames_indices"] == [1240, 3720, 6240, 8720]
    assert (first["fps"], first["num_frames"], first["do_sample_frames"]) == (1000.0, -1, False)
    assert last == {"num_frames": -1}
    if tool_media == "user" and dialect == "native":
        captions = [item["text"] for item in items(requests[-1]) if item.get("text", "").startswith("(The")]
        assert captions == [f"(The video returned by video_clip, call c{turn}:)" for turn in (0, 1)]


async def test_a_request_field_of_the_users_wins() -> None:
    _, requests = await played("video", "hermes", video="video", extra_body={"media_io_kwargs": {}})
    assert requests[0]["media_io_kwargs"] == {}


async def test_separate_frames_stay_images_in_either_form() -> None:
    _, requests = await played("frames", "hermes", video="video")
    kinds = [item["type"] for item in items(requests[-1]) if item["type"] != "text"]
    assert kinds == ["video_url"] + ["image_url"] * 5


def test_a_wrong_form_is_refused() -> None:
    with pytest.raises(ConfigError, match="video='film': expected 'frames' or 'video'"):
        OpenAIPolicy("m", "http://127.0.0.1:1/v1", video="film")  # type: ignore[arg-type]


def test_a_lost_frame_is_named() -> None:
    clip = Video("ab" * 32, "video/mp4", 8, 8, 9.0, 25.0, "video_1", times=(1.0,), frames=("cd" * 32,))
    with pytest.raises(PolicyError, match="image cdcdcdcdcdcd of video_1 cannot be sent"):
        wire_messages(seen(Message("user", (clip,))), native=False)


TIMES = st.lists(st.integers(0, 10**6).map(lambda tenth: tenth / 10), min_size=1, max_size=9, unique=True).map(sorted)


@given(TIMES)
def test_times_are_told_to_the_millisecond_and_the_rate_is_the_clips_own(times: list[float]) -> None:
    names = tuple(f"{place:064x}" for place in range(len(times)))
    clip = Video("ab" * 32, "video/mp4", 8, 8, 9.0, 25.0, times=tuple(times), frames=names)
    told = clip_metadata(clip)
    assert [number / told["fps"] for number in told["frames_indices"]] == pytest.approx(times, abs=5e-4)
    rate = len(times) / told["total_num_frames"] * told["fps"]
    assert rate == pytest.approx(clip.rate or 1.0, rel=0.02)
    assert told["total_num_frames"] >= len(times)


def test_a_conversation_without_videos_is_left_alone() -> None:
    observation: Observation = seen(Message("user", (Text("a"), Image("ab" * 32, "image/png", 4, 4))))
    assert shown(observation, "video") is observation
    assert not is_stamp("<2.0 seconds> and more")
