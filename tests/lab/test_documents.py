"""Documents contain what they say they contain: asked of the judge and of the parser."""

import pytest

from athlos.data.sources.lab_chains import chain_record
from athlos.errors import ConfigErrors, DataError
from athlos.lab.chains import ChainConfig, Form, Split, chain_questions
from athlos.lab.documents import (
    CitedConfig,
    DocumentConfig,
    Evidence,
    Truth,
    make_case,
    make_cited,
    passages,
)
from athlos.lab.entailment import Judge, Verdict
from athlos.lab.facts import Claim, StatementWording, facts_of, statement
from athlos.lab.world import Exposure, World, WorldConfig

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
W = StatementWording


@pytest.fixture(scope="module")
def world() -> World:
    return World(WorldConfig())


@pytest.fixture(scope="module")
def judge(world) -> Judge:
    return Judge(world.languages)


def cases(world, config, *, number=6, **more):
    codes = world.config.languages
    return [
        make_case(world, config, index=index, language=codes[index % len(codes)], **more) for index in range(number)
    ]


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("truth", Truth)
@pytest.mark.parametrize("evidence", Evidence)
def test_a_case_holds_its_answer_where_it_says(world, judge, evidence, truth, share):
    for num_hops in (2, 3) if evidence is Evidence.scattered else (2,):
        config = DocumentConfig(evidence=evidence, truth=truth, distractor_share=share, num_hops=num_hops)
        for case in cases(world, config):
            texts = [document.text for document in case.documents]
            claim = statement(case.asked, W.noun)
            assert len(texts) == config.num_documents
            assert bool(case.support) == (share < 1) == bool(case.gold)
            assert judge.verdict(texts, claim) is (Verdict.supported if bool(case.support) else Verdict.unknown)
            others = [text for index, text in enumerate(texts) if index not in case.gold]
            assert judge.verdict(others, claim) is Verdict.unknown
            if not bool(case.support):
                assert case.answer == "unknown"
                continue
            sentences = [case.documents[document].sentences[sentence] for document, sentence in case.support]
            assert judge.judge(sentences, claim).evidence == tuple(range(len(sentences)))
            parts = num_hops if evidence is Evidence.scattered else 1
            wanted = config.num_documents - round(config.num_documents * share)
            assert len(case.gold) == max(parts, wanted)
            assert len({document for document, _ in case.support}) == parts
            assert (evidence is Evidence.scattered) == judge.needs_two_documents(texts, claim)
            is_stated = judge.claims(claim)[0] in [c for text in texts for c in judge.claims(text)]
            assert is_stated == (evidence in (Evidence.direct, Evidence.buried))


@pytest.mark.parametrize("evidence", Evidence)
def test_contradicted_documents_speak_against_the_world_and_agree_with_themselves(world, judge, evidence):
    for case in cases(world, DocumentConfig(evidence=evidence, truth=Truth.contradicted), number=12):
        texts = [document.text for document in case.documents]
        assert case.stored_answer not in (None, case.asked.object)
        stored = case.asked._replace(object=case.stored_answer)
        assert world.is_true(stored)
        assert not world.is_true(case.asked)
        assert judge.verdict(texts, statement(stored, W.has)) is Verdict.contradicted
        sentences = [sentence for document in case.documents for sentence in document.sentences]
        for index, sentence in enumerate(sentences):
            assert judge.verdict([*sentences[:index], *sentences[index + 1 :]], sentence) is not Verdict.contradicted


def test_world_documents_are_true_and_tell_background_facts_only(world):
    background = set(world.facts_told(Exposure.background))
    for evidence in Evidence:
        for case in cases(world, DocumentConfig(evidence=evidence)):
            assert world.is_true(case.asked)
            assert case.stored_answer == case.asked.object
            told = {fact for document in case.documents for facts in document.facts for fact in facts}
            assert told <= background


def test_asked_facts_of_any_level_can_be_given(world, judge):
    none = world.facts_told(Exposure.none)
    for case in cases(world, DocumentConfig(), facts=none):
        assert (case.asked.subject, case.asked.relations[0]) in {fact[:2] for fact in none}
        assert judge.verdict([case.documents[case.gold[0]].text], statement(case.asked, W.noun)) is Verdict.supported


def test_fictional_documents_name_nothing_in_the_world(world):
    real = {name for names in world.entities.values() for name in names}
    for evidence in Evidence:
        for case in cases(world, DocumentConfig(evidence=evidence, truth=Truth.fictional)):
            assert case.stored_answer is None
            for document in case.documents:
                assert not real.intersection(name for facts in document.facts for fact in facts for name in fact[::2])


@pytest.mark.parametrize("depth", [0.0, 0.25, 0.5, 1.0])
def test_buried_evidence_is_at_its_depth(world, depth):
    config = DocumentConfig(evidence=Evidence.buried, depth=depth, buried_sentences=21)
    for case in cases(world, config):
        ((document, sentence),) = case.support
        assert len(case.documents[document].sentences) == 21
        assert sentence == round(depth * 20)


def test_distractors_are_near_the_question(world):
    for case in cases(world, DocumentConfig(distractor_share=0.75), number=12):
        for index, document in enumerate(case.documents):
            if index not in case.gold:
                facts = [fact for facts in document.facts for fact in facts]
                assert any(
                    (fact.relation == case.asked.relations[0]) != (fact.subject == case.asked.subject) for fact in facts
                )


def test_noise_and_language_leave_the_question_as_it_is(world):
    questions = {
        make_case(world, DocumentConfig(distractor_share=share), index=3, language=code).question
        for share in SHARES
        for code in world.config.languages
    }
    assert len(questions) == 1
    one, other = (make_case(world, DocumentConfig(), index=3, language=code) for code in ("latn", "hani"))
    assert [document.clauses for document in one.documents] == [document.clauses for document in other.documents]
    assert make_case(world, DocumentConfig(), index=3, language="latn") == one


def test_all_text_is_identified_parsed_and_translated_exactly(world):
    for evidence in Evidence:
        for case in cases(world, DocumentConfig(evidence=evidence, truth=Truth.fictional), number=5):
            language = world.languages[case.language]
            for document in case.documents:
                assert world.languages.identify(document.text) == case.language
                assert language.sentences(document.text) == list(document.sentences)
                assert tuple(language.parse(sentence) for sentence in document.sentences) == document.clauses
                assert [facts_of(clause) for clause in document.clauses] == document.facts
                for goal, other in world.languages.items():
                    there = world.languages.translate(document.text, source=case.language, target=goal)
                    assert there == other.join(other.render(clause) for clause in document.clauses)
                    assert world.languages.translate(there, source=goal, target=case.language) == document.text


@pytest.mark.parametrize("truth", [Truth.world, Truth.fictional])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_citations_of_long_answers_are_exact(world, judge, truth, share):
    config = CitedConfig(truth=truth, two_document_share=share)
    for index in range(8):
        cited = make_cited(world, config, index=index, language="cyrl")
        texts = [document.text for document in cited.documents]
        assert len(cited.answer) == len(cited.questions) == len(cited.citations) == config.num_sentences
        assert sum(len(numbers) == 2 for numbers in cited.citations) == round(config.num_sentences * share)
        used = {number for numbers in cited.citations for number in numbers}
        assert len(texts) - len(used) == config.num_distractors
        for clause, numbers in zip(cited.answer, cited.citations, strict=True):
            assert judge.supporting_subset(texts, clause) == numbers
            assert judge.needs_two_documents(texts, clause) == (len(numbers) == 2)
            assert (
                judge.verdict([text for at, text in enumerate(texts) if at not in numbers], clause) is Verdict.unknown
            )


def test_records_hold_the_text(world, judge):
    documents = passages(world, world.facts_told(Exposure.background), language="grek")
    config = ChainConfig(num_train=[0, 0, 0], num_dev=[0, 0, 0], num_train_comparisons=0, num_dev_comparisons=0)
    texts = {document.identifier: document for document in documents}
    for chain in chain_questions(world, config)[Split.test][::7]:
        record = chain_record(world, chain, language="grek", documents=documents)
        told = [passage.text for passage in record.passages if passage.is_supporting]
        for claim in chain.claims:
            assert judge.verdict(told, statement(claim, W.noun)) is Verdict.supported
        assert {step.supporting for step in record.steps} - {""} == {
            passage.identifier for passage in record.passages if passage.is_supporting
        }
        assert record.steps[-1].answer == record.answers[0]
        assert len(record.steps) == len(chain.facts) + (chain.form is Form.comparison)
        for step, node in zip(record.steps, chain.nodes(), strict=True):
            stated = node.fact and [node.fact] in texts[step.supporting].facts
            assert stated if node.fact else step.supporting == ""
        assert world.languages.identify(record.question) == "grek"
        assert chain_record(world, chain, language="thai").passages == []


def test_a_chain_can_be_scattered(world, judge):
    chains = chain_questions(world, ChainConfig())[Split.test]
    chain = next(one for one in chains if one.num_hops == 3 and one.form is Form.linear)
    config = DocumentConfig(evidence=Evidence.scattered, num_hops=3)
    case = make_case(world, config, index=0, language="latn", chain=chain.branches[0])
    assert case.asked == Claim(*chain.claims[0])
    assert len(case.support) == 3
    assert judge.needs_two_documents([document.text for document in case.documents], statement(case.asked, W.noun))


def test_wrong_values_are_named(world):
    with pytest.raises(ConfigErrors) as caught:
        make_case(
            world,
            DocumentConfig(evidence=Evidence.scattered, num_documents=1, distractor_share=2.0, num_hops=4),
            index=0,
            language="latn",
        )
    assert len(caught.value.errors) == 3
    with pytest.raises(ConfigErrors, match=r"cited\.truth"):
        make_cited(world, CitedConfig(truth=Truth.contradicted), index=0, language="latn")
    with pytest.raises(ConfigErrors, match="facts_per_document: got 1, expected an integer >= 2"):
        make_case(world, DocumentConfig(evidence=Evidence.implicit, facts_per_document=1), index=0, language="latn")
    with pytest.raises(DataError, match="sentences asked for"):
        make_case(world, DocumentConfig(truth=Truth.fictional, facts_per_document=500), index=0, language="latn")
