"""Measures of one sentence against loops, and what each trap of user interfaces does to them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.methods.tm import reference
from tests.tolerances import EXACT

from athlos.methods.tm import scores

WORDS = st.lists(st.sampled_from("abcd"), max_size=7)


@pytest.mark.parametrize(
    ("score", "bucket"), [(0, 0), (0.29, 0), (0.3, 1), (0.5, 2), (0.69, 2), (0.7, 3), (0.9, 4), (1, 4)]
)
def test_buckets_begin_at_their_lower_ends(score: float, bucket: int):
    assert scores.bucket_of(score) == bucket


@given(WORDS, WORDS)
def test_copy_rate_is_that_of_the_loops(output: list[str], memory: list[str]):
    value = scores.copy_rate(output, memory)
    if not output:
        assert math.isnan(value)
        return
    assert value == pytest.approx(reference.copy_rate(output, memory), abs=EXACT)


def test_copy_rate_clips_counts():
    assert scores.copy_rate(["a", "a"], ["a"]) == pytest.approx((1 / 2 + 0) / 2)
    assert scores.copy_rate(list("abcde"), list("abcde")) == 1
    assert scores.copy_rate(["x"], ["a"]) == 0


@given(WORDS, WORDS, WORDS)
def test_changed_f1_is_that_of_the_loops(output: list[str], gold: list[str], memory: list[str]):
    value = scores.changed_f1(output, gold, memory)
    if math.isnan(value):
        assert not reference.changed_f1(output, gold, memory)
        return
    assert value == pytest.approx(reference.changed_f1(output, gold, memory), abs=EXACT)


def test_a_copy_of_the_memory_changes_nothing():
    memory, gold = ["darf", "diese", "Seite", "löschen"], ["darf", "diese", "Seite", "nicht", "löschen"]
    assert scores.changed_f1(memory, gold, memory) == 0
    assert scores.changed_f1(gold, gold, memory) == 1
    assert math.isnan(scores.changed_f1(memory, memory, memory))


@pytest.mark.parametrize(
    ("source", "output", "expected"),
    [
        ("Delete %(name)s now", "%(name)s jetzt löschen", 1),
        ("Delete %(name)s now", "%(Name)s jetzt löschen", 0),
        ("Delete {x} and {x}", "{x} löschen", 0),
        ("<b>Save</b> 3 files", "3 Dateien <b>sichern</b>", 1),
        ("<b>Save</b> 3 files", "3 Dateien <b>sichern<b>", 0),
        ("Save 1.5 MB", "1,5 MB sichern", 0),
        ("%d of %s", "%s von %d", 1),
        ("100%% sure", "100%% sicher", 1),
    ],
)
def test_placeholders_are_those_of_the_source(source: str, output: str, expected: float):
    assert scores.placeholder_acc(output, source) == expected


def test_a_sentence_without_placeholders_says_nothing_about_them():
    assert math.isnan(scores.placeholder_acc("Sichern", "Save"))
    assert scores.placeholder_acc("Sichern {x}", "Save") == 0  # one that was made up


def test_a_negation_can_be_the_whole_difference():
    gold = "Der Benutzer darf diese Seite nicht löschen."
    assert scores.negation_edit("Der Benutzer darf diese Seite löschen.", gold, language="de") == 1
    assert scores.negation_edit("Die Seite darf nicht gelöscht werden.", gold, language="de") == 0
    assert scores.negation_edit("Le fichier n'est pas là", "Le fichier est là", language="fr") == 1
    assert math.isnan(scores.negation_edit("a", "b", language="cyrl"))


def test_numbers_of_the_reference():
    assert scores.number_edit("3 MB", "4 MB") == 1
    assert scores.number_edit("3 MB", "höchstens 3 MB") == 0
    assert math.isnan(scores.number_edit("a", "b"))


def test_terms_have_one_dominant_translation():
    pairs = [("Save", "Sichern")] * 4 + [("Save", "Speichern"), ("Page", "Seite"), ("Page", "Blatt")]
    pairs += [("the long term here", "zu lang"), ("Main Page", "Hauptseite")]
    terms = scores.glossary(pairs)
    assert terms == {"save": "sichern", "main page": "hauptseite"}
    assert scores.term_hits("Save the main page", "HAUPTSEITE sichern", terms=terms) == (2, 2)
    assert scores.term_hits("Save the main page", "Hauptseite speichern", terms=terms) == (1, 2)
    assert scores.term_hits("nothing known", "x", terms=terms) == (0, 0)


def test_characters_count_where_words_are_written_together():
    assert scores.words_of("保存 更改", "zh") == ["保", "存", "更", "改"]
    assert scores.words_of("保存 更改", "de") == ["保存", "更改"]
