"""The command line, and the roof of the house: the one place that may reach into every room.

Each command lives in a module that is imported when the command is run, so that `agentenv --help` stays quick.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from cyclopts import App

OK, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130

_HELP = """Multi-turn tool-use environments for language models: run them, record them, train with them.

Start with:  agentenv demo
"""
_EPILOGUE = """Exit codes: 0 all is well; 1 what was run or checked failed; 2 wrong usage, or something
named that does not exist; 130 interrupted.

`agentenv COMMAND --help` tells about a command. `--debug` anywhere shows the traceback of an error."""

_COMMANDS = (
    ("list", "look:list_envs", "Show the environments, or the tools.", "Environments"),
    ("info", "look:info", "Tell about an environment: options, tools, limits, reward, a sample task.", "Environments"),
    ("check", "look:check", "Test an environment against the contract.", "Environments"),
    ("new", "new:app", "Write a new environment with its test.", "Environments"),
    ("play", "play:play", "Be the policy yourself, in the terminal.", "Playing"),
    ("chat", "chat:chat", "Talk to an agent that has tools, over your own files and questions.", "Playing"),
    ("rollout", "rollout:rollout", "Let a policy play an environment, and record every episode.", "Playing"),
    ("demo", "demo:demo", "Play, record, measure and export each kind of environment, in under a minute.", "Playing"),
    ("stats", "runs:stats", "Measure a recorded run.", "Recorded runs"),
    ("score", "runs:score", "Score a recorded run again, offline.", "Recorded runs"),
    ("export", "export:export", "Turn a recorded run into training data.", "Recorded runs"),
    ("formats", "export:formats", "Show the formats of export.", "Recorded runs"),
    ("cassette", "cassette:cassette", "Look at recorded tool results.", "Recorded runs"),
    ("train", "train:train", "Train a small model on recorded episodes, or by GRPO.", "Training"),
)


def build(command: str = "") -> App:
    """The application with all its commands, none of which is imported yet.

    Args:
        command: the one that is to be run. The others are known by one line, this one by its whole docstring.
    """
    from cyclopts import App, Group, Parameter

    from agentenv import __version__

    app = App(
        name="agentenv",
        help=_HELP,
        help_epilogue=_EPILOGUE,
        help_format="markdown",
        version=__version__,
        version_flags=["--version"],
        result_action="return_value",
        default_parameter=Parameter(show_default=False),
    )
    groups = {title: Group.create_ordered(title) for *_, title in _COMMANDS}
    for name, place, about, title in _COMMANDS:
        line = {} if name == command else {"help": about}
        app.command(f"agentenv.cli.{place}", name=name, group=groups[title], **line)
    app.register_install_completion_command(help="Install completion for bash, zsh or fish.", group="Shell")
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        argv: the arguments; those of the process by default.
    """
    tokens = list(sys.argv[1:] if argv is None else argv)
    debug = _take_flag(tokens, "--debug")
    try:
        code = _ended(build(tokens[0] if tokens else ""), tokens)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has left; without this Python complains once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if debug or not _ours(error):
            raise
        return _told(error)
    if code == INTERRUPTED:
        signal.signal(signal.SIGINT, _leave)
    return code


def _ended(app: App, tokens: list[str]) -> int:
    try:
        result = app(tokens)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else WRONG_USAGE if end.code else OK
    return result if isinstance(result, int) else OK


def _take_flag(tokens: list[str], flag: str) -> bool:
    end = tokens.index("--") if "--" in tokens else len(tokens)
    if flag not in tokens[:end]:
        return False
    tokens.remove(flag)
    return True


def _ours(error: Exception) -> bool:
    from agentenv.errors import AgentEnvError

    return isinstance(error, (AgentEnvError, OSError))


def _told(error: Exception) -> int:
    """Print an error of ours, or of the operating system, as one readable line, and return its exit code."""
    from agentenv.cli.common import printable
    from agentenv.errors import UsageError

    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    sys.stderr.write(f"agentenv: {printable(text)}\n")
    return WRONG_USAGE if isinstance(error, UsageError) else FAILED


def _leave(*_: Any) -> NoReturn:
    os._exit(INTERRUPTED)  # a tool's thread may still be at work, and nobody wants to wait for it a second time
