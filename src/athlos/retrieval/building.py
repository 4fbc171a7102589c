"""The index of a run, from its config and its corpus."""

from typing import Any

from hydra.utils import get_class

from athlos.config.schema import IndexConfig, RunConfig
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
    return index_over(build_corpus(run, source=source), run.index, stages=stages)


def index_over(corpus: Corpus[Any], config: IndexConfig, *, stages: StageStore) -> Index:
    """The index of a config over any corpus, such as a `GivenCorpus` of passages that a method has in hand."""
    index: Index = get_class(config._target_)(config, corpus=corpus, stages=stages)
    return index
