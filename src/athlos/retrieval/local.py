"""What the indexes on this machine share: one product a language, rows made passages, and a watch on first hits."""

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np

from athlos.config.schema import IndexConfig
from athlos.errors import ConfigError, choices
from athlos.retrieval.corpus import Corpus
from athlos.retrieval.interface import Passage
from athlos.retrieval.store import PassageStore
from athlos.stages import Product, Stage, StageStore, content_hash

log = logging.getLogger(__name__)

ConfigT = TypeVar("ConfigT", bound=IndexConfig)
FIRST_HIT_SHARE = 0.2
"""A passage that is the first hit of more than this share of the queries is a sign of an index that answers nothing."""
FIRST_HIT_QUERIES = 20
"""Different queries, and passages, from which on the share says something."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The rows found for one query, best first, and their scores; arrays of one length."""

    rows: np.ndarray
    scores: np.ndarray


class Searcher(Protocol):
    """A loaded index of one language."""

    def search(self, queries: Sequence[str], *, k: int) -> list[Ranking]:
        """The k best rows of each query; equal scores by row. Rows that share nothing with a query are left out."""
        ...


class RowIndex(ABC, Generic[ConfigT]):
    """Base of the indexes that rank rows of the corpus's store. Nothing is read or built before the first search."""

    def __init__(self, config: ConfigT, *, corpus: Corpus[Any], stages: StageStore) -> None:
        self.config, self.corpus, self.stages = config, corpus, stages
        self._searchers: dict[str, Searcher] = {}
        self._first_hits = FirstHits()

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """What decides the product of a language beside the corpus: plain values, a version among them."""

    @property
    def search_identity(self) -> Mapping[str, Any]:
        """What decides the ranking beside the product."""
        return {}

    @abstractmethod
    def open(self, language: str) -> Searcher:
        """The index of a language of the corpus, built if it is not there."""

    @cached_property
    def key(self) -> str:
        identity = {"class": type(self).__name__, **self.identity, **self.search_identity}
        return content_hash([identity, self.corpus.stage.key])[:20]

    @cached_property
    def store(self) -> PassageStore:
        return self.corpus.store(self.stages)

    @property
    def languages(self) -> list[str]:
        return self.store.languages

    def make_ready(self) -> dict[str, int]:
        for language in self.languages:
            self.searcher(language)
        return {language: self.store.num_passages(language) for language in self.languages}

    def searcher(self, language: str | None) -> Searcher:
        """The loaded index of a language; see `Index.search` for None."""
        language = self.chosen(language)
        if language not in self._searchers:
            self._searchers[language] = self.open(language)
        return self._searchers[language]

    def chosen(self, language: str | None) -> str:
        """A language of the corpus; the only one for None. Raises `ConfigError` with what the corpus has."""
        if language is None and len(self.languages) == 1:
            return self.languages[0]
        if language not in self.languages:
            asked = "no language named" if language is None else f"language '{language}' is not in the corpus"
            raise ConfigError(f"index: {asked}{choices(language or '', self.languages, label='the corpus has')}")
        return language

    def search(self, queries: Sequence[str], *, k: int, language: str | None = None) -> list[list[Passage]]:
        if k < 1:
            raise ConfigError(f"index: got k = {k}, expected an integer >= 1")
        language = self.chosen(language)
        hits = [self._passages(ranking, language) for ranking in self.searcher(language).search(queries, k=k)]
        self._first_hits.note(queries, hits, num_passages=self.store.num_passages(language))
        return hits

    def _passages(self, ranking: Ranking, language: str) -> list[Passage]:
        rows, scores = ranking.rows.tolist(), ranking.scores.tolist()
        return [
            Passage(
                identifier=passage.identifier, title=passage.title, text=passage.text, language=language, score=score
            )
            for passage, score in zip(self.store.read(language, rows), scores, strict=True)
        ]


class LocalIndex(RowIndex[ConfigT]):
    """Base of the indexes that are built here: a stage product a language. Subclasses give `build` and `load`."""

    is_resumable: ClassVar[bool] = False
    """Whether `build` goes on from what a stopped one left."""

    @abstractmethod
    def build(self, store: PassageStore, language: str, folder: Path) -> None:
        """Write the product of a language."""

    @abstractmethod
    def load(self, store: PassageStore, language: str, folder: Path) -> Searcher:
        """The product, ready to search. Loads no pickles."""

    def product(self, language: str) -> Product:
        """The index of a language, built once."""
        stage = Stage(
            name="index",
            version=1,
            config={"class": type(self).__name__, "language": language, **self.identity},
            inputs={"corpus": self.store.key},
            build=lambda folder: self.build(self.store, language, folder),
            is_resumable=self.is_resumable,
        )
        return self.stages.get(stage)

    def open(self, language: str) -> Searcher:
        return self.load(self.store, language, self.product(language).path)


class FirstHits:
    """Counts which passage comes first, and warns once of each that comes first too often.

    An index of the wrong language or encoder fails silently: it gives the same passage to every question.
    """

    def __init__(self) -> None:
        self._queries = set[str]()
        self._counts = Counter[tuple[str, str]]()
        self._warned = set[tuple[str, str]]()

    def note(self, queries: Sequence[str], hits: Sequence[Sequence[Passage]], *, num_passages: int) -> None:
        for query, passages in zip(queries, hits, strict=True):
            if query not in self._queries:
                self._queries.add(query)
                self._counts.update((hit.language, hit.identifier) for hit in passages[:1])
        total = len(self._queries)
        if min(total, num_passages) < FIRST_HIT_QUERIES:
            return
        for place, count in self._counts.most_common(int(1 / FIRST_HIT_SHARE)):
            if count > FIRST_HIT_SHARE * total and place not in self._warned:
                self._warned.add(place)
                log.warning(
                    "index: passage '%s' (%s) is the first hit of %d of %d queries; do corpus, language and index fit "
                    "the questions?",
                    place[1],
                    place[0],
                    count,
                    total,
                )


def best_rows(rows: np.ndarray, scores: np.ndarray, *, k: int) -> Ranking:
    """The k best of the scored rows, best first, equal scores by row: the same list on every machine."""
    if len(rows) > k:
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        kept = scores >= least
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))[:k]
    return Ranking(rows=rows[order], scores=scores[order])
