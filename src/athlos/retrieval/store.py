"""The passages of a corpus as a stage product: one file a language, read from disk passage by passage.

A passage is addressed by its row, its place within its language, which is what indexes rank.
"""

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from athlos.errors import DataError
from athlos.retrieval.interface import CorpusPassage
from athlos.stages import Product

STORE_VERSION = 1
"""Raised when the product changes meaning."""
LANGUAGES_FILE = "languages.json"


class PassageStore:
    """A finished store: `key`, the languages in the order in which they first came, and the passages of each."""

    def __init__(self, product: Product) -> None:
        self.key, self._folder = product.key, product.path
        self.languages: list[str] = json.loads((product.path / LANGUAGES_FILE).read_text(encoding="utf-8"))
        self._ends = {
            language: np.load(self._path(language, ".npy"), allow_pickle=False) for language in self.languages
        }

    def num_passages(self, language: str) -> int:
        return len(self._ends[language])

    def passages(self, language: str) -> Iterator[CorpusPassage]:
        """Stream the passages of a language in row order."""
        with self._path(language, ".jsonl").open(encoding="utf-8") as handle:
            for line in handle:
                yield CorpusPassage(language=language, **json.loads(line))

    def read(self, language: str, rows: Sequence[int]) -> list[CorpusPassage]:
        """The passages of these rows."""
        ends = self._ends[language]
        passages = []
        with self._path(language, ".jsonl").open("rb") as handle:
            for row in rows:
                start = int(ends[row - 1]) if row else 0
                handle.seek(start)
                passages.append(CorpusPassage(language=language, **json.loads(handle.read(int(ends[row]) - start))))
        return passages

    def identifiers(self, language: str) -> list[str]:
        """The ids of the passages of a language, by row."""
        return [passage.identifier for passage in self.passages(language)]

    def _path(self, language: str, suffix: str) -> Path:
        # A language comes from a data file, so it names no file.
        return self._folder / f"{self.languages.index(language)}{suffix}"


class _Writer:
    """The file of one language, and where each of its lines ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.handle: BinaryIO = path.with_suffix(".jsonl").open("wb")
        self.ends, self.identifiers = array("q"), set[str]()

    def add(self, passage: CorpusPassage) -> None:
        if passage.identifier in self.identifiers:
            raise DataError(f"corpus: two passages in '{passage.language}' have the id '{passage.identifier}'")
        self.identifiers.add(passage.identifier)
        values: dict[str, Any] = {"identifier": passage.identifier, "title": passage.title, "text": passage.text}
        self.handle.write(json.dumps(values, ensure_ascii=False).encode("utf-8") + b"\n")
        self.ends.append(self.handle.tell())

    def finish(self) -> None:
        self.handle.close()
        np.save(self.path.with_suffix(".npy"), np.frombuffer(self.ends, dtype=np.int64), allow_pickle=False)


def write_store(folder: Path, passages: Iterable[CorpusPassage]) -> None:
    """Write the product, one passage in memory at a time; `DataError` for an empty corpus or an id used twice."""
    writers: dict[str, _Writer] = {}
    try:
        for passage in passages:
            language = passage.language
            if language not in writers:
                writers[language] = _Writer(folder / str(len(writers)))
            writers[language].add(passage)
    finally:
        for writer in writers.values():
            writer.finish()
    if not writers:
        raise DataError("corpus: it holds no passages")
    (folder / LANGUAGES_FILE).write_text(json.dumps(list(writers)), encoding="utf-8")
