"""Hypothesis strategies for everything that the grammar can say.

A clause is drawn by `random` from a seed that Hypothesis chooses: strategies built part by part take a tenth of a
second a clause.
"""

import random

from hypothesis import strategies as st

from athlos.lab.grammar import Clause, NounPhrase
from athlos.lab.lexicon import ADPOSITIONS, CONCEPTS, NUM_NAMES, Category, name

NOUNS = [concept for concept, kind in CONCEPTS.items() if kind is Category.noun] + ["spare-0", "spare-1"]
QUESTION_WORDS = [concept for concept, kind in CONCEPTS.items() if kind is Category.question_word]
ADJECTIVES = [concept for concept, kind in CONCEPTS.items() if kind is Category.adjective]
VERBS = [concept for concept, kind in CONCEPTS.items() if kind is Category.verb]


def _single(rng: random.Random) -> NounPhrase:
    """A phrase with up to five owners, each owned by the next."""
    phrase = None
    for _ in range(1 + rng.choice((0, 0, 0, 1, 1, 2, 5))):
        head = rng.choice(
            (rng.choice(NOUNS), rng.choice(NOUNS), name(rng.randrange(NUM_NAMES)), rng.choice(QUESTION_WORDS))
        )
        adjectives = tuple(rng.choices(ADJECTIVES, k=rng.choice((0, 0, 1, 2, 3))))
        phrase = NounPhrase(head, adjectives, rng.choice((None, None, 0, 1, 7, 42, 999_999_999)), owner=phrase)
    assert phrase is not None
    return phrase


def _phrase(rng: random.Random) -> NounPhrase:
    first = _single(rng)
    return first._replace(and_also=_single(rng)) if rng.random() < 0.3 else first


def _clause(rng: random.Random) -> Clause:
    adjuncts = tuple((rng.choice(ADPOSITIONS), _phrase(rng)) for _ in range(rng.choice((0, 0, 1, 2, 3))))
    thing = _phrase(rng) if rng.random() < 0.7 else None
    return Clause(rng.choice(VERBS), _phrase(rng), thing, adjuncts, rng.random() < 0.4, rng.random() < 0.3)


def _seeds() -> st.SearchStrategy[random.Random]:
    return st.integers(0, 2**32).map(random.Random)


def phrases() -> st.SearchStrategy[NounPhrase]:
    return _seeds().map(_phrase)


def clauses() -> st.SearchStrategy[Clause]:
    return _seeds().map(_clause)
