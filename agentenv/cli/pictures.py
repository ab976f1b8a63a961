"""Pictures for a person: in a terminal that can show them, else as a file whose path is named."""

from __future__ import annotations

import base64
import io
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from agentenv.cli import common
from agentenv.errors import AgentEnvError
from agentenv.media import contact_sheet, decode, media_store
from agentenv.types import Image

Frames = tuple[Image, ...]
_PIECE = 4096
_COLUMNS = 60
_ENDINGS = {"image/jpeg": ".jpg", "image/tiff": ".tif"}


class Gallery:
    """Shows images one after the other.

    Args:
        stream: where; standard output by default.
        environ: which terminal this is; the process's own variables by default.
    """

    def __init__(self, stream: TextIO | None = None, environ: Mapping[str, str] | None = None) -> None:
        self._stream = stream or sys.stdout
        self._protocol = protocol(os.environ if environ is None else environ) if self._stream.isatty() else ""
        self._folder: Path | None = None

    def __call__(self, shown: Image | Frames) -> None:
        """Show an image, or frames of a video as one sheet; or say where it lies."""
        try:
            image = shown if isinstance(shown, Image) else sheet(shown)
            self._show(image, media_store().get(image.sha256))
        except AgentEnvError as error:
            handle = shown.handle if isinstance(shown, Image) else ""
            self._say(f"({handle or 'the image'} cannot be shown: {error})")

    def _show(self, image: Image, data: bytes) -> None:
        drawn = {"kitty": _kitty, "iterm": _iterm}[self._protocol](data) if self._protocol else ""
        if drawn:
            self._stream.write(drawn + "\n")
        else:
            self._say(f"({image.handle or 'the image'} is in the file {self._kept(image, data)})")

    def _say(self, text: str) -> None:
        self._stream.write(common.printable(text) + "\n")
        self._stream.flush()

    def _kept(self, image: Image, data: bytes) -> Path:
        """The path of a file that holds it, which outlives the program: a person looks at it in another window."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="agentenv-pictures-"))
        stem = re.sub(r"\W+", "_", image.handle)[:60].strip("_") or image.sha256[:12]
        ending = _ENDINGS.get(image.mime, "." + re.sub(r"\W", "", image.mime.partition("/")[2])[:8])
        place = self._folder / f"{stem}{ending}"
        place.write_bytes(data)
        return place


def sheet(frames: Frames) -> Image:
    """Frames of a video side by side in rows, each under its time; in the process's store.

    Raises:
        DataError: one cannot be read.
        MissingExtraError: Pillow is not installed.
    """
    store = media_store()
    data, width, height = contact_sheet(frames, store.get)
    first, last = ((frame.derived or {}) for frame in (frames[0], frames[-1]))
    handle = f"{first.get('of', 'the video')}, {first.get('time', 0.0):.1f} to {last.get('time', 0.0):.1f} seconds,"
    return Image(store.put_bytes(data), "image/jpeg", width, height, handle)


def protocol(environ: Mapping[str, str]) -> str:
    """How the terminal takes pictures: "kitty", "iterm", or "" where it does not.

    A multiplexer (tmux, screen) swallows them, whatever terminal it runs in.

    >>> protocol({"TERM": "xterm-kitty"}), protocol({"TERM_PROGRAM": "iTerm.app"}), protocol({"TERM": "xterm"})
    ('kitty', 'iterm', '')
    """
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    if environ.get("TMUX") or term.startswith(("screen", "tmux", "dumb")):
        return ""
    if "kitty" in term or "ghostty" in term or environ.get("KITTY_WINDOW_ID") or program == "ghostty":
        return "kitty"
    return "iterm" if program in ("iTerm.app", "WezTerm") or environ.get("LC_TERMINAL") == "iTerm2" else ""


def _kitty(data: bytes) -> str:
    """The terminal takes PNG, in pieces; q=2 keeps it from answering into the person's next line."""
    file = io.BytesIO()
    picture = decode(data)
    picture.save(file, "PNG", compress_level=1)
    columns = min(_COLUMNS, max(1, picture.width // 10))
    text = base64.b64encode(file.getvalue()).decode()
    pieces = [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]
    heads = [f"a=T,f=100,q=2,c={columns},", *[""] * (len(pieces) - 1)]
    more = [1] * (len(pieces) - 1) + [0]
    return "".join(f"\x1b_G{head}m={m};{piece}\x1b\\" for head, m, piece in zip(heads, more, pieces, strict=True))


def _iterm(data: bytes) -> str:
    """The terminal takes the file as it is."""
    text = base64.b64encode(data).decode()
    return f"\x1b]1337;File=inline=1;size={len(data)};width={_COLUMNS};preserveAspectRatio=1:{text}\x07"
