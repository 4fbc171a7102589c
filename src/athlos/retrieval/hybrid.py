"""Several ranked lists made one, by reciprocal rank fusion (Cormack et al. 2009).

    score(d) = sum over lists of 1 / (60 + rank of d in the list), ranks from 1

Lists of several indexes, of several queries or of several languages are fused alike: translations of one passage have
one id and so add up, and the wording that is kept is the one that ranks better.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from athlos.retrieval.building import index_over
from athlos.retrieval.config import HybridIndexConfig
from athlos.retrieval.corpus import Corpus
from athlos.retrieval.interface import Passage
from athlos.stages import StageStore, content_hash

CONSTANT = 60
"""What is added to every rank. Source: Cormack et al. 2009."""


def reciprocal_rank_fusion(lists: Sequence[Sequence[Passage]], *, k: int, constant: int = CONSTANT) -> list[Passage]:
    """The k best by fused score, each id once; equal scores by better rank, then by the order of lists.

    An id that comes twice in one list counts once there, at its better rank.
    """
    scores = defaultdict[str, float](float)
    best: dict[str, tuple[int, Passage]] = {}
    for passages in lists:
        unique = {passage.identifier: passage for passage in reversed(passages)}
        ranks = dict.fromkeys(passage.identifier for passage in passages)
        for rank, identifier in enumerate(ranks, start=1):
            scores[identifier] += 1 / (constant + rank)
            if identifier not in best or rank < best[identifier][0]:
                best[identifier] = rank, unique[identifier]
    ordered = sorted(scores, key=lambda identifier: (-scores[identifier], best[identifier][0]))
    return [replace(best[identifier][1], score=scores[identifier]) for identifier in ordered[:k]]


class HybridIndex:
    """The parts search for themselves, in the same corpus."""

    def __init__(self, config: HybridIndexConfig, *, corpus: Corpus[Any], stages: StageStore) -> None:
        self.config = config
        self._parts = [index_over(corpus, part, stages=stages) for part in config.parts.values()]

    @property
    def key(self) -> str:
        fused = {"depth": self.config.depth, "constant": self.config.constant}
        return content_hash([fused, *(part.key for part in self._parts)])[:20]

    @property
    def languages(self) -> Sequence[str]:
        return self._parts[0].languages

    def make_ready(self) -> Mapping[str, int]:
        sizes = [part.make_ready() for part in self._parts]
        return sizes[0]

    def search(self, queries: Sequence[str], *, k: int, language: str | None = None) -> list[list[Passage]]:
        depth = max(k, self.config.depth)
        lists_of_part = [part.search(queries, k=depth, language=language) for part in self._parts]
        return [
            reciprocal_rank_fusion(lists, k=k, constant=self.config.constant)
            for lists in zip(*lists_of_part, strict=True)
        ]
