"""What is written for each region, what is kept of it, and what stops the run.

Sabotages that were tried and that these tests catch: strategies swapped, the loss on the rival's denial, a filter that
keeps what does not cover the gold, test facts that pass.
"""

import dataclasses
import json
from typing import Any

import pytest
from tests.methods.kmkc.made import Says, profile, question

from athlos.data.records import QuestionRecord
from athlos.data.regions import Region
from athlos.errors import DataError
from athlos.methods.kmkc.augment import (
    NUM_VARIANTS,
    STRATEGY_OF,
    Variant,
    check_seeds,
    filtered,
    json_object,
    model_variants,
    rival,
    template_variants,
)

SEED = question()
TEST = QuestionRecord(
    identifier="test-1",
    question="What is the capital of Chile?",
    answers=["Santiago"],
    meta={"fact": "cl-capital", "statements": ["The capital of Chile is Santiago."]},
)
ASKED = ("What is the capital of France?", " Paris")


def pairs(variants: list[Variant]) -> list[tuple[str, str]]:
    return [(variant.prompt, variant.completion) for variant in variants]


def test_a_harder_question_for_what_is_mastered() -> None:
    made = template_variants(SEED, "expansion", wrong=None, style="bare")
    assert pairs(made) == [("What is the capital of the country of the Louvre?", " Paris")]
    plain = template_variants(question(expansions=[]), "expansion", wrong=None, style="bare")
    assert pairs(plain) == [("", "Paris is the capital of France.")]


def test_the_rival_beside_the_right_answer_for_what_is_confused() -> None:
    made = template_variants(SEED, "disambiguation", wrong="Lyon", style="bare")
    assert pairs(made) == [
        ("The capital of France is not Lyon. What is the capital of France?", " Paris"),
        ("", "The capital of France is Paris. The capital of France is not Lyon."),
    ]
    assert pairs(template_variants(SEED, "disambiguation", wrong=None, style="bare"))[0] == ASKED


def test_basics_first_for_what_is_missing() -> None:
    made = template_variants(SEED, "foundation", wrong="Lyon", style="bare")
    assert pairs(made) == [("", "France lies in Europe. The capital of France is Paris."), ASKED]


def test_each_strategy_writes_its_number_of_variants() -> None:
    assert set(STRATEGY_OF) == set(Region)
    for strategy, number in NUM_VARIANTS.items():
        assert len(template_variants(SEED, strategy, wrong="Lyon", style="bare")) == number


def test_data_that_tell_nothing_of_their_facts_have_no_templates() -> None:
    with pytest.raises(DataError, match=r"'x' brings no statement of its fact; use construct\.augmenter=model"):
        template_variants(
            QuestionRecord(identifier="x", question="?", answers=["a"]), "expansion", wrong=None, style="bare"
        )


def test_the_rival_is_the_commonest_wrong_answer_that_says_something() -> None:
    assert rival(profile(acc=0.5, omega=0.25)) == "Rival"
    assert rival(profile(acc=1.0)) is None
    silent = dataclasses.replace(profile(acc=0.5, omega=0.25), answers=["gold"] * 8 + [""] * 8, texts=["Gold"] * 16)
    assert rival(silent) is None


def test_a_variant_must_cover_the_gold_and_is_kept_with_its_result() -> None:
    good = Variant(seed="fr-capital", strategy="plain", prompt="?", completion=" It is Paris, on the Seine.")
    bad = dataclasses.replace(good, completion=" It is Lyon.")
    unparsed = dataclasses.replace(good, result="unparsed")
    found = filtered([good, bad, unparsed], seeds={"fr-capital": SEED}, tests=[TEST])
    assert [variant.result for variant in found] == ["kept", "not covered", "unparsed"]


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ("What is the capital of Chile? What is the capital of France?", " Paris"),
        ("", "The capital of Chile is Santiago. The capital of France is Paris."),
    ],
    ids=["a test question", "a test fact"],
)
def test_an_augmentation_that_holds_a_test_item_stops_the_run(prompt: str, completion: str) -> None:
    variant = Variant(seed="fr-capital", strategy="plain", prompt=prompt, completion=completion)
    with pytest.raises(DataError, match="question 'fr-capital' repeats test item 'test-1'"):
        list(filtered([variant], seeds={"fr-capital": SEED}, tests=[TEST]))


def test_a_training_question_about_a_test_fact_stops_the_run() -> None:
    check_seeds([SEED], [TEST])
    with pytest.raises(DataError, match="'fr-capital' asks what test item 'test-1' asks"):
        check_seeds([question(fact="cl-capital")], [TEST])
    same_words = dataclasses.replace(SEED, question=TEST.question, meta={})
    with pytest.raises(DataError, match="asks what test item 'test-1' asks"):
        check_seeds([same_words], [TEST])


def test_a_model_writes_variants_in_json() -> None:
    written = json.dumps({"question": "Which city governs France?", "answer": "Paris"})
    engine: Any = Says(f"Here: {written} Good luck!", "no idea", '{"question": "", "answer": "Paris"}')
    seeds = [(SEED, "foundation", "Lyon"), (SEED, "expansion", None)]
    made = model_variants(engine, seeds, style="bare", seed=1)
    assert [variant.result for variant in made] == ["kept", "unparsed", "unparsed"]
    assert pairs(made)[0] == ("Which city governs France?", " Paris")
    assert len({prompt.seed for prompt in engine.asked}) == 3
    model_variants(engine, [(SEED, "disambiguation", "Lyon")], style="bare", seed=1)
    assert "the wrong answer 'Lyon'" in engine.asked[-1].text


@pytest.mark.parametrize("text", ["", "none", "{", "[1]", "}{", '{"a": 1'])
def test_a_reply_without_an_object_gives_none(text: str) -> None:
    assert json_object(text) == {}
