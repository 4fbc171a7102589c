"""The served index in its embedded form gives what the exact index here gives; a stopped build goes on."""

import numpy as np
import pytest

from athlos.errors import ConfigError
from athlos.retrieval import dense, served
from athlos.retrieval.config import DenseIndexConfig, ServedIndexConfig
from athlos.retrieval.corpus import GivenCorpus
from athlos.retrieval.dense import DenseIndex
from athlos.retrieval.interface import CorpusPassage
from athlos.retrieval.served import ServedIndex
from athlos.stages import StageStore

TEXTS = {"en": [f"text {number}" for number in range(40)], "de": [f"Wort {number}" for number in range(9)]}


class RandomEncoder:
    """A vector a text, of length 1, drawn by a seed that the text gives."""

    def __init__(self, name, *, batch_size, stages):
        self.identity, self.texts = name, []

    def encode(self, texts):
        self.texts += texts
        seeds = [list(text.encode()) for text in texts]
        drawn = np.array([np.random.default_rng(seed).normal(size=12) for seed in seeds], dtype=np.float32)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def indexes(folder, monkeypatch, *, encoder="random"):
    for module in (dense, served):
        monkeypatch.setattr(module, "Encoder", RandomEncoder)
    monkeypatch.setattr(served, "PASSAGES_AT_ONCE", 7)
    passages = [
        CorpusPassage(identifier=f"p{row}", text=text, language=language)
        for language, texts in TEXTS.items()
        for row, text in enumerate(texts)
    ]
    corpus, stages = GivenCorpus(passages), StageStore(folder / "cache")
    ours = DenseIndex(DenseIndexConfig(encoder="random", batch_size=4), corpus=corpus, stages=stages)
    config = ServedIndexConfig(encoder=encoder, batch_size=4, uri=str(folder / "engine" / "m.db"))
    return ours, ServedIndex(config, corpus=corpus, stages=stages)


def test_the_embedded_engine_gives_our_lists_and_is_filled_once(tmp_path, monkeypatch):
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    ours, engine = indexes(tmp_path, monkeypatch)
    queries = ["text 3", "something else", "Wort 3"]
    for language, k in (("en", 10), ("de", 20)):
        for mine, theirs in zip(
            ours.search(queries, k=k, language=language), engine.search(queries, k=k, language=language), strict=True
        ):
            assert [hit.identifier for hit in theirs] == [hit.identifier for hit in mine]
            assert [hit.score for hit in theirs] == pytest.approx([hit.score for hit in mine], abs=1e-6)
    engine.client.delete(engine.collection("en"), filter="row >= 33")  # as if it had been stopped there
    engine.client.close()
    _, again = indexes(tmp_path, monkeypatch)
    assert again.key == engine.key
    again.search(queries[:1], k=1, language="en")
    assert again.encoder.texts == [*TEXTS["en"][33:], "text 3"]
    assert again.search([], k=1, language="en") == []
    again.client.close()


def test_vectors_of_another_encoder_are_kept_elsewhere(tmp_path, monkeypatch):
    names = {indexes(tmp_path, monkeypatch, encoder=name)[1].collection("en") for name in ("random", "other")}
    assert len(names) == 2


def test_a_missing_client_is_told(tmp_path, monkeypatch):
    _, engine = indexes(tmp_path, monkeypatch)
    monkeypatch.setitem(__import__("sys").modules, "pymilvus", None)
    with pytest.raises(ConfigError, match=r"needs pymilvus: pip install 'athlos\[served\]'"):
        engine.search(["x"], k=1, language="en")
