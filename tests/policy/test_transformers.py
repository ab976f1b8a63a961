"""Local models: batches, seeds, token ids, endings. The model is tiny and real; one test loads SmolLM2."""

from __future__ import annotations

import asyncio
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import agentenv
from agentenv.errors import ConfigError, MissingExtraError, PolicyError, UsageError
from agentenv.policy import TransformersPolicy, make_policy
from agentenv.policy.batching import Batcher, Job, Row
from agentenv.types import Action, Image, Message, Text, ToolCall
from tests.policy.smollm import smollm_policy
from tests.policy.tiny import save_tiny, tiny
from tests.policy.words import TOOLS, seen, task
from tests.worlds import sums


def tiny_policy(**options: Any) -> TransformersPolicy:
    model, tokenizer = tiny()
    return TransformersPolicy(model, tokenizer, **{"max_new_tokens": 24, **options})


def said(text: str) -> Message:
    return Message("user", (Text(text),))


async def played(policy: TransformersPolicy, *texts: str, seed: int = 0) -> list[Action]:
    episodes = [policy.begin(task(), seed=seed + index) for index in range(len(texts))]
    return await asyncio.gather(*(e.act(seen(said(t), tools=())) for e, t in zip(episodes, texts, strict=True)))


def recomputed(prompt: list[int], action: Action, temperature: float) -> list[float]:
    """Log-probabilities of the sampled tokens in one forward pass without a batch."""
    import torch

    assert action.token_ids is not None
    model, _ = tiny()
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + list(action.token_ids)])).logits[0].float()
    scores = torch.log_softmax(logits / temperature, dim=-1)
    places = range(len(prompt) - 1, len(prompt) - 1 + len(action.token_ids))
    return [float(scores[place, token]) for place, token in zip(places, action.token_ids, strict=True)]


async def test_ids_are_the_truth_and_logprobs_are_those_of_the_model() -> None:
    import torch

    policy = tiny_policy(temperature=0.8, batch_wait=0.05)
    texts = ["a", "which city is the largest one of them all", "select name"]
    actions = await played(policy, *texts)
    _, tokenizer = tiny()
    for text, action in zip(texts, actions, strict=True):
        prompt = policy._prepared(seen(said(text), tools=()))[0]
        assert action.token_ids is not None
        assert action.logprobs == pytest.approx(recomputed(prompt, action, 0.8), abs=1e-4)
        closed = action.token_ids[:-1] if action.finish_reason == "stop" else action.token_ids
        assert tokenizer.decode(closed) == action.text
        assert action.usage is not None
        assert (action.usage.prompt_tokens, action.usage.completion_tokens) == (len(prompt), len(action.token_ids))
        assert tokenizer.pad_token_id not in action.token_ids
    assert torch.is_grad_enabled()
    assert policy.info.capture == "ids_full"
    assert policy.info.settings["temperature"] == 0.8
    await policy.close()


async def test_a_turn_does_not_depend_on_the_rows_beside_it() -> None:
    policy = tiny_policy(batch_wait=0.05, batch_size=4)
    together = await played(policy, "a", "select name from cities", "c", "d", "e", "f")
    alone = tiny_policy(batch_size=1)
    for index, text in enumerate(["a", "select name from cities", "c"]):
        (action,) = await played(alone, text, seed=index)
        assert action.token_ids == together[index].token_ids
    assert len({action.token_ids for action in together}) == 6
    await policy.close()
    await alone.close()


async def test_seeds_sample_and_turn_decide_the_turn() -> None:
    policy = tiny_policy()
    turns = []
    for seed, sample in ((1, 0), (1, 0), (1, 1), (2, 0)):
        episode = policy.begin(task(), seed=seed, sample=sample)
        turns.append([(await episode.act(seen(said("a")))).token_ids for _ in range(2)])
    assert turns[0] == turns[1]
    assert len({ids for pair in turns[1:] for ids in pair}) == 6
    await policy.close()


async def test_samples_follow_the_models_distribution() -> None:
    import torch

    policy = tiny_policy(max_new_tokens=1, batch_size=200, batch_wait=0.2, top_k=5)
    model, _ = tiny()
    with torch.inference_mode():
        logits = model(torch.tensor([policy._prepared(seen(said("a"), tools=()))[0]])).logits[0, -1].float()
    values, tokens = torch.softmax(logits, -1).topk(5)
    expected = dict(zip(tokens.tolist(), (values / values.sum()).tolist(), strict=True))
    actions = await played(policy, *["a"] * 600)
    counts = dict.fromkeys(expected, 0)
    for action in actions:
        assert action.token_ids is not None
        counts[action.token_ids[0]] += 1
    statistic = sum((counts[t] - 600 * p) ** 2 / (600 * p) for t, p in expected.items())
    assert statistic < 23.5  # chi squared with 4 degrees of freedom, p = 0.0001
    await policy.close()


async def test_greedy_takes_the_likeliest_token() -> None:
    policy = tiny_policy(temperature=0)
    first, second = await played(policy, "a", "a")
    assert first.token_ids == second.token_ids
    nucleus = tiny_policy(top_p=1e-6)
    (same,) = await played(nucleus, "a")
    assert same.token_ids == first.token_ids
    assert same.logprobs == pytest.approx([0.0] * len(same.logprobs or ()), abs=1e-6)
    await policy.close()
    await nucleus.close()


async def test_stop_strings_end_each_row_on_its_own() -> None:
    policy = tiny_policy(max_new_tokens=40, batch_wait=0.05)
    free = await played(policy, "a", "b")
    stop = free[0].text[4:7]
    episodes = [policy.begin(task(), seed=index) for index in range(2)]
    observations = [seen(said("a " * 0 + "a"), tools=(), stop=(stop, "never")), seen(said("b"), tools=())]
    first, second = await asyncio.gather(*(e.act(o) for e, o in zip(episodes, observations, strict=True)))
    assert first.finish_reason == "stop"
    assert stop in first.text
    assert free[0].text.startswith(first.text)
    assert stop not in first.text[: -len(stop) - 8]
    assert second.token_ids == free[1].token_ids
    await policy.close()


async def test_the_end_token_is_kept_in_the_ids_and_not_in_the_text() -> None:
    import torch

    model, tokenizer = tiny()

    class Ending(torch.nn.Module):  # type: ignore[misc]  # torch is Any to mypy
        """Says one token, then the end."""

        def forward(self, hidden: Any) -> Any:
            scores = torch.full((*hidden.shape[:-1], len(tokenizer)), -1e4)
            scores[..., tokenizer.eos_token_id] = 1.0
            return scores

    head, model.lm_head = model.lm_head, Ending()
    try:
        policy = tiny_policy()
        (action,) = await played(policy, "a")
        await policy.close()
    finally:
        model.lm_head = head
    assert (action.text, action.token_ids, action.finish_reason) == ("", (tokenizer.eos_token_id,), "stop")


async def test_a_full_context_is_a_turn_cut_short() -> None:
    policy = tiny_policy(max_new_tokens=500, temperature=0.0, batch_wait=0.05)
    long = "select name from cities where population " * 60
    short, over = await played(policy, "select", long)
    assert (over.text, over.token_ids, over.finish_reason) == ("", None, "overflow")
    prompt = policy._prepared(seen(said("select"), tools=()))[0]
    assert short.token_ids is not None
    assert short.finish_reason == "length"
    assert len(prompt) + len(short.token_ids) == 256
    # Two prompts of different length: each row may go up to the context, not only as far as the longer one.
    first, second = await played(policy, "select", "which city " * 10)
    assert len(first.token_ids or ()) > len(second.token_ids or ())
    await policy.close()


async def test_the_models_own_settings_add_nothing() -> None:
    model, _ = tiny()
    policy = tiny_policy()
    (plain,) = await played(policy, "a")
    own = model.generation_config.repetition_penalty
    model.generation_config.repetition_penalty = 5.0
    try:
        assert (await played(policy, "a"))[0].token_ids == plain.token_ids
        assert model.generation_config.repetition_penalty == 5.0
    finally:
        model.generation_config.repetition_penalty = own
    await policy.close()


async def test_the_template_gets_tools_and_decoded_calls_in_the_native_dialect() -> None:
    policy = tiny_policy()
    _, tokenizer = tiny()
    call = ToolCall("c", "table_query", '{"sql": "SELECT 1"}', {"sql": "SELECT 1"})
    turns = (said("q"), Message("assistant", (Text(""),), (call,)), Message("tool", (Text("1"),), call_id="c"))
    text = tokenizer.decode(policy._prepared(seen(*turns, dialect="native"))[0])
    assert '"name": "table_query"' in text
    assert "<|im_start|>assistant\n<call>table_query:SELECT 1</call><|im_end|>" in text
    assert "<|im_start|>tool\n1<|im_end|>" in text
    assert text.endswith("<|im_start|>assistant\n")
    plain = tokenizer.decode(policy._prepared(seen(said("q")))[0])
    assert "table_query" not in plain


async def test_native_calls_are_read_out_of_the_text() -> None:
    policy = tiny_policy()
    observation = seen(dialect="native")
    written = Action('so <tool_call>\n{"name": "table_query", "arguments": {"sql": "x"}}\n</tool_call>', token_ids=(1,))
    for _ in range(2):
        action = policy._native(written, observation)
        assert [(call.name, call.arguments) for call in action.calls] == [("table_query", {"sql": "x"})]
        assert (action.text, action.token_ids) == ("so", (1,))
    assert policy._native(Action("plain"), observation) == Action("plain")
    action = await policy.begin(task(), seed=0).act(seen(said("a"), dialect="native", tools=()))
    assert action.token_ids
    await policy.close()


async def test_what_it_cannot_take_is_said_clearly() -> None:
    policy = tiny_policy()
    with pytest.raises(PolicyError, match="text-only; image part found"):
        await policy.act(seen(Message("user", (Image("ab" * 32, "image/png", 1, 1),))))
    with pytest.raises(PolicyError, match="refuses the conversation: no critics"):
        await policy.act(seen(Message("critic", (Text("x"),))))
    await policy.close()


async def test_a_model_that_fails_fails_its_batch_and_not_the_thread() -> None:
    policy = tiny_policy(batch_wait=0.05)
    model, _ = tiny()
    layers, model.model.layers = model.model.layers, None
    with pytest.raises(PolicyError, match="the local model failed: "):
        await played(policy, "a", "b")
    model.model.layers = layers
    (action,) = await played(policy, "a")
    assert action.token_ids
    await policy.close()
    (again,) = await played(policy, "a")  # a closed policy starts again
    assert again.token_ids == action.token_ids
    await policy.close()
    await policy.close()


async def test_batches_are_gathered_and_cancelled_jobs_are_not_run() -> None:
    sizes: list[int] = []
    gate = threading.Event()

    def work(jobs: Any) -> list[Row]:
        gate.wait(5)
        sizes.append(len(jobs))
        return [Row(str(job.seed), (), (), "stop") for job in jobs]

    batcher = Batcher(work, 4, 0.02)
    tasks = [asyncio.create_task(batcher.run(Job([1], index))) for index in range(10)]
    await asyncio.sleep(0.1)  # the first four are at work, the others wait
    tasks[5].cancel()
    for index in (8, 9):
        tasks[index].cancel()
    await asyncio.sleep(0.01)
    gate.set()
    rows = await asyncio.gather(*tasks, return_exceptions=True)
    assert [row.text if isinstance(row, Row) else "-" for row in rows] == list("01234-67--")
    assert sizes == [4, 3]
    late = asyncio.create_task(batcher.run(Job([1], 7)))
    await asyncio.sleep(0)
    await asyncio.to_thread(batcher.close)
    assert (await late).text == "7"


def test_what_cannot_be_loaded_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model, tokenizer = tiny()
    with pytest.raises(ConfigError, match="there is no model folder"):
        make_policy("transformers:./nowhere")
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        TransformersPolicy(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="give tokenizer="):
        TransformersPolicy(model)
    wrong: tuple[dict[str, Any], ...] = (
        {"temperature": -1},
        {"temperature": "hot"},
        {"top_p": 0},
        {"top_k": 1.5},
        {"max_new_tokens": 0},
        {"batch_size": True},
        {"batch_wait": float("nan")},
    )
    for options in wrong:
        with pytest.raises(ConfigError, match=f"{next(iter(options))}=.*: expected a"):
            TransformersPolicy(model, tokenizer, **options)
    save_tiny(tmp_path / "saved")
    for option, value, why in (
        ("dtype", "float3", "dtype='float3': expected 'auto' or a data type"),
        ("device", "tpu", "cannot be put on the device 'tpu'"),
        ("native_dialect", "klingon", "unknown dialect 'klingon'"),
        ("version", 3, "version=3: expected a text"),
    ):
        with pytest.raises(UsageError, match=why):
            make_policy(f"transformers:{tmp_path / 'saved'}", **{option: value})
    bare = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|im_end|>")
    with pytest.raises(ConfigError, match="no chat template"):
        TransformersPolicy(model, bare)
    assert TransformersPolicy(model, bare, chat_template=tokenizer.chat_template).info.model


def test_a_run_does_not_go_on_with_other_weights_of_the_same_name(tmp_path: Path) -> None:
    saved = save_tiny(tmp_path / "one" / "model")
    other = tmp_path / "two" / "model"
    shutil.copytree(saved, other)
    trained = TransformersPolicy(saved)
    trained.model.lm_head.weight.data *= 1.001
    trained.model.save_pretrained(other)
    played: dict[str, Any] = {"tasks": 1, "out": tmp_path / "run"}
    agentenv.rollout(sums(), TransformersPolicy(saved, max_new_tokens=4), **played)
    assert len(agentenv.rollout(sums(), TransformersPolicy(saved, max_new_tokens=4), resume=True, **played)) == 1
    with pytest.raises(UsageError, match="its policy's weights was"):
        agentenv.rollout(sums(), TransformersPolicy(other, max_new_tokens=4), resume=True, **played)


async def test_a_saved_model_is_loaded_and_its_folder_is_not_in_the_record(tmp_path: Path) -> None:
    model, tokenizer = tiny()
    folder = tmp_path / "my-model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    policy = make_policy(f"transformers:{folder}", max_new_tokens=4, device="cpu")
    action = await policy.begin(task(), seed=0).act(seen(said("a"), tools=()))
    live = tiny_policy(max_new_tokens=4)
    assert (await played(live, "a"))[0].token_ids == action.token_ids
    assert policy.info.model == "my-model"
    assert str(tmp_path) not in repr(policy.info)
    await policy.close()
    await live.close()


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_a_missing_package_names_its_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"agentenv-gym\[local\]"):
        TransformersPolicy("anything")


@pytest.mark.slow
async def test_smollm2_reads_a_table_and_calls_a_tool() -> None:
    def call(sql: str) -> str:
        return f'<tool_call>\n{{"name": "table_query", "arguments": {{"sql": "{sql}"}}}}\n</tool_call>'

    shots = [
        ("How many cities are there?", "SELECT COUNT(*) FROM cities"),
        ("Which country is Oslo in?", "SELECT country FROM cities WHERE name = 'Oslo'"),
    ]
    system = "You query the table cities(name, country, population) with the tool table_query. Write one call."
    messages = [Message("system", (Text(system),))]
    for question, sql in shots:
        messages += [said(question), Message("assistant", (Text(call(sql)),))]
    policy = smollm_policy(temperature=0.0, max_new_tokens=60)
    observation = seen(*messages, said("Which country is Lyon in?"), tools=TOOLS, stop=("</tool_call>",))
    action = await policy.begin(task(), seed=0).act(observation)
    await policy.close()
    assert action.text.startswith('<tool_call>\n{"name": "table_query", "arguments": {"sql": "SELECT')
    assert action.text.rstrip().endswith("</tool_call>")
    assert action.finish_reason == "stop"
    assert action.token_ids
    assert len(action.token_ids) == len(action.logprobs or ())
