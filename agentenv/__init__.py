"""Multi-turn, multimodal tool-use environments for language models, in the shape of Gymnasium.

The public names are loaded on first use: `import agentenv` costs little more than `import gymnasium`, with which it
registers its environments.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentenv.cassette import Cassette
    from agentenv.check import check_env, check_tool
    from agentenv.env import Env
    from agentenv.errors import AgentEnvError, ToolError, UsageError
    from agentenv.policy import make_policy
    from agentenv.policy.base import Policy
    from agentenv.registry import Registration, make, register, registrations
    from agentenv.reward import Component, Rubric
    from agentenv.rollout import arollout, play, play_group, rollout
    from agentenv.snapshot import Snapshot
    from agentenv.spec import EnvSpec, Limits, Texts
    from agentenv.task import TaskSet
    from agentenv.tool import Bound, Tool, tool
    from agentenv.trajectories import load
    from agentenv.trajectory import Trajectory
    from agentenv.types import (
        Action,
        Image,
        Message,
        Observation,
        StopReason,
        Table,
        Task,
        Text,
        ToolCall,
        ToolResult,
        ToolSpec,
        Video,
    )

__version__ = "0.1.0"

_HOME = {
    "cassette": ("Cassette",),
    "check": ("check_env", "check_tool"),
    "env": ("Env",),
    "errors": ("AgentEnvError", "ToolError", "UsageError"),
    "policy": ("make_policy",),
    "policy.base": ("Policy",),
    "registry": ("Registration", "make", "register", "registrations"),
    "reward": ("Component", "Rubric"),
    "rollout": ("arollout", "play", "play_group", "rollout"),
    "snapshot": ("Snapshot",),
    "spec": ("EnvSpec", "Limits", "Texts"),
    "task": ("TaskSet",),
    "tool": ("Bound", "Tool", "tool"),
    "trajectories": ("load",),
    "trajectory": ("Trajectory",),
    "types": (
        "Action", "Image", "Message", "Observation", "StopReason", "Table", "Task", "Text", "ToolCall", "ToolResult",
        "ToolSpec", "Video",
    ),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Action",
    "AgentEnvError",
    "Bound",
    "Cassette",
    "Component",
    "Env",
    "EnvSpec",
    "Image",
    "Limits",
    "Message",
    "Observation",
    "Policy",
    "Registration",
    "Rubric",
    "Snapshot",
    "StopReason",
    "Table",
    "Task",
    "TaskSet",
    "Text",
    "Texts",
    "Tool",
    "ToolCall",
    "ToolError",
    "ToolResult",
    "ToolSpec",
    "Trajectory",
    "UsageError",
    "Video",
    "__version__",
    "arollout",
    "check_env",
    "check_tool",
    "load",
    "make",
    "make_policy",
    "play",
    "play_group",
    "register",
    "registrations",
    "rollout",
    "tool",
]


class _Package(ModuleType):
    """Keeps `agentenv.tool` and `agentenv.rollout` functions, though there are modules of that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in _MODULE_OF):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'agentenv' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"agentenv.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register() -> None:
    from agentenv._gymnasium import register_all
    from agentenv.registry import BUILT_IN

    register_all(BUILT_IN)


_register()
