"""Passages by the cosine of sentence vectors, exact: a product with every vector.

numpy multiplies, and not faiss: its flat index computes the same product (see docs/retrieval.md for times), and its
approximate ones answer a question of size that `index=served` answers with a cluster behind it.

Q queries, N passages, D dimensions.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from athlos.retrieval.config import DenseIndexConfig
from athlos.retrieval.encoders import Encoder
from athlos.retrieval.interface import CorpusPassage
from athlos.retrieval.lexical import searched_text
from athlos.retrieval.local import LocalIndex, Ranking, RowIndex, best_rows
from athlos.retrieval.store import PassageStore

log = logging.getLogger(__name__)

DenseConfigT = TypeVar("DenseConfigT", bound=DenseIndexConfig)

PASSAGES_AT_ONCE = 256
"""Passages between two notes of how far a build is: what a stopped one loses at most."""
ROWS_AT_ONCE = 1 << 16
"""Rows of the vectors, mapped from disk, that are multiplied at once."""
VECTORS_FILE, PROGRESS_FILE = "vectors.npy", "progress.json"


class EncodedIndex(RowIndex[DenseConfigT]):
    """What an index of sentence vectors depends on, wherever these are kept."""

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder(self.config.encoder, batch_size=self.config.batch_size, stages=self.stages)

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"encoder": self.encoder.identity, "passage_prompt": self.config.passage_prompt}

    @property
    def search_identity(self) -> Mapping[str, Any]:
        return {"query_prompt": self.config.query_prompt}


class DenseIndex(EncodedIndex[DenseIndexConfig], LocalIndex[DenseIndexConfig]):
    is_resumable: ClassVar[bool] = True

    def build(self, store: PassageStore, language: str, folder: Path) -> None:
        """The vectors [N, D]; goes on after the passages that a stopped build has encoded."""
        progress, size = folder / PROGRESS_FILE, store.num_passages(language)
        done = json.loads(progress.read_text(encoding="utf-8")) if progress.is_file() else 0
        vectors_ND: Any = None
        if done:
            vectors_ND = np.lib.format.open_memmap(folder / VECTORS_FILE, mode="r+")
        passages = islice(store.passages(language), done, None)
        while batch := list(islice(passages, PASSAGES_AT_ONCE)):
            encoded = self.encoder.encode([passage_text(passage, self.config.passage_prompt) for passage in batch])
            if vectors_ND is None:
                shape = (size, encoded.shape[1])
                vectors_ND = np.lib.format.open_memmap(folder / VECTORS_FILE, mode="w+", dtype=np.float32, shape=shape)
            vectors_ND[done : done + len(batch)] = encoded
            vectors_ND.flush()
            done += len(batch)
            progress.write_text(json.dumps(done), encoding="utf-8")
            log.info("index: %d of %d passages in '%s' encoded", done, size, language)
        progress.unlink()

    def load(self, store: PassageStore, language: str, folder: Path) -> "Vectors":
        return Vectors(folder / VECTORS_FILE, encoder=self.encoder, query_prompt=self.config.query_prompt)


def passage_text(passage: CorpusPassage, prompt: str) -> str:
    """What the encoder reads of a passage."""
    return prompt + searched_text(passage).strip()


class Vectors:
    """The vectors of a language, mapped from disk."""

    def __init__(self, path: Path, *, encoder: Encoder, query_prompt: str) -> None:
        self._vectors_ND = np.load(path, mmap_mode="r", allow_pickle=False)
        self._encoder, self._query_prompt = encoder, query_prompt

    def search(self, queries: Sequence[str], *, k: int) -> list[Ranking]:
        if not queries:
            return []
        queries_QD = self._encoder.encode([self._query_prompt + query for query in queries])
        return nearest(queries_QD, self._vectors_ND, k=k)


def nearest(queries_QD: np.ndarray, vectors_ND: np.ndarray, *, k: int) -> list[Ranking]:
    """The k rows with the greatest product with each query, equal products by row."""
    best = [Ranking(rows=np.zeros(0, dtype=np.int64), scores=np.zeros(0, dtype=np.float32)) for _ in queries_QD]
    for start, block_ND in _blocks(vectors_ND):
        scores_QN = queries_QD @ block_ND.T
        rows = np.arange(start, start + len(block_ND))
        best = [
            best_rows(np.concatenate([ranking.rows, rows]), np.concatenate([ranking.scores, scores]), k=k)
            for ranking, scores in zip(best, scores_QN, strict=True)
        ]
    return best


def _blocks(vectors_ND: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(vectors_ND), ROWS_AT_ONCE):
        yield start, vectors_ND[start : start + ROWS_AT_ONCE]
