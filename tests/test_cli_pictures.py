"""Pictures for a person at a terminal: shown where it can, else in a file whose path is told."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image as PillowImage

from agentenv.cli import main
from agentenv.cli.pictures import Gallery, protocol
from agentenv.media import MediaStore, media_store, use_media_store
from agentenv.types import Image
from tests.pictures import encoded, photo

KITTY = {"TERM": "xterm-kitty"}
ITERM = {"TERM_PROGRAM": "iTerm.app", "TERM": "xterm-256color"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def own_store() -> Iterator[None]:
    before = media_store()
    use_media_store(MediaStore())
    yield
    use_media_store(before)


def shown(image: Image, environ: dict[str, str], stream: io.StringIO | None = None) -> str:
    stream = stream or Terminal()
    Gallery(stream, environ)(image)
    return stream.getvalue()


def jpeg(handle: str = "image_1") -> Image:
    image = media_store().put(encoded(photo(200, 100), "JPEG"))
    return Image(image.sha256, image.mime, image.width, image.height, handle)


def test_kitty_gets_png_in_pieces() -> None:
    image = jpeg()
    text = shown(image, KITTY)
    pieces = re.findall("\x1b_G([^;]*);([^\x1b]*)\x1b\\\\", text)
    assert len(pieces) > 2
    assert pieces[0][0].startswith("a=T,f=100,q=2,")
    assert [head[-3:] for head, _ in pieces] == ["m=1"] * (len(pieces) - 1) + ["m=0"]
    assert all(len(piece) <= 4096 for _, piece in pieces)
    assert re.sub("\x1b_G[^\x1b]*\x1b\\\\", "", text) == "\n"
    picture = PillowImage.open(io.BytesIO(base64.b64decode("".join(piece for _, piece in pieces))))
    assert (picture.format, picture.size) == ("PNG", (200, 100))


def test_iterm_gets_the_file_itself() -> None:
    image = jpeg()
    found = re.fullmatch("\x1b\\]1337;File=inline=1;size=(\\d+);[^:]*:([^\x07]*)\x07\n", shown(image, ITERM))
    assert found is not None
    data = base64.b64decode(found[2])
    assert data == media_store().get(image.sha256)
    assert len(data) == int(found[1])


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        (KITTY, "kitty"),
        ({"KITTY_WINDOW_ID": "1", "TERM": "xterm-256color"}, "kitty"),
        ({"TERM_PROGRAM": "ghostty"}, "kitty"),
        (ITERM, "iterm"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm"),
        ({"LC_TERMINAL": "iTerm2"}, "iterm"),
        ({**KITTY, "TMUX": "/tmp/x"}, ""),
        ({"TERM": "screen", "TERM_PROGRAM": "iTerm.app"}, ""),
        ({"TERM": "xterm-256color"}, ""),
        ({}, ""),
    ],
)
def test_the_terminal_is_told_by_its_variables(environ: dict[str, str], wanted: str) -> None:
    assert protocol(environ) == wanted


@pytest.mark.parametrize("terminal", [Terminal, io.StringIO])
def test_other_terminals_get_the_path_of_a_file(terminal: type[io.StringIO]) -> None:
    image = jpeg("../../odd\x1b[31m")
    environ = {} if terminal is Terminal else KITTY  # what is no terminal gets no codes, whatever its variables say
    text = shown(image, environ, terminal())
    assert "\x1b" not in text
    place = Path(text.rpartition(" file ")[2].strip().rstrip(")"))
    assert place.read_bytes() == media_store().get(image.sha256)
    assert place.suffix == ".jpg"
    assert place.parent.name.startswith("agentenv-pictures-")


def test_what_cannot_be_shown_is_said() -> None:
    missing = Image("0" * 64, "image/png", 1, 1, "image_1")
    assert "image_1 cannot be shown: no media 000000000000" in shown(missing, KITTY)
    broken = Image(media_store().put_bytes(b"no picture"), "image/png", 1, 1)
    assert "the image cannot be shown" in shown(broken, KITTY)


def test_play_shows_the_first_view_and_the_crop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A person zooms: both the view and what came back lie in files with just these bytes."""
    monkeypatch.chdir(tmp_path)
    typed = 'image_zoom {"bbox_2d": [100, 100, 300, 300], "image": "image_1"}\nanswer x\n'
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert main(["play", "zoom", "-o", "difficulty=1", "--out", "mine"]) == 0
    out = capsys.readouterr().out
    files = [Path(path) for path in re.findall(r"is in the file (.*)\)", out)]
    assert [path.name for path in files] == ["image_1.jpg", "observation_1.jpg"]
    held = {path.read_bytes() for path in (tmp_path / "mine" / "media").rglob("*") if path.is_file()}
    assert {path.read_bytes() for path in files} == held
    assert out.index("image_1.jpg") < out.index("observation_1.jpg")


def frame(second: float) -> Image:
    image = media_store().put(encoded(photo(640, 360, seed=int(second)), "JPEG"))
    derived = {"from": "f" * 64, "op": "frame", "time": second, "of": "video_1"}
    return Image(image.sha256, image.mime, 640, 360, "", derived)


def test_frames_of_a_video_are_one_sheet(tmp_path: Path) -> None:
    frames = tuple(frame(second) for second in (1.0, 2.5, 4.0, 5.5, 7.0))
    stream = io.StringIO()
    Gallery(stream, {})(frames)
    told = re.fullmatch(r"\(video_1, 1\.0 to 7\.0 seconds, is in the file (.*)\)\n", stream.getvalue())
    assert told is not None
    picture = PillowImage.open(told[1])
    assert picture.size == (4 * 320, 2 * (180 + 16))
    assert picture.getpixel((3 * 320 + 20, 196 + 100)) == (0, 0, 0)  # only five places are taken
    assert "\x1b_G" in shown_sheet(frames, KITTY)


def shown_sheet(frames: tuple[Image, ...], environ: dict[str, str]) -> str:
    stream = Terminal()
    Gallery(stream, environ)(frames)
    return stream.getvalue()


def test_a_frame_that_is_lost_is_told() -> None:
    stream = io.StringIO()
    lost = Image("0" * 64, "image/jpeg", 8, 8, "", {"op": "frame", "from": "f", "time": 1.0})
    Gallery(stream, {})((lost,))
    assert stream.getvalue().startswith("(the image cannot be shown: no media")
