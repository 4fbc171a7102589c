"""The completions suite against loops: perplexity, accuracy, distance to a known truth, and rows of unequal length."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from tests.assembled import suite_of
from tests.tolerances import FLOAT32
from transformers import AutoModelForCausalLM, LlamaConfig

from athlos.config.compose import run_config
from athlos.data.records import ContinuationRecord
from athlos.data.source import build_source
from athlos.errors import ConfigError
from athlos.evaluation.suites.completions import CompletionsSuite, token_scores
from athlos.models.tokenizers import byte_tokenizer


class Holder:
    """A model and its tokenizer, all that the suite reads."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=259,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
        self.model: Any = AutoModelForCausalLM.from_config(config).eval()
        self.tokenizer: Any = byte_tokenizer()


def suite(*overrides: str) -> CompletionsSuite:
    return suite_of(run_config(["data=lab_answers", "eval=completions", "eval.batch_size=3", *overrides]))


def test_equals_loops_and_the_truth_is_known() -> None:
    holder, found = Holder(), suite("data.num_test=3", "eval.bootstrap=50")
    records = list(build_source(found.run).records("test"))
    result = found.evaluate(holder, records)  # type: ignore[arg-type]
    nll, right, divergence, count = 0.0, 0, 0.0, 0
    for record in records:
        assert isinstance(record, ContinuationRecord)
        prompt, answer = [[ord(sign) for sign in text] for text in (record.context, record.text)]
        ids = [*prompt, *answer, holder.tokenizer.eos_token_id]
        with torch.no_grad():
            log_probs = holder.model(torch.tensor([ids])).logits[0].log_softmax(-1).double()
        for at in range(len(prompt), len(ids)):
            row = log_probs[at - 1]
            nll -= row[ids[at]].item()
            right += int(row.argmax().item() == ids[at])
            truth = record.meta["next_probs"][at - len(prompt)]
            for symbol, prob in zip(record.meta["symbols"], truth, strict=True):
                token = ord(symbol) if symbol else holder.tokenizer.eos_token_id
                divergence += prob * (math.log(prob) - row[token].item()) if prob else 0.0
            count += 1
    assert result.metrics["nll"] == pytest.approx(nll / count, rel=FLOAT32)
    assert result.metrics["ppl"] == pytest.approx(math.exp(nll / count), rel=FLOAT32)
    assert result.metrics["acc"] == pytest.approx(right / count)
    assert result.metrics["kl_to_truth"] == pytest.approx(divergence / count, rel=FLOAT32)
    assert sum(row["tokens"] for row in result.predictions) == count
    detail = result.details["kl_to_truth"]
    assert detail.low is not None
    assert detail.high is not None
    assert detail.low < result.metrics["kl_to_truth"] < detail.high


def test_scores_of_the_models_own_distribution() -> None:
    probs = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.25, 0.25, 0.25, 0.25]])
    scores = token_scores(probs.log(), torch.tensor([0, 2]))
    np.testing.assert_allclose(scores["entropy"], [1.75 * math.log(2), math.log(4)], rtol=1e-6)
    assert scores["topp/0.1"].tolist() == [1, 1]
    assert scores["topp/0.9"].tolist() == [4, 4]
    np.testing.assert_allclose(scores["nll"], [math.log(2), math.log(4)], rtol=1e-6)
    np.testing.assert_allclose(scores["logit_var"][0], np.var(np.log(probs[0].numpy())), rtol=1e-5)


def test_what_does_not_fit_is_said() -> None:
    record = ContinuationRecord(identifier="x", context="a", text="b" * 40)
    with pytest.raises(
        ConfigError, match=r"eval.suites.completions.max_length: got 16, but the completion of 'x' has 41 tokens"
    ):
        suite("eval.suites.completions.max_length=16").evaluate(Holder(), [record])  # type: ignore[arg-type]
