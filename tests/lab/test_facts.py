"""Wordings say the same thing, in every language."""

from itertools import product

import pytest

from athlos.errors import DataError
from athlos.lab.facts import (
    RELATIONS,
    Claim,
    Fact,
    QuestionWording,
    StatementWording,
    asked_of,
    claims_of,
    comparison_question,
    expand,
    facts_of,
    question,
    statement,
    yes_no_question,
)
from athlos.lab.grammar import Clause, NounPhrase
from athlos.lab.languages import CODES, Languages
from athlos.lab.lexicon import RELATION_NOUNS

LANGUAGES = Languages(seed=1)
SHARED = Languages(seed=1, shared_word_order=True)


def same_everywhere(clause: Clause) -> None:
    for languages, source, target in product((LANGUAGES, SHARED), CODES, CODES):
        text = languages[source].render(clause)
        assert languages[source].parse(text) == clause
        assert languages.identify(text) == source
        assert languages.translate(text, source=source, target=target) == languages[target].render(clause)


def test_every_relation_has_its_words():
    assert set(RELATIONS) == set(RELATION_NOUNS)


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_fact_is_read_back_from_every_wording(relation):
    fact = Fact("@4", relation, "@9")
    for stated in StatementWording:
        clause = statement(fact, stated)
        same_everywhere(clause)
        assert facts_of(clause) == [fact]
        asks = yes_no_question(fact, stated)
        same_everywhere(asks)
        assert facts_of(asks) == []
        assert facts_of(statement(Claim("@4", (relation,), "@9", True), stated)) == []
    for asked in QuestionWording:
        clause = question(fact, asked)
        same_everywhere(clause)
        assert facts_of(clause) == []
        assert asked_of(clause) == ("@4", (relation,))
    assert len({statement(fact, stated) for stated in StatementWording}) == 4
    assert len({question(fact, asked) for asked in QuestionWording}) == 4


@pytest.mark.parametrize("is_denied", [False, True])
@pytest.mark.parametrize("stated", StatementWording)
def test_paths_and_denials_are_read_back(stated, is_denied):
    claim = Claim("@4", ("teacher", "birthplace", "country"), "@9", is_denied)
    clause = statement(claim, stated)
    same_everywhere(clause)
    assert claims_of(clause) == (claim,)
    assert facts_of(clause) == []


@pytest.mark.parametrize("asked", QuestionWording)
def test_a_path_is_asked_for(asked):
    clause = question(Claim("@4", ("birthplace", "country", "capital", "river"), "@9"), asked)
    same_everywhere(clause)
    assert asked_of(clause) == ("@4", ("birthplace", "country", "capital", "river"))


def test_other_clauses_claim_nothing():
    name = NounPhrase("@4")
    compares = comparison_question(Claim("@4", ("country",), ""), Claim("@5", ("country",), ""))
    same_everywhere(compares)
    others = [
        Clause("sees", name, NounPhrase("@5")),
        Clause("is", name, NounPhrase("@5")),
        Clause("has-capital", name),
        Clause("has-capital", name, NounPhrase("dog")),
        compares,
        compares._replace(is_question=False),
        Clause("is", NounPhrase("dog", owner=name), NounPhrase("@5")),
        Clause("has-capital", NounPhrase("@4", count=3), NounPhrase("@5")),
        Clause("has-capital", name, NounPhrase("@5"), (("in", NounPhrase("@6")),)),
    ]
    for clause in others:
        assert claims_of(clause) == ()
        with pytest.raises(DataError, match="lab question"):
            asked_of(clause)


def test_definitions_are_written_out():
    assert expand(("teacher", "nationality", "capital")) == ("teacher", "birthplace", "country", "capital")
    assert expand(("workplace",)) == ("employer", "seat")
