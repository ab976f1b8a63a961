"""Local models that see clips as videos, by the real processors. Run by `test_transformers_clips.py` in a process of
its own, with torchvision on the path: wherever that is found, transformers makes other image processors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import torch

_OPERATORS = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    # The wheels on PyPI are built for GPUs. Without one these operators, which nothing here calls, cannot be loaded,
    # but torchvision wants to see them declared.
    _OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from agentenv.errors import ConfigError, PolicyError  # noqa: E402
from agentenv.media import decode, media_store  # noqa: E402
from agentenv.policy import TransformersPolicy, make_policy  # noqa: E402
from agentenv.policy.batching import Job  # noqa: E402
from agentenv.rollout import play  # noqa: E402
from agentenv.types import Action, Image, Message, Observation, Text, Video  # noqa: E402
from tests.policy.tiny_vision import TEMPLATE, picture, tiny_vision  # noqa: E402
from tests.policy.words import seen, task  # noqa: E402
from tests.trajectories.film import cuts, film, opening, watched  # noqa: E402

QWENS = ("qwen3-vl", "qwen2.5-vl")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def processor_of(kind: str) -> Any:
    """The whole processor of a tiny model, with its part for videos."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLVideoProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    bare = tiny_vision(kind)[1]
    base, films = {
        "qwen3-vl": (Qwen3VLProcessor, Qwen3VLVideoProcessor),
        "qwen2.5-vl": (Qwen2_5_VLProcessor, Qwen2VLVideoProcessor),
    }[kind]
    size = {"shortest_edge": 4096, "longest_edge": 64 * 64 * 8}
    patch = bare.image_processor.patch_size
    made = films(patch_size=patch, temporal_patch_size=2, merge_size=2, size=size)
    return base(bare.image_processor, bare.tokenizer, made, chat_template=TEMPLATE)


def policy_of(kind: str, **options: Any) -> TransformersPolicy:
    model, processor = tiny_vision(kind)[0], processor_of(kind)
    return TransformersPolicy(model, processor=processor, video="video", **{"max_new_tokens": 12, **options})


def clip(count: int = 4, first: float = 2.0, step: float = 1.0, seed: int = 0, same: bool = False) -> Video:
    frames = tuple(picture(64, 48, seed + (0 if same else place)).sha256 for place in range(count))
    times = tuple(first + step * place for place in range(count))
    return Video(
        "ab" * 32, "video/mp4", 64, 48, 9.0, 25.0, times=times, frames=frames, frame_mime="image/png",
        timestamps="before",
    )  # fmt: skip


def said(*parts: Any) -> Message:
    return Message("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def arrays(film: Video) -> Any:
    import numpy as np

    return np.stack([np.asarray(decode(media_store().get(name))) for name in film.frames])


def rendered(kind: str, text: str, images: list[Image], films: list[Video]) -> dict[str, Any]:
    """The prompt as the model's own processor makes it, with no part of the policy; times in tenths of a second."""
    from transformers.video_utils import VideoMetadata

    about = [
        VideoMetadata(
            total_num_frames=round(10 * len(one.times) / one.rate) if one.rate else 20,
            fps=10.0,
            frames_indices=[round(10 * time) for time in one.times],
        )
        for one in films
    ]
    made = processor_of(kind)(
        text=[text],
        images=[decode(media_store().get(image.sha256)) for image in images] or None,
        videos=[arrays(one) for one in films],
        video_metadata=about,
        do_sample_frames=False,
        return_tensors="pt",
    )
    return dict(made)


def template(*content: str) -> str:
    marks = {"IMAGE": "<|vision_start|><|image_pad|><|vision_end|>"}
    marks["VIDEO"] = "<|vision_start|><|video_pad|><|vision_end|>"
    body = "".join(marks.get(word, word) for word in content)
    return f"<|im_start|>user\n{body}<|im_end|>\n<|im_start|>assistant\n"


async def turn(policy: TransformersPolicy, observation: Observation, seed: int = 0) -> Action:
    return await policy.begin(task(), seed=seed).act(observation)


@pytest.mark.parametrize("kind", QWENS)
@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_a_clip_is_what_the_models_own_processor_makes_of_it(kind: str, count: int) -> None:
    policy, one, still = policy_of(kind), clip(count), picture(64, 64, 40)
    observation = seen(said("look ", one, " and ", still, " name"), tools=())
    text = template(f"look <2.0 to {1 + count}.0 seconds>", "VIDEO", " and ", "IMAGE", " name")
    own = rendered(kind, text, [still], [clip(2, step=0.0, same=True) if count == 1 else one])
    for _ in range(2):  # the second time out of the cache
        ids, tensors = policy._prepared(observation)
        assert tensors is not None
        assert ids == own["input_ids"][0].tolist()
        own_tensors = {key: own[key] for key in own if key not in ("input_ids", "attention_mask")}
        assert set(tensors) == set(own_tensors)
        for name, tensor in tensors.items():
            assert torch.allclose(torch.as_tensor(tensor).float(), torch.as_tensor(own_tensors[name]).float()), name
    assert policy._sight is not None
    assert policy._sight.cache.stats.made == 2


def test_the_times_are_those_of_the_clip() -> None:
    policy = policy_of("qwen3-vl")
    text = policy.tokenizer.decode(policy._prepared(seen(said(clip(5, 2.0, 0.5)), tools=()))[0])
    stamps = [piece.partition(">")[0] for piece in text.split("<")[1:] if "seconds" in piece]
    # Qwen3-VL sees frames two by two, and writes the middle of each pair's times; an odd last frame is seen twice.
    assert stamps == ["2.0 to 4.0 seconds", "2.2 seconds", "3.2 seconds", "4.0 seconds"]


@pytest.mark.parametrize("kind", QWENS)
async def test_a_turn_is_sampled_as_the_models_own_forward_pass_has_it(kind: str) -> None:
    policy, one = policy_of(kind), clip()
    observation = seen(said(one, "name"), tools=())
    action = await turn(policy, observation)
    assert action.token_ids
    prompt = rendered(kind, template("<2.0 to 5.0 seconds>", "VIDEO", "name"), [], [one])
    sampled = torch.tensor([action.token_ids])
    inputs = {key: torch.as_tensor(value) for key, value in prompt.items() if key != "attention_mask"}
    inputs["input_ids"] = torch.cat([prompt["input_ids"], sampled], dim=1)
    inputs["mm_token_type_ids"] = torch.cat([prompt["mm_token_type_ids"], torch.zeros_like(sampled)], dim=1)
    start = prompt["input_ids"].shape[1] - 1
    with torch.inference_mode():
        logits = tiny_vision(kind)[0](**inputs).logits[0, start:-1].float()
        logits[:, policy.info.settings["banned_tokens"]] = -torch.inf
    wanted = torch.log_softmax(logits, -1).gather(1, sampled[0, :, None]).squeeze(1).tolist()
    assert action.logprobs == pytest.approx(wanted, abs=1e-4)
    blind = await turn(policy, seen(said(clip(seed=9), "name"), tools=()))
    assert blind.logprobs != pytest.approx(action.logprobs, abs=1e-3)
    await policy.close()


@pytest.mark.parametrize("kind", QWENS)
async def test_a_turn_does_not_depend_on_the_clips_beside_it(kind: str) -> None:
    asked = [
        seen(said(clip(4), "name"), tools=()),
        seen(said(clip(2, seed=4), "a ", picture(64, 64, 40), clip(3, 7.0, seed=6), " b"), tools=()),
        seen(said("what is written"), tools=()),
        seen(said(picture(40, 90, 41), "name"), tools=()),
    ]
    policy = policy_of(kind)
    jobs = [Job(ids, n, tensors=tensors) for n, (ids, tensors) in enumerate(map(policy._prepared, asked))]
    for job, row in zip(jobs, policy._sampler.sample(jobs), strict=True):
        (single,) = policy._sampler.sample([job])
        assert single.ids == row.ids
        assert single.logprobs == pytest.approx(row.logprobs, abs=1e-4)
    await policy.close()


def test_an_episode_with_a_real_video_is_played() -> None:
    world = film("video")
    policy = policy_of("qwen3-vl", max_new_tokens=4)
    record = asyncio.run(play(world, policy, world.tasks[0]))
    assert record.outcome is not None
    assert record.outcome.error is None
    assert record.policy.settings["video"] == "video"
    again = watched((2, 5), (6, 8))
    ids, tensors = policy._prepared(seen(*again.messages, tools=()))
    assert tensors is not None
    assert tensors["video_grid_thw"][:, 0].tolist() == [2, 2, 1]
    assert policy.tokenizer.decode(ids).count("seconds>") == 3 + 5
    assert len(cuts()) == 1


def test_what_it_cannot_take_is_said_clearly(tmp_path: Any) -> None:
    model, bare = tiny_vision("qwen3-vl")
    with pytest.raises(ConfigError, match="takes no videos; take video='frames'"):
        TransformersPolicy(model, processor=bare, video="video")
    with pytest.raises(ConfigError, match="no processor for pictures"):
        TransformersPolicy(model, bare.tokenizer, video="video")
    dropping = TEMPLATE.replace("<|video_pad|>", "")
    policy = policy_of("qwen3-vl", chat_template=dropping)
    with pytest.raises(PolicyError, match=r"wrote 0 video placeholder\(s\) <\|video_pad\|> for 1 video\(s\)"):
        policy._prepared(seen(said(opening())))
    with pytest.raises(PolicyError, match="comes without frames"):
        policy._prepared(seen(said(Video("ab" * 32, "video/mp4", 64, 48, 9.0, 25.0))))


def test_a_saved_model_is_loaded_with_its_part_for_videos(tmp_path: Any) -> None:
    model, whole = tiny_vision("qwen3-vl")[0], processor_of("qwen3-vl")
    model.save_pretrained(tmp_path / "my-model")
    whole.save_pretrained(tmp_path / "my-model")
    loaded = make_policy(f"transformers:{tmp_path / 'my-model'}", device="cpu", video="video")
    assert isinstance(loaded, TransformersPolicy)
    observation = seen(said(clip(), "name"), tools=())
    assert loaded._prepared(observation)[0] == policy_of("qwen3-vl")._prepared(observation)[0]
