"""The corpus and the index of runs that search nothing: whoever asks them is told what to choose."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from athlos.errors import ConfigError
from athlos.retrieval.config import NoCorpusConfig, NoIndexConfig
from athlos.retrieval.corpus import Corpus
from athlos.retrieval.interface import CorpusPassage, Passage
from athlos.stages import StageStore


class NoCorpus(Corpus[NoCorpusConfig]):
    def fingerprint(self) -> str:
        return "none"

    def passages(self) -> Iterator[CorpusPassage]:
        raise ConfigError("corpus: got none, but this run reads passages; choose a corpus")


class NoIndex:
    key = "none"
    languages: ClassVar[Sequence[str]] = ()

    def __init__(self, config: NoIndexConfig, *, corpus: object, stages: StageStore) -> None:
        self.config = config

    def make_ready(self) -> Mapping[str, int]:
        raise ConfigError("index: got none, so there is nothing to build; choose an index and a corpus")

    def search(self, queries: Sequence[str], *, k: int, language: str | None = None) -> list[list[Passage]]:
        raise ConfigError("index: got none, but this run searches passages; choose an index and a corpus")
