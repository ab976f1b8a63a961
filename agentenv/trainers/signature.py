"""JSON schemas as Python signatures, for trainers that read a tool's schema off a function.

What such a trainer makes of the function is the schema again, less what its reader does not know: defaults and bounds,
which therefore stand in the descriptions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union

from agentenv.types import ToolSpec

_PLAIN: dict[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool, "object": dict, "null": None}
_BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "pattern": "of the form {}",
}


def annotated(fn: Callable[..., Any], tool: ToolSpec) -> Callable[..., Any]:
    """A method `fn(self, **arguments)` given the name, signature, types and docstring (Google style) of a tool."""
    properties: Mapping[str, Any] = tool.parameters.get("properties", {})
    required = set(tool.parameters.get("required", ()))
    resolve = _Resolver(tool.parameters)
    types = {name: resolve.type(schema) for name, schema in properties.items()}
    # Required ones first, as Python wants it; the rest are optional, and what the model leaves out is never passed on.
    ordered = sorted(properties, key=lambda name: name not in required)
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    for name in ordered:
        default = inspect.Parameter.empty if name in required else None
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[name])
        )
    fn.__name__ = fn.__qualname__ = tool.name
    fn.__doc__ = _docstring(tool, ordered)
    fn.__annotations__ = {name: types[name] for name in ordered}
    fn.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # functions take any attribute
    return fn


class _Resolver:
    """Types of schemas, whose references stand in the `$defs` of the whole."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._defs: Mapping[str, Any] = schema.get("$defs", {})

    def type(self, schema: Mapping[str, Any]) -> Any:
        if "$ref" in schema:
            return self.type(self._defs[schema["$ref"].rpartition("/")[2]])
        if "enum" in schema:
            return Literal[tuple(schema["enum"])]
        if "const" in schema:
            return Literal[schema["const"]]
        options = schema.get("anyOf") or schema.get("oneOf")
        if options:
            return Union[tuple(self.type(option) for option in options)]
        kind = schema.get("type", "object")
        if isinstance(kind, list):
            return Union[tuple(self.type({**schema, "type": one}) for one in kind)]
        if kind == "array":
            return self._array(schema)
        return _PLAIN[kind]

    def _array(self, schema: Mapping[str, Any]) -> Any:
        if schema.get("prefixItems"):
            return tuple.__class_getitem__(tuple(self.type(item) for item in schema["prefixItems"]))
        return list.__class_getitem__(self.type(schema["items"])) if "items" in schema else list


def _docstring(tool: ToolSpec, names: list[str]) -> str:
    lines = [" ".join(tool.description.split()) or tool.name]
    if names:
        lines += ["", "Args:"]
    for name in names:
        lines.append(f"    {name}: {described(tool.parameters['properties'][name]) or name}")
    return "\n".join(lines)


def described(schema: Mapping[str, Any]) -> str:
    """The description of an argument on one line, with its bounds and default, which signatures cannot hold."""
    facts = [text.format(schema[key]) for key, text in _BOUNDS.items() if key in schema]
    if schema.get("default") is not None:
        facts.append(f"{schema['default']} by default")
    text = " ".join(str(schema.get("description", "")).split())
    return f"{text} ({', '.join(facts)})".strip() if facts else text
