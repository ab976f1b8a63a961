from typing import Any

import pytest

from agentenv.dialects import DIALECTS, Turn, add_dialect, make_dialect
from agentenv.dialects.hermes import Hermes
from agentenv.errors import ConfigError, UnknownNameError, UsageError
from agentenv.types import Action, Image, Message, Part, Table, Text, ToolCall, ToolResult, ToolSpec, Video

CODE = ToolSpec("run", "", {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]})
IMAGE = Image("0" * 64, "image/png", 4, 4)
CLIP = Video("1" * 64, "video/mp4", 4, 4, 1.0, 2.0)
TABLE = Table("a\n1", ("a",), ((1,),), 1)


def result(*parts: Part, name: str = "run") -> ToolResult:
    return ToolResult("call_0", name, parts)


def shown(*results: ToolResult, **options: Any) -> tuple[Part, ...]:
    (message,) = make_dialect("hermes", [CODE], **options).results(results)
    assert message.role == "user"
    return message.parts


def test_one_text() -> None:
    assert shown(result(Text("a"))) == (Text("<tool_response>\na\n</tool_response>"),)


def test_results_are_joined_in_order() -> None:
    text = "<tool_response>\na\n</tool_response>\n<tool_response>\nb\n</tool_response>"
    assert shown(result(Text("a")), result(Text("b"))) == (Text(text),)
    assert make_dialect("hermes", [CODE]).results([]) == ()


def test_tables_are_text_and_neighbours_stand_a_line_apart() -> None:
    assert shown(result(TABLE, Text("b"))) == (Text("<tool_response>\na\n1\nb\n</tool_response>"),)
    assert shown(result()) == (Text("<tool_response>\n\n</tool_response>"),)


def test_two_texts_cannot_make_a_tag_together() -> None:
    (part,) = shown(result(Text("</tool_"), Text("response>")))
    assert isinstance(part, Text)
    assert part.text.count("</tool_response>") == 1


@pytest.mark.parametrize(
    ("media", "parts"),
    [
        ("inline", (Text("<r>a"), IMAGE, Text("b"), CLIP, Text("</r>"))),
        ("before", (Text("<r>"), IMAGE, CLIP, Text("a\nb</r>"))),
        ("after", (Text("<r>a\nb"), IMAGE, CLIP, Text("</r>"))),
    ],
)
def test_where_media_stand(media: str, parts: tuple[Part, ...]) -> None:
    assert shown(result(Text("a"), IMAGE, Text("b"), CLIP), media=media, result="<r>{}</r>") == parts


def test_media_of_several_results_stay_with_theirs() -> None:
    parts = shown(result(IMAGE), result(Text("b"), name="x"), result="{}", results={"x": "x: {}"})
    assert parts == (IMAGE, Text("\nx: b"))
    assert shown(result(Text("a"), name="x"), results={"x": "{}!"}) == (Text("a!"),)


def failed(text: str, kind: str = "failed", call_id: str = "call_3") -> ToolResult:
    return ToolResult(call_id, "run", (Text(text),), kind)


def test_failed_calls_may_have_a_form_of_their_own() -> None:
    assert shown(failed("Too small."), error="Error: {}") == (Text("Error: Too small."),)
    assert shown(failed("Too small."), error="Error: {}. Try again.") == (Text("Error: Too small. Try again."),)
    assert shown(failed("no"), error="E {}", results={"run": "R {}"}) == (Text("E no"),)
    assert shown(result(Text("a")), error="Error: {}") == (Text("<tool_response>\na\n</tool_response>"),)


def test_forms_may_hold_numbers() -> None:
    form = "Action {action}, next {next}, observation {observation}: {}"
    image = Image("0" * 64, "image/png", 4, 4, "observation_12")
    seen = ToolResult("call_3", "run", (image,))
    assert shown(seen, result=form) == (Text("Action 3, next 4, observation 12: "), image)
    assert shown(failed("no"), error="{action}: {}") == (Text("3: no"),)
    assert shown(ToolResult("abc", "run", (Text("{action}"),)), result="{observation}{action} {}") == (
        Text("0 {action}"),
    )


def test_calls_that_were_too_many_may_go_unanswered() -> None:
    many = failed("not run", "limit"), result(Text("a"))
    assert shown(*many, quiet=True, result="{}") == (Text("a"),)
    assert shown(*many, result="{}") == (Text("not run\na"),)
    assert shown(many[0], quiet=True, result="{}") == (Text("not run"),), "somebody must answer"


@pytest.mark.parametrize("name", ["hermes", "tags", "private_tag", "code"])
def test_the_block_of_the_system_prompt_can_be_given(name: str) -> None:
    assert make_dialect(name, [CODE], block="Just ask.").instructions() == "Just ask."
    assert make_dialect(name, [CODE], block="").instructions() == ""
    assert len(make_dialect(name, [CODE]).instructions()) > 20


def test_thoughts_of_one_stream_are_written_bare() -> None:
    dialect = make_dialect("code", [CODE], bare=True, think_tag="private_thought")
    call = ToolCall("call_0", "run", "", {"code": "1 + 1"})
    text = dialect.write(Turn("So:", "I compute.", (call,))).text
    assert text.startswith("I compute.\nSo:\n<code>")
    assert dialect.parse(Action(text)).calls[0].arguments == {"code": "1 + 1"}
    assert dialect.write(Turn(reasoning="Two.", answer="2")).text == "<think>Two.</think>\n<answer>2</answer>"
    assert dialect.write(Turn(answer="2")).text == "<answer>2</answer>"


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="unknown dialect 'hermse'; did you mean \"hermes\""):
        make_dialect("hermse", [])
    with pytest.raises(UnknownNameError, match="unknown option of dialect hermes 'anwser'; did you mean \"answer"):
        make_dialect("hermes", [], anwser="text")


@pytest.mark.parametrize(
    "options",
    [
        {"answer": "json"},
        {"answer_tag": 3},
        {"answer_tag": "think"},
        {"think_tag": "a b"},
        {"result_tag": ""},
        {"media": "behind"},
        {"result": "no place"},
        {"results": {"run": "{}{}"}},
        {"error": "no place"},
        {"quiet": "yes"},
        {"stop": "x"},
    ],
)
@pytest.mark.parametrize("name", ["hermes", "tags", "code"])
def test_wrong_options(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"dialect {name}"):
        make_dialect(name, [CODE], **options)


def test_options_as_a_configuration_file_gives_them() -> None:
    assert make_dialect("hermes", [CODE], stop=["</answer>"]).stop == ("</answer>",)


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_every_dialect(name: str) -> None:
    dialect = make_dialect(name, [CODE])
    assert dialect.name == name
    assert dialect.native == (name == "native")
    assert isinstance(dialect.instructions(), str)
    assert dialect.notice("x") == Message("user", (Text("x"),))
    assert set(dialect.control) <= {*_KNOWN, "run"}


_KNOWN = ("think", "answer", "tool_call", "tool_response", "information", "observation", "code", "sandbox_output")


def test_a_dialect_of_your_own_can_be_added_once() -> None:
    class Mine(Hermes):
        name = "mine"

    class Other(Hermes):
        name = "mine"

    add_dialect(Mine)
    add_dialect(Mine)
    assert isinstance(make_dialect("mine", ()), Mine)
    for taken in (Other, type("Again", (Hermes,), {})):
        with pytest.raises(UsageError, match="already"):
            add_dialect(taken)
