"""Ranked lists of two languages made one. A passage in both has one id: it is kept once, where it ranks better."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest

from athlos.methods.dapt.config import Fuse
from athlos.retrieval.analysers import analyser
from athlos.retrieval.hybrid import reciprocal_rank_fusion
from athlos.retrieval.interface import Passage


def fused(
    lists: Sequence[Sequence[Passage]], *, k: int, kind: Fuse, queries: Sequence[str], parents: Sequence[str]
) -> list[Passage]:
    """The k best of all lists, each id once. `queries` and the answers of `parents` are what reranking looks for."""
    if kind is Fuse.rrf:
        return reciprocal_rank_fusion(lists, k=k)
    interleaved = [passage for row in zip_longest(*lists) for passage in row if passage is not None]
    if kind is Fuse.interleave:
        ranked = interleaved
    elif kind is Fuse.score:
        ranked = sorted((passage for hits in lists for passage in _scaled(hits)), key=lambda hit: -hit.score)
    else:
        wanted = " ".join([*queries, *(parents if kind is Fuse.dependency else ())])
        ranked = sorted(interleaved, key=lambda passage: -coverage(wanted, passage))
    unique: dict[str, Passage] = {}
    for passage in ranked:
        unique.setdefault(passage.identifier, passage)
    return list(unique.values())[:k]


def _scaled(hits: Sequence[Passage]) -> list[Passage]:
    """Scores over the best of the list: those of two indexes have no common unit."""
    best = hits[0].score if hits else 0.0
    return [replace(passage, score=passage.score / best if best else 0.0) for passage in hits]


def coverage(wanted: str, passage: Passage) -> int:
    """How many different words of a text stand in a passage, by the analyser of the passage's language."""
    analyse = analyser(passage.language)
    return len(set(analyse(wanted)) & set(analyse(f"{passage.title} {passage.text}")))
