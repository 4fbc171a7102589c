"""The judge against its definition, and against the generator."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.lab.reference_entailment import evidence, verdict

from athlos.lab.entailment import Judge, Verdict
from athlos.lab.facts import Claim, Fact, StatementWording, question, statement
from athlos.lab.facts import QuestionWording as Q
from athlos.lab.grammar import Clause, NounPhrase
from athlos.lab.languages import CODES, Languages

LANGUAGES = Languages(seed=3)
JUDGE = Judge(LANGUAGES)
W = StatementWording

# Few names and relations, so that rules and clashes meet often.
people, places, states = ("@1", "@2", "@3"), ("@11", "@12"), ("@21", "@22")
KINDS = {
    "birthplace": (people, places),
    "spouse": (people, people),
    "teacher": (people, people),
    "nationality": (people, states),
    "country": (places, states),
    "capital": (states, places),
    "mayor": (places, people),
}


@st.composite
def claims(draw):
    relation = draw(st.sampled_from(sorted(KINDS)))
    path, ends = [relation], KINDS[relation][1]
    for _ in range(draw(st.integers(0, 1))):
        following = [name for name, (starts, _) in sorted(KINDS.items()) if starts == ends]
        path.append(draw(st.sampled_from(following)))
        ends = KINDS[path[-1]][1]
    return Claim(
        draw(st.sampled_from(KINDS[relation][0])),
        tuple(path),
        draw(st.sampled_from(ends)),
        draw(st.integers(0, 4)) == 0,
    )


@settings(max_examples=250, deadline=None)
@given(premises=st.lists(claims(), max_size=5), claim=claims())
def test_verdict_and_evidence_are_those_of_the_definition(premises, claim):
    got = JUDGE.judge([statement(one, W.noun) for one in premises], statement(claim, W.has))
    assert got.verdict.value == verdict(premises, claim)
    assert got.evidence == evidence(premises, claim)


@settings(max_examples=60, deadline=None)
@given(premises=st.lists(claims(), min_size=1, max_size=4), claim=claims(), data=st.data())
def test_language_and_wording_change_nothing(premises, claim, data):
    def text(one):
        language = LANGUAGES[data.draw(st.sampled_from(CODES))]
        return language.render(statement(one, data.draw(st.sampled_from(list(W)))))

    expected = JUDGE.judge([statement(one, W.noun) for one in premises], statement(claim, W.noun))
    assert JUDGE.judge([text(one) for one in premises], text(claim)) == expected


def F(subject, *path, object, denied=False):
    return statement(Claim(subject, path, object, denied), W.noun)


BIRTH, COUNTRY = F("@1", "birthplace", object="@11"), F("@11", "country", object="@21")


@pytest.mark.parametrize(
    ("premises", "claim", "expected", "numbers"),
    [
        ([BIRTH, COUNTRY], F("@1", "nationality", object="@21"), "supported", (0, 1)),
        ([BIRTH, COUNTRY], F("@1", "birthplace", "country", object="@21"), "supported", (0, 1)),
        ([BIRTH, COUNTRY], F("@1", "nationality", object="@22"), "contradicted", (0, 1)),
        ([BIRTH, COUNTRY], F("@1", "nationality", object="@22", denied=True), "supported", (0, 1)),
        ([BIRTH], F("@1", "nationality", object="@21"), "unknown", ()),
        ([COUNTRY, BIRTH, BIRTH], BIRTH, "supported", (1,)),
        ([F("@1", "spouse", object="@2")], F("@2", "spouse", object="@1"), "supported", (0,)),
        ([F("@1", "spouse", object="@2")], F("@3", "spouse", object="@2"), "contradicted", (0,)),
        ([F("@21", "capital", object="@11")], COUNTRY, "supported", (0,)),
        (
            [F("@1", "employer", object="@5"), F("@5", "seat", object="@6")],
            F("@1", "workplace", object="@6"),
            "supported",
            (0, 1),
        ),
        ([BIRTH, F("@1", "nationality", object="@21")], COUNTRY, "supported", (0, 1)),
        ([F("@1", "birthplace", object="@11", denied=True)], BIRTH, "contradicted", (0,)),
        ([BIRTH, F("@1", "birthplace", object="@12")], BIRTH, "supported", (0,)),
        ([], BIRTH, "unknown", ()),
    ],
)
def test_rules(premises, claim, expected, numbers):
    judgement = JUDGE.judge(premises, claim)
    assert (judgement.verdict.value, judgement.evidence) == (expected, numbers)


def test_what_cannot_be_read_is_an_outcome():
    latn, thai = LANGUAGES["latn"], LANGUAGES["thai"]
    said = latn.render(BIRTH)
    asks = latn.render(question(Fact("@1", "birthplace", "@11"), Q.noun))
    acts = latn.render(Clause("sees", NounPhrase("dog"), NounPhrase("horse")))
    for claim in (
        "",
        "   ",
        "???",
        ".",
        "Hello there.",
        said[:-1],
        said + thai.render(BIRTH)[:-1],
        f"x {said}",
        asks,
        acts,
        "12",
        "ก" * 50,
    ):
        assert JUDGE.verdict([said], claim) is Verdict.unparseable, claim
    judgement = JUDGE.judge(["Hello there.", said, "", said + " xyz.", asks], said)
    assert judgement.verdict is Verdict.supported
    assert judgement.evidence == (1,)
    assert judgement.unread == (0, 2)
    assert JUDGE.judge([f"{said} xyz."], said).evidence == (0,)
    assert JUDGE.judge([said], said + thai.render(BIRTH)).evidence == (0,)


def test_texts_of_several_sentences():
    latn, hani = LANGUAGES["latn"], LANGUAGES["hani"]
    both = hani.join([hani.render(BIRTH), hani.render(COUNTRY)])
    assert JUDGE.judge([both], latn.render(F("@1", "nationality", object="@21"))).evidence == (0,)
    assert JUDGE.judge([latn.render(COUNTRY), latn.render(BIRTH)], both).evidence == (0, 1)
    assert JUDGE.verdict([latn.render(BIRTH)], both) is Verdict.unknown
    assert JUDGE.verdict([latn.render(F("@1", "birthplace", object="@12"))], both) is Verdict.contradicted


def test_needs_two_documents():
    latn = LANGUAGES["latn"]
    birth, country = latn.render(BIRTH), latn.render(COUNTRY)
    claim = F("@1", "nationality", object="@21")
    assert JUDGE.needs_two_documents([birth, country], claim)
    assert not JUDGE.needs_two_documents([birth, f"{country} {birth}"], claim)
    assert not JUDGE.needs_two_documents([birth], claim)
    assert JUDGE.supporting_subset([birth], claim) is None
