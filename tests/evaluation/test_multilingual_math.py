"""Groups of languages, several answers to an item, and benchmarks of several parts, in the suite `math`."""

import math

import pytest
from tests import tolerances
from tests.evaluation.test_suites import Scripted, problems, suite

from athlos.config.compose import run_config
from athlos.data.records import MathRecord
from athlos.errors import ConfigErrors, DataError
from athlos.evaluation.macro import mean_of_parts, polymath_score
from athlos.text.consistency import language_consistent
from athlos.text.language import detector

RIGHT = {"latn": "tuta 7 + 5 = 12 qete.", "grek": "μιψω 7 + 5 = 12.", "hani": "今后 12。"}
LAB = ["prompt_style=bare", "eval.shots=0", "eval.suites.math.language_detector=lab"]


def lab_items(**said):
    """Records `<language>_<number>` with the answer 12 and what is said to each."""
    records = [
        MathRecord(identifier=key, language=key.partition("_")[0], question=f"Q {key}?", answer="12") for key in said
    ]
    return records, Scripted(said)


def test_groups_are_means_over_their_languages():
    records, answerer = lab_items(
        latn_1=RIGHT["latn"],
        latn_2="wrong 13",
        grek_1=RIGHT["grek"],
        hani_1=RIGHT["latn"],
        hani_2=RIGHT["hani"],
        hani_3="13",
        hani_4="13",
    )
    groups = ["+eval.suites.math.language_groups.high=[latn]", "+eval.suites.math.language_groups.low=[grek,hani]"]
    result = suite("math", *LAB, *groups).evaluate(answerer, records)
    metrics = result.metrics
    assert metrics["acc/high"] == metrics["acc/latn"] == 0.5
    assert metrics["acc/low"] == (1.0 + 0.5) / 2
    assert metrics["lc/hani"] == 0.25  # an answer without letters is in no language of the lab
    assert metrics["lc_acc/low"] == (1.0 + 0.25) / 2
    assert metrics["lc_acc"] == pytest.approx((0.5 + 1.0 + 0.25) / 3, abs=tolerances.EXACT)
    assert result.details["acc/low"].n == 5
    assert result.details["acc/low"].low <= metrics["acc/low"] <= result.details["acc/low"].high


def test_an_item_counts_by_the_mean_of_its_answers():
    said = {"en1": "The number we want is 5", "en1#2": "Well it is surely 6", "en1#3": "12", "en1#4": "it is 5"}
    said |= {f"en2{suffix}": "it is 12" for suffix in ("", "#2", "#3", "#4")}
    answerer = Scripted(said)
    chosen = suite("math", "eval.suites.math.samples=4", "decoding=sampling", "prompt_style=bare", "eval.shots=0")
    result = chosen.evaluate(answerer, problems(en1="5", en2="12"))
    assert result.metrics["acc"] == (0.5 + 1.0) / 2
    assert result.details["acc"].n == 2
    assert len(result.predictions) == 8
    assert len({request.seed for request in answerer.requests}) == 8
    assert [request.prompt for request in answerer.requests] == ["Question en1?"] * 4 + ["Question en2?"] * 4
    assert "samples:4" in result.signatures["math_prompt"]


def test_weights_of_benchmarks_in_parts():
    assert polymath_score({"low": 1.0, "medium": 0.0, "high": 0.0, "top": 0.0}) == 1 / 15
    assert polymath_score({"low": 0.0, "medium": 1.0, "high": 0.5, "top": 0.25}) == pytest.approx(6 / 15)
    assert polymath_score(dict.fromkeys(("top", "high", "medium", "low"), 1.0)) == 1
    with pytest.raises(DataError, match="expected low, medium, high, top"):
        polymath_score({"low": 1.0})
    # MMATH: 311, 30, 18 and 15 problems count a quarter each.
    parts = ["math500"] * 311 + ["aime24"] * 30 + ["cnmo"] * 18 + ["aime25"] * 15
    right = [1.0] * 311 + [0.0] * 30 + [0.5] * 18 + [0.0] * 15
    assert mean_of_parts(right, parts) == pytest.approx((1 + 0 + 0.5 + 0) / 4, abs=tolerances.EXACT)
    assert math.isnan(mean_of_parts([], []))
    with pytest.raises(ValueError, match="shorter"):
        mean_of_parts([1.0], [])


def test_parts_join_the_metrics_where_records_have_them():
    records = problems(en1="5", en2="5", en3="5", en4="5")
    answerer = Scripted(dict.fromkeys(("en1", "en2", "en3"), "5") | {"en4": "6"})
    bare = ["prompt_style=bare", "eval.shots=0"]
    assert not {"acc_macro", "acc_weighted"} & set(suite("math", *bare).evaluate(answerer, records).metrics)
    for record, source in zip(records, ("a", "a", "a", "b"), strict=True):
        record.meta["source"] = source
    assert suite("math", *bare).evaluate(answerer, records).metrics["acc_macro"] == 0.5
    for record, level in zip(records, ("low", "medium", "high", "top"), strict=True):
        record.meta["level"] = level
    metrics = suite("math", *bare).evaluate(answerer, records).metrics
    assert metrics["acc_weighted"] == metrics["lc_acc_weighted"] == pytest.approx(7 / 15)


def test_the_lab_detector():
    judge = detector("lab", ["latn", "thai"])
    assert judge.detect("Zupa teke 17 qete.") == "latn"
    assert judge.detect("ตาดุ 17 ทาฉูคิบูฯ") == "thai"
    assert judge.detect("今后 12。") == "hani"
    assert judge.detect("17 + 4 = 21") is None
    assert judge.detect("17 qete 今后") is None
    assert not language_consistent("12", "latn", judge)
    assert language_consistent("a", "latn", judge)
    assert judge.id == "lab-1"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("eval.suites.math.samples=0", "eval.suites.math.samples: got 0, expected an integer >= 1"),
        ("eval.suites.math.samples=2", "decoding=greedy gives one answer; use decoding=sampling"),
        ("+eval.suites.math.language_groups.low=[]", "language_groups.low: got no languages, expected at least one"),
        ("eval.suites.math.language_detector=labb", "eval.suites.math.language_detector: got 'labb'"),
        ("eval.suites.math.language_detector=script", "py3langid, lingua, lab; it is 'py3langid' now"),
    ],
)
def test_values_out_of_range_are_told(override, told):
    with pytest.raises(ConfigErrors, match=told):
        run_config(["eval=math", "data=mgsm", override])
