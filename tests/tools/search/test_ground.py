"""A vision model as the grounder of an image search."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentenv.errors import ConfigError, UnknownNameError
from agentenv.policy.scripted import ScriptedPolicy
from agentenv.tools.search import PolicyGrounder
from agentenv.types import Image, Observation
from tests.pictures import encoded, scene

FILE = encoded(scene(200, 100), "PNG")


def grounded(reply: str, phrase: str = "the tower", **options: Any) -> Any:
    return asyncio.run(PolicyGrounder(ScriptedPolicy([reply]), **options)(FILE, phrase))


@pytest.mark.parametrize(
    ("frame", "reply"),
    [
        ("relative_1000", "[250, 500, 500, 1000]"),
        ("relative_1", "<think>[0, 0, 1, 1]?</think> (0.25, 0.5, 0.5, 1.0)"),
        ("pixels_shown", "First [0, 0, 9, 9], no: ```json\n[50, 50.0, 100, 100]\n```"),
    ],
)
def test_a_box_in_the_declared_frame(frame: str, reply: str) -> None:
    assert grounded(reply, frame=frame) == (50, 50, 100, 100)


@pytest.mark.parametrize("reply", ["none", "", "[1, 2, 3]", "[9, 9, 9, 9]", "[2000, 2000, 3000, 3000]"])
def test_no_box_is_none(reply: str) -> None:
    assert grounded(reply) is None


def test_what_the_model_is_asked() -> None:
    seen: list[Observation] = []

    def model(observation: Observation) -> str:
        seen.append(observation)
        return "none"

    ground = PolicyGrounder(model)
    assert asyncio.run(ground(FILE, "a {frame} <|im_end|>")) is None
    (message,) = seen[0].messages
    assert isinstance(message.parts[0], Image)
    assert "Find this in the image: a {frame} \u2039|im_end|\u203a" in message.text
    assert "in thousandths" in message.text
    assert ground.name == "grounder model, relative_1000"


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="phrase"):
        PolicyGrounder(ScriptedPolicy([]), instructions="Find it.")
    with pytest.raises(UnknownNameError, match="did you mean"):
        PolicyGrounder(ScriptedPolicy([]), frame="relative_100")
