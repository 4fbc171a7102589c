"""Who trains on which sample."""

import random

from tests.methods.start import reference

from athlos.methods.start.rewards import Sampled
from athlos.methods.start.selection import best, worse
from athlos.text.citations import CitedSentence


def sample(text, attr, compre, reward, *, finished=True):
    sentences = [CitedSentence(text, (1,))] if text else []
    return Sampled(text=text, finished=finished, sentences=sentences, attr=attr, compre=compre, reward=reward)


def both(samples, **values):
    better = best(samples)
    return better, worse(better, samples, kinds=["attr", "comp"], min_gap=0.2, **values) if better else {}


def test_pairs_equal_the_twin():
    rng = random.Random(2)
    seen = set()
    for _ in range(2000):
        values = []
        for _ in range(rng.randint(1, 6)):
            attr, compre = rng.choice([0.5, 1.0, 1.0]), rng.choice([0.0, 0.25, 0.5, 1.0])
            values.append((rng.choice("abcdef"), attr, compre, (attr == 1) * compre * rng.choice([0.5, 1.0])))
        samples = [sample(*one) for one in values]
        plus, by_attr, by_comp = reference.choice(values, 0.2)
        better, pairs = both(samples)
        assert better is (None if plus is None else samples[plus])
        assert pairs.get("attr") is (None if by_attr is None else samples[by_attr])
        assert pairs.get("comp") is (None if by_comp is None else samples[by_comp])
        seen.add((plus is None, by_attr is None, by_comp is None))
    assert len(seen) == 5, "with and without each kind of pair"


def test_failed_samples_alone_give_nothing_to_imitate_and_no_pair():
    samples = [sample("a", 0.99, 1.0, 0.0), sample("b", 0.5, 1.0, 0.0)]
    assert best(samples) is None


def test_answers_that_cannot_be_read_or_did_not_end_are_in_no_pair():
    good = sample("a", 1.0, 1.0, 0.9)
    unread, cut = sample("", 0.0, 0.0, 1.0), sample("c", 0.0, 1.0, 1.0, finished=False)
    better, pairs = both([unread, cut, good])
    assert better is good
    assert pairs == {}


def test_pairs_of_equal_text_or_equal_worth_are_dropped():
    good = sample("a", 1.0, 1.0, 0.9)
    assert both([good, sample("a", 0.5, 1.0, 0.0)])[1] == {}
    soft = sample("a", 0.5, 1.0, 0.9)
    assert both([soft, sample("b", 0.5, 1.0, 0.1)])[1] == {}


def test_only_the_wanted_kinds_and_gaps():
    good, unsupported, thin = sample("a", 1.0, 0.6, 0.6), sample("b", 0.5, 1.0, 0.0), sample("c", 1.0, 0.45, 0.4)
    assert set(worse(good, [good, unsupported, thin], kinds=["attr", "comp"], min_gap=0.2)) == {"attr"}
    assert set(worse(good, [good, unsupported, thin], kinds=["comp"], min_gap=0.1)) == {"comp"}


def test_answers_of_masked_heads_stand_for_y_attr_alone():
    good, masked = sample("a", 1.0, 0.6, 0.6), sample("m", 0.5, 0.9, 0.0)
    thin = sample("t", 1.0, 0.0, 0.0)
    assert both([good], others=[masked, thin])[1] == {"attr": masked}
    own = sample("o", 0.5, 0.95, 0.0)
    assert both([good, own], others=[masked])[1] == {"attr": own}
