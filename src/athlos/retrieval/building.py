"""The index of a run, from its config and its corpus."""

from typing import Any

from hydra.utils import get_class

from athlos.config.schema import RunConfig
from athlos.data.source import Source
from athlos.retrieval.corpus import Corpus
from athlos.retrieval.interface import Index
from athlos.stages import StageStore


def build_corpus(run: RunConfig, *, source: Source[Any]) -> Corpus[Any]:
    """The corpus of a run whose data is `source`. Nothing is read before it is asked."""
    corpus: Corpus[Any] = get_class(run.corpus._target_)(run.corpus, source=source)
    return corpus


def build_index(run: RunConfig, *, source: Source[Any], stages: StageStore) -> Index:
    """The index over the run's corpus; `source` is its data. Nothing is read before the first search or `key`."""
    corpus = build_corpus(run, source=source)
    index: Index = get_class(run.index._target_)(run.index, corpus=corpus, stages=stages)
    return index
