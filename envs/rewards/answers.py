"""Does an answer say what the reference says? Choices, numbers, words and formulas, each read out of prose.

A matcher takes the answer's text (None: none was given) and the reference, and is total: it never raises, whatever a
model wrote. `scores(matcher)` makes a reward component of it.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from string import ascii_uppercase
from typing import Any

from agentenv.envs.rewards.formulas import boxed, evaluate, same_formula
from agentenv.trajectory import Trajectory
from agentenv.types import Task

TOO_LONG = 1000
"""Characters from which an answer counts as wrong: long answers are how judges and matchers are gamed.

Source: DeepEyes and LongVT, `vl_agent.py`.
"""

Matcher = Callable[["str | None", Any], float]

_LETTER = r"([A-Z])"
_SAID = re.compile(
    rf"\b(?:answer|option|choice)s?(?: (?:is|would be|must be|should be))? ?[:=]? ?(?:option|choice)? ?"
    rf"[\(\[\*\"']{{0,4}}{_LETTER}(?![A-Za-z'\u2019])",
    re.IGNORECASE,
)
_ALONE = re.compile(rf"\A[\(\[\*\"'\s]*{_LETTER}[\)\]\*\"'\s]*(?:[.:,)\u2014-]|\Z)")
_MARKED = re.compile(rf"[\(\[]{_LETTER}[\)\]]|\*\*{_LETTER}[.:)]?\*\*")
_BARE = re.compile(rf"(?<![A-Za-z0-9'\u2019]){_LETTER}(?![A-Za-z0-9'\u2019])")
_NUMBER = re.compile(
    r"(?<![\w.,])([-+\u2212]?)(?:(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?|(\.\d+))(?:[eE]([-+]?\d{1,3}))?"
    r"(?:\s*/\s*(\d+(?:\.\d+)?))?\s*(%|percent\b|thousand\b|million\b|billion\b)?",
    re.IGNORECASE,
)
_SCALES = {"%": 0.01, "percent": 0.01, "thousand": 1e3, "million": 1e6, "billion": 1e9}
_WORDS = {
    **{"zero": 0.0, "one": 1.0, "two": 2.0, "three": 3.0, "four": 4.0, "five": 5.0, "six": 6.0, "seven": 7.0},
    **{"eight": 8.0, "nine": 9.0, "ten": 10.0, "eleven": 11.0, "twelve": 12.0, "thirteen": 13.0, "fourteen": 14.0},
    **{"fifteen": 15.0, "sixteen": 16.0, "seventeen": 17.0, "eighteen": 18.0, "nineteen": 19.0, "twenty": 20.0},
}
_WORD_AFTER = re.compile(r"\s+(?!(?:or|and|is|as|since|because|with|for)\b)[a-z]")
_ARTICLES = re.compile(r"\b(?:the|a|an)\b")
_PUNCTUATION = re.compile(r"[^\w\s.%+-]|(?<!\d)\.|\.(?!\d)|(?<=\w)-(?=[^\W\d])")


# -- multiple choice ---------------------------------------------------------------------------------------------------


def choice(text: str | None, options: Sequence[str] | Mapping[str, str] = (), letters: str = "ABCDEFGH") -> str | None:
    """The letter that an answer chooses, None where it chooses none or more than one.

    Read in this order: a letter alone ("B", "(B)", "B. a cat"), "the answer is B", one marked letter ("(B)"), one bare
    capital letter that is no word, the text of just one option.

    Args:
        text: the answer.
        options: their texts, by letter or in the order of the letters.
        letters: which letters there are; where options are given, theirs.

    >>> choice("The answer is (b), since it barks."), choice("It might be A or B."), choice("a cat", ["a dog", "a cat"])
    ('B', None, 'B')
    """
    by_letter = _lettered(options)
    known = "".join(by_letter) or letters
    for line in _likeliest(text):
        found = _letter(line, known, by_letter)
        if found:
            return found
    return None


def _lettered(options: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    return dict(options) if isinstance(options, Mapping) else dict(zip(ascii_uppercase, options, strict=False))


def _likeliest(text: str | None) -> list[str]:
    """What to look at, the likeliest first; runs of white space become one blank, which keeps the patterns linear."""
    if text is None or len(text) > 20_000:
        return []
    return [" ".join(piece.split()) for piece in (boxed(text), text) if piece]


def _letter(text: str, known: str, options: Mapping[str, str]) -> str | None:
    if text.casefold() in (one.casefold() for one in options.values()) and len(text) > 1:
        return _by_text(text, options)
    if (alone := _ALONE.match(text)) and alone[1] in known:
        return alone[1]
    if len(text) == 1 and text.upper() in known:
        return text.upper()
    for found in (
        {m[1].upper() for m in _SAID.finditer(text) if m[1].upper() in known and not _article(m, text)},
        {m[1] or m[2] for m in _MARKED.finditer(text) if (m[1] or m[2]) in known},
        {m[1] for m in _BARE.finditer(text) if m[1] in known and not _article(m, text)},
    ):
        if found:
            return found.pop() if len(found) == 1 else None
    return _by_text(text, options)


def _article(found: re.Match[str], text: str) -> bool:
    """Whether the letter is the word "a" or "I": more words follow it without a mark in between."""
    return found[1] in "aAI" and _WORD_AFTER.match(text, found.end(1)) is not None


def _by_text(text: str, options: Mapping[str, str]) -> str | None:
    said = f" {normal(text)} "
    hits = [(letter, normal(option)) for letter, option in options.items() if f" {normal(option)} " in said]
    hits = [(letter, one) for letter, one in hits if one]
    # "light red" says "red" too: what stands within a longer hit does not count by itself
    longest = [
        letter for letter, one in hits if not any(one != other and f" {one} " in f" {other} " for _, other in hits)
    ]
    return longest[0] if len(longest) == 1 else None


def choice_match(text: str | None, reference: Any, options: Sequence[str] | Mapping[str, str] = ()) -> float:
    """1.0 where the answer chooses the reference's option; the reference is a letter, or an option's text."""
    by_letter = _lettered(options)
    wanted = choice(str(reference), by_letter)
    return float(wanted is not None and choice(text, by_letter) == wanted)


# -- numbers -----------------------------------------------------------------------------------------------------------


def number(text: str | None) -> float | None:
    """The number that a text gives: the only one, or the last; None where there is none.

    Reads thousands separators, fractions, scientific notation, percents (as their share: 50% is 0.5), million, and the
    words zero to twenty.

    >>> number("about 1,250 m"), number("-3/4"), number("12.5%"), number("seven"), number("none")
    (1250.0, -0.75, 0.125, 7.0, None)
    """
    if text is None or len(text) > 20_000:
        return None
    found = list(_NUMBER.finditer(boxed(text) or text))
    if not found:
        words = [_WORDS[word] for word in re.findall(r"[a-z]+", text.casefold()) if word in _WORDS]
        return words[-1] if words else None
    sign, whole, part, small, power, below, scale = found[-1].groups()
    value = float(f"{(whole or '').replace(',', '')}{part or ''}{small or ''}e{power or 0}")
    if below:
        value = value / float(below) if float(below) else math.nan
    value *= _SCALES.get((scale or "").casefold(), 1.0)
    return (-value if sign in ("-", "\u2212") else value) if math.isfinite(value) else None


def number_match(text: str | None, reference: Any, relative: float = 0.0, absolute: float = 1e-9) -> float:
    """1.0 where the answer's number lies within a tolerance of the reference's.

    Args:
        text: the answer.
        reference: a number or a text with one.
        relative: allowed difference as a share of the reference (0.05 is what ChartQA allows).
        absolute: allowed difference in any case.

    A percent sign on one side only is taken as the same unit: "50%" matches 50 and 0.5.
    """
    given, wanted = number(text), number(str(reference))
    if given is None or wanted is None:
        return 0.0
    readings = {given}
    if ("%" in (text or "")) != ("%" in str(reference)):
        readings.add(given * 100 if "%" in (text or "") else given / 100)
    return float(any(abs(one - wanted) <= max(absolute, relative * abs(wanted)) for one in readings))


# -- words and formulas ------------------------------------------------------------------------------------------------


def normal(text: str) -> str:
    """A text for comparing: NFKC, lower case, without articles, punctuation and outer or doubled blanks."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("\u2212", "-")
    text = _PUNCTUATION.sub(" ", re.sub(r"(?<=\d),(?=\d{3}\b)", "", text))
    return " ".join(_ARTICLES.sub(" ", text).split())


def relaxed_match(text: str | None, reference: Any, relative: float = 0.05) -> float:
    """1.0 where the answer is the reference up to case, articles and punctuation, or its number is within 5 %.

    The numbers are compared where the reference is nothing but a number, except for years and other whole numbers that
    the answer writes as such, which must be equal. Source: relaxed accuracy of ChartQA (arXiv 2203.10244), made strict
    for whole numbers.

    Args:
        text: the answer.
        reference: the reference, or a list of references of which one must match.
        relative: tolerance for numbers that are not whole.
    """
    if isinstance(reference, (list, tuple)):
        return max((relaxed_match(text, one, relative) for one in reference), default=0.0)
    if text is None or len(text) > 20_000:
        return 0.0
    said, wanted = normal(boxed(text) or text), normal(str(reference))
    if said == wanted and wanted:
        return 1.0
    if not _NUMBER.fullmatch(wanted) or not _NUMBER.fullmatch(said):
        return 0.0
    whole = "." not in wanted and "." not in said and "%" not in wanted + said
    return number_match(said, wanted, 0.0 if whole else relative)


def token_f1(text: str | None, reference: Any) -> float:
    """F1 of the sets of words of the answer and of the reference; a list of references is taken as one set.

    Source: the open-ended tasks of ParaVT.

    >>> round(token_f1("the red car", "a red bus"), 3)
    0.5
    """
    if text is None or len(text) > 20_000:
        return 0.0
    listed = reference if isinstance(reference, (list, tuple)) else [reference]
    wanted = set(normal(" ".join(map(str, listed))).split())
    said = set(normal(boxed(text) or text).split())
    return 2.0 * len(said & wanted) / (len(said) + len(wanted)) if said and wanted else 0.0


def math_match(text: str | None, reference: Any) -> float:
    """1.0 where the answer is the same mathematical value or formula as the reference; see `formulas.same_formula`."""
    if text is None or len(text) > 20_000:
        return 0.0
    return float(same_formula(boxed(text) or text, boxed(str(reference)) or str(reference)))


def rule_match(text: str | None, reference: Any, metadata: Mapping[str, Any] | None = None) -> float:
    """The rules in order, the first that says yes: choice, relaxed text, formula. The fallback where no judge is.

    Args:
        text: the answer.
        reference: the reference, or a list of references of which one must match.
        metadata: of the task: `options` makes it a multiple-choice question, which is decided by the choice alone.

    Source: the order of LongVT's evaluation recipe, `lmms_lab_recipe.py`, whose last resort is a judge.
    """
    if isinstance(reference, (list, tuple)):
        return max((rule_match(text, one, metadata) for one in reference), default=0.0)
    options = (metadata or {}).get("options") or ()
    if options:
        return choice_match(text, reference, options)
    if re.fullmatch(r"[A-H]", str(reference).strip()):
        return float(choice(text) == str(reference).strip())
    if relaxed_match(text, reference, 0.0):
        return 1.0
    return math_match(text, reference) if evaluate(str(reference)) is not None else 0.0


# -- components --------------------------------------------------------------------------------------------------------


def within_length(text: str | None, most: int = TOO_LONG) -> bool:
    """Whether an answer is shorter than `most` characters. No answer is."""
    return text is None or len(text) < most


def scores(
    matcher: Callable[..., float], *, most: int = TOO_LONG, metadata: bool = False
) -> Callable[[Task, Trajectory], float | None]:
    """A reward component of a matcher: the policy's answer against the task's.

    Args:
        matcher: (answer, reference) -> 0..1; with `metadata`, (answer, reference, task.metadata).
        most: an answer of so many characters or more scores 0.
        metadata: pass the task's metadata on.

    Returns:
        A component; None (unscored) where the task has no reference.
    """

    @wraps(matcher)
    def component(task: Task, trajectory: Trajectory) -> float | None:
        if task.answer is None:
            return None
        if trajectory.answer is None or not within_length(trajectory.answer, most):
            return 0.0
        more = (task.metadata,) if metadata else ()
        return matcher(trajectory.answer, task.answer, *more)

    return component
