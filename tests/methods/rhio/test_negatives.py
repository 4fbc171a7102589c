"""Negatives made by rule, and the filters: each reason, its boundary, and the order of reasons."""

import random

import pytest

from athlos.methods.rhio.config import FilterConfig
from athlos.methods.rhio.negatives import Drop, dropped, entity_swap, relation_perturb

FILTERS = FilterConfig(max_overlap=0.9, min_distinct=0.3, less_faithful=True)
REFERENCE = "Ada Lovelace wrote to Babbage in 1843. She lived in London."
DOCUMENTS = ["Ada Lovelace met Mary Somerville. In 1843 she wrote to Babbage.", "Babbage died in 1871 in London."]
GOOD = {"faith": 0.0, "reference_faith": 1.0, "language": "en", "filters": FILTERS}


def test_a_name_is_replaced_by_another_of_the_documents_and_a_number_by_a_number():
    found = {entity_swap(REFERENCE, DOCUMENTS, language="en", rng=random.Random(seed)) for seed in range(20)}
    assert REFERENCE not in found
    assert "Ada Lovelace wrote to Babbage in 1871. She lived in London." in found
    assert "Ada Lovelace wrote to Babbage in 1843. She lived in Mary Somerville." in found
    assert not any("in Mary Somerville. She" in text for text in found), "no name stands for a number"


def test_without_another_name_the_reference_stays():
    assert entity_swap("Bo is here.", ["Bo was there."], language="en", rng=random.Random(0)) == "Bo is here."


def test_a_swapped_text_with_signs_of_patterns():
    found = entity_swap("C\\1 met Bo.", ["Al saw Bo."], language="xx", rng=random.Random(1))
    assert "Al" in found


@pytest.mark.parametrize(
    ("text", "turned"),
    [
        ("Ada Lovelace wrote to Babbage.", "Babbage wrote to Ada Lovelace."),
        ("The dog of Bo met Al. Nobody came.", "The dog of Al met Bo. Nobody came."),
        ("Bo knows Bo.", "Bo knows Bo."),
        ("nobody came.", "nobody came."),
    ],
)
def test_first_and_last_name_of_a_sentence_are_exchanged(text, turned):
    assert relation_perturb(text, language="en") == turned


def test_names_of_the_lab_are_exchanged_too():
    assert relation_perturb("wowo ji Paqa viwe Laza.", language="latn") == "wowo ji Laza viwe Paqa."


@pytest.mark.parametrize(
    ("text", "changes", "reason"),
    [
        ("She wrote to nobody at all.", {}, None),
        ("", {}, Drop.degenerate),
        ("no no no no no no no no", {}, Drop.degenerate),
        ("I do not know.", {"faith": float("nan")}, Drop.degenerate),
        (REFERENCE, {}, Drop.copy),
        (REFERENCE.replace("She", "Ada"), {}, Drop.copy),
        (REFERENCE.replace("in 1843", "of her long dream"), {}, None),
        (REFERENCE.replace("1843", "1871"), {"by_rule": True}, None),
        (REFERENCE, {"by_rule": True}, Drop.copy),
        ("She wrote to nobody at all.", {"faith": 1.0}, Drop.faithful),
        ("She wrote to nobody at all.", {"faith": 0.5, "reference_faith": 0.5}, Drop.faithful),
        ("She wrote to nobody at all.", {"faith": 0.5, "reference_faith": 0.6}, None),
        ("no no no no no no no no", {"faith": 1.0}, Drop.degenerate),
    ],
)
def test_each_reason(text, changes, reason):
    assert dropped(text, REFERENCE, **{**GOOD, **changes}) is reason


def test_faithful_negatives_stay_where_they_are_wanted():
    filters = FilterConfig(max_overlap=0.9, min_distinct=0.3, less_faithful=False)
    assert dropped("She wrote to nobody.", REFERENCE, **{**GOOD, "filters": filters, "faith": 1.0}) is None
