"""Which documents a sentence cites."""

import random

import pytest
from tests.methods.start.reference import smallest_cover

from athlos.errors import DataError
from athlos.methods.start.cover import cover
from athlos.methods.start.synthesis import DropError, citations


def test_the_example_of_the_specification():
    a, b, c = range(3)
    documents = [{a}, {a, b}, {c}, {b, c}]
    assert cover({a, b, c}, documents) == [1, 2], "document 2, then 3 of the equals 3 and 4"
    assert citations({a, b, c}, documents, most=3) == [2, 3]


def test_what_others_make_needless_is_left_out():
    # Greed takes 0 first, for its four claims; then 1 and 2 together hold all of them.
    assert cover(set(range(6)), [{0, 1, 2, 3}, {0, 1, 4}, {2, 3, 5}]) == [1, 2]
    assert cover({7}, [{1}, {7}, {7}]) == [1]
    assert cover(set(), [{1}]) == []


def test_every_cover_covers_is_minimal_and_at_most_one_document_larger_than_the_smallest():
    rng = random.Random(0)
    for _ in range(3000):
        num_claims, num_documents = rng.randint(1, 6), rng.randint(1, 5)
        documents = [
            {claim for claim in range(num_claims) if rng.random() < rng.choice([0.2, 0.5])}
            for _ in range(num_documents)
        ]
        claims = set(range(num_claims))
        found, smallest = cover(claims, documents), smallest_cover(claims, documents)
        assert (found is None) == (smallest is None)
        if found is None or smallest is None:
            continue
        assert claims <= set().union(*(documents[place] for place in found))
        assert found == sorted(set(found))
        for place in found:
            assert not claims <= set().union(*(documents[other] for other in found if other != place))
        assert len(found) <= smallest + 1


def test_a_claim_without_a_document_is_an_error_and_too_many_documents_a_drop():
    with pytest.raises(DataError, match="claim 2 is in none of 2 documents"):
        citations({0, 2}, [{0}, {1}], most=3)
    with pytest.raises(DropError, match="too_many_documents"):
        citations({0, 1}, [{0}, {1}], most=1)
