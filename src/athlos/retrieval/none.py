"""The corpus and the index of runs that search nothing: whoever asks them is told what to choose."""

from collections.abc import Sequence

from athlos.config.schema import CorpusConfig, IndexConfig
from athlos.errors import ConfigError
from athlos.retrieval.interface import Passage


class NoCorpus:
    def __init__(self, config: CorpusConfig) -> None:
        self.config = config


class NoIndex:
    key = "none"

    def __init__(self, config: IndexConfig, *, corpus: object) -> None:
        self.config = config

    def search(self, queries: Sequence[str], *, k: int) -> list[list[Passage]]:
        raise ConfigError("index: got none, but this run searches passages; choose an index and a corpus")
