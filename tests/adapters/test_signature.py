"""Schemas as Python signatures, read back with the function that trainers read them with."""

from __future__ import annotations

from typing import Any

import pytest
from transformers.utils import get_json_schema

from agentenv.trainers.signature import annotated, described
from agentenv.types import ToolSpec


def method(spec: ToolSpec) -> Any:
    def call(self: object, **arguments: Any) -> dict[str, Any]:
        return arguments

    return annotated(call, spec)


def schema(properties: dict[str, Any], required: tuple[str, ...] = (), **more: Any) -> Any:
    spec = ToolSpec("look", "Look at it.\n  Closely.", {"properties": properties, "required": list(required), **more})
    return get_json_schema(method(spec))["function"]


BOX = {"type": "array", "prefixItems": [{"type": "number"}] * 4}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"type": "string"}, {"type": "string"}),
        ({"type": "integer"}, {"type": "integer"}),
        ({"type": "number"}, {"type": "number"}),
        ({"type": "boolean"}, {"type": "boolean"}),
        ({"type": "object"}, {"type": "object"}),
        ({}, {"type": "object"}),
        ({"enum": ["a", "b"]}, {"type": "string", "enum": ["a", "b"]}),
        ({"const": "a"}, {"type": "string", "enum": ["a"]}),
        ({"type": "array", "items": {"type": "integer"}}, {"type": "array", "items": {"type": "integer"}}),
        ({"type": "array"}, {"type": "array"}),
        (BOX, BOX),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"type": "string", "nullable": True}),
        ({"type": ["integer", "string"]}, {"type": ["integer", "string"]}),
    ],
)
def test_a_type_is_read_back(given: dict[str, Any], read: dict[str, Any]) -> None:
    found = schema({"x": {**given, "description": "the x."}}, ("x",))
    assert found["parameters"]["properties"]["x"] == {**read, "description": "the x."}
    assert found["parameters"]["required"] == ["x"]


def test_references_are_followed() -> None:
    found = schema({"x": {"$ref": "#/$defs/Mode"}}, ("x",), **{"$defs": {"Mode": {"enum": ["a"]}}})
    assert found["parameters"]["properties"]["x"]["enum"] == ["a"]


def test_what_may_be_left_out_is_not_required_and_stands_last() -> None:
    found = schema({"a": {"type": "integer", "default": 5, "minimum": 1}, "b": {"type": "string"}}, ("b",))
    assert found["parameters"]["required"] == ["b"]
    assert list(found["parameters"]["properties"]) == ["b", "a"]
    assert found["parameters"]["properties"]["a"]["description"] == "(at least 1, 5 by default)"
    assert found["description"] == "Look at it. Closely."


def test_a_tool_without_arguments() -> None:
    assert schema({})["parameters"] == {"type": "object", "properties": {}}


def test_only_what_was_given_is_passed_on() -> None:
    fn = method(ToolSpec("f", "", {"properties": {"a": {"type": "integer", "default": 5}}}))
    assert fn(None) == {}
    assert fn(None, a=2) == {"a": 2}
    assert fn.__name__ == "f"


def test_bounds_stand_in_the_description() -> None:
    assert (
        described({"description": "rows\n of it", "minimum": 1, "maxItems": 3})
        == "rows of it (at least 1, at most 3 items)"
    )
