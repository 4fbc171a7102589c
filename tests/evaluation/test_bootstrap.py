import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.machine_speed import slowness
from tests.tolerances import EXACT

from athlos.evaluation.bootstrap import CHUNK_DRAWS, interval_of, ratio_of_sums, resampled


def rng(seed=12345):
    return np.random.default_rng(seed)


def resampled_means(values, *, resamples, generator):
    return resampled(np.mean, np.asarray(values), resamples=resamples, generator=generator)


def percentile_interval(values, *, resamples, generator):
    return interval_of(resampled_means(values, resamples=resamples, generator=generator))


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


def test_one_item_is_its_own_interval_and_none_has_no_interval():
    assert percentile_interval([0.5], resamples=9, generator=rng()) == (0.5, 0.5)
    with pytest.raises(ValueError, match="two or more observations"):
        percentile_interval([], resamples=9, generator=rng())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_an_interval_lies_within_the_values(values):
    low, high = percentile_interval(values, resamples=30, generator=rng())
    assert min(values) - EXACT <= low <= high <= max(values) + EXACT


def test_a_ratio_draws_items_with_all_their_parts():
    sums, counts = np.array([3.0, 1.0, 0.0, 8.0]), np.array([2.0, 1.0, 0.0, 5.0])
    found = resampled(ratio_of_sums, sums, counts, resamples=30, generator=rng())
    draws = rng().integers(0, 4, size=(30, 4))
    expected = [sum(sums[row]) / sum(counts[row]) for row in draws]
    assert list(found) == pytest.approx(expected, abs=EXACT)


def test_a_thousand_resamples_of_ten_thousand_items_take_no_more_than_two_seconds():
    values = rng(9).uniform(size=10_000)
    start = time.process_time()
    percentile_interval(values, resamples=1000, generator=rng())
    assert time.process_time() - start <= 2 * slowness()
