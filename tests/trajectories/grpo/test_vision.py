"""Pictures in batches: positions as transformers counts them, pixels where they belong, one forward pass for all."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

import agentenv
from agentenv.env import Env
from agentenv.errors import MissingExtraError, UsageError
from agentenv.media import MediaStore, media_store, use_media_store
from agentenv.policy.transformers import TransformersPolicy
from agentenv.reward import Component, Rubric
from agentenv.spec import Limits
from agentenv.task import TaskSet
from agentenv.tokens import Segment
from agentenv.trajectories.grpo.batch import batch
from agentenv.trajectories.grpo.config import Config
from agentenv.trajectories.grpo.positions import mrope
from agentenv.trajectories.grpo.samples import Sample, samples, sequence
from agentenv.trajectories.grpo.tensors import Pictures, tensors
from agentenv.trajectories.grpo.train import Learner, grpo, sft
from agentenv.types import MediaSpan, Task, Text
from tests.policy.tiny_vision import picture, tiny_vision
from tests.trajectories.grpo.babble import even

torch = pytest.importorskip("torch", reason="local models need torch (extra: local)")
IMAGE, VIDEO, START, END = 7, 8, 5, 6


def image(name: str, offset: int, grid: tuple[int, int, int]) -> MediaSpan:
    return MediaSpan(name, "image", offset, IMAGE, grid[0] * grid[1] * grid[2] // 4, grid)


def clip(offset: int, grid: tuple[int, int, int]) -> MediaSpan:
    """A clip as Qwen3-VL writes it: a time stamp before each frame."""
    frame = (START, *[VIDEO] * (grid[1] * grid[2] // 4), END)
    run = tuple(token for index in range(grid[0]) for token in (40 + index, *frame))
    return MediaSpan("clip", "video", offset, VIDEO, len(run), grid, run)


def shows(rng: random.Random) -> Sample:
    """A sequence with pictures and clips between words."""
    segments = []
    for index in range(rng.randint(1, 4)):
        ids: list[int] = [50] * rng.randint(1, 5)
        spans = []
        for _ in range(rng.randint(0, 2)):
            ids += [rng.choice([51, START])]
            grid = (1, 2 * rng.randint(1, 4), 2 * rng.randint(1, 4))
            kind = image(f"{index}", len(ids), grid) if rng.random() < 0.7 else clip(len(ids), (2, *grid[1:]))
            spans.append(kind)
            ids += [kind.token, END]
        segments.append(Segment(tuple(ids), False, None, tuple(spans)))
        segments.append(Segment((60, 61), True, (-1.0, -2.0)))
    return sequence(segments, group="g")


@pytest.mark.parametrize("kind", ["qwen3-vl", "qwen2.5-vl"])
@pytest.mark.parametrize("seed", range(12))
def test_positions_are_those_of_transformers(kind: str, seed: int) -> None:
    model, _ = tiny_vision(kind)
    sample = shows(random.Random(seed))
    if kind == "qwen2.5-vl" and any(span.kind == "video" for span in sample.media):
        return
    ids = torch.tensor(sample.ids)[None]
    kinds = torch.where(ids == IMAGE, 1, torch.where(ids == VIDEO, 2, 0))
    grids: dict[str, Any] = {}
    for name in ("image", "video"):
        found = [span.grid for span in sample.media if span.kind == name]
        grids[f"{name}_grid_thw"] = torch.tensor(found) if found else None
    wanted, _ = model.model.get_rope_index(ids, mm_token_type_ids=kinds, **grids)
    assert mrope(sample.ids, sample.media).tolist() == wanted[:, 0].tolist()


def test_positions_that_cannot_be_told() -> None:
    ids = np.array([1, *[IMAGE] * 4])
    with pytest.raises(UsageError, match="no positions without it"):
        mrope(ids, [MediaSpan("x", "image", 1, IMAGE, 4)])
    with pytest.raises(UsageError, match="has 4 tokens, its grid"):
        mrope(ids, [MediaSpan("x", "image", 1, IMAGE, 4, (1, 2, 2))])
    with pytest.raises(UsageError, match="show frames as images"):
        mrope(ids, [MediaSpan("x", "video", 1, VIDEO, 4, (1, 4, 4))])


def looking() -> Env:
    """Two pictures to look at, one in two tasks."""
    pictures = [picture(64, 96, seed) for seed in range(3)]

    def task(index: int) -> Task:
        return Task(f"p-{index}", (pictures[0], pictures[index + 1], Text("What is it?")), "x")

    return Env(
        id="looking",
        tasks=TaskSet.generate(task, 2),
        dialect="tags",
        limits=Limits(turns=2, invalid_turns=5, on_turns="stop"),
        rubric=Rubric(Component("even", even)),
    )


@pytest.mark.parametrize("kind", ["qwen3-vl", "qwen2.5-vl"])
@pytest.mark.parametrize("layout", ["padded", "packed", "shared"])
def test_a_forward_pass_over_a_batch_gives_the_log_probabilities_of_the_rollout(
    kind: str, layout: Any, tmp_path: Path
) -> None:
    model, processor = tiny_vision(kind)
    player = TransformersPolicy(model, processor=processor, max_new_tokens=6, batch_size=4)
    run = agentenv.rollout(looking(), player, tasks=2, group=3, concurrency=6)
    given = samples([list(group) for group in run.groups()])
    assert all(len(sample.media) == 2 for sample in given)
    learner = Learner(player, Config(out=str(tmp_path), max_new_tokens=6))
    assert learner.rope == "mrope"
    made = batch(given, layout, rope="mrope", pixels=learner.pictures, multiple=8)
    if layout == "shared":
        assert len(made.media[0]) == 3, "the picture that both tasks show is there once"
    for row in made.rows():
        data = tensors(row, attention=True)
        with torch.no_grad():
            new = learner.logprobs(learner.model, data)
        assert new.tolist() == pytest.approx(row.logprobs[0][row.response_mask[0]].tolist(), abs=1e-4)
    assert {"loss", "drift"} <= set(learner.update(given))


@pytest.mark.parametrize("what", ["sft", "grpo"])
def test_runs_of_another_process_bring_their_pictures(tmp_path: Path, what: str) -> None:
    model, processor = tiny_vision("qwen3-vl")
    player = TransformersPolicy(copy.deepcopy(model), processor=processor, max_new_tokens=6)
    config = Config(out=str(tmp_path / "out"), steps=1, batch=2, groups=2, group=3, max_new_tokens=6)
    if what == "sft":
        agentenv.rollout(looking(), lambda obs: "<answer>x</answer>", tasks=2, out=tmp_path / "run")
    else:
        grpo(looking(), player, config, quiet=True)
        for name in ("checkpoint.pt", "metrics.jsonl"):
            (tmp_path / "out" / name).unlink()  # interrupted after the episodes were played
    env, before = looking(), media_store()
    use_media_store(MediaStore())
    try:
        if what == "sft":
            sft(agentenv.load(tmp_path / "run"), player, config, quiet=True)
        else:
            grpo(env, player, config, quiet=True, resume=True)
    finally:
        use_media_store(before)
    assert (tmp_path / "out" / "model" / "config.json").exists()


def test_pictures_that_do_not_fit_the_record() -> None:
    _, processor = tiny_vision("qwen3-vl")
    shown = picture(64, 64, 9)
    made = Pictures(processor)(MediaSpan(shown.sha256, "image", 0, IMAGE, 4, (1, 4, 4)))
    assert made["image_grid_thw"].tolist() == [[1, 4, 4]]
    assert made["pixel_values"].shape[0] == 16
    with pytest.raises(UsageError, match="the processor is set otherwise"):
        Pictures(processor)(MediaSpan(shown.sha256, "image", 0, IMAGE, 4, (1, 2, 4)))
    with pytest.raises(UsageError, match="only pictures can be batched"):
        Pictures(processor)(MediaSpan(shown.sha256, "video", 0, IMAGE, 4))
    asked = []

    def load(name: str) -> bytes:
        asked.append(name)
        return media_store().get(shown.sha256)

    other = replace(MediaSpan("0" * 64, "image", 0, IMAGE, 4), grid=())
    assert Pictures(processor, load)(other)["image_grid_thw"].tolist() == [[1, 4, 4]]
    assert asked == ["0" * 64]


def test_tensors_share_memory_and_torch_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    made = batch([sequence([Segment((1, 2), False), Segment((3,), True, (-1.0,))])])
    data = tensors(made)
    made.advantages[0, 2] = 5.0
    assert data["advantages"][0, 2] == 5.0
    assert "attention" not in data
    assert tensors(made, attention=True)["attention"].shape == (1, 1, 3, 3)
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingExtraError, match="local"):
        tensors(made)
