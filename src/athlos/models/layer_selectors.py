"""Which decoder layers handle language, from counts of firing neurons. Pure functions; nothing here reads a model.

L layers, X languages, J neurons of a layer; p is the share of tokens at which a neuron's gate is above zero.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from athlos.errors import ConfigError
from athlos.models.neuron_counts import NeuronCounts, merge

UNIFORM_TOLERANCE = 1e-9
"""Entropy may be this far below 1 by rounding alone; such a neuron fires alike in all languages."""

# Scores by layer


def deviation_by_language(values_LXJ: np.ndarray, *, reference: int) -> np.ndarray:
    """[L, X - 1]: mean over neurons of the squared difference to the reference language, others in their order."""
    others = [index for index in range(values_LXJ.shape[1]) if index != reference]
    squares_LXJ = (values_LXJ[:, others] - values_LXJ[:, [reference]]) ** 2
    return np.asarray(squares_LXJ.mean(-1))


def deviation(values_LXJ: np.ndarray, *, reference: int) -> np.ndarray:
    """[L]: D[l], the mean over languages but the reference and over neurons of the squared difference to it.

    Source: the specification's reading of SLAM (ours); `values_LXJ` is any of the statistics of `NeuronCounts`.
    """
    if values_LXJ.shape[1] < 2:
        raise ConfigError("probe: one language alone differs from none; expected at least two")
    return np.asarray(deviation_by_language(values_LXJ, reference=reference).mean(-1))


def normalised_entropy(probs_LXJ: np.ndarray) -> np.ndarray:
    """[L, J]: entropy over languages of p / sum of p, over log X, in [0, 1]; NaN for a neuron that never fires."""
    totals_L1J = probs_LXJ.sum(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares_LXJ = probs_LXJ / totals_L1J
        terms_LXJ = np.where(shares_LXJ > 0, -shares_LXJ * np.log(shares_LXJ), np.where(shares_LXJ == 0, 0.0, np.nan))
    return np.asarray(terms_LXJ.sum(1) / math.log(probs_LXJ.shape[1]))


@dataclass(frozen=True, kw_only=True)
class SpecificNeurons:
    """Neurons that fire for some languages only."""

    is_specific: np.ndarray
    """bool [L, X, J]: specific to the language; a neuron may belong to several."""
    entropy: np.ndarray
    """float64 [L, J], normalised; NaN for dead neurons."""
    threshold: float
    """The percentile of p over all layers, languages and neurons."""
    num_dead: int
    """Neurons that fire on no token of any language; they have no entropy and are never specific."""

    @property
    def counts(self) -> np.ndarray:
        """int64 [L, X]: specific neurons by layer and language."""
        return np.asarray(self.is_specific.sum(-1))


def lape(
    probs_LXJ: np.ndarray, *, percentile: float, entropy_share: float, living_only: bool = False
) -> SpecificNeurons:
    """Language activation probability entropy: of the neurons with p above the percentile in some language, those of
    lowest entropy, as many as `entropy_share` of all neurons; each belongs to the languages above the percentile.

    The percentile is over all layers together, the value of rank round(percentile / 100 * L X J). With `living_only` it
    lies between two ranks, and the share is of the neurons that ever fire. A neuron that fires alike in all languages
    is never taken. Source: `identify.py` of RUCAIBox/Language-Specific-Neurons; `living_only` and the last rule are
    ours.
    """
    entropy_LJ = normalised_entropy(probs_LXJ)
    is_dead_LJ = np.isnan(entropy_LJ)
    if living_only:
        threshold = float(np.percentile(probs_LXJ, percentile))
        wanted = int(entropy_share * int((~is_dead_LJ).sum()))
    else:
        rank = max(1, round(percentile / 100 * probs_LXJ.size))
        threshold = float(np.partition(probs_LXJ, rank - 1, axis=None)[rank - 1])
        wanted = round(entropy_share * entropy_LJ.size)
    is_above_LXJ = probs_LXJ > threshold
    candidates_LJ = is_above_LXJ.any(1) & ~is_dead_LJ & (np.nan_to_num(entropy_LJ, nan=1.0) < 1 - UNIFORM_TOLERANCE)
    ranked = np.argsort(np.where(candidates_LJ, entropy_LJ, np.inf), axis=None, kind="stable")
    taken = np.zeros(entropy_LJ.size, dtype=bool)
    taken[ranked[: min(wanted, int(candidates_LJ.sum()))]] = True
    is_specific_LXJ = is_above_LXJ & taken.reshape(entropy_LJ.shape)[:, None]
    return SpecificNeurons(
        is_specific=is_specific_LXJ, entropy=entropy_LJ, threshold=threshold, num_dead=int(is_dead_LJ.sum())
    )


def top_active(probs_LXJ: np.ndarray, *, share: float) -> np.ndarray:
    """bool [L, X, J]: the `share` of all neurons of the decoder with the highest p in a language; none with p = 0.

    Ties go to the lower layer and index, alike in every language.
    """
    num_layers, num_languages, num_neurons = probs_LXJ.shape
    wanted = int(share * num_layers * num_neurons)
    chosen_LXJ = np.zeros_like(probs_LXJ, dtype=bool)
    for at in range(num_languages):
        ranked = np.argsort(-probs_LXJ[:, at], axis=None, kind="stable")[:wanted]
        flat = np.zeros(num_layers * num_neurons, dtype=bool)
        flat[ranked] = True
        chosen_LXJ[:, at] = flat.reshape(num_layers, num_neurons)
    return chosen_LXJ & (probs_LXJ > 0)


def top_active_only(probs_LXJ: np.ndarray, *, share: float, reference: int) -> np.ndarray:
    """bool [L, X, J]: in the language's top-active set and not in that of the reference, which keeps none."""
    active_LXJ = top_active(probs_LXJ, share=share)
    only_LXJ: np.ndarray = active_LXJ & ~active_LXJ[:, [reference]]
    return only_LXJ


def layer_scores(counts_LX: np.ndarray, *, reference: int) -> np.ndarray:
    """[L]: neurons in a layer, mean over languages but the reference, over their sum; zeros where there are none."""
    others = [index for index in range(counts_LX.shape[1]) if index != reference]
    means_L = counts_LX[:, others].mean(-1)
    total = means_L.sum()
    return np.asarray(means_L / total if total else np.zeros(len(means_L)))


# Layers from scores


def prefix_above(scores_L: np.ndarray, *, threshold: float, region: int, k_max: int | None = None) -> list[int]:
    """Layers 0 .. k - 1 with scores above the threshold: the longest such prefix within `region` and `k_max` layers."""
    longest = region if k_max is None else min(region, k_max)
    count = 0
    while count < longest and scores_L[count] > threshold:
        count += 1
    return list(range(count))


def gap_prefix(scores_L: np.ndarray, *, k_max: int) -> list[int]:
    """SLAM's rule: the longest prefix of the lower half with a score above the mean over all layers."""
    return prefix_above(scores_L, threshold=float(scores_L.mean()), region=lower_half(len(scores_L)), k_max=k_max)


def shallow_prefix(scores_L: np.ndarray, *, std_factor: float, region: float, fallback_share: float) -> list[int]:
    """PLAST's rule: the longest prefix of the lowest `region` (a share of the layers) above mean + std_factor * std.

    The standard deviation is the population's. Where no layer is above, the first ceil(fallback_share * L).
    """
    num_layers = len(scores_L)
    threshold = float(scores_L.mean() + std_factor * scores_L.std())
    # The small number keeps 1/3 of 9 at 3 when the share was written with fewer digits' precision.
    lowest = max(1, math.floor(region * num_layers + 1e-6))
    prefix = prefix_above(scores_L, threshold=threshold, region=lowest)
    return prefix or list(range(math.ceil(fallback_share * num_layers - 1e-6)))


def lower_half(num_layers: int) -> int:
    """Number of layers in the lower half, at least one."""
    return max(1, num_layers // 2)


def highest(scores_L: np.ndarray, *, k: int, region: int | None = None) -> list[int]:
    """The k layers of highest score among the first `region` (all by default), in order; ties go to the lower one."""
    size = len(scores_L) if region is None else region
    _check_count(k, size)
    return sorted(int(index) for index in np.argsort(-scores_L[:size], kind="stable")[:k])


def bottom_layers(num_layers: int, *, k: int) -> list[int]:
    """The k layers next to the input."""
    _check_count(k, num_layers)
    return list(range(k))


def middle_layers(num_layers: int, *, k: int) -> list[int]:
    """The k layers around the middle; the lower side where it does not divide."""
    _check_count(k, num_layers)
    first = (num_layers - k) // 2
    return list(range(first, first + k))


def top_layers(num_layers: int, *, k: int) -> list[int]:
    """The k layers next to the head."""
    _check_count(k, num_layers)
    return list(range(num_layers - k, num_layers))


def random_layers(num_layers: int, *, k: int, seed: int) -> list[int]:
    """k different layers, drawn without replacement, in order."""
    _check_count(k, num_layers)
    return sorted(random.Random(seed).sample(range(num_layers), k))


def manual_layers(layers: Sequence[int], *, num_layers: int) -> list[int]:
    """The named layers in order; negative ones count from the end. Doubles and strays raise `ConfigError`."""
    strays = [index for index in layers if not -num_layers <= index < num_layers]
    if strays or not layers:
        raise ConfigError(f"layers: got {list(layers)}, expected indices in {-num_layers} .. {num_layers - 1}")
    indices = sorted(index % num_layers for index in layers)
    if len(set(indices)) != len(indices):
        raise ConfigError(f"layers: got {list(layers)}, which names a layer twice")
    return indices


def _check_count(k: int, num_candidates: int) -> None:
    if not 1 <= k <= num_candidates:
        raise ConfigError(f"k: got {k}, expected 1 .. {num_candidates}, the layers to choose from")


# How firm a choice is


def jaccard(left: Sequence[int], right: Sequence[int]) -> float:
    """Size of the intersection over that of the union; 1 for two empty sets."""
    union = set(left) | set(right)
    return len(set(left) & set(right)) / len(union) if union else 1.0


@dataclass(frozen=True, kw_only=True)
class Stability:
    """Choices from resampled texts against the choice from all of them."""

    jaccard: float
    """Mean over resamples, in [0, 1]."""
    frequency: list[float]
    """By layer: share of the resamples that chose it."""
    scores: np.ndarray
    """float64 [resamples, L]: the scores of each resample, for bands."""


def bootstrap_stability(
    blocks: Sequence[NeuronCounts],
    choose: Callable[[NeuronCounts], tuple[np.ndarray, list[int]]],
    *,
    resamples: int,
    seed: int,
) -> Stability:
    """Resamples blocks of parallel texts with replacement, all languages alike, and chooses again each time.

    `choose(counts)` gives scores by layer and the chosen layers.
    """
    _, chosen = choose(merge(blocks))
    generator = random.Random(seed)
    scores, picks = [], []
    for _ in range(resamples):
        scores_L, layers = choose(merge(generator.choices(blocks, k=len(blocks))))
        scores.append(scores_L)
        picks.append(layers)
    num_layers = blocks[0].num_layers
    return Stability(
        jaccard=sum(jaccard(chosen, layers) for layers in picks) / resamples,
        frequency=[sum(index in layers for layers in picks) / resamples for index in range(num_layers)],
        scores=np.stack(scores),
    )
