"""Clips of an hour of 720p video: ours against decoding only what is needed, and against others, side by side.

All give 32 frames of a minute, evenly spread, as 448 x 252 RGB with one decoder thread, from a file opened anew.
Counted is CPU time: ours is that of the host and of the decoding process together.
"""

from __future__ import annotations

import atexit
import importlib
import io
import os
import resource
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np

from agentenv.media import DecodeCache, MediaStore
from agentenv.tools.video import DecodePool, Sampling, Shape, VideoReader, put_video
from tests.bench.figure import Figure, Group, Scale, interleaved, medians, ratio

FPS, KEYINT, FRAMES, SECONDS = 30, 250, 32, 60.0
SHAPE = Shape(448, 252, "RGB")
OTHERS = {
    "decord": ("clip_decord", 2.0, "x", "decord 0.6 with its size given to the reader, and one thread"),
    "torchcodec": ("clip_torchcodec", 1.5, "x", "torchcodec's approximate seeking"),
    "plain": ("clip_pyav_plainly", None, "x", "PyAV with a seek for each frame"),
    "longvt": ("clip_longvt", None, "x", "what LongVT does: decord in full size, our frames, torch to resize"),
}
OPTIONAL = ("clip_torchcodec", "clip_decord", "clip_longvt")
_TICK = Fraction(1, 90_000)


@cache
def hour(quick: bool) -> Path:
    """The file: H.264, keyframes 8.3 s apart, 3 B-frames; moving noise, of which a part is repeated to the hour."""
    width, height, unique, minutes = (160, 90, KEYINT, 2) if quick else (1280, 720, 4 * KEYINT, 60)
    part = io.BytesIO()
    with av.open(part, "w", format="mp4") as out:
        stream: Any = out.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "26"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = KEYINT, 3
        stream.codec_context.options |= {"x264-params": f"scenecut=0:keyint={KEYINT}:min-keyint={KEYINT}"}
        for number in range(unique):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(_picture(number, width, height), format="rgb24")))
        out.mux(stream.encode(None))
    part.seek(0)
    place = Path(tempfile.mkdtemp(prefix="agentenv-bench-")) / "hour.mp4"
    atexit.register(shutil.rmtree, place.parent, ignore_errors=True)
    _repeat(part, place, max(1, minutes * 60 * FPS // unique))
    return place


@cache
def _noise(width: int, height: int) -> np.ndarray[Any, Any]:
    coarse = np.random.default_rng(0).integers(0, 255, (height // 8 + 1, 2 * width // 8 + 1, 3), dtype=np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)


def _picture(number: int, width: int, height: int) -> np.ndarray[Any, Any]:
    picture = _noise(width, height)[:height, 2 * number % width :][:, :width].copy()
    x = 5 * number % (width - 40)
    picture[height // 3 : height // 3 + 40, x : x + 40] = (250, 40, 40)
    return picture


def _repeat(part: io.BytesIO, place: Path, times: int) -> None:
    """The groups of pictures are closed, so their packets can be written again and again."""
    source: Any
    out: Any
    with av.open(part) as source, av.open(str(place), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.dts is not None]
        base = packets[0].time_base
        length = round(Fraction(len(packets), FPS) / base)
        kept = [(bytes(packet), packet.pts, packet.dts, packet.is_keyframe) for packet in packets]
        for turn in range(times):
            for data, pts, dts, key in kept:
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = stream, base, key
                packet.pts, packet.dts = pts + turn * length, dts + turn * length
                out.mux(packet)


class Clip:
    """The same clip by every way."""

    def __init__(self, quick: bool) -> None:
        self.file = hour(quick)
        self.pool = DecodePool(1, 120.0)
        self.store = MediaStore()
        self.video = put_video(self.store, self.file, pool=self.pool)
        start = self.video.duration / 2
        self.times = Sampling(max_frames=FRAMES).times(start, start + min(SECONDS, start), None, FRAMES)
        self.numbers = [int(time * FPS + 1e-6) for time in self.times]
        self.stamps = VideoReader(self.store, DecodeCache(), self.pool).stamps(self.video.sha256)
        self.targets = [self.stamps[number] for number in self.numbers]

    def ours(self) -> Any:
        return VideoReader(self.store, DecodeCache(), self.pool).frames(self.video.sha256, self.times, SHAPE)

    def group(self) -> None:
        """Sixteen members ask at once, with a cache that they share."""
        shared = DecodeCache()
        reader = VideoReader(self.store, shared, self.pool)
        with ThreadPoolExecutor(16) as members:
            list(members.map(lambda _: reader.frames(self.video.sha256, self.times, SHAPE), range(16)))

    def needed(self) -> list[Any]:
        """Only the pictures that the wanted ones refer to: which, is known beforehand; nothing is looked for."""
        container: Any = av.open(str(self.file))
        with container:
            stream = container.streams.video[0]
            stream.thread_type, context = "NONE", stream.codec_context
            found: dict[int, Any] = {}
            for key in sorted({number - number % KEYINT for number in self.numbers}):
                wanted = {t for n, t in zip(self.numbers, self.targets, strict=True) if key <= n < key + KEYINT}
                container.seek(self.stamps[key], stream=stream)
                context.flush_buffers()
                left = set(wanted)
                for packet in container.demux(stream):
                    context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
                    for frame in context.decode(packet):
                        if frame.pts in left:
                            found[frame.pts] = frame.to_ndarray(width=SHAPE.width, height=SHAPE.height, format="rgb24")
                            left.discard(frame.pts)
                    if not left:
                        break
                context.skip_frame = "DEFAULT"
            return [found[target] for target in self.targets]

    def plain(self) -> list[Any]:
        container: Any = av.open(str(self.file))
        with container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            kept = []
            for target in self.targets:
                container.seek(target, stream=stream)
                frame = next(frame for frame in container.decode(stream) if frame.pts >= target)
                kept.append(frame.to_ndarray(width=SHAPE.width, height=SHAPE.height, format="rgb24"))
            return kept

    def decord(self) -> Any:
        decord = importlib.import_module("decord")
        size = {"width": SHAPE.width, "height": SHAPE.height}
        return decord.VideoReader(str(self.file), num_threads=1, **size).get_batch(self.numbers).asnumpy()

    def torchcodec(self) -> Any:
        decoders = importlib.import_module("torchcodec.decoders")
        resize = importlib.import_module("torchcodec.transforms").Resize((SHAPE.height, SHAPE.width))
        options: dict[str, Any] = {"seek_mode": "approximate", "num_ffmpeg_threads": 1, "transforms": [resize]}
        return decoders.VideoDecoder(str(self.file), **options).get_frames_at(self.numbers).data

    def longvt(self) -> Any:
        decord, torch = importlib.import_module("decord"), importlib.import_module("torch")
        torch.set_num_threads(1)
        reader = decord.VideoReader(str(self.file), num_threads=1)
        pixels = torch.tensor(reader.get_batch(self.numbers).asnumpy()).permute(0, 3, 1, 2).float()
        size = (SHAPE.height, SHAPE.width)
        return torch.nn.functional.interpolate(pixels, size=size, mode="bicubic", antialias=True)

    def cpu(self, work: Callable[[], object]) -> float:
        """CPU seconds of this process, its threads, and the decoding process."""
        before = self._spent()
        work()
        return self._spent() - before

    def _spent(self) -> float:
        used = resource.getrusage(resource.RUSAGE_SELF)
        others = (Path(f"/proc/{pid}/schedstat").read_text().split()[0] for pid in self.pool.processes())
        return used.ru_utime + used.ru_stime + sum(int(nanoseconds) for nanoseconds in others) / 1e9


def measure(scale: Scale) -> list[Figure]:
    clip = Clip(scale.quick)
    works: dict[str, Callable[[], object]] = {"ours": clip.ours, "needed": clip.needed, "group": clip.group}
    works["plain"] = clip.plain
    missing: dict[str, str] = {}
    for name in ("decord", "torchcodec", "longvt"):
        try:
            getattr(clip, name)()
            works[name] = getattr(clip, name)
        except (ImportError, OSError, RuntimeError) as error:
            missing[name] = f"{type(error).__name__}: {name} is not installed, or FFmpeg's libraries are not"
    for work in (clip.ours, clip.needed, clip.group):
        work()  # what happens only once is not what is asked for
    taken = interleaved(works, scale.of(5, 1), clip.cpu)
    middle = {name: f"{1000 * value:,.0f} ms" for name, value in medians(taken).items()}
    figures = [
        Figure(
            "clip_32_frames",
            ratio(taken["ours"], taken["needed"]),
            "x of only what is needed",
            most=1.15,
            why=f"{middle['ours']} against {middle['needed']}: the process, its pipe, and finding what is needed",
        ),
        Figure(
            "clip_group_of_16",
            ratio(taken["group"], taken["ours"]),
            "x of one member",
            most=1.1,
            why=f"{middle['group']} for 16 that ask at once: one decodes, the others wait for it",
        ),
    ]
    for name, (figure, least, unit, what) in OTHERS.items():
        if name in missing:
            figures.append(Figure(figure, None, unit, least=least, why=missing[name]))
            continue
        figures.append(Figure(figure, ratio(taken[name], taken["ours"]), unit, least, None, f"{middle[name]}: {what}"))
    return [*figures, _memory(scale)]


def _memory(scale: Scale) -> Figure:
    """Memory of the host and its decoding process over many clips, none of which is kept."""
    pool, store = DecodePool(1, 60.0, recycle=1 << 30), MediaStore()
    video = put_video(store, hour(True), pool=pool)
    count, before = scale.of(10_000, 40), 0.0
    for number in range(count):
        start = number % 12 * KEYINT / FPS  # where a group of pictures begins
        reader = VideoReader(store, DecodeCache(0), pool)
        reader.frames(video.sha256, [start, start + 0.1], Shape(64, 36, "JPEG"))
        if number == count // 10:
            before = _resident(pool)
    now = _resident(pool)
    why = f"{before:.0f} MB after a tenth, {now:.0f} MB at the end, in one decoding process that is never replaced"
    return Figure("clip_memory", now / before, f"x over {count:,} clips", most=1.1, why=why)


def _resident(pool: DecodePool) -> float:
    pids = [os.getpid(), *pool.processes()]
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * 4096 / 1e6


FIGURES = ("clip_32_frames", "clip_group_of_16", *(figure for figure, *_ in OTHERS.values()), "clip_memory")
GROUP = Group("clips", FIGURES, measure, {"clip": lambda: Clip(True).ours()})
