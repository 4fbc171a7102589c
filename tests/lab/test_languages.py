"""Languages: exact identification and an oracle that translates there and back."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.lab.clauses import clauses, phrases
from tests.lab.fresh_process import printed

from athlos.errors import ConfigError, DataError
from athlos.lab.grammar import Clause, NounPhrase
from athlos.lab.languages import CODES, TYPOLOGIES, Languages

LANGUAGES = Languages(seed=5, num_spare=2)


def test_no_two_languages_share_a_letter() -> None:
    for first, second in combinations(LANGUAGES.values(), 2):
        assert not first.characters & second.characters


def test_word_orders_are_as_far_from_the_first_as_they_say() -> None:
    distances = [round(6 * TYPOLOGIES["latn"].distance(TYPOLOGIES[code])) for code in CODES]
    assert distances == [0, 2, 3, 4, 6]


def test_shared_word_order_leaves_only_the_words() -> None:
    languages = Languages(seed=5, shared_word_order=True)
    assert {language.typology for language in languages.values()} == {TYPOLOGIES["latn"]}
    assert len({frozenset(language.grammar.lexicon.words.values()) for language in languages.values()}) == len(CODES)


@pytest.mark.parametrize("code", CODES)
@given(clause=clauses())
def test_every_sentence_is_identified(code: str, clause: Clause) -> None:
    assert LANGUAGES.identify(LANGUAGES[code].render(clause)) == code


@given(first=st.sampled_from(CODES), second=st.sampled_from(CODES), clause=clauses())
def test_a_mixture_is_no_language(first: str, second: str, clause: Clause) -> None:
    text = LANGUAGES[first].render(clause) + LANGUAGES[second].render(clause)
    assert LANGUAGES.identify(text) == (first if first == second else None)


@pytest.mark.parametrize("text", ["", "7 + 5 = 12.", " ?", "ß", "日本", "ﬁ", "ะ", "क", "\x00"])
def test_text_without_a_known_letter_is_no_language(text: str) -> None:
    assert LANGUAGES.identify(text) is None


@given(text=st.text())
def test_identify_takes_any_text(text: str) -> None:
    assert LANGUAGES.identify(text) in (None, *CODES)


@given(source=st.sampled_from(CODES), target=st.sampled_from(CODES), said=st.lists(clauses(), min_size=1, max_size=3))
def test_translation_is_the_rendering_and_comes_back(source: str, target: str, said: list[Clause]) -> None:
    texts = {code: LANGUAGES[code].join(LANGUAGES[code].render(clause) for clause in said) for code in CODES}
    translated = LANGUAGES.translate(texts[source], source=source, target=target)
    assert translated == texts[target]
    assert LANGUAGES.translate(translated, source=target, target=source) == texts[source]


@given(source=st.sampled_from(CODES), target=st.sampled_from(CODES), phrase=phrases())
def test_short_answers_are_translated(source: str, target: str, phrase: NounPhrase) -> None:
    text = LANGUAGES[source].phrase(phrase)
    assert LANGUAGES.translate(text, source=source, target=target) == LANGUAGES[target].phrase(phrase)


@given(text=st.text(max_size=40), source=st.sampled_from(CODES))
def test_any_text_is_translated_or_gives_a_data_error(text: str, source: str) -> None:
    try:
        translated = LANGUAGES.translate(text, source=source, target="latn")
    except DataError:
        return
    assert LANGUAGES.identify(translated) == "latn"


def test_what_cannot_be_translated_says_why() -> None:
    said = LANGUAGES["latn"].render(Clause("sees", NounPhrase("dog")))
    with pytest.raises(DataError, match="empty text"):
        LANGUAGES.translate(" ", source="latn", target="thai")
    with pytest.raises(DataError, match="no end mark"):
        LANGUAGES.translate(f"{said} {said[:-1]}", source="latn", target="thai")
    with pytest.raises(DataError, match="no word"):
        LANGUAGES.translate(said, source="cyrl", target="thai")


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ConfigError, match="got 'lant'; did you mean 'latn'"):
        Languages(seed=0, codes=["lant"])


def test_the_same_in_every_process() -> None:
    code = (
        "from athlos.lab.languages import Languages; languages = Languages(seed=5, num_spare=2);"
        "print(ascii([sorted(one.grammar.lexicon.words.items()) for one in languages.values()]))"
    )
    here = ascii([sorted(one.grammar.lexicon.words.items()) for one in LANGUAGES.values()]) + "\n"
    assert printed(code) == [here, here]


def test_a_language_that_the_world_lacks_is_named() -> None:
    with pytest.raises(DataError, match=r"no language 'latm'; did you mean 'latn'\? Available: "):
        LANGUAGES["latm"]
    assert "latm" not in LANGUAGES
