"""Policies: whatever takes an action. `make_policy` makes one from a line of text, as the command line takes it.

Nothing here is imported before it is used: naming the reference policy costs neither aiohttp nor torch.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agentenv.errors import UnknownNameError, UsageError
from agentenv.policy.base import Policy

if TYPE_CHECKING:
    from agentenv.policy.human import HumanPolicy, PersonLeftError
    from agentenv.policy.openai import OpenAIPolicy
    from agentenv.policy.random_policy import RandomPolicy
    from agentenv.policy.reference import ReferencePolicy
    from agentenv.policy.replay import ReplayPolicy
    from agentenv.policy.scripted import Player, ScriptedPolicy
    from agentenv.policy.sglang import SGLangPolicy
    from agentenv.policy.transformers import TransformersPolicy
    from agentenv.policy.vllm import VLLMPolicy
    from agentenv.policy.vllm_engine import VLLMEnginePolicy

__all__ = [
    "HumanPolicy",
    "OpenAIPolicy",
    "PersonLeftError",
    "Policy",
    "RandomPolicy",
    "ReferencePolicy",
    "ReplayPolicy",
    "SGLangPolicy",
    "ScriptedPolicy",
    "TransformersPolicy",
    "VLLMEnginePolicy",
    "VLLMPolicy",
    "make_policy",
    "policy_names",
]

_HOME = {
    "HumanPolicy": "human",
    "PersonLeftError": "human",
    "OpenAIPolicy": "openai",
    "RandomPolicy": "random_policy",
    "ReferencePolicy": "reference",
    "ReplayPolicy": "replay",
    "ScriptedPolicy": "scripted",
    "SGLangPolicy": "sglang",
    "TransformersPolicy": "transformers",
    "VLLMEnginePolicy": "vllm_engine",
    "VLLMPolicy": "vllm",
}

_MAKERS: dict[str, tuple[str, str, str]] = {
    "human": ("human", "HumanPolicy", ""),
    "openai": ("openai", "OpenAIPolicy", "MODEL"),
    "random": ("random_policy", "RandomPolicy", ""),
    "reference": ("reference", "ReferencePolicy", ""),
    "replay": ("replay", "ReplayPolicy.load", "RUN_FOLDER"),
    "scripted": ("scripted", "ScriptedPolicy.load", "FILE.json"),
    "sglang": ("sglang", "SGLangPolicy", "MODEL"),
    "transformers": ("transformers", "TransformersPolicy", "PATH"),
    "vllm": ("vllm", "VLLMPolicy", "MODEL"),
    "vllm_engine": ("vllm_engine", "VLLMEnginePolicy", "PATH"),
    "weak": ("reference", "ReferencePolicy.weak", ""),
}
"""Name -> module, maker, and what follows the colon."""


def policy_names() -> tuple[str, ...]:
    """What `make_policy` knows, each with what follows its colon, for instance "openai:MODEL"."""
    return tuple(f"{name}:{rest}" if rest else name for name, (_, _, rest) in sorted(_MAKERS.items()))


def make_policy(spec: str | Policy | Player, **options: Any) -> Policy:
    """Make a policy.

    Args:
        spec: a policy, which is returned as it is; a function, sync or async, that takes the observation and returns a
            turn (text or an `Action`); or one of "reference", "weak", "random", "human", "scripted:FILE.json",
            "replay:RUN_FOLDER" (or a file of records), "openai:MODEL", "transformers:PATH", "vllm:MODEL" and
            "sglang:MODEL" (servers, by token ids) and "vllm_engine:PATH" (vLLM in this process).
        **options: keyword arguments of the policy's class.

    Returns:
        The policy. Close it after the last episode.

    Raises:
        UnknownNameError: no such policy, or it has no such option.
        UsageError: what must follow the colon is missing, options came with a finished policy or a function, or `spec`
            is something else.
        ConfigError: an option's value is wrong.
    """
    if isinstance(spec, Policy):
        if options:
            raise UsageError(f"a finished policy takes no options; got {', '.join(sorted(options))}")
        return spec
    if not isinstance(spec, str):
        return _from_function(spec, options)
    name, _, rest = spec.partition(":")
    if name not in _MAKERS:
        raise UnknownNameError("policy", name, _MAKERS)
    module, maker, wanted = _MAKERS[name]
    if wanted and not rest:
        raise UsageError(f"policy {spec!r}: write {name}:{wanted}")
    if rest and not wanted:
        raise UsageError(f"policy {name!r} takes nothing after it; got {spec!r}")
    make = _find(module, maker)
    known = (*inspect.signature(make).parameters, *getattr(make, "more_options", ()))
    for option in options:
        if option not in known:
            raise UnknownNameError(f"option of policy {name!r}:", option, known)
    made: Policy = make(rest, **options) if wanted else make(**options)
    return made


def _from_function(spec: Any, options: dict[str, Any]) -> Policy:
    if not callable(spec) or isinstance(spec, type):
        got = f"the class {spec.__name__}" if isinstance(spec, type) else type(spec).__name__
        raise UsageError(
            f"a policy is a name ({', '.join(policy_names())}), a Policy object, or a function that takes the "
            f"observation and returns text or an Action; got {got}"
        )
    if options:
        raise UsageError(f"a function takes no options; got {', '.join(sorted(options))}")
    from agentenv.policy.scripted import ScriptedPolicy

    player: Any = spec  # what it returns is seen when it plays
    return ScriptedPolicy(player, name=getattr(spec, "__name__", type(spec).__name__).strip("<>"))


def _find(module: str, path: str) -> Callable[..., Policy]:
    found: Any = importlib.import_module(f"agentenv.policy.{module}")
    for step in path.split("."):
        found = getattr(found, step)
    maker: Callable[..., Policy] = found
    return maker


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"agentenv.policy.{_HOME[name]}"), name)
