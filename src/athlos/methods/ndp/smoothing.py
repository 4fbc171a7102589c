"""Counts of next tokens -> probabilities, row by row, in log space and float64.

A row is one position: `counts` over the k tokens that were seen there, nothing for the V - k others. The result holds
the probability of each seen token and one `leak`, the probability of every unseen one.

N rows, K entries of all rows together, S sentences (runs of rows that share one temperature).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from athlos.errors import DataError
from athlos.methods.ndp.config import Smooth

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROW_BRACKET = (1e-7, 100.0)
"""Temperatures that `temp_row` looks between. Source: code."""
BATCH_BRACKET = (0.01, 50.0)
"""Temperatures that `temp_batch` looks between. Source: code, its unused TOMS748 variant."""
HALVINGS = 64
"""Halvings of a bracket: beyond the digits of a float64."""
SUM_TOLERANCE = 1e-6
"""How far a row may be from 1 in sum."""


@dataclass(kw_only=True)
class Counts:
    """Rows of counts: row i holds the entries `offsets[i]:offsets[i + 1]`, token ids without repeats."""

    offsets: Ints
    token_ids: Ints
    counts: Floats

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Ints:
        """Seen tokens of each row, [N]."""
        return np.diff(self.offsets)

    @property
    def totals(self) -> Floats:
        """Sum of each row, [N]."""
        return reduce_rows(np.add, self.counts, self.offsets, empty=0.0)


@dataclass(kw_only=True)
class Distributions:
    """Rows of probabilities, laid out as `Counts`; `leak` [N] is the probability of each token that is not listed."""

    offsets: Ints
    token_ids: Ints
    probs: Floats
    leak: Floats

    def __len__(self) -> int:
        return len(self.offsets) - 1


def reduce_rows(function: np.ufunc, values_K: Floats, offsets: Ints, *, empty: float) -> Floats:
    """`function` (add, maximum) over the entries of each row, [N]; `empty` where a row has none."""
    reduced = np.full(len(offsets) - 1, empty)
    filled = offsets[1:] > offsets[:-1]
    if filled.any():
        # Empty rows take no entries, so the next filled row's start is where this one ends.
        reduced[filled] = function.reduceat(values_K, offsets[:-1][filled])
    return reduced


def spread(values_N: Floats, offsets: Ints) -> Floats:
    """Each row's value at each of its entries, [K]."""
    return np.repeat(values_N, np.diff(offsets))


def smoothed(
    counts: Counts, *, smooth: Smooth, zero_prob: float, vocab_size: int, sentences: Ints | None = None
) -> tuple[Distributions, int]:
    """Distributions of the rows, and how many rows fell back to `div`.

    `sentences` [S + 1] are the borders of the runs of rows that `temp_batch` gives one temperature; without them all
    rows are one. A row without entries, and a row without a temperature in the bracket, falls back. Raises `DataError`
    when a token id is outside the vocabulary or a row does not sum to 1.
    """
    if len(counts.token_ids) and not 0 <= counts.token_ids.min() <= counts.token_ids.max() < vocab_size:
        raise DataError(f"n-gram targets: token ids up to {counts.token_ids.max()}, the vocabulary has {vocab_size}")
    by_frequency = relative_frequency(counts, zero_prob=zero_prob, vocab_size=vocab_size)
    if smooth is Smooth.div:
        return _checked(by_frequency, vocab_size), int((counts.sizes == 0).sum())
    if smooth is Smooth.softmax:
        probs, leak = softmax_rows(counts), np.zeros(len(counts))
        is_solved = counts.sizes > 0
    elif smooth is Smooth.argmax:
        probs, leak = argmax_rows(counts), np.zeros(len(counts))
        is_solved = counts.sizes > 0
    elif smooth is Smooth.temp_row:
        temperatures, is_solved = row_temperatures(counts, zero_prob=zero_prob)
        probs, leak = _temp_row(counts, temperatures, zero_prob=zero_prob, vocab_size=vocab_size)
    else:
        borders = np.array([0, len(counts)]) if sentences is None else sentences
        temperatures, is_solved_S = batch_temperatures(
            counts, zero_prob=zero_prob, vocab_size=vocab_size, sentences=borders
        )
        is_solved = np.repeat(is_solved_S, np.diff(borders)) & (counts.sizes > 0)
        probs, leak = _temp_batch(counts, np.repeat(temperatures, np.diff(borders)), vocab_size=vocab_size)
    chosen = Distributions(
        offsets=counts.offsets,
        token_ids=counts.token_ids,
        probs=np.where(np.repeat(is_solved, counts.sizes), probs, by_frequency.probs),
        leak=np.where(is_solved, leak, by_frequency.leak),
    )
    return _checked(chosen, vocab_size), int((~is_solved).sum())


def relative_frequency(counts: Counts, *, zero_prob: float, vocab_size: int) -> Distributions:
    """`div`: (1 - z) c / sum c, and z spread evenly over the unseen tokens; without unseen ones, c / sum c.

    A row without entries is even over the vocabulary.
    """
    unseen = vocab_size - counts.sizes
    mass = np.where(counts.sizes == 0, 1.0, np.where(unseen > 0, zero_prob, 0.0))
    leak = mass / np.maximum(unseen, 1)
    scale = (1.0 - mass) / np.maximum(counts.totals, 1e-300)
    return Distributions(
        offsets=counts.offsets,
        token_ids=counts.token_ids,
        probs=counts.counts * spread(scale, counts.offsets),
        leak=leak,
    )


def softmax_rows(counts: Counts, *, temperature: float = 1.0) -> Floats:
    """Softmax of counts / T over the seen tokens of each row, [K]."""
    scaled = counts.counts / temperature
    top = reduce_rows(np.maximum, scaled, counts.offsets, empty=0.0)
    weights = np.exp(scaled - spread(top, counts.offsets))
    return weights / spread(reduce_rows(np.add, weights, counts.offsets, empty=1.0), counts.offsets)


def argmax_rows(counts: Counts) -> Floats:
    """The limit of the softmax for T -> 0, [K]: the greatest counts share a row evenly (the code has T = 1e-6)."""
    top = reduce_rows(np.maximum, counts.counts, counts.offsets, empty=0.0)
    is_top = (counts.counts == spread(top, counts.offsets)).astype(np.float64)
    shares: Floats = is_top / spread(reduce_rows(np.add, is_top, counts.offsets, empty=1.0), counts.offsets)
    return shares


def log_sum_exp(scaled_K: Floats, offsets: Ints) -> Floats:
    """log of the sum of exp over each row, [N]; -inf for an empty row."""
    top = reduce_rows(np.maximum, scaled_K, offsets, empty=-np.inf)
    shift = np.where(np.isfinite(top), top, 0.0)
    sums = reduce_rows(np.add, np.exp(scaled_K - spread(shift, offsets)), offsets, empty=0.0)
    with np.errstate(divide="ignore"):
        return shift + np.log(sums)


def row_temperatures(counts: Counts, *, zero_prob: float) -> tuple[Floats, NDArray[np.bool_]]:
    """`temp_row`: T of each row such that one pseudo-token of count 0 has the mass z; and which rows have one, [N].

    1 / (1 + sum exp(c / T)) = z. It rises with T up to 1 / (k + 1), so a long row has no solution.
    """
    log_odds = np.log1p(-zero_prob) - np.log(zero_prob)

    def excess(temperatures: Floats) -> Floats:
        """Log mass of the seen tokens over that of the pseudo-token, less what is wanted; falls with T."""
        seen: Floats = log_sum_exp(counts.counts / spread(temperatures, counts.offsets), counts.offsets) - log_odds
        return seen

    return _falling_root(excess, len(counts), bracket=ROW_BRACKET)


def batch_temperatures(
    counts: Counts, *, zero_prob: float, vocab_size: int, sentences: Ints
) -> tuple[Floats, NDArray[np.bool_]]:
    """`temp_batch`: T of each sentence such that its unseen tokens have the mass z on average; and which have one, [S].

    sum over rows of Z_r / sum_v exp(c_rv / T) = R z, with Z_r unseen tokens that each add 1 to the sum.
    """
    unseen = (vocab_size - counts.sizes).astype(np.float64)
    num_rows = np.diff(sentences)

    def excess(temperatures_S: Floats) -> Floats:
        by_row = np.repeat(temperatures_S, num_rows)
        log_seen = log_sum_exp(counts.counts / spread(by_row, counts.offsets), counts.offsets)
        with np.errstate(divide="ignore"):
            log_unseen = np.log(unseen)
        shares = np.exp(log_unseen - np.logaddexp(log_seen, log_unseen))
        return num_rows * zero_prob - reduce_rows(np.add, shares, sentences, empty=0.0)

    return _falling_root(excess, len(sentences) - 1, bracket=BATCH_BRACKET)


def _falling_root(
    function: Callable[[Floats], Floats], size: int, *, bracket: tuple[float, float]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Roots of `size` falling functions at once, by halving; and which of them change sign within the bracket."""
    low, high = np.full(size, bracket[0]), np.full(size, bracket[1])
    is_solved = (function(low) >= 0) & (function(high) <= 0)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        is_above = function(middle) > 0
        low, high = np.where(is_above, middle, low), np.where(is_above, high, middle)
    return 0.5 * (low + high), is_solved


def _temp_row(counts: Counts, temperatures: Floats, *, zero_prob: float, vocab_size: int) -> tuple[Floats, Floats]:
    """Seen tokens share 1 - z as the softmax at T does, unseen ones share z evenly."""
    scaled = counts.counts / spread(temperatures, counts.offsets)
    log_seen = log_sum_exp(scaled, counts.offsets)
    unseen = vocab_size - counts.sizes
    mass = np.where(unseen > 0, zero_prob, 0.0)
    probs = np.exp(scaled - spread(log_seen, counts.offsets)) * spread(1.0 - mass, counts.offsets)
    return probs, mass / np.maximum(unseen, 1)


def _temp_batch(counts: Counts, temperatures: Floats, *, vocab_size: int) -> tuple[Floats, Floats]:
    """The softmax at T over the whole vocabulary, unseen tokens with count 0."""
    scaled = counts.counts / spread(temperatures, counts.offsets)
    with np.errstate(divide="ignore"):
        log_unseen = np.log((vocab_size - counts.sizes).astype(np.float64))
    log_all = np.logaddexp(log_sum_exp(scaled, counts.offsets), log_unseen)
    return np.exp(scaled - spread(log_all, counts.offsets)), np.exp(-log_all)


def _checked(distributions: Distributions, vocab_size: int) -> Distributions:
    sums = row_sums(distributions, vocab_size=vocab_size)
    if len(sums) and np.abs(sums - 1).max() > SUM_TOLERANCE:
        raise DataError(f"n-gram targets: a row sums to {sums[np.abs(sums - 1).argmax()]:.8f}, expected 1")
    return distributions


def row_sums(distributions: Distributions, *, vocab_size: int) -> Floats:
    """Sum over the whole vocabulary of each row, [N]."""
    unseen = vocab_size - np.diff(distributions.offsets)
    return reduce_rows(np.add, distributions.probs, distributions.offsets, empty=0.0) + unseen * distributions.leak
