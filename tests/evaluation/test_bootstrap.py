import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tolerances import EXACT

from athlos.evaluation.bootstrap import CHUNK_DRAWS, paired_bootstrap, percentile_interval, resampled_means
from athlos.evaluation.metrics import by_language


def rng(seed=12345):
    return np.random.default_rng(seed)


def loop_means(values, resamples, generator):
    """Twin: the same draws, one resample at a time."""
    draws = generator.integers(0, len(values), size=(resamples, len(values)))
    return [sum(values[index] for index in row) / len(values) for row in draws]


def test_vectorised_means_equal_a_loop_over_the_same_draws():
    values = [0.0, 1.0, 0.25, 0.5, 1.0]
    found = resampled_means(values, resamples=40, generator=rng())
    assert list(found) == pytest.approx(loop_means(values, 40, rng()), abs=EXACT)


def test_chunks_change_nothing():
    values = np.arange(CHUNK_DRAWS // 10, dtype=float)
    found = resampled_means(values, resamples=25, generator=rng())  # more than two chunks
    generator = rng()
    whole = np.concatenate([values[generator.integers(0, len(values), size=(10, len(values)))].mean(1) for _ in "ab"])
    assert list(found[:20]) == list(whole)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    truth = rng(1)
    covered = 0
    for trial in range(200):
        low, high = percentile_interval(truth.normal(0.0, 1.0, 60), resamples=400, generator=rng(trial))
        covered += low <= 0.0 <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_the_interval_matches_the_normal_one_on_many_items():
    values = rng(2).normal(3.0, 2.0, 4000)
    low, high = percentile_interval(values, resamples=2000, generator=rng())
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half / 8)


def test_the_seed_decides():
    values = list(rng(3).uniform(size=50))
    same = [percentile_interval(values, resamples=100, generator=rng(7)) for _ in range(2)]
    assert same[0] == same[1] != percentile_interval(values, resamples=100, generator=rng(8))


def test_undefined_values_are_left_out_and_nothing_gives_no_interval():
    kept = percentile_interval([0.0, math.nan, 1.0], resamples=50, generator=rng())
    assert kept == percentile_interval([0.0, 1.0], resamples=50, generator=rng())
    assert percentile_interval([math.nan], resamples=50, generator=rng()) is None
    assert percentile_interval([1.0], resamples=0, generator=rng()) is None
    assert percentile_interval([0.5], resamples=9, generator=rng()) == (0.5, 0.5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_an_interval_lies_within_the_values(values):
    low, high = percentile_interval(values, resamples=30, generator=rng())
    assert min(values) - EXACT <= low <= high <= max(values) + EXACT


def test_paired_systems_that_differ_and_that_do_not():
    b = rng(4).uniform(size=300)
    better = paired_bootstrap(list(b + 0.1 + rng(5).normal(0, 0.05, 300)), list(b), resamples=1000, generator=rng())
    assert better.difference == pytest.approx(0.1, abs=0.01)
    assert 0 < better.low < better.difference < better.high
    assert better.p == pytest.approx(2 / 1001, abs=EXACT)  # no resample at or below zero
    same = paired_bootstrap(list(b), list(b), resamples=100, generator=rng())
    assert (same.difference, same.low, same.high, same.p, same.n) == (0, 0, 0, 1, 300)


def test_pairing_is_by_item_and_the_sign_is_a_less_b():
    a, b = [1.0, 0.0, 1.0, math.nan], [0.0, 0.0, 0.0, 1.0]
    found = paired_bootstrap(a, b, resamples=200, generator=rng())
    turned = paired_bootstrap(b, a, resamples=200, generator=rng())
    assert (found.n, found.difference) == (3, pytest.approx(2 / 3, abs=EXACT))
    assert (turned.difference, turned.low, turned.high) == (-found.difference, -found.high, -found.low)
    assert turned.p == found.p
    with pytest.raises(ValueError, match="same items"):
        paired_bootstrap([1.0], [1.0, 0.0], resamples=10, generator=rng())


def test_p_is_uniform_enough_under_no_difference():
    source = rng(6)
    ps = [paired_bootstrap(source.normal(size=80), source.normal(size=80), resamples=200, generator=rng(i)).p
          for i in range(200)]  # fmt: skip
    assert 0.005 <= np.mean(np.array(ps) < 0.05) <= 0.12
    assert 0.3 <= np.mean(ps) <= 0.65


def test_a_thousand_resamples_of_ten_thousand_items_take_no_more_than_two_seconds():
    values = rng(9).uniform(size=10_000)
    start = time.perf_counter()
    percentile_interval(values, resamples=1000, generator=rng())
    assert time.perf_counter() - start <= 2


def test_by_language_gives_macro_and_parts_with_details():
    metrics, details = by_language(
        [1, 0, 1, 1, 0, 0], ["de", "de", "de", "de", "en", "en"], name="acc", resamples=200, seed=1
    )
    assert metrics == {"acc": 0.375, "acc/de": 0.75, "acc/en": 0.0}  # the mean of the means, not of the six items
    assert (details["acc"].n, details["acc/de"].n, details["acc/en"].n) == (6, 4, 2)
    assert (details["acc/en"].low, details["acc/en"].high) == (0, 0)
    assert details["acc/de"].low < 0.75 < details["acc/de"].high
    # The parts are resampled each for itself: the macro interval is half that of the one language that varies.
    assert details["acc"].low == pytest.approx(details["acc/de"].low / 2, abs=EXACT)


def test_by_language_counts_undefined_values_and_never_drops_a_language():
    metrics, details = by_language([1, math.nan, math.nan], ["de", "de", "en"], name="f1", resamples=10, seed=1)
    assert metrics["f1/de"] == 1
    assert math.isnan(metrics["f1/en"])
    assert math.isnan(metrics["f1"])
    assert [details[name].undefined for name in ("f1", "f1/de", "f1/en")] == [2, 1, 1]
    assert details["f1/en"].low is None
    assert details["f1"].low is None


def test_a_language_has_the_same_interval_whatever_stands_beside_it():
    values = list(rng(3).uniform(size=30))
    _, alone = by_language(values, ["th"] * 30, name="m", resamples=50, seed=5)
    _, beside = by_language([0.5, *values], ["de", *["th"] * 30], name="m", resamples=50, seed=5)
    _, other_seed = by_language(values, ["th"] * 30, name="m", resamples=50, seed=6)
    assert alone["m/th"] == beside["m/th"] != other_seed["m/th"]


def test_by_language_without_items_or_resamples():
    metrics, details = by_language([], [], name="acc", resamples=10, seed=1)
    assert math.isnan(metrics["acc"])
    assert list(metrics) == ["acc"]
    assert (details["acc"].n, details["acc"].low) == (0, None)
    metrics, details = by_language([1.0], ["de"], name="acc", resamples=0, seed=1)
    assert (metrics["acc"], details["acc"].low, details["acc/de"].low) == (1.0, None, None)
    with pytest.raises(ValueError, match="one language a value"):
        by_language([1.0], [], name="acc", resamples=10, seed=1)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from("abc")), min_size=1), st.randoms())
def test_the_order_of_items_does_not_change_the_means(items, random):
    shuffled = list(items)
    random.shuffle(shuffled)
    one, other = (
        by_language(*zip(*order, strict=True), name="m", resamples=0, seed=1)[0] for order in (items, shuffled)
    )
    assert one == pytest.approx(other, abs=EXACT)
