"""What a call asks for, as a key: equal keys may be given equal answers."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from agentenv.episode import Episode
from agentenv.media import EpisodeMedia
from agentenv.spec import canonical_hash
from agentenv.tool import Tool
from agentenv.types import ToolCall

FORMAT = 1
"""Raised whenever the same call gets another key."""

SECRET_NAME = re.compile(
    r"(?i)(^|[_-])(api|access|auth|secret|private|client|session)?[_-]?(key|token|secret|password|passwd|credentials?)$"
    r"|^authorization$|^cookie$|bearer"
)

_DATA = (str, int, float, bool, list, tuple, dict, Struct)
_SHORTEST_SECRET = 8  # a shorter one is a stand-in, and taking it out would garble the text


class Asked(Struct, frozen=True):
    """A call as a cassette knows it.

    Args:
        key: SHA-256 in hex of all that decides the answer.
        tool: its name.
        version: its version.
        arguments: the checked arguments as JSON, without secrets and with the content of media beside their handles.
        who: the episode that asks, as a hash: environment, task, attempt and seed.
        occurrence: how many equal calls the episode made before.
        stateful: the answer depends on what the episode did before.
    """

    key: str
    tool: str
    version: str
    arguments: str
    who: str = ""
    occurrence: int = 0
    stateful: bool = False


def asked(tool: Tool, call: ToolCall, bound: Mapping[str, Any], episode: Episode | None) -> Asked:
    """What a call asks for.

    The state of what a tool is bound to: media by content; plain data by its value; an object with a `cassette_key` by
    that string; any other by the task, and for a tool that is not deterministic by the calls of the earlier turns, too.

    Raises:
        ToolError: the arguments are not valid.
    """
    arguments = plain(tool.validate(call.arguments))
    media = bound.get("media") if "media" in tool.bound else None
    state: list[Any] = []
    if isinstance(media, EpisodeMedia):
        arguments, named = _with_content(arguments, media)
        if not named:  # by number, or by a handle that is fixed in the tool
            state.append([[part.handle, part.sha256] for part in (media.find(handle) for handle in media.handles)])
    stateful = False
    for name in tool.bound:
        resource = bound.get(name)
        if resource is media and media is not None:
            continue
        declared = plain(resource) if isinstance(resource, _DATA) else getattr(resource, "cassette_key", None)
        if declared is None and resource is not None and episode is not None:
            state.append(_task_key(episode))
            stateful = stateful or not tool.deterministic
        else:
            state.append(declared)
    if stateful and episode is not None:
        state.append(list(_earlier(episode)))
    written = msgspec.json.encode(arguments, order="sorted").decode()
    key = canonical_hash([FORMAT, tool.name, tool.version, written, state])
    who, occurrence = ("", 0) if episode is None else (_who(episode), _occurrence(episode, call))
    return Asked(key, tool.name, tool.version, written, who, occurrence, stateful)


def plain(value: Any) -> Any:
    """A value as plain data: whole floats as integers, secrets left out, what is no data as its repr."""
    return _normal(msgspec.to_builtins(value, enc_hook=_encoded, str_keys=True))


def environment_secrets() -> list[str]:
    """Values of environment variables whose names say that they are secret."""
    named = [value.strip() for name, value in os.environ.items() if SECRET_NAME.search(name)]
    return [value for value in named if len(value) >= _SHORTEST_SECRET]


def _encoded(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if dump is not None else repr(value)


def _normal(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _normal(item) for key, item in value.items() if not SECRET_NAME.search(key)}
    if isinstance(value, (list, tuple)):
        return [_normal(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def _with_content(value: Any, media: EpisodeMedia) -> tuple[Any, bool]:
    """The arguments with the content of each handle beside it, and whether there was one."""
    if isinstance(value, dict):
        items = {key: _with_content(item, media) for key, item in value.items()}
        return {key: item for key, (item, _) in items.items()}, any(named for _, named in items.values())
    if isinstance(value, list):
        pairs = [_with_content(item, media) for item in value]
        return [item for item, _ in pairs], any(named for _, named in pairs)
    if isinstance(value, str) and (handle := media.aliases.get(value.strip(), value.strip())) in media.handles:
        return f"{handle}@{media.find(handle).sha256}", True
    return value, False


def _task_key(episode: Episode) -> str:
    task = episode.task
    return canonical_hash([task.id, task.seed, task.prompt, [table.sha256 for table in task.tables]])


def _who(episode: Episode) -> str:
    record = episode.trajectory
    text = f"{record.env.id}\0{record.task.id}\0{record.group.index}\0{record.seed}"
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _earlier(episode: Episode) -> Iterator[tuple[str, Any]]:
    """Name and arguments of the calls of earlier turns, in order."""
    nodes = episode.trajectory.nodes
    for run in episode.trajectory.tool_runs:
        for call in nodes[run.call_node].message.calls:
            if call.id == run.call_id:
                yield call.name, _normal(call.arguments)


def _occurrence(episode: Episode, call: ToolCall) -> int:
    """How many calls before this one had its name and arguments, those of the same turn included."""
    same = (call.name, _normal(call.arguments))
    count = sum(earlier == same for earlier in _earlier(episode))
    for other in episode.messages[-1].calls:
        if other is call or other.id == call.id:
            break
        count += (other.name, _normal(other.arguments)) == same
    return count
