"""The fuzzy match score of two texts: how much of the longer one an edit leaves alone.

    FMS(x, x') = (max(|x|, |x'|) - ED(x, x')) / max(|x|, |x'|)

ED is Levenshtein's distance with unit costs, by rapidfuzz, over words or characters. Source: Bulte and Tezcan 2019,
whose code counts the words that white space parts. Other tools differ: SYSTRAN's fuzzy-match weighs words and has
penalties, which this plain distance has not.
"""

import string
from collections.abc import Hashable, Sequence
from enum import StrEnum

from athlos.text.language import base_language
from athlos.text.normalisation import UNSPACED_LANGUAGES

_PUNCTUATION = str.maketrans("", "", string.punctuation)


class MatchUnit(StrEnum):
    """What an edit changes, takes away or puts in. `auto` is a character where words are written together."""

    auto = "auto"
    word = "word"
    char = "char"


def match_units(
    text: str, *, language: str, unit: MatchUnit = MatchUnit.auto, lower: bool = True, strip_punctuation: bool = False
) -> list[str]:
    """The units of a text that are compared. A character of white space is one, however much of it there is."""
    if lower:
        text = text.lower()
    if strip_punctuation:
        text = text.translate(_PUNCTUATION)
    is_char = unit is MatchUnit.char or (unit is MatchUnit.auto and base_language(language) in UNSPACED_LANGUAGES)
    return list(" ".join(text.split())) if is_char else text.split()


def fuzzy_match_score(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """FMS of two sequences of units, in [0, 1]; 1 for two empty ones. Units may also be a tokenizer's subwords."""
    from rapidfuzz.distance import Levenshtein  # here, for schemas name `MatchUnit` and load no library

    return float(Levenshtein.normalized_similarity(first, second))
