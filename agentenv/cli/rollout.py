"""`agentenv rollout`."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

from agentenv.cli import common, config
from agentenv.cli.common import Flag, Options
from agentenv.cli.config import RolloutConfig
from agentenv.errors import InfrastructureError, UsageError

if TYPE_CHECKING:
    from agentenv.cassette import Cassette
    from agentenv.env import Env
    from agentenv.policy.base import Policy
    from agentenv.progress import RolloutProgress, Tally


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is played: settings that a config file may hold as well. None means that the file or the default counts.

    Args:
        tasks: how many of the environment's tasks; all of them by default.
        group: attempts at each task (1 by default).
        concurrency: episodes at once (16 by default).
        seed: decides every episode's seed (0 by default).
        out: the run folder; runs/ENV-POLICY-TIME by default. Nothing is ever overwritten.
        attempts: tries of an episode that fails for infrastructure reasons (2 by default).
        give_up_after: so many such failures in a row end the run (100 by default).
        cassette: a folder with recorded tool results; see `agentenv cassette`.
        cassette_mode: record, cache (the default: ask only what is not recorded yet), replay or verify.
        cassette_max_age: of cache, seconds after which a recorded result is asked for anew (never by default).
    """

    tasks: int | None = None
    group: int | None = None
    concurrency: int | None = None
    seed: int | None = None
    out: str | None = None
    attempts: int | None = None
    give_up_after: int | None = None
    cassette: str | None = None
    cassette_mode: str | None = None
    cassette_max_age: float | None = None


_ALL = Plan()


def rollout(
    env: str | None = None,
    /,
    *,
    who: common.Player = common.NOBODY,
    plan: Plan = _ALL,
    option: Options = [],  # noqa: B006  (cyclopts never changes it)
    resume: Flag = False,
    config: Path | None = None,
    dry_run: Flag = False,
    videos: Flag = False,
    quiet: Flag = False,
    json: Flag = False,
) -> int:
    """Let a policy play an environment, and record every episode in a run folder.

    Ctrl-C ends the run cleanly: what is recorded stays, and the command that goes on is printed. A second Ctrl-C ends
    it at once. Exits with 1 where episodes failed for infrastructure reasons; `--resume` plays just those again.

    For example:

    ```
    agentenv rollout table --policy reference --tasks 50 --group 4 --out runs/expert
    agentenv rollout table --policy openai:Qwen/Qwen3-8B --base-url http://127.0.0.1:8000/v1 --concurrency 256
    agentenv rollout table -p weak -P skill=0.6 -o dialect=native --tasks 100
    agentenv rollout --config run.toml --seed 7        (flags win over the file)
    agentenv rollout --config runs/expert/config.toml --resume
    ```

    A config file is TOML with the keys env, policy, tasks, group, concurrency, seed, out, attempts, give_up_after,
    cassette, cassette_mode, cassette_max_age, and the tables [options] and [policy_options]. The key of a model server
    is read from the environment variable OPENAI_API_KEY, never from a file.

    Args:
        env: its name, or module:attr.
        who: who plays.
        plan: how much is played, and where it is recorded.
        option: an option of the environment, as key=value (TOML; a.b=1 nests). Repeatable.
        resume: go on with the run in `out`: play only what is missing or failed for infrastructure reasons.
        config: a TOML file with settings.
        dry_run: check everything, print the settings, and play nothing.
        videos: copy the video files that the episodes name into the run folder, so that the run can be exported as
            references to videos later; the frames that the policy saw are there in any case.
        quiet: show no progress.
        json: print JSON.
    """
    flags = {"env": env, "policy": who.policy, "options": common.pairs(option), "policy_options": who.options}
    chosen = settings(config, flags | asdict(plan))
    return start(chosen, resume=resume, dry_run=dry_run, quiet=quiet, json=json, videos=videos)


def settings(path: Path | None, flags: dict[str, Any]) -> RolloutConfig:
    """The effective settings; see `config.read`."""
    return config.read(path, flags)


def start(chosen: RolloutConfig, *, resume: bool, dry_run: bool, quiet: bool, json: bool, videos: bool = False) -> int:
    """Play as the settings say, and return the exit code."""
    _see_folder(chosen, resume)
    if chosen.cassette_max_age is not None and not (chosen.cassette and chosen.cassette_mode == "cache"):
        raise UsageError("--cassette-max-age is of a --cassette in the mode cache")
    world = common.make_env(chosen.env, chosen.options)
    try:
        player = common.make_player(chosen.policy, chosen.policy_options)
        if dry_run:
            return _plan(config.with_folder(chosen, make=False), world, resume, json)
        named = config.with_folder(chosen, make=True)
        try:
            with _tape(chosen) as tape:
                return _Session(named, world, player, resume, quiet, json, videos, tape).play()
        finally:
            if not chosen.out:
                with contextlib.suppress(OSError):  # it holds something, as it should
                    Path(named.out).rmdir()
    finally:
        world.close()


@contextlib.contextmanager
def _tape(chosen: RolloutConfig) -> Iterator[Cassette | None]:
    """The cassette that results come from, opened before anything is played."""
    from agentenv.cassette import Cassette

    if not chosen.cassette:
        yield None
        return
    with Cassette(chosen.cassette, chosen.cassette_mode, max_age=chosen.cassette_max_age) as tape:
        yield tape


def _see_folder(chosen: RolloutConfig, resume: bool) -> None:
    """Refuse a run folder that cannot be one before anything is made or played."""
    if resume and not chosen.out:
        raise UsageError("--resume goes on with a run: name its folder with --out, or give --config RUN/config.toml")
    out = Path(chosen.out or "runs")
    common.usable_folder(out)
    if resume and not (out / "store.json").exists():
        raise UsageError(f"there is no run at {out} to go on with; start it without --resume")
    if chosen.out and out.is_dir() and not (out / "store.json").exists():
        from agentenv.trajectories.manifest import refuse_foreign

        refuse_foreign(out)


def _no_tasks(world: Env) -> UsageError:
    return UsageError(f"the environment's set of tasks ({world.tasks.name}) is empty: there is nothing to play")


def _plan(chosen: RolloutConfig, world: Env, resume: bool, json: bool) -> int:
    """What would be played, without playing it. 2 where the run folder stands in the way."""
    public, _ = config.without_secrets(chosen)
    size = world.tasks.size
    tasks = chosen.tasks if size is None else size if chosen.tasks is None else min(size, chosen.tasks)
    if tasks == 0:
        common.note_skipped(world)
        raise _no_tasks(world)
    if tasks is None:
        raise UsageError("the environment's tasks are endless: say how many to play, for instance --tasks 100")
    episodes = tasks * chosen.group
    done = _done(Path(chosen.out), resume)
    if json:
        import msgspec

        plan = {"settings": msgspec.structs.asdict(public), "episodes": episodes, "done": done}
        common.print_json(plan | common.skipped(world))
    else:
        common.say(config.to_toml(public))
        common.note_skipped(world)
        common.say(f"# would play {common.plural(episodes - min(done, episodes), 'episode')}, {done} are there already")
    return 0


def _done(out: Path, resume: bool) -> int:
    from agentenv.trajectories.store import Store

    if not (out / "store.json").exists():
        return 0
    done = len(Store.open(out).done())
    if done and not resume:
        raise UsageError(f"{out} already holds a run; add --resume to go on with it, or choose another folder")
    return done


class _Session:
    """One start of a rollout."""

    def __init__(
        self, chosen: RolloutConfig, world: Env, player: Policy, resume: bool, quiet: bool, json: bool, videos: bool,
        tape: Cassette | None,
    ) -> None:  # fmt: skip
        from agentenv.progress import RolloutProgress

        self.chosen, self.world, self.player, self.resume, self.json = chosen, world, player, resume, json
        self.quiet, self.videos, self.tape = quiet, videos, tape
        self.public, self.left_out = config.without_secrets(chosen)
        title = f"{world.env_spec.id} / {player.info.model or player.info.name}"
        hidden = quiet or player.info.name == "human"  # who needs the terminal for themselves
        self.progress: RolloutProgress = RolloutProgress(title, quiet=hidden, on_start=self._save)

    def _save(self) -> None:
        (Path(self.chosen.out) / config.NAME).write_text(config.to_toml(self.public), encoding="utf-8")

    def play(self) -> int:
        """Play, and tell what came of it."""
        failure = ""
        interrupted = False
        try:
            with common.complaints(self.quiet):
                asyncio.run(self._play())
        except KeyboardInterrupt:
            interrupted = True
        except InfrastructureError as error:
            failure = str(error)
        if self.videos and (Path(self.chosen.out) / "store.json").exists():
            self._keep_videos()
        return self._tell(interrupted, failure)

    def _keep_videos(self) -> None:
        from agentenv.trajectories import load

        lost = load(self.chosen.out).save_videos()
        if lost:
            common.note(f"agentenv: {common.plural(len(lost), 'video file')} are nowhere to be found and were not kept")

    async def _play(self) -> None:
        from agentenv.rollout import arollout

        chosen = self.chosen
        try:
            await arollout(
                self.world, self.player,
                tasks=chosen.tasks, group=chosen.group, concurrency=chosen.concurrency, seed=chosen.seed,
                out=chosen.out, resume=self.resume, attempts=chosen.attempts, give_up_after=chosen.give_up_after,
                progress=self.progress, cassette=self.tape,
            )  # fmt: skip
        finally:
            await self.player.close()

    def _tell(self, interrupted: bool, failure: str) -> int:
        tally = self.progress.tally
        if tally.total == 0 and not interrupted:
            common.note_skipped(self.world)
            raise _no_tasks(self.world)
        again = self._again(interrupted or bool(failure) or bool(tally.failed))
        if self.json:
            facts = {"out": self.chosen.out, **tally.as_dict(), "seconds": self.progress.seconds}
            facts |= common.skipped(self.world)
            common.print_json({**facts, "interrupted": interrupted, "failure": failure or None, "resume": again})
        else:
            self._say(tally, interrupted, failure, again)
        return 130 if interrupted else 1 if failure or tally.failed else 0

    def _say(self, tally: Tally, interrupted: bool, failure: str, again: str | None) -> None:
        state = "interrupted" if interrupted else "given up" if failure else "done"
        total = f" of {tally.total:,}" if tally.total is not None else ""
        now = f" of the {tally.scored:,} played now" if tally.before else ""
        reward = f", mean reward {common.number(tally.mean_reward)}{now}" if tally.scored else ""
        common.say(f"{state}: {tally.done:,}{total} episodes in {self.chosen.out}{reward}")
        common.note_skipped(self.world)
        if failure:
            common.note(f"agentenv: {failure}")
        for error, count in tally.errors.most_common(3):
            common.note(f"{common.plural(count, 'episode')} unscored: {error[:500]}")
        if again:
            common.say(f"go on with:  {again}")
            if self.left_out:
                common.say(f"             (and give {', '.join(self.left_out)} again: a secret is never written down)")
        else:
            common.say(f"look at it:  agentenv stats {shlex.quote(self.chosen.out)}")

    def _again(self, needed: bool) -> str | None:
        """The command that goes on with the run."""
        path = Path(self.chosen.out) / config.NAME
        return f"agentenv rollout --config {shlex.quote(str(path))} --resume" if needed and path.exists() else None
