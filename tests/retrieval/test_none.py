"""A run without an index says what to choose."""

import pytest

from athlos.errors import ConfigError
from athlos.retrieval.config import NoCorpusConfig, NoIndexConfig
from athlos.retrieval.none import NoCorpus, NoIndex
from athlos.stages import StageStore


def test_a_search_without_an_index_is_refused(tmp_path):
    index = NoIndex(NoIndexConfig(), corpus=NoCorpus(NoCorpusConfig()), stages=StageStore(tmp_path))
    with pytest.raises(ConfigError, match="index: got none, but this run searches passages; choose an index"):
        index.search(["where?"], k=3)
