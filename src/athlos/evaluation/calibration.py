"""Confidence against correctness, in float64: calibration error, ranking, selective prediction, self-knowledge.

`conf` holds one confidence in [0, 1] an item and `correct` 0 or 1. Items whose confidence is nan (unparsed) are left
out by `defined`, which counts them; every measure here expects none. Undefined results are nan: no item, or one class
only where two are needed. The number of bins is ours: the name of a result must carry it if it is not 15.

Items of one confidence have no order: where measures sort, each of them counts as their mean, so that the order in
which items come changes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, logit
from scipy.stats import beta, foldnorm, rankdata

Array = NDArray[np.float64]
Group = NDArray[np.intp]
"""Positions of the items of one bin."""
Measure = Callable[[Array, Array], float]

NUM_BINS = 15
MOST_SURE = 1e-6
"""How near to 0 and 1 a confidence counts in temperature scaling, whose logits would be infinite there."""
LOG_TEMPERATURE = 10.0
"""Bound on |log T|: beyond it a confidence in [1e-6, 1 - 1e-6] is one half, 0 or 1 to six digits."""
COVERAGE = 0.95
"""Of the interval of a bin's accuracy."""


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


def unordered(conf: Array, correct: Array) -> Array:
    """The correctness of each item as the mean over the items that have its confidence."""
    _, group, counts = np.unique(conf, return_inverse=True, return_counts=True)
    means: Array = (np.bincount(group, weights=correct) / counts)[group] if len(conf) else correct
    return means


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
    return _expected_error(mass_bins(conf, num_bins=num_bins), conf, unordered(conf, correct))


def ece_debiased(conf: Array, correct: Array, *, num_bins: int = NUM_BINS) -> float:
    """`ece_mass` less what the noise of the bins' accuracies adds to it by itself, at least 0.

    A bin of n items with a gap g shows, by chance, |N(g, a (1 - a) / n)|, a its accuracy; what the mean of that over
    bins has more than the gaps themselves is taken away. Source: arXiv 1909.10155, whose resampling of bins this is
    in closed form.
    """
    groups, means = mass_bins(conf, num_bins=num_bins), unordered(conf, correct)
    shown = 0.0
    for group, gap in zip(groups, _gaps(groups, conf, means), strict=True):
        accuracy = float(means[group].mean())
        spread = float(np.sqrt(accuracy * (1 - accuracy) / len(group)))
        shown += len(group) * (float(foldnorm.mean(gap / spread, scale=spread)) if spread else gap) / len(conf)
    return max(0.0, 2 * ece_mass(conf, correct, num_bins=num_bins) - shown) if len(conf) else float("nan")


def ece_width(conf: Array, correct: Array, *, num_bins: int = NUM_BINS) -> float:
    """Expected calibration error over bins of equal width; torchmetrics but for a confidence of exactly 1."""
    return _expected_error(width_bins(conf, num_bins=num_bins), conf, correct)


def mce(conf: Array, correct: Array, *, num_bins: int = NUM_BINS) -> float:
    """Largest calibration error of a bin of equal count."""
    return max(_gaps(mass_bins(conf, num_bins=num_bins), conf, unordered(conf, correct)), default=float("nan"))


@dataclass(frozen=True, kw_only=True)
class Bin:
    """One point of a reliability diagram. `low` and `high` are the interval of the accuracy (Jeffreys)."""

    n: int
    confidence: float
    accuracy: float
    low: float
    high: float


def reliability(conf: Array, correct: Array, *, num_bins: int = NUM_BINS) -> list[Bin]:
    """Bins of equal count, along rising confidence."""
    means = unordered(conf, correct)
    bins = []
    for group in mass_bins(conf, num_bins=num_bins):
        num_right, number = float(means[group].sum()), len(group)
        low, high = beta.interval(COVERAGE, num_right + 0.5, number - num_right + 0.5)
        bins.append(
            Bin(
                n=number,
                confidence=float(conf[group].mean()),
                accuracy=num_right / number,
                low=float(low),
                high=float(high),
            )
        )
    return bins


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
    """Share of wrong items among the i most confident, for i = 1 .. n."""
    order = np.argsort(-conf, kind="stable")
    return np.cumsum(1 - unordered(conf, correct)[order]) / np.arange(1, len(conf) + 1)


def aurc(conf: Array, correct: Array) -> float:
    """Mean of the risk curve: the area under risk against coverage."""
    return _mean(risk_curve(conf, correct))


def e_aurc(conf: Array, correct: Array) -> float:
    """AURC less that of the order that puts all right items first."""
    return aurc(conf, correct) - aurc(correct, correct)


def scaled(conf: Array, temperature: float) -> Array:
    """sigmoid(logit(conf) / T): confidences below one half rise with T and those above it fall; their order stays."""
    confidences: Array = expit(logit(np.clip(conf, MOST_SURE, 1 - MOST_SURE)) / temperature)
    return confidences


def fit_temperature(conf: Array, correct: Array) -> float:
    """The one T > 0 of the least log loss of `scaled` on held-out items; nan without any."""
    if not len(conf):
        return float("nan")
    logits = logit(np.clip(conf, MOST_SURE, 1 - MOST_SURE))
    signs = 2 * correct - 1

    def log_loss(log_temperature: float) -> float:
        return -float(log_expit(signs * logits / np.exp(log_temperature)).mean())

    fit = minimize_scalar(log_loss, bounds=(-LOG_TEMPERATURE, LOG_TEMPERATURE), method="bounded")
    return float(np.exp(fit.x))


def self_knowledge(is_answered: ArrayLike, is_right: ArrayLike, is_known: ArrayLike) -> dict[str, float]:
    """`ar`, `kei`, `npv`, `cbs`, `cae` of who may refuse: each array holds 0 or 1 an item; 0/0 is nan.

    TP answered and right, FP answered and wrong, FN refused though known, TN refused and unknown. AR = TP/(TP+FP),
    KEI = TP/(TP+FN), NPV = TN/(TN+FN), CBS = 2 AR KEI/(AR+KEI), CAE = (TP+TN)/all.
    """
    answered, right, known = (np.asarray(flags, dtype=bool) for flags in (is_answered, is_right, is_known))
    tp, fp = float(np.sum(answered & right)), float(np.sum(answered & ~right))
    fn, tn = float(np.sum(~answered & known)), float(np.sum(~answered & ~known))
    ar, kei = _share(tp, tp + fp), _share(tp, tp + fn)
    return {
        "ar": ar,
        "kei": kei,
        "npv": _share(tn, tn + fn),
        "cbs": _share(2 * ar * kei, ar + kei),
        "cae": _share(tp + tn, tp + fp + fn + tn),
    }


def refusal_threshold(conf: Array, is_right: ArrayLike, is_known: ArrayLike) -> float:
    """The confidence from which answering gives the greatest CBS on held-out items, the least one of equals.

    Where CBS is defined for none, everything is answered: 0.
    """
    best, chosen = -1.0, 0.0
    for threshold in np.unique(conf):
        cbs = self_knowledge(conf >= threshold, is_right, is_known)["cbs"]
        if cbs > best:
            best, chosen = cbs, float(threshold)
    return chosen


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")


def measures(num_bins: int = NUM_BINS) -> dict[str, Measure]:
    """All measures by name; those with bins carry a number of bins that is not 15: `ece_mass@10`."""
    suffix = "" if num_bins == NUM_BINS else f"@{num_bins}"
    binned: dict[str, Callable[..., float]] = {
        "ece_mass": ece_mass,
        "ece_debiased": ece_debiased,
        "ece_width": ece_width,
        "mce": mce,
    }
    return {
        **{f"{name}{suffix}": partial(measure, num_bins=num_bins) for name, measure in binned.items()},
        "brier": brier,
        "auroc": auroc,
        "aurc": aurc,
        "e_aurc": e_aurc,
        "calibration_accuracy": lambda conf, correct: _mean(correct),
        "mean_confidence": lambda conf, correct: _mean(conf),
    }
