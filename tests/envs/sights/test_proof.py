"""mm-search, geo and geovista: what each answer rests on was in view of the policy, and not before it had looked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import pytest
from msgspec import Struct

import agentenv
from agentenv.envs.corpus.pictures import picture_index
from agentenv.media import media_store
from agentenv.trajectory import Trajectory
from agentenv.types import Image
from tests.envs.sights.reading import in_latin, read_pages, read_strips, strips
from tests.envs.zoom.readers import TESSERACT

LEAST_EM = 20
"""Pixels of an em that a code has in a crop at least; the first view shows it at 3.4 or fewer."""

needs_ocr = pytest.mark.skipif(TESSERACT is None, reason="the program tesseract is not installed (make system)")


@lru_cache(maxsize=3)
def played(name: str) -> list[Trajectory]:
    """Episodes of an expert, at every level alike: thirty, and ten of the preset whose scenes are those of geo."""
    seeds = (11,) if name == "geovista" else (11, 12, 13)
    return [one for seed in seeds for one in agentenv.rollout(agentenv.make(name, seed=seed), "reference", tasks=10)]


def after(record: Trajectory, tool: str, argument: str, value: object) -> list[object]:
    """Parts that the policy was shown between a call and its next search."""
    shown: list[object] | None = None
    for message in record.messages[2:]:
        for call in message.calls:
            if call.name == tool and (call.arguments or {}).get(argument) == value:
                shown = []
            elif call.name == "web_search" and shown is not None:
                return shown
        if shown is not None and message.role != "assistant":
            shown.extend(message.parts)
    assert shown is not None, (record.task.id, value)
    return shown


def said(parts: list[object]) -> str:
    return "\n".join(getattr(part, "text", "") for part in parts)


@pytest.mark.parametrize("name", ["mm-search", "geo"])
def test_each_fact_of_the_chain_is_in_view(name: str) -> None:
    for record in played(name):
        evidence = record.task.evidence
        for hop in evidence["hops"]:
            assert hop["fact"] in said(after(record, "web_search", "query", hop["query"])), (record.task.id, hop)
        found = said([part for run in record.tool_runs if run.name == "image_search" for part in run.parts])
        for number in (one.removeprefix("emblem-") for one in evidence["documents"] if one.startswith("emblem-")):
            assert f"(doc:town-{number})" in found


def crops(record: Trajectory) -> list[tuple[Image, float]]:
    """What each zoom showed, in the order of the task's boxes, with its pixels for one of the scene."""
    told = re.search(r"image_1: (\d+) x ", record.messages[1].text)
    assert told is not None
    found = []
    for step in record.task.evidence["steps"]:
        if step["tool"] == "image_zoom":
            left, _, right, _ = box = step["arguments"]["bbox_2d"]  # in thousandths
            parts = after(record, "image_zoom", "bbox_2d", box)
            crop = next(part for part in parts if isinstance(part, Image))
            found.append((crop, 1000 * crop.width / (int(told[1]) * (right - left))))
    return found


@pytest.mark.parametrize("name", ["mm-search", "geo"])
def test_codes_are_large_and_emblems_told_in_the_crops_that_were_shown(name: str) -> None:
    for record in played(name):
        evidence, shown = record.task.evidence, crops(record)
        assert len(shown) == len(evidence["boxes"])
        if name == "mm-search":  # geo's placards are of any width; test_geo_env reads them
            assert all(record.task.metadata["em"] * scale >= LEAST_EM for _, scale in shown)
        for (part, _), document in zip(shown, emblems_of(record), strict=False):  # emblems come first
            assert first_found(part) == document


class Sign(Struct, frozen=True):
    """A text of the scene that some script of the reader can spell, and where it stands in what was shown."""

    text: str
    view: Image
    crop: Image
    box: tuple[int, int, int, int]


def first_view(record: Trajectory) -> Image:
    return next(part for part in record.messages[1].parts if isinstance(part, Image))


def signs(name: str) -> tuple[list[Sign], int]:
    """The texts in Latin letters that the expert zoomed to, and how many of other scripts are left out."""
    found, others = [], 0
    for record in played(name):
        evidence, view = record.task.evidence, first_view(record)
        zooms = [run for run in record.tool_runs if run.name.startswith("image_zoom")]
        shown = [next(part for part in run.parts if isinstance(part, Image)) for run in zooms]
        for crop, box, texts in zip(shown, evidence["boxes"], evidence["texts"], strict=True):
            for text in texts:  # one at most, in the last lines of its box
                left, top, right, bottom = box
                top = top if name != "mm-search" else bottom - round((bottom - top) * LABEL)
                if in_latin(text):
                    found.append(Sign(text, view, crop, (left, top, right, bottom)))
                others += not in_latin(text)
    return found, others


LABEL = 1.7 / 9.7
"""The share of a plaque's height that its label takes."""


@needs_ocr
@pytest.mark.parametrize(("name", "least"), [("mm-search", 20), ("geo", 35), ("geovista", 10)])
def test_signs_are_read_in_the_crop_as_shown_and_not_in_the_first_view(name: str, least: int) -> None:
    """The same reader of both, told the place of every sign; and one that is given all of the first view."""
    wanted, others = signs(name)
    assert len(wanted) >= least
    assert others <= 0.15 * len(wanted)
    near = read_strips([strips(sign.crop, sign.crop, sign.box) for sign in wanted])
    far = read_strips([strips(sign.view, sign.crop, sign.box) for sign in wanted])
    views = [first_view(record) for record in played(name)]
    pages = dict(zip((view.sha256 for view in views), read_pages(views), strict=True))
    assert sum(in_latin(sign.text) in said for sign, said in zip(wanted, near, strict=True)) >= 0.9 * len(wanted)
    assert not [sign.text for sign, said in zip(wanted, far, strict=True) if in_latin(sign.text) in said]
    assert not [sign.text for sign in wanted if in_latin(sign.text) in pages[sign.view.sha256]]


def first_found(image: Image | str) -> str:
    sha256 = image if isinstance(image, str) else image.sha256
    return picture_index().find_image(media_store().get(sha256), 1)[0].id


def emblems_of(record: Trajectory) -> Sequence[str]:
    return [one for one in record.task.evidence["documents"] if one.startswith(("emblem-", "picture-"))]


@pytest.mark.parametrize("name", ["mm-search", "geo"])
def test_an_emblem_is_found_with_its_crop_and_not_with_the_whole_picture(name: str) -> None:
    for record in played(name):
        wanted, view = emblems_of(record), first_view(record)
        searched = [(run.data or {})["ids"][0] for run in record.tool_runs if run.name == "image_search"]
        assert searched == wanted, record.task.id
        assert view.derived is not None
        assert not {first_found(view), first_found(view.derived["from"])} & set(wanted), record.task.id
