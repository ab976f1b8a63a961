"""`agentenv cassette`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from agentenv.cli import common
from agentenv.cli.common import Flag

if TYPE_CHECKING:
    from agentenv.cassette import Recording

_SHOWN = 20


def cassette(path: str, /, *, tool: str = "", limit: int = _SHOWN, lint: Flag = False, json: Flag = False) -> int:
    """Look at recorded tool results: what was asked of which tool, when, and what came of it.

    For example:

    ```
    agentenv cassette runs/web.tape
    agentenv cassette runs/web.tape --tool web_search --limit 5
    agentenv cassette runs/web.tape --lint
    ```

    Args:
        path: the folder that was given to `agentenv rollout --cassette`.
        tool: only the recordings of this tool.
        limit: how many of the last recordings are shown.
        lint: read every recording instead, and say which are damaged, lack their pictures, or hold what looks like a
            secret; exits with 1 where there is one.
        json: print JSON.
    """
    return _lint(path, json) if lint else _list(path, tool, limit, json)


def _list(path: str, tool: str, limit: int, json: bool) -> int:
    from collections import Counter, deque

    from agentenv.cassette import Shelf

    common.at_least(1, **{"--limit": limit})
    shelf = Shelf(path, write=False)
    counts: Counter[str] = Counter()
    last: deque[Recording] = deque(maxlen=limit)
    for recording in shelf.all(tool):
        counts[recording.tool] += 1
        last.append(recording)
    shelf.close()
    if json:
        common.print_json({"recordings": dict(counts), "last": [_plain(recording) for recording in last]})
        return 0
    shown = common.table("id", "tool", "arguments", "recorded", "came to", right=("id",))
    for recording in last:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(recording.at))
        cells = (recording.tool, recording.arguments[:120], when, recording.error or _size(recording))
        shown.add_row(str(recording.id), *(common.printable(cell) for cell in cells))
    common.console().print(shown if last else "nothing is recorded")
    total = ", ".join(f"{name} {count:,}" for name, count in counts.most_common())
    common.say(f"{common.plural(sum(counts.values()), 'recording')}{': ' + total if total else ''}")
    return 0


def _size(recording: Recording) -> str:
    from agentenv.errors import StoreError

    try:
        parts = recording.result.parts
    except StoreError:
        return "damaged"
    characters = sum(len(getattr(part, "text", "")) for part in parts)
    pictures = sum(hasattr(part, "sha256") for part in parts)
    return f"{characters:,} characters" + (f", {common.plural(pictures, 'picture')}" if pictures else "")


def _plain(recording: Recording) -> dict[str, Any]:
    names = ("id", "tool", "version", "arguments", "at", "error")
    return {name: getattr(recording, name) for name in names} | {"came_to": _size(recording)}


def _lint(path: str, json: bool) -> int:
    import msgspec

    from agentenv.cassette import lint

    problems = list(lint(path))
    if json:
        common.print_json([msgspec.structs.asdict(problem) for problem in problems])
    else:
        for problem in problems:
            common.say(f"recording {problem.id} ({problem.tool}): {problem.what}")
        common.say(f"{common.plural(len(problems), 'problem')} found" if problems else "no problem found")
    return 1 if problems else 0
