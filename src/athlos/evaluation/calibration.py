"""Confidence against correctness, in float64: calibration error, ranking, selective prediction, recalibration.

`conf` holds one confidence in [0, 1] an item and `correct` 0 or 1. Items whose confidence is nan (unparsed) are left
out by `defined`, which counts them; every function here expects none. Undefined results are nan: no item, or one class
only where two are needed. The number of bins is ours: the name of a result must carry it if it is not 15.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

NUM_BINS = 15
CLIP = 1e-6
"""Confidences stay this far from 0 and 1 where a logit is taken: it is infinite there."""
SLOPE_BOUNDS = (1e-3, 1e3)
"""Range of 1/T and of Platt's slope: the best one is infinite when confidence separates right from wrong."""
HALVINGS = 60
"""Steps of a search by halving: more than the digits of a float64."""
BIAS_BOUND = 50.0
"""Largest Platt bias, in logits, for the same reason."""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """One bar of a reliability diagram."""

    n: int
    confidence: float
    accuracy: float


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


def _bins(groups: Sequence[NDArray[np.intp]], conf: Array, correct: Array) -> list[Bin]:
    return [
        Bin(n=len(group), confidence=float(conf[group].mean()), accuracy=float(correct[group].mean()))
        for group in groups
        if len(group)
    ]


def mass_bins(conf: Array, correct: Array, *, num_bins: int = NUM_BINS) -> list[Bin]:
    """Bins of equal count (as `numpy.array_split`) along sorted confidence; empty ones are left out."""
    return _bins(np.array_split(np.argsort(conf, kind="stable"), num_bins), conf, correct)


def width_bins(conf: Array, correct: Array, *, num_bins: int = NUM_BINS) -> list[Bin]:
    """Bins [j/M, (j+1)/M), the last one closed; empty ones are left out."""
    inner_edges = np.arange(1, num_bins) / num_bins
    index = np.searchsorted(inner_edges, conf, side="right")
    return _bins([np.flatnonzero(index == j) for j in range(num_bins)], conf, correct)


def _expected_error(bins: Sequence[Bin]) -> float:
    """Mean over items of |accuracy - confidence| of their bin."""
    total = sum(bar.n for bar in bins)
    return sum(bar.n * abs(bar.accuracy - bar.confidence) for bar in bins) / total if total else float("nan")


def ece_mass(conf: Array, correct: Array, *, num_bins: int = NUM_BINS) -> float:
    """Expected calibration error over bins of equal count."""
    return _expected_error(mass_bins(conf, correct, num_bins=num_bins))


def ece_width(conf: Array, correct: Array, *, num_bins: int = NUM_BINS) -> float:
    """Expected calibration error over bins of equal width; torchmetrics but for a confidence of exactly 1."""
    return _expected_error(width_bins(conf, correct, num_bins=num_bins))


def mce(conf: Array, correct: Array, *, num_bins: int = NUM_BINS) -> float:
    """Largest calibration error of a bin of equal count."""
    bins = mass_bins(conf, correct, num_bins=num_bins)
    return max((abs(bar.accuracy - bar.confidence) for bar in bins), default=float("nan"))


def brier(conf: Array, correct: Array) -> float:
    """Mean squared difference of confidence and correctness, over items."""
    return float(np.mean((conf - correct) ** 2)) if len(conf) else float("nan")


def auroc(conf: Array, correct: Array) -> float:
    """P(a right item has more confidence than a wrong one) + half of P(they tie); nan if either class is missing."""
    num_right, num_wrong = int(correct.sum()), int(len(correct) - correct.sum())
    if num_right == 0 or num_wrong == 0:
        return float("nan")
    _, inverse, counts = np.unique(conf, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(mean_ranks[inverse][correct == 1].sum())
    return (rank_sum - num_right * (num_right + 1) / 2) / (num_right * num_wrong)


def risk_curve(conf: Array, correct: Array) -> Array:
    """Share of wrong items among the i most confident, for i = 1 .. n; ties keep the order of the items."""
    order = np.argsort(-conf, kind="stable")
    return np.cumsum(1 - correct[order]) / np.arange(1, len(conf) + 1)


def aurc(conf: Array, correct: Array) -> float:
    """Mean of the risk curve: the area under risk against coverage."""
    return float(risk_curve(conf, correct).mean()) if len(conf) else float("nan")


def e_aurc(conf: Array, correct: Array) -> float:
    """AURC less that of the order that puts all right items first."""
    return aurc(conf, correct) - aurc(correct, correct)


def _logit(conf: Array) -> Array:
    clipped = np.clip(conf, CLIP, 1 - CLIP)
    return np.log(clipped) - np.log1p(-clipped)


def _sigmoid(logits: Array) -> Array:
    # Both branches take the exponential of a number <= 0: no overflow.
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))


def scale_temperature(conf: ArrayLike, temperature: float) -> Array:
    """sigmoid(logit(conf) / T), confidences clipped by `CLIP`. The order of items does not change."""
    return _sigmoid(_logit(np.asarray(conf, dtype=np.float64)) / temperature)


def fit_temperature(conf: ArrayLike, correct: ArrayLike) -> float:
    """The T > 0 with the least log loss on held-out items, within 1/T in `SLOPE_BOUNDS`. Needs an item.

    The log loss is convex in 1/T, so its slope is searched for its zero by halving.
    """
    kept_conf, kept_correct, _ = defined(conf, correct)
    if not len(kept_conf):
        raise ValueError("cannot fit a temperature to zero items")
    logits = _logit(kept_conf)

    def slope(inverse: float) -> float:
        return float(np.mean((_sigmoid(inverse * logits) - kept_correct) * logits))

    return 1 / _zero(slope, *SLOPE_BOUNDS)


def scale_platt(conf: ArrayLike, slope: float, bias: float) -> Array:
    """sigmoid(slope logit(conf) + bias), confidences clipped by `CLIP`."""
    return _sigmoid(slope * _logit(np.asarray(conf, dtype=np.float64)) + bias)


def fit_platt(conf: ArrayLike, correct: ArrayLike) -> tuple[float, float]:
    """(slope, bias) with the least log loss on held-out items, slope in `SLOPE_BOUNDS`, |bias| <= `BIAS_BOUND`.

    The loss is convex in both: the best bias of a slope is found by halving, and the slope on that valley likewise.
    """
    kept_conf, kept_correct, _ = defined(conf, correct)
    if not len(kept_conf):
        raise ValueError("cannot fit Platt scaling to zero items")
    logits = _logit(kept_conf)

    def best_bias(slope: float) -> float:
        return _zero(
            lambda bias: float(np.mean(_sigmoid(slope * logits + bias) - kept_correct)), -BIAS_BOUND, BIAS_BOUND
        )

    def slope_along_valley(slope: float) -> float:
        return float(np.mean((_sigmoid(slope * logits + best_bias(slope)) - kept_correct) * logits))

    slope = _zero(slope_along_valley, *SLOPE_BOUNDS)
    return slope, best_bias(slope)


def _zero(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function crosses 0 between two bounds, or the bound nearer to it."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True, kw_only=True)
class SelfKnowledge:
    """Answering and refusing against knowing. Each rate is nan where its denominator is 0."""

    num_answered_right: int
    num_answered_wrong: int
    num_refused_known: int
    num_refused_unknown: int

    @property
    def ar(self) -> float:
        """Share of the answers that are right."""
        return _ratio(self.num_answered_right, self.num_answered_right + self.num_answered_wrong)

    @property
    def kei(self) -> float:
        """Answered and right among answered and right or refused though known."""
        return _ratio(self.num_answered_right, self.num_answered_right + self.num_refused_known)

    @property
    def npv(self) -> float:
        """Share of the refusals that are due."""
        return _ratio(self.num_refused_unknown, self.num_refused_unknown + self.num_refused_known)

    @property
    def cbs(self) -> float:
        """Harmonic mean of `ar` and `kei`."""
        return _ratio(2 * self.ar * self.kei, self.ar + self.kei)

    @property
    def cae(self) -> float:
        """Share of all items answered rightly or refused duly."""
        good = self.num_answered_right + self.num_refused_unknown
        return _ratio(good, good + self.num_answered_wrong + self.num_refused_known)


def self_knowledge(answered: Sequence[bool], right: Sequence[bool], known: Sequence[bool]) -> SelfKnowledge:
    """Counts over items. `right` is read where answered, `known` where refused.

    Known: accuracy of at least one half over several forced answers of the same model. Second-hand source, reading
    ours.
    """
    items = list(zip(answered, right, known, strict=True))
    return SelfKnowledge(
        num_answered_right=sum(is_answered and is_right for is_answered, is_right, _ in items),
        num_answered_wrong=sum(is_answered and not is_right for is_answered, is_right, _ in items),
        num_refused_known=sum(not is_answered and is_known for is_answered, _, is_known in items),
        num_refused_unknown=sum(not is_answered and not is_known for is_answered, _, is_known in items),
    )


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")
