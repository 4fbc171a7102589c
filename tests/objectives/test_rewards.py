"""Rewards: the truth table, languages, LaTeX, formats, and the formulas of the baselines."""

import itertools
import math

import pytest
from tests.tolerances import EXACT

from athlos.config.compose import run_config
from athlos.objectives.reward_config import ReasoningRewardConfig
from athlos.objectives.rewards import Judged, group_rewards, judge, trace_agreement
from athlos.text.language import detector

GERMAN = "Zuerst rechnen wir die beiden Zahlen zusammen und teilen das Ergebnis durch zwei."


def config_of(*overrides: str, reward: str = "conjunction") -> ReasoningRewardConfig:
    config = run_config(["train.max_steps=0", f"reward={reward}", *overrides]).reward
    assert isinstance(config, ReasoningRewardConfig)
    return config


def judged(response: str, *overrides: str, language: str = "de", answer: str = "12", truncated: bool = False) -> Judged:
    return judge(
        response, language=language, answer=answer, detector=detector("script", ["de", "en", "th", "zh"]),
        config=config_of(*overrides), truncated=truncated,
    )  # fmt: skip


def verdict(lc: bool = True, form: bool = True, acc: bool = True, language: str | None = "de", agreement: float = 0):
    return Judged(lc=lc, format=form, acc=acc, language=language, agreement=agreement)


def rewards(group: list[Judged], *overrides: str, reward: str = "conjunction", progress: float = 0.0) -> list[float]:
    return group_rewards(group, language="de", config=config_of(*overrides, reward=reward), progress=progress)


def test_only_one_row_of_the_truth_table_is_rewarded() -> None:
    table = list(itertools.product([False, True], repeat=3))
    assert rewards([verdict(*row) for row in table]) == [0.0] * 7 + [1.0]


@pytest.mark.parametrize(("part", "place"), [("lc", 0), ("format", 1), ("accuracy", 2)])
def test_a_part_that_is_off_always_holds(part: str, place: int) -> None:
    table = list(itertools.product([False, True], repeat=3))
    found = rewards([verdict(*row) for row in table], f"reward.{part}=false")
    assert found == [float(all(row[:place] + row[place + 1 :])) for row in table]


def test_a_right_german_answer_holds_in_all_parts() -> None:
    found = judged(f"<think>{GERMAN}</think> Die Antwort ist \\boxed{{12}}.")
    assert (found.lc, found.format, found.acc, found.language) == (True, True, True, "de")


@pytest.mark.parametrize(
    "formula", ["$x$", "$$\\int the answer is here and there$$", "\\(a\\)", "\\[the sum of all\\]"]
)
def test_language_does_not_depend_on_latex(formula: str) -> None:
    assert judged(f"{GERMAN} {formula} </think> 12").lc
    assert not judged(f"First we add both numbers and divide the result by two. {formula} </think> 12").lc


def test_a_text_of_latex_alone_or_of_fifteen_letters_passes() -> None:
    assert judged("\\[ x = 12 \\text{ and all of this is English text} \\]").lc
    assert judged("a" * 15 + " 12").lc
    assert not judged("the answer is right here: 12").lc


def test_thought_and_answer_are_checked_apart() -> None:
    english = "The answer to this question is simply twelve."
    assert not judged(f"{english}</think> {GERMAN} 12").lc
    assert not judged(f"{GERMAN}</think> {english} 12").lc
    assert judged(f"{GERMAN}</think> {GERMAN} 12").lc


@pytest.mark.parametrize(
    ("response", "rule", "expected"),
    [
        ("denk</think> 12", "think", True),
        ("denk 12", "think", False),
        ("a</think>b</think> 12", "think", False),
        ("denk</think>  ", "think", False),
        ("also \\boxed{12}", "boxed", True),
        ("\\boxed{12}</think> also 12", "boxed", False),
        ("also \\boxed{12", "boxed", False),
        ("also 12", "answer", True),
        ("also zwölf", "answer", False),
    ],
)
def test_formats(response: str, rule: str, expected: bool) -> None:
    assert judged(response, f"reward.format_rule={rule}").format is expected


def test_a_response_that_was_cut_earns_nothing() -> None:
    found = judged(f"{GERMAN}</think> 12", truncated=True)
    assert (found.lc, found.format, found.acc) == (True, False, False)
    assert rewards([found]) == [0.0]


def test_short_responses_are_not_well_formed_where_a_length_is_asked_for() -> None:
    response = f"{GERMAN}</think> 12"
    assert judged(response, f"reward.min_chars={len(response)}").format
    assert not judged(response, f"reward.min_chars={len(response) + 1}").format


def test_the_answer_stands_behind_the_thought_and_the_last_one_counts() -> None:
    assert not judged("12</think> also 13").acc
    assert not judged("\\boxed{12}</think> also 13").acc  # a box in the thought is no answer
    assert judged("\\boxed{13}</think> also 12").acc
    assert judged("11</think> erst 13, dann 12").acc
    assert judged("</think> ๑๒").acc


def test_chinese_variants_are_one_language() -> None:
    text = "首先我们把两个数加起来，然后把结果除以二，所以答案是十二。"
    assert judged(text + "</think> 12", language="zh-cn").lc
    assert judged(text + "</think> 12", language="zh-tw").lc


def test_penalty_for_another_language() -> None:
    table = [verdict(lc, True, acc) for lc in (False, True) for acc in (False, True)]
    assert rewards(table, reward="lc_penalty") == [-1.0, -1.0, 0.0, 1.0]
    agreeing = [verdict(True, True, True, agreement=0.25)]
    assert rewards(agreeing, reward="m_thinker") == [1.25]


def test_the_weighted_rule() -> None:
    table = [verdict(lc, True, acc) for lc in (False, True) for acc in (False, True)]
    found = rewards(table, reward="weighted")
    assert found == pytest.approx([0.0, 0.9, 0.1, 1.0], abs=EXACT)


def test_grpo_looks_at_accuracy_alone() -> None:
    assert rewards([verdict(False, False, True), verdict(True, True, False)], reward="accuracy") == [1.0, 0.0]


@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 1.0])
def test_adamame_is_its_formula(progress: float) -> None:
    group = [verdict(language="de"), verdict(language="en"), verdict(language="en"), verdict(acc=False, language="en")]
    c = 0.5 * (1 + math.cos(math.pi * progress))
    bonus = 1 + 2 * max(1 - c, 0.1)
    expected = [(1 + (4 / 1 - 1) * c) * bonus, *[1 + (4 / 3 - 1) * c] * 2, 0.0]
    assert rewards(group, reward="adamame", progress=progress) == pytest.approx(expected, abs=EXACT)


def test_traces_agree_by_their_numbers() -> None:
    assert trace_agreement("3 und 4 sind 7", "3 plus 4 is 7") == 1.0
    assert trace_agreement("๓ 4", "3 plus 4 is 7") == pytest.approx(0.8, abs=EXACT)
    assert trace_agreement("keine Zahl", "3") == 0.0
    assert trace_agreement("keine", "none") == 0.0
