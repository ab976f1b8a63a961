"""A policy that plays recorded turns again: for regressions, for scoring under other rules, and for offline runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from agentenv.errors import ConfigError, PolicyError, StoreError
from agentenv.policy.base import Policy
from agentenv.trajectory import ModelCall, Node, PolicyInfo, Trajectory
from agentenv.types import Action, Observation, StopReason, Task, Usage

Key = tuple[str, int]


class ReplayPolicy(Policy):
    """Plays the sampled turns of recorded episodes, found by task id and sample index.

    Of several records of one attempt, an episode that was scored wins over one that was not, one that was played from
    the start over a fork, and otherwise the later one. Token ids, log-probabilities and token counts come along; cost
    and time do not, since a replay costs nothing.

    Args:
        trajectories: the records. They are read once, and only their turns are kept.
        name: what records call it.
    """

    def __init__(self, trajectories: Iterable[Trajectory], *, name: str = "replay") -> None:
        self.info = PolicyInfo(name)
        self._turns: dict[Key, tuple[Action, ...]] = {}
        ranks: dict[Key, int] = {}
        for record in trajectories:
            key = (record.task.id, record.group.index)
            if _rank(record) >= ranks.get(key, 0):
                ranks[key] = _rank(record)
                self._turns[key] = turns_of(record)

    @staticmethod
    def load(path: str) -> ReplayPolicy:
        """The policy of a run folder (all its *.jsonl journals) or of one file of records, one JSON object a line.

        Raises:
            ConfigError: there is no such file, or it holds no record.
            StoreError: a line is not a record. A last line that was cut off is left out.
        """
        policy = ReplayPolicy(_read(Path(path)), name=f"replay:{Path(path).name}")
        if not policy._turns:
            raise ConfigError(f"{path} holds no recorded episode")
        return policy

    def begin(self, task: Task, *, seed: int, sample: int = 0) -> Policy:
        """The recorded turns of one attempt.

        Raises:
            PolicyError: this attempt at this task is not in the recording.
        """
        turns = self._turns.get((task.id, sample))
        if turns is None:
            samples = sorted(index for name, index in self._turns if name == task.id)
            known = f"it has attempts {', '.join(map(str, samples))}" if samples else "it has none of this task"
            raise PolicyError(f"attempt {sample} at task {task.id!r} is not in the recording; {known}")
        return _Replaying(self.info, turns, f"attempt {sample} at task {task.id!r}")

    async def act(self, observation: Observation) -> Action:
        raise PolicyError("a replay must know its task: play the policy that begin(task) returns")


class _Replaying(Policy):
    def __init__(self, info: PolicyInfo, turns: tuple[Action, ...], what: str) -> None:
        self.info, self._turns, self._what, self._index = info, turns, what, 0

    async def act(self, observation: Observation) -> Action:
        if self._index >= len(self._turns):
            raise PolicyError(f"the recording of {self._what} ends after {len(self._turns)} turns")
        self._index += 1
        return self._turns[self._index - 1]


def turns_of(record: Trajectory) -> tuple[Action, ...]:
    """The actions that the policy of a recorded episode took, along its path."""
    calls = {call.node: call for call in record.calls}
    native = record.env.dialect == "native"
    nodes = [(index, record.nodes[index]) for index in record.indices()]
    turns = [(node, calls.get(index)) for index, node in nodes if node.origin == "sampled"]
    return tuple(
        _action(node, call, native, record.nodes[node.parent] if node.parent >= 0 else None) for node, call in turns
    )


def _action(node: Node, call: ModelCall | None, native: bool, before: Node | None) -> Action:
    message, tokens = node.message, node.tokens if node.tokens and node.tokens.exact else None
    usage = call.usage if call else None
    text = message.text if message.raw is None else message.raw
    return Action(
        text,
        calls=message.calls if native else (),
        reasoning=_beside(message.reasoning, text),
        finish_reason=call.finish_reason if call else "stop",
        token_ids=tokens.ids if tokens else None,
        logprobs=tokens.logprobs if tokens else None,
        usage=Usage(usage.prompt_tokens, usage.completion_tokens) if usage else None,
        context=before.tokens if tokens and before and before.origin != "sampled" else None,
        version=tokens.version if tokens else "",
    )


def _beside(reasoning: str, text: str) -> str:
    """The reasoning that came beside the text: none of it where the text holds it already."""
    return "" if all(line.strip() in text for line in reasoning.split("\n")) else reasoning


def _rank(record: Trajectory) -> int:
    reason = record.stop_reason
    unscored = reason is None or StopReason(reason).unscored
    return 2 * (not unscored) + (not record.forked_from)


class _Line(Struct):
    id: str = ""
    event: str = ""


def _read(path: Path) -> Iterator[Trajectory]:
    if not path.exists():
        raise ConfigError(f"there is no run folder or file of records at {path}")
    files = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
    deleted = {head.id for file in files for _, head, _ in _lines(file) if head.event == "delete"}
    for file in files:
        for place, head, text in _lines(file):
            if not head.event and head.id not in deleted:
                yield _record(place, text)


def _lines(file: Path) -> Iterator[tuple[str, _Line, bytes]]:
    """Place, head and text of each line. A last line without a line end may have been cut off when its writer died."""
    texts = file.read_bytes().split(b"\n")
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            yield f"{file.name}:{number}", _HEADS.decode(text), text
        except msgspec.DecodeError as error:
            if number < len(texts):
                raise StoreError(f"{file.name}:{number}: not a record: {error}") from None


def _record(place: str, text: bytes) -> Trajectory:
    try:
        return Trajectory.from_json(text)
    except StoreError as error:
        raise StoreError(f"{place}: {error}") from None


_HEADS = msgspec.json.Decoder(_Line)
