"""The tools as a model meets them: schema, call, result, refusal."""

from __future__ import annotations

import io
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from PIL import Image as Pillow

from agentenv.errors import ConfigError, MissingExtraError, ToolError, ToolErrorKind
from agentenv.media import DecodeCache, EpisodeMedia, MediaStore
from agentenv.tool import Tool, run_inline
from agentenv.tools.image import Output, image_zoom_tool
from agentenv.tools.video import (
    LONGVT,
    Budget,
    ClipSettings,
    DecodePool,
    Sampling,
    VideoNaming,
    put_video,
    video_clip_tool,
    video_frames_tool,
    video_info_tool,
    video_zoom_tool,
)
from agentenv.types import Image, Part, Text, ToolCall
from tests.pictures import encoded, scene
from tests.tools.video import clips

LARGE = Budget(Output(max_upscale=1.0, quality=95))


@pytest.fixture(scope="module")
def pool() -> Any:
    made = DecodePool(2, 20.0)
    yield made
    made.close()


def episode(pool: DecodePool, *names: str, **options: Any) -> EpisodeMedia:
    store = MediaStore()
    given: list[Part] = [put_video(store, clips.video(name)[0], pool=pool) for name in names or ("mp4",)]
    return EpisodeMedia([*given, store.put(encoded(scene(), "PNG"))], store=store, cache=DecodeCache(), **options)


def call(tool: Tool, media: EpisodeMedia, **arguments: Any) -> list[Part]:
    """Through the validation that a model's call goes through."""
    parts: list[Part] = tool(**tool.validate(arguments), media=media)
    return parts


def numbers(media: EpisodeMedia, parts: list[Part]) -> list[int]:
    return [clips.number(opened(media, part)) for part in parts if isinstance(part, Image)]


def opened(media: EpisodeMedia, part: Part) -> Pillow.Image:
    assert isinstance(part, Image)
    return Pillow.open(io.BytesIO(media.store.get(part.sha256))).convert("RGB")


def test_a_clip_is_frames_with_their_times_and_a_sentence(pool: DecodePool) -> None:
    media = episode(pool)
    parts = call(video_clip_tool(pool=pool), media, video="video_1", start=2, end=5)
    assert [type(part) for part in parts] == [Text, Image] * 3 + [Text]
    assert [part.text for part in parts if isinstance(part, Text)] == [
        "<2.0 seconds>",
        "<3.0 seconds>",
        "<4.0 seconds>",
        "video_1: 3 frames from 2 to 5 seconds.",
    ]
    assert numbers(media, parts) == [50, 75, 100]
    first = parts[1]
    assert isinstance(first, Image)
    assert (first.handle, first.mime, first.width, first.height) == ("observation_1", "image/jpeg", 160, 96)
    video = media.find("video_1")
    assert first.derived == {"from": video.sha256, "op": "frame", "time": 2.0, "of": "video_1"}
    assert media.resolve("observation_3") == parts[5]


def test_a_rate_or_a_number_is_given(pool: DecodePool) -> None:
    media, tool = episode(pool), video_clip_tool(pool=pool)
    assert numbers(media, call(tool, media, video="video_1", start=1, end=2, fps=4)) == [25, 31, 37, 43]
    assert numbers(media, call(tool, media, video="video_1", start=1, end=3, frames=2)) == [37, 62]
    assert numbers(media, call(tool, media, video="video_1", start=0, end=0.1, fps=1000)) == [0, 1, 2]  # each once
    with pytest.raises(ToolError, match="Give either 'fps' or 'frames'"):
        call(tool, media, video="video_1", start=1, end=2, fps=1, frames=2)
    for wrong in ({"fps": 0}, {"frames": 0}, {"frames": 33}, {"start": "x"}, {"start": float("nan")}, {"end": None}):
        with pytest.raises(ToolError) as caught:
            call(tool, media, **{"video": "video_1", "start": 1, "end": 2, **wrong})
        assert caught.value.kind is ToolErrorKind.INVALID_ARGUMENTS


def test_the_schema_states_the_rules() -> None:
    spec = video_clip_tool().spec
    assert list(spec.parameters["properties"]) == ["video", "start", "end", "fps", "frames"]
    assert spec.parameters["required"] == ["video", "start", "end"]
    assert "moved to its start or end" in spec.parameters["properties"]["end"]["description"]
    strict = video_clip_tool(ClipSettings(Sampling(outside="error")))
    assert "refused" in strict.spec.parameters["properties"]["end"]["description"]
    assert strict.version != video_clip_tool().version
    alone = video_clip_tool(ClipSettings(naming=VideoNaming(video="", fps="", frames="")))
    assert list(alone.spec.parameters["properties"]) == ["start", "end"]


def test_windows_outside_are_clamped_or_refused(pool: DecodePool) -> None:
    media = episode(pool)
    clamped = call(video_clip_tool(pool=pool), media, video="video_1", start=8.5, end=30)
    assert numbers(media, clamped) == [212, 237]
    assert "from 8.5 to 10 seconds" in clamped[-1].text  # type: ignore[union-attr]
    strict = video_clip_tool(ClipSettings(Sampling(outside="error")), pool=pool)
    with pytest.raises(ToolError, match="lasts from 0 to 10 s"):
        call(strict, media, video="video_1", start=8.5, end=30)
    with pytest.raises(ToolError, match="the video ends at 10 s"):
        call(video_clip_tool(pool=pool), media, video="video_1", start=11, end=12)


def test_times_are_shown_as_chosen(pool: DecodePool) -> None:
    media = episode(pool)
    arguments = {"video": "video_1", "start": 2, "end": 4}
    bare = ClipSettings(budget=LARGE, timestamps="none", text="")
    plain = call(video_clip_tool(bare, pool=pool), media, **arguments)
    assert [type(part) for part in plain] == [Image, Image]
    burnt = call(video_clip_tool(msgspec.structs.replace(bare, timestamps="burnt"), pool=pool), media, **arguments)
    assert opened(media, burnt[0]).getpixel((1, 1)) == pytest.approx((0, 0, 0), abs=9)
    assert opened(media, burnt[0]).tobytes() != opened(media, plain[0]).tobytes()
    last = ClipSettings(timestamps="none", frames_first=False, handles=False)
    parts = call(video_clip_tool(last, pool=pool), media, **arguments)
    assert [type(part) for part in parts] == [Text, Image, Image]
    assert parts[1].handle == ""  # type: ignore[union-attr]


def test_many_frames_are_made_smaller(pool: DecodePool) -> None:
    media = episode(pool)
    tool = video_clip_tool(ClipSettings(budget=Budget(Output(max_upscale=1.0), 40_000)), pool=pool)
    few = call(tool, media, video="video_1", start=0, end=2)
    many = call(tool, media, video="video_1", start=0, end=9)
    for parts in (few, many):
        images = [part for part in parts if isinstance(part, Image)]
        assert sum(image.width * image.height for image in images) <= 40_000 * 1.05
    assert numbers(media, few) == [0, 25]


def test_even_numbers_of_frames(pool: DecodePool) -> None:
    media = episode(pool)
    tool = video_clip_tool(ClipSettings(Sampling(even=True)), pool=pool)
    assert numbers(media, call(tool, media, video="video_1", start=0, end=5)) == [15, 46, 78, 109]
    assert numbers(media, call(tool, media, video="video_1", start=0, end=0.01)) == [0, 0]
    assert numbers(media, call(tool, media, video="video_1", start=0, end=0.12, frames=4)) == [0, 1]


def test_longvt(pool: DecodePool) -> None:
    media = episode(pool)
    tool = video_clip_tool(LONGVT, name="crop_video", description="Crop a video to a specified duration.", pool=pool)
    schema = tool.spec.parameters
    assert list(schema["properties"]) == ["video_path", "start_time", "end_time"]
    assert schema["required"] == []
    parts = call(tool, media, video_path="/data/videos/a.mp4", start_time=2.0, end_time=6.0)
    assert [type(part) for part in parts] == [Image] * 4 + [Text]
    assert numbers(media, parts) == [50, 83, 117, 150]
    image = parts[0]
    assert isinstance(image, Image)
    assert (image.mime, image.width % 28, image.height % 28) == ("image/png", 0, 0)
    assert parts[-1] == Text("The tool executed successfully. Here are the processed result")
    for wrong, words in (
        ({"end_time": 10.5}, "leaves the video"),
        ({"start_time": -1.0}, "leaves the video"),
        ({"start_time": 7.0}, "empty"),
        ({"end_time": 2.02}, "fewer than two frames"),
        ({"end_time": None}, "'end_time' is missing"),
        ({"video_path": " "}, "'video_path' is missing"),
    ):
        with pytest.raises(ToolError, match=words):
            call(tool, media, **{"video_path": "a", "start_time": 2.0, "end_time": 6.0, **wrong})


def test_the_qwen_rule_goes_by_number_where_time_goes_by_time(pool: DecodePool) -> None:
    media = episode(pool, "vfr mp4")
    truth = clips.video("vfr mp4")[1]
    by_time = call(video_clip_tool(pool=pool), media, video="video_1", start=3, end=9)
    assert numbers(media, by_time) == list(dict.fromkeys(clips.shown(truth, at) for at in range(3, 9)))
    qwen = video_clip_tool(ClipSettings(Sampling("qwen")), pool=pool)
    rate = 8.241984669908513
    got = numbers(media, call(qwen, media, video="video_1", start=3, end=9))
    assert (got[0], got[-1], len(got)) == (int(3 * rate) + 1, int(9 * rate), 6)


def test_frames_at_times(pool: DecodePool) -> None:
    media, tool = episode(pool), video_frames_tool(pool=pool)
    parts = call(tool, media, video="video_1", times=[4.0, 1.03, 99])
    assert numbers(media, parts) == [100, 25, 249]
    assert parts[0] == Text("<4.0 seconds>")
    assert parts[-1] == Text("video_1: 3 frames.")
    strict = video_frames_tool(ClipSettings(Sampling(outside="error")), pool=pool)
    with pytest.raises(ToolError, match="99 s is outside"):
        call(strict, media, video="video_1", times=[1, 99])
    demo = video_frames_tool(ClipSettings(Sampling(outside="clamp_end")), pool=pool)
    assert numbers(media, call(demo, media, video="video_1", times=[99])) == [249]
    with pytest.raises(ToolError, match="-1 s is outside"):
        call(demo, media, video="video_1", times=[-1])
    for times in ([], [0.0] * 33, [float("inf")]):
        with pytest.raises(ToolError):
            call(tool, media, video="video_1", times=times)


def test_what_there_is(pool: DecodePool) -> None:
    tool = video_info_tool(pool=pool)
    said: Any = tool(media=episode(pool, "mp4", "ts"))
    assert said == (
        "video_1: 10.00 seconds, 25 frames a second, 160 x 96 pixels, without sound\n"
        "video_2: 10.00 seconds, 25 frames a second, 160 x 96 pixels, without sound"
    )
    assert tool(media=EpisodeMedia([], store=MediaStore())) == "There are no videos."


def test_only_videos_by_their_handle(pool: DecodePool) -> None:
    media, tool = episode(pool, aliases={"film": "video_1"}), video_clip_tool(pool=pool)
    assert numbers(media, call(tool, media, video=" film ", start=1, end=2)) == [25]
    with pytest.raises(ToolError, match="'image_1' is an image, not a video; videos: video_1"):
        call(tool, media, video="image_1", start=1, end=2)
    with pytest.raises(ToolError, match="There is no image or video '/etc/passwd'"):
        call(tool, media, video="/etc/passwd", start=1, end=2)


def test_a_broken_video_is_explained_without_paths(pool: DecodePool) -> None:
    media = episode(pool, "mp4 fast start")
    data = clips.video("mp4 fast start")[0]
    good = media.find("video_1")
    store = MediaStore()
    short = msgspec.structs.replace(good, sha256=store.put_bytes(data[: len(data) // 5]))
    junk = msgspec.structs.replace(good, sha256=store.put_bytes(b"junk"))
    broken = EpisodeMedia([short, junk], store=store, cache=DecodeCache())
    tool = video_clip_tool(pool=pool)
    with pytest.raises(ToolError, match="cannot be shown: there is no frame that can be decoded near"):
        call(tool, broken, video="video_1", start=8, end=9)
    with pytest.raises(ToolError, match="cannot be shown: not a video"):
        call(tool, broken, video="video_2", start=8, end=9)
    assert "video_2: cannot be read: not a video" in video_info_tool(pool=pool)(media=broken)


def test_a_region_at_a_moment(pool: DecodePool) -> None:
    media, tool = episode(pool), video_zoom_tool("relative_1", pool=pool)
    image, said = call(tool, media, video="video_1", time=4.0, bbox_2d=[0, 0, 0.5, 0.5])
    assert isinstance(image, Image)
    assert (image.width, image.height) == (80, 48)
    assert image.derived == {
        "from": media.find("video_1").sha256,
        "op": "frame_zoom",
        "time": 4.0,
        "of": "video_1",
        "box": [0, 0, 80, 48],
    }
    row = [opened(media, image).getpixel((16 * bit + 8, 8))[0] > 127 for bit in range(5)]  # type: ignore[index]
    assert row == [bool(100 >> bit & 1) for bit in range(5)]
    assert said == Text("observation_1: region [0.0, 0.0, 0.5, 0.5] of video_1 at 4.0 seconds.")
    late, _ = call(tool, media, video="video_1", time=99, bbox_2d=[0, 0, 1, 1])
    assert numbers(media, [late]) == [249]


def test_frames_can_be_zoomed_into(pool: DecodePool) -> None:
    media = episode(pool)
    call(video_clip_tool(pool=pool), media, video="video_1", start=1, end=2)
    crop = call(image_zoom_tool("relative_1"), media, bbox_2d=[0, 0, 0.5, 0.5], image="observation_1")
    assert isinstance(crop[0], Image)


def test_a_group_gets_the_same_bytes_and_decodes_once(pool: DecodePool) -> None:
    store, cache = MediaStore(), DecodeCache()
    video = put_video(store, clips.video("vp9")[0], pool=pool)
    tool = video_clip_tool(pool=pool)

    def member(_: int) -> list[Part]:
        media = EpisodeMedia([video], store=store, cache=cache)
        return call(tool, media, video="video_1", start=0, end=2, fps=8)

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(member, range(8)))
    assert all(result == results[0] for result in results)
    frames = [part for part in results[0] if isinstance(part, Image)]
    assert cache.stats.made <= len(frames) + 2  # and the header, and the file


def test_through_the_driver(pool: DecodePool) -> None:
    media = episode(pool, deferred=True)
    request = ToolCall("1", "video_clip", "", {"video": "video_1", "start": 1, "end": 3})
    result = media.admit(run_inline(video_clip_tool(pool=pool), request, {"media": media}))
    assert result.error_kind is None
    assert [part.handle for part in result.parts if isinstance(part, Image)] == ["observation_1", "observation_2"]


def test_without_pyav_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = clips.video("mp4")[0]
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"agentenv-gym\[video\]"):
        put_video(MediaStore(), data, pool=DecodePool(1))


def test_texts_with_unknown_fields_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\{source\}, \{count\}"):
        ClipSettings(text="{nobody}")
