"""Layer selectors against loops, numpy and scipy, with the exact values of both specifications."""

import math
import random
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models import probe_reference as naive
from tests.tolerances import EXACT

from athlos.errors import ConfigError
from athlos.models import layer_selectors as fast
from athlos.models.neuron_counts import NeuronCounts


def random_probs(seed: int, *, layers: int = 4, languages: int = 3, neurons: int = 50) -> np.ndarray:
    """Shares with ties, dead neurons and neurons that fire alike everywhere."""
    generator = np.random.default_rng(seed)
    probs = generator.integers(0, 6, (layers, languages, neurons)) / 5 * (generator.random((layers, 1, neurons)) > 0.2)
    probs[:, :, 0] = 0.0
    probs[:, :, 1] = 0.8
    return probs


def triples(mask: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(int(part) for part in place) for place in np.argwhere(mask)}


@pytest.mark.parametrize("seed", range(5))
def test_deviation_equals_loops_and_numpy(seed: int) -> None:
    probs = random_probs(seed)
    wanted = naive.deviation(probs.tolist(), reference=1)
    np.testing.assert_allclose(fast.deviation(probs, reference=1), wanted, atol=EXACT)
    by_hand = np.mean([(probs[:, x] - probs[:, 1]) ** 2 for x in (0, 2)], axis=(0, 2))
    np.testing.assert_allclose(by_hand, wanted, atol=EXACT)
    by_language = fast.deviation_by_language(probs, reference=1)
    assert by_language.shape == (4, 2)
    np.testing.assert_allclose(by_language.mean(1), wanted, atol=EXACT)


def test_equal_languages_deviate_by_nothing_and_have_no_specific_neuron() -> None:
    one = random_probs(0, languages=1)
    alike = np.repeat(one, 3, axis=1)
    assert not fast.deviation(alike, reference=0).any()
    assert not fast.lape(alike, percentile=50, entropy_share=1.0).is_specific.any()
    assert not fast.top_active_only(alike, share=0.3, reference=0).any()
    assert not fast.layer_scores(np.zeros((4, 3)), reference=0).any()


def test_one_language_cannot_deviate() -> None:
    with pytest.raises(ConfigError, match="at least two"):
        fast.deviation(random_probs(0, languages=1), reference=0)


def test_the_prefix_of_the_specification() -> None:
    """D = (4, 3, 1, 1, 1, 2): lower half {0, 1, 2}, mean 2 -> layers 0, 1."""
    scores = np.array([4.0, 3, 1, 1, 1, 2])
    assert fast.gap_prefix(scores, k_max=6) == [0, 1] == naive.prefix(scores.tolist(), 6)
    assert fast.gap_prefix(scores, k_max=1) == [0]
    assert fast.gap_prefix(np.array([1.0, 9, 9, 1, 1, 1]), k_max=6) == []  # a prefix begins at layer 0
    assert fast.gap_prefix(np.ones(6), k_max=6) == []


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 6))
def test_prefix_rules_equal_loops(scores: list[int], k_max: int) -> None:
    if len(scores) > 1:
        assert fast.gap_prefix(np.array(scores, dtype=float), k_max=k_max) == naive.prefix(scores, k_max)
    lowest = max(1, len(scores) // 3)
    wanted = naive.shallow_prefix(scores, 0.5, lowest) or list(range(math.ceil(len(scores) * 0.15)))
    found = fast.shallow_prefix(np.array(scores, dtype=float), std_factor=0.5, region=1 / 3, fallback_share=0.15)
    assert found == wanted


def test_plasts_prefix_of_its_specification() -> None:
    scores = np.array([0.3, 0.3, 0.1, 0.1, 0.05, 0.05, 0.05, 0.03, 0.02])
    assert scores.mean() == pytest.approx(0.1111, abs=5e-5)
    assert scores.std() == pytest.approx(0.1041, abs=1e-4)
    assert scores.mean() + 0.5 * scores.std() == pytest.approx(0.1632, abs=5e-5)
    settings_of = {"std_factor": 0.5, "region": 1 / 3, "fallback_share": 0.15}
    assert fast.shallow_prefix(scores, **settings_of) == [0, 1]
    assert fast.shallow_prefix(np.ones(18), **settings_of) == [0, 1, 2]  # ceil(2.7)
    assert fast.shallow_prefix(np.ones(20), **settings_of) == [0, 1, 2]  # 0.15 * 20 is 3, not 4


@pytest.mark.parametrize(
    ("shares", "wanted"), [((1, 0, 0, 0), 0.0), ((0.25, 0.25, 0.25, 0.25), 1.0), ((0.5, 0.5, 0, 0), 0.5)]
)
def test_entropy_of_the_specification_and_of_scipy(shares: tuple[float, ...], wanted: float) -> None:
    probs = np.array(shares).reshape(1, 4, 1) * 0.3  # unnormalised: p need not sum to 1
    found = fast.normalised_entropy(probs)[0, 0]
    assert found == pytest.approx(wanted, abs=EXACT)
    assert found == pytest.approx(scipy.stats.entropy(np.array(shares)) / math.log(4), abs=EXACT)
    assert math.isnan(fast.normalised_entropy(np.zeros((1, 4, 1)))[0, 0])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("living_only", [False, True])
@pytest.mark.parametrize(("percentile", "share"), [(95, 0.01), (60, 0.2), (50, 1.0)])
def test_lape_equals_loops(seed: int, percentile: float, share: float, living_only: bool) -> None:
    probs = random_probs(seed, neurons=120)
    found = fast.lape(probs, percentile=percentile, entropy_share=share, living_only=living_only)
    wanted, dead = naive.lape(probs.tolist(), percentile, share, living_only=living_only)
    assert triples(found.is_specific) == wanted
    assert found.num_dead == dead > 0
    threshold_of = naive.percentile if living_only else naive.ranked_value
    assert found.threshold == pytest.approx(threshold_of(probs.flatten().tolist(), percentile), abs=EXACT)
    assert found.counts.sum() == len(wanted)


def test_lape_counts_dead_neurons_and_leaves_ties_out() -> None:
    """The official rule by hand: 2 languages, 10 neurons, 3 of them dead. Half of all 10 is 5, and of the 7 that fire
    3; of 20 values the fifteenth is the threshold, 0.5, and one between it and the next, 0.525, where ours lies."""
    probs = np.zeros((1, 2, 10))
    probs[0, 0, :7] = [0.9, 0.8, 0.7, 0.65, 0.6, 0.5, 0.5]
    probs[0, 1, :7] = [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.5]
    official = fast.lape(probs, percentile=75, entropy_share=0.5)
    assert official.threshold == 0.5
    assert triples(official.is_specific) == {(0, 0, neuron) for neuron in range(5)}
    living = fast.lape(probs, percentile=75, entropy_share=0.5, living_only=True)
    assert living.threshold == pytest.approx(0.525)
    assert triples(living.is_specific) == {(0, 0, neuron) for neuron in range(3)}
    assert official.num_dead == living.num_dead == 3


def test_the_percentile_is_over_all_layers() -> None:
    """Sabotage of the specification: a percentile by layer gives every layer equal counts."""
    probs = random_probs(1, layers=2, neurons=200)
    probs[1] *= 0.1
    found = fast.lape(probs, percentile=80, entropy_share=1.0)
    assert found.counts[0].sum() > 0
    assert found.counts[1].sum() == 0


@pytest.mark.parametrize("seed", range(4))
def test_top_active_equals_loops(seed: int) -> None:
    probs = random_probs(seed)
    found = fast.top_active(probs, share=0.1)
    wanted = naive.top_active(probs.tolist(), 0.1)
    assert triples(found) == wanted
    reference = {(layer, neuron) for layer, language, neuron in wanted if language == 2}
    only = {place for place in wanted if (place[0], place[2]) not in reference}
    assert triples(fast.top_active_only(probs, share=0.1, reference=2)) == only


def test_layer_scores_sum_to_one_without_the_reference() -> None:
    counts = np.array([[4, 2, 100], [1, 1, 100], [0, 0, 100]])
    np.testing.assert_allclose(fast.layer_scores(counts, reference=2), [0.75, 0.25, 0.0], atol=EXACT)


def test_layers_by_place_and_by_score() -> None:
    assert fast.bottom_layers(6, k=2) == [0, 1]
    assert fast.top_layers(6, k=2) == [4, 5]
    assert fast.middle_layers(6, k=2) == [2, 3]
    assert fast.middle_layers(7, k=2) == [2, 3]
    assert fast.highest(np.array([1.0, 5, 3, 5]), k=2) == [1, 3]
    assert fast.highest(np.array([1.0, 5, 3, 9]), k=2, region=3) == [1, 2]
    assert fast.manual_layers([-1, 0], num_layers=4) == [0, 3]
    for bad in ([0, 0], [3, -1], [4], []):
        with pytest.raises(ConfigError, match="layers: got"):
            fast.manual_layers(bad, num_layers=4)
    for choose in (fast.bottom_layers, fast.top_layers, fast.middle_layers):
        with pytest.raises(ConfigError, match=r"k: got 7, expected 1 \.\. 6"):
            choose(6, k=7)
    with pytest.raises(ConfigError, match=r"k: got 3, expected 1 \.\. 2"):
        fast.highest(np.ones(6), k=3, region=2)


def test_random_layers_never_repeat_and_follow_the_seed() -> None:
    """The official code draws with replacement from 0-31: doubles, and wrong for 40 layers."""
    draws = [fast.random_layers(40, k=6, seed=seed) for seed in range(200)]
    assert all(len(set(draw)) == 6 and draw == sorted(draw) for draw in draws)
    assert set().union(*draws) == set(range(40))
    assert fast.random_layers(40, k=6, seed=3) == draws[3]
    state = random.getstate()
    fast.random_layers(40, k=6, seed=3)
    assert random.getstate() == state


def blocks_of(shares: Any, *, num_blocks: int) -> list[NeuronCounts]:
    """Blocks of 10 tokens a language whose shares above zero are drawn around `shares` [L, X, J]."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(num_blocks):
        positive = generator.binomial(10, np.asarray(shares))
        num_languages = positive.shape[1]
        found.append(
            NeuronCounts(
                languages=tuple("abc"[:num_languages]),
                tokens=np.full(num_languages, 10),
                positive=positive,
                sums=positive * 1.0,
                texts=np.ones(num_languages, int),
                text_shares=positive / 10,
            )
        )
    return found


def choose(counts: NeuronCounts) -> tuple[np.ndarray, list[int]]:
    scores = fast.deviation(counts.share_positive(), reference=0)
    return scores, fast.highest(scores, k=1)


def test_stability_tells_a_firm_choice_from_a_loose_one() -> None:
    firm = np.full((4, 2, 20), 0.5)
    firm[1, 1] = 1.0
    stable = fast.bootstrap_stability(blocks_of(firm, num_blocks=10), choose, resamples=20, seed=1)
    assert stable.jaccard == 1.0
    assert stable.frequency == [0.0, 1.0, 0.0, 0.0]
    assert stable.scores.shape == (20, 4)
    loose = fast.bootstrap_stability(blocks_of(np.full((4, 2, 20), 0.5), num_blocks=10), choose, resamples=40, seed=1)
    assert loose.jaccard < 0.9
    assert sum(loose.frequency) == pytest.approx(1.0)


def test_jaccard() -> None:
    assert fast.jaccard([0, 1], [1, 2]) == pytest.approx(1 / 3)
    assert fast.jaccard([], []) == 1.0
