"""Percentile bootstrap over items by scipy: it shows the variance of the choice of items, not of a training's seed.

Undefined values (nan) are left out before resampling; whoever calls counts them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

LEVEL = 0.95
"""Coverage of all intervals."""
CHUNK_DRAWS = 2_000_000
"""Draws held in memory at once: 16 MB of indices."""


def resampled(statistic: Any, *columns: Array, resamples: int, generator: np.random.Generator) -> Array:
    """A statistic of `resamples` draws of the items with replacement, shape (resamples,).

    Each column holds a number an item; an item is drawn with all of its numbers. `statistic(*columns, axis=...)` is
    called on many draws at once. Raises ValueError for no items.
    """
    num_items = len(columns[0])
    if num_items == 1:  # scipy wants two items; every draw of one is that one
        return np.full(resamples, statistic(*columns, axis=-1))
    drawn: Array = stats.bootstrap(
        columns,
        statistic,
        paired=len(columns) > 1,
        vectorized=True,
        method="percentile",
        n_resamples=resamples,
        batch=max(1, CHUNK_DRAWS // max(1, num_items)),
        rng=generator,
    ).bootstrap_distribution
    return drawn


def ratio_of_sums(sums: Array, counts: Array, axis: int) -> Array:
    """The mean over the parts of items (tokens), of their sums and numbers in each item."""
    ratio: Array = sums.sum(axis=axis) / counts.sum(axis=axis)
    return ratio


def interval_of(drawn: Array) -> tuple[float, float]:
    """The central 95 % of resampled statistics."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
