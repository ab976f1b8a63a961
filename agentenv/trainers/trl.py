"""TRL's GRPOTrainer over any environment: the data set, the environment class, the rewards and the loop's settings.

    spec = TRLSpec("table", tasks=200, difficulty=2, out="runs/trl")
    trainer = GRPOTrainer(
        model=model, args=GRPOConfig(**spec.config(), output_dir="out"), **spec.trainer_arguments()
    )

Two ways in. `trainer_arguments()` leaves the loop to TRL: it samples, reads function calls with the model's own
template and runs them as methods of an environment object, one rollout after the other; pictures that tools return
reach the model. `trainer_arguments(rollouts=...)` leaves the whole rollout to agentenv
(`agentenv.trainers.trl_rollouts`): any dialect, tools of all rollouts at once, text only, since TRL takes no pictures
from there.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from agentenv.env import Env
from agentenv.errors import ConfigError, MissingExtraError
from agentenv.rollout import score_group
from agentenv.trainers.common import Records, chosen, has_media, in_dialect, opening, require, world
from agentenv.trainers.trl_world import TRLWorld, world_class
from agentenv.trajectory import PolicyInfo, Trajectory
from agentenv.types import Image, Task, Video

if TYPE_CHECKING:
    import datasets

TESTED = ("1.16.0", "1.17.0")
"""The versions of TRL that this adapter was run with: the lowest, and the first that is too new."""


class TRLSpec:
    """What TRL needs to train on an environment.

    Args:
        env: an environment, or its name with its options.
        tasks: how many of its tasks to train on, or which; all of a set that has an end by default.
        out: a run folder that keeps every rollout as a record; None keeps none.
        resume: go on in an existing run folder.
        native: play in the dialect "native", which TRL's own loop needs; False keeps the environment's own dialect, for
            `agentenv.trainers.trl_rollouts`.
        answer_tag: the tag around the final answer in the native dialect; "" takes the text of a turn without calls.
        check_version: refuse versions of TRL that were not tested.
        **options: of the environment.

    Attributes:
        env: the environment, in the dialect that is played.
        tasks: the tasks, by id.
        environment_factory: the class whose methods are the environment's tools.
        reward_funcs: one function: the rubric's total. Its components go to TRL's metrics.

    Raises:
        UsageError: the tasks are endless and no number was given.
        ConfigError: TRL is of a version that was not tested, or its loop cannot read the calls that the environment's
            own prompts teach.
        MissingExtraError: TRL is not installed.
    """

    def __init__(
        self,
        env: str | Env,
        *,
        tasks: int | Iterable[Task] | None = None,
        out: str | PathLike[str] | None = None,
        resume: bool = False,
        native: bool = True,
        answer_tag: str = "",
        check_version: bool = True,
        **options: Any,
    ) -> None:
        if check_version:
            require("trl", TESTED, "trl")
        made = world(env, options)
        self.env = _native(made, answer_tag) if native else made
        self.native = native
        self.tasks = {task.id: task for task in chosen(self.env, tasks)}
        self.info = PolicyInfo("trl", settings={"loop": "environment_factory" if native else "rollout_func"})
        settings = {"trainer": "trl", "tasks": len(self.tasks)}
        self._records = Records(out, resume, self.env.env_spec, self.info, settings)
        self.environment_factory = world_class(self.env, self.tasks, self.info, tools=native)
        self.reward_funcs = [self._reward_function()]

    @property
    def train_dataset(self) -> datasets.Dataset:
        """One row a task: `prompt` (messages) and `task` (its id), by which the environment knows what to play.

        A prompt of text stands in the row to the letter. The last message of a prompt with pictures is empty there: it
        comes from the environment when the rollout begins, and nothing but ids lies on disk.
        """
        try:
            import datasets
        except ImportError:
            raise MissingExtraError("datasets", "data", "a data set for TRL") from None
        return datasets.Dataset.from_list([self.row(task) for task in self.tasks.values()])

    @property
    def _pictured(self) -> bool:
        return any(isinstance(part, (Image, Video)) for task in self.tasks.values() for part in task.prompt)

    def row(self, task: Task) -> dict[str, Any]:
        """A task as a row of the data set."""
        messages = opening(self.env, task).messages
        last = "" if has_media(messages[-1:]) else messages[-1].text
        prompt = [{"role": message.role, "content": message.text} for message in messages[:-1]]
        return {"prompt": [*prompt, {"role": messages[-1].role, "content": last}], "task": task.id}

    def config(self, **changes: Any) -> dict[str, Any]:
        """Arguments of `GRPOConfig` that the loop needs; the rest is yours.

        TRL's own defaults would cut an episode: 512 tokens for all turns and tool results together, and no end to the
        turns. `max_completion_length` here is the environment's limit on tokens, or 8,192 where it has none.

        Args:
            **changes: arguments that replace these, or are added.
        """
        limits = self.env.rules.limits
        settings: dict[str, Any] = {"max_completion_length": limits.tokens or 8192, "remove_unused_columns": False}
        if self.native and limits.turns is not None:
            settings["max_tool_calling_iterations"] = max(1, limits.turns - 1)
        if self._pictured:
            # Without it a batch in which no tool returned a picture breaks where the processor is Pillow's, not
            # torchvision's: its grids are lists, and the loop wants tensors.
            settings["chat_template_kwargs"] = {"processor_kwargs": {"images_kwargs": {"return_tensors": "pt"}}}
        return {**settings, **changes}

    def trainer_arguments(self, rollouts: Any = None) -> dict[str, Any]:
        """Arguments of `GRPOTrainer`: data set, environments, rewards and, where given, the rollout function.

        Args:
            rollouts: an `agentenv.trainers.trl_rollouts.Rollouts`, of a spec with `native=False`.

        Raises:
            ConfigError: the spec and the rollout function do not go together.
        """
        if (rollouts is None) != self.native:
            raise ConfigError(
                "TRL's own loop needs the native dialect (TRLSpec(native=True)), and a rollout function of agentenv's"
                " plays the environment's own (native=False)"
            )
        arguments = {
            "train_dataset": self.train_dataset,
            "environment_factory": self.environment_factory,
            "reward_funcs": list(self.reward_funcs),
        }
        return arguments if rollouts is None else {**arguments, "rollout_func": rollouts}

    def close(self) -> None:
        """Make the run folder durable and unlock it. The next reward opens it again."""
        self._records.close()

    # -- rewards ------------------------------------------------------------------------------------------------------

    def _reward_function(self) -> Any:
        async def reward(
            completions: Sequence[Any], environments: Sequence[TRLWorld], **columns: Any
        ) -> list[float | None]:
            return await self._settle(completions, environments, columns)

        reward.__name__ = f"{self.env.env_spec.id}_reward".replace("-", "_")
        return reward

    async def _settle(
        self, completions: Sequence[Any], environments: Sequence[TRLWorld], columns: Mapping[str, Any]
    ) -> list[float | None]:
        """End the episodes of a batch, score them, and keep their records."""
        ended = await asyncio.gather(*(e._settle(c) for e, c in zip(environments, completions, strict=True)))
        records = self._grouped(ended, getattr(columns.get("trainer_state"), "global_step", 0))
        self._log(records, columns.get("log_metric"), columns.get("log_extra"))
        return [record.reward for record in records]

    def _grouped(self, records: Sequence[Trajectory], step: int) -> list[Trajectory]:
        """The records as groups of this step, kept, with rewards that depend on the group."""
        members: dict[str, list[Trajectory]] = defaultdict(list)
        for record in records:
            members[record.task.id].append(record)
        for task_id, group in members.items():
            self._records.number(group, step)
            score_group(self.env, self.tasks[task_id], group)
        self._records.write(records)
        return list(records)

    @staticmethod
    def _log(records: Sequence[Trajectory], log_metric: Any, log_extra: Any) -> None:
        values: dict[str, list[float]] = defaultdict(list)
        for record in records:
            assert record.outcome is not None
            for name, score in record.outcome.rewards.items():
                if score.value is not None:
                    values[f"agentenv/{name}"].append(score.value)
            values["agentenv/turns"].append(float(len(record.calls)))
            values["agentenv/unscored"].append(float(record.reward is None))
        if log_metric is not None:
            for name, found in values.items():
                log_metric(name, sum(found) / len(found))
        if log_extra is not None:
            log_extra("stop_reason", [record.stop_reason for record in records])


def _native(env: Env, answer_tag: str) -> Env:
    """The environment in the dialect of TRL's own loop.

    Raises:
        ConfigError: its prompts teach tags that no template's parser reads, so that the first turn would be the last.
    """
    spec = env.env_spec
    if spec.dialect not in ("native", "hermes") and spec.dialect_options.get("block") == "":
        raise ConfigError(
            f"the prompts of {spec.id!r} teach calls in a form of their own (dialect {spec.dialect!r}), and TRL's own"
            " loop reads only function calls as the model's template writes them. Give native=False and a Rollouts,"
            " which takes text only; with pictures, train it in verl, OpenRLHF, SkyRL or ms-swift"
        )
    return in_dialect(env, "native", answer_tag=answer_tag)
