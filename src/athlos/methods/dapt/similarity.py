"""Texts compared by their character trigrams: for nodes that were translated, and for nodes against gold ones.

S and E are the texts of either side.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

NEUTRAL = "X"
"""Stands for references where nodes are compared: what they ask decides, not their numbers."""


def trigram_cosines(texts_s: Sequence[str], texts_e: Sequence[str]) -> np.ndarray:
    """Cosines [S, E] of the counts of character trigrams, lower-cased; 0 for an empty text."""
    bags = [_trigrams(text) for text in (*texts_s, *texts_e)]
    places = {gram: place for place, gram in enumerate(sorted({gram for bag in bags for gram in bag}))}
    counts = np.zeros((len(bags), len(places)))
    for row, bag in enumerate(bags):
        for gram, count in bag.items():
            counts[row, places[gram]] = count
    norms = np.linalg.norm(counts, axis=1, keepdims=True)
    unit = np.divide(counts, norms, out=np.zeros_like(counts), where=norms > 0)
    return np.asarray(unit[: len(texts_s)] @ unit[len(texts_s) :].T)


def _trigrams(text: str) -> Counter[str]:
    joined = " ".join(text.lower().split())
    padded = f"  {joined} " if joined else ""
    return Counter(padded[start : start + 3] for start in range(len(padded) - 2))
