"""Names of environments: "table" -> "module:attr". Registering imports nothing; making imports one module.

Packages register their environments through the entry-point group `agentenv.envs` (name -> "module:attr"), whose
objects are functions that return an `Env`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from os import PathLike
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, field

from agentenv._kinds import check_kinds, paths_as_text
from agentenv.errors import ConfigError, UnknownNameError, UsageError, did_you_mean

if TYPE_CHECKING:
    from agentenv.cassette import Cassette
    from agentenv.env import Env
    from agentenv.rules import TokenCount


class Registration(Struct, frozen=True):
    """A name under which an environment can be made.

    Args:
        id: the name.
        entry_point: "module:attr" of a function that returns an `Env`.
        description: one line for listings.
        kwargs: arguments that the name stands for; those of `make` override them.
        preset: True where it plays a published system.
        extra: the extra that brings what it needs; "" where the core suffices.
    """

    id: str
    entry_point: str
    description: str = ""
    kwargs: dict[str, Any] = field(default_factory=dict)
    preset: bool = False
    extra: str = ""


_ENVIRONMENTS = (
    ("table", "Questions over one or more tables, answered with SQL, Python or look-ups", "table"),
    ("zoom", "Small things in large pictures, found by zooming", "image"),
    ("jigsaw", "Pictures cut and shuffled, to be put in order (Jigsaw-R1)", "image"),
    ("video", "Short moments of long videos, found by looking at clips of them", "video"),
    ("search", "Questions that must be looked up, over an offline corpus of real facts", "search"),
    ("mm-search", "Emblems in pictures, found out by searching with a part of the picture, then by text", "search"),
    ("geo", "Where was this picture taken: signs to zoom to, an emblem to search with", "search"),
)
_PRESETS = (
    ("deepeyes", "DeepEyes: pixel boxes in hermes calls, a bonus for crops that led to the answer", "image"),
    (
        "deepmmsearch-r1",
        "DeepMMSearch-R1: search with what a phrase finds in a picture, then texts, summed up",
        "search",
    ),
    (
        "geovista",
        "GeoVista: zoom and web search, to tell where a picture was taken; 4/2/1 by city, state, country",
        "search",
    ),
    ("longvt", "LongVT: looks again at windows of a long video; accuracy, format and temporal IoU", "video"),
    ("mmsearch-r1", "MMSearch-R1: one search with the whole picture, two by text, in three rounds", "search"),
    ("mini-o3", "Mini-o3: relative boxes in <grounding>, crops of crops, over-turn masking", "image"),
    ("paravt", "ParaVT: windows of a long video, several at once, told in words by a second model", "video"),
    ("pixel-reasoner", "Pixel-Reasoner: relative boxes, curiosity over the group", "image"),
    ("qwen3vl-zoom", "Qwen3-VL with Qwen-Agent's zoom tool: boxes from 0 to 1000", "image"),
    ("search-r1", "Search-R1: <search> in a stream of text, exact match, a last round without search", "search"),
    ("tattoo", "TaTToo: verifies solutions of table questions step by step, with the table tools", "table"),
    ("thyme", "Thyme: Python code that crops and computes, run in a sandbox", "image"),
)
_BUILT_IN = (
    *(
        Registration(id, "agentenv.envs.{0}:{0}".format(id.replace("-", "_")), about, extra=extra)
        for id, about, extra in _ENVIRONMENTS
    ),
    *(
        Registration(id, "agentenv.envs.presets.{0}:{0}".format(id.replace("-", "_")), about, preset=True, extra=extra)
        for id, about, extra in _PRESETS
    ),
)
BUILT_IN = tuple(item.id for item in _BUILT_IN)
"""Names of the environments that come with agentenv."""
_registered: dict[str, Registration] = {item.id: item for item in _BUILT_IN}


def register(registration: Registration) -> None:
    """Make a name known to `make`.

    Raises:
        UsageError: the name stands for something else already, or the entry point is not of the form "module:attr".
    """
    from agentenv._gymnasium import register_all

    known = _registered.get(registration.id)
    if known is not None and known != registration:
        raise UsageError(f"the name {registration.id!r} is taken by {known.entry_point}")
    if ":" not in registration.entry_point:
        raise UsageError(f"entry point {registration.entry_point!r}: write module:attr")
    _registered[registration.id] = registration
    register_all([registration.id])


def registrations() -> dict[str, Registration]:
    """All known environments by name: built in, registered, and from installed packages."""
    return {**_from_packages(), **_registered}


@lru_cache(maxsize=1)
def _from_packages() -> dict[str, Registration]:
    from importlib.metadata import entry_points

    return {ep.name: Registration(ep.name, ep.value) for ep in entry_points(group="agentenv.envs")}


def make(
    id: str,
    /,
    *,
    cassette: str | PathLike[str] | Cassette | None = None,
    cassette_mode: str = "cache",
    count: TokenCount | str | Mapping[str, Any] | None = None,
    **options: Any,
) -> Env:
    """Make an environment by its name.

    Args:
        id: a registered name ("table", also "agentenv/table-v0"), or "module:attr" of any function that returns an
            `Env`.
        cassette: a folder in which tool results are recorded, or from which they come: see `agentenv.cassette`.
        cassette_mode: "record", "cache", "replay" or "verify".
        count: tokens of a message, for limits on tokens. A model's folder or name, or the settings of
            `agentenv.policy.rendering.load_counter` ({"model": ..., "chat_template": ...}), count exactly, media
            included, and stand in the record; so does `agentenv.tokens.counter(policy)`, which is no plain data. By
            default as the environment does, which mostly estimates. A function with an option of that name gets it.
        options: arguments of the environment's function; `agentenv info NAME` lists them.

    Raises:
        UnknownNameError: no such environment; the message names the nearest one.
        ConfigError: the environment has no such option.
        UsageError: the entry point does not exist, or makes something else.
        MissingExtraError: it needs an extra that is not installed.
    """
    if ":" in id:
        registration = Registration(id, id)
    else:
        known = registrations()
        name = id.removeprefix("agentenv/").removesuffix("-v0")
        if name not in known:
            raise UnknownNameError("environment", name, known)
        registration = known[name]
    factory = load_object(registration.entry_point)
    options = {**registration.kwargs, **options}
    if count is not None and callable(factory) and "count" in options_of(factory):
        options["count"], count = count, None
    _check_options(registration.id, factory, options)
    options = paths_as_text(factory, options)
    check_kinds(f"environment {registration.id!r}", factory, options)
    env = factory(**options)
    if not isinstance(env, _env_class()):
        raise UsageError(f"{registration.entry_point!r} made {type(env).__name__}, and an environment was wanted")
    if count is not None:
        env.rules.count = _token_count(count, env)
        options["count"] = count
    if cassette is not None:
        from agentenv.cassette import open_cassette

        env.use_cassette(open_cassette(cassette, cassette_mode))
    return env.made_by(registration.id, registration.entry_point, _plain(options))


def _token_count(count: TokenCount | str | Mapping[str, Any], env: Env) -> TokenCount:
    if callable(count):
        return count
    from agentenv.policy.rendering import load_counter

    settings = {"model": count} if isinstance(count, str) else dict(count)
    return load_counter(tools=env.rules.specs if env.dialect.name == "native" else (), **settings)


def _env_class() -> type[Env]:
    from agentenv.env import Env

    return Env


def load_object(path: str) -> Any:
    """The object at "module:attr".

    Raises:
        UsageError: there is no such module or attribute.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute or module_name.startswith("."):
        raise UsageError(f"entry point {path!r}: write module:attr")
    try:
        value: Any = importlib.import_module(module_name)
        for name in attribute.split("."):
            value = getattr(value, name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise UsageError(f"there is no module {module_name!r} (of the entry point {path!r})") from None
    except AttributeError:
        raise UsageError(f"module {module_name!r} has no {attribute!r} (of the entry point {path!r})") from None
    return value


def options_of(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The options that an environment's function takes, by name."""
    return inspect.signature(factory).parameters


def _check_options(id: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    if not callable(factory):
        raise UsageError(f"environment {id!r}: its entry point is {type(factory).__name__}, not a function")
    known = options_of(factory)
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return
    for name in options:
        if name not in known:
            raise ConfigError(f"environment {id!r} has no option {name!r}{did_you_mean(name, known)}")


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as JSON gives them back. What is not plain data stands as its repr and cannot be rebuilt."""
    plain = {}
    for name, value in options.items():
        try:
            plain[name] = msgspec.json.decode(msgspec.json.encode(value))
        except (TypeError, ValueError):
            plain[name] = repr(value)
    return plain


def make_for_gymnasium(env_id: str, **options: Any) -> Env:
    """What `gymnasium.make` calls for the names that it knows."""
    return make(env_id, **options)
