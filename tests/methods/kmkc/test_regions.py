"""Profiles, decay law and regions against loops, exact values and what cannot be.

Sabotages that were tried and that these tests catch: U in bits, draws at another temperature, thresholds swapped,
`missing` without its second reason, kappa over distinct answers, the law without c.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from tests.methods.kmkc import reference
from tests.methods.kmkc.made import Says, profile, question
from tests.tolerances import EXACT, FLOAT64

from athlos.data.regions import Assigned, Region, may_know, read_regions, write_regions
from athlos.errors import DataError
from athlos.methods.kmkc.assign import assigned, label_of, profile_prompt
from athlos.methods.kmkc.config import Assigner, KmkcConstructConfig, ProfileConfig, RegionConfig
from athlos.methods.kmkc.profile import profiled, read_profiles, write_profiles
from athlos.methods.kmkc.regions import (
    Law,
    Profile,
    acc_only,
    bounds,
    fit_law,
    law_bins,
    macro_f1,
    mean_nats,
    random_region,
    rule,
)

LAW = Law(a=0.9, b=1.2, c=0.05, r2=0.99, num_bins=50, intervals={})
BOUNDS: dict[str, float] = {"u_lo": 0.2, "u_hi": 1.25, "high": 0.75, "low": 0.25}
ORDER = list(Region)
ANSWERS = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 5.0)), min_size=2, max_size=12)


def of(items: list[tuple[str, float]]) -> Profile:
    """A profile in which `a` is the right answer."""
    texts = [text for text, _ in items]
    return Profile(
        id="q",
        answers=texts,
        texts=texts,
        nats=[nats for _, nats in items],
        right=[text == "a" for text in texts],
        entropies=[],
    )


def construct(**changes: Any) -> KmkcConstructConfig:
    values: dict[str, Any] = {
        "profile": ProfileConfig(num_samples=16, max_new_tokens=8, max_answer_tokens=4),
        "region": RegionConfig(high=0.75, low=0.25),
        "assigner": Assigner.rule,
        "num_votes": 3,
        "augments": True,
        "augmenter": "template",
        "use_regions": True,
        "strategies": ["expansion", "disambiguation", "foundation"],
        **changes,
    }
    return KmkcConstructConfig(_target_="", **values)


@given(ANSWERS, st.randoms(use_true_random=False))
def test_a_profile_is_that_of_the_loops_in_any_order(items: list[tuple[str, float]], random: Any) -> None:
    made = of(items)
    acc, kappa, omega = reference.shares(made.answers, made.right)
    assert (made.acc, made.kappa, made.omega) == pytest.approx((acc, kappa, omega), abs=EXACT)
    random.shuffle(items)
    shuffled = of(items)
    for name in ("acc", "kappa", "omega", "ubar"):
        assert getattr(shuffled, name) == pytest.approx(getattr(made, name), abs=EXACT)


@given(st.lists(st.floats(-20, 0), min_size=1, max_size=9))
def test_uncertainty_is_nats_a_token_and_confidence_lies_in_its_range(log_probs: list[float]) -> None:
    nats = mean_nats(log_probs)
    assert nats == pytest.approx(reference.uncertainty(log_probs), abs=EXACT)
    assert 0 < math.exp(-nats) <= 1


def test_an_answer_without_tokens_has_no_uncertainty_and_counts_in_no_mean() -> None:
    engine: Any = Says("Paris", "Lyon", "", "paris!", untold=("",))
    config = ProfileConfig(num_samples=4, max_new_tokens=8, max_answer_tokens=2)
    [found] = profiled(engine, [question()], ["Q"], config=config, style="bare", seed=1)
    assert [math.isnan(nats) for nats in found.nats] == [False, False, True, False]
    assert (found.ubar, found.acc) == (1.0, 0.5)


def test_an_engine_without_log_probabilities_is_refused() -> None:
    engine: Any = Says("Paris", "Lyon", untold=("Paris", "Lyon"))
    config = ProfileConfig(num_samples=4, max_new_tokens=8, max_answer_tokens=2)
    with pytest.raises(DataError, match="tells no log-probabilities of the answers to 'fr-capital'"):
        profiled(engine, [question()], ["Q"], config=config, style="bare", seed=1)


def test_the_law_of_the_specification() -> None:
    found = [LAW.inverse(0.75), LAW.inverse(0.25)]
    assert found == pytest.approx([0.209429, 1.253398], abs=FLOAT64)
    assert LAW.at(found[0] or 0.0) == pytest.approx(0.75, abs=EXACT)
    assert LAW.inverse(0.04) is None  # the law never falls below c
    assert LAW.inverse(0.96) is None


def test_the_fit_finds_the_law_of_data_without_noise() -> None:
    nats = np.linspace(0.0, 4.0, 2000)
    # Centroids of a bin lie beside the curve by its bend, so equal values stand in a bin.
    nats = np.repeat(np.linspace(0.0, 4.0, 100), 20)
    law = fit_law(nats, 0.9 * np.exp(-1.2 * nats) + 0.05)
    assert (law.a, law.b, law.c) == pytest.approx((0.9, 1.2, 0.05), abs=FLOAT64)
    assert law.r2 == pytest.approx(1.0, abs=FLOAT64)
    assert law.is_valid
    assert all(
        low <= getattr(law, name) + FLOAT64 and getattr(law, name) <= high + FLOAT64
        for name, (low, high) in law.intervals.items()
    )


def test_bins_have_equal_mass_and_few_questions_make_no_law() -> None:
    nats, acc = np.arange(450.0), np.ones(450)
    assert len(law_bins(nats, acc)[0]) == 22
    assert len(law_bins(np.arange(5000.0), np.ones(5000))[0]) == 100
    with pytest.raises(DataError, match="got 199 questions, expected at least 200"):
        law_bins(nats[:199], acc[:199])


def test_a_law_without_fall_is_not_valid() -> None:
    rng = np.random.default_rng(0)
    nats = rng.uniform(size=400)
    assert not fit_law(nats, rng.uniform(size=400)).is_valid
    assert not dataclasses.replace(LAW, b=49.9).is_valid
    assert not dataclasses.replace(LAW, r2=0.79).is_valid


def test_bounds_are_quantiles_where_the_law_gives_none() -> None:
    profiles = [profile(str(index), nats=index / 100) for index in range(101)]
    assert bounds(profiles, LAW, high=0.75, low=0.25) == pytest.approx((0.209429, 1.253398), abs=FLOAT64)
    for law in (None, dataclasses.replace(LAW, c=0.3), dataclasses.replace(LAW, num_bins=9)):
        assert bounds(profiles, law, high=0.75, low=0.25) == pytest.approx((0.33, 0.67), abs=EXACT)


@pytest.mark.parametrize(
    ("acc", "nats", "omega", "expected"),
    [
        (0.75, 0.2, 0.0, "mastered"),
        (0.75, 0.21, 0.0, "confused"),  # right, but not sure
        (0.25, 1.25, 0.0, "missing"),
        (0.25, 1.24, 0.0, "confused"),
        (0.25, 0.1, 0.5, "missing"),  # surely wrong is missing, not mastered
        (0.0, 0.1, 1.0, "missing"),
        (0.5, 0.1, 0.5, "confused"),
        (0.5, 2.0, 0.0, "confused"),
    ],
)
def test_the_rule(acc: float, nats: float, omega: float, expected: str) -> None:
    made = profile(acc=acc, nats=nats, omega=omega)
    assert rule(made, **BOUNDS) == expected
    assert reference.region(made.acc, made.ubar, made.omega, **BOUNDS) == expected


@given(st.integers(0, 16), st.floats(0, 3), st.integers(0, 16))
def test_each_question_has_one_region_and_accuracy_never_leads_to_missing(right: int, nats: float, same: int) -> None:
    same = min(same, 16 - right)
    made = profile(acc=right / 16, nats=nats, omega=same / 16)
    region = rule(made, **BOUNDS)
    assert region == reference.region(made.acc, made.ubar, made.omega, **BOUNDS)
    if right < 16:
        better = profile(acc=(right + 1) / 16, nats=nats, omega=min(same, 15 - right) / 16)
        assert ORDER.index(rule(better, **BOUNDS)) <= ORDER.index(region)


def test_other_assigners_look_at_accuracy_or_at_nothing() -> None:
    unsure = profile(acc=1.0, nats=9.0)
    assert acc_only(unsure, high=0.75, low=0.25) is Region.mastered
    assert acc_only(profile(acc=0.25, nats=0.0), high=0.75, low=0.25) is Region.missing
    drawn = [random_region(profile(str(index)), seed=1) for index in range(300)]
    assert drawn == [random_region(profile(str(index)), seed=1) for index in range(300)]
    assert min(drawn.count(region) for region in Region) > 60


def test_a_model_votes_and_the_rule_stands_in_for_what_it_does_not_say() -> None:
    engine: Any = Says('{"region": "missing"}', "I think mastered", 'So {"region": "missing"} it is', "?", "?", "?")
    profiles = [profile("a", acc=1.0, nats=0.0), profile("b", acc=1.0, nats=0.0)]
    config = construct(assigner=Assigner.llm)
    found, num_unread = assigned(
        profiles, LAW, config=config, seed=1, engine=engine, records=[question("a"), question("b")]
    )
    assert [one.region for one in found] == ["missing", "mastered"]
    assert found[0].votes == ["missing", "", "missing"]
    assert num_unread == 4
    text = engine.asked[0].text
    assert "What is the capital of France?" in text
    assert "Right answer: Paris" in text
    assert text.count("right, uncertainty 0.00 nats") == 16


def test_a_profile_prompt_marks_wrong_answers_and_labels_are_read_strictly() -> None:
    text = profile_prompt(question(), profile(acc=0.5, nats=0.25, omega=0.5))
    assert text.count("- wrong, uncertainty 0.25 nats") == 8
    assert "commonest answer: 0.50" in text
    for reply in ("mastered", '{"region": "unknown"}', '{"region": 3}', "{", '["missing"]'):
        assert label_of(reply) == ""


def test_macro_f1_is_that_of_scikit_learn() -> None:
    truth = ["mastered", "missing", "confused", "confused", "missing"]
    found = ["mastered", "confused", "confused", "missing", "missing"]
    expected = f1_score(truth, found, average="macro", labels=list(map(str, Region)), zero_division=0)
    assert macro_f1(truth, found) == pytest.approx(expected, abs=EXACT)
    assert macro_f1(["missing"] * 3, ["missing"] * 3) == pytest.approx(1 / 3, abs=EXACT)


def test_a_profile_asks_at_temperature_one_and_reads_the_plain_distribution(tmp_path: Path) -> None:
    engine: Any = Says("Paris", "Lyon\u2028", "", "paris!")  # a line separator, at which no row of the file ends
    config = ProfileConfig(num_samples=4, max_new_tokens=8, max_answer_tokens=2)
    [found] = profiled(engine, [question()], ["Q"], config=config, style="bare", seed=1)
    assert (engine.rule.temperature, engine.rule.top_p, engine.rule.top_k) == (1.0, 1.0, 0)
    assert found.nats == [1.0] * 4  # the mean of .5 and 1.5
    assert found.answers == ["paris", "lyon", "", "paris"]
    assert found.right == [True, False, False, True]
    assert (found.acc, found.kappa, found.omega) == (0.5, 0.5, 0.25)
    write_profiles(tmp_path / "profile.jsonl", [found])
    assert read_profiles(tmp_path / "profile.jsonl") == [found]
    stored = json.loads((tmp_path / "profile.jsonl").read_text())
    assert (stored["acc"], stored["ubar"]) == (0.5, 1.0)


def test_a_question_that_is_never_answered_is_refused() -> None:
    engine: Any = Says("", " ")
    config = ProfileConfig(num_samples=4, max_new_tokens=8, max_answer_tokens=2)
    with pytest.raises(DataError, match="all 4 answers to question 'fr-capital' are empty"):
        profiled(engine, [question()], ["Q"], config=config, style="bare", seed=1)


def test_long_answers_are_wrong_since_they_list() -> None:
    engine: Any = Says("Lyon, Nice or Paris", "It is Paris")
    config = ProfileConfig(num_samples=4, max_new_tokens=8, max_answer_tokens=3)
    [found] = profiled(engine, [question()], ["Q"], config=config, style="bare", seed=1)
    assert found.right == [False, True, False, True]


ROW = Assigned(id="q1", region=Region.missing, assigner="rule", acc=0.0, nats=2.5, kappa=0.25, omega=0.25)


def test_the_file_of_regions_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "regions.jsonl"
    write_regions(path, [ROW, dataclasses.replace(ROW, id="q2", region=Region.mastered, votes=["mastered"])])
    first = json.loads(path.read_text().splitlines()[0])
    assert first == {
        "id": "q1",
        "region": "missing",
        "assigner": "rule",
        "acc": 0.0,
        "nats": 2.5,
        "kappa": 0.25,
        "omega": 0.25,
        "votes": [],
    }
    regions = read_regions(path)
    assert list(regions) == ["q1", "q2"]
    assert regions["q1"] == ROW
    assert [may_know(regions, key) for key in regions] == [False, True]
    with pytest.raises(DataError, match="question 'q3' has no region"):
        may_know(regions, "q3")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no line of a file of regions"),
        ('{"id": "q"}', "no line of a file of regions"),
        (json.dumps({**dataclasses.asdict(ROW), "region": "unknown"}), "got 'unknown'"),
        (json.dumps(dataclasses.asdict(ROW)), "'q1' comes twice"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "regions.jsonl"
    path.write_text(f"{json.dumps(dataclasses.asdict(ROW))}\n{line}\n")
    with pytest.raises(DataError, match=message) as caught:
        read_regions(path)
    assert caught.value.line == 2
