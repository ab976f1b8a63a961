"""Outside text made harmless before a policy sees it: chat-template tokens, media placeholders and dialect tags.

A web page or a table cell can hold `<|im_end|>`, `<image>` or `</tool_response>`. A tokenizer turns the first into the
real control token, three trainers count the second as an image, and the third ends the observation early. Here their
brackets become look-alikes (U+2039 and U+203A for angle brackets, U+27E6 and U+27E7 for square ones): a reader still
sees what stood there, and nothing downstream takes it for control.

Markers that hide behind full-width brackets or invisible characters count too: some tokenizers normalise those
away.
"""

from __future__ import annotations

import re
from functools import lru_cache

SANITIZER_VERSION = "3"
"""Raised whenever the same text may come out differently; belongs into the record of a run."""

_TAGS = (
    "tool_calls?|tool_responses?|tool_results?|tool_outputs?|tools?|function_calls?|function_responses?|functions?|"
    "invoke|parameter|arg_key|arg_value|think|thinking|thought|reason|reasoning|answer|final_answer|solution|"
    "information|observation|reminder|code|sandbox_output|interpreter|grounding|sql|search|img_search|image_search|"
    "text_search|web_search|system|user|assistant|"
    "images?|img|videos?|audios?|bbox|box|ref|ref-object|object_ref|quad|point|cot-process|start-image|end-image|"
    "image_placeholder|video_placeholder|img_context|image_soft_token|audio_soft_token|(?:start|end)_of_(?:image|audio)|"
    "(?:image|video)_pad|vision_(?:start|end)|im_(?:start|end|patch)|"
    "(?:bos|eos|pad|unk|mask|cls|sep|eop|boi|eoi|image|video|audio)_token|cls|sep|eot|eom|eoh|eoa|boi|eoi|imagehere|"
    "image_id|fake_token_around_image|global-img|end_of_utterance|tool_code|toolcall|available_tools|search_results?|"
    "s|bos|eos|pad|unk|mask|sop|eop|endoftext|(?:start|end)_of_turn|(?:begin|end)_of_text|fim_(?:prefix|middle|suffix)|"
    "(?:start|end)_function_(?:call|declaration|response)|escape"
)
_SQUARE = (
    "INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|CALL_ID|ARGS|THINK|IMG|IMG_BREAK|IMG_END|"
    r"BOS|EOS|PAD|UNK|CLS|SEP|MASK|AUDIO|BEGIN_AUDIO|PREFIX|MIDDLE|SUFFIX|MODEL_SETTINGS|gMASK|sMASK|UNUSED_TOKEN_\d{1,6}"
)
_SWAP = str.maketrans(
    "<>[]\uff1c\uff1e\ufe64\ufe65\uff3b\uff3d", "\u2039\u203a\u27e6\u27e7\u2039\u203a\u2039\u203a\u27e6\u27e7"
)

_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180e\u2800\u3164\ufeff\uffa0"
    + "".join(map(chr, (*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070))))
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0000, 0xE0080))))
)
_PLAIN: dict[int, int | None] = {
    **{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)},
    **dict.fromkeys(map(ord, _INVISIBLE)),
    0xFE64: ord("<"),
    0xFE65: ord(">"),
    0xFE33: ord("_"),
    0xFE4D: ord("_"),
}
_OPENERS = ("<", "[", "]", "\uff1c", "\ufe64", "\uff3b", "\uff3d")


def neutralise(text: str, extra: tuple[str, ...] = ()) -> tuple[str, int]:
    """Make control text harmless. Idempotent; a text without brackets comes back as the same object.

    Args:
        text: text from outside: a tool result, a row of a data set, a page.
        extra: names of further tags (without brackets) that mean something in this episode.

    Returns:
        The text, and how many markers were changed.
    """
    if "<" not in text and "[" not in text and "]" not in text and (text.isascii() or not _foreign(text)):
        return text, 0
    pattern = _pattern(extra)
    plain = text if text.isascii() else text.translate(_PLAIN)
    spans = [match.span() for match in pattern.finditer(plain)]
    if not spans:
        return text, 0
    if len(plain) != len(text):
        spans = _with_invisible(text, spans)
    return _swap(text, spans), len(spans)


def _foreign(text: str) -> bool:
    return any(opener in text for opener in _OPENERS)


def _with_invisible(text: str, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans of the text without invisible characters, as spans of the text with them."""
    places = [index for index, char in enumerate(text) if _PLAIN.get(ord(char), 0) is not None]
    return [(places[start], places[end - 1] + 1) for start, end in spans]


def _swap(text: str, spans: list[tuple[int, int]]) -> str:
    pieces: list[str] = []
    done = 0
    for start, end in spans:
        pieces += (text[done:start], text[start:end].translate(_SWAP))
        done = end
    return "".join(pieces) + text[done:]


@lru_cache(maxsize=64)
def _pattern(extra: tuple[str, ...]) -> re.Pattern[str]:
    """One alternation in which every repetition is bounded and ends at a bracket: linear in the length of the text."""
    names = "|".join((_TAGS, *map(re.escape, extra)))
    return re.compile(
        rf"<\|[^<>\u2039\u203a\n]{{1,64}}>"  # <|im_end|>, <|tool_call>
        rf"|<[^<>\u2039\u203a|\s]{{1,64}}\|>"  # <tool_call|>
        rf"|<\s{{0,2}}/?\s{{0,2}}(?:{names})\s{{0,2}}/?>"  # as markup may be written: </answer >
        rf"|<</?sys>>"
        rf"|<(?:image|img|video|audio|unused|special|reserved|mask|extra_id|reserved_special_token)[_-]?\d{{1,6}}>"
        rf"|<row_\d{{1,3}}_col_\d{{1,3}}>"
        rf"|</?(?:function|parameter|invoke|tool_call)[ =][^<>\u2039\u203a\n]{{1,64}}>"
        rf"|</?(?:minimax|seed|antml|glm|longcat)[:_][\w:-]{{1,64}}>"
        rf"|\[/?(?:{_SQUARE})\]|\[\|[^\[\]\n]{{1,32}}\|\]"  # [INST], [|endofturn|]
        rf"|\]~!?b\[|\]~b\]|\[e~\[|\]<\]\w{{1,32}}\[>\[",  # MiniMax
        re.IGNORECASE,
    )
