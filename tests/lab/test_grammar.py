"""Grammar: every clause comes back from its text, in every word order; no text breaks the parser."""

import random
import time
from contextlib import suppress
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.lab.clauses import clauses, phrases

from athlos.errors import DataError
from athlos.lab.grammar import MAX_DIGITS, MAX_OWNERS, Clause, Grammar, NounPhrase, Typology, gloss
from athlos.lab.languages import CODES, Languages
from athlos.lab.lexicon import Lexicon
from athlos.lab.scripts import SCRIPTS

ORDERS = ("svo", "sov", "vso", "vos", "osv", "ovs")
LANGUAGES = Languages(seed=5, num_spare=2)
LEXICONS = {code: Lexicon(SCRIPTS[code], num_spare=2, rng=random.Random(code)) for code in ("latn", "thai")}
TYPOLOGIES = [
    Typology(
        order=order,
        adjective_first=flags[0],
        numeral_first=flags[1],
        genitive_first=flags[2],
        preposition=flags[3],
        adjunct_first=flags[4],
    )
    for order in ORDERS
    for flags in product((False, True), repeat=5)
]


@pytest.mark.parametrize("code", CODES)
@given(clause=clauses())
def test_every_clause_round_trips_in_every_language(code: str, clause: Clause) -> None:
    text = LANGUAGES[code].render(clause)
    assert LANGUAGES[code].parse(text) == clause
    assert LANGUAGES[code].sentences(text) == [text]


@settings(max_examples=300)
@given(clause=clauses(), typology=st.sampled_from(TYPOLOGIES), code=st.sampled_from(list(LEXICONS)))
def test_every_clause_round_trips_in_every_typology(clause: Clause, typology: Typology, code: str) -> None:
    grammar = Grammar(typology, LEXICONS[code])
    assert grammar.parse(grammar.render(clause)) == clause


@pytest.mark.parametrize("order", ORDERS)
def test_the_six_orders_stand_as_they_are_named(order: str) -> None:
    typology = next(typology for typology in TYPOLOGIES if typology.order == order)
    grammar = Grammar(typology, LEXICONS["latn"])
    words = {"s": "dog", "v": "sees", "o": "horse"}
    text = grammar.render(Clause("sees", NounPhrase("dog"), NounPhrase("horse")))
    assert grammar.words_of(text) == [grammar.lexicon.words[words[role]] for role in order]


def test_each_feature_moves_its_words() -> None:
    base = Typology(
        order="svo", adjective_first=True, numeral_first=True, genitive_first=True, preposition=True, adjunct_first=True
    )
    phrase = NounPhrase("apple", ("red",), 3, owner=NounPhrase("smith"))
    clause = Clause("falls-in", NounPhrase("dog"), adjuncts=(("in", phrase),))._replace(verb="sees")
    expected = {
        "adjective_first": "in smith of 3 apple red dog sees",
        "numeral_first": "in smith of red apple 3 dog sees",
        "genitive_first": "in 3 red apple of smith dog sees",
        "preposition": "smith of 3 red apple in dog sees",
        "adjunct_first": "dog sees in smith of 3 red apple",
    }
    for feature, text in expected.items():
        typology = Typology(**{**{key: getattr(base, key) for key in base.FEATURES}, feature: False})
        grammar = Grammar(typology, LEXICONS["latn"])
        words = [grammar.lexicon.meaning(word) or word for word in grammar.words_of(grammar.render(clause))]
        assert " ".join(words) == text


@pytest.mark.parametrize("code", CODES)
@given(phrase=phrases())
def test_every_phrase_round_trips(code: str, phrase: NounPhrase) -> None:
    assert LANGUAGES[code].parse_phrase(LANGUAGES[code].phrase(phrase)) == phrase


def test_distance_is_symmetric_and_counts_features() -> None:
    first, second = TYPOLOGIES[0], TYPOLOGIES[-1]
    assert first.distance(first) == 0
    assert first.distance(second) == second.distance(first) == 1
    assert TYPOLOGIES[0].distance(TYPOLOGIES[1]) == pytest.approx(1 / 6)


@pytest.mark.parametrize("code", CODES)
def test_numbers_and_signs_stand_between_spaces(code: str) -> None:
    text = LANGUAGES[code].grammar.join([LANGUAGES[code].grammar.lexicon.word("apple"), "7", "+", "5", "=", "12"])
    assert text.endswith(" 7 + 5 = 12")
    assert LANGUAGES[code].grammar.words_of(text)[1:] == ["7", "+", "5", "=", "12"]


@pytest.mark.parametrize("code", CODES)
def test_running_text_falls_into_sentences(code: str) -> None:
    language = LANGUAGES[code]
    clauses = [Clause("sees", NounPhrase("dog")), Clause("sees", NounPhrase("what"), is_question=True)]
    texts = [language.render(clause) for clause in clauses]
    assert language.sentences(language.join(texts)) == texts
    assert language.sentences("") == []


@pytest.mark.parametrize("code", CODES)
@given(text=st.text(max_size=60))
def test_any_text_parses_or_gives_a_data_error(code: str, text: str) -> None:
    for parse in (LANGUAGES[code].parse, LANGUAGES[code].parse_phrase):
        with suppress(DataError):
            parse(text)


@pytest.mark.parametrize("code", CODES)
@given(data=st.data())
def test_any_row_of_words_parses_or_gives_a_data_error(code: str, data: st.DataObject) -> None:
    language = LANGUAGES[code]
    words = [*language.grammar.lexicon.words.values(), language.grammar.lexicon.names[0], "7", "+", ","]
    text = language.grammar.join(data.draw(st.lists(st.sampled_from(words), min_size=1, max_size=12)))
    try:
        clause = language.parse(text + language.script.full_stop)
    except DataError:
        return
    assert language.parse(language.render(clause)) == clause


@pytest.mark.parametrize("code", CODES)
def test_hostile_text_is_refused_in_time(code: str) -> None:
    language = LANGUAGES[code]
    words, stop, many = language.grammar.lexicon.words, language.script.full_stop, 20_000
    join = language.grammar.join
    started = time.process_time()
    for row in (
        [words["apple"], words["of"]] * many,
        [words["apple"], words["and"]] * many,
        [words["not"]] * many,
        [words["apple"]] * many,
        [words["in"]] * many,
        ["9" * many, words["apple"], words["sees"]],
        ["+"] * many,
        [words["red"]] * many,
        [words["sees"]] * many,
    ):
        with pytest.raises(DataError) as caught:
            language.parse(join(row) + stop)
        assert len(str(caught.value)) < 400
    assert time.process_time() - started < 10


def test_limits_are_where_they_are_said_to_be() -> None:
    language = LANGUAGES["latn"]
    phrase = NounPhrase("apple")
    for _ in range(MAX_OWNERS):
        phrase = NounPhrase("apple", owner=phrase)
    assert language.parse_phrase(language.phrase(phrase)) == phrase
    with pytest.raises(DataError, match="more than 8 owners"):
        language.parse_phrase(language.phrase(NounPhrase("apple", owner=phrase)))
    assert (
        language.parse_phrase(language.phrase(NounPhrase("apple", count=10**MAX_DIGITS - 1))).count
        == 10**MAX_DIGITS - 1
    )
    with pytest.raises(DataError, match="a number of 10 digits"):
        language.parse_phrase(language.phrase(NounPhrase("apple", count=10**MAX_DIGITS)))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["dog"], "found no verb and 1 phrases"),
        (["sees"], "a verb and 0 phrases"),
        (["dog", "sees", "sees"], "a second verb at word 3"),
        (["red", "sees"], "expected a noun at word 2"),
        (["dog", "of"], "expected a noun at word 3, found the end"),
        (["whether", "dog", "sees"], "do not agree"),
    ],
)
def test_errors_say_what_is_wrong(words: list[str], reason: str) -> None:
    language = LANGUAGES["latn"]
    text = " ".join(language.grammar.lexicon.words[word] for word in words)
    with pytest.raises(DataError, match=reason):
        language.parse(f"{text}.")
    with pytest.raises(DataError, match="no full stop or question mark"):
        language.parse(text)


def test_gloss_reads_subject_first() -> None:
    phrase = NounPhrase("apple", ("red",), 3, owner=NounPhrase("smith"), and_also=NounPhrase("book"))
    clause = Clause("sees", NounPhrase("dog"), phrase, (("in", NounPhrase("house")),), True, True)
    assert gloss(clause) == "dog not sees 3 red apple of smith and book in house?"
