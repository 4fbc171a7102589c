"""Naive twin of SLAM's alignment: Python loops from the definition. Those of its probe stand in models/probe_reference.

states[language][text][layer][token] is a row of numbers.
"""

import math
from collections.abc import Sequence

Row = Sequence[float]


def mean_row(rows: Sequence[Row]) -> list[float]:
    return [sum(row[column] for row in rows) / len(rows) for column in range(len(rows[0]))]


def cosine(first: Row, second: Row) -> float:
    product = sum(one * other for one, other in zip(first, second, strict=True))
    lengths = (math.sqrt(sum(value * value for value in row)) for row in (first, second))
    return product / math.prod(lengths)


def alignment(states: dict[str, list[list[list[Row]]]], *, reference: str) -> list[float]:
    """By layer: the cosine between the mean row of a text and of its translation, mean over texts, then languages."""
    result = []
    for layer in range(len(states[reference][0])):
        by_language = []
        for language, texts in states.items():
            if language == reference:
                continue
            cosines = [
                cosine(mean_row(text[layer]), mean_row(own[layer]))
                for text, own in zip(texts, states[reference], strict=True)
            ]
            by_language.append(sum(cosines) / len(cosines))
        result.append(sum(by_language) / len(by_language))
    return result
