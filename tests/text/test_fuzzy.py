"""The fuzzy match score: exact values, the twin by the whole table, and what holds for every pair."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.retrieval import reference

from athlos.text.fuzzy import MatchUnit, fuzzy_match_score, match_units

WORDS = st.lists(st.sampled_from(["a", "b", "c", "über", "言"]), max_size=8)


@pytest.mark.parametrize(
    ("first", "second", "score"),
    [
        ("the user may not delete this page", "the user may delete this page", 6 / 7),
        ("Save changes", "Save all changes", 2 / 3),
        ("a b c d", "d c b a", 0.0),
        ("a b c d", "a b c d", 1.0),
        ("", "", 1.0),
        ("a", "", 0.0),
    ],
)
def test_exact_values(first, second, score):
    assert fuzzy_match_score(first.split(), second.split()) == pytest.approx(score, abs=1e-12)


@given(WORDS, WORDS)
def test_it_is_the_twins_symmetric_and_one_for_equal_texts_alone(first, second):
    score = fuzzy_match_score(first, second)
    assert score == pytest.approx(reference.fuzzy_match_score(first, second), abs=1e-12)
    assert score == fuzzy_match_score(second, first)
    assert 0 <= score <= 1
    assert (score == 1) == (first == second)


@pytest.mark.parametrize(
    ("text", "language", "options", "units"),
    [
        ("Save  the\tPage.", "en", {}, ["save", "the", "page."]),
        ("Save the Page.", "en", {"lower": False, "strip_punctuation": True}, ["Save", "the", "Page"]),
        ("保存 ページ", "ja", {}, ["保", "存", " ", "ペ", "ー", "ジ"]),
        ("ab c", "en", {"unit": MatchUnit.char}, ["a", "b", " ", "c"]),
        ("保存 页", "zh-CN", {"unit": MatchUnit.word}, ["保存", "页"]),
    ],
)
def test_units(text, language, options, units):
    assert match_units(text, language=language, **options) == units
