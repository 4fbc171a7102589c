"""The suite `preferences` against log-probabilities of single rows: who wins, by sums and by means over tokens."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.tolerances import FLOAT64
from transformers import LlamaConfig, LlamaForCausalLM

from athlos.config.compose import run_config
from athlos.data.records import PreferenceRecord, Record, TextRecord
from athlos.errors import ConfigError
from athlos.evaluation.suite import build_suite
from athlos.models.tokenizers import byte_tokenizer

PAIRS: list[Record] = [
    PreferenceRecord(identifier="a", language="de", prompt="Wie? ", chosen="So.", rejected="Nicht so, sondern anders."),
    PreferenceRecord(identifier="b", language="de", prompt="", chosen="Eine lange Antwort.", rejected="x"),
    PreferenceRecord(identifier="c", language="en", prompt="How? " * 9, chosen="Thus.", rejected="So é."),
    PreferenceRecord(identifier="d", language="en", prompt="Same", chosen="one", rejected="one"),
]


@pytest.fixture
def answerer() -> Any:
    torch.manual_seed(5)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=259, initializer_range=0.4, attention_dropout=0.5, **shape))
    return SimpleNamespace(model=model.double().train(), tokenizer=byte_tokenizer())


def evaluated(answerer: Any, records: list[Record]) -> Any:
    run = run_config(["eval=preferences", "eval.batch_size=3", "train.max_length=30", "data=own", "data.path=x.jsonl"])
    [config] = run.eval.suites.values()
    return build_suite(config, run).evaluate(answerer, records)


def test_the_likelier_answer_wins_by_sums_and_by_means(answerer: Any) -> None:
    result = evaluated(answerer, PAIRS)
    assert answerer.model.training
    model, tokenizer = answerer.model.eval(), answerer.tokenizer
    sums, means = [], []
    for pair, row in zip(PAIRS, result.predictions, strict=True):
        assert isinstance(pair, PreferenceRecord)
        answers = [[*tokenizer.encode(text), 258] for text in (pair.chosen, pair.rejected)]
        prompt = tokenizer.encode(pair.prompt)[-(30 - max(map(len, answers))) :] if pair.prompt else []
        log_probs, lengths = [], []
        for answer in answers:
            ids = torch.tensor([*prompt, *answer])
            own = model(ids[None]).logits[0].log_softmax(-1)[:-1].gather(1, ids[1:, None])[max(0, len(prompt) - 1) :]
            log_probs.append(own.sum().item())
            lengths.append(len(own))
        assert row["log_probs"] == pytest.approx(log_probs, abs=FLOAT64)
        assert row["tokens"] == lengths
        sums.append(log_probs)
        means.append([total / length for total, length in zip(log_probs, lengths, strict=True)])
    wins, norm_wins = ([better > worse for better, worse in table] for table in (sums, means))
    assert wins != norm_wins
    assert result.metrics["pair_acc"] == pytest.approx(sum(wins) / 4)
    assert result.metrics["pair_acc/de"] == pytest.approx(sum(wins[:2]) / 2)
    assert result.metrics["pair_acc_norm"] == pytest.approx(sum(norm_wins) / 4)
    margins = [better - worse for better, worse in sums]
    assert result.metrics["pair_margin"] == pytest.approx(sum(margins) / 4, abs=FLOAT64)
    assert margins[3] == 0
    assert not wins[3]


def test_data_without_pairs_are_refused(answerer: Any) -> None:
    with pytest.raises(ConfigError, match="preferences needs preference pairs, data=own has none"):
        evaluated(answerer, [TextRecord(identifier="t", text="x")])
