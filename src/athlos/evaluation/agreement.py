"""How well scores agree with human labels: the AUROC of scikit-learn, with a percentile interval over the items."""

from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.metrics import roc_auc_score

from athlos.evaluation.bootstrap import interval_of
from athlos.judging.validation import Agreement, Interval


def agreement(
    scores: Sequence[float], overlap: Sequence[float], labels: Sequence[bool], *, resamples: int, seed: int
) -> Agreement:
    """AUROC of a judge's scores and of word overlap on the same items, and their difference, paired in each resample.

    AUROC is the chance that a supported item has a higher score than an unsupported one, ties counted half. Resamples
    without both labels are left out. All is nan where the items themselves lack one.
    """
    everything = np.arange(len(labels))
    draws = list(_draws(labels, resamples=resamples, seed=seed))
    ours, theirs = (
        np.asarray([_auroc(column, labels, items) for items in (everything, *draws)]) for column in (scores, overlap)
    )
    return Agreement(n=len(labels), auroc=_interval(ours), overlap=_interval(theirs), gain=_interval(ours - theirs))


def _auroc(scores: Sequence[float], labels: Sequence[bool], items: np.ndarray) -> float:
    drawn = np.asarray(labels)[items]
    if len(set(drawn.tolist())) < 2:
        return float("nan")
    return float(roc_auc_score(drawn, np.asarray(scores)[items]))


def _draws(labels: Sequence[bool], *, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Items with replacement, draws without both labels left out."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        items = generator.integers(len(labels), size=len(labels))
        if len({labels[item] for item in items}) == 2:
            yield items


def _interval(column: np.ndarray) -> Interval:
    """The first value is that of all items, the others those of resamples."""
    low, high = interval_of(column[1:]) if len(column) > 1 else (float("nan"), float("nan"))
    return Interval(value=float(column[0]), low=low, high=high)
