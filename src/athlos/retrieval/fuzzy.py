"""The passages most like a query by fuzzy match score (`text/fuzzy.py`), for translation memories.

A prefilter names candidates, rapidfuzz scores them, and the best come first; equal scores by fewer units, then by id,
so that the order of the memory changes nothing. `bm25` takes the best by BM25, over the rarest words of the query;
`setsim` those that hold most of the query's different units, as lt3/nfr does; `all` is exhaustive and what the others
are measured by.

rapidfuzz compares strings many times faster than lists, so every unit of the memory becomes a character of its own.

N passages of the memory, V different units.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein
from scipy.sparse import csr_array

from athlos.errors import DataError
from athlos.retrieval.analysers import ANALYSER_VERSION, analyser
from athlos.retrieval.config import FuzzyIndexConfig, Prefilter
from athlos.retrieval.lexical import WeightedWords, write_bm25, write_weights
from athlos.retrieval.local import LocalIndex, Ranking, Searcher
from athlos.retrieval.store import PassageStore
from athlos.text.fuzzy import match_units

BM25_K1, BM25_B = 1.2, 0.75
POSTINGS_PER_CANDIDATE = 32
"""How many passages, for one candidate, the rarest words of a query may stand in together when BM25 looks them up.

Of 100,000 changed sources of po_tm the shortlist keeps the best match of 95 queries in 100 with 8, of 99 with 32 and of
all with 64, at 36, 30 and 24 times the rate of comparing all (`benchmarks/retrieval.py --data`).
"""
FIRST_SURROGATE, NUM_SURROGATES = 0xD800, 0x800
UNKNOWN = "\0"
"""Stands for every unit of a query that the memory does not have."""
MOST_UNITS = 0x110000 - NUM_SURROGATES - 1
PAIRS_AT_ONCE = 1 << 23
"""Pairs of a query and a passage whose scores are in memory together where all are compared."""
UNITS_FILE = "units.json"


class FuzzyIndex(LocalIndex[FuzzyIndexConfig]):
    @property
    def identity(self) -> Mapping[str, Any]:
        return {
            "unit": self.config.unit.name,
            "lower": self.config.lower,
            "strip_punctuation": self.config.strip_punctuation,
            "prefilter": self.config.prefilter.name,
            "analyser": ANALYSER_VERSION,
        }

    @property
    def search_identity(self) -> Mapping[str, Any]:
        return {"candidates": self.config.candidates}

    def units(self, language: str) -> Callable[[str], list[str]]:
        """Cuts a text of a language into what is compared."""
        config = self.config
        return partial(
            match_units,
            language=language,
            unit=config.unit,
            lower=config.lower,
            strip_punctuation=config.strip_punctuation,
        )

    def build(self, store: PassageStore, language: str, folder: Path) -> None:
        cut = self.units(language)
        codes: dict[str, int] = {}
        passages = [
            [codes.setdefault(unit, len(codes)) for unit in cut(passage.text)] for passage in store.passages(language)
        ]
        if len(codes) > MOST_UNITS:
            raise DataError(f"index: the memory has {len(codes)} different units, at most {MOST_UNITS} can be compared")
        ends = np.cumsum([len(units) for units in passages])
        flat = np.fromiter((code for units in passages for code in units), dtype=np.int32, count=ends[-1])
        np.save(folder / "codes.npy", flat, allow_pickle=False)
        np.save(folder / "ends.npy", ends, allow_pickle=False)
        np.save(folder / "id_ranks.npy", np.argsort(np.argsort(store.identifiers(language))), allow_pickle=False)
        (folder / UNITS_FILE).write_text(json.dumps(list(codes), ensure_ascii=False), encoding="utf-8")
        if self.config.prefilter is Prefilter.bm25:
            texts = (analyser(language)(passage.text) for passage in store.passages(language))
            write_bm25(folder, texts, k1=BM25_K1, b=BM25_B)
        elif self.config.prefilter is Prefilter.setsim:
            _write_sets(folder, flat, ends, units=list(codes))

    def load(self, store: PassageStore, language: str, folder: Path) -> "FuzzyMatcher":
        cut = self.units(language)
        prefilter: Searcher | None = None
        if self.config.prefilter is Prefilter.bm25:
            most = POSTINGS_PER_CANDIDATE * self.config.candidates
            prefilter = WeightedWords(folder, analyse=analyser(language), most_postings=most)
        elif self.config.prefilter is Prefilter.setsim:
            prefilter = WeightedWords(folder, analyse=cut)
        return FuzzyMatcher(folder, cut=cut, prefilter=prefilter, candidates=self.config.candidates)


def _write_sets(folder: Path, codes: np.ndarray, ends: np.ndarray, *, units: Sequence[str]) -> None:
    """Which passages hold a unit, with weight 1: their sum over a query's units ranks as its containment does."""
    starts = np.concatenate([[0], ends])
    sets_NV = csr_array((np.ones(len(codes), dtype=np.float32), codes, starts), shape=(len(ends), len(units)))
    sets_NV.sum_duplicates()
    sets_NV.data[:] = 1
    write_weights(folder, sets_NV.T.tocsr(), words=units)


def _characters(codes: np.ndarray) -> str:
    """A string with one character for each code, none of them `UNKNOWN` or half of a surrogate pair."""
    points = codes.astype(np.uint32) + 1
    points[points >= FIRST_SURROGATE] += NUM_SURROGATES
    return points.tobytes().decode("utf-32-le")


class FuzzyMatcher:
    """A loaded memory of one language. `prefilter` None compares every passage."""

    def __init__(
        self, folder: Path, *, cut: Callable[[str], list[str]], prefilter: Searcher | None, candidates: int
    ) -> None:
        units = json.loads((folder / UNITS_FILE).read_text(encoding="utf-8"))
        ends = np.load(folder / "ends.npy", allow_pickle=False)
        text = _characters(np.load(folder / "codes.npy", allow_pickle=False))
        starts = [0, *ends.tolist()]
        self._memory = [text[start:end] for start, end in zip(starts, ends.tolist(), strict=False)]
        self._lengths = np.diff(ends, prepend=0)
        self._id_ranks = np.load(folder / "id_ranks.npy", allow_pickle=False)
        self._characters = dict(zip(units, _characters(np.arange(len(units))), strict=True))
        self._cut, self._prefilter, self._candidates = cut, prefilter, candidates

    def search(self, queries: Sequence[str], *, k: int) -> list[Ranking]:
        """The k best rows by fuzzy match score; candidates that share no unit with a query are found too, with 0."""
        encoded = ["".join(self._characters.get(unit, UNKNOWN) for unit in self._cut(query)) for query in queries]
        if self._prefilter is None:
            return self._compare_all(encoded, k=k)
        shortlists = self._prefilter.search(queries, k=self._candidates)
        return [self._compare(query, shortlist.rows, k=k) for query, shortlist in zip(encoded, shortlists, strict=True)]

    def _compare(self, query: str, rows: np.ndarray, *, k: int) -> Ranking:
        candidates = [self._memory[row] for row in rows.tolist()]
        if not candidates:
            return Ranking(rows=rows, scores=np.zeros(0))
        [scores] = process.cdist([query], candidates, scorer=Levenshtein.normalized_similarity, dtype=np.float64)
        return self._best(rows, scores, k=k)

    def _compare_all(self, queries: Sequence[str], *, k: int) -> list[Ranking]:
        rankings, rows = list[Ranking](), np.arange(len(self._memory))
        at_once = max(1, PAIRS_AT_ONCE // len(rows))
        for start in range(0, len(queries), at_once):
            chunk = queries[start : start + at_once]
            scores_QN = process.cdist(chunk, self._memory, scorer=Levenshtein.normalized_similarity, dtype=np.float64)
            rankings += [self._best(rows, scores, k=k) for scores in scores_QN]
        return rankings

    def _best(self, rows: np.ndarray, scores: np.ndarray, *, k: int) -> Ranking:
        if len(rows) > k:
            kept = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
            rows, scores = rows[kept], scores[kept]
        order = np.lexsort((self._id_ranks[rows], self._lengths[rows], -scores))[:k]
        return Ranking(rows=rows[order], scores=scores[order])
