"""Words that two texts share: ROUGE, copied n-grams, and how much a text repeats itself. No torch.

A word is what the default normaliser of the language leaves between spaces; of scripts without spaces, a character.
`rouge_score` would also cut English words to their stems, which needs nltk: ours counts words as they are.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rapidfuzz.distance import LCSseq

from athlos.text.normalisation import default_normaliser, normalise

NUM_GRAM = 4
"""Words of a piece that counts as copied."""


class Overlap(NamedTuple):
    """Shared words by those of the answer, by those of the reference, and their harmonic mean, in [0, 1]."""

    precision: float
    recall: float
    f1: float


def words(text: str, *, language: str) -> list[str]:
    return normalise(text, normaliser=default_normaliser(language), language=language).split()


def rouge_l(answer: str, reference: str, *, language: str) -> Overlap:
    """By the longest common subsequence; nan where the reference has no word, and 0 where only the answer has none."""
    of_answer, of_reference = words(answer, language=language), words(reference, language=language)
    return _overlap(LCSseq.similarity(of_answer, of_reference), of_answer, of_reference)


def rouge_1(answer: str, reference: str, *, language: str) -> Overlap:
    """By the words that both have, each as often as both have it; nan and 0 as in `rouge_l`."""
    of_answer, of_reference = words(answer, language=language), words(reference, language=language)
    return _overlap((Counter(of_answer) & Counter(of_reference)).total(), of_answer, of_reference)


def extractiveness(answer: str, documents: Sequence[str], *, language: str, n: int = NUM_GRAM) -> float:
    """Share of the answer's n-grams that stand in one of the documents; nan for an answer of fewer than n words."""
    own = _grams(words(answer, language=language), n)
    copied = {gram for document in documents for gram in _grams(words(document, language=language), n)}
    return sum(gram in copied for gram in own) / len(own) if own else math.nan


def distinct(text: str, *, language: str, n: int) -> float:
    """Different n-grams by all of them; nan for a text of fewer than n words."""
    grams = _grams(words(text, language=language), n)
    return len(set(grams)) / len(grams) if grams else math.nan


def harmonic(first: float, second: float) -> float:
    """Harmonic mean of two shares; 0 where both are 0, nan where one is nan."""
    total = first + second
    return 0.0 if total == 0 else 2 * first * second / total


def _grams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]


def _overlap(num_common: int, answer: Sequence[str], reference: Sequence[str]) -> Overlap:
    if not reference:
        return Overlap(math.nan, math.nan, math.nan)
    if not answer:
        return Overlap(0.0, 0.0, 0.0)
    precision, recall = num_common / len(answer), num_common / len(reference)
    return Overlap(precision, recall, harmonic(precision, recall))
