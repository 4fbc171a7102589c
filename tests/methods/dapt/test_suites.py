"""Suites of questions of several steps and of retrieval: golds, scripts and languages, and what is refused."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from athlos.config.compose import run_config
from athlos.data.records import NAMED_PASSAGES, QuestionRecord
from athlos.data.records import Passage as RecordPassage
from athlos.errors import ConfigError, DataError
from athlos.generation.interface import Prediction, Request
from athlos.methods.dapt.config import (
    BilingualRecallConfig,
    ChainSuiteConfig,
    StepRecallConfig,
    TranslatedSuiteConfig,
)
from athlos.methods.dapt.suites import BilingualRecallSuite, ChainSuite, StepRecallSuite, TranslatedSuite, in_script_of
from athlos.retrieval.interface import Passage

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


class Shelf:
    """Finds the passage that is named as the query is, in the language that is asked for."""

    def search(self, queries: Sequence[str], *, k: int, language: str) -> list[list[Passage]]:
        return [
            [Passage(identifier=f"{query}-{language}", title=query, text=query, score=1.0)][:k] for query in queries
        ]


def on_one_passage(language: str, *, is_supporting: bool = True) -> QuestionRecord:
    passage = RecordPassage(title="t", text="x", is_supporting=is_supporting, identifier=f"Ulm-{language}")
    return QuestionRecord(
        identifier=f"{language}-q",
        language=language,
        question="Ulm",
        answers=["x"],
        passages=[passage],
        meta={NAMED_PASSAGES: True},
    )


def studied(suite: Any, config: Any, records: Sequence[QuestionRecord], monkeypatch: pytest.MonkeyPatch) -> Any:
    run = run_config(["experiment=dapt/world", "data.dir=.", "tracking=none", "eval.bootstrap=0"])
    monkeypatch.setattr(suite, "index", lambda self, answerer, source: Shelf())
    monkeypatch.setattr("athlos.methods.dapt.suites.build_source", lambda run: None)
    return suite(config, run).evaluate(Says(""), records).metrics


def test_questions_of_several_languages_look_for_passages_each_in_its_own(monkeypatch: pytest.MonkeyPatch):
    records = [on_one_passage(language) for language in ("de", "en", "de")]
    config = StepRecallConfig(_target_="", ks=[1], noise=[0.0])
    metrics = studied(StepRecallSuite, config, records, monkeypatch)
    assert {"recall@1": 1.0, "recall@1/de": 1.0, "recall@1/en": 1.0}.items() <= metrics.items()


def test_studies_without_anything_to_look_for_say_so(monkeypatch: pytest.MonkeyPatch):
    records = [on_one_passage(language, is_supporting=False) for language in ("de", "en")]
    settings: dict[str, Any] = {"_target_": "", "ks": [1], "noise": [0.0]}
    with pytest.raises(DataError, match="step_recall has no question with a gold passage, among 2 records"):
        studied(StepRecallSuite, StepRecallConfig(**settings), records, monkeypatch)
    with pytest.raises(ConfigError, match="bilingual_recall needs questions with gold passages"):
        studied(BilingualRecallSuite, BilingualRecallConfig(**settings), records, monkeypatch)
    run = run_config(["experiment=dapt/world", "data.dir=.", "tracking=none"])
    with pytest.raises(DataError, match="translated has no question with an answer, among 1 records"):
        TranslatedSuite(TranslatedSuiteConfig(_target_=""), run).evaluate(
            Says(""), [QuestionRecord(identifier="q", language="en", question="?", answers=[])]
        )
