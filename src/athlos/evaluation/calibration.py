"""Confidence against correctness, in float64: calibration error, ranking, selective prediction.

`conf` holds one confidence in [0, 1] an item and `correct` 0 or 1. Items whose confidence is nan (unparsed) are left
out by `defined`, which counts them; every measure here expects none. Undefined results are nan: no item, or one class
only where two are needed. The number of bins is ours: the name of a result must carry it if it is not 15.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]
Group = NDArray[np.intp]
"""Positions of the items of one bin."""
Measure = Callable[[Array, Array], float]

NUM_BINS = 15


def defined(conf: ArrayLike, correct: ArrayLike) -> tuple[Array, Array, int]:
    """(confidences, correctness, number left out): the items with a confidence.

    Raises ValueError for unequal lengths, a confidence outside [0, 1] or a correctness other than 0 and 1.
    """
    confidences, rightness = np.asarray(conf, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if confidences.shape != rightness.shape or confidences.ndim != 1:
        raise ValueError(f"expected one correctness a confidence, got {confidences.shape} and {rightness.shape}")
    kept = ~np.isnan(confidences)
    confidences, rightness = confidences[kept], rightness[kept]
    if np.any((confidences < 0) | (confidences > 1)):
        raise ValueError("expected confidences in [0, 1]")
    if np.any((rightness != 0) & (rightness != 1)):
        raise ValueError("expected a correctness of 0 or 1")
    return confidences, rightness, int(np.sum(~kept))


def mass_bins(conf: Array, *, num_bins: int = NUM_BINS) -> list[Group]:
    """Bins of equal count (as `numpy.array_split`) along sorted confidence; empty ones are left out."""
    return [group for group in np.array_split(np.argsort(conf, kind="stable"), num_bins) if len(group)]


def width_bins(conf: Array, *, num_bins: int = NUM_BINS) -> list[Group]:
    """Bins [j/M, (j+1)/M), the last one closed; empty ones are left out."""
    index = np.searchsorted(np.arange(1, num_bins) / num_bins, conf, side="right")
    return [group for j in range(num_bins) if len(group := np.flatnonzero(index == j))]


def _gaps(groups: Sequence[Group], conf: Array, correct: Array) -> list[float]:
    """|accuracy - confidence| of each bin."""
    return [abs(float(correct[group].mean()) - float(conf[group].mean())) for group in groups]


def _expected_error(groups: Sequence[Group], conf: Array, correct: Array) -> float:
    """Mean over items of |accuracy - confidence| of their bin."""
    gaps = zip(groups, _gaps(groups, conf, correct), strict=True)
    return sum(len(group) * gap for group, gap in gaps) / len(conf) if len(conf) else float("nan")


def ece_mass(conf: Array, correct: Array, *, num_bins: int = NUM_BINS) -> float:
    """Expected calibration error over bins of equal count."""
    return _expected_error(mass_bins(conf, num_bins=num_bins), conf, correct)


def ece_width(conf: Array, correct: Array, *, num_bins: int = NUM_BINS) -> float:
    """Expected calibration error over bins of equal width; torchmetrics but for a confidence of exactly 1."""
    return _expected_error(width_bins(conf, num_bins=num_bins), conf, correct)


def mce(conf: Array, correct: Array, *, num_bins: int = NUM_BINS) -> float:
    """Largest calibration error of a bin of equal count."""
    return max(_gaps(mass_bins(conf, num_bins=num_bins), conf, correct), default=float("nan"))


def brier(conf: Array, correct: Array) -> float:
    """Mean squared difference of confidence and correctness, over items."""
    return _mean((conf - correct) ** 2)


def auroc(conf: Array, correct: Array) -> float:
    """P(a right item has more confidence than a wrong one) + half of P(they tie); nan if either class is missing."""
    num_right, num_wrong = int(correct.sum()), int(len(correct) - correct.sum())
    if num_right == 0 or num_wrong == 0:
        return float("nan")
    rank_sum = float(rankdata(conf)[correct == 1].sum())
    return (rank_sum - num_right * (num_right + 1) / 2) / (num_right * num_wrong)


def risk_curve(conf: Array, correct: Array) -> Array:
    """Share of wrong items among the i most confident, for i = 1 .. n; ties keep the order of the items."""
    order = np.argsort(-conf, kind="stable")
    return np.cumsum(1 - correct[order]) / np.arange(1, len(conf) + 1)


def aurc(conf: Array, correct: Array) -> float:
    """Mean of the risk curve: the area under risk against coverage."""
    return _mean(risk_curve(conf, correct))


def e_aurc(conf: Array, correct: Array) -> float:
    """AURC less that of the order that puts all right items first."""
    return aurc(conf, correct) - aurc(correct, correct)


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")


MEASURES: dict[str, Measure] = {
    "ece_mass": ece_mass,
    "ece_width": ece_width,
    "mce": mce,
    "brier": brier,
    "auroc": auroc,
    "aurc": aurc,
    "e_aurc": e_aurc,
    "calibration_accuracy": lambda conf, correct: _mean(correct),
    "mean_confidence": lambda conf, correct: _mean(conf),
}
