import math
import time

import pytest
from tests.machine_speed import slowness
from tests.tolerances import EXACT

from athlos.errors import DataError
from athlos.evaluation.answers import em_gap, em_std, score_answers

PREDICTIONS = ["The Beatles!", "It is Paris, France.", "北京。", "", "yes"]
GOLDS = [["beatles"], ["paris", "Lyon"], ["北京"], ["Rome"], ["no"]]
LANGUAGES = ["en", "en", "zh", "zh", "en"]


def test_item_scores_of_a_set():
    scores = score_answers(PREDICTIONS, GOLDS, LANGUAGES)
    assert scores == {
        "em": [1, 0, 1, 0, 0],
        "f1": [1, pytest.approx(2 / 5, abs=EXACT), 1, 0, 0],
        "cover_em": [1, 1, 1, 0, 0],
        "contains_not_em": [0, 1, 0, 0, 0],
        "answer_tokens": [1, 4, 2, 0, 1],
    }


def test_a_named_normaliser_holds_for_every_language():
    assert score_answers(["北京。"], [["北京"]], ["zh"], normaliser="mkqa")["em"] == [0]
    assert score_answers(["das Haus"], [["Haus"]], ["de"], normaliser="squad")["em"] == [0]
    assert score_answers(["das Haus"], [["Haus"]], ["de"])["em"] == [1]


def test_unequal_lengths_and_missing_golds_are_errors():
    with pytest.raises(ValueError, match="shorter"):
        score_answers(["a"], [], ["en"])
    with pytest.raises(DataError):
        score_answers(["a"], [[]], ["en"])
    assert score_answers([], [], []) == {
        name: [] for name in ("em", "f1", "cover_em", "contains_not_em", "answer_tokens")
    }


def test_gap_and_spread_over_languages():
    em = {"en": 0.6, "de": 0.4, "sw": 0.1}
    assert em_gap(em) == pytest.approx(0.35, abs=EXACT)
    assert em_std({"en": 0.6, "de": 0.2}) == pytest.approx(0.2, abs=EXACT)
    assert math.isnan(em_gap({"de": 0.4}))
    assert math.isnan(em_gap({"en": 0.4}))
    assert math.isnan(em_std({}))


def test_ten_thousand_predictions_take_no_more_than_two_seconds():
    predictions = [f"I believe it is the city of Paris {index}." for index in range(10_000)]
    golds = [[f"Paris {index}", "The City of Light"] for index in range(10_000)]
    start = time.process_time()
    score_answers(predictions, golds, ["en", "de"] * 5_000)
    assert time.process_time() - start <= 2 * slowness()
