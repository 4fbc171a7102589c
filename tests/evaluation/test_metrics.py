"""The metrics that suites accumulate in: macro means, means over tokens, sums; nothing is counted twice or dropped."""

import math

import numpy as np
import pytest
import torch
import torchmetrics
from hypothesis import given
from hypothesis import strategies as st
from tests.tolerances import EXACT

from athlos.config.schema import EvalConfig
from athlos.evaluation.bootstrap import interval_of, ratio_of_sums, resampled
from athlos.evaluation.calibration import measures
from athlos.evaluation.metrics import Confidence, MacroMean, TokenMean, total
from athlos.evaluation.translation import CorpusScores


def rng(seed):
    return np.random.default_rng(seed)


def macro(values, groups, *, name, resamples, seed):
    mean = MacroMean(name, evaluation=EvalConfig(bootstrap=resamples, bootstrap_seed=seed))
    mean.update(values, groups)
    return mean.compute()


def test_macro_mean_gives_macro_and_parts_with_details():
    metrics, details = macro(
        [1, 0, 1, 1, 0, 0], ["de", "de", "de", "de", "en", "en"], name="acc", resamples=200, seed=1
    )
    assert metrics == {"acc": 0.375, "acc/de": 0.75, "acc/en": 0.0}  # the mean of the means, not of the six items
    assert (details["acc"].n, details["acc/de"].n, details["acc/en"].n) == (6, 4, 2)
    assert (details["acc/en"].low, details["acc/en"].high) == (0, 0)
    assert details["acc/de"].low < 0.75 < details["acc/de"].high
    # The parts are resampled each for itself: the macro interval is half that of the one language that varies.
    assert details["acc"].low == pytest.approx(details["acc/de"].low / 2, abs=EXACT)


def test_macro_mean_counts_undefined_values_and_never_drops_a_language():
    metrics, details = macro([1, math.nan, math.nan], ["de", "de", "en"], name="f1", resamples=10, seed=1)
    assert metrics["f1/de"] == 1
    assert math.isnan(metrics["f1/en"])
    assert math.isnan(metrics["f1"])
    assert [details[name].undefined for name in ("f1", "f1/de", "f1/en")] == [2, 1, 1]
    assert details["f1/en"].low is None
    assert details["f1"].low is None


def test_a_language_has_the_same_interval_whatever_stands_beside_it():
    values = list(rng(3).uniform(size=30))
    _, alone = macro(values, ["th"] * 30, name="m", resamples=50, seed=5)
    _, beside = macro([0.5, *values], ["de", *["th"] * 30], name="m", resamples=50, seed=5)
    _, other_seed = macro(values, ["th"] * 30, name="m", resamples=50, seed=6)
    assert alone["m/th"] == beside["m/th"] != other_seed["m/th"]
    _, twice = macro(values * 2, [*["th"] * 30, *["de"] * 30], name="m", resamples=50, seed=5)
    assert twice["m/th"] != twice["m/de"], "groups are drawn apart, or the macro interval would be too wide"


def test_macro_mean_without_items_or_resamples():
    metrics, details = macro([], [], name="acc", resamples=10, seed=1)
    assert math.isnan(metrics["acc"])
    assert list(metrics) == ["acc"]
    assert (details["acc"].n, details["acc"].low) == (0, None)
    metrics, details = macro([1.0], ["de"], name="acc", resamples=0, seed=1)
    assert (metrics["acc"], details["acc"].low, details["acc/de"].low) == (1.0, None, None)
    with pytest.raises(ValueError, match="one group a value"):
        macro([1.0], [], name="acc", resamples=10, seed=1)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from("abc")), min_size=1), st.randoms())
def test_the_order_of_items_does_not_change_the_means(items, random):
    shuffled = list(items)
    random.shuffle(shuffled)
    one, other = (macro(*zip(*order, strict=True), name="m", resamples=0, seed=1)[0] for order in (items, shuffled))
    assert one == pytest.approx(other, abs=EXACT)


def test_many_updates_equal_one():
    values, groups = list(rng(1).uniform(size=40)), [*"aab", *"cb" * 18, "a"]
    evaluation = EvalConfig(bootstrap=30)
    often = MacroMean("m", evaluation=evaluation)
    for start in range(0, 40, 7):
        often.update(values[start : start + 7], groups[start : start + 7])
    assert often.compute() == macro(values, groups, name="m", resamples=30, seed=evaluation.bootstrap_seed)
    often.reset()
    often.update([1.0, 0.5], ["b", "d"])
    assert often.compute()[0] == {"m": 0.75, "m/b": 1.0, "m/d": 0.5}


def test_a_mean_over_tokens_resamples_the_items_that_they_belong_to():
    values, items = rng(2).uniform(size=30), rng(3).integers(0, 4, size=30)  # item 4 has no token
    mean = TokenMean("nll", num_items=5, evaluation=EvalConfig(bootstrap=40, bootstrap_seed=9))
    plain = TokenMean("nll", num_items=5)
    for metric in (mean, plain):
        metric.update(values[:11], items[:11])
        metric.update(values[11:], items[11:])
    sums = np.array([sum(value for value, at in zip(values, items, strict=True) if at == item) for item in range(5)])
    sizes = np.array([float(sum(items == item)) for item in range(5)])
    assert [list(column) for column in mean.sums()] == [pytest.approx(list(sums), abs=EXACT), list(sizes)]
    metrics, details = mean.compute()
    assert metrics == plain.compute()[0] == {"nll": pytest.approx(sum(values) / 30, abs=EXACT)}
    low, high = interval_of(resampled(ratio_of_sums, *mean.sums(), resamples=40, generator=rng(9)))
    assert (details["nll"].n, details["nll"].low, details["nll"].high) == (30, low, high)
    assert plain.compute()[1]["nll"].low is None


def test_a_total_is_exact_and_an_undefined_part_is_not_dropped():
    sums = total()
    for value in (1e9, 0.1, -1e9):
        sums.update(value)
    assert sums.compute().item() == 1e9 + 0.1 - 1e9
    assert sums.compute().dtype == torch.float64
    sums.update(math.nan)
    assert math.isnan(sums.compute().item())


def test_no_metric_gathers_what_every_process_holds(monkeypatch):
    """As in one of two processes: a metric that gathered would count each item twice."""
    monkeypatch.setattr(torchmetrics.metric, "jit_distributed_available", lambda: True)
    monkeypatch.setattr(torchmetrics.metric, "gather_all_tensors", lambda value, group=None: [value, value])
    evaluation = EvalConfig(bootstrap=0)
    metrics = {
        total(): (2.0,),
        MacroMean("m", evaluation=evaluation): ([1.0, 0.0], ["a", "a"]),
        TokenMean("m", num_items=1): (np.ones(2), np.zeros(2, dtype=np.int64)),
        Confidence(measures()): ([0.5, 0.6], [1.0, 0.0]),
        CorpusScores("de", evaluation=evaluation): (["a", "b"], ["a", "b"]),
    }
    for metric, arguments in metrics.items():
        metric.update(*arguments)
        computed = metric.compute()
        if isinstance(computed, torch.Tensor):
            assert computed.item() == 2.0
        else:
            assert {detail.n for detail in computed[1].values()} == {2}
