"""Scripts: syllables that tell each other apart, in one script and between scripts."""

import random
import unicodedata
from itertools import combinations

import pytest

from athlos.lab.scripts import NUM_NAME_SYLLABLES, NUM_PARTICLE_SYLLABLES, SCRIPTS, deal


@pytest.mark.parametrize("code", SCRIPTS)
def test_syllables_differ_and_have_one_length(code: str) -> None:
    script = SCRIPTS[code]
    assert len(set(script.syllables)) == len(script.syllables) > NUM_PARTICLE_SYLLABLES + NUM_NAME_SYLLABLES
    assert {len(syllable) for syllable in script.syllables} == {script.syllable_size}


@pytest.mark.parametrize("code", SCRIPTS)
def test_syllables_survive_unicode_normalisation(code: str) -> None:
    for form in ("NFC", "NFKC"):
        assert all(unicodedata.normalize(form, syllable) == syllable for syllable in SCRIPTS[code].syllables)


def test_no_two_scripts_share_a_letter() -> None:
    letters = {
        code: {*"".join(script.syllables), *"".join(script.syllables).upper()} for code, script in SCRIPTS.items()
    }
    for first, second in combinations(letters, 2):
        assert not letters[first] & letters[second]


def test_marks_are_no_letters_of_syllables_and_differ_from_each_other() -> None:
    syllables = "".join("".join(script.syllables) for script in SCRIPTS.values())
    for script in SCRIPTS.values():
        marks = (script.full_stop, script.question_mark, script.comma)
        assert len(set(marks)) == 3
        assert not any(mark in syllables for mark in marks)


@pytest.mark.parametrize("code", SCRIPTS)
def test_deal_gives_every_syllable_to_one_set(code: str) -> None:
    dealt = deal(SCRIPTS[code], rng=random.Random(3))
    assert sorted((*dealt.particles, *dealt.names, *dealt.words)) == sorted(SCRIPTS[code].syllables)
    assert (len(dealt.particles), len(dealt.names)) == (NUM_PARTICLE_SYLLABLES, NUM_NAME_SYLLABLES)
    assert deal(SCRIPTS[code], rng=random.Random(3)) == dealt
    assert deal(SCRIPTS[code], rng=random.Random(4)) != dealt
