"""Record and replay of tool calls: what the outside world answered, kept, so that a run can be repeated without it.

    with Cassette("runs/web.tape", "record") as tape:
        env.use_cassette(tape)          # or rollout(..., cassette="runs/web.tape", cassette_mode="record")

A recording is found by what was asked: tool, version, checked arguments, the content of the media that they name, and,
for a tool that has a state, what came before in the episode. It holds the whole result; pictures lie beside it, named
by their content. In a replay every episode is given exactly what it was given when it was recorded.
"""

from __future__ import annotations

from agentenv.cassette.keys import Asked
from agentenv.cassette.lint import Problem, lint
from agentenv.cassette.shelf import Recording, Shelf
from agentenv.cassette.tape import MODES, Cassette, CassetteMiss, Mode, open_cassette

__all__ = [
    "MODES",
    "Asked",
    "Cassette",
    "CassetteMiss",
    "Mode",
    "Problem",
    "Recording",
    "Shelf",
    "lint",
    "open_cassette",
]
