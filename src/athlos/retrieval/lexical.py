"""BM25 over the words of title and text, by bm25s.

    score(q, d) = sum over words w of q of idf(w) * tf / (tf + k1 * (1 - b + b * |d| / mean |d|))
    idf(w) = ln(1 + (N - df + 1/2) / (df + 1/2))

N passages, df of them hold w, tf times in d, whose length |d| is in words. This is Lucene's form (`method="lucene"`).
bm25s weighs every word of every passage once, when the index is built. A search is a product of two sparse matrices,
which touches the passages that share a word with the query and no others.

Q queries, N passages, V words.
"""

import itertools
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from athlos.retrieval.analysers import ANALYSER_VERSION, Analyser, analyser
from athlos.retrieval.config import LexicalIndexConfig
from athlos.retrieval.interface import CorpusPassage
from athlos.retrieval.local import LocalIndex, Ranking, best_rows
from athlos.retrieval.store import PassageStore

QUERIES_AT_ONCE = 256
"""Queries whose scores are in memory together."""
WORDS_FILE = "words.json"
ARRAYS = ("data", "indices", "indptr")


class LexicalIndex(LocalIndex[LexicalIndexConfig]):
    @property
    def identity(self) -> Mapping[str, Any]:
        return {"k1": self.config.k1, "b": self.config.b, "analyser": ANALYSER_VERSION}

    @property
    def search_identity(self) -> Mapping[str, Any]:
        return {"counts_repeats": self.config.counts_repeats}

    def build(self, store: PassageStore, language: str, folder: Path) -> None:
        texts = (searched_text(passage) for passage in store.passages(language))
        write_bm25(folder, map(analyser(language), texts), k1=self.config.k1, b=self.config.b)

    def load(self, store: PassageStore, language: str, folder: Path) -> "WeightedWords":
        return WeightedWords(folder, analyse=analyser(language), counts_repeats=self.config.counts_repeats)


def searched_text(passage: CorpusPassage) -> str:
    """What of a passage is searched: its title and its text."""
    return f"{passage.title} {passage.text}"


def write_bm25(folder: Path, texts: Iterable[list[str]], *, k1: float, b: float) -> None:
    """The weights [V, N] of the words of texts."""
    from bm25s import BM25

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets its own to DEBUG
    word_ids: dict[str, int] = {}
    ids = [[word_ids.setdefault(word, len(word_ids)) for word in text] for text in texts]
    if not word_ids:  # nothing but punctuation: bm25s wants a word
        word_ids[""] = 0
    model = BM25(method="lucene", k1=k1, b=b)
    model.index((ids, word_ids), create_empty_token=False, show_progress=False)
    weights = tuple(model.scores[name] for name in ARRAYS)
    write_weights(folder, csr_array(weights, shape=(len(word_ids), len(ids))), words=word_ids)


def write_weights(folder: Path, weights_VN: csr_array, *, words: Iterable[str]) -> None:
    """What `WeightedWords` loads: a sparse matrix of the words' weights, and the words by row."""
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", getattr(weights_VN, name), allow_pickle=False)
    index = {"words": list(words), "num_passages": weights_VN.shape[1]}
    (folder / WORDS_FILE).write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")


class WeightedWords:
    """The weights of words in passages, mapped from disk, and the search for the greatest sums over a query's words.

    With `most_postings` a query's rarest words are looked up alone, as many as stand in at most so many passages
    together: a word that every fifth passage has costs most of the time and decides the least.
    """

    def __init__(
        self, folder: Path, *, analyse: Analyser, counts_repeats: bool = False, most_postings: int | None = None
    ) -> None:
        index = json.loads((folder / WORDS_FILE).read_text(encoding="utf-8"))
        arrays = tuple(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS)
        self._word_ids = {word: number for number, word in enumerate(index["words"])}
        self._weights_VN = csr_array(arrays, shape=(len(self._word_ids), index["num_passages"]))
        self._num_postings = np.diff(self._weights_VN.indptr).tolist()
        self._analyse, self._counts_repeats, self._most_postings = analyse, counts_repeats, most_postings

    def search(self, queries: Sequence[str], *, k: int) -> list[Ranking]:
        rankings = []
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            scores_QN = self._query_matrix(queries[start : start + QUERIES_AT_ONCE]) @ self._weights_VN
            rankings += [
                best_rows(scores_QN.indices[first:end], scores_QN.data[first:end], k=k)
                for first, end in itertools.pairwise(scores_QN.indptr.tolist())
            ]
        return rankings

    def _query_matrix(self, queries: Sequence[str]) -> csr_array:
        """[Q, V]: a one for each word of a query, or for each time it stands there; unknown words are left out."""
        rows = [self._looked_up(query) for query in queries]
        ends = np.cumsum([0, *map(len, rows)])
        ids = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int32, count=ends[-1])
        ones = np.ones(len(ids), dtype=np.float32)
        return csr_array((ones, ids, ends), shape=(len(queries), len(self._word_ids)))

    def _looked_up(self, query: str) -> list[int]:
        words: Iterable[str] = self._analyse(query)
        if not self._counts_repeats:
            words = dict.fromkeys(words)
        ids = [self._word_ids[word] for word in words if word in self._word_ids]
        if self._most_postings is None:
            return ids
        ids.sort(key=self._num_postings.__getitem__)
        totals = itertools.accumulate(self._num_postings[number] for number in ids)
        return ids[: max(1, sum(total <= self._most_postings for total in totals))]
