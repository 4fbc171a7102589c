"""Schemas of the corpora and indexes."""

from dataclasses import dataclass

from athlos.config.registry import Part
from athlos.config.schema import CorpusConfig, IndexConfig


@dataclass(kw_only=True)
class NoCorpusConfig(CorpusConfig):
    """No passages."""


@dataclass(kw_only=True)
class NoIndexConfig(IndexConfig):
    """Nothing to search."""


PARTS = [
    Part(
        group="corpus",
        name="none",
        schema=NoCorpusConfig,
        target="athlos.retrieval.none.NoCorpus",
        summary="no passages",
    ),
    Part(
        group="index",
        name="none",
        schema=NoIndexConfig,
        target="athlos.retrieval.none.NoIndex",
        summary="nothing to search",
    ),
]
