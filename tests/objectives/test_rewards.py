"""Rewards: the truth table, languages, LaTeX, formats, and the formulas of the baselines."""

import itertools
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.tolerances import EXACT

from athlos.config.compose import run_config, sweep_configs
from athlos.data.records import MathRecord, QuestionRecord, Record
from athlos.errors import ConfigError, DataError
from athlos.generation.rollouts import PolicyPrompt, Rollouts
from athlos.objectives.reward_config import ReasoningRewardConfig
from athlos.objectives.rewards import Judged, build_reward, group_rewards, judge, trace_agreement
from athlos.parts import Reward, Scores
from athlos.text.language import detector

GERMAN = "Zuerst rechnen wir die beiden Zahlen zusammen und teilen das Ergebnis durch zwei."


def config_of(*overrides: str, reward: str = "conjunction") -> ReasoningRewardConfig:
    config = run_config(["train.max_steps=0", f"reward={reward}", *overrides]).reward
    assert isinstance(config, ReasoningRewardConfig)
    return config


def judged(response: str, *overrides: str, language: str = "de", answer: str = "12", truncated: bool = False) -> Judged:
    return judge(
        response,
        language=language,
        answer=answer,
        detector=detector("py3langid", ["de", "en", "th", "zh"]),
        config=config_of(*overrides),
        truncated=truncated,
    )


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


# The parts


def rollouts_of(texts: list[str], *, group_size: int, truncated: Sequence[int] = ()) -> Rollouts:
    empty = torch.zeros(len(texts), 0, dtype=torch.int64)
    return Rollouts(
        prompt_ids=empty[::group_size],
        prompt_mask=empty[::group_size],
        response_ids=empty,
        response_mask=empty,
        log_probs=empty.float(),
        texts=texts,
        group_size=group_size,
        truncated=torch.tensor([row in truncated for row in range(len(texts))]),
    )


def prepared(records: list[Record], *overrides: str) -> Reward:
    """The reward of a run, prepared for a training split of these records."""
    config = run_config(["train.max_steps=0", "data=traces", *overrides])
    reward = build_reward(config.reward)
    context: Any = SimpleNamespace(config=config, data=SimpleNamespace(records=lambda split: iter(records)))
    reward.prepare(context=context)
    return reward


SUMS: list[Record] = [
    MathRecord(identifier="1", language="de", question="?", answer="12"),
    MathRecord(identifier="2", language="en", question="?", answer="7"),
]
ENGLISH = "First we add both of the numbers, and then we divide the result by two."
TEXTS = [f"{GERMAN} 12", f"{ENGLISH} 12", f"{GERMAN} 13", f"{ENGLISH} 7", f"{GERMAN} 7", f"{ENGLISH} 12"]
"""Three responses to each of the two."""


def scored(
    reward: Reward, records: list[Record] = SUMS, texts: list[str] = TEXTS, *, cut: Sequence[int] = ()
) -> Scores:
    prompts = [PolicyPrompt(record=record, text="?") for record in records]
    rollouts = rollouts_of(texts, group_size=len(texts) // len(records), truncated=cut)
    return reward.scores(prompts, rollouts, progress=0.0)


def test_responses_are_judged_by_the_record_of_their_own_prompt() -> None:
    found = scored(prepared(SUMS, "reward=conjunction", "reward.format_rule=answer"), cut=[5])
    assert found.rewards_PG.tolist() == [[1, 0, 0], [1, 0, 0]]
    assert found.is_right_PG.tolist() == [[True, False, False], [True, False, False]]
    assert found.parts["lc"].tolist() == [[1, 0, 1], [1, 0, 1]]
    assert found.parts["acc"].tolist() == [[1, 1, 0], [1, 1, 0]]
    assert found.parts["format"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_a_sum_adds_its_parts_up_by_their_weights() -> None:
    """Nine tenths of accuracy and one of language are the weighted rule."""
    parts = [
        "+reward@reward.parts.language=conjunction",
        "reward.parts.language.accuracy=false",
        "reward.parts.language.format=false",
        "reward.parts.all_right.format_rule=answer",
    ]
    weights = ["+reward.weights.right=.9", "+reward.weights.language=.1", "+reward.weights.all_right=-2"]
    found = scored(prepared(SUMS, "reward=sum", *parts, *weights), cut=[3])
    weighted = scored(prepared(SUMS, "reward=weighted", "reward.format=false"), cut=[3])
    conjunction = scored(prepared(SUMS, "reward=conjunction", "reward.format_rule=answer"), cut=[3])
    expected = weighted.rewards_PG - 2 * conjunction.rewards_PG
    torch.testing.assert_close(found.rewards_PG, expected, rtol=0, atol=EXACT)
    assert found.is_right_PG.tolist() == conjunction.is_right_PG.tolist()
    assert found.parts["train/reward/right"].tolist() == weighted.parts["acc"].tolist()
    assert set(found.parts) == {f"train/reward/{name}" for name in ("right", "all_right", "language")}
    plain = scored(prepared(SUMS, "reward=sum", "reward.parts.all_right.format_rule=answer"))
    assert plain.rewards_PG.tolist() == [[2, 1, 0], [2, 1, 0]]


def test_exact_match_asks_for_a_whole_gold_answer() -> None:
    records: list[Record] = [
        QuestionRecord(identifier="1", question="?", answers=["Marie Curie", "Curie"]),
        QuestionRecord(identifier="2", language="de", question="?", answers=["Größe"]),
    ]
    found = scored(prepared(records, "reward=exact_match"), records, [" the curie.", "Pierre Curie", "größe", "Größe"])
    assert found.rewards_PG.tolist() == found.parts["em"].tolist() == [[1, 0], [1, 1]]
    cut = scored(prepared(records, "reward=exact_match"), records, ["Curie", "Curie", "Größe", "Größe"], cut=[1, 2])
    assert cut.rewards_PG.tolist() == [[1, 0], [0, 1]]
    assert not scored(prepared(records, "reward=none"), records, ["Curie"] * 4).rewards_PG.any()


@pytest.mark.parametrize(("reward", "kind"), [("conjunction", "MathRecord"), ("exact_match", "QuestionRecord")])
def test_records_that_a_reward_cannot_judge_are_told_before_training(reward: str, kind: str) -> None:
    records = [*SUMS, QuestionRecord(identifier="3", question="?", answers=["12"])]
    with pytest.raises(DataError, match=rf"reward={reward}|reward=reasoning") as caught:
        prepared(records, f"reward={reward}")
    assert f"judges {kind}s; split 'train' of data=traces has" in str(caught.value)


# The choice


LANG = ("objective=policy", "train.max_steps=0")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["method=lang"], {"rule": "conjunction", "lc": True, "min_chars": 0}),
        (["method=lang/grpo"], {"rule": "conjunction", "lc": False, "format": False}),
        (["method=lang/lc_grpo"], {"rule": "lc_penalty", "lc": True}),
        (["method=lang/m_thinker"], {"rule": "m_thinker", "min_chars": 1000}),
        (["method=lang/adamame"], {"rule": "adamame"}),
        (["method=lang/constant"], {"rule": "conjunction", "lc": True}),
        (["method=lang/questa"], {"rule": "conjunction", "lc": True}),
        (["method=lang/grpo", "reward.lc=true"], {"rule": "conjunction", "lc": True, "format": False}),
        (["method=lang/grpo", "reward=weighted"], {"rule": "weighted", "lc": True}),
        (["experiment=lang/lab"], {"rule": "conjunction", "format_rule": "answer", "language_detector": "lab"}),
        (["experiment=lang/lab", "method=lang/adamame"], {"rule": "adamame", "format_rule": "answer"}),
    ],
)
def test_a_method_brings_its_reward_and_the_command_line_has_the_last_word(
    overrides: list[str], expected: dict[str, Any]
) -> None:
    reward = run_config([*LANG, *overrides]).reward
    assert {name: vars(reward)[name] for name in expected} == expected


def test_a_sweep_over_methods_is_one_over_whole_recipes() -> None:
    configs = sweep_configs(["experiment=lang/lab", "method=lang,lang/grpo,lang/m_thinker", "reward.min_chars=3"])
    assert [vars(config.reward)["lc"] for config in configs] == [True, False, True]
    assert [vars(config.reward)["rule"] for config in configs] == ["conjunction", "conjunction", "m_thinker"]
    assert {vars(config.reward)["min_chars"] for config in configs} == {3}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=lang", "objective=policy", "reward=none", "train.checkpoint_every=64"], "reward: got none, but this"),
        (["reward=conjunction"], "reward: this method makes no responses to score; use reward=none"),
        ([*LANG, "reward=conj"], "reward: got 'conj'"),
        ([*LANG, "reward=conjunction", "reward.language_detector=labb"], "did you mean 'lab'"),
        ([*LANG, "reward=conjunction", "reward.language_detector=script"], "it is 'py3langid' now"),
        ([*LANG, "reward=sum", "reward.parts.right.accuracy=false"], "reward.parts.right: lc, format and accuracy are"),
        ([*LANG, "reward=sum", "+reward.parts.right.lcc=true"], "reward.parts.right.lcc: unknown key"),
        ([*LANG, "reward=sum", "+reward.weights.righ=2"], "reward.weights.righ: no part has this name"),
        ([*LANG, "reward=sum", "+reward.weights.right=nan"], "reward.weights.right: got nan, expected a finite number"),
        ([*LANG, "reward=sum", "+reward@reward.parts.none=none"], "reward.parts.none: got no reward, expected one"),
        ([*LANG, "reward=sum", "~reward.parts.right", "~reward.parts.all_right"], "reward.parts: got none, expected"),
    ],
)
def test_a_reward_that_makes_no_sense_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run_config(overrides)
    assert message in str(caught.value)
