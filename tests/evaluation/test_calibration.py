import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluation import reference
from tests.tolerances import EXACT, FLOAT32, FLOAT64
from torchmetrics.functional.classification import binary_auroc, binary_calibration_error

from athlos.evaluation import calibration
from athlos.evaluation.metrics import Confidence

CONF = np.array([0.97, 0.91, 0.86, 0.77, 0.63, 0.54, 0.33, 0.21])
CORRECT = np.array([1.0, 1, 0, 1, 1, 0, 0, 0])

GRID = st.integers(0, 1000).map(lambda step: step / 1000)
ITEMS = st.lists(st.tuples(GRID, st.sampled_from([0.0, 1.0])), min_size=1, max_size=40)
UNTIED = st.lists(st.tuples(GRID, st.sampled_from([0.0, 1.0])), min_size=1, max_size=40, unique_by=lambda item: item[0])


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


@given(UNTIED, st.randoms(use_true_random=False))
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
    once, often = Confidence(calibration.MEASURES), Confidence(calibration.MEASURES)
    conf, correct = [*CONF, math.nan], [*CORRECT, 1.0]
    once.update(conf, correct)
    for start in (0, 4, 8):
        often.update(conf[start : start + 4], correct[start : start + 4])
    metrics, details = often.compute()
    assert once.compute() == (metrics, details)
    assert metrics == {name: measure(CONF, CORRECT) for name, measure in calibration.MEASURES.items()}
    assert (metrics["calibration_accuracy"], metrics["mean_confidence"]) == (0.5, pytest.approx(CONF.mean(), abs=EXACT))
    assert {(detail.n, detail.undefined) for detail in details.values()} == {(9, 1)}
