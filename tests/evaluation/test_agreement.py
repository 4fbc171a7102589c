"""Scores against human labels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from tests.judging.reference import auroc
from tests.tolerances import EXACT

from athlos.evaluation.agreement import agreement

ITEMS = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()), min_size=2, max_size=12)


@settings(max_examples=30)
@given(items=ITEMS)
def test_the_value_is_the_share_of_pairs_in_order_and_that_of_scikit_learn(items):
    scores, labels = [score for score, _ in items], [label for _, label in items]
    found = agreement(scores, scores[::-1], labels, resamples=2, seed=0)
    if len(set(labels)) < 2:
        assert math.isnan(found.auroc.value)
        assert math.isnan(found.auroc.low)
        return
    assert found.auroc.value == pytest.approx(auroc(scores, labels), abs=EXACT)
    assert found.overlap.value == pytest.approx(roc_auc_score(labels, scores[::-1]), abs=EXACT)
    assert found.gain.value == pytest.approx(found.auroc.value - found.overlap.value, abs=EXACT)


def test_intervals_are_those_of_paired_resamples():
    rng = np.random.default_rng(3)
    labels = [bool(label) for label in rng.integers(2, size=40)]
    scores, others = ((rng.random(40) + 0.4 * np.asarray(labels)).tolist() for _ in range(2))
    found = agreement(scores, others, labels, resamples=200, seed=5)
    generator, drawn = np.random.default_rng(5), []
    for _ in range(200):
        items = generator.integers(40, size=40)
        one, other = ([column[item] for item in items] for column in (scores, others))
        drawn.append(auroc(one, [labels[item] for item in items]) - auroc(other, [labels[item] for item in items]))
    assert (found.gain.low, found.gain.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=EXACT)
    assert found.auroc.low < found.auroc.value < found.auroc.high


def test_only_a_judge_that_is_surely_better_than_overlap_is_called_so():
    labels = [number % 2 == 0 for number in range(60)]
    right = [float(label) for label in labels]
    chance = [number % 3 / 2 for number in range(60)]
    assert agreement(right, chance, labels, resamples=200, seed=1).verdict == "better than word overlap"
    for scores, overlap in ((chance, chance), (chance, right), (right, right)):
        assert (
            agreement(scores, overlap, labels, resamples=200, seed=1).verdict
            == "not shown to be better than word overlap"
        )
    assert (
        agreement(right, chance, [True] * 60, resamples=9, seed=1).verdict == "not shown to be better than word overlap"
    )
