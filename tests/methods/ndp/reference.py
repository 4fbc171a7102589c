"""Tables by brute force, from the specification: nested dictionaries of tuples, a loop over every position."""

from collections import Counter
from collections.abc import Sequence

Counts = dict[tuple[int, ...], Counter[int]]
Sample = tuple[Sequence[int], Sequence[int]]
"""Tokens, and labels: the token itself where it is predicted, else -100."""


def sup_counts(samples: Sequence[Sample]) -> Counts:
    """Key: the whole input so far. Value: counts of the next token."""
    counts: Counts = {}
    for tokens, labels in samples:
        for index in range(1, len(tokens)):
            if labels[index] != -100:
                counts.setdefault(tuple(tokens[:index]), Counter())[tokens[index]] += 1
    return counts


def clm_counts(samples: Sequence[Sample], *, n: int, joins_first: bool = False) -> Counts:
    """Key: the answer so far, from the start of its own turn, at least `n` tokens long."""
    counts: Counts = {}
    for tokens, labels in samples:
        for index in range(1, len(tokens)):
            if labels[index] == -100:
                continue
            start = index
            while start > 1 and labels[start - 1] != -100:
                start -= 1
            if joins_first and start == 1:
                start = 0
            if index - start >= n:
                counts.setdefault(tuple(tokens[start:index]), Counter())[tokens[index]] += 1
    return counts


def mono_counts(documents: Sequence[Sequence[int]], *, n: int, longest: int) -> Counts:
    """Key: the document so far, n .. longest + 5 tokens long."""
    counts: Counts = {}
    for tokens in documents:
        for index in range(len(tokens)):
            if n <= index <= longest + 5:
                counts.setdefault(tuple(tokens[:index]), Counter())[tokens[index]] += 1
    return counts


def added(*tables: Counts) -> Counts:
    total: Counts = {}
    for table in tables:
        for key, counter in table.items():
            total.setdefault(key, Counter()).update(counter)
    return total
