import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from tests.evaluation import reference
from tests.tolerances import EXACT, FLOAT32, FLOAT64
from torchmetrics.functional.classification import binary_auroc, binary_calibration_error

from athlos.evaluation import calibration, metrics

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
    bins = calibration.width_bins(np.array([0.95, 1.0, 0.0]), np.array([1.0, 0.0, 0.0]), num_bins=10)
    assert [(bar.n, bar.accuracy) for bar in bins] == [(1, 0.0), (2, 0.5)]


def test_an_edge_belongs_to_the_bin_above_it():
    bins = calibration.width_bins(np.array([0.6, 0.59]), np.array([1.0, 0.0]), num_bins=5)
    assert [bar.n for bar in bins] == [1, 1]


def test_bins_of_mass_are_of_equal_count_and_not_of_equal_width():
    conf = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.99])
    assert [bar.n for bar in calibration.mass_bins(conf, np.ones(6), num_bins=3)] == [2, 2, 2]
    assert [bar.n for bar in calibration.width_bins(conf, np.ones(6), num_bins=3)] == [5, 1]


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


@given(UNTIED, st.floats(0.2, 5))
def test_temperature_leaves_the_ranking(items, temperature):
    conf, correct = columns(items)
    # Below the clipping bound two confidences would become one.
    conf = 0.001 + 0.998 * conf
    scaled = calibration.scale_temperature(conf, temperature)
    assert calibration.auroc(scaled, correct) == pytest.approx(calibration.auroc(conf, correct), abs=EXACT, nan_ok=True)
    assert calibration.aurc(scaled, correct) == pytest.approx(calibration.aurc(conf, correct), abs=EXACT)


def test_one_temperature_changes_nothing_and_a_high_one_flattens():
    assert calibration.scale_temperature(CONF, 1.0) == pytest.approx(CONF, abs=EXACT)
    assert calibration.scale_temperature([1.0, 0.0], 1.0) == pytest.approx([1 - 1e-6, 1e-6], abs=EXACT)
    assert calibration.scale_temperature([0.9], 1e6) == pytest.approx([0.5], abs=FLOAT64)


def test_the_fitted_temperature_has_the_least_log_loss():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.05, 0.95, 400)
    correct = (rng.uniform(size=400) < truth).astype(float)
    conf = calibration.scale_temperature(truth, 0.4)  # overconfident: the right temperature is about 2.5
    best = minimize_scalar(
        lambda log_t: reference.log_loss(calibration.scale_temperature(conf, math.exp(log_t)), correct),
        bounds=(-3, 3), method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    fitted = calibration.fit_temperature(conf, correct)
    assert fitted == pytest.approx(math.exp(best.x), rel=FLOAT32)
    assert 2 < fitted < 3
    before, after = (
        calibration.ece_mass(conf, correct),
        calibration.ece_mass(calibration.scale_temperature(conf, fitted), correct),
    )
    assert after < before


def test_platt_finds_slope_and_bias_where_the_gradient_vanishes():
    rng = np.random.default_rng(1)
    conf = rng.uniform(0.02, 0.98, 500)
    correct = (rng.uniform(size=500) < calibration.scale_platt(conf, 0.5, -1.0)).astype(float)
    slope, bias = calibration.fit_platt(conf, correct)
    logits = np.log(conf / (1 - conf))
    residual = calibration.scale_platt(conf, slope, bias) - correct
    assert np.mean(residual) == pytest.approx(0, abs=FLOAT64)
    assert np.mean(residual * logits) == pytest.approx(0, abs=FLOAT64)
    assert (slope, bias) == (pytest.approx(0.5, abs=0.2), pytest.approx(-1.0, abs=0.3))


def test_separable_confidence_is_fitted_within_bounds():
    conf, correct = np.array([0.6, 0.7, 0.3, 0.4]), np.array([1.0, 1, 0, 0])
    assert calibration.fit_temperature(conf, correct) == pytest.approx(1e-3, rel=FLOAT32)
    assert all(map(math.isfinite, calibration.fit_platt(conf, correct)))
    with pytest.raises(ValueError, match="zero items"):
        calibration.fit_temperature([math.nan], [1.0])


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


def test_self_knowledge_check_values():
    rows = [(True, True, True)] * 50 + [(True, False, False)] * 20 + [(False, False, True)] * 10
    rows += [(False, False, False)] * 20
    found = calibration.self_knowledge(*zip(*rows, strict=True))
    assert (found.ar, found.kei, found.npv, found.cbs, found.cae) == pytest.approx(
        (0.714286, 0.833333, 0.666667, 0.769231, 0.70), abs=FLOAT64
    )


def test_self_knowledge_with_all_refused_is_undefined_where_nothing_was_answered():
    found = calibration.self_knowledge([False, False], [False, False], [False, False])
    assert math.isnan(found.ar)
    assert math.isnan(found.kei)
    assert math.isnan(found.cbs)
    assert (found.npv, found.cae) == (1.0, 1.0)


CLASSES = {
    metrics.EceMass: calibration.ece_mass, metrics.EceWidth: calibration.ece_width, metrics.Mce: calibration.mce,
    metrics.Brier: calibration.brier, metrics.Auroc: calibration.auroc, metrics.Aurc: calibration.aurc,
    metrics.EAurc: calibration.e_aurc,
}  # fmt: skip


@pytest.mark.parametrize("metric_class", CLASSES, ids=lambda found: found.__name__)
def test_many_updates_equal_one_and_the_pure_function(metric_class):
    once, often = metric_class(), metric_class()
    conf, correct = torch.tensor([*CONF, math.nan]), torch.tensor([*CORRECT, 1.0])
    once.update(conf, correct)
    for part_conf, part_correct in zip(conf.split(4), correct.split(4), strict=True):
        often.update(part_conf, part_correct)
    expected = CLASSES[metric_class](CONF, CORRECT)
    assert once.compute().item() == often.compute().item() == pytest.approx(expected, abs=EXACT)
    assert often.num_undefined == 1
    assert once.compute().dtype == torch.float64


def test_a_binned_metric_obeys_its_number_of_bins():
    metric = metrics.EceWidth(num_bins=5)
    metric.update(torch.tensor(CONF), torch.tensor(CORRECT))
    assert metric.compute().item() == pytest.approx(0.3025, abs=FLOAT64)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_a_metric_without_items_is_nan():
    assert math.isnan(metrics.Brier().compute().item())
