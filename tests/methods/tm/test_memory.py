"""The split of memory and test, repeats, and the controls."""

import random

import pytest
from tests.methods.tm.made import method, record, records

from athlos.methods.tm.config import Corrupt
from athlos.methods.tm.memory import Pair, kept_pairs, normalised, shown_targets


def test_case_white_space_and_marks_at_the_end_do_not_make_another_source():
    assert normalised("Save  Changes.") == normalised("save changes") == normalised(" SAVE changes … ")
    assert normalised("Save %(name)s") != normalised("Save %(title)s")
    assert normalised("Delete it") != normalised("Do not delete it")
    assert normalised("...") == "..."  # nothing but marks is not nothing


def test_a_test_sentence_and_its_near_copies_are_left_out_of_the_memory():
    tested = {normalised("Save all changes now!")}
    pairs, counts = kept_pairs(records(), tested=tested, method=method())
    assert "Save all changes now" not in {pair.source for pair in pairs}
    assert "Save changes now" in {pair.source for pair in pairs}
    assert (counts["tested"], counts["kept"], counts["read"]) == (1, len(pairs), len(records()))


def test_one_target_of_a_source_is_kept_that_with_the_first_line():
    doubled = [
        record("en-de:100", "Save the page here", "Hier die Seite speichern"),
        record("en-de:20", "Save the page here.", "Seite hier speichern"),
        record("en-de:3", "Save the page here", "Hier die Seite speichern"),
    ]
    for order in (doubled, doubled[::-1]):
        pairs, counts = kept_pairs(order, tested=(), method=method())
        assert [(pair.identifier, pair.target) for pair in pairs] == [("en-de:3", "Hier die Seite speichern")]
        assert (counts["same_source"], counts["repeated"]) == (1, 1)
    pairs, counts = kept_pairs(doubled, tested=(), method=method("method.unique_src=false"))
    assert [pair.identifier for pair in pairs] == ["en-de:3", "en-de:20"]
    assert counts["repeated"] == 1


def test_sentences_of_other_lengths_are_left_out():
    pairs, counts = kept_pairs(
        records(), tested=(), method=method("method.pairs.min_words=4", "method.pairs.max_words=6")
    )
    assert {len(pair.source.split()) for pair in pairs} <= {4, 5, 6}
    assert counts["length"] == len(records()) - len(pairs) > 0


def test_a_smaller_memory_lies_within_a_larger_one():
    many = [record(f"en-de:{number}", f"sentence number {number} here", "x") for number in range(400)]
    sizes = {}
    for share in (0.25, 0.5, 1.0):
        pairs, counts = kept_pairs(many, tested=(), method=method(f"method.tm_size={share}"))
        sizes[share] = {pair.identifier for pair in pairs}
        assert counts["size"] == 400 - len(pairs)
    assert sizes[0.25] < sizes[0.5] < sizes[1.0]
    assert len(sizes[1.0]) == 400
    assert 0.15 < len(sizes[0.25]) / 400 < 0.35


def memory() -> dict[str, Pair]:
    return {
        item.identifier: Pair(
            identifier=item.identifier, source=item.source, target=item.target, foreign=f"F {item.source}"
        )
        for item in records()
    }


def test_shuffled_targets_are_those_of_other_pairs():
    pairs = memory()
    shown = shown_targets(pairs, kind=Corrupt.shuffled_targets, noise=0.3, seed=1)
    assert all(shown[identifier] != pair.target for identifier, pair in pairs.items())
    assert sorted(shown.values()) == sorted(pair.target for pair in pairs.values())
    assert shown != shown_targets(pairs, kind=Corrupt.shuffled_targets, noise=0.3, seed=2)
    reordered = dict(random.Random(3).sample(list(pairs.items()), len(pairs)))
    assert shown == shown_targets(reordered, kind=Corrupt.shuffled_targets, noise=0.3, seed=1)


def test_the_true_target_of_each_pair_is_shown_without_a_control():
    pairs = memory()
    assert shown_targets(pairs, kind=Corrupt.none, noise=0.3, seed=1) == {
        identifier: pair.target for identifier, pair in pairs.items()
    }


def test_another_language_takes_the_place_of_the_target():
    pairs = memory()
    shown = shown_targets(pairs, kind=Corrupt.wrong_language, noise=0.3, seed=1)
    assert shown == {identifier: f"F {pair.source}" for identifier, pair in pairs.items()}


@pytest.mark.parametrize(("noise", "low", "high"), [(0.0, 0, 0), (0.5, 0.3, 0.7), (1.0, 0.8, 1.0)])
def test_noise_replaces_words_by_words_of_the_memory(noise: float, low: float, high: float):
    pairs = memory()
    shown = shown_targets(pairs, kind=Corrupt.noisy, noise=noise, seed=1)
    known = {word for pair in pairs.values() for word in pair.target.split()}
    changed = total = 0
    for identifier, pair in pairs.items():
        ours, true = shown[identifier].split(), pair.target.split()
        assert len(ours) == len(true)
        assert set(ours) <= known
        changed += sum(one != other for one, other in zip(ours, true, strict=True))
        total += len(true)
    assert low <= changed / total <= high
