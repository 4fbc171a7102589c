"""Which documents a sentence cites: the smallest set, as far as greed finds it, whose claims cover its own."""

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet


def cover(claims: AbstractSet[int], documents: Sequence[Collection[int]]) -> list[int] | None:
    """Places of documents whose claims together hold all of `claims`, ascending; None where even all of them do not.

    Greedy: again and again the document with most uncovered claims, the first of equals; then each that the others make
    needless is left out, so that the cover is minimal. Source: our specification, 3.1.
    """
    chosen: list[int] = []
    uncovered = set(claims)
    while uncovered:
        gains = [len(uncovered.intersection(document)) for document in documents]
        best = max(gains, default=0)
        if not best:
            return None
        chosen.append(gains.index(best))
        uncovered.difference_update(documents[chosen[-1]])
    for place in list(chosen):
        rest = [other for other in chosen if other != place]
        if claims <= {claim for other in rest for claim in documents[other]}:
            chosen = rest
    return sorted(chosen)
