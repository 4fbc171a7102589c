"""Sums: right, parallel, apart by split, and read back from any text."""

import random
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.lab.fresh_process import printed
from tests.machine_speed import slowness

from athlos.errors import ConfigError, DataError
from athlos.lab.languages import CODES, Languages
from athlos.lab.sums import (
    MAX_NUMBER,
    SPLITS,
    Sum,
    Sums,
    SumsConfig,
    check,
    corrupt,
    hint,
    hint_units,
    render,
    render_trace,
    sample_lines,
    translate,
)

LANGUAGES = Languages(seed=5)
SENTENCES_PER_SECOND = 50_000
ITEMS = list(Sums(SumsConfig()).items("train", 300))


def total_of(item: Sum) -> int:
    """What the holder has at the end, from the sentences alone."""
    total = 0
    for clause in item.question[:-1]:
        assert clause.object is not None
        count = clause.object.count
        assert count is not None
        receives = any(whom.head == item.holder for _, whom in clause.adjuncts)
        gains = clause.verb in ("has", "finds", "buys", "makes") or receives
        total += count if gains else -count
    return total


@pytest.mark.parametrize("split", SPLITS)
def test_sums_are_right_and_in_range(split: str) -> None:
    config = SumsConfig(max_start=99, max_operand=99)
    for item in Sums(config).items(split, 300):
        assert item.answer == total_of(item) == item.steps[-1].result
        for step, after in zip(item.steps, item.steps[1:], strict=False):
            assert step.result == after.left
        for step in item.steps:
            assert step.result == (step.left + step.right if step.sign == "+" else step.left - step.right)
            assert 0 <= step.result <= MAX_NUMBER
            assert 1 <= step.right <= 99


def test_difficulty_and_size_are_dials() -> None:
    items = list(Sums(SumsConfig(min_steps=2, max_steps=3, max_start=5, max_operand=2)).items("train", 200))
    assert {item.difficulty for item in items} == {2, 3}
    assert {step.right for item in items for step in item.steps} == {1, 2}
    assert {item.steps[0].left for item in items} == {1, 2, 3, 4, 5}


def test_no_sum_is_in_two_splits_whatever_the_seed() -> None:
    seen = {
        split: {
            item.canonical for seed in (0, 1) for item in Sums(SumsConfig(seed=seed, max_steps=2)).items(split, 400)
        }
        for split in SPLITS
    }
    assert not seen["train"] & seen["val"]
    assert not seen["train"] & seen["test"]
    assert not seen["val"] & seen["test"]
    assert all(len(canonical) > 100 for canonical in seen.values())


@pytest.mark.parametrize("source", CODES)
@pytest.mark.parametrize("target", CODES)
def test_the_oracle_translation_is_the_rendering(source: str, target: str) -> None:
    for item in ITEMS[:40]:
        for said, meant in zip(render(item, LANGUAGES[source]), render(item, LANGUAGES[target]), strict=True):
            assert translate(said, LANGUAGES, source=source, target=target) == meant
            assert LANGUAGES.identify(meant) == target


def test_translation_refuses_what_is_no_trace() -> None:
    with pytest.raises(DataError, match="empty text"):
        translate("", LANGUAGES, source="latn", target="thai")
    with pytest.raises(DataError, match="one equation and a full stop"):
        translate("1 + 1 = 2", LANGUAGES, source="latn", target="thai")


@pytest.mark.parametrize("code", CODES)
def test_a_right_trace_checks_and_is_short(code: str) -> None:
    for item in ITEMS:
        _, trace = render(item, LANGUAGES[code])
        assert check(trace, item) == {"answer": item.answer, "steps_valid": [True] * item.difficulty}
        units = hint_units(trace, LANGUAGES[code], unit="token")
        assert sum(max(1, sum(character in "0123456789" for character in unit)) for unit in units) <= 44


@pytest.mark.parametrize("code", CODES)
def test_a_corrupt_trace_has_one_wrong_step_and_a_wrong_answer(code: str) -> None:
    for number, item in enumerate(ITEMS):
        wrong = corrupt(render_trace(item, LANGUAGES[code]), rng=random.Random(number))
        found = check(wrong, item)
        assert found["answer"] is not None
        assert found["answer"] != item.answer
        assert 0 <= found["answer"] <= MAX_NUMBER
        assert len(found["steps_valid"]) == item.difficulty
        assert not found["steps_valid"][-1]
        assert found["steps_valid"] == sorted(found["steps_valid"], reverse=True)


def test_corruption_reaches_the_full_range() -> None:
    steps = [(0, "+", 99, 99), (99, "-", 99, 0)]
    trace = (
        " ".join(f"{left} {sign} {right} = {result} soko." for left, sign, right, result in steps)
        + " Yeka bidu 0 soko."
    )
    for seed in range(20):
        assert corrupt(trace, rng=random.Random(seed)).startswith("0 + 99 = 99 soko. 99 - 99 = ")
    assert corrupt("no equation", rng=random.Random(0)) == "no equation"


def test_noise_is_the_share_of_corrupt_traces_and_the_same_in_all_languages() -> None:
    sums = Sums(SumsConfig(noise=0.3))
    wrong = {
        code: [sums.training_trace(item, LANGUAGES[code]) != render_trace(item, LANGUAGES[code]) for item in ITEMS]
        for code in ("latn", "hani")
    }
    assert wrong["latn"] == wrong["hani"]
    # Five standard deviations of a binomial share over 300.
    assert abs(sum(wrong["latn"]) / 300 - 0.3) < 5 * (0.3 * 0.7 / 300) ** 0.5
    for item in ITEMS[:50]:
        traces = [sums.training_trace(item, LANGUAGES[code]) for code in ("latn", "hani")]
        assert translate(traces[0], LANGUAGES, source="latn", target="hani") == traces[1]


@given(text=st.text(max_size=80))
def test_any_text_is_checked(text: str) -> None:
    found = check(text, ITEMS[0])
    assert found["answer"] is None or found["answer"] >= 0
    assert not any(found["steps_valid"])


@pytest.mark.parametrize(
    "text", ["9" * 10_000, "9" * 10_000 + ".", "1 + 1 = " * 5_000, "." * 10_000, " + ", "-1.", "= 12"]
)
def test_hostile_text_has_no_answer(text: str) -> None:
    started = time.process_time()
    assert check(text, ITEMS[0])["answer"] is None
    assert time.process_time() - started < 2


@pytest.mark.parametrize("code", CODES)
def test_broken_traces(code: str) -> None:
    language = LANGUAGES[code]
    item = next(item for item in ITEMS if item.difficulty == 3)
    trace = render_trace(item, language)
    steps = hint_units(trace, language, unit="step")
    assert check("".join(steps[:-1]), item) == {"answer": None, "steps_valid": [True] * 3}
    assert check(trace[:-1], item)["answer"] is None
    assert check("".join([*steps[1:]]), item)["steps_valid"] == [False, False]
    assert check("".join([steps[0], *steps]), item)["steps_valid"] == [True, False, False, False]
    assert check(steps[-1], item) == {"answer": item.answer, "steps_valid": []}
    other = LANGUAGES["latn" if code != "latn" else "thai"]
    assert check(render_trace(item, other), item)["answer"] == item.answer


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("unit", ["step", "token"])
def test_hints_are_prefixes_of_floor_length(code: str, unit: str) -> None:
    language = LANGUAGES[code]
    for item in ITEMS[:30]:
        trace = render_trace(item, language)
        units = hint_units(trace, language, unit=unit)
        assert "".join(units) == trace
        assert len(units) == item.difficulty + 1 if unit == "step" else len(units) > 6 * item.difficulty
        for ratio in (0.0, 0.3, 0.5, 1.0):
            given_part = hint(trace, language, ratio=ratio, unit=unit)
            assert trace.startswith(given_part)
            assert len(hint_units(given_part, language, unit=unit)) == int(ratio * len(units))
        stripped = hint(trace, language, ratio=1.0, unit=unit, strip_answer=True)
        assert stripped.endswith("=")
        assert check(stripped, item)["steps_valid"] == [True] * (item.difficulty - 1)


def test_an_unknown_hint_unit_is_refused() -> None:
    with pytest.raises(ConfigError, match="got 'word', expected 'step' or 'token'"):
        hint("1", LANGUAGES["latn"], ratio=0.5, unit="word")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("min_steps", 0),
        ("min_steps", 5),
        ("max_steps", 10),
        ("max_start", 0),
        ("max_start", 100),
        ("max_operand", 0),
        ("max_operand", 100),
        ("num_names", 1),
        ("num_things", 37),
        ("noise", 1.1),
        ("val_share", 0.0),
        ("test_share", 0.95),
    ],
)
def test_values_out_of_range_are_refused(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=key):
        Sums(replace(SumsConfig(), **{key: value}))


def test_a_split_without_sums_is_refused() -> None:
    with pytest.raises(ConfigError, match="few sums that none falls into 'test'"):
        Sums(SumsConfig(max_start=1, max_operand=1, max_steps=1, test_share=0.0001)).item("test", 0)


def test_the_same_in_every_process() -> None:
    code = (
        "from athlos.lab.sums import *; from athlos.lab.languages import Languages; one = Languages(seed=5)['grek'];"
        "print([render(item, one) for item in Sums(SumsConfig()).items('test', 20)])"
    )
    here = str([render(item, LANGUAGES["grek"]) for item in Sums(SumsConfig()).items("test", 20)]) + "\n"
    assert printed(code) == [here, here]
    assert list(Sums(SumsConfig()).items("test", 1, start=7)) == [Sums(SumsConfig()).item("test", 7)]


def test_sentences_are_made_fast() -> None:
    sums, seconds = Sums(SumsConfig()), []
    for attempt in range(3):
        started, sentences = time.process_time(), 0
        for item in sums.items("train", 1000, start=1000 * attempt):
            render(item, LANGUAGES["thai"])
            sentences += len(item.question) + item.difficulty + 1
        seconds.append((time.process_time() - started) / sentences)
    assert slowness() / min(seconds) >= SENTENCES_PER_SECOND


def test_samples_name_every_language() -> None:
    lines = sample_lines(LANGUAGES, SumsConfig(), count=1)
    assert [kind.split()[-1] for kind, _, _ in lines] == list(CODES)
    assert all(" = " in text and " = " in meaning for _, text, meaning in lines)
