"""Contract tests of the thin shims: the signatures and fields that the trainers document, with stand-ins for them."""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import sys
import types
from dataclasses import dataclass, field
from typing import Any

import pytest
from openai import AsyncOpenAI

import agentenv
from agentenv.errors import ConfigError
from agentenv.policy import make_policy
from agentenv.rollout import play
from agentenv.trainers import common
from agentenv.trainers.session import Session, converse, rows
from tests.policy.chat_server import chat_server, completion
from tests.tokens.qwen import qwen, templates

EASY: dict[str, Any] = {"seed": 3, "difficulty": 1}
END = "<|im_end|>"


async def turns(name: str = "table", **options: Any) -> list[str]:
    """The demonstrator's turns in the first task."""
    env = agentenv.make(name, **(options or EASY))
    record = await play(env.clone(), make_policy("reference"), env.tasks.take(1)[0])
    return [node.message.text for node in record.path() if node.origin == "sampled"]


def tokens() -> Any:
    """The real Qwen tokenizer with a chat template that only appends."""
    made = copy.copy(qwen())
    made.chat_template = templates()["qwen2_5"]
    return made


def ids_of(text: str) -> list[int]:
    """Its ids."""
    found: list[int] = qwen()(text, add_special_tokens=False)["input_ids"]
    return found


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    """A module in the place of a trainer's."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        path = ".".join(parts[:end])
        if path not in sys.modules:
            monkeypatch.setitem(sys.modules, path, types.ModuleType(path))
    for key, value in content.items():
        monkeypatch.setattr(sys.modules[name], key, value, raising=False)


@dataclass
class ModelRequest:
    """The fields of AReaL's request that the shim gives."""

    rid: str
    input_ids: list[int]
    gconfig: Any
    tokenizer: Any
    processor: Any
    image_data: list[str]


class Hyperparameters(types.SimpleNamespace):
    """AReaL's, as far as they are asked."""

    def new(self, **changed: Any) -> Hyperparameters:
        return Hyperparameters(**{**vars(self), **changed})

    def new_with_stop_and_pad_token_ids(self, _: Any) -> Hyperparameters:
        return self


async def test_areal(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    logged: list[dict[str, float]] = []
    stand_in(monkeypatch, "areal.api", ModelRequest=ModelRequest, RolloutWorkflow=object)
    scopes = types.SimpleNamespace(scalar=lambda **found: logged.append(found))
    stand_in(monkeypatch, "areal.utils", stats_tracker=types.SimpleNamespace(get={"rollout": scopes}.__getitem__))
    stand_in(monkeypatch, "areal", workflow_context=types.SimpleNamespace(stat_scope=lambda: "rollout"))
    monkeypatch.delitem(sys.modules, "agentenv.trainers.areal", raising=False)
    from agentenv.trainers.areal import AgentEnvWorkflow, areal_rows

    texts = [text + END for text in await turns()]
    left = list(texts)

    class Engine:
        config = types.SimpleNamespace(backend="sglang:d1")

        async def agenerate(self, request: ModelRequest) -> Any:
            made = ids_of(left.pop(0))
            assert request.gconfig.n_samples == 1
            return types.SimpleNamespace(
                output_tokens=made,
                output_logprobs=[-0.5] * len(made),
                output_versions=[4] * len(made),
                stop_reason="stop",
            )

    assert list(inspect.signature(AgentEnvWorkflow.arun_episode).parameters) == ["self", "engine", "data"]
    [row] = areal_rows("table", 1, **EASY)
    workflow = AgentEnvWorkflow(Hyperparameters(max_tokens=16_384, max_new_tokens=512), tokens())
    found = await workflow.arun_episode(Engine(), row)
    assert found is not None
    assert set(found) == {"input_ids", "logprobs", "loss_mask", "versions", "rewards", "attention_mask"}
    shape = found["input_ids"].shape
    assert all(found[name].shape == shape for name in ("logprobs", "loss_mask", "versions", "attention_mask"))
    assert found["rewards"].tolist() == [1.0]
    assert logged == [{"reward": 1.0, "num_turns": len(texts)}]
    assert torch.equal(found["versions"], torch.where(found["loss_mask"].bool(), 4, -1).int())
    sys.modules.pop("agentenv.trainers.areal")


async def test_nemo_gym() -> None:
    from agentenv.trainers.nemo_gym import AgentEnvGym, nemo_gym_rows

    [row] = nemo_gym_rows("table", 1, **EASY)
    assert [message["role"] for message in row["responses_create_params"]["input"]] == ["system", "user"]
    server = AgentEnvGym()
    server.session_state = {}
    assert list(inspect.signature(server.reset).parameters) == ["metadata", "session_id"]
    assert list(inspect.signature(server.step).parameters) == ["action", "metadata", "session_id"]
    assert (await server.reset(row, "one"))[0] is None
    for text in await turns():
        said = types.SimpleNamespace(type="output_text", text=text)
        message = types.SimpleNamespace(type="message", content=[said])
        action = types.SimpleNamespace(output=[message], incomplete_details=None)
        seen, reward, terminated, truncated, info = await server.step(action, row, "one")
    assert (seen, reward, terminated, truncated) == (None, 1.0, True, False)
    assert info["stop_reason"] == "answer"
    await server.close_session("one")
    assert server.session_state == {}
    await server.close_session("one")
    with pytest.raises(ConfigError, match="pictures"):
        nemo_gym_rows("zoom", 1, seed=1, difficulty=1, size=[1536, 1024], first_view=256)


@dataclass
class RllmTask:
    """The fields of rLLM's `Task` (0.3.0.pre), and below those of what a flow gives, in our own words."""

    id: str
    instruction: str
    metadata: dict[str, Any]


@dataclass
class AgentConfig:
    base_url: str
    model: str
    session_uid: str
    metadata: dict[str, Any] = field(default_factory=dict)
    is_validation: bool = False
    sampling_params: dict[str, Any] = field(default_factory=dict)


@dataclass
class Step:
    id: str = ""
    input: Any = None
    output: Any = None
    action: Any = None
    reward: float = 0.0
    done: bool = False
    metadata: dict[str, Any] | None = None


@dataclass
class RllmTrajectory:
    name: str = "default_traj_name"
    task: Any = None
    steps: list[Step] = field(default_factory=list)
    reward: float | None = None
    signals: dict[str, float] = field(default_factory=dict)
    metadata: dict[str, Any] | None = None


@dataclass
class Episode:
    id: str = ""
    task: Any = None
    termination_reason: Any = None
    is_correct: bool = False
    trajectories: list[RllmTrajectory] = field(default_factory=list)
    artifacts: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass
class EvalOutput:
    reward: float
    is_correct: bool
    signals: list[Any] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)


async def test_rllm(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "rllm.types", Episode=Episode, Step=Step, Trajectory=RllmTrajectory)
    stand_in(monkeypatch, "rllm.eval.types", EvalOutput=EvalOutput)
    from agentenv.trainers.rllm import evaluate, flow, rllm_rows

    texts = await turns()
    left = list(texts)
    [row] = rllm_rows("table", 1, **EASY)
    assert inspect.iscoroutinefunction(flow)
    assert list(inspect.signature(flow).parameters) == ["task", "config"]
    assert list(inspect.signature(evaluate).parameters) == ["task", "episode"]
    async with chat_server() as server:
        server.answer = lambda _: completion(left.pop(0))
        task, config = RllmTask("0", row["question"], row), AgentConfig(server.url, "m", "s")
        episode = await flow(task, config)
    [trajectory] = episode.trajectories
    assert len(server.requests) == len(trajectory.steps), "the gateway's traces are matched to steps by their order"
    assert [step.output for step in trajectory.steps] == texts
    assert [(step.reward, step.done) for step in trajectory.steps] == [(0.0, False)] * (len(texts) - 1) + [(1.0, True)]
    assert trajectory.reward == 1.0
    assert episode.artifacts["stop_reason"] == "answer"
    assert evaluate(task, episode) == EvalOutput(1.0, True)


async def test_a_conversation_puts_stop_strings_back_and_sees_what_was_cut() -> None:
    [row] = rows("table", 1, dialect="tags", **EASY)
    session = Session(row["extra_info"], "tests")
    left = [completion(text) for text in await turns(dialect="tags", **EASY)]
    async with chat_server() as server:
        server.answer = lambda _: left.pop(0)
        async with AsyncOpenAI(base_url=server.url, api_key="EMPTY") as client:
            turn = await converse(session, client, "m", temperature=0.5)
            assert turn.reward == 1.0
            assert server.requests[0]["temperature"] == 0.5
            assert server.requests[0].get("stop", []) == list(session.env.dialect.stop)
            server.answer = completion("I was about to", "length")
            cut = await converse(Session(row["extra_info"], "tests"), client, "m")
    assert cut.info["stop_reason"] == "length"


@pytest.mark.parametrize(
    ("name", "package"), [("areal", "areal"), ("slime", "slime"), ("rllm", "rllm"), ("nemo_gym", "nemo-gym")]
)
async def test_another_version_of_the_trainer_is_refused(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {package: "0.0.1"}
    monkeypatch.setattr(common, "version", versions.__getitem__)
    common.loaded_by.cache_clear()
    stand_in(monkeypatch, "areal.api", ModelRequest=object, RolloutWorkflow=object)
    stand_in(monkeypatch, "areal.utils", stats_tracker=None)
    stand_in(monkeypatch, "areal", workflow_context=None)

    async def begun() -> None:
        adapter = importlib.import_module(f"agentenv.trainers.{name}")
        if name == "nemo_gym":
            await adapter.AgentEnvGym().reset({})
        elif name != "areal":  # that one is held to it when it is imported
            await {"slime": lambda: adapter.generate(None, None, {}), "rllm": lambda: adapter.flow(None, None)}[name]()

    sys.modules.pop("agentenv.trainers.areal", None)
    with pytest.raises(ConfigError, match=rf"{package} 0\.0\.1 was not tested .* set AGENTENV_CHECK_VERSION=0"):
        await begun()
    monkeypatch.setenv("AGENTENV_CHECK_VERSION", "0")
    with contextlib.suppress(Exception):  # whatever comes of no arguments, it is not the version
        await begun()
    common.loaded_by.cache_clear()
    sys.modules.pop("agentenv.trainers.areal", None)


@pytest.mark.parametrize("found", ["0.3.0rc0", "0.3", "0.3.9", "0.3.1+cpu"])
def test_versions_are_read_as_packagers_write_them(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "version", lambda _: found)
    assert common.require("rllm", ("0.3.0", "0.4.0"), "none") == found


def test_a_trainer_that_is_not_installed_has_no_version() -> None:
    common.loaded_by("surely-not-there", ("1", "2"))
