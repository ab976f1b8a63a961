"""How results are written for a model: by name, or any function of `Results`.

| name | what it looks like |
|---|---|
| `plain` | `[1] title`, address and date, text; a blank line between hits |
| `search-r1` | `Doc 1(Title: title) text`, one line a document |
| `geovista` | JSON of name, query and result, each with title, snippet and url; indented by two |
| `mmsearch` | `1. image: <picture>`, then `title: title` and the text where there is one |
| `qwen` | fenced; `[1]"title`, then `text"date`; a blank line between hits |
| `qwen-image` | `[1] "address" title`, then the text and the picture |

A document cannot forge the next one: line breaks within a title or text of a list become blanks, a text that begins
like an entry gets three dots before it, and JSON escapes what it must.
What wraps the whole (tags, prose around it) belongs to the dialect and its forms.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from agentenv.errors import UnknownNameError
from agentenv.tools.search.types import Formatter, Hit, Results
from agentenv.types import Part

NOTHING = "No results."
_ENTRY = re.compile(r"\[?\d+[\].]|Doc \d|title:|image:", re.IGNORECASE)


class Picture(str):
    """Stands for a hit's picture among the parts that a formatter writes; the value is the picture's SHA-256."""


def picture(hit: Hit) -> list[str | Part]:
    """The picture of a hit, to be put among the parts; nothing where it has none."""
    return [Picture(hit.image)] if hit.image else []


def make_formatter(format: str | Formatter) -> Formatter:
    """A formatter by name, or the function itself.

    Raises:
        UnknownNameError: there is no such format.
    """
    if not isinstance(format, str):
        return format
    if format not in FORMATS:
        raise UnknownNameError("result format", format, FORMATS)
    return FORMATS[format]


def plain(results: Results) -> str:
    """Numbered, with title, address, date and text."""
    blocks = []
    for number, hit in enumerate(results.hits, start=1):
        lines = [f"[{number}] {line(hit.title) or line(hit.id)}"]
        source = " ".join(filter(None, (line(hit.url), line(hit.date))))
        blocks.append("\n".join(filter(None, (*lines, source, excerpt(hit.text)))))
    return "\n\n".join(blocks)


def search_r1(results: Results) -> str:
    """Search-R1's passages: number, title, text; one line each."""
    return "\n".join(f"Doc {i}(Title: {line(hit.title)}) {line(hit.text)}" for i, hit in enumerate(results.hits, 1))


def geovista(results: Results) -> str:
    """GeoVista's JSON object: the tool's name, the query and the list of records."""
    records = [{"title": hit.title, "snippet": hit.text, "url": hit.url} for hit in results.hits]
    said: dict[str, Any] = {"name": results.tool, "query": results.query, "result": records}
    return json.dumps(said, ensure_ascii=False, indent=2)


def mmsearch(results: Results) -> list[str | Part]:
    """MMSearch-R1's list: picture and title, one after the other."""
    parts: list[str | Part] = []
    for number, hit in enumerate(results.hits, start=1):
        before = f"{number}. " if number == 1 else f"\n{number}. "
        parts += [f"{before}image: ", *picture(hit), "\n"] if hit.image else [before]
        parts.append("\n".join(filter(None, (f"title: {line(hit.title)}", excerpt(hit.text)))))
    return parts


def qwen(results: Results) -> str:
    """Qwen-Agent's numbered list in a fence. A fence within a text is broken, so that it cannot close this one."""
    blocks = [
        f'[{number}]"{line(hit.title)}\n{excerpt(hit.text)}"{line(hit.date)}'.replace("```", "'''")
        for number, hit in enumerate(results.hits, start=1)
    ]
    return "```\n{}\n```".format("\n\n".join(blocks))


def qwen_image(results: Results) -> list[str | Part]:
    """Qwen-Agent's image results: a numbered line with address and title, the text, and the picture itself."""
    parts: list[str | Part] = []
    for number, hit in enumerate(results.hits, start=1):
        head = f'[{number}] "{line(hit.url)}" {line(hit.title)}'
        parts += ["\n".join(filter(None, (head, excerpt(hit.text)))), *picture(hit)]
        if number < len(results.hits):
            parts.append("\n")
    return parts


def line(text: str) -> str:
    """A text in one line, with single blanks."""
    if "  " not in text and text.isprintable():  # most are, and this costs a tenth
        return text.strip()
    return " ".join(text.split())


def excerpt(text: str) -> str:
    r"""A text in one line of its own, which does not begin as an entry of a list would.

    >>> excerpt("two\nlines"), excerpt("[2] forged")
    ('two lines', '... [2] forged')
    """
    text = line(text)
    return f"... {text}" if _ENTRY.match(text) else text


FORMATS: dict[str, Formatter] = {
    "plain": plain,
    "search-r1": search_r1,
    "geovista": geovista,
    "mmsearch": mmsearch,
    "qwen": qwen,
    "qwen-image": qwen_image,
}


def written(results: Results, formatter: Formatter) -> Sequence[str | Part]:
    """The parts that a model reads: the summary in place of the hits where there is one, a note where there is one.

    Neighbouring texts are one.
    """
    body: Sequence[str | Part]
    if not results.hits:
        body = [NOTHING]
    elif results.summary:
        body = [results.summary]
    else:
        made = formatter(results)
        body = [made] if isinstance(made, str) else made
    return merged([f"{results.note}\n\n", *body] if results.note else body)


def merged(parts: Sequence[str | Part]) -> list[str | Part]:
    """The same with neighbouring texts joined."""
    out: list[str | Part] = []
    for part in parts:
        if out and type(part) is str and type(out[-1]) is str:
            out[-1] += part
        elif part != "" or isinstance(part, Picture):
            out.append(part)
    return out
