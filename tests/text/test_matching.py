import time
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.machine_speed import slowness
from tests.text import reference
from tests.tolerances import EXACT, FLOAT64

from athlos.errors import DataError
from athlos.text.matching import (
    answer_length,
    clue_acc,
    contains_not_em,
    cover_em,
    exact_match,
    f1,
)

WORDS = st.lists(st.sampled_from(["the", "a", "Paris", "paris!", "new", "York,", "yes", "no", "京", "été"]), max_size=6)
ANSWERS = WORDS.map(" ".join)
ENGLISH = {"language": "en", "normaliser": "squad"}


def test_check_values_of_the_specification():
    assert exact_match("The Beatles!", ["beatles"], **ENGLISH) == 1
    assert f1("in New York City", ["New York"], **ENGLISH) == pytest.approx(0.666667, abs=FLOAT64)
    assert f1("yes", ["no"], **ENGLISH) == 0
    assert cover_em("It is Paris, France.", ["paris"], **ENGLISH) == 1


@given(ANSWERS, st.lists(ANSWERS.filter(str.strip), min_size=1, max_size=3))
def test_scores_equal_their_twins(prediction, golds):
    assert f1(prediction, golds, **ENGLISH) == pytest.approx(reference.best_f1(prediction, golds), abs=EXACT)
    assert cover_em(prediction, golds, **ENGLISH) == max(reference.covers(prediction, gold) for gold in golds)
    expected = float(any(reference.squad(prediction) == reference.squad(gold) for gold in golds))
    assert exact_match(prediction, golds, **ENGLISH) == expected


@given(ANSWERS, ANSWERS.filter(str.strip))
def test_exact_match_never_exceeds_cover_em_and_the_rest_is_contains_not_em(prediction, gold):
    em, covered = exact_match(prediction, [gold], **ENGLISH), cover_em(prediction, [gold], **ENGLISH)
    assert em <= covered
    assert contains_not_em(prediction, [gold], **ENGLISH) == covered - em


@given(WORDS, WORDS.filter(lambda words: " ".join(words).strip()))
def test_f1_is_one_exactly_for_equal_multisets(prediction, gold):
    tokens = [sorted(reference.squad(" ".join(words)).split()) for words in (prediction, gold)]
    closed = {"yes", "no"} & {reference.squad(" ".join(prediction)), reference.squad(" ".join(gold))}
    score = f1(" ".join(prediction), [" ".join(gold)], **ENGLISH)
    assert (score == 1) == (tokens[0] == tokens[1])
    assert not closed or score in (0, 1)


def test_the_best_gold_counts_in_any_order():
    for golds in permutations(["Rome", "New York City", "york"]):
        assert f1("York", list(golds), **ENGLISH) == 1
        assert exact_match("the york", list(golds), **ENGLISH) == 1


def test_a_closed_answer_gets_no_credit_for_a_common_token():
    assert f1("no way", ["no"], **ENGLISH) == 0
    assert f1("no", ["no way"], **ENGLISH) == 0
    assert f1("No.", ["no"], **ENGLISH) == 1
    assert f1("noanswer", ["noanswer given"], **ENGLISH) == 0


def test_an_empty_prediction_matches_only_a_gold_that_normalises_to_nothing():
    for score in (exact_match, f1, cover_em):
        assert score("", ["Paris"], **ENGLISH) == 0
        assert score("", ["The"], **ENGLISH) == 1
        # The empty string lies in every string; it must not cover this prediction.
        assert score("Paris", ["The"], **ENGLISH) == 0


@pytest.mark.parametrize("golds", [[], [""], ["Paris", "  "]])
def test_golds_that_are_missing_or_blank_are_an_error(golds):
    with pytest.raises(DataError, match="gold"):
        exact_match("Paris", golds, **ENGLISH)


def test_chinese_tokens_are_characters_and_punctuation_is_no_difference():
    chinese = {"language": "zh", "normaliser": "mkqa_unicode"}
    assert exact_match("北京。", ["北京"], **chinese) == 1
    assert exact_match("北京。", ["北京"], language="zh", normaliser="mkqa") == 0
    # Example of the MKQA test set: 6 tokens each, 5 of the second gold's 7 in common: 2 * 5 / (6 + 7).
    assert f1("这个一个苹果", ["这是还是苹果", "这是另一个苹果"], language="zh_cn", normaliser="mkqa") == pytest.approx(
        10 / 13, abs=EXACT
    )
    assert cover_em("答案是北京市", ["北京"], **chinese) == 1
    assert answer_length("答案是 北京。", **chinese) == 5


def test_bengali_and_thai_answers():
    bengali, thai = (
        {"language": "bn", "normaliser": "mkqa_unicode"},
        {"language": "th", "normaliser": "mkqa_unicode"},
    )
    assert exact_match("ঢাকা।", ["ঢাকা"], **bengali) == 1
    assert cover_em("คำตอบคือกรุงเทพ", ["กรุงเทพ"], **thai) == 1


def test_clue_accuracy_ignores_all_spaces():
    assert clue_acc("It is in NewYork", "new york.") == 1
    assert clue_acc("It is in York", "new york") == 0


def test_ten_thousand_predictions_take_no_more_than_two_seconds():
    predictions = [f"It is the city of Paris number {index}, in France." for index in range(10_000)]
    golds = [[f"Paris number {index}", "la Ville Lumière"] for index in range(10_000)]
    start = time.process_time()
    for prediction, answers in zip(predictions, golds, strict=True):
        for score in (exact_match, f1, cover_em):
            score(prediction, answers, language="fr", normaliser="mkqa_unicode")
        answer_length(prediction, language="fr", normaliser="mkqa_unicode")
    assert time.process_time() - start <= 2 * slowness()
