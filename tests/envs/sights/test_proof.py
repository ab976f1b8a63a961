"""mm-search and geo: what each answer rests on was in view of the policy."""

from __future__ import annotations

import re

import pytest

import agentenv
from agentenv.envs.corpus.emblems import emblem_index
from agentenv.media import media_store
from agentenv.trajectory import Trajectory
from agentenv.types import Image

LEAST_EM = 20
"""Pixels of an em that a code has in a crop at least; the first view shows it at 3.4 or fewer."""


def played(name: str) -> list[Trajectory]:
    return [one for seed in (11, 12, 13) for one in agentenv.rollout(name, "reference", tasks=10, seed=seed)]


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
        wanted = [one for one in evidence["documents"] if one.startswith("emblem-")]
        for (part, _), document in zip(shown, wanted, strict=False):  # emblems come first
            assert emblem_index().find_image(media_store().get(part.sha256), 1)[0].id == document
