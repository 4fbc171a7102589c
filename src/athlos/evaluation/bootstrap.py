"""Percentile bootstrap over items: intervals of means and comparisons of two systems on the same items.

It shows the variance of the choice of items, not of the seed of a training: report both. Undefined values (nan) are
left out before resampling; whoever calls counts them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEVEL = 0.95
"""Coverage of all intervals."""
CHUNK_DRAWS = 2_000_000
"""Draws held in memory at once: 16 MB of indices."""


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Mean of a - b over items, its percentile interval, and the two-sided p of no difference."""

    difference: float
    low: float
    high: float
    p: float
    n: int


def resampled_means(values: Sequence[float] | Array, *, resamples: int, generator: np.random.Generator) -> Array:
    """Means of `resamples` draws of n items with replacement, shape (resamples,). Raises ValueError for no items."""
    items = np.asarray(values, dtype=np.float64)
    if items.size == 0:
        raise ValueError("cannot resample zero items")
    means = np.empty(resamples, dtype=np.float64)
    rows = max(1, CHUNK_DRAWS // items.size)
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        draws = generator.integers(0, items.size, size=(stop - start, items.size))
        means[start:stop] = items[draws].mean(axis=1)
    return means


def interval_of(means: Array) -> tuple[float, float]:
    """The central 95 % of resampled statistics."""
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def ratio_interval(
    sums: Array, counts: Array, *, resamples: int, generator: np.random.Generator
) -> tuple[float, float]:
    """95 % interval of sum(sums) / sum(counts) over items drawn with replacement: means over the parts of items."""
    rows = max(1, CHUNK_DRAWS // len(sums))
    ratios = np.empty(resamples)
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        draws = generator.integers(0, len(sums), size=(stop - start, len(sums)))
        ratios[start:stop] = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    return interval_of(ratios)


def percentile_interval(
    values: Sequence[float] | Array, *, resamples: int, generator: np.random.Generator
) -> tuple[float, float] | None:
    """95 % interval of the mean of the defined values; None without any or with zero resamples."""
    items = np.asarray(values, dtype=np.float64)
    items = items[~np.isnan(items)]
    if items.size == 0 or resamples == 0:
        return None
    return interval_of(resampled_means(items, resamples=resamples, generator=generator))


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], *, resamples: int, generator: np.random.Generator
) -> PairedDifference:
    """Compare two systems on the same items; pairs with an undefined value on either side are left out.

    p = 2 min(share of resampled differences <= 0, share >= 0), each share with one added to count and total so that no
    finite number of resamples gives 0; at most 1. Raises ValueError for unequal lengths or no defined pair.
    """
    if len(a) != len(b):
        raise ValueError(f"expected the same items for both systems, got {len(a)} and {len(b)}")
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    differences = differences[~np.isnan(differences)]
    means = resampled_means(differences, resamples=resamples, generator=generator)
    not_above, not_below = (np.sum(means <= 0) + 1) / (resamples + 1), (np.sum(means >= 0) + 1) / (resamples + 1)
    low, high = interval_of(means)
    return PairedDifference(
        difference=float(differences.mean()), low=low, high=high,
        p=min(1.0, 2 * float(min(not_above, not_below))), n=int(differences.size),
    )  # fmt: skip
