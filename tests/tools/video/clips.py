"""Small real videos with their frame number drawn in, and what each frame's number and time truly are."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import cache
from tempfile import NamedTemporaryFile
from typing import Any

import av
import numpy as np
from PIL import Image

WIDTH, HEIGHT, CELL, BITS = 160, 96, 16, 10
TICK = Fraction(1, 90_000)

_FAST = {name: {"preset": "ultrafast", "threads": "1"} for name in ("libx264", "libx265")}

Truth = list[tuple[float, int]]
"""Second at which a frame is shown, and its number, in order."""


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray[Any, Any]:
    """A moving ramp under a row of cells, of which cell k is white where bit k of the number is set."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    base = np.stack([(x + 3 * number) % 256, (2 * y + number) % 256, np.full_like(x, 90)], -1).astype(np.uint8)
    base[:CELL] = 0
    for bit in range(BITS):
        if number >> bit & 1:
            base[:CELL, bit * CELL : (bit + 1) * CELL] = 255
    return base


def number(image: Image.Image | np.ndarray[Any, Any]) -> int:
    """The number drawn into a picture of any size."""
    pixels = np.asarray(image)
    high, wide = pixels.shape[:2]
    row = pixels[round(CELL / 2 * high / HEIGHT)].mean(-1)
    return sum(1 << bit for bit in range(BITS) if row[int((bit + 0.5) * CELL * wide / WIDTH)] > 127)


def encode(
    times: Sequence[Fraction],
    format: str = "mp4",
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    keyint: int = 25,
    bframes: int = 3,
    offset: int = 0,
    aspect: Fraction | None = None,
    tick: Fraction = TICK,
    mux: dict[str, str] | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> bytes:
    """A video whose frame k is numbered k and shown at `times[k]`."""
    with NamedTemporaryFile() as file:
        _encode(file.name, times, format, codec, options, pix_fmt, keyint, bframes, offset, aspect, tick, mux, size)
        return file.read()


def _encode(
    name: str,
    times: Sequence[Fraction],
    format: str,
    codec: str,
    options: dict[str, str] | None,
    pix_fmt: str,
    keyint: int,
    bframes: int,
    offset: int,
    aspect: Fraction | None,
    tick: Fraction,
    mux: dict[str, str] | None,
    size: tuple[int, int],
) -> None:
    with av.open(name, "w", format=format, options=mux or {}) as out:
        stream: Any = out.add_stream(codec, rate=25, options={**_FAST.get(codec, {}), **(options or {})})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = stream.time_base = tick
        stream.codec_context.gop_size = keyint
        if bframes:
            stream.codec_context.max_b_frames = bframes
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for k, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(k, *size), format="rgb24")
            frame.pts, frame.time_base = round(time / tick) + offset, tick
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def steady(frames: int, fps: int = 25) -> list[Fraction]:
    """Times of a constant frame rate."""
    return [Fraction(k, fps) for k in range(frames)]


def uneven(frames: int) -> list[Fraction]:
    """Times of a variable frame rate: gaps of 20 to 400 ms, in thousandths."""
    rng = np.random.default_rng(5)
    gaps = rng.choice([20, 33, 40, 100, 400], frames)
    return [Fraction(int(total), 1000) for total in np.concatenate([[0], np.cumsum(gaps)[:-1]])]


def truth_of(times: Iterable[Fraction]) -> Truth:
    """What `encode` shows when."""
    return [(float(time), k) for k, time in enumerate(times)]


def shown(truth: Truth, time: float) -> int:
    """The number of the frame shown at a time."""
    return [number for at, number in truth if at <= time + 1e-6][-1]


def rotated(data: bytes) -> bytes:
    """The MP4 with a display matrix that turns it by 90 degrees clockwise."""
    upright = b"".join(value.to_bytes(4, "big") for value in (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30))
    turned = b"".join(
        value.to_bytes(4, "big", signed=True) for value in (0, 65536, 0, -65536, 0, 0, HEIGHT << 16, 0, 1 << 30)
    )
    at = data.index(upright, data.index(b"tkhd"))
    return data[:at] + turned + data[at + len(turned) :]


def cut(data: bytes, number: int) -> bytes:
    """The MP4 from a frame on, without encoding it anew: the packets before it stay, and an edit list hides them."""
    file = io.BytesIO()
    source: Any
    out: Any
    with av.open(io.BytesIO(data)) as source, av.open(file, "w", format="mp4") as out:
        video = source.streams.video[0]
        copy = out.add_stream_from_template(video)
        start = round(Fraction(number, 25) / (video.time_base or TICK))
        source.seek(start, stream=video, backward=True)
        for packet in source.demux(video):
            if packet.dts is not None and packet.pts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, copy
                out.mux(packet)
    return file.getvalue()


def sound() -> bytes:
    """An MP4 that holds only sound."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream: Any = out.add_stream("aac", rate=16_000)
        for k in range(10):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, 1024 * k
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


def damaged(data: bytes) -> bytes:
    """The file with a few dozen bytes changed in the packets of its middle third; its index stays."""
    body = bytearray(data)
    rng = np.random.default_rng(1)
    start = data.index(b"mdat")
    size = int.from_bytes(data[start - 4 : start], "big")
    for place in rng.integers(start + size // 3, start + 2 * size // 3, 12):
        body[int(place)] ^= 0xFF
    return bytes(body)


_STEADY = steady(250)
_UNEVEN = uneven(200)
_OPEN_264 = {"x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"}
_OPEN = {"x265-params": "open-gop=1:keyint=27:min-keyint=27:bframes=3:b-adapt=0:scenecut=0:log-level=none"}


def _made(times: Sequence[Fraction], **options: Any) -> Callable[[], tuple[bytes, Truth]]:
    return lambda: (encode(times, **options), truth_of(times))


def _edited() -> tuple[bytes, Truth]:
    return cut(video("mp4")[0], 110), [(k / 25, 110 + k) for k in range(140)]


_FILES: dict[str, Callable[[], tuple[bytes, Truth]]] = {
    "mp4": _made(_STEADY),
    "mp4 fast start": _made(_STEADY, mux={"movflags": "faststart"}),
    "mkv": _made(_STEADY, format="matroska"),
    "no b-frames": _made(_STEADY, bframes=0),
    "one group": _made(_STEADY, keyint=1000, options={"x264-params": "scenecut=0"}),
    "open gop": _made(_STEADY, keyint=27, options=_OPEN_264),
    "vfr mp4": _made(_UNEVEN),
    "vfr mkv": _made(_UNEVEN, format="matroska"),
    "ts": _made(_STEADY, format="mpegts", offset=900_000),
    "ts open gop": _made(
        _STEADY,
        keyint=27,
        format="mpegts",
        offset=90_000,
        options=_OPEN_264,
    ),
    "edit list": _edited,
    "hevc open gop": _made(_STEADY[:120], codec="libx265", options=_OPEN),
    "vp9": _made(_STEADY[:60], format="webm", codec="libvpx-vp9", options={"cpu-used": "8", "deadline": "realtime"}),
    "av1": _made(_STEADY[:60], codec="libsvtav1", options={"preset": "12", "svtav1-params": "keyint=25"}, bframes=0),
    "10 bit": _made(_STEADY[:100], pix_fmt="yuv420p10le"),
    "4:4:4": _made(_STEADY[:100], pix_fmt="yuv444p", size=(161, 97)),
    "avi": _made(_STEADY[:100], format="avi", codec="mpeg4", bframes=0, tick=Fraction(1, 25)),
}
NAMES = tuple(_FILES)


@cache
def video(name: str) -> tuple[bytes, Truth]:
    """One of the files of `NAMES`, and what it shows when."""
    return _FILES[name]()
