"""Counts to probabilities: the specification's values, the naive twin, scipy's roots, and properties."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import toms748
from tests.methods.ndp import reference_targets as reference
from tests.tolerances import EXACT, FLOAT64

from athlos.errors import DataError
from athlos.methods.ndp.config import Smooth
from athlos.methods.ndp.smoothing import Counts, batch_temperatures, row_sums, row_temperatures, smoothed
from athlos.methods.ndp.targets import capped, count_weights, entropies, mixed

V = 23
RATIO = 1e-9
"""Two root searches of one temperature."""


def counts_of(*counters: dict[int, int]) -> Counts:
    sizes = [len(counter) for counter in counters]
    return Counts(
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        token_ids=np.array([token for counter in counters for token in counter], dtype=np.int64),
        counts=np.array([count for counter in counters for count in counter.values()], dtype=np.float64),
    )


def dense_of(found, vocab_size: int = V) -> np.ndarray:
    rows = np.repeat(found.leak[:, None], vocab_size, axis=1)
    row_of = np.repeat(np.arange(len(found)), np.diff(found.offsets))
    rows[row_of, found.token_ids] = found.probs
    return rows


def smooth_one(mode: str, zero_prob: float, *counters: dict[int, int], vocab_size: int = V, **more):
    return smoothed(counts_of(*counters), smooth=Smooth(mode), zero_prob=zero_prob, vocab_size=vocab_size, **more)


COUNTERS = st.lists(
    st.dictionaries(st.integers(0, V - 1), st.integers(1, 60), min_size=1, max_size=6), min_size=1, max_size=6
)
MODES = [("softmax", 0.0), ("argmax", 0.0), ("div", 0.0), ("div", 0.2), ("temp_row", 0.05), ("temp_batch", 0.05)]


def test_values_of_the_specification() -> None:
    found, _ = smooth_one("softmax", 0.0, {4: 2, 7: 1})
    assert found.probs == pytest.approx([0.731059, 0.268941], abs=FLOAT64)
    found, fallbacks = smooth_one("temp_row", 0.1, {4: 1})
    assert fallbacks == 0
    assert found.probs == pytest.approx([0.9], abs=FLOAT64)
    temperatures, is_solved = row_temperatures(counts_of({4: 1}, {2: 3}), zero_prob=0.1)
    assert is_solved.all()
    assert temperatures == pytest.approx([1 / math.log(9), 3 / math.log(9)], rel=RATIO)
    assert temperatures[0] == pytest.approx(0.45512, abs=1e-5)
    found, _ = smooth_one("temp_batch", 0.05, {4: 1}, vocab_size=32128)
    assert found.probs == pytest.approx([0.95], abs=FLOAT64)
    whole = np.array([0, 1])
    [temperature], _ = batch_temperatures(counts_of({4: 1}), zero_prob=0.05, vocab_size=32128, sentences=whole)
    assert temperature == pytest.approx(1 / math.log(19 * 32127), rel=RATIO)
    assert temperature == pytest.approx(0.0750644, abs=1e-7)
    weights = [count_weights(counts_of({0: c}), xmax=x, power=0.75)[0] for c, x in ((5, 10.0), (20, 50.0), (99, 10.0))]
    assert weights == pytest.approx([0.5946, 0.5030, 1.0], abs=1e-4)


@pytest.mark.parametrize(("mode", "zero_prob"), MODES)
@given(counters=COUNTERS)
def test_equals_the_naive_twin(mode: str, zero_prob: float, counters: list[dict[int, int]]) -> None:
    found, _ = smooth_one(mode, zero_prob, *counters)
    temperature = None
    if mode == "temp_batch":
        temperature = reference.batch_temperature([Counter(one) for one in counters], zero_prob=zero_prob, vocab_size=V)
    expected = [
        reference.dense(Counter(one), smooth=mode, zero_prob=zero_prob, vocab_size=V, temperature=temperature)
        for one in counters
    ]
    np.testing.assert_allclose(dense_of(found), expected, atol=1e-8)
    np.testing.assert_allclose(row_sums(found, vocab_size=V), 1, atol=1e-9)


@given(counters=COUNTERS, zero_prob=st.floats(0.01, 0.1))
def test_temperatures_are_scipys(counters: list[dict[int, int]], zero_prob: float) -> None:
    counts = counts_of(*counters)
    mine, is_solved = row_temperatures(counts, zero_prob=zero_prob)
    for own, solved, one in zip(mine, is_solved, counters, strict=True):
        assert solved == (zero_prob < 1 / (len(one) + 1)) or max(one.values()) > 20
        if solved:
            assert own == pytest.approx(reference.row_temperature(list(one.values()), zero_prob=zero_prob), rel=1e-7)
    [own], _ = batch_temperatures(counts, zero_prob=zero_prob, vocab_size=V, sentences=np.array([0, len(counters)]))
    theirs = reference.batch_temperature(
        [Counter(one) for one in counters], zero_prob=zero_prob, vocab_size=V, solver=_toms748
    )
    assert own == pytest.approx(theirs, rel=1e-7)


def _toms748(function, low, high, *, xtol):
    return toms748(function, low, high, xtol=xtol)


def test_each_sentence_has_its_own_temperature() -> None:
    pair = [{1: 1}, {2: 4, 3: 1}, {5: 9}]
    together, _ = smooth_one("temp_batch", 0.05, *pair, sentences=np.array([0, 2, 3]))
    alone = [smooth_one("temp_batch", 0.05, *pair[:2])[0], smooth_one("temp_batch", 0.05, *pair[2:])[0]]
    np.testing.assert_allclose(dense_of(together), np.concatenate([dense_of(one) for one in alone]), atol=EXACT)


def test_counts_that_would_overflow_outside_log_space() -> None:
    for mode, zero_prob in MODES:
        found, _ = smooth_one(mode, zero_prob, {1: 100_000, 2: 99_990})
        assert np.isfinite(found.probs).all()
    found, fallbacks = smooth_one("temp_batch", 0.05, {1: 1}, {2: 400}, vocab_size=49152)
    assert fallbacks == 0
    assert found.probs[1] == pytest.approx(1.0, abs=1e-9)


def test_rows_without_a_solution_fall_back_and_are_counted() -> None:
    many = {token: 1 for token in range(12)}
    found, fallbacks = smooth_one("temp_row", 0.1, many, {3: 2})
    assert fallbacks == 1
    expected, _ = smooth_one("div", 0.1, many)
    np.testing.assert_allclose(dense_of(found)[0], dense_of(expected)[0], atol=EXACT)
    for mode, zero_prob in MODES:
        found, fallbacks = smooth_one(mode, zero_prob, {}, {3: 2})
        assert fallbacks == (
            2 if mode == "temp_batch" else 1
        )  # no temperature gives this sentence so little unseen mass
        np.testing.assert_allclose(dense_of(found)[0], 1 / V, atol=EXACT)


def test_a_whole_vocabulary_leaves_nothing_to_leak() -> None:
    full = {token: token + 1 for token in range(V)}
    for mode, zero_prob in MODES:
        found, _ = smooth_one(mode, zero_prob, full)
        np.testing.assert_allclose(row_sums(found, vocab_size=V), 1, atol=1e-9)


def test_a_vocabulary_smaller_than_the_ids() -> None:
    with pytest.raises(DataError, match="token ids up to 30, the vocabulary has 23"):
        smooth_one("div", 0.0, {30: 1})


@given(first=COUNTERS, share=st.floats(0, 1))
def test_the_mix_is_that_of_dense_rows(first: list[dict[int, int]], share: float) -> None:
    second = [{(token + 3) % V: count + 1 for token, count in one.items()} for one in first]
    sup, _ = smooth_one("div", 0.1, *first)
    clm, _ = smooth_one("softmax", 0.0, *second)
    found = mixed(sup, clm, sup_share=share, vocab_size=V)
    expected = share * dense_of(sup) + (1 - share) * dense_of(clm)
    np.testing.assert_allclose(dense_of(found), expected, atol=EXACT)
    entropy = -(expected * np.log(np.where(expected > 0, expected, 1))).sum(1)
    np.testing.assert_allclose(entropies(found, vocab_size=V), entropy, atol=1e-9)


@given(counters=COUNTERS, topk=st.integers(1, 4))
def test_the_cap_keeps_the_most_probable(counters: list[dict[int, int]], topk: int) -> None:
    full, _ = smooth_one("div", 0.1, *counters)
    found = capped(full, topk=topk, vocab_size=V)
    np.testing.assert_allclose(row_sums(found, vocab_size=V), 1, atol=1e-9)
    for row, one in enumerate(counters):
        kept = set(found.token_ids[found.offsets[row] : found.offsets[row + 1]].tolist())
        ranked = sorted(one, key=lambda token: (-one[token], token))
        assert kept == set(ranked[:topk])
