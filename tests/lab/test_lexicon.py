"""Lexicon: one word a meaning, one meaning a word, and running text that is cut in one way."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athlos.errors import ConfigError
from athlos.lab.lexicon import CONCEPTS, NUM_NAMES, Category, Lexicon, category, is_name, name
from athlos.lab.scripts import SCRIPTS

LEXICONS = {code: Lexicon(script, num_spare=50, rng=random.Random(code)) for code, script in SCRIPTS.items()}
ALL_CONCEPTS = (*CONCEPTS, *(f"spare-{index}" for index in range(50)), *(name(number) for number in range(NUM_NAMES)))


@pytest.mark.parametrize("code", SCRIPTS)
def test_words_and_meanings_are_one_to_one(code: str) -> None:
    lexicon = LEXICONS[code]
    words = [lexicon.word(concept) for concept in ALL_CONCEPTS]
    assert len(set(words)) == len(words)
    assert [lexicon.meaning(word) for word in words] == list(ALL_CONCEPTS)


@pytest.mark.parametrize("code", SCRIPTS)
def test_names_keep_their_syllable_numbers(code: str) -> None:
    syllables = LEXICONS[code].syllabary.names
    assert LEXICONS[code].word(name(41)).lower() == syllables[1] + syllables[1]
    assert is_name(name(41))
    assert not is_name("apple")


@pytest.mark.parametrize("code", SCRIPTS)
@given(concepts=st.lists(st.sampled_from(ALL_CONCEPTS), max_size=12))
def test_words_run_together_are_cut_as_they_were_joined(code: str, concepts: list[str]) -> None:
    words = [LEXICONS[code].word(concept) for concept in concepts]
    assert LEXICONS[code].cut("".join(words)) == words


@pytest.mark.parametrize("code", SCRIPTS)
@given(run=st.text(max_size=40))
def test_cut_loses_no_character_of_any_text(code: str, run: str) -> None:
    assert "".join(LEXICONS[code].cut(run)) == run


def test_unknown_words_and_concepts() -> None:
    lexicon = LEXICONS["latn"]
    assert lexicon.meaning("xyzzy") is None
    assert lexicon.meaning("") is None
    with pytest.raises(KeyError):
        lexicon.word("xyzzy")


def test_category_covers_names_and_spare_words() -> None:
    assert {category(concept) for concept in CONCEPTS} == set(Category)
    assert category(name(3)) is category("spare-4") is category("apple") is Category.noun


def test_more_words_than_the_script_makes_are_refused() -> None:
    room = len(LEXICONS["latn"].syllabary.words) ** 2
    with pytest.raises(ConfigError, match=r"lab\.num_spare: got 5000, expected at most"):
        Lexicon(SCRIPTS["latn"], num_spare=5000, rng=random.Random(0))
    assert room < 5000


def test_the_seed_decides_the_words() -> None:
    script = SCRIPTS["grek"]
    first, again, other = (Lexicon(script, num_spare=0, rng=random.Random(seed)) for seed in (1, 1, 2))
    assert first.words == again.words != other.words
