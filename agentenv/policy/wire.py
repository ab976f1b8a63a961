"""Between our words and those of OpenAI-style chat: messages out, turns in."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from agentenv.dialects._calls import arguments_call
from agentenv.errors import AgentEnvError, PolicyError
from agentenv.tokens.renderer import opened
from agentenv.types import Image, Message, Observation, Part, Table, Text, ToolCall, Video, is_stamp

Media = Callable[[str], bytes]
"""The bytes of a medium by its SHA-256."""

Address = Callable[[Image], str]
"""The URL under which a server finds an image."""

VideoForm = Literal["frames", "video"]
"""How a model is shown a clip: as separate images, or as one video of just these frames."""


def wire_messages(
    observation: Observation,
    *,
    native: bool,
    media: Media | None = None,
    address: Address | None = None,
    reasoning: str = "",
    tool_media: str = "tool",
    video: VideoForm = "frames",
) -> list[dict[str, Any]]:
    """The conversation as the `messages` of a chat request.

    Args:
        observation: what the policy was given.
        native: calls travel beside the text, and results in messages of role tool.
        media: gives the bytes of images; the process's media store by default.
        address: gives the URL of an image, which is then sent instead of its bytes.
        reasoning: the field in which earlier reasoning is passed back; empty to leave it out.
        tool_media: "tool" leaves images in the tool's message; "user" moves them into a user message after the turn's
            results, each behind a caption that names its call, for servers that take none from tools. The times of
            frames go along.
        video: how clips are sent: see `shown` and `content`.

    Raises:
        PolicyError: the bytes of an image are not to be had, or a video comes without frames.
    """
    made: list[dict[str, Any]] = []
    held: list[dict[str, Any]] = []

    def show_held() -> None:
        if held:
            made.append({"role": "user", "content": [*held]})
            held.clear()

    for message in shown(observation, video).messages:
        if message.role != "tool":
            show_held()
        wire = _wire(message, native, media, address, reasoning)
        if tool_media == "user" and wire["role"] == "tool" and isinstance(wire["content"], list):
            said = [item for item in wire["content"] if item["type"] == "text" and not is_stamp(item["text"])]
            moved = [item for item in wire["content"] if item not in said]
            held += [{"type": "text", "text": _caption(message)}, *moved]
            wire["content"] = "".join(item["text"] for item in said) or "(see the image below)"
        made.append(wire)
    show_held()
    return made


def _caption(message: Message) -> str:
    images = sum(isinstance(part, Image) for part in message.parts)
    videos = sum(isinstance(part, Video) for part in message.parts)
    counted = [(images, "image"), (videos, "video")]
    what = " and ".join(kind if count == 1 else f"{count} {kind}s" for count, kind in counted if count)
    of = f"{message.name}, call {message.call_id}" if message.name else f"call {message.call_id}"
    return f"(The {what} returned by {of}:)"


def shown(observation: Observation, video: VideoForm = "frames") -> Observation:
    """The conversation as a model is shown it: its clips as images, or with their times as text before each.

    Args:
        observation: what the policy was given.
        video: "frames" puts the frames of a clip in its place (`Video.as_frames`), "video" keeps it (`Video.as_video`).

    Raises:
        PolicyError: a video comes without frames.
    """
    if not any(isinstance(part, Video) for message in observation.messages for part in message.parts):
        return observation
    messages = tuple(replace(message, parts=opened(message.parts, video)) for message in observation.messages)
    return replace(observation, messages=messages)


def _wire(
    message: Message, native: bool, media: Media | None, address: Address | None, reasoning: str
) -> dict[str, Any]:
    role = message.role
    if role == "assistant":
        return _assistant(message, native, content(message.parts, media, address), reasoning)
    wire: dict[str, Any] = {"role": role, "content": content(message.parts, media, address)}
    if role == "tool":
        if not native:
            wire["role"] = "user"
        else:
            wire["tool_call_id"] = message.call_id
            if message.name:
                wire["name"] = message.name
    return wire


def _assistant(message: Message, native: bool, said: str | list[dict[str, Any]], reasoning: str) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": "assistant", "content": said}
    if native and message.calls:
        wire["content"] = wire["content"] or None
        wire["tool_calls"] = [wire_call(call) for call in message.calls]
    # A text dialect keeps thoughts that the model wrote itself in its text: they would be said twice.
    if reasoning and message.reasoning and message.reasoning not in message.text:
        wire[reasoning] = message.reasoning
    return wire


def wire_call(call: ToolCall) -> dict[str, Any]:
    """A call of an earlier turn, its arguments as the string that the model wrote.

    Arguments that do not decode are wrapped in an object: chat templates decode them (vLLM's does), and one broken call
    would otherwise make every later request of the episode fail.
    """
    raw = call.arguments_raw
    if call.arguments is None:
        raw = msgspec.json.encode({"invalid_arguments": raw}).decode()
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": raw}}


def content(
    parts: Sequence[Part], media: Media | None = None, address: Address | None = None
) -> str | list[dict[str, Any]]:
    """Parts as the `content` of a message: one string where all is text, a list where there are images.

    A clip is sent as `video_url` in vLLM's form for frames that were chosen already: one data URL of type video/jpeg
    that holds the file of each frame, in base64, with commas between them. Nothing is encoded anew, and the server
    chooses no frames of its own.

    Args:
        parts: of the message, in order; see `shown` for clips.
        media: gives the bytes of images; the process's media store by default.
        address: gives the URL of an image, which is then sent instead of its bytes.

    Raises:
        PolicyError: the bytes of an image are not to be had.
    """
    if len(parts) == 1 and isinstance(parts[0], (Text, Table)):
        return parts[0].text
    if all(isinstance(part, (Text, Table)) for part in parts):
        return "".join(part.text for part in parts if isinstance(part, (Text, Table)))
    return [_item(part, media, address) for part in parts]


def _item(part: Part, media: Media | None, address: Address | None) -> dict[str, Any]:
    if isinstance(part, (Text, Table)):
        return {"type": "text", "text": part.text}
    if isinstance(part, Video):
        frames = ",".join(base64.b64encode(_bytes(image, media)).decode("ascii") for image in part.images())
        return {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{frames}"}}
    url = address(part) if address is not None else data_uri(part.mime, _bytes(part, media))
    return {"type": "image_url", "image_url": {"url": url}}


def video_reading(observation: Observation) -> dict[str, Any]:
    """What a vLLM server must be told to read the clips of a conversation as they are: `media_io_kwargs` of a request.

    It holds for all videos of the request, so the frames' times (in ms, as frame numbers at 1,000 a second) can be told
    of a single one only. Source: `VideoMediaIO.load_base64` of vLLM.
    """
    messages = shown(observation, "video").messages
    clips = [part for message in messages for part in message.parts if isinstance(part, Video)]
    if not clips:
        return {}
    told: dict[str, Any] = {"num_frames": -1}
    if len(clips) == 1:
        told |= clip_metadata(clips[0]) | {"do_sample_frames": False}
    return {"video": told}


def clip_metadata(clip: Video) -> dict[str, Any]:
    """A clip as a video of 1,000 frames a second of which its frames are some: their numbers are times in ms.

    `total_num_frames` is such that frames over total, times 1,000, is the clip's own rate, from which processors of the
    Qwen2.5-VL kind compute seconds a step.
    """
    numbers = [round(1000 * time) for time in clip.times]
    total = round(len(numbers) * 1000 / clip.rate) if clip.rate else 1000 * len(numbers)
    return {"fps": 1000.0, "frames_indices": numbers, "total_num_frames": max(total, len(numbers))}


def data_uri(mime: str, data: bytes) -> str:
    """Bytes as a URL that holds them."""
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def _bytes(image: Image, media: Media | None) -> bytes:
    if media is None:
        from agentenv.media import media_store

        media = media_store().get
    try:
        return media(image.sha256)
    except (AgentEnvError, OSError, LookupError) as error:
        of = (image.derived or {}).get("of") if (image.derived or {}).get("op") == "frame" else ""
        name = image.handle or (f"{image.sha256[:12]} of {of}" if of else image.sha256[:12])
        raise PolicyError(f"the image {name} cannot be sent, since its bytes are not to be had: {error}") from error


def read_call(item: Any) -> ToolCall:
    """A call as a server gave it. Whatever it holds becomes a call: what cannot be used gets a readable `error`.

    A call without an id is left without: the dialect numbers it.
    """
    item = item if isinstance(item, dict) else {}
    function = item.get("function") if isinstance(item.get("function"), dict) else {}
    raw = function.get("arguments")
    # Some servers give the object itself instead of its text.
    raw = raw if isinstance(raw, str) else "" if raw is None else msgspec.json.encode(raw).decode()
    return arguments_call(str(item.get("id") or ""), str(function.get("name") or ""), raw)


def restored(text: str, stops: Sequence[str], hit: str | None) -> str:
    """The text with the stop string put back that the server cut off, where one was.

    Args:
        text: what the server gave.
        stops: the stop strings that it was sent.
        hit: the one that it says it stopped at (vLLM's `stop_reason`, SGLang's `matched_stop`). Where it says none
            (None), it is the one whose opening tag was opened last and is not closed.
    """
    if hit is not None and hit in stops:
        return text if text.endswith(hit) else text + hit
    opened = [(text.rfind(_opener(stop)), stop) for stop in stops if _opener(stop)]
    place, stop = max((o for o in opened if o[0] > text.rfind(o[1])), default=(-1, ""))
    return text + stop if place >= 0 else text


def _opener(stop: str) -> str:
    """What opens the element that `stop` closes: "<sql" for "</sql>"; empty where `stop` is no closing tag."""
    return "<" + stop.strip()[2:].rstrip(">") if stop.strip().startswith("</") else ""
