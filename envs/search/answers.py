"""Whether an answer to a search question is right, strictly and the way Search-R1 decides it."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Mapping
from typing import Any

from agentenv.envs.rewards import normal, number_match, rule_match

DEGREES = 0.01
"""By how much a latitude or longitude may differ, in degrees: some kilometre."""

_BETWEEN = re.compile(r"\s*(?:,|;|\n|\band\b|&|\u2022)\s*", re.IGNORECASE)
_LONGEST = 2000


def search_match(text: str | None, reference: Any, metadata: Mapping[str, Any] | None = None) -> float:
    """1.0 for a right answer, else 0.0. Never raises, whatever the text.

    By `metadata["answer_type"]`: an "integer" must be the same number; a "number" may differ by `DEGREES`; a "set" must
    name all of the reference and nothing else; a "text" goes by `rewards.rule_match`, with or without the marks on its
    letters ("Kosice" for "Košice"). Where there is a `range`, a number within it is right, too.
    """
    kind = (metadata or {}).get("answer_type")
    if text is None or len(text) > _LONGEST:
        return 0.0
    if kind == "integer":
        return number_match(text, reference)
    if kind == "number":
        return number_match(text, reference, absolute=DEGREES)
    if kind == "set" and isinstance(reference, (list, tuple)):
        said = {plain(item) for item in _BETWEEN.split(text) if plain(item)}
        return float(said == {plain(str(item)) for item in reference})
    span = (metadata or {}).get("range")
    if span and number_match(text, (span[0] + span[1]) / 2, absolute=(span[1] - span[0]) / 2):
        return 1.0
    several = reference if isinstance(reference, (list, tuple)) else (reference,)
    if any(plain(text) == plain(str(one)) != "" for one in several):
        return 1.0
    return rule_match(text, reference, metadata)


def plain(text: str) -> str:
    """A text for comparing, as `rewards.normal` has it, and without marks on its letters."""
    bare = unicodedata.normalize("NFKD", normal(text))
    return "".join(letter for letter in bare if not unicodedata.combining(letter))


_PUNCTUATION = str.maketrans("", "", string.punctuation)


def em_match(text: str | None, reference: Any, metadata: Mapping[str, Any] | None = None) -> float:
    """Exact match after Search-R1's normalisation: small letters, no ASCII punctuation, no articles, single blanks.

    The reference is an answer, or a list of answers of which one must match. Source: Search-R1, `qa_em.py`; it is that
    of SQuAD. It finds "1,234" and "1234" equal, and "Côte d'Ivoire" and "Cote d'Ivoire" different.
    """
    several = reference if isinstance(reference, (list, tuple)) else (reference,)
    return float(text is not None and any(em_normal(text) == em_normal(str(one)) for one in several))


def em_normal(text: str) -> str:
    """A text after Search-R1's normalisation, see `em_match`."""
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())
