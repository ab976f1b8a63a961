"""Private tag: the arguments as JSON in a tag of the tool's own. Mini-o3: `<grounding>{"bbox_2d": ...}</grounding>`."""

from __future__ import annotations

import json
from typing import ClassVar

from msgspec import field

from agentenv.dialects._calls import arguments_call
from agentenv.dialects._text import TextDialect, TextOptions, json_text, writable
from agentenv.dialects.tags import tag_of, tools_by_tag
from agentenv.types import ToolCall, ToolSpec


class PrivateTagOptions(TextOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the private tag dialect, beside those of `TextOptions`.

    Args:
        tags: tool names by tag; where empty, each tool has the tag of its own name.
    """

    result_tag: str = "observation"
    tags: dict[str, str] = field(default_factory=dict)


class PrivateTag(TextDialect):
    """One tag for each tool, its arguments as a JSON object between them; results in a user turn.

    Args:
        tools: the tools of the environment.
        options: fields of `PrivateTagOptions`.

    Raises:
        UnknownNameError: an option or a tool is not known.
        ConfigError: an option has a value that it cannot have.
    """

    name = "private_tag"
    Options: ClassVar[type[TextOptions]] = PrivateTagOptions

    def _call_tags(self) -> tuple[str, ...]:
        self.by_tag = tools_by_tag(self.tools, self.options.tags)
        return tuple(self.by_tag)

    def _stop(self) -> tuple[str, ...]:
        return tuple(f"</{tag}>" for tag in self.call_tags)

    def read_call(self, tag: str, call_id: str, body: str) -> ToolCall:
        """The call of the tag's tool, with the arguments that stand in `body`."""
        return arguments_call(call_id, self.by_tag[tag].name, body.strip())

    def called(self, tag: str, body: str) -> str:
        """The tool of the tag."""
        return self.by_tag[tag].name

    def write_call(self, call: ToolCall) -> str:
        """The call as its tag with its arguments.

        Raises:
            UnknownNameError: no tag calls this tool.
        """
        tag = tag_of(self.by_tag, call.name)
        return f"<{tag}>{json_text(writable(call))}</{tag}>"

    def _instructions(self) -> str:
        """Each tag with the schema of its arguments, and how to answer."""
        lines = [
            f"<{tag}>{{...}}</{tag}>: {tool.description}\n  arguments: {_schema(tool)}"
            for tag, tool in self.by_tag.items()
        ]
        if not lines:
            return self.how_to_answer()
        head = (
            "You can call these tools. Write the arguments as a JSON object between the tool's tags and end your turn; "
            "the result comes in the next message."
        )
        return "\n".join([head, "", *lines, "", self.how_to_answer()])


def _schema(tool: ToolSpec) -> str:
    return json.dumps(tool.parameters, ensure_ascii=False)
