import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.dialects import DIALECTS, make_dialect, neutralise
from agentenv.dialects.neutral import _pattern
from agentenv.types import Action, ToolSpec

KNOWN = """
    <|im_start|> <|im_end|> <|endoftext|> <|vision_start|> <|image_pad|> <|video_pad|> <|box_start|> <|eot_id|>
    <|start_header_id|> <|python_tag|> <|user|> <|observation|> <|START_OF_TURN_TOKEN|> <|image_1|> <|turn> <turn|>
    <|tool_call> <tool_call|> <start_of_turn> <end_of_turn> <bos> <eos> <pad> <unk> <s> </s> <unused12>
    <image_soft_token> <<SYS>> <</SYS>> [INST] [/INST] [TOOL_CALLS] [TOOL_RESULTS] [/TOOL_RESULTS] [AVAILABLE_TOOLS]
    [IMG] [gMASK] <sop> <image> <video> <audio> <bbox> <ref-object> <img> </img> <IMG_CONTEXT> <image_1>
    <cot-process> <tool_call> </tool_call> <tool_response> </tool_response> <answer> </answer> <think> </think>
    <information> </information> <observation> </observation> <sql> </sql> <grounding> <code> <sandbox_output>
    <solution> <reason> <search> <img_search> <text_search> <function=zoom> <function_calls> <arg_key>
    <minimax:tool_call> <seed:think> ]~b] <invoke> </parameter> <BOS_TOKEN> <EOS_TOKEN> <MASK_TOKEN> <sep> <eot> <eoh>
    <ImageHere> <image_id> <fake_token_around_image> <row_1_col_2> <global-img> <end_of_utterance> <boi_token>
    <reserved_106> <TOOLCALL> <AVAILABLE_TOOLS> <tool_code> <search_result>
"""
MARKERS = KNOWN.split()
FULL = "\uff5c"
MARKERS += [
    f"<{FULL}User{FULL}>",
    f"<{FULL}end\u2581of\u2581sentence{FULL}>",
    f"<{FULL}tool\u2581outputs\u2581begin{FULL}>",
]
HIDDEN = [
    "\uff1ctool_call\uff1e",
    "\ufe64tool_response\ufe65",
    "<|im\u200b_end|>",
    "<\u2060think>",
    "\uff1c\uff0f\uff54\uff4f\uff4f\uff4c\uff3f\uff43\uff41\uff4c\uff4c\uff1e",
    "\uff3bINST\uff3d",
    "<TOOL_CALL>",
    "<ima\u00adge>",
    "</tool_response >",
    "< /answer>",
    "</think\n>",
    "[|endofturn|]",
    "[EOS]",
    "<start_function_call>",
    "<escape>",
]
HARMLESS = [
    "a < b > c",
    "x < s and y > z",
    "<b>bold</b>",
    '<img src="x.png">',
    "[1] [INSTALL]",
    "x[0] <= 3",
    "List<int>",
    "\u00e9\u4e2d",
    "]",
    "",
]


@pytest.mark.parametrize("marker", MARKERS + HIDDEN)
def test_control_text_is_made_harmless(marker: str) -> None:
    text, changed = neutralise(f"before {marker} after")
    assert changed == 1
    assert marker not in text
    assert text.startswith("before ")
    assert text.endswith(" after")
    assert len(text) == len(f"before {marker} after")
    assert neutralise(text) == (text, 0)


@pytest.mark.parametrize("text", HARMLESS)
def test_everything_else_stays(text: str) -> None:
    assert neutralise(text) == (text, 0)


def test_what_it_looks_like() -> None:
    assert neutralise("<tool_call>[INST]") == ("\u2039tool_call\u203a\u27e6INST\u27e7", 2)


def test_plain_text_is_the_same_object() -> None:
    for text in ("plain", "na\u00efve \u4e2d", "a < b", "a\u200b < b"):
        assert neutralise(text)[0] is text


def test_extra_tags() -> None:
    assert neutralise("<zoom>", ("zoom",)) == ("\u2039zoom\u203a", 1)
    assert neutralise("<zoom>") == ("<zoom>", 0)
    assert neutralise("<a.b>", ("a.b",))[1] == 1
    assert neutralise("<axb>", ("a.b",))[1] == 0


def test_markers_within_markers() -> None:
    for text in ("<|<s>|>", "<<s>>", "<tool_<s>call>", "[[INST]]", "<|im_<|im_end|>end|>", "<\u200b<s>\u200b|x|>"):
        once, changed = neutralise(text)
        assert changed
        assert neutralise(once) == (once, 0)


_PIECES = st.sampled_from(
    [*MARKERS, *HIDDEN, "<", ">", "|", "[", "]", "/", "\u200b", "\uff1c", "x", "tool_call", " ", "\n"]
)


@given(st.lists(st.one_of(_PIECES, st.text(max_size=3)), max_size=12).map("".join))
def test_idempotent_and_leaves_no_marker(text: str) -> None:
    once, changed = neutralise(text)
    assert len(once) == len(text)
    assert (changed == 0) == (once is text)
    assert neutralise(once) == (once, 0)
    assert not _pattern(()).search(once)


TOOL = ToolSpec("sql", "", {"type": "object", "properties": {"sql": {"type": "string"}}, "required": ["sql"]})


@pytest.mark.parametrize("name", sorted({*DIALECTS} - {"json_turn", "native"}))
@given(st.lists(st.one_of(_PIECES, st.text(max_size=3)), max_size=12).map("".join))
def test_no_dialect_reads_anything_into_it(name: str, text: str) -> None:
    dialect = make_dialect(name, [TOOL])
    turn = dialect.parse(Action(neutralise(text, dialect.control)[0]))
    assert (turn.calls, turn.answer, turn.reasoning, turn.flags) == ((), None, "", ())
