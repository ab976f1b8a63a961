"""Words of a query: any text at all, and never a query language."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentenv.tools.search.words import MAX_LENGTH, MAX_WORDS, STOP, prepared, query_words


def test_common_words_go_unless_nothing_else_is_left() -> None:
    assert query_words("Who was the king of France?") == ["king", "france"]
    assert query_words("To be or not to be") == ["to", "be", "or", "not"]
    assert query_words("") == query_words(' ()"*:^~-_ ') == []


def test_signs_of_scripts_without_blanks_stand_alone() -> None:
    assert query_words("東京は") == ["東", "京", "は"]
    assert prepared("in 東京").split() == ["in", "東", "京"]
    assert prepared("plain") == "plain"


def test_accents_are_composed_and_surrogates_go() -> None:
    assert prepared("Cafe\u0301s") == "Cafés"
    assert prepared("a\ud800é") == "a?é"


def test_marks_belong_to_their_words() -> None:
    assert query_words("राजधानी, مُحَمَّد") == ["राजधानी", "مُحَمَّد"]
    assert query_words("İzmir_x #5") == ["izmir", "x", "5"]
    assert query_words("수도이다") == ["수", "도", "이", "다"]
    assert query_words("«Straße»/№5… “quoted”") == ["straße", "5", "quoted"]


def test_a_query_is_bounded() -> None:
    assert len(query_words(" ".join(f"word{i}" for i in range(1000)))) == MAX_WORDS
    assert query_words("x" * (MAX_LENGTH + 1) + " short") == ["short"]


@given(st.text())
def test_any_text_gives_plain_words(text: str) -> None:
    words = query_words(text)
    assert len(words) == len(set(words)) <= MAX_WORDS
    assert all(word and '"' not in word and "_" not in word and not any(c.isspace() for c in word) for word in words)
    assert all(word not in STOP for word in words) or all(word in STOP for word in words)
