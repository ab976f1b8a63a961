"""Whether a value is what an annotation asks for, as far as annotations can be told apart at run time; and in words."""

from __future__ import annotations

import collections.abc
import inspect
import os
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from agentenv.errors import ConfigError, UnknownNameError

_WORDS = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    Path: "a path",
    types.NoneType: "none",
    collections.abc.Callable: "a function",
}
_MAPPINGS = (Mapping, dict)
_LISTS = (Sequence, Iterable, Collection, list, tuple, set, frozenset, collections.abc.Set)


def check_kinds(what: str, function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Refuse arguments that are not what a function's annotations ask for.

    Checked are plain types, literals, lists, mappings and classes, and what lies in lists and mappings; what an
    annotation means beyond that is the function's own affair.

    Raises:
        UnknownNameError: a word that is none of those that there are; the nearest is named.
        ConfigError: one of them is not; the message names it and says what would be right.
    """
    hints = _hints(function)
    for name, value in given.items():
        hint = hints.get(name, Any)
        if not fits(value, hint):
            words = _words(hint)
            if isinstance(value, str) and words:
                raise UnknownNameError(name, value, words)
            raise ConfigError(f"{what}: option {name} is {value!r:.80}; it wants {described(hint, name, value)}")


def paths_as_text(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, with a path as its text where a function takes texts and no paths."""
    hints = _hints(function)

    def plain(name: str, value: Any) -> Any:
        hint = hints.get(name, Any)
        text = os.fspath(value) if isinstance(value, os.PathLike) and not fits(value, hint) else None
        return value if text is None or not fits(text, hint) else text

    return {name: plain(name, value) for name, value in given.items()}


@lru_cache(maxsize=256)
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations that can be read; a name that only type checkers import cannot."""
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        one = types.SimpleNamespace(__annotations__={name: parameter.annotation})
        try:
            found.update(get_type_hints(one, scope, include_extras=True))
        except Exception:  # whatever stands there: it is code
            found[name] = Any
    return {name: Any if hint is inspect.Parameter.empty else hint for name, hint in found.items()}


def _words(hint: Any) -> list[str]:
    """The words of a literal, optional or not."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return [word for one in inner for word in _words(one)]
    return [one for one in inner if isinstance(one, str)] if origin is Literal else []


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type; True where that cannot be told.

    A whole number is a number too, a truth value is none, and a text is no list.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Annotated:
        return fits(value, inner[0])
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    kind = origin or hint
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if kind in _LISTS:
        return _is_list(value, kind) and all(fits(one, inner[0]) for one in _open(value) if inner)
    if kind in _MAPPINGS:
        return isinstance(value, Mapping) and all(_pair_fits(pair, inner) for pair in value.items() if inner)
    return _is_a(value, kind)


def _is_list(value: Any, kind: Any) -> bool:
    if isinstance(value, (str, bytes, Mapping)):
        return kind is Iterable and isinstance(value, str)  # who takes any iterable of texts takes one text for a list
    return isinstance(value, Iterable)


def _open(value: Any) -> Iterable[Any]:
    """The items of what can be looked into twice."""
    return value if isinstance(value, Collection) and not isinstance(value, str) else ()


def _pair_fits(pair: tuple[Any, Any], inner: tuple[Any, ...]) -> bool:
    return all(fits(one, hint) for one, hint in zip(pair, inner, strict=True))


def _is_a(value: Any, kind: Any) -> bool:
    if kind is Path:
        return isinstance(value, os.PathLike)
    if kind is None:
        return value is None
    try:
        return isinstance(value, kind)
    except TypeError:  # no class, or a protocol that cannot be checked
        return True


def described(hint: Any, name: str = "", value: Any = None) -> str:
    """A type in words, for a person who gave something else."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(described(one, name, value) for one in inner))
    if origin is Annotated:
        return described(inner[0], name, value)
    if origin is Literal:
        return " or ".join(repr(one) for one in inner)
    kind = origin or hint
    if kind in _MAPPINGS:
        return f"keys with values, for instance {name}.KEY=VALUE" if isinstance(value, str) else "keys with values"
    if kind in _LISTS:
        of = f" of {described(inner[0]).removeprefix('a ')}s" if inner and inner[0] in (str, int, float) else ""
        return f"a list{of}" + (f', for instance {name}=["{value}"]' if isinstance(value, str) else "")
    return _WORDS.get(kind) or f"a {getattr(kind, '__name__', str(kind))}"
