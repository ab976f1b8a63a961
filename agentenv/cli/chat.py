"""`agentenv chat`: a person talks to an agent that has tools."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from cyclopts import Parameter

from agentenv.cli import common
from agentenv.cli.common import Files, Flag, Options
from agentenv.errors import ToolError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentenv.cli.conversation import Conversation
    from agentenv.env import Env
    from agentenv.policy.base import Policy
    from agentenv.policy.human import LineReader
    from agentenv.tool import Tool
    from agentenv.trajectories.store import Store
    from agentenv.trajectory import ToolRun, Trajectory
    from agentenv.types import Action, Part, Task

HELP = """Ask something. Ctrl-C stops an answer.
  /tools   show the tools          /new    start a new conversation
  /help    show this               /quit   leave (as does the end of input)"""
_LINES, _WIDTH = 15, 200


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Attached:
    """A person's files.

    Args:
        table: a table for the tools to work on: CSV, TSV, Parquet, JSON, Excel or SQLite. Repeatable.
        image: a picture for the tools to work on, which the model is shown: JPEG, PNG, WebP, GIF, BMP or TIFF.
            Repeatable.
        video: a video, of which the model is shown a few frames. Repeatable.
        corpus: what the agent searches, and so what web_search and web_fetch work on: embedded (the offline corpus, by
            default), a JSONL or Parquet file of documents, or live:NAME, a search engine (brave, ddgs, serper, tavily,
            searxng, or live:searxng:URL).
    """

    table: Files = ()
    image: Files = ()
    video: Files = ()
    corpus: str | None = None


_NOTHING = Attached()


def chat(
    *,
    who: common.Player = common.NOBODY,
    tools: str | None = None,
    env: str | None = None,
    files: Attached = _NOTHING,
    system: str | None = None,
    dialect: str | None = None,
    ask: Flag = False,
    out: str | None = None,
    option: Options = [],  # noqa: B006
) -> None:
    """Talk to an agent that has tools, over your own files and questions.

    The model's text is shown as it comes, and each call with its result. With --out what happened is recorded as
    trajectories, one for each conversation, which `export` turns into training data; without it, nothing is kept.

    For example:

    ```
    agentenv chat --table sales.csv -p openai:MODEL --base-url http://127.0.0.1:8000/v1
    agentenv chat --tools image_zoom,web_search --image photo.jpg -p openai:MODEL --ask
    agentenv chat --corpus live:brave -p openai:MODEL --out runs/mine
    agentenv chat --env deepeyes --image photo.jpg -p openai:MODEL
    ```

    The keys of a model server and of search engines are read from environment variables: OPENAI_API_KEY,
    BRAVE_API_KEY, SERPER_API_KEY, TAVILY_API_KEY.

    Args:
        who: who answers.
        tools: names of tools, separated by commas (`agentenv list --tools` shows them), or module:attr of tools of
            yours. By default those that fit what is given: SQL and look-ups for a table, image_zoom for a picture,
            video_clip for a video, web_search and web_fetch for a corpus.
        env: take the tools, the prompt and the limits of this environment instead.
        files: what the tools work on.
        system: the system prompt.
        dialect: how calls are written (native by default: function calling of the server's API or of the model's chat
            template; take hermes for a model whose template knows no tools).
        ask: ask before each call is run: yes, no, always, or edit its arguments.
        out: a run folder, to which the conversations are added; without it nothing is recorded.
        option: an option of the environment or, without --env, of the tools (frame, pictures, k, corpus_columns,
            turns), as key=value (TOML; a.b=1 nests). Repeatable.
    """
    if who.policy is None:
        raise UsageError("who answers? Give --policy, for instance: --policy openai:MODEL --base-url URL")
    if out is not None:
        common.usable_folder(Path(out))
    given = {"system": system, "dialect": dialect, "corpus": files.corpus}
    options = {name: value for name, value in given.items() if value is not None} | common.pairs(option)
    world, opening = _world(tools, env, files, options)
    try:
        terminal = ChatTerminal(ask)
        shown = {"on_delta": terminal.delta} if who.policy.startswith("openai:") else {}
        player = common.make_player(who.policy, who.options | shown)
        asyncio.run(_Repl(world, player, terminal, opening, out).run())
    finally:
        world.close()


def _world(tools: str | None, env: str | None, files: Attached, options: dict[str, Any]) -> tuple[Env, Task]:
    """The environment of the conversation, and what it opens with."""
    from agentenv.cli.conversation import over_own_questions
    from agentenv.cli.toolbox import attached, missing_file

    if tools is not None and env is not None:
        raise UsageError("give --tools or --env, not both: an environment brings its own tools")
    opening = attached(files.table, files.image, files.video)
    world = over_own_questions(common.make_env(env, options)) if env is not None else _agent(tools, files, options)
    missing = missing_file(world.rules.tools.values(), opening)
    if missing:
        world.close()
        raise UsageError(missing)
    return world, opening


def _agent(tools: str | None, files: Attached, options: dict[str, Any]) -> Env:
    from agentenv.cli.toolbox import DEFAULTS

    if tools is None:
        chosen = [name for kind, names in DEFAULTS.items() if getattr(files, kind) for name in names]
    else:
        chosen = [name for name in map(str.strip, tools.split(",")) if name]
    if any(":" in name for name in chosen):
        common.see_working_directory()
    return common.make_env("agentenv.cli.conversation:agent", {"tools": chosen, **options})


class ChatTerminal:
    """Shows a conversation on stdout, and asks before calls if told to."""

    def __init__(self, ask: bool) -> None:
        from agentenv.cli.pictures import Gallery
        from agentenv.policy.human import LineReader

        self.read: LineReader = LineReader(sys.stdin, sys.stdout)
        self._look = Gallery()
        self._ask = ask
        self._streamed = False

    def delta(self, text: str) -> None:
        """A piece of the model's text."""
        self._streamed = True
        sys.stdout.write(common.printable(text))
        sys.stdout.flush()

    def turn(self, action: Action) -> None:
        """The model has written a turn: end the line, or show what was not streamed."""
        if action.text and not self._streamed:
            common.say(action.text)
        elif self._streamed:
            common.say()
        self._streamed = False

    def call(self, name: str, arguments: Mapping[str, Any]) -> None:
        """A call is about to be run."""
        common.say(f"-> {name} {_as_json(arguments)}")

    def result(self, run: ToolRun, parts: Sequence[Part]) -> None:
        """A call came to this; long results are cut here, and only here."""
        from agentenv.policy.human import named, pictures

        lines = "\n".join(getattr(part, "text", "") or named(part) for part in parts).splitlines() or [""]
        shown = [line if len(line) <= _WIDTH else line[:_WIDTH] + " ..." for line in lines[:_LINES]]
        if len(lines) > _LINES:
            shown.append(f"... and {common.plural(len(lines) - _LINES, 'line')} more")
        kind = f" ({run.error_kind})" if run.error_kind else ""
        common.say(f"<- {run.name}{kind}\n" + "\n".join(f"   {line}" for line in shown))
        for seen in pictures(parts):
            self._look(seen)

    async def allow(self, tool: Tool, arguments: dict[str, Any]) -> dict[str, Any] | None:
        """Ask the person, if told to: yes, no, always or edit."""
        while self._ask:
            try:
                reply = (await self.read("   run it? [y]es, [n]o, [a]lways, [e]dit: ")).strip().lower()
            except EOFError:  # nobody is there any more to say yes
                return None
            if reply in ("n", "no"):
                return None
            if reply in ("a", "always"):
                self._ask = False
            elif reply in ("e", "edit"):
                return await self._edited(tool, arguments)
            elif reply not in ("y", "yes"):
                continue
            return arguments
        return arguments

    async def _edited(self, tool: Tool, arguments: dict[str, Any]) -> dict[str, Any] | None:
        while True:
            try:
                line = await self.read(f"   arguments as JSON (empty: as they are): {_as_json(arguments)}\n   ")
            except EOFError:
                return None
            if not line.strip():
                return arguments
            try:
                return tool.validate(msgspec.json.decode(line, type=dict))
            except (msgspec.DecodeError, ToolError) as error:
                common.say(f"   {error}")


def _as_json(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=repr).decode()


class _Repl:
    """Reads questions, has them answered, and keeps the record."""

    def __init__(self, env: Env, policy: Policy, terminal: ChatTerminal, opening: Task, out: str | None) -> None:
        self._env, self._policy, self._terminal, self._opening, self._out = env, policy, terminal, opening, out
        self._answering: asyncio.Task[Trajectory] | None = None

    async def run(self) -> None:
        """Until the person leaves."""
        from agentenv.cli.conversation import Conversation

        common.say(HELP if self._out is not None else f"{HELP}\nNothing is recorded; give --out FOLDER for that.")
        talk = Conversation(self._env, self._policy, self._terminal, self._opening)
        store = self._store()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupt)
        try:
            while (question := await self._question()) is not None:
                if question.startswith("/"):
                    self._command(question, talk)
                else:
                    await self._answer(talk, question, store)
        finally:
            await self._policy.close()
            if store is not None:
                store.close()
                common.say(f"recorded in {self._out}")

    def _store(self) -> Store | None:
        if self._out is None:
            return None
        from agentenv.trajectories.store import Manifest, Store

        return Store.create(self._out, Manifest.of(self._env.env_spec, self._policy.info), resume=True)

    def _interrupt(self) -> None:
        """Ctrl-C: stop the answer; where there is none, leave."""
        if self._answering is not None:
            self._answering.cancel()
        else:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.raise_signal(signal.SIGINT)

    async def _question(self) -> str | None:
        while True:
            try:
                line = (await self._terminal.read("\nyou> ")).strip()
            except EOFError:
                common.say()
                return None
            if line in ("/quit", "/exit"):
                return None
            if line:
                return line

    def _command(self, line: str, talk: Conversation) -> None:
        if line == "/tools":
            for tool in self._env.rules.specs:
                common.say(f"{tool.name}: {tool.description}")
        elif line == "/new":
            talk.forget()
            common.say("(a new conversation)")
        else:
            common.say(HELP)

    async def _answer(self, talk: Conversation, question: str, store: Store | None) -> None:
        self._answering = asyncio.ensure_future(talk.ask(question))
        try:
            record = await self._answering
        finally:
            self._answering = None
        outcome = record.outcome
        assert outcome is not None
        if outcome.stop_reason != "answer":
            common.say(f"(ended: {outcome.error.message if outcome.error else outcome.stop_reason})")
        if store is not None:
            store.write(record)
