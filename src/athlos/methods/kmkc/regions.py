"""The regions of knowledge: what K sampled answers tell of a question, the decay law, and who decides by it.

Of a question with answers y_1 .. y_K: U(y) = -(1/T) sum_t log p(x_t), in nats a token, the end token included;
Ubar and Acc are means over the K; kappa is the share of the commonest answer, omega of the commonest wrong one. The law
is E[Acc | U] = a exp(-b U) + c, fitted over bins of equal mass. `rule` is the rule of the specification.
"""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit

from athlos.data.regions import Region
from athlos.errors import DataError

Array = NDArray[np.float64]

MOST_BINS, BIN_SIZE = 100, 20
"""Bins of the law: 100, or fewer so that one holds 20 questions."""
FEWEST_BINS = 10
LOWEST, HIGHEST = (0.0, 1e-3, 0.0), (1.5, 50.0, 1.0)
"""Bounds of a, b and c."""
VALID_R2 = 0.8
LAW_RESAMPLES = 200
"""Of the intervals of a, b and c."""
QUANTILES = (0.33, 0.67)
"""Of Ubar: the bounds where the law gives none."""
SURELY_WRONG = 0.5
"""omega from which a question that is mostly answered wrongly is missing, however sure the answers are."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What K answers to one question were."""

    id: str
    answers: list[str]
    """As they are compared: normalised."""
    texts: list[str]
    """As they were written."""
    nats: list[float]
    """U of each; nan of an empty answer of a server, which tells no token of it."""
    right: list[bool]
    entropies: list[float]
    """Mean entropy of the tokens of each, in nats; empty where a server tells none."""

    @property
    def ubar(self) -> float:
        known = [nats for nats in self.nats if not math.isnan(nats)]
        return math.fsum(known) / len(known)

    @property
    def acc(self) -> float:
        return sum(self.right) / len(self.right)

    @property
    def kappa(self) -> float:
        return max(Counter(self.answers).values()) / len(self.answers)

    @property
    def omega(self) -> float:
        wrong = Counter(answer for answer, is_right in zip(self.answers, self.right, strict=True) if not is_right)
        return max(wrong.values(), default=0) / len(self.answers)


def mean_nats(log_probs: Sequence[float]) -> float:
    """U of an answer from the log-probabilities of its tokens under the plain model; nan for none."""
    return -math.fsum(log_probs) / len(log_probs) if log_probs else math.nan


@dataclass(frozen=True, kw_only=True)
class Law:
    """a exp(-b U) + c, with the share of the variance of the bins that it explains."""

    a: float
    b: float
    c: float
    r2: float
    num_bins: int
    intervals: dict[str, tuple[float, float]]
    """95 % percentile intervals of a, b and c over resampled bins."""

    @property
    def is_valid(self) -> bool:
        return self.r2 >= VALID_R2 and self.num_bins >= FEWEST_BINS and LOWEST[1] * 1.01 < self.b < HIGHEST[1] * 0.99

    def at(self, nats: float) -> float:
        return float(_law(np.asarray(nats), self.a, self.b, self.c))

    def inverse(self, accuracy: float) -> float | None:
        """U at which the law predicts an accuracy; None where it predicts it nowhere."""
        share = (accuracy - self.c) / self.a if self.a else 0.0
        return float(-np.log(share) / self.b) if 0 < share <= 1 else None


def _law(nats: Array, a: float, b: float, c: float) -> Array:
    decayed: Array = a * np.exp(-b * nats) + c
    return decayed


def law_bins(nats: Array, acc: Array) -> tuple[Array, Array]:
    """Mean U and mean accuracy of bins of equal mass. Raises `DataError` for fewer questions than 10 bins need."""
    num_bins = min(MOST_BINS, len(nats) // BIN_SIZE)
    if num_bins < FEWEST_BINS:
        raise DataError(
            f"decay law: got {len(nats)} questions, expected at least {FEWEST_BINS * BIN_SIZE}: {FEWEST_BINS} bins of "
            f"{BIN_SIZE}"
        )
    order = np.argsort(nats, kind="stable")
    groups = np.array_split(order, num_bins)
    return np.array([nats[group].mean() for group in groups]), np.array([acc[group].mean() for group in groups])


def fit_law(nats: Array, acc: Array, *, seed: int = 0) -> Law:
    """The law through the centroids of the bins, by least squares within the bounds."""
    nats_M, acc_M = law_bins(nats, acc)
    a, b, c = _fit(nats_M, acc_M)
    total = float(((acc_M - acc_M.mean()) ** 2).sum())
    left = float(((acc_M - _law(nats_M, a, b, c)) ** 2).sum())
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(LAW_RESAMPLES):
        chosen = rng.integers(len(nats_M), size=len(nats_M))
        drawn.append(_fit(nats_M[chosen], acc_M[chosen]))
    low, high = np.percentile(np.array(drawn), [2.5, 97.5], axis=0)
    intervals = {name: (float(low[i]), float(high[i])) for i, name in enumerate("abc")}
    return Law(a=a, b=b, c=c, r2=1 - left / total if total else 0.0, num_bins=len(nats_M), intervals=intervals)


def _fit(nats: Array, acc: Array) -> tuple[float, float, float]:
    start = (np.ptp(acc), 1 / max(float(np.median(nats)), 1e-6), acc.min())
    inside = np.clip(start, np.array(LOWEST) + 1e-9, np.array(HIGHEST) - 1e-9)
    values, _ = curve_fit(_law, nats, acc, p0=inside, bounds=(LOWEST, HIGHEST), max_nfev=5000)
    a, b, c = map(float, values)
    return a, b, c


def bounds(profiles: Sequence[Profile], law: Law | None, *, high: float, low: float) -> tuple[float, float]:
    """(u_lo, u_hi): U at which the law predicts the accuracies `high` and `low`.

    Quantiles of Ubar where there is no valid law, or it predicts one of them nowhere.
    """
    limits = (law.inverse(high), law.inverse(low)) if law is not None and law.is_valid else (None, None)
    if limits[0] is None or limits[1] is None:
        quantiles = np.quantile([profile.ubar for profile in profiles], QUANTILES)
        return float(quantiles[0]), float(quantiles[1])
    return limits[0], limits[1]


def rule(profile: Profile, *, u_lo: float, u_hi: float, high: float, low: float) -> Region:
    """The region of a question by its accuracy and uncertainty."""
    if profile.acc >= high and profile.ubar <= u_lo:
        return Region.mastered
    if profile.acc <= low and (profile.ubar >= u_hi or profile.omega >= SURELY_WRONG):
        return Region.missing
    return Region.confused


def acc_only(profile: Profile, *, high: float, low: float) -> Region:
    """The same without a look at the uncertainty."""
    if profile.acc >= high:
        return Region.mastered
    return Region.missing if profile.acc <= low else Region.confused


def random_region(profile: Profile, *, seed: int) -> Region:
    """One of the three by chance, the same for a question in every run of a seed."""
    return random.Random(f"{seed}:region:{profile.id}").choice(list(Region))


def macro_f1(truth: Sequence[str], predicted: Sequence[str]) -> float:
    """Mean over the three regions of F1; a region that is neither true nor found anywhere has F1 0."""
    scores = []
    for region in Region:
        both = sum(t == region and f == region for t, f in zip(truth, predicted, strict=True))
        either = sum(t == region for t in truth) + sum(f == region for f in predicted)
        scores.append(2 * both / either if either else 0.0)
    return sum(scores) / len(scores)
