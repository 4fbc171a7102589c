import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score
from tests.evaluation import reference
from tests.tolerances import EXACT, FLOAT32, FLOAT64
from torchmetrics.functional.classification import binary_auroc, binary_calibration_error

from athlos.evaluation import calibration
from athlos.evaluation.metrics import Confidence

CONF = np.array([0.97, 0.91, 0.86, 0.77, 0.63, 0.54, 0.33, 0.21])
CORRECT = np.array([1.0, 1, 0, 1, 1, 0, 0, 0])

GRID = st.one_of(st.integers(0, 1000).map(lambda step: step / 1000), st.sampled_from([0.0, 0.3, 1.0]))
ITEMS = st.lists(st.tuples(GRID, st.sampled_from([0.0, 1.0])), min_size=1, max_size=40)


def columns(items):
    return np.array([conf for conf, _ in items]), np.array([correct for _, correct in items])


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        (lambda c, y: calibration.ece_mass(c, y, num_bins=4), 0.1825),
        (lambda c, y: calibration.ece_width(c, y, num_bins=5), 0.3025),
        (lambda c, y: calibration.ece_width(c, y, num_bins=10), 0.3325),
        (calibration.brier, 0.172875),
        (calibration.auroc, 0.875),
        (calibration.aurc, 0.255655),
        (lambda c, y: calibration.aurc(y, y), 0.182738),
        (calibration.e_aurc, 0.072917),
    ],
)
def test_check_values_of_the_specification(measure, expected):
    assert measure(CONF, CORRECT) == pytest.approx(expected, abs=FLOAT64)


@given(ITEMS, st.integers(1, 20))
def test_measures_equal_their_twins(items, num_bins):
    conf, correct = columns(items)
    mass = reference.mass_parts(list(conf), list(correct), num_bins)
    width = reference.width_parts(list(conf), list(correct), num_bins)
    found = {
        "ece_mass": calibration.ece_mass(conf, correct, num_bins=num_bins),
        "ece_width": calibration.ece_width(conf, correct, num_bins=num_bins),
        "mce": calibration.mce(conf, correct, num_bins=num_bins),
        "brier": calibration.brier(conf, correct),
        "auroc": calibration.auroc(conf, correct),
        "aurc": calibration.aurc(conf, correct),
        "e_aurc": calibration.e_aurc(conf, correct),
    }
    expected = {
        "ece_mass": reference.expected_error(mass),
        "ece_width": reference.expected_error(width),
        "mce": max(reference.gaps(mass)),
        "brier": reference.brier(conf, correct),
        "auroc": reference.auroc(conf, correct),
        "aurc": reference.aurc(conf, correct),
        "e_aurc": reference.e_aurc(conf, correct),
    }
    assert found == pytest.approx(expected, abs=EXACT, nan_ok=True)


@given(ITEMS)
def test_torchmetrics_agrees_on_width_bins_and_auroc(items):
    conf, correct = columns(items)
    # torchmetrics puts a confidence of exactly 1 in a bin of its own, and its float32 edges move the grid's tenths.
    conf = np.clip(conf, 0, 0.999) + 1e-4
    preds, target = torch.tensor(conf), torch.tensor(correct).long()
    error = binary_calibration_error(preds, target, n_bins=15, norm="l1")
    assert calibration.ece_width(conf, correct) == pytest.approx(float(error), abs=FLOAT32)
    if 0 < correct.sum() < len(correct):
        area = binary_auroc(preds, target, thresholds=None)
        assert calibration.auroc(conf, correct) == pytest.approx(float(area), abs=FLOAT32)


def test_a_confidence_of_one_lies_in_the_last_bin_of_width():
    bins = calibration.width_bins(np.array([0.95, 1.0, 0.0]), num_bins=10)
    assert [list(group) for group in bins] == [[2], [0, 1]]


def test_an_edge_belongs_to_the_bin_above_it():
    bins = calibration.width_bins(np.array([0.6, 0.59]), num_bins=5)
    assert [list(group) for group in bins] == [[1], [0]]


def test_bins_of_mass_are_of_equal_count_and_not_of_equal_width():
    conf = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.99])
    assert [len(group) for group in calibration.mass_bins(conf, num_bins=3)] == [2, 2, 2]
    assert [len(group) for group in calibration.width_bins(conf, num_bins=3)] == [5, 1]


@given(ITEMS, st.randoms(use_true_random=False))
def test_the_order_of_items_changes_nothing(items, random):
    shuffled = list(items)
    random.shuffle(shuffled)
    for measure in (calibration.ece_mass, calibration.mce, calibration.brier, calibration.auroc, calibration.aurc):
        assert measure(*columns(items)) == pytest.approx(measure(*columns(shuffled)), abs=EXACT, nan_ok=True)


@given(ITEMS)
def test_errors_lie_between_zero_and_one(items):
    conf, correct = columns(items)
    for measure in (calibration.ece_mass, calibration.ece_width, calibration.mce, calibration.brier, calibration.aurc):
        assert 0 <= measure(conf, correct) <= 1
    assert calibration.e_aurc(conf, correct) >= -EXACT


def test_undefined_is_nan_and_unparsed_is_counted():
    conf, correct, left_out = calibration.defined([0.5, math.nan, 1.0], [1, 1, 0])
    assert (list(conf), list(correct), left_out) == ([0.5, 1.0], [1, 0], 1)
    nothing = np.zeros(0)
    for measure in (calibration.ece_mass, calibration.ece_width, calibration.mce, calibration.brier, calibration.aurc):
        assert math.isnan(measure(nothing, nothing))
    assert math.isnan(calibration.auroc(np.array([0.3, 0.4]), np.ones(2)))
    assert calibration.auroc(np.array([0.3, 0.3]), np.array([1.0, 0.0])) == 0.5


@pytest.mark.parametrize(
    ("conf", "correct", "message"),
    [([1.2], [1], "confidences in"), ([0.5], [0.5], "correctness of 0 or 1"), ([0.5, 0.6], [1], "one correctness a")],
)
def test_impossible_input_is_refused(conf, correct, message):
    with pytest.raises(ValueError, match=message):
        calibration.defined(conf, correct)


def test_many_updates_equal_one_and_the_pure_measures():
    once, often = Confidence(calibration.measures()), Confidence(calibration.measures())
    conf, correct = [*CONF, math.nan], [*CORRECT, 1.0]
    once.update(conf, correct)
    for start in (0, 4, 8):
        often.update(conf[start : start + 4], correct[start : start + 4])
    metrics, details = often.compute()
    assert once.compute() == (metrics, details)
    assert metrics == {name: measure(CONF, CORRECT) for name, measure in calibration.measures().items()}
    assert (metrics["calibration_accuracy"], metrics["mean_confidence"]) == (0.5, pytest.approx(CONF.mean(), abs=EXACT))
    assert {(detail.n, detail.undefined) for detail in details.values()} == {(9, 1)}


def test_bins_that_are_not_fifteen_stand_in_the_names():
    assert {"ece_mass@10", "ece_debiased@10", "ece_width@10", "mce@10", "brier"} <= set(calibration.measures(10))
    assert calibration.measures(4)["ece_mass@4"](CONF, CORRECT) == pytest.approx(0.1825, abs=FLOAT64)


@given(ITEMS)
def test_scikit_learn_agrees_on_brier_and_auroc(items):
    conf, correct = columns(items)
    assert calibration.brier(conf, correct) == pytest.approx(brier_score_loss(correct, conf), abs=EXACT)
    if 0 < correct.sum() < len(correct):
        assert calibration.auroc(conf, correct) == pytest.approx(roc_auc_score(correct, conf), abs=EXACT)


def test_the_debiased_error_is_that_of_resampled_bins():
    """Twice the error less the mean over redrawn accuracies of the bins, in a simulation."""
    rng = np.random.default_rng(3)
    conf = rng.uniform(size=600)
    correct = (rng.uniform(size=600) < conf).astype(float)
    parts = reference.mass_parts(list(conf), list(correct), 15)
    redrawn = []
    for _ in range(4000):
        error = 0.0
        for part in parts:
            accuracy = reference.mean([item[1] for item in part])
            confidence = reference.mean([item[0] for item in part])
            drawn = accuracy + rng.normal() * math.sqrt(accuracy * (1 - accuracy) / len(part))
            error += len(part) / 600 * abs(drawn - confidence)
        redrawn.append(error)
    plain = calibration.ece_mass(conf, correct)
    found = calibration.ece_debiased(conf, correct)
    assert found == pytest.approx(max(0.0, 2 * plain - reference.mean(redrawn)), abs=1e-3)
    assert found < plain  # the data are calibrated, so what the plain error shows is noise


def test_nothing_is_taken_from_an_error_without_noise():
    conf, correct = np.full(30, 0.6), np.ones(30)
    assert calibration.ece_debiased(conf, correct) == pytest.approx(0.4, abs=EXACT)


def test_a_reliability_diagram_has_the_bins_of_the_error():
    bins = calibration.reliability(CONF, CORRECT, num_bins=4)
    assert [point.n for point in bins] == [2, 2, 2, 2]
    error = sum(point.n / 8 * abs(point.accuracy - point.confidence) for point in bins)
    assert error == pytest.approx(0.1825, abs=FLOAT64)
    assert all(0 <= point.low < point.high <= 1 for point in bins)
    assert [point.accuracy for point in bins] == [0.0, 0.5, 0.5, 1.0]


@given(ITEMS, st.floats(0.1, 10))
def test_scaling_keeps_the_order(items, temperature):
    conf, correct = columns(items)
    conf = np.clip(conf, 0.01, 0.99)
    changed = calibration.scaled(conf, temperature)
    for measure in (calibration.auroc, calibration.aurc):
        assert measure(changed, correct) == pytest.approx(measure(conf, correct), abs=EXACT, nan_ok=True)
    assert calibration.scaled(conf, 1.0) == pytest.approx(conf, abs=EXACT)


def test_the_temperature_has_the_least_log_loss():
    rng = np.random.default_rng(5)
    true = rng.uniform(0.05, 0.95, size=3000)
    correct = (rng.uniform(size=3000) < true).astype(float)
    conf = 1 / (1 + ((1 - true) / true) ** 2.5)  # logits 2.5 times too large
    found = calibration.fit_temperature(conf, correct)
    assert found == pytest.approx(2.5, rel=0.1)
    best = reference.log_loss(conf, correct, found)
    assert all(best <= reference.log_loss(conf, correct, found * change) for change in (0.8, 0.95, 1.05, 1.25))
    assert calibration.ece_mass(calibration.scaled(conf, found), correct) < calibration.ece_mass(conf, correct)
    assert math.isnan(calibration.fit_temperature(np.zeros(0), np.zeros(0)))


def knowledge(tp, fp, fn, tn):
    answered = [1] * (tp + fp) + [0] * (fn + tn)
    right = [1] * tp + [0] * (fp + fn + tn)
    known = [1] * (tp + fp + fn) + [0] * tn
    return answered, right, known


def test_self_knowledge_of_the_specification():
    flags = knowledge(50, 20, 10, 20)
    assert reference.self_knowledge(*flags) == {"tp": 50, "fp": 20, "fn": 10, "tn": 20}
    expected = {"ar": 0.714286, "kei": 0.833333, "npv": 0.666667, "cbs": 0.769231, "cae": 0.70}
    assert calibration.self_knowledge(*flags) == pytest.approx(expected, abs=FLOAT64)


def test_who_refuses_all_has_no_answer_to_be_right_in():
    found = calibration.self_knowledge(*knowledge(0, 0, 3, 1))
    assert math.isnan(found["ar"])
    assert math.isnan(found["cbs"])
    assert (found["kei"], found["npv"], found["cae"]) == (0.0, 0.25, 0.25)


def test_the_threshold_of_refusal_has_the_greatest_cbs():
    threshold = calibration.refusal_threshold(CONF, CORRECT, CORRECT)
    scores = {t: calibration.self_knowledge(t <= CONF, CORRECT, CORRECT)["cbs"] for t in CONF}
    assert scores[threshold] == max(score for score in scores.values() if not math.isnan(score))
    assert calibration.refusal_threshold(CONF, np.zeros(8), np.zeros(8)) == 0.0
