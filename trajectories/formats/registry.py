"""The formats by name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from agentenv.errors import UnknownNameError
from agentenv.trajectories.formats.base import Format

MODULES = {
    "grpo-groups": "agentenv.trajectories.formats.grpo_groups",
    "jsonl": "agentenv.trajectories.formats.jsonl",
    "longvt": "agentenv.trajectories.formats.longvt",
    "qwen-messages": "agentenv.trajectories.formats.qwen_messages",
    "tokens": "agentenv.trajectories.formats.tokens",
    "trl-sft": "agentenv.trajectories.formats.trl_sft",
}
"""Module of each format; it holds it as `FORMAT`."""

ALIASES: dict[str, tuple[str, dict[str, Any]]] = {"openai-messages": ("trl-sft", {"arguments": "json"})}
"""Other names of formats, with the options that go with them."""


def find(name: str) -> tuple[Format, dict[str, Any]]:
    """A format, and the options that its name stands for.

    Raises:
        UnknownNameError: there is no such format.
    """
    real, options = ALIASES.get(name, (name, {}))
    if real not in MODULES:
        raise UnknownNameError("format", name, [*MODULES, *ALIASES])
    format: Format = import_module(MODULES[real]).FORMAT
    return format, options


def formats() -> list[Format]:
    """All formats, by name."""
    return [find(name)[0] for name in sorted(MODULES)]
