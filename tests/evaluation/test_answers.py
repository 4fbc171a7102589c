import math
import time

import pytest
import torch
from tests.tolerances import EXACT

from athlos.errors import DataError
from athlos.evaluation.answers import em_gap, em_std, relative_gain, score_answers
from athlos.evaluation.metrics import F1, CoverEM, ExactMatch, MathAccuracy, Perplexity, Throughput

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


def test_gap_spread_and_gain_over_languages():
    em = {"en": 0.6, "de": 0.4, "sw": 0.1}
    assert em_gap(em) == pytest.approx(0.35, abs=EXACT)
    assert em_std({"en": 0.6, "de": 0.2}) == pytest.approx(0.2, abs=EXACT)
    assert math.isnan(em_gap({"de": 0.4}))
    assert math.isnan(em_gap({"en": 0.4}))
    assert math.isnan(em_std({}))
    assert relative_gain(0.6, 0.4) == pytest.approx(0.5, abs=EXACT)
    assert math.isnan(relative_gain(0.6, 0.0))


def test_ten_thousand_predictions_take_no_more_than_two_seconds():
    predictions = [f"I believe it is the city of Paris {index}." for index in range(10_000)]
    golds = [[f"Paris {index}", "The City of Light"] for index in range(10_000)]
    start = time.perf_counter()
    score_answers(predictions, golds, ["en", "de"] * 5_000)
    assert time.perf_counter() - start <= 2


@pytest.mark.parametrize(("metric_class", "name"), [(ExactMatch, "em"), (F1, "f1"), (CoverEM, "cover_em")])
def test_many_updates_equal_one_and_the_pure_scores(metric_class, name):
    once, often = metric_class(["en", "zh"]), metric_class(["en", "zh"])
    once.update(PREDICTIONS, GOLDS, LANGUAGES)
    for start in (0, 2, 3):
        stop = {0: 2, 2: 3, 3: 5}[start]
        often.update(PREDICTIONS[start:stop], GOLDS[start:stop], LANGUAGES[start:stop])
    values = score_answers(PREDICTIONS, GOLDS, LANGUAGES)[name]
    english = (values[0] + values[1] + values[4]) / 3
    chinese = (values[2] + values[3]) / 2
    expected = {name: (english + chinese) / 2, f"{name}/en": english, f"{name}/zh": chinese}
    for metric in (once, often):
        assert {key: value.item() for key, value in metric.compute().items()} == pytest.approx(expected, abs=EXACT)
        assert metric.details[f"{name}/en"].n == 3


def test_a_metric_obeys_its_normaliser_and_its_resamples():
    metric = ExactMatch(["zh"], normaliser="mkqa", resamples=20, seed=3)
    metric.update(["北京。", "北京"], [["北京"], ["北京"]], ["zh", "zh"])
    assert metric.compute()["em"].item() == 0.5
    assert metric.details["em"].low <= 0.5 <= metric.details["em"].high


def test_a_language_that_was_not_announced_is_refused():
    with pytest.raises(ValueError, match="not in list"):
        ExactMatch(["en"]).update(["x"], [["x"]], ["de"])


def test_reset_forgets_and_a_metric_without_items_is_nan():
    metric = ExactMatch(["en"])
    metric.update(["x"], [["x"]], ["en"])
    metric.reset()
    metric.update([], [], [])
    assert math.isnan(metric.compute()["em"].item())


def test_maths_accuracy_by_language():
    metric = MathAccuracy(["en", "bn"])
    metric.update([r"so \boxed{72}", "উত্তর হল ৭২", "no idea"], ["72", "72", "5"], ["en", "bn", "bn"])
    assert {name: value.item() for name, value in metric.compute().items()} == {
        "acc": 0.75, "acc/en": 1.0, "acc/bn": 0.5,
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_perplexity_is_over_tokens_and_not_over_batches():
    metric = Perplexity()
    metric.update(torch.tensor(6.0), 3)
    metric.update(torch.tensor(1.0), 4)
    assert metric.compute().item() == pytest.approx(math.exp(7 / 7), abs=EXACT)
    assert math.isnan(Perplexity().compute().item())


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_throughput_is_all_tokens_over_all_time():
    metric = Throughput()
    metric.update(100, 2.0)
    metric.update(200, 1.0)
    assert metric.compute().item() == pytest.approx(100.0, abs=EXACT)
    assert math.isnan(Throughput().compute().item())
