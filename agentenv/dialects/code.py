"""Code: Python in a fence, alone or between `<code>` tags, is a call of the environment's code tool."""

from __future__ import annotations

from typing import ClassVar, Literal

from msgspec.structs import replace

from agentenv.dialects._calls import unfit
from agentenv.dialects._reader import Call
from agentenv.dialects._text import TextDialect, TextOptions, writable
from agentenv.dialects.base import Turn
from agentenv.dialects.tags import body_parameter
from agentenv.errors import ConfigError, UnknownNameError, UsageError
from agentenv.types import Action, ToolCall, ToolSpec

_FENCE = "```"


class CodeOptions(TextOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the code dialect, beside those of `TextOptions`.

    Args:
        tool: the tool that runs the code; by default the one that has a parameter "code", or the only one.
        parameter: its parameter that takes the code; by default "code", or the only required one.
        form: "tag": code stands between `code_tag`, in a fence or bare. "fence": every Python fence is code to be run.
        code_tag: the tag around code.
        bare: thoughts before code are written bare, and those before an answer in `<think>`, so that all turns together
            hold that tag once. For systems whose turns are one stream; `think_tag` must then be another one.
    """

    result_tag: str = "sandbox_output"
    tool: str = ""
    parameter: str = ""
    form: Literal["tag", "fence"] = "tag"
    code_tag: str = "code"
    bare: bool = False


class Code(TextDialect):
    """Code in a fence is run by one tool; its output comes back in `<sandbox_output>`.

    The output comes in a user turn. Thyme's models were trained to see it within the same assistant turn; carried so, a
    text stays the same up to the tokens that change the role.

    Args:
        tools: the tools of the environment.
        options: fields of `CodeOptions`.

    Raises:
        UnknownNameError: an option, the tool or its parameter is not known.
        ConfigError: an option has a value that it cannot have, or no tool is known to take code.
    """

    name = "code"
    Options: ClassVar[type[TextOptions]] = CodeOptions
    complete = False

    def _call_tags(self) -> tuple[str, ...]:
        self.tool = _code_tool(self.tools, self.options.tool)
        known = "code" if "code" in self.tool.parameters.get("properties", {}) else ""
        self.parameter = body_parameter(self.tool, self.options.parameter or known) or ""
        if not self.parameter:
            raise ConfigError(f"dialect code: the tool {self.tool.name!r} has no parameter that alone takes the code")
        return (self.options.code_tag,) if self.options.form == "tag" else ()

    def _calls(self) -> dict[str, Call]:
        if self.options.form == "tag":
            return super()._calls()
        return {opener: Call("", "\n" + _FENCE) for opener in ("```python", "```py")}

    def _stop(self) -> tuple[str, ...]:
        return (f"</{self.options.code_tag}>",) if self.options.form == "tag" else ()

    def read_call(self, tag: str, call_id: str, body: str) -> ToolCall:
        """The call that runs the code in `body`."""
        code = unfenced(body) if tag else body.partition("\n")[2]
        if wrong := unfit(code):
            return ToolCall(call_id, self.tool.name, code, None, f"The code could not be read: {wrong}.")
        return ToolCall(call_id, self.tool.name, code, {self.parameter: code})

    def called(self, tag: str, body: str) -> str:
        """The code tool."""
        return self.tool.name

    def write(self, turn: Turn) -> Action:
        """As other dialects; with `bare`, thoughts go into the content."""
        if self.options.bare:
            thought = turn.reasoning if turn.calls or not turn.reasoning else f"<think>{turn.reasoning}</think>"
            content = "\n".join(piece for piece in (thought, turn.content) if piece)
            turn = replace(turn, reasoning="", content=content)
        return super().write(turn)

    def write_call(self, call: ToolCall) -> str:
        """The code of the call, in a fence.

        Raises:
            UnknownNameError: the call is not of the code tool.
            UsageError: the call holds other arguments than the code, or its code cannot stand in a fence.
        """
        if call.name != self.tool.name:
            raise UnknownNameError("tool", call.name, [self.tool.name])
        arguments = writable(call)
        code = arguments.get(self.parameter)
        if not isinstance(code, str) or len(arguments) > 1:
            raise UsageError(f"only {self.parameter!r}, as text, can be written; the call has {sorted(arguments)}")
        fence = f"{_FENCE}python\n{code}\n{_FENCE}"
        tag = self.options.code_tag
        if f"\n{_FENCE}" in code or self.reader.marks.search(code) or f"</{tag}>" in code:
            raise UsageError("code that holds a fence or a tag of the dialect cannot be written")
        return f"<{tag}>\n{fence}\n</{tag}>" if self.options.form == "tag" else fence

    def _instructions(self) -> str:
        """How to have code run, and how to answer."""
        tag, out = self.options.code_tag, self.options.result_tag
        place = (
            f"between <{tag}> and </{tag}>, in a Python fence" if self.options.form == "tag" else "in a Python fence"
        )
        how = f"To run code, write it {place}, and end your turn; its output comes between <{out}> and </{out}>."
        return "\n".join([self.tool.description, how, self.how_to_answer()])


def unfenced(body: str) -> str:
    """Code out of its fence; a body without a fence is code as it stands, less the white space around it."""
    text = body.strip()
    if not text.startswith(_FENCE):
        return text
    code = text.partition("\n")[2]
    if not code.endswith(_FENCE):
        return code
    code = code[: -len(_FENCE)]
    return code[:-1] if code.endswith("\n") else code


def _code_tool(tools: tuple[ToolSpec, ...], chosen: str) -> ToolSpec:
    if chosen:
        found = [tool for tool in tools if tool.name == chosen]
        if not found:
            raise UnknownNameError("tool", chosen, [tool.name for tool in tools])
        return found[0]
    takers = [tool for tool in tools if "code" in tool.parameters.get("properties", {})] or list(tools)
    if len(takers) != 1:
        raise ConfigError(f"dialect code: set `tool` to the one that runs code; there are {[t.name for t in takers]}")
    return takers[0]
