"""The suite margin: log-likelihoods against loops, other numbers, macro means over languages."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.assembled import suite_of
from tests.models.conftest import tiny as tiny
from tests.tolerances import FLOAT32

from athlos.config.compose import run_config
from athlos.data.records import MathRecord, TextRecord
from athlos.errors import ConfigError
from athlos.evaluation.suites.margin import log_likelihoods, near_numbers
from athlos.models.tokenizers import byte_tokenizer


class Bytes:
    """Bytes folded into the 40 ids of a tiny model."""

    bos_token_id = None

    def __init__(self) -> None:
        self.inner = byte_tokenizer()
        self.backend_tokenizer = self.inner.backend_tokenizer

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [3 + one % 37 for one in self.inner.encode(text, add_special_tokens=False)]


def problem(language: str, answer: str) -> MathRecord:
    return MathRecord(identifier=f"{language}-{answer}", language=language, question="1 + 1?", answer=answer)


def test_log_likelihoods_equal_one_pass_a_completion(tiny: Any) -> None:
    model, tokenizer = tiny("llama"), Bytes()
    found = log_likelihoods(model, tokenizer, "Q: 1 + 1?\nA:", [" 2", " 17", " 3"])
    for text, score in zip((" 2", " 17", " 3"), found.tolist(), strict=True):
        prompt, end = tokenizer.encode("Q: 1 + 1?\nA:"), tokenizer.encode(text)
        with torch.no_grad():
            logits = model(torch.tensor([prompt + end])).logits[0]
        wanted = 0.0
        for at, token in enumerate(end):
            row = logits[len(prompt) - 1 + at].tolist()
            wanted += row[token] - math.log(sum(math.exp(value) for value in row))
        assert score == pytest.approx(wanted, abs=100 * FLOAT32)


@pytest.mark.parametrize("answer", [0, 3, 42, 99, 100, 1234, -5])
def test_other_numbers_are_near_differ_and_come_back(answer: int) -> None:
    found = near_numbers(answer, seed="de-7")
    assert len(set(found)) == 4
    assert str(answer) not in found
    assert found == near_numbers(answer, seed="th-7")  # the same in every language
    assert all(abs(int(one) - answer) <= max(10, abs(answer) // 10) for one in found)
    if answer in (42, 1234):
        assert all(len(one) == len(str(answer)) for one in found)


def test_means_are_over_languages_and_fractions_are_left_out(tiny: Any) -> None:
    config = run_config(["data=mgsm", "eval=margin", "train.max_steps=0", "eval.bootstrap=0"])
    answerer: Any = SimpleNamespace(model=tiny("llama"), tokenizer=Bytes())
    records = [problem("en", "2"), problem("en", "31"), problem("de", "4"), problem("de", "1/2")]
    records += [problem("de", "\N{SUPERSCRIPT TWO}"), problem("en", "9" * 4301)]  # what `int` refuses
    result = suite_of(config).evaluate(answerer, records)
    assert len(result.predictions) == 3
    by_language = [result.metrics["margin_acc/en"], result.metrics["margin_acc/de"]]
    assert result.metrics["margin_acc"] == pytest.approx(sum(by_language) / 2)
    for row in result.predictions:
        assert (row["prediction"] == row["gold"]) == (row["margin"] > 0)
    with pytest.raises(ConfigError, match="margin needs a MathRecord"):
        suite_of(config).evaluate(answerer, [TextRecord(identifier="t", text="x")])
