"""Tags: one XML tag for each tool, with a bare body. `<sql>SELECT 1</sql>`, `<search>capital of France</search>`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from msgspec import field

from agentenv.dialects._calls import NotReadError, arguments_call, decode_value, unfit
from agentenv.dialects._text import TextDialect, TextOptions, json_text, writable
from agentenv.errors import ConfigError, UnknownNameError, UsageError
from agentenv.types import ToolCall, ToolSpec


class TagsOptions(TextOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the tags dialect, beside those of `TextOptions`.

    Args:
        tags: tool names by tag; where empty, each tool has the tag of its own name.
        parameters: by tag, the parameter that takes the body. By default the only required one; without any, the only
            one or the first that is a string. A tool without parameters ignores its body. With several required
            parameters the body is a JSON object.
    """

    result_tag: str = "information"
    tags: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)


class Tags(TextDialect):
    """One tag for each tool, the argument as its bare body; results in `<information>` in a user turn.

    A parameter that is not a string takes its body as JSON. `arguments_raw` is the body to the letter; white space
    around it is not part of the argument. Engines should stop at the closing tags, so that a turn holds one call.

    Args:
        tools: the tools of the environment.
        options: fields of `TagsOptions`.

    Raises:
        UnknownNameError: an option, a tool or a parameter is not known.
        ConfigError: an option has a value that it cannot have.
    """

    name = "tags"
    Options: ClassVar[type[TextOptions]] = TagsOptions
    complete = False

    def _call_tags(self) -> tuple[str, ...]:
        self.by_tag = tools_by_tag(self.tools, self.options.tags)
        for tag in self.options.parameters:
            if tag not in self.by_tag:
                raise UnknownNameError("tag", tag, self.by_tag)
        chosen = self.options.parameters
        self.parameter = {tag: body_parameter(tool, chosen.get(tag, "")) for tag, tool in self.by_tag.items()}
        return tuple(self.by_tag)

    def _stop(self) -> tuple[str, ...]:
        answer = (f"</{self.options.answer_tag}>",) if self.options.answer == "tag" else ()
        return (*(f"</{tag}>" for tag in self.call_tags), *answer)

    def read_call(self, tag: str, call_id: str, body: str) -> ToolCall:
        """The call of the tag's tool, with `body` as its argument."""
        tool, parameter = self.by_tag[tag].name, self.parameter[tag]
        text = body.strip()
        if parameter is None:
            return arguments_call(call_id, tool, body)
        if parameter == "":
            return ToolCall(call_id, tool, body, {})
        if wrong := unfit(body):
            return _wrong(call_id, tool, body, wrong)
        if takes_text(self.by_tag[tag], parameter):
            return ToolCall(call_id, tool, body, {parameter: text})
        try:
            return ToolCall(call_id, tool, body, {parameter: decode_value(text)})
        except NotReadError as error:
            return _wrong(call_id, tool, body, str(error))

    def called(self, tag: str, body: str) -> str:
        """The tool of the tag."""
        return self.by_tag[tag].name

    def write_call(self, call: ToolCall) -> str:
        """The call as its tag with its body.

        Raises:
            UnknownNameError: no tag calls this tool.
            UsageError: the arguments cannot stand in a body.
        """
        tag = tag_of(self.by_tag, call.name)
        parameter, arguments = self.parameter[tag], writable(call)
        if parameter is None:
            return f"<{tag}>{json_text(arguments)}</{tag}>"
        if set(arguments) - {parameter}:
            raise UsageError(f"<{tag}> holds {parameter or 'nothing'}, so it cannot say {sorted(arguments)}")
        value = arguments.get(parameter, "")
        body = value if isinstance(value, str) and takes_text(self.by_tag[tag], parameter) else json_text(value)
        if self.reader.marks.search(body) or f"</{tag}>" in body:
            raise UsageError(f"a body that holds a tag cannot be written between <{tag}> and </{tag}>")
        return f"<{tag}>{body if arguments else ''}</{tag}>"

    def _instructions(self) -> str:
        """A line for each tag, and how to answer."""
        lines = [self._line(tag) for tag in self.by_tag]
        if not lines:
            return self.how_to_answer()
        head = (
            "You can call these tools. Write the tag and end your turn; the result comes in the next message between "
        )
        head += f"<{self.options.result_tag}> and </{self.options.result_tag}>."
        return "\n".join([head, "", *lines, "", self.how_to_answer()])

    def _line(self, tag: str) -> str:
        tool, parameter = self.by_tag[tag], self.parameter[tag]
        if parameter == "":
            return f"<{tag}></{tag}>: {tool.description}"
        if parameter is None:
            body = json.dumps(tool.parameters.get("properties", {}), ensure_ascii=False)
            return f"<{tag}>JSON object</{tag}>: {tool.description}\n  with {body}"
        about = tool.parameters["properties"][parameter].get("description", "")
        return f"<{tag}>{parameter}</{tag}>: {tool.description}" + (f"\n  {parameter}: {about}" if about else "")


def tools_by_tag(tools: Sequence[ToolSpec], tags: dict[str, str]) -> dict[str, ToolSpec]:
    """The tool that each tag calls.

    Raises:
        UnknownNameError: a tag names a tool that there is not.
    """
    names = {tool.name: tool for tool in tools}
    for name in tags.values():
        if name not in names:
            raise UnknownNameError("tool", name, names)
    return {tag: names[name] for tag, name in tags.items()} if tags else names


def tag_of(by_tag: dict[str, ToolSpec], tool: str) -> str:
    """The first tag that calls `tool`.

    Raises:
        UnknownNameError: none does.
    """
    for tag, spec in by_tag.items():
        if spec.name == tool:
            return tag
    raise UnknownNameError("tool", tool, [spec.name for spec in by_tag.values()])


def body_parameter(tool: ToolSpec, chosen: str) -> str | None:
    """The parameter that takes a body: empty where the tool has none, None where the body is a JSON object.

    Raises:
        UnknownNameError: `chosen` is not a parameter of the tool.
        ConfigError: the tool requires parameters beside the one that is `chosen`.
    """
    properties, required = tool.parameters.get("properties", {}), tool.parameters.get("required", [])
    if chosen:
        if chosen not in properties:
            raise UnknownNameError(f"parameter of tool {tool.name}", chosen, properties)
        if set(required) - {chosen}:
            raise ConfigError(f"tool {tool.name} requires {required}, so a body cannot be {chosen!r} alone")
        return chosen
    if len(required) > 1:
        return None
    texts = [name for name in properties if takes_text(tool, name)]
    return str(next(iter((*required, *texts, *properties)), ""))


def takes_text(tool: ToolSpec, parameter: str) -> bool:
    """True where the schema lets the parameter be a string."""
    schema: dict[str, Any] = tool.parameters["properties"].get(parameter, {})
    kinds = [schema, *schema.get("anyOf", []), *schema.get("oneOf", [])]
    definitions = tool.parameters.get("$defs", {})
    kinds += [definitions.get(str(kind["$ref"]).rpartition("/")[2], {}) for kind in kinds if "$ref" in kind]
    types = [kind["type"] for kind in kinds if "type" in kind]
    return not types or "string" in types or any(isinstance(listed, list) and "string" in listed for listed in types)


def _wrong(call_id: str, tool: str, body: str, what: str) -> ToolCall:
    return ToolCall(call_id, tool, body, None, f"The body of the call of {tool} could not be read: {what}.")
