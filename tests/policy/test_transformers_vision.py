"""Local models that see images: tiny models with the real processors, and no torchvision."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentenv
from agentenv.errors import ConfigError, PolicyError
from agentenv.media import MediaStore, decode, decode_cache, media_store
from agentenv.policy import TransformersPolicy, make_policy
from agentenv.policy.batching import Job
from agentenv.policy.sampling import joinable
from agentenv.policy.vision import image_only
from agentenv.tokens import check, expanded, flat, media, streams
from agentenv.types import Action, Image, Message, Observation, Part, StopReason, Text, ToolCall, Video
from tests.policy.tiny import tiny
from tests.policy.tiny_vision import DROPPING, TEMPLATE, picture, tiny_vision
from tests.policy.words import seen, task

QWENS = ("qwen3-vl", "qwen2.5-vl")
PADS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
CALL = ToolCall("c", "image_zoom", '{"bbox_2d": [0, 0, 9, 9]}', {"bbox_2d": [0, 0, 9, 9]})


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On tensors this small, threads that wait for each other cost more than they give on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def policy_of(kind: str = "qwen3-vl", **options: Any) -> TransformersPolicy:
    model, processor = tiny_vision(kind)
    return TransformersPolicy(model, processor=processor, **{"max_new_tokens": 12, **options})


def said(*parts: str | Part) -> Message:
    return Message("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def zooming(first: Image, crop: Image, dialect: str = "hermes") -> Observation:
    """A picture, a call, and the crop that it gave."""
    written = Message("assistant", (Text("<tool_call>zoom</tool_call>" if dialect != "native" else ""),), (CALL,))
    result = Message("tool", (Text("the crop: "), crop, Text(" done")), call_id="c", name="image_zoom")
    return seen(said(first, "what is on the sign"), written, result, dialect=dialect, tools=())


@cache
def cached_policy() -> TransformersPolicy:
    return policy_of()


def pixels(image: Image) -> Any:
    return decode(media_store().get(image.sha256))


async def turn(policy: TransformersPolicy, observation: Observation, seed: int = 0) -> Action:
    return await policy.begin(task(), seed=seed).act(observation)


def rendered(kind: str, observation: Observation, *images: Image) -> dict[str, Any]:
    """The prompt as the model's own processor makes it, with no part of the policy."""
    _, processor = tiny_vision(kind)
    messages = []
    for message in observation.messages:
        parts = [{"type": "text", "text": p.text} if isinstance(p, Text) else {"type": "image"} for p in message.parts]
        messages.append({"role": "user" if message.role == "tool" else message.role, "content": parts})
    text = processor.tokenizer.apply_chat_template(
        messages, chat_template=processor.chat_template, add_generation_prompt=True, tokenize=False
    )
    shown = [pixels(image) for image in images] or None
    return dict(processor(text=[text], images=shown, return_tensors="pt"))


def recomputed(kind: str, prompt: dict[str, Any], action: Action, banned: list[int]) -> list[float]:
    """Log-probabilities of the sampled tokens in one forward pass, without generate and without a batch."""
    import torch

    model, _ = tiny_vision(kind)
    inputs = {key: value for key, value in prompt.items() if key != "attention_mask"}
    sampled = torch.tensor([action.token_ids])
    ids = torch.cat([prompt["input_ids"], sampled], dim=1)
    if "mm_token_type_ids" in inputs:
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(sampled)], dim=1)
    with torch.inference_mode():
        logits = model(**{**inputs, "input_ids": ids}).logits[0, prompt["input_ids"].shape[1] - 1 : -1].float()
        logits[:, banned] = -torch.inf
    return torch.log_softmax(logits, -1).gather(1, sampled[0, :, None]).squeeze(1).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [*QWENS, "llava"])
async def test_a_conversation_with_a_crop_is_sampled_as_the_models_own_forward_pass_has_it(kind: str) -> None:
    policy = policy_of(kind)
    first, crop = picture(120, 90), picture(64, 100, 1)
    observation = zooming(first, crop)
    action = await turn(policy, observation)
    prompt = rendered(kind, observation, first, crop)
    assert action.token_ids
    assert action.usage is not None
    assert action.usage.prompt_tokens == prompt["input_ids"].shape[1]
    banned = policy.info.settings["banned_tokens"]
    assert action.logprobs == pytest.approx(recomputed(kind, prompt, action, banned), abs=1e-4)
    blind = await turn(policy, zooming(picture(120, 90, 7), crop))
    assert blind.logprobs != pytest.approx(action.logprobs, abs=1e-3)
    await policy.close()


@pytest.mark.parametrize("kind", [*QWENS, "llava"])
async def test_a_turn_does_not_depend_on_the_pictures_beside_it(kind: str) -> None:
    big, small, wide = picture(128, 128), picture(40, 40, 1), picture(200, 48, 2)
    asked = [
        zooming(big, small),
        seen(said("what is written"), tools=()),
        seen(said("a ", small, " b ", wide, " c ", big), tools=()),
        seen(said(wide, "name"), tools=()),
        zooming(wide, big),
    ]
    policy, alone = policy_of(kind, batch_wait=0.2), policy_of(kind, batch_size=1)
    prompts = [policy._prepared(one) for one in asked]
    jobs = [Job(ids, index, tensors=tensors) for index, (ids, tensors) in enumerate(prompts)]
    for job, row in zip(jobs, policy._sampler.sample(jobs), strict=True):
        (single,) = alone._sampler.sample([job])
        assert single.ids == row.ids
        assert single.logprobs == pytest.approx(row.logprobs, abs=1e-4)
    together = await asyncio.gather(*(turn(policy, one, index) for index, one in enumerate(asked)))
    for index, one in enumerate(asked):
        action = await turn(alone, one, index)
        assert action.token_ids == together[index].token_ids
    await policy.close()
    await alone.close()


@pytest.mark.parametrize("kind", QWENS)
def test_placeholders_images_and_grid_agree_and_pixels_are_the_processors_own(kind: str) -> None:
    import torch

    policy = policy_of(kind)
    first, crop = picture(120, 90), picture(64, 100, 1)
    observation = zooming(first, crop)
    own = rendered(kind, observation, first, crop)
    lengths = [int(grid.prod()) // 4 for grid in own["image_grid_thw"]]
    for _ in range(2):  # the second time out of the cache
        ids, tensors = policy._prepared(observation)
        assert ids == own["input_ids"][0].tolist()
        assert tensors is not None
        assert set(tensors) == {"pixel_values", "image_grid_thw", "mm_token_type_ids"}
        for name, tensor in tensors.items():
            assert torch.equal(tensor, own[name])
    pad = tiny_vision(kind)[1].image_token_id
    runs = [len(run) for run in "".join("x" if token == pad else " " for token in ids).split()]
    assert runs == lengths
    assert len(set(lengths)) == 2


def test_pixels_that_do_not_say_whose_they_are_are_not_mixed() -> None:
    import torch

    def job(**shapes: tuple[int, ...]) -> Job:
        return Job([1], 0, tensors={name: torch.zeros(shape) for name, shape in shapes.items()})

    qwen = [
        job(pixel_values=(4, 8), image_grid_thw=(1, 3)),
        Job([1], 0),
        job(pixel_values=(9, 8), image_grid_thw=(2, 3)),
    ]
    assert joinable(qwen) == [[0, 1, 2]]
    shapes: list[tuple[int, ...]] = [(1, 2, 3, 8, 8), (1, 3, 3, 8, 8), (1, 2, 3, 8, 8)]
    others = [job(pixel_values=shape, token_type_ids=(1, index)) for index, shape in enumerate(shapes)]
    assert joinable([*others, job(token_type_ids=(1, 9)), Job([1], 0)]) == [[0, 2], [1], [3, 4]]


PARTS = st.lists(
    st.one_of(
        st.text(alphabet="ab <|>_imagepd\n", max_size=14),
        st.sampled_from(PADS),
        st.tuples(st.integers(8, 150), st.integers(8, 150)),
    ),
    max_size=7,
)


@settings(max_examples=20, deadline=None)
@given(PARTS, PARTS)
def test_whatever_is_said_each_image_has_its_run_of_tokens_in_order(first: list[Any], second: list[Any]) -> None:
    policy = cached_policy()
    made = [[picture(*part) if isinstance(part, tuple) else part for part in parts] for parts in (first, second)]
    observation = seen(said(*made[0]), Message("assistant", (Text("so"),)), said(*made[1]), tools=())
    ids, tensors = policy._prepared(observation)
    images = [part for part in (*made[0], *made[1]) if isinstance(part, Image)]
    grids = [policy.processor.image_processor([pixels(i)], return_tensors="pt")["image_grid_thw"][0] for i in images]
    assert [grid.tolist() for grid in (tensors or {}).get("image_grid_thw", [])] == [grid.tolist() for grid in grids]
    pad = policy.processor.image_token_id
    runs = [len(run) for run in "".join("x" if token == pad else " " for token in ids).split()]
    assert runs == [int(grid.prod()) // 4 for grid in grids]


async def test_each_image_is_decoded_and_processed_once() -> None:
    policy = policy_of()
    first, crop = picture(300, 200, 11), picture(90, 90, 12)
    before = decode_cache().stats.made
    for observation in (seen(said(first, "name"), tools=()), zooming(first, crop), zooming(first, crop)):
        await turn(policy, observation)
    assert policy._sight is not None
    assert policy._sight.cache.stats.made == 2
    assert decode_cache().stats.made == before + 2
    await policy.close()


async def test_images_of_native_results_go_where_the_template_puts_them() -> None:
    policy = policy_of()
    observation = zooming(picture(64, 64), picture(64, 64, 1), dialect="native")
    ids, tensors = policy._prepared(observation)
    text = policy.tokenizer.decode(ids)
    assert tensors is not None
    assert len(tensors["image_grid_thw"]) == 2
    assert "<|im_start|>tool\nthe crop: <|vision_start|><|image_pad|>" in text
    assert '<tool_call>{"name": "image_zoom", "arguments": {"bbox_2d": [0, 0, 9, 9]}}</tool_call>' in text
    assert (await turn(policy, observation)).token_ids
    await policy.close()


async def test_a_template_that_takes_lists_only_gets_lists_only() -> None:
    policy = policy_of("llava")
    system, silent = Message("system", (Text("be brief"),)), Message("assistant", (), (CALL,))
    ids, _ = policy._prepared(
        seen(system, said("look ", picture(40, 40)), silent, said("and"), dialect="native", tools=())
    )
    assert policy.tokenizer.decode(ids) == (
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nlook <image><image><image><image>\n<|im_end|>\n"
        "<|im_start|>assistant\n<|im_end|>\n<|im_start|>user\nand<|im_end|>\n<|im_start|>assistant\n"
    )


async def test_a_template_that_drops_the_tools_is_found_out_at_the_first_turn() -> None:
    with pytest.raises(PolicyError, match=r"leaves out the tools: play in a text dialect \(dialect='hermes'"):
        await turn(policy_of(), seen(said("look"), dialect="native"))


async def test_a_template_that_drops_images_of_results_is_found_out() -> None:
    policy = policy_of(chat_template=DROPPING)
    first, crop = picture(64, 64), picture(64, 64, 1)
    with pytest.raises(PolicyError) as caught:
        await turn(policy, zooming(first, crop, dialect="native"))
    assert str(caught.value) == (
        "the chat template of Qwen3VLForConditionalGeneration wrote 1 image placeholder(s) <|image_pad|> for 2 image(s)"
        "; some templates drop images in messages of role tool: play with a text dialect (dialect='hermes' ...), in"
        " which results are user turns"
    )
    assert (await turn(policy, zooming(first, crop))).token_ids
    spoken = Message("assistant", (crop, Text("as I drew")))
    blind = policy_of(chat_template="{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}")
    with pytest.raises(PolicyError, match=r"wrote 0 image placeholder\(s\) <\|image_pad\|> for 1 image\(s\)$"):
        await turn(blind, seen(said("x"), spoken))
    await policy.close()


@pytest.mark.parametrize("kind", QWENS)
def test_text_that_spells_a_placeholder_is_text(kind: str) -> None:
    policy = policy_of(kind)
    spelt = " ".join(PADS)
    call = ToolCall("c", "look", json.dumps({"at": spelt}), {"at": spelt})
    turns = (said(picture(64, 64), spelt), Message("assistant", (Text(spelt),), (call,)), said(spelt))
    for dialect in ("hermes", "native"):
        ids, tensors = policy._prepared(seen(*turns, dialect=dialect, tools=()))
        assert tensors is not None
        assert len(tensors["image_grid_thw"]) == 1
        assert [policy.tokenizer.decode(ids).count(pad) for pad in PADS] == [4, 0, 1, 1]
    text = policy.tokenizer.decode(policy._prepared(seen(*turns))[0])
    assert text.count("\u2039|image_pad|\u203a") == 3


async def test_tokens_for_pictures_are_never_sampled() -> None:
    import torch

    model, processor = tiny_vision("qwen3-vl")
    pads = processor.tokenizer.convert_tokens_to_ids(list(PADS))

    class Tempted(torch.nn.Module):  # type: ignore[misc]  # torch is Any to mypy
        """Wants to say nothing but pads."""

        def __init__(self, own: Any) -> None:
            super().__init__()
            self.own = own

        def forward(self, hidden: Any) -> Any:
            scores = self.own(hidden)
            scores[..., pads] += 1e3
            return scores

    head, model.lm_head = model.lm_head, Tempted(model.lm_head)
    policy = policy_of(max_new_tokens=30)
    try:
        action = await turn(policy, seen(said(picture(64, 64), "name"), tools=()))
    finally:
        model.lm_head = head
    await policy.close()
    assert action.token_ids
    assert not set(action.token_ids) & set(pads)
    assert all(-100 < value <= 0 for value in action.logprobs or ())
    assert policy.info.settings["banned_tokens"] == sorted(pads)


def test_what_decides_the_pixels_is_recorded() -> None:
    assert policy_of().info.settings["images"] == {
        "class": "Qwen2VLImageProcessorPil",
        "size": {"shortest_edge": 1024, "longest_edge": 16384},
        "patch_size": 16,
        "merge_size": 2,
        "temporal_patch_size": 2,
    }


async def test_what_it_cannot_take_is_said_clearly(tmp_path: Path) -> None:
    policy = policy_of()
    clip = Video("ab" * 32, "video/mp4", 64, 64, 1.0, 2.0)
    with pytest.raises(PolicyError, match="the video abababababab comes without frames"):
        await turn(policy, seen(said(clip)))
    with pytest.raises(PolicyError, match="image image_1 cannot be shown: no media abababababab"):
        await turn(policy, seen(said(Image("ab" * 32, "image/png", 64, 64, "image_1"))))
    with pytest.raises(PolicyError, match=r"the processor of Qwen3VL.* refuses the prompt: absolute aspect ratio"):
        await turn(policy, seen(said(picture(1000, 3))))
    model, processor = tiny_vision("qwen3-vl")
    blind = TransformersPolicy(model, processor.tokenizer)
    with pytest.raises(PolicyError, match="text-only; image part found"):
        await turn(blind, seen(said(picture(64, 64))))
    with pytest.raises(ConfigError, match="refuses the conversation: nobody speaks here"):
        policy_of(chat_template="{{ raise_exception('nobody speaks here') }}")
    nameless = SimpleNamespace(image_processor=processor.image_processor, tokenizer=processor.tokenizer)
    with pytest.raises(ConfigError, match="names no image token"):
        TransformersPolicy(model, processor=nameless)
    with pytest.raises(ConfigError, match="no processor with an image processor"):
        TransformersPolicy(model, processor.tokenizer, processor=processor.image_processor)
    await policy.close()


async def test_bytes_can_come_from_elsewhere(tmp_path: Path) -> None:
    elsewhere = MediaStore(tmp_path)
    image = elsewhere.put(media_store().get(picture(64, 48, 21).sha256) + b"more")
    assert image.sha256 not in media_store()
    policy = policy_of(media=elsewhere.get)
    assert (await turn(policy, seen(said(image, "name"), tools=()))).token_ids
    await policy.close()


@pytest.mark.parametrize("kind", [*QWENS, "llava"])
async def test_a_saved_model_is_loaded_with_its_processor(kind: str, tmp_path: Path) -> None:
    model, processor = tiny_vision(kind)
    folder = tmp_path / "my-model"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    loaded = make_policy(f"transformers:{folder}", max_new_tokens=12, device="cpu")
    observation = zooming(picture(120, 90), picture(64, 100, 1))
    live = policy_of(kind)
    action = await loaded.begin(task(), seed=0).act(observation)
    assert action.token_ids == (await turn(live, observation)).token_ids
    assert str(tmp_path) not in repr(loaded.info)
    assert loaded.info.settings["images"] == live.info.settings["images"]
    await loaded.close()
    await live.close()


async def test_a_folder_as_it_is_published_is_loaded(tmp_path: Path) -> None:
    model, processor = tiny_vision("qwen3-vl")
    model.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    images: dict[str, Any] = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2}
    images |= {"processor_class": "Qwen3VLProcessor", "image_processor_type": "Qwen2VLImageProcessorFast"}
    images |= {"size": {"longest_edge": 16384, "shortest_edge": 1024}}
    videos = {**images, "video_processor_type": "Qwen3VLVideoProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(videos))
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    (tmp_path / "chat_template.jinja").unlink()
    loaded, live = TransformersPolicy(tmp_path, device="cpu"), policy_of()
    observation = zooming(picture(120, 90), picture(64, 100, 1))
    assert loaded._prepared(observation)[0] == live._prepared(observation)[0]
    assert loaded.info.settings["images"] == live.info.settings["images"]


def test_a_processor_that_miscounts_is_found_out() -> None:
    model, processor = tiny_vision("qwen3-vl")

    class Generous(type(processor)):  # type: ignore[misc]  # a class that is known at run time only
        """Gives each image one token too many."""

        def replace_image_token(self, *what: Any, **more: Any) -> str:
            return f"{super().replace_image_token(*what, **more)}{self.image_token}"

    wrong = Generous(processor.image_processor, processor.tokenizer, chat_template=TEMPLATE)
    policy = TransformersPolicy(model, processor=wrong)
    with pytest.raises(PolicyError, match=r"made 1 grids for 1 images, and 5 image tokens where the grids need 4$"):
        policy._prepared(seen(said(picture(64, 64))))


def test_a_processor_without_its_video_part_is_otherwise_the_same() -> None:
    from transformers import Qwen3VLProcessor

    made = image_only(Qwen3VLProcessor)
    assert made.__name__ == "Qwen3VLProcessor"
    assert made.get_attributes() == ["image_processor", "tokenizer"]  # type: ignore[attr-defined]
    assert issubclass(made, Qwen3VLProcessor)


class Speaking:
    """Makes a model say turns that are given, token for token: its head, and nothing else of it, is replaced."""

    def __init__(self, model: Any, words: Any, *turns: str) -> None:
        import torch

        self.tokens = [token for one in turns for token in (*words(one)["input_ids"], words.eos_token_id)]
        self.calls, self.model, self.head = 0, model, model.lm_head
        outer = self

        class Head(torch.nn.Module):  # type: ignore[misc]  # torch is Any to mypy
            def forward(self, hidden: Any) -> Any:
                scores = torch.full((*hidden.shape[:-1], len(words)), -1e4)
                scores[..., outer.tokens[outer.calls % len(outer.tokens)]] = 1.0
                outer.calls += 1
                return scores

        self.spoken = Head()

    def __enter__(self) -> Speaking:
        self.model.lm_head = self.spoken
        return self

    def __exit__(self, *error: object) -> None:
        self.model.lm_head = self.head


def test_an_episode_of_zoom_is_played_to_its_end_and_recorded_with_ids(tmp_path: Path) -> None:
    model, processor = tiny_vision("qwen3-vl")
    box = {"name": "image_zoom", "arguments": {"bbox_2d": [100, 100, 400, 400], "image": "image_1"}}
    turns = [f"<tool_call>\n{json.dumps(box)}\n</tool_call>", "<answer>no idea</answer>"]
    policy = policy_of(max_new_tokens=400)
    with Speaking(model, processor.tokenizer, *turns):
        run = agentenv.rollout(
            "agentenv.envs.zoom:zoom", policy, tasks=2, concurrency=1, out=tmp_path, size=[1400, 1000], first_view=360
        )
    for record in run:
        assert record.outcome is not None
        assert record.outcome.stop_reason == StopReason.ANSWER
        assert record.outcome.reward == 0.0
        shown = [part for node in record.nodes for part in node.message.parts if isinstance(part, Image)]
        assert [image.handle for image in shown] == ["image_1", "observation_1"]
        spoken = [node.message for node in record.nodes if node.message.role == "assistant"]
        assert [message.raw for message in spoken] == turns
        assert record.policy.capture == "ids_full"
        tokens = [node.tokens for node in record.nodes if node.tokens and node.origin == "sampled"]
        assert all(kept.exact and len(kept.logprobs or ()) == len(kept.ids) for kept in tokens)
        assert [processor.tokenizer.decode(kept.ids[:-1]) for kept in tokens] == turns
        counts = [call.usage.prompt_tokens for call in record.calls if call.usage]
        (segments,) = streams(record)
        check(segments)
        wide = expanded(segments)
        assert [len(flat(wide[:1]).ids), len(flat(wide[:3]).ids)] == counts
        assert [span.sha256 for span in media(wide)] == [image.sha256 for image in shown]
        pads = sum(math.prod(span.grid) // 4 for span in media(wide))
        assert flat(wide).ids.count(processor.image_token_id) == pads
        assert flat(segments).mask == [int(s.sampled) for s in segments for _ in s.ids]


def test_the_modules_do_not_import_torch() -> None:
    names = "agentenv.policy.transformers, agentenv.policy.vision, agentenv.policy.sampling"
    code = f"import sys, {names}; print([n for n in ('torch', 'transformers', 'PIL') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_a_text_model_is_as_before() -> None:
    model, words = tiny()
    policy = TransformersPolicy(model, words, max_new_tokens=4)
    assert "images" not in policy.info.settings
    assert (await turn(policy, seen(said("a"), tools=()))).token_ids
    await policy.close()
