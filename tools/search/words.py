"""Words of a query. What a model writes is text to be looked for, never a query language: only its words are used.

A query is an OR of its words: every word that a document has counts for it. Very common English words are left out
unless there is nothing else, since they cost most of the time and decide nothing.
"""

from __future__ import annotations

import re
import unicodedata

MAX_WORDS = 64
"""Words of a query that are used; the first ones."""

MAX_LENGTH = 40
"""Letters of a word. Longer ones are neither indexed nor looked for."""

_COMMON = (
    "a about above after again all also am an and any are as at be because been before being between both but by can "
    "could did do does doing down during each few for from further had has have having he her here hers him his how i "
    "if in into is it its just me more most my no nor not of off on once only or other our out over own same she "
    "should so some such than that the their them then there these they this those through to too under until up very "
    "was we were what when where which while who whom why will with would you your"
)
STOP = frozenset(_COMMON.split())

_WORD = re.compile(r"[^\W_]+")
# Scripts that are written without blanks, and Korean, whose words carry their endings: each sign is a word of its own.
_UNSPACED = re.compile("([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
                       "\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff])")  # fmt: skip


def prepared(text: str) -> str:
    """A text as it is indexed: composed, without lone surrogates, with blanks between signs of unspaced scripts."""
    if text.isascii():
        return text
    text = text.encode("utf-8", "replace").decode()
    text = unicodedata.normalize("NFC", text).replace("\u0130", "I")  # whose small letter is two characters
    return _UNSPACED.sub(r" \1 ", text)


def query_words(query: str) -> list[str]:
    """The words of a query in lower case, each once, common ones left out.

    >>> query_words('What is the "height" of K2 OR -Everest*?')
    ['height', 'k2', 'everest']
    """
    text = prepared(query[:10_000]).lower()
    found = [word for word in (_WORD.findall(text) if text.isascii() else _spelt(text)) if len(word) <= MAX_LENGTH]
    words = list(dict.fromkeys(found))
    return ([word for word in words if word not in STOP] or words)[:MAX_WORDS]


def _spelt(text: str) -> list[str]:
    """The words of a text, with their marks, which are the vowels of many scripts."""
    kept = "".join(c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in text)
    return [word for word in kept.split() if any(map(str.isalnum, word))]
