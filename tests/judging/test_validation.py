"""The recorded table of judges against people, and where it is shown."""

import json
from pathlib import Path

import pytest
from sklearn.metrics import roc_auc_score
from tests.judging.reference import auroc
from tests.tolerances import FLOAT32

from athlos.config.compose import run_config
from athlos.judging.building import build_judge
from athlos.judging.validation import TABLE, Agreement, agreement_of, caveat, markdown
from athlos.stages import StageStore

ROWS = json.loads(TABLE.read_text(encoding="utf-8"))["judges"]
STUDY = Path(__file__).resolve().parents[2] / "experiments/judging/README.md"


@pytest.mark.parametrize("judge_id", ROWS)
def test_each_row_is_what_its_scores_and_labels_give(judge_id):
    row = ROWS[judge_id]
    found = agreement_of(judge_id)
    assert found is not None
    assert found.n == len(row["labels"]) == len(row["scores"])
    assert found.auroc.value == pytest.approx(roc_auc_score(row["labels"], row["scores"]), abs=FLOAT32)
    assert found.auroc.value == pytest.approx(auroc(row["scores"], row["labels"]), abs=FLOAT32)
    assert found.auroc.low <= found.auroc.value <= found.auroc.high
    assert (found.verdict == "better than word overlap") == (row["agreement"]["gain"]["low"] > 0)
    assert found.verdict in caveat(judge_id)


def test_the_study_shows_the_table():
    assert markdown() in STUDY.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["overlap", "lexical", "cover", "exact"])
def test_the_judges_of_conf_are_those_of_the_table(name, tmp_path):
    judge = build_judge(run_config([f"judge={name}"]).judge, stages=StageStore(tmp_path))
    assert ROWS[judge.id]["identity"] == judge.identity


def test_a_judge_that_was_not_measured_is_said_to_be_so():
    assert agreement_of("nli:0") is None
    assert caveat("nli:0") == "not measured on ExpertQA's human labels"


def test_an_interval_above_nothing_alone_makes_a_judge_better():
    row = next(iter(ROWS.values()))["agreement"]
    for low, verdict in ((0.01, "better than word overlap"), (0.0, "not shown to be better than word overlap")):
        assert Agreement.of({**row, "gain": {"value": 0.1, "low": low, "high": 0.2}}).verdict == verdict
