"""Scripted episodes of presets, and their transcripts as files that a person can review.

Run the tests with AGENTENV_WRITE_GOLDENS=1 to write the files anew, then read the difference.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import agentenv
from agentenv.env import Env
from agentenv.media import media_store
from agentenv.task import TaskSet
from agentenv.types import Image, Message, Part, StepResult, Task, Text, Video
from tests.pictures import encoded, scene

GOLDENS = Path(__file__).parents[2] / "golden"
QUESTION = "What colour is the small sign?\nA. red\nB. blue"


def one_task(width: int = 1200, height: int = 800, **fields: Any) -> TaskSet:
    """One task over a smooth picture; the answer is B."""
    image = media_store().put(encoded(scene(width, height), "PNG"))
    given: dict[str, Any] = {
        "answer": "B",
        "evidence": {"image": "image_1", "boxes": [[300, 200, 420, 280]]},
        "metadata": {"options": ["red", "blue"]},
    }
    return TaskSet.of([Task("sign", (image, Text(QUESTION)), **{**given, **fields})])


def made(name: str, **options: Any) -> Env:
    """The preset over the one task, made the way a user makes it."""
    return agentenv.make(f"agentenv.envs.presets.{name}:{name}", **{"source": one_task(), **options})


def play(env: Env, *turns: str) -> list[StepResult]:
    """Play the turns to the end of the episode, at the latest to their own."""
    env.reset(seed=0)
    results: list[StepResult] = []
    for turn in turns:
        results.append(env.step(turn))
        if results[-1].terminated or results[-1].truncated:
            break
    return results


def transcript(env: Env) -> dict[str, Any]:
    """The episode as plain data: what was said, why it ended, how it was scored."""
    record = env.trajectory
    outcome = record.outcome
    ending: dict[str, Any] = {}
    if outcome is not None:
        rewards = {name: [score.value, score.weight] for name, score in outcome.rewards.items()}
        ending = {"stop_reason": outcome.stop_reason, "answer": outcome.answer, "masked": outcome.masked}
        ending |= {"reward": outcome.reward, "rewards": {name: _rounded(pair) for name, pair in rewards.items()}}
    return {"messages": [_message(message) for message in record.messages], **ending}


def _rounded(pair: list[float | None]) -> list[float | None]:
    return [None if value is None else round(value, 6) for value in pair]


def _message(message: Message) -> dict[str, Any]:
    return {"role": message.role, "content": [_part(part) for part in message.parts]}


def _part(part: Part) -> Any:
    if isinstance(part, Text):
        return part.text.split("\n")
    if isinstance(part, Video):
        return {"video": part.handle, "size": f"{part.width} x {part.height}", "times": list(part.times)}
    assert isinstance(part, Image)
    shown: dict[str, Any] = {"image": part.handle, "size": f"{part.width} x {part.height}"}
    return shown | {key: value for key, value in (part.derived or {}).items() if key in ("box", "path", "time")}


def equals_golden(name: str, env: Env) -> None:
    """Compare the episode with its file, or write that."""
    file = GOLDENS / f"{name}.json"
    text = json.dumps(transcript(env), ensure_ascii=False, indent=1) + "\n"
    if os.environ.get("AGENTENV_WRITE_GOLDENS"):
        file.write_text(text, encoding="utf-8")
    assert json.loads(file.read_text(encoding="utf-8")) == json.loads(text)


def hermes(name: str, /, **arguments: Any) -> str:
    """A thought and a call in hermes."""
    body = json.dumps({"name": name, "arguments": arguments})
    return f"<think>I look closer.</think>\n<tool_call>\n{body}\n</tool_call>"


def grounding(box: list[float], source: str = "original_image") -> str:
    """A thought and a call as Mini-o3 writes it."""
    body = json.dumps({"bbox_2d": box, "source": source})
    return f"<think>I look closer.</think><grounding>{body}</grounding>"


ANSWER = "<think>The sign is blue.</think>\n<answer>B</answer>"
