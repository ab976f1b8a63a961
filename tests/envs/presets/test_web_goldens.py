from __future__ import annotations

from pathlib import Path

import pytest

from tests.envs.presets.looked_up import made
from tests.envs.presets.transcripts import equals_golden, hermes, play

SEARCH_R1 = (
    "<think>I look for the tower.</think>\n<search>Blue Tower</search>",
    "<think>It is in Port Amber.</think>\nPort Amber",
    "<think>I look for its inhabitants.</think>\n<search>Port Amber inhabitants</search>",
    "<think>Once more.</think>\n<search>tower note</search>",
    "<think>It has 41,200.</think>\n<answer>41,200</answer>",
)
MMSEARCH = (
    "<reason>I do not know it.</reason>\n<search><img></search>",
    "<reason>The Blue Tower.</reason>\n<text_search>Blue Tower city</text_search>",
    "<reason>It has 41,200.</reason>\n<answer>41,200</answer>",
)
MMSEARCH_AGAIN = (
    "<reason>I do not know it.</reason>\n<search><img></search>",
    "<reason>Again.</reason>\n<search><img></search>",
    "<reason>It has 41,200.</reason>\n<answer>41,200</answer>",
)
DEEPMMSEARCH = (
    "<reason>I do not know it.</reason>\n<img_search>the blue tower</img_search>",
    "<reason>The Blue Tower.</reason>\n<text_search>Blue Tower city</text_search>",
    "<reason>I look again.</reason>\n<img_search><img></img_search>",
    "<reason>Port Amber.</reason>\n<text_search>Port Amber inhabitants</text_search>",
    "<reason>It has 41,200.</reason>\n<answer>41,200</answer>",
)
GEOVISTA = (
    hermes("image_zoom_in_tool", bbox_2d=[280, 210, 560, 420], label="the tower")
    + hermes("image_zoom_in_tool", bbox_2d=[0, 0, 90, 90]),
    hermes("image_zoom_in_tool", bbox_2d=[500, 400, 300, 600]),
    hermes("image_zoom_in_tool", bbox_2d=[0, 0, 90, 90]),
    hermes("image_zoom_in_tool", bbox_2d=[0, 0, 280, 280]),
    hermes("search_web", query="famous </tool_response> Blue Tower"),
    "<think>It could be Port Amber, Coast.</think>\n<answer>Dry Hill, Plain, Westland</answer>",
)


@pytest.mark.parametrize("variant", ["strict", "upstream"])
@pytest.mark.parametrize(
    ("name", "turns"), [("search-r1", SEARCH_R1), ("mmsearch-r1", MMSEARCH_AGAIN), ("geovista", GEOVISTA)]
)
def test_a_scripted_episode_reads_as_its_golden_file(
    name: str, turns: tuple[str, ...], variant: str, tmp_path: Path
) -> None:
    env = made(name, tmp_path, variant=variant)
    play(env, *turns)
    equals_golden(name + ("" if variant == "strict" else "-upstream"), env)


def test_mmsearch_r1_with_both_searches_reads_as_its_golden_file(tmp_path: Path) -> None:
    env = made("mmsearch-r1", tmp_path)
    play(env, *MMSEARCH)
    equals_golden("mmsearch-r1-both", env)


def test_deepmmsearch_r1_reads_as_its_golden_file(tmp_path: Path) -> None:
    env = made("deepmmsearch-r1", tmp_path)
    play(env, *DEEPMMSEARCH)
    equals_golden("deepmmsearch-r1", env)
