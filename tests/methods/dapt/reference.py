"""DaPT written as loops from its definitions: matching, order, fusion, recall, and what a chain succeeds with."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np


def matching(scores: Sequence[Sequence[float]], *, tau: float) -> tuple[float, set[tuple[int, int]]]:
    """Weight of the best assignment of all rows of the smaller side by trying every one, and its pairs of >= tau."""
    rows, columns = len(scores), len(scores[0])
    best = -np.inf, set()
    if rows <= columns:
        choices = (
            list(zip(range(rows), chosen, strict=True)) for chosen in itertools.permutations(range(columns), rows)
        )
    else:
        choices = (
            list(zip(chosen, range(columns), strict=True)) for chosen in itertools.permutations(range(rows), columns)
        )
    for pairs in choices:
        weight = sum(scores[i][j] for i, j in pairs)
        if weight > best[0]:
            best = weight, {(i, j) for i, j in pairs if scores[i][j] >= tau}
    return best


def order(parents: Sequence[frozenset[int]]) -> list[int] | None:
    """The first of all orders, compared by their indices, in which no node stands before a parent."""
    for candidate in itertools.permutations(range(len(parents))):
        if all(candidate.index(parent) < candidate.index(node) for node in candidate for parent in parents[node]):
            return list(candidate)
    return None


def depth(parents: Sequence[frozenset[int]], node: int) -> int:
    return max((depth(parents, parent) + 1 for parent in parents[node]), default=0)


def rrf(lists: Sequence[Sequence[str]]) -> dict[str, float]:
    """Document -> sum of 1/(60 + rank) over the lists that hold it, ranks from 1."""
    scores: dict[str, float] = {}
    for names in lists:
        for rank, name in enumerate(names, start=1):
            scores[name] = scores.get(name, 0.0) + 1 / (60 + rank)
    return scores


def recall(found: Sequence[str], gold: Sequence[str], *, k: int) -> float:
    return sum(name in found[:k] for name in gold) / len(gold)


def bm25(
    texts: Mapping[str, str], queries: Sequence[str], *, k: int, k1: float = 1.2, b: float = 0.75
) -> list[list[str]]:
    """The k best names of each query over all texts: a word of a query counts once, idf ln(1 + (N-df+.5)/(df+.5))."""
    words = {name: _words(text) for name, text in texts.items()}
    counts = {name: Counter(of_text) for name, of_text in words.items()}
    mean_length = sum(map(len, words.values())) / len(words)
    df = Counter(word for of_text in counts.values() for word in of_text)
    norms = {name: k1 * (1 - b + b * len(of_text) / mean_length) for name, of_text in words.items()}
    found = []
    for query in queries:
        idf = {word: math.log(1 + (len(texts) - df[word] + 0.5) / (df[word] + 0.5)) for word in set(_words(query))}
        scores = {
            name: sum(idf[word] * tf[word] / (tf[word] + norms[name]) for word in idf if word in tf)
            for name, tf in counts.items()
        }
        found.append(sorted(scores, key=lambda name: -scores[name])[:k])
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def chain_success(p_s: float, p_en: float, num_hops: int, *, are_identical: bool = False) -> float:
    """Chance that at each hop one of two paths is right: errors independent, or those of the worse path for both."""
    both = max(p_s, p_en) if are_identical else p_s * p_en
    return (1 - both) ** num_hops
