"""Films as H.264 files: a stretch that comes again is encoded once, so an hour takes two seconds.

Each stretch is a closed group of pictures at constant quantisation, so its packets depend on nothing before it, and the
same packets can stand wherever the same stretch does.
"""

from __future__ import annotations

import io
from fractions import Fraction
from functools import lru_cache
from typing import Any

from agentenv.envs.video.draw import DRAWING, pictures
from agentenv.envs.video.film import FPS, SIZE, Film, Stretch, stretches
from agentenv.tools.video.container import load_av

_TICK = Fraction(1, FPS)
_QUANTISER = 20
_OPTIONS = {
    "preset": "superfast",
    "tune": "zerolatency",  # a packet for each picture, at once
    "qp": str(_QUANTISER),
    "forced-idr": "1",
    "x264-params": "scenecut=0:keyint=infinite",
}
_KEY, _NONE = 1, 0  # values of AVPictureType


@lru_cache(maxsize=1)
def encoded_by() -> str:
    """The versions that decide the bytes of an encoded film.

    Raises:
        MissingExtraError: PyAV or Pillow is not installed.
    """
    from agentenv.envs.zoom.rendered import drawn_by

    av = load_av()
    return "/".join((str(DRAWING), drawn_by(), av.__version__, str(_OPTIONS)))


def encode(film: Film) -> bytes:
    """The film as an MP4 file with one H.264 stream of constant frame rate and no B-frames.

    Raises:
        MissingExtraError: PyAV or Pillow is not installed.
    """
    av = load_av()
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=FPS, options=_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.thread_count = 1
        cut = list(stretches(film))
        groups = _groups(av, stream, cut)
        stamp = 0
        for stretch in cut:
            for data, is_key in groups[stretch]:
                packet = av.Packet(data)
                packet.stream, packet.time_base = stream, _TICK
                packet.pts = packet.dts = stamp
                packet.duration, packet.is_keyframe = 1, is_key
                out.mux(packet)
                stamp += 1
    return file.getvalue()


def _groups(av: Any, stream: Any, cut: list[Stretch]) -> dict[Stretch, list[tuple[bytes, bool]]]:
    """The packets of every stretch that is different."""
    groups: dict[Stretch, list[tuple[bytes, bool]]] = {}
    fed = 0
    for stretch in dict.fromkeys(cut):
        packets: list[tuple[bytes, bool]] = []
        for number, picture in enumerate(pictures(stretch)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = fed, _TICK
            frame.pict_type = _NONE if number else _KEY
            fed += 1
            packets += [(bytes(packet), packet.is_keyframe) for packet in stream.encode(frame)]
        groups[stretch] = packets
    return groups
