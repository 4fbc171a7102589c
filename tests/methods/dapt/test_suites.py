"""The suite of questions of several steps: golds of the question's own language, its script, and what is refused."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from athlos.config.compose import run_config
from athlos.data.records import QuestionRecord
from athlos.errors import DataError
from athlos.generation.interface import Prediction, Request
from athlos.methods.dapt.config import ChainSuiteConfig
from athlos.methods.dapt.suites import ChainSuite, in_script_of

GERMANY = {"en": "Germany", "de": "Deutschland", "zh": "德国"}


@dataclass
class Says:
    """Answers every question alike."""

    text: str
    asked: list[str] = field(default_factory=list)

    def answer(self, requests: Sequence[Request], *, progress: Any = None) -> list[Prediction]:
        self.asked += [request.identifier for request in requests]
        return [
            Prediction(
                identifier=request.identifier,
                text=self.text,
                num_prompt_tokens=0,
                num_tokens=0,
                log_prob=0.0,
                finished=True,
            )
            for request in requests
        ]


def question(language: str, answer: str) -> QuestionRecord:
    return QuestionRecord(identifier="q", language=language, question="?", answers=[answer], meta={"hops": 2})


def measured(answerer: Any, records: Sequence[QuestionRecord], *, norm: str = "") -> dict[str, float]:
    run = run_config(["experiment=dapt/world", "data.dir=.", "tracking=none", "eval.bootstrap=0"])
    config = ChainSuiteConfig(_target_="", norm=norm)
    return dict(ChainSuite(config, run).evaluate(answerer, records).metrics)


def test_an_answer_is_compared_with_the_golds_of_the_questions_own_language_and_script():
    """Questions of one id in several languages: an answer in English is right in English alone."""
    records = [question(language, answer) for language, answer in GERMANY.items()]
    metrics = measured(Says("Germany"), records)
    assert {name: metrics[f"em/{name}"] for name in GERMANY} == {"en": 1, "de": 0, "zh": 0}
    assert {name: metrics[f"script_match/{name}"] for name in GERMANY} == {"en": 1, "de": 1, "zh": 0}
    assert metrics["em_gap"] == 1
    assert metrics["em_hop2"] == pytest.approx(1 / 3)
    chinese = measured(Says("德国"), records)
    assert {name: chinese[f"script_match/{name}"] for name in GERMANY} == {"en": 0, "de": 0, "zh": 1}
    assert chinese["em/zh"] == 1


def test_answers_and_golds_without_letters_have_no_script():
    assert "script_match" not in measured(Says(""), [question("en", "Germany")])
    assert "script_match" not in measured(Says("x"), [question("en", "1990")])
    assert in_script_of("NATO成员", ["北约 (NATO)"])
    assert not in_script_of("NATO成员", ["北约", "NATO"])


def test_a_gold_of_which_the_normaliser_leaves_nothing_is_refused_before_anything_is_asked():
    answerer = Says("")
    for record, norm, normaliser in (
        (question("en", "The The"), "", "squad"),
        (question("zh", "?!"), "", "mkqa_unicode"),
        (question("zh", "?!"), "squad", "squad"),
    ):
        with pytest.raises(DataError, match=f"'q': the normaliser {normaliser} leaves nothing of the gold answer"):
            measured(answerer, [record], norm=norm)
    assert not answerer.asked
