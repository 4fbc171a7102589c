"""Naive twins of the retrieval room, from the equations, in loops and float64."""

import math
import re
from collections import Counter
from collections.abc import Sequence


def bm25_scores(query: Sequence[str], texts: Sequence[Sequence[str]], *, k1: float, b: float) -> list[float]:
    """BM25 of each text for the words of a query, a word as often as it stands in `query`."""
    counts = [Counter(text) for text in texts]
    mean_length = sum(map(len, texts)) / len(texts)
    scores = []
    for text, count in zip(texts, counts, strict=True):
        score = 0.0
        for word in query:
            df = sum(word in other for other in counts)
            idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
            tf = count[word]
            score += idf * tf / (tf + k1 * (1 - b + b * len(text) / mean_length))
        scores.append(score)
    return scores


def bm25_lists(
    queries: Sequence[str], texts: Sequence[str], *, k: int, k1: float = 1.2, b: float = 0.75
) -> list[list[int]]:
    """The k best rows of each query, each distinct query word counted once; every text is scored."""
    counts = [Counter(re.findall(r"\w+", text.lower())) for text in texts]
    lengths = [count.total() for count in counts]
    mean_length = sum(lengths) / len(lengths)
    dfs = Counter(word for count in counts for word in count)
    lists = []
    for query in queries:
        idfs = {
            word: math.log(1 + (len(texts) - dfs[word] + 0.5) / (dfs[word] + 0.5))
            for word in set(re.findall(r"\w+", query.lower()))
            if word in dfs
        }
        scores = [
            sum(
                idf * count[word] / (count[word] + k1 * (1 - b + b * length / mean_length))
                for word, idf in idfs.items()
                if word in count
            )
            for count, length in zip(counts, lengths, strict=True)
        ]
        lists.append(sorted(range(len(texts)), key=lambda row: (-scores[row], row))[:k])
    return lists


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Levenshtein's distance by the whole table of dynamic programming."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i in range(len(first) + 1):
        for j in range(len(second) + 1):
            if i == 0 or j == 0:
                table[i][j] = i + j
            else:
                changed = table[i - 1][j - 1] + (first[i - 1] != second[j - 1])
                table[i][j] = min(changed, table[i - 1][j] + 1, table[i][j - 1] + 1)
    return table[-1][-1]


def fuzzy_match_score(first: Sequence[str], second: Sequence[str]) -> float:
    longest = max(len(first), len(second))
    return (longest - edit_distance(first, second)) / longest if longest else 1.0


def fused_scores(lists: Sequence[Sequence[str]], *, constant: int) -> dict[str, float]:
    """Reciprocal rank fusion of lists of ids, an id once a list, at its better rank."""
    scores: dict[str, float] = {}
    for ids in lists:
        for identifier in set(ids):
            rank = list(dict.fromkeys(ids)).index(identifier) + 1
            scores[identifier] = scores.get(identifier, 0.0) + 1 / (constant + rank)
    return scores


def recall(found: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], *, k: int) -> float:
    """Mean over questions of the share of gold passages among the first k."""
    shares = [len(set(ids[:k]) & set(wanted)) / len(set(wanted)) for ids, wanted in zip(found, gold, strict=True)]
    return sum(shares) / len(shares)
