"""Sums with worked solutions: of the lab's languages, and templated ones in real languages."""

import re
from collections import Counter

import pytest

from athlos.config.compose import run_config
from athlos.data.source import build_source
from athlos.data.sources.templated_sums import LANGUAGES, canonical, plural, split_of
from athlos.errors import ConfigErrors
from athlos.lab.languages import CODES
from athlos.lab.sums import Sums, check
from athlos.text.consistency import language_consistent
from athlos.text.language import detector
from athlos.text.maths import answers_equal, extract_answer
from athlos.text.prompts import build_prompt, completion

EQUATION = re.compile(r"(\d+) ([-+]) (\d+) = \D*(\d+)")


def source_of(*overrides, data="lab_sums"):
    return build_source(run_config([f"data={data}", "prompt_style=bare", "eval=math", *overrides]))


def test_lab_traces_are_right_and_in_their_language():
    source = source_of("data.num_train=200")
    judge = detector("lab", CODES)
    sums = Sums(source.config.sums)
    records = list(source.records("train"))
    assert len({record.identifier for record in records}) == 200
    for index, record in enumerate(records):
        checked = check(record.solution, sums.item("train", index))
        assert str(checked["answer"]) == record.answer == extract_answer(record.solution)
        assert all(checked["steps_valid"])
        assert len(checked["steps_valid"]) == record.meta["difficulty"]
        assert language_consistent(record.solution, record.language, judge)
        assert not language_consistent(record.solution, "latn" if record.language != "latn" else "grek", judge)
        assert not record.solution_language
        assert language_consistent(record.english_solution, "latn", judge)


def test_shares_and_drift_are_exact():
    shares, drift = [50, 20, 20, 5, 5], [0.0, 0.5, 0.5, 0.9, 0.9]
    source = source_of("data.num_train=400", f"data.shares={shares}", f"data.drift={drift}")
    records = list(source.records("train"))
    assert [Counter(record.language for record in records)[code] for code in CODES] == [200, 80, 80, 20, 20]
    drifted = Counter(record.language for record in records if record.solution_language)
    assert [drifted[code] for code in CODES] == [0, 40, 40, 18, 18]
    judge = detector("lab", CODES)
    for record in records:
        assert judge.detect(record.solution) == (record.solution_language or record.language)
        assert judge.detect(record.question) == record.language


def test_lab_splits_and_stages_are_disjoint():
    first, later = source_of("data.num_train=300"), source_of("data.num_train=300", "data.first=300")
    sums = {split: {record.meta["canonical"] for record in first.records(split)} for split in ("train", "val", "test")}
    assert not sums["test"] & (sums["train"] | sums["val"])
    identifiers = {record.identifier.rsplit("-", 1)[0] for record in first.records("train")}
    assert not identifiers & {record.identifier.rsplit("-", 1)[0] for record in later.records("train")}
    assert first.fingerprint("train") != later.fingerprint("train")
    assert first.fingerprint("test") == later.fingerprint("test")


def test_a_lab_test_sum_is_the_same_in_every_language():
    records = list(source_of("data.num_test=7").records("test"))
    assert len(records) == 35
    for start in range(0, 35, 5):
        assert [record.language for record in records[start : start + 5]] == list(CODES)
        assert len({record.meta["canonical"] for record in records[start : start + 5]}) == 1
    limited = list(source_of().records("test", limit=2))
    assert Counter(record.language for record in limited) == dict.fromkeys(CODES, 2)


def test_the_word_list_covers_all_lab_texts():
    source = source_of("data.num_train=50")
    pieces = set(source.words())
    for record in source.records("train"):
        if record.language != "latn":
            continue
        for word in re.findall(r" ?[^\s.?]+|[.?]", " " + record.question + completion(record, "bare")):
            assert word in pieces


def test_noise_is_in_training_traces_alone():
    source = source_of("data.num_train=100", "data.sums.noise=1.0")
    assert not any(extract_answer(record.solution) == record.answer for record in source.records("train"))
    assert all(extract_answer(record.solution) == record.answer for record in source.records("test"))


@pytest.mark.parametrize("name", [pytest.param("lingua", marks=pytest.mark.slow), "py3langid"])
def test_templates_give_right_solutions_in_their_language(name: str):
    source = source_of("data.num_train=80", data="templated_sums")
    judge = detector(name, LANGUAGES)
    for record in source.records("train"):
        total = None
        for left, sign, right, result in EQUATION.findall(record.solution):
            assert int(result) == int(left) + int(sign + right)
            assert total in (None, int(left))
            total = int(result)
        assert str(total) == record.answer
        assert answers_equal(extract_answer(record.solution), record.answer)
        assert "{" not in record.question + record.solution
        assert judge.detect(record.question) == record.language, record.question
        assert language_consistent(record.solution, record.language, judge), record.solution


def test_a_solution_in_english_is_not_consistent_elsewhere():
    source = source_of("data.num_train=20", data="templated_sums")
    judge = detector("py3langid", LANGUAGES)
    for record in source.records("train"):
        assert language_consistent(record.english_solution, "en", judge)
        if record.language != "en":
            assert not language_consistent(record.english_solution, record.language, judge)


def test_template_splits_are_disjoint_and_draws_repeat():
    source = source_of("data.num_train=100", data="templated_sums")
    sums = {split: {record.meta["canonical"] for record in source.records(split)} for split in ("train", "val", "test")}
    assert not sums["test"] & sums["train"]
    assert not sums["val"] & (sums["train"] | sums["test"])
    assert list(source.records("test")) == list(source_of(data="templated_sums").records("test"))
    assert canonical([7, 5, -2]) == "7+5-2"
    assert split_of([7, 5, -2]) == split_of((7, 5, -2))
    assert Counter(record.language for record in source.records("train")) == dict.fromkeys(LANGUAGES, 100)


def test_numbers_take_the_form_of_the_language():
    apple = {"one": "яблоко", "few": "яблока", "many": "яблок"}
    for number, form in {1: "one", 2: "few", 5: "many", 11: "many", 12: "many", 21: "one", 22: "few"}.items():
        assert plural(number, apple, "ru") == apple[form]
    assert plural(1, {"one": "apple", "many": "apples"}, "en") == "apple"
    assert plural(2, {"one": "apple", "many": "apples"}, "en") == "apples"


@pytest.mark.parametrize("data", ["lab_sums", "templated_sums"])
def test_prompt_and_completion_are_question_and_trace(data):
    record = next(iter(source_of(data=data).records("test")))
    assert build_prompt(record, shots=(), style="bare") == record.question
    assert completion(record, "bare") == f" {record.solution}"


@pytest.mark.parametrize(
    ("data", "override", "told"),
    [
        ("lab_sums", "data.shares=[1,2]", r"data.shares: got \[1.0, 2.0\], expected 5 numbers > 0"),
        ("lab_sums", "data.drift=[0,0,0,0,2]", r"data.drift: got .*expected 5 numbers in \[0, 1\]"),
        ("lab_sums", "data.drift=[1,0,0,0,0]", "expected 0: the others drift to it"),
        ("lab_sums", "data.languages=[latn,greek]", "data.languages: got 'greek'"),
        ("lab_sums", "data.num_test=0", "data.num_test: got 0, expected an integer >= 1"),
        ("lab_sums", "data.sums.max_steps=10", "data.sums.max_steps"),
        ("lab_sums", "prompt_style=native_cot", "data=lab_sums needs bare"),
        ("templated_sums", "data.languages=[en,fr]", "data.languages: got 'fr'"),
        ("templated_sums", "data.max_steps=5", "data.max_steps: got 5, expected an integer in"),
        ("templated_sums", "data.min_steps=3", "data.min_steps: got 3, expected at most data.max_steps = 2"),
        ("templated_sums", "data.first=-1", "data.first: got -1, expected an integer >= 0"),
    ],
)
def test_values_out_of_range_are_told(data, override, told):
    with pytest.raises(ConfigErrors, match=told):
        source_of(override, data=data)
