"""Answers that a judge scores."""

import logging

import pytest
from tests.assembled import suite_of
from tests.evaluation.test_suites import Scripted

from athlos.config.compose import run_config
from athlos.data.records import QuestionRecord
from athlos.errors import ConfigErrors

RECORDS = [
    QuestionRecord(identifier="a", question="?", answers=["Paris", "Lutetia"]),
    QuestionRecord(identifier="b", question="?", answers=["four cats"]),
    QuestionRecord(identifier="c", language="de", question="?", answers=["Rom"]),
]
TEXTS = {"a": "lutetia", "b": "four dogs", "c": "Athen"}
RUN = ["data=own", "data.path=mine.jsonl", "eval=judged", "eval.bootstrap=20"]


def judged(*overrides: str):
    return suite_of(run_config([*RUN, *overrides])).evaluate(Scripted(TEXTS), RECORDS)


def test_answers_have_the_score_of_their_best_gold_answer_and_name_their_judge():
    found = judged("judge=overlap", "judge.threshold=.5")
    assert [row["judged"] for row in found.predictions] == [1.0, 0.5, 0.0]
    assert found.metrics["judged"] == 0.375
    assert found.metrics["judged_supported"] == 0.5
    assert found.details["judged/en"].n == 2
    assert found.signatures["judge"].startswith("lexical:")
    assert found.signatures["judge_strict"] == "false"
    assert "not shown to be better than word overlap: AUROC 0.5" in found.signatures["judge_agreement"]


def test_metrics_of_the_reward_s_own_judge_say_so(caplog):
    rewarded = ("judge=exact", "reward=judge", "train.max_steps=0")
    with caplog.at_level(logging.INFO, logger="athlos"):
        found = judged(*rewarded, "judge.allow_same=true")
    assert set(found.metrics) == {
        f"{name}{language}@reward_judge" for name in ("judged", "judged_supported") for language in ("", "/en", "/de")
    }
    assert set(found.details) == set(found.metrics)
    assert "judge exact:" in caplog.text
    assert ", the reward's too" in caplog.text
    assert "judged" in judged(*rewarded, "judge@reward.judge=cover").metrics


def test_a_run_without_a_judge_is_refused():
    with pytest.raises(ConfigErrors, match=r"judge: got none, expected one, such as judge=exact: eval\.suites\.judged"):
        run_config(RUN)
