"""An episode as "text in, messages out", the shape that most trainers' interfaces share, and the rows of its data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from agentenv.env import Env
from agentenv.errors import ConfigError, InfrastructureError, UsageError
from agentenv.policy.wire import restored, wire_messages
from agentenv.registry import make
from agentenv.reward import total
from agentenv.trainers.common import chosen, opening
from agentenv.trajectory import PolicyInfo, Trajectory
from agentenv.types import Action, Observation, StopReason, Task


def rows(name: str, tasks: int | Iterable[Task] | None = None, **options: Any) -> list[dict[str, Any]]:
    """Tasks as plain rows, from which a worker process finds environment and task again (see `asked`).

    Args:
        name: of the environment, which every worker makes anew.
        tasks: how many, or which; all of a set that has an end by default.
        **options: of the environment; plain data.

    Returns:
        For each task `prompt` (messages of text, for people and for length filters: the environment gives its own,
        pictures included), `answer` (JSON of the reference) and `extra_info`.

    Raises:
        UsageError: the tasks are endless and no number was given, or an option is no plain data.
        ConfigError: the environment is in the native dialect, whose calls only a server's parser reads.
    """
    env = make(name, **options)
    check_dialect(env)
    try:
        settings = json.dumps(options, sort_keys=True)
    except TypeError as error:
        raise UsageError(f"options of an environment must be plain data here: {error}") from None
    return [_row(env, name, settings, index, task) for index, task in enumerate(chosen(env, tasks))]


def _row(env: Env, name: str, settings: str, index: int, task: Task) -> dict[str, Any]:
    return {
        # A marker such as <image> would make a trainer's reader look for a picture column.
        "prompt": [{"role": m.role, "content": m.text.replace("<", "\u2039")} for m in opening(env, task).messages],
        "answer": json.dumps(task.answer, ensure_ascii=False, default=str),
        "extra_info": {
            "index": index,
            "agentenv": json.dumps({"env": name, "task": task.id}),
            "agentenv_options": settings,
        },
    }


def check_dialect(env: Env) -> None:
    """Refuse a dialect whose calls do not stand in the text.

    Raises:
        ConfigError: it is the native one.
    """
    if env.dialect.native:
        raise ConfigError(
            f"environment {env.env_spec.id!r} is in the native dialect, whose calls only a server's parser reads; this"
            " trainer gives text or token ids: use a text dialect, for instance hermes, which writes Qwen's own calls"
        )


@lru_cache(maxsize=64)
def _env(name: str, settings: str) -> Env:
    env = make(name, **json.loads(settings))
    check_dialect(env)
    return env


def asked(extra_info: Mapping[str, Any]) -> tuple[Env, Task]:
    """The environment (made once a process, to be cloned) and the task that a row names.

    Raises:
        UsageError: the row was not made by `rows`.
    """
    try:
        named = json.loads(extra_info["agentenv"])
        name, task, settings = named["env"], named["task"], extra_info.get("agentenv_options", "{}")
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            "the row's extra_info names no environment and task: make the data set with agentenv.trainers"
        ) from error
    env = _env(name, settings)
    return env, env.tasks[task]


def reward_of(env: Env, record: Trajectory) -> float | None:
    """The reward without components that need a whole group, which an interface of single episodes never sees."""
    if record.outcome is None or StopReason(record.outcome.stop_reason).unscored:
        return None
    late = env.rubric.late
    return total({name: score for name, score in record.outcome.rewards.items() if name not in late})


class Turn(Struct, frozen=True):
    """What a turn came to.

    Args:
        messages: what the policy sees next, in OpenAI's form; pictures as `image_url` parts with data URLs.
        done: the episode is over.
        reward: 0.0 before the end; then the total.
        info: at the end: stop_reason, answer, and the reward's components.
    """

    messages: list[dict[str, Any]]
    done: bool
    reward: float
    info: dict[str, Any]


class Session:
    """One episode.

    Args:
        extra_info: of a row.
        policy: who plays, as the record says it.
    """

    def __init__(self, extra_info: Mapping[str, Any], policy: str) -> None:
        env, task = asked(extra_info)
        self._set(env, task, policy, int(extra_info.get("index", 0)))

    @classmethod
    def of(cls, env: Env, task: Task, policy: str, seed: int = 0) -> Session:
        """A session of a task of an environment that is there."""
        made = cls.__new__(cls)
        made._set(env, task, policy, seed)
        return made

    def _set(self, env: Env, task: Task, policy: str, seed: int) -> None:
        self.env, self.task = env.clone(), task
        self._info, self._seed = PolicyInfo(policy), seed

    @property
    def record(self) -> Trajectory:
        """The record so far."""
        return self.env.trajectory

    def begin(self) -> list[dict[str, Any]]:
        """Start, and give the opening messages."""
        return _wire(self.env.start(self.task, seed=self._seed, policy=self._info), 0)

    def step(self, text: str, finish: str = "stop") -> Turn:
        """Take the policy's turn.

        Args:
            text: what the model wrote, without the token that ended the turn.
            finish: "stop", or "length" where the turn was cut short.

        Raises:
            InfrastructureError: the episode ended without a score. No number stands for that: 0 would be a lie.
        """
        step = self.env.step(Action(text, finish_reason=finish))
        return self._turn(step.observation, step.terminated or step.truncated)

    async def astep(self, text: str, finish: str = "stop") -> Turn:
        """As `step`; the calls of the turn run at once."""
        step = await self.env.astep(Action(text, finish_reason=finish))
        return self._turn(step.observation, step.terminated or step.truncated)

    def cut(self, reason: StopReason = StopReason.MAX_TURNS) -> Turn:
        """End the episode since the trainer goes no further, and score it as it stands.

        Raises:
            InfrastructureError: it could not be scored.
        """
        episode = self.env.episode
        assert episode is not None
        if episode.stop is None:
            episode.end(reason)
            self.env.finish()
        return self._ended([])

    def close(self) -> None:
        """Give back what the tools were bound to."""
        self.env.close()

    def _turn(self, observation: Observation, ended: bool) -> Turn:
        messages = _wire(observation, observation.new)
        return self._ended(messages) if ended else Turn(messages, False, 0.0, {})

    def _ended(self, messages: Sequence[dict[str, Any]]) -> Turn:
        record = self.record
        assert record.outcome is not None
        reward = reward_of(self.env, record)
        if reward is None:
            why = record.outcome.error or record.outcome.stop_reason
            raise InfrastructureError(f"episode {record.task.id} could not be scored: {why}")
        parts = {name: score.value for name, score in record.outcome.rewards.items()}
        info = {"stop_reason": record.outcome.stop_reason, "answer": record.outcome.answer, "rewards": parts}
        return Turn([*messages], True, reward, info)


async def converse(session: Session, client: Any, model: str, **sampling: Any) -> Turn:
    """Play a whole episode with a chat endpoint, for trainers that record what passes through their own.

    Args:
        session: not begun.
        client: an `openai.AsyncOpenAI`.
        model: what it serves.
        **sampling: parameters of each request.

    Returns:
        The last turn.

    Raises:
        InfrastructureError: the episode could not be scored.
    """
    messages = session.begin()
    stops = session.env.dialect.stop
    sampling |= {"stop": list(stops)} if stops else {}
    while True:
        answer = await client.chat.completions.create(model=model, messages=messages, **sampling)
        [choice] = answer.choices
        text, cut = choice.message.content or "", choice.finish_reason == "length"
        messages += [{"role": "assistant", "content": text}]
        if stops and not cut:
            hit = getattr(choice, "stop_reason", None)
            text = restored(text, stops, hit if isinstance(hit, str) else None)
        turn = await session.astep(text, "length" if cut else "stop")
        if turn.done:
            return turn
        messages += turn.messages


def _wire(observation: Observation, first: int) -> list[dict[str, Any]]:
    new = replace(observation, messages=observation.messages[first:], tokens=())
    return wire_messages(new, native=False)
