"""How well scores agree with human labels: AUROC, with a percentile interval over the items.

Shapes: R resamples, N items, S supported, U unsupported ones.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from athlos.evaluation.bootstrap import interval_of
from athlos.judging.validation import Agreement, Interval

Array = NDArray[np.float64]


def agreement(
    scores: Sequence[float], overlap: Sequence[float], labels: Sequence[bool], *, resamples: int, seed: int
) -> Agreement:
    """AUROC of a judge's scores and of word overlap on the same items, and their difference, paired in each resample.

    AUROC is the chance that a supported item has a higher score than an unsupported one, ties counted half. Resamples
    without both labels are left out. All is nan where the items themselves lack one.
    """
    is_supported_N = np.asarray(labels, dtype=bool)
    counts_RN = np.vstack([np.ones(len(labels)), _draws(len(labels), resamples=resamples, seed=seed)])
    ours_R, theirs_R = (_aurocs(np.asarray(column), is_supported_N, counts_RN) for column in (scores, overlap))
    return Agreement(
        n=len(labels), auroc=_interval(ours_R), overlap=_interval(theirs_R), gain=_interval(ours_R - theirs_R)
    )


def _aurocs(scores_N: Array, is_supported_N: NDArray[np.bool_], counts_RN: Array) -> Array:
    """The AUROC [R] of items that were drawn `counts_RN` times; nan for a draw of one label alone.

    It is the same as scikit-learn's on each draw, which is slow for thousands of draws: the pairs are compared once.
    """
    difference_SU = scores_N[is_supported_N][:, None] - scores_N[~is_supported_N]
    is_above_SU = (1 + np.sign(difference_SU)) / 2
    supported_RS, unsupported_RU = counts_RN[:, is_supported_N], counts_RN[:, ~is_supported_N]
    num_pairs_R = supported_RS.sum(axis=1) * unsupported_RU.sum(axis=1)
    num_above_R = (supported_RS @ is_above_SU * unsupported_RU).sum(axis=1)
    aurocs_R = np.full(len(counts_RN), np.nan)
    np.divide(num_above_R, num_pairs_R, out=aurocs_R, where=num_pairs_R > 0)
    return aurocs_R


def _draws(num_items: int, *, resamples: int, seed: int) -> Array:
    """How often each item was drawn, in each of the resamples [R, N]."""
    generator = np.random.default_rng(seed)
    draws = [generator.integers(num_items, size=num_items) for _ in range(resamples)]
    return np.asarray([np.bincount(items, minlength=num_items) for items in draws], dtype=np.float64)


def _interval(values_R: Array) -> Interval:
    """The first value is that of all items, the others those of resamples."""
    drawn = values_R[1:][~np.isnan(values_R[1:])]
    low, high = interval_of(drawn) if len(drawn) else (float("nan"), float("nan"))
    return Interval(value=float(values_R[0]), low=low, high=high)
