"""The suite of known streams: the source itself is at the floor, and a uniform model at log V above nothing."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.assembled import suite_of

from athlos.config.compose import run_config
from athlos.data.source import build_source
from athlos.errors import ConfigError
from athlos.lab.streams import Streams
from athlos.models.architecture import build, hf_config
from athlos.models.tokenizers import byte_tokenizer

CHAIN = [
    "data=lab_streams",
    "eval=streams",
    "data.stream.copy_rate=0",
    "data.stream.recall_rate=0",
    "data.stream.num_symbols=8",
    "data.num_test=48",
    "data.length=24",
]


def bigram_model(config: Any) -> Any:
    """A Llama without layers whose embedding is one-hot and whose head holds the true log-probabilities."""
    model = build(
        hf_config(
            {
                "model_type": "llama",
                "hidden_size": 260,
                "intermediate_size": 8,
                "num_hidden_layers": 0,
                "num_attention_heads": 1,
                "vocab_size": 259,
                "tie_word_embeddings": False,
            }
        ),
        dtype=torch.float32,
    ).eval()
    table = torch.from_numpy(Streams(config.data.stream).probs_SV).log()
    scale = math.sqrt(260)  # what the norm makes of a one-hot vector
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(torch.eye(260)[:259])
        head = torch.full((259, 260), -100.0)
        head[33:41, 33:41] = table.T
        model.get_output_embeddings().weight.copy_(head / scale)
    return model


def test_the_source_itself_is_at_its_floor() -> None:
    config = run_config(CHAIN)
    records = list(build_source(config).records("test"))
    answerer: Any = SimpleNamespace(model=bigram_model(config), tokenizer=byte_tokenizer())
    found = suite_of(config).evaluate(answerer, records).metrics
    assert found["gap_to_floor"] == pytest.approx(0.0, abs=2e-4)
    assert 0.1 < found["floor"] < math.log(8)
    assert found["ppl"] == pytest.approx(math.exp(found["nll"]))
    with torch.no_grad():
        answerer.model.get_output_embeddings().weight.zero_()
    found = suite_of(config).evaluate(answerer, records).metrics
    assert found["nll"] == pytest.approx(math.log(259), abs=1e-4)
    assert found["gap_to_floor"] == pytest.approx(math.log(259) - found["floor"], abs=1e-4)


def test_text_without_a_truth_is_refused() -> None:
    config = run_config(["data=shakespeare", "eval=streams"])
    records = list(build_source(config).records("val", limit=2))
    answerer: Any = SimpleNamespace(model=None, tokenizer=byte_tokenizer())
    with pytest.raises(ConfigError, match="data=lab_streams"):
        suite_of(config).evaluate(answerer, records)
