"""Pictures found by pictures, by parts of them, and by their texts."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageDraw

from agentenv.errors import ConfigError, DataError, MissingExtraError, ToolError, ToolErrorKind, UnknownNameError
from agentenv.media import EpisodeMedia, MediaStore
from agentenv.tool import Tool
from agentenv.tools.image import CropRules, Naming
from agentenv.tools.search import (
    Hit,
    ImageCorpus,
    ImageRetriever,
    PictureEmbedder,
    Retriever,
    image_search_tool,
    open_images,
)
from agentenv.tools.search.looks import SAME, dhash, distances, tiles
from agentenv.tools.search.pipeline import COLUMNS
from agentenv.types import Image, Table, ToolResult
from tests.pictures import encoded, photo

SHAPES = ("circle", "square", "triangle", "stripes", "cross", "rings", "dots", "steps")
COLOURS = ("red", "green", "blue", "orange", "purple", "teal", "brown", "magenta")


def drawing(number: int, size: int = 400) -> Pillow.Image:
    """A shape that no other number has, in its middle, on a ground that all share."""
    picture = photo(size, size, seed=1).point(lambda value: 160 + value // 3)
    pen, colour = ImageDraw.Draw(picture), COLOURS[number]
    low, high, middle = size // 4, 3 * size // 4, size // 2
    if SHAPES[number] == "circle":
        pen.ellipse((low, low, high, high), fill=colour)
    elif SHAPES[number] == "square":
        pen.rectangle((low, low, high, high), fill=colour)
    elif SHAPES[number] == "triangle":
        pen.polygon((low, high, middle, low, high, high), fill=colour)
    elif SHAPES[number] == "cross":
        pen.line((low, low, high, high), fill=colour, width=30)
        pen.line((low, high, high, low), fill=colour, width=30)
    else:
        for step in range(0, middle, 40):
            if SHAPES[number] == "stripes":
                pen.rectangle((low, low + step, high, low + step + 20), fill=colour)
            elif SHAPES[number] == "rings":
                pen.ellipse(
                    (low + step // 2, low + step // 2, high - step // 2, high - step // 2), outline=colour, width=8
                )
            elif SHAPES[number] == "dots":
                for other in range(0, middle, 40):
                    pen.ellipse((low + step, low + other, low + step + 20, low + other + 20), fill=colour)
            else:
                pen.rectangle((low + step, high - step - 40, low + step + 40, high), fill=colour)
    return picture


ROWS: list[dict[str, Any]] = [
    {"id": name, "image": encoded(drawing(i), "PNG"), "caption": f"a {COLOURS[i]} {name}", "title": name.title()}
    for i, name in enumerate(SHAPES)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def hashed(folder: Path) -> ImageCorpus:
    return open_images(ROWS, embed=None, folder=folder)


@pytest.fixture(scope="module")
def seen(folder: Path) -> ImageCorpus:
    return open_images(ROWS, folder=folder)


def ids(hits: list[Hit]) -> list[str]:
    return [hit.id for hit in hits]


def test_it_is_both_retrievers(hashed: ImageCorpus, seen: ImageCorpus) -> None:
    for corpus in (hashed, seen):
        assert isinstance(corpus, ImageRetriever)
        assert isinstance(corpus, Retriever)
        assert len(corpus) == 8
    assert hashed.name == "pictures-dhash-tantivy-english"
    assert repr(seen) == "<ImageCorpus of 8 pictures, pictures-efficientnet-lite0-tantivy-english>"


@pytest.mark.parametrize("number", range(8))
def test_the_hash_finds_a_picture_that_was_made_coarser(hashed: ImageCorpus, number: int) -> None:
    changed = encoded(drawing(number).resize((150, 150)), "JPEG", quality=50)
    hits = asyncio.run(hashed.search_image(changed, 3))
    assert hits[0].id == SHAPES[number]
    assert hits[0].score > 1.7
    assert len(hits) == 3


def test_the_network_finds_crops(seen: ImageCorpus) -> None:
    found = [seen.find_image(encoded(drawing(i).crop((90, 90, 310, 310)), "JPEG"), 3) for i in range(8)]
    assert sum(hits[0].id == SHAPES[i] for i, hits in enumerate(found)) >= 7
    assert all(SHAPES[i] in ids(hits) for i, hits in enumerate(found))
    exact = seen.find_image(ROWS[3]["image"], 8)
    assert exact[0].id == "stripes"
    assert 1.9 < exact[0].score <= 2.001
    assert exact == seen.find_image(ROWS[3]["image"], 8)


def test_texts_of_pictures_are_searched_as_any(hashed: ImageCorpus) -> None:
    hit = hashed.find("something with rings", 3)[0]
    assert (hit.id, hit.title, hit.text) == ("rings", "Rings", "a teal rings")
    shown = MediaStore(roots=[hashed.pictures]).info(hit.image)
    assert (shown.width, shown.height) == (400, 400)


def test_what_is_no_picture_is_an_error_for_the_model(hashed: ImageCorpus) -> None:
    with pytest.raises(ToolError, match="cannot be read"):
        hashed.find_image(b"<html>", 3)
    assert hashed.find_image(ROWS[0]["image"], 0) == []


def test_no_pictures_at_all(tmp_path: Path) -> None:
    for embed in (None, PictureEmbedder("mean", means)):
        empty = open_images([], embed=embed, folder=tmp_path)
        assert empty.find_image(ROWS[0]["image"], 3) == empty.find("x", 3) == []
        empty.close()


# ---- sources ---------------------------------------------------------------------------------------------------------


def means(pictures: list[Pillow.Image]) -> Any:
    """A plain embedder: the mean colours of 4 x 4 places."""
    return np.stack([np.asarray(one.convert("RGB").resize((4, 4)), np.float32).ravel() - 128 for one in pictures])


def test_any_function_embeds(tmp_path: Path) -> None:
    for tiled in (True, False):
        corpus = open_images(ROWS, embed=PictureEmbedder("mean", means, tiled), folder=tmp_path)
        assert ids(corpus.find_image(ROWS[5]["image"], 1)) == ["rings"]
        assert len(corpus.vectors) == (40 if tiled else 8)
    with pytest.raises(ConfigError, match="shape"):
        open_images(ROWS, embed=PictureEmbedder("bad", lambda pictures: [1.0]), folder=tmp_path)


def test_rows_with_paths_bytes_and_objects_are_alike(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(ROWS[0]["image"])
    listed = tmp_path / "rows.jsonl"
    listed.write_text(json.dumps({"id": "circle", "picture": "a.png", "caption": "a red circle"}))
    sources: list[Any] = [
        listed,
        [{"id": "circle", "picture": ROWS[0]["image"], "caption": "a red circle"}],
        iter([{"id": "circle", "picture": {"bytes": ROWS[0]["image"], "path": "x"}, "caption": "a red circle"}]),
        lambda: [
            {"id": "circle", "picture": {"bytes": None, "path": str(tmp_path / "a.png")}, "caption": "a red circle"}
        ],
    ]
    found = [open_images(source, embed=None, folder=tmp_path / "cache") for source in sources]
    assert len({corpus.version for corpus in found}) == 1
    assert all(ids(corpus.find_image(ROWS[0]["image"], 1)) == ["circle"] for corpus in found)
    assert open_images(lambda: ROWS, key="v1", embed=None, folder=tmp_path).version != found[0].version


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"caption": "x"}], "no column for the picture"),
        ([{"image": "missing.png", "caption": "x"}], "'missing.png' cannot be read"),
        ([{"image": 5, "caption": "x"}], "not int"),
        ([{"image": b"<html>", "caption": "x"}], "HTML"),
        ([{"image": ROWS[0]["image"], "caption": "x", "id": 1}] * 2, "second picture"),
        ([5], "not int"),
    ],
)
def test_malformed_rows(tmp_path: Path, rows: list[Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        open_images(rows, embed=None, folder=tmp_path)


def test_broken_pictures_can_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [*ROWS[:2], {"id": "bad", "image": ROWS[2]["image"][:2000], "caption": "cut off"}]
    with caplog.at_level(logging.WARNING, "agentenv"):
        assert len(open_images(rows, embed=None, broken="skip", folder=tmp_path)) == 2
    assert "bad is left out" in caplog.text
    with pytest.raises(ConfigError, match="broken"):
        open_images(rows, broken="ignore", folder=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="did you mean"):
        open_images(rows, image="imag", folder=tmp_path)


def test_without_the_network_hashes_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentenv.tools.search.looks import lite0

    monkeypatch.setattr("agentenv.tools.search.looks.find_spec", lambda name: None)
    assert open_images(ROWS, folder=tmp_path).embedder is None
    lite0.cache_clear()
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(MissingExtraError, match=r"agentenv-gym\[vision\]"):
        lite0()


@given(st.integers(1, 60), st.integers(1, 60))
def test_a_picture_of_any_size_has_a_hash_and_parts(width: int, height: int) -> None:
    picture = Pillow.new("RGB", (width, height), "red")
    assert dhash(picture).shape == (32,)
    parts = tiles(picture)
    assert parts[0].size == (width, height)
    assert all(part.width >= 1 and part.height >= 1 for part in parts)


def test_the_distance_is_the_number_of_bits() -> None:
    zeros, ones = np.zeros((2, 32), np.uint8), np.full(32, 255, np.uint8)
    assert list(distances(zeros, ones)) == [256, 256]
    assert list(distances(zeros, zeros[0])) == [0, 0]
    other = dhash(photo(300, 200, seed=5))
    assert distances(other[None], dhash(photo(300, 200, seed=6)))[0] > SAME


# ---- the tool --------------------------------------------------------------------------------------------------------


def place(file: bytes, phrase: str) -> tuple[float, float, float, float] | None:
    """A grounder that knows one thing: the shape in the middle, in pixels of the file that it is given."""
    if phrase != "the shape":
        return None
    with Pillow.open(io.BytesIO(file)) as picture:
        wide, high = picture.size
    return wide * 0.22, high * 0.22, wide * 0.78, high * 0.78


def scenes(*numbers: int) -> EpisodeMedia:
    """An episode with one wide picture: the drawings side by side."""
    wide = Pillow.new("RGB", (400 * len(numbers), 400))
    for i, number in enumerate(numbers):
        wide.paste(drawing(number), (400 * i, 0))
    store = MediaStore()
    return EpisodeMedia([store.put(encoded(wide, "PNG"))], store=store)


def called(tool: Tool, media: EpisodeMedia, **arguments: Any) -> ToolResult:
    result: ToolResult = asyncio.run(tool.fn(**tool.validate(arguments), media=media))
    return result


def first(result: ToolResult) -> str:
    assert result.data is not None
    return str(result.data["ids"][0])


def test_by_a_box_in_the_declared_frame(hashed: ImageCorpus) -> None:
    media = scenes(0, 5, 3)
    boxes: dict[str, list[float]] = {
        "relative_1": [1 / 3, 0, 2 / 3, 1],
        "relative_1000": [333.334, 0, 666.667, 1000],
        "pixels_shown": [400, 0, 800, 400],
    }
    for frame, box in boxes.items():
        tool = image_search_tool(hashed, frame=frame, k=2)
        result = called(tool, media, image="image_1", bbox_2d=box)
        assert first(result) == "rings"
        assert result.data is not None
        assert (result.data["handle"], result.data["box"]) == ("image_1", [400, 0, 800, 400])
        assert "thousandths" in str(tool.spec) or frame != "relative_1000"
    with pytest.raises(ToolError, match="empty"):
        called(tool, media, image="image_1", bbox_2d=[5, 5, 5, 5])


def test_the_whole_picture_and_its_results(hashed: ImageCorpus) -> None:
    media = scenes(6)
    result = called(image_search_tool(hashed, k=2), media)
    assert first(result) == "dots"
    kinds = [type(part) for part in result.parts]
    assert kinds == [Table, Image, type(result.parts[2]), Image, type(result.parts[4])]
    table, picture = result.parts[0], result.parts[1]
    assert isinstance(table, Table)
    assert isinstance(picture, Image)
    assert table.text == "1. image: "
    assert len(table.rows) == 2
    assert media.store.get(picture.sha256)


def test_a_crop_of_a_crop_is_searched_in_the_originals_pixels(hashed: ImageCorpus) -> None:
    from agentenv.tools.image import image_zoom_tool

    media = scenes(0, 5)
    image_zoom_tool("relative_1")(bbox_2d=[0.5, 0.0, 1.0, 1.0], image="image_1", media=media)
    assert first(called(image_search_tool(hashed), media, image="observation_1")) == "rings"
    result = called(image_search_tool(hashed, frame="relative_1"), media, image="observation_1", bbox_2d=[0, 0, 1, 1])
    assert result.data is not None
    assert result.data["box"] == [400, 0, 800, 400]
    assert first(result) == "rings"


async def later(file: bytes, phrase: str) -> Any:
    return place(file, phrase)


@pytest.mark.parametrize("ground", [place, later])
def test_by_a_phrase(seen: ImageCorpus, ground: Callable[[bytes, str], Any]) -> None:
    tool = image_search_tool(seen, by=("phrase",), phrase="expression", ground=ground, crop=CropRules(padding=0.05))
    assert set(tool.spec.parameters["properties"]) == {"expression"}
    media = scenes(4)
    result = called(tool, media, expression="the shape")
    assert first(result) == "cross"
    assert result.data is not None
    assert result.data["box"] == [77, 77, 323, 323]
    assert result.data["query"] == "the shape"
    for whole in ("<img>", "", "Whole image"):
        data = called(tool, media, expression=whole).data
        assert data is not None
        assert data["box"] == [0, 0, 400, 400]
    with pytest.raises(ToolError, match="other words"):
        called(tool, media, expression="a unicorn")


@pytest.mark.parametrize("box", [(30, 30, 0, 0), (9000, 9000, 9100, 9100), (float("nan"),) * 4, (5, 5, 5, 5)])
def test_a_grounders_wrong_box_is_not_the_models_fault(hashed: ImageCorpus, box: tuple[float, ...]) -> None:
    tool = image_search_tool(hashed, by=("phrase",), ground=lambda file, phrase: box)
    with pytest.raises(ToolError, match="Nothing in image_1 was found that is 'it'") as failed:
        called(tool, scenes(4), phrase="it")
    assert failed.value.kind is ToolErrorKind.FAILED


def test_by_words(hashed: ImageCorpus) -> None:
    tool = image_search_tool(hashed, by=("image", "query"), format="plain", k=1)
    result = called(tool, scenes(0), query="brown dots")
    assert first(result) == "dots"
    assert result.data is not None
    assert "box" not in result.data


def test_names_and_numbers_of_arguments(hashed: ImageCorpus) -> None:
    tool = image_search_tool(hashed, by=("image",), naming=Naming(image="img_idx", first_index=0), format="qwen-image")
    assert set(tool.spec.parameters["properties"]) == {"img_idx"}
    assert first(called(tool, scenes(2), img_idx=0)) == "triangle"
    with pytest.raises(ToolError, match="no image 3"):
        called(tool, scenes(2), img_idx=3)
    assert image_search_tool(hashed, by=("phrase",), ground=place).spec.parameters["required"] == []


def test_settings_that_make_no_sense(hashed: ImageCorpus) -> None:
    for by, said in ((("words",), "words"), ((), "nothing"), (("phrase",), "ground")):
        with pytest.raises(ConfigError, match=said):
            image_search_tool(hashed, by=by)

    class Pictures:
        name, deterministic = "pictures", False

        async def search_image(self, image: bytes, k: int) -> list[Hit]:
            return []

        def close(self) -> None: ...

    with pytest.raises(ConfigError, match="text_retriever"):
        image_search_tool(Pictures(), by=("query",))
    live = image_search_tool(Pictures(), by=("image", "query"), text_retriever=hashed)
    assert not live.deterministic
    assert image_search_tool(hashed).deterministic
    assert called(live, scenes(0)).parts[0] == Table("No results.", COLUMNS, (), 0, "image_1")
