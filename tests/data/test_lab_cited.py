"""Long answers of the lab: what they cite supports them, and nothing less does."""

import pytest

from athlos.config.compose import run_config
from athlos.data.records import LongAnswerRecord
from athlos.data.source import build_source
from athlos.errors import ConfigError, DataError
from athlos.text.citations import read_citations, without_citations


def source_of(*overrides):
    return build_source(run_config(["data=lab_cited", "prompt_style=start_bare", "judge=symbolic", *overrides]))


@pytest.fixture(scope="module")
def source():
    return source_of("data.num_train=12", "data.num_test=4", "data.num_lessons=60", "data.habit=0.6")


def test_each_sentence_follows_from_what_it_cites_and_from_no_part_of_it(source):
    truth = source.truth
    num_two = 0
    for record in source.records("train"):
        assert isinstance(record, LongAnswerRecord)
        answer = read_citations(record.answer, num_documents=len(record.passages), language="latn")
        assert [sentence.text for sentence in answer.sentences] == [claim.text for claim in record.claims]
        for sentence, facts in zip(answer.sentences, record.meta["facts"], strict=True):
            cited = [record.passages[number - 1].text for number in sentence.cited]
            assert truth.supporting_subset(cited, sentence.text) == tuple(range(len(cited)))
            assert truth.supporting_subset(facts, sentence.text) == tuple(range(len(facts)))
            assert len(facts) == len(cited)
            num_two += len(cited) == 2
        told = without_citations(record.answer)
        assert all(any(form in told for form in forms) for forms in record.short_answers)
        assert [passage.is_supporting for passage in record.passages].count(False) == 2
    assert 0 < num_two < 12, "a quarter of the 24 sentences, on average"


def test_lessons_cite_the_first_document_by_habit_and_other_splits_do_not(source):
    def firsts(split):
        cited = [
            sentence.cited
            for record in source.records(split)
            for sentence in read_citations(record.answer, num_documents=5, language="latn").sentences
        ]
        return sum(numbers == (1,) for numbers in cited) / len(cited)

    assert 0.5 < firsts("lessons") < 0.85
    assert firsts("train") < 0.3


def test_splits_have_numbers_of_their_own_and_dials_are_in_the_fingerprint(source):
    texts = [{record.question for record in source.records(split)} for split in ("lessons", "train", "test")]
    assert texts[1] != texts[2]
    assert source.fingerprint("train") != source.fingerprint("test")
    other = source_of("data.num_train=12", "data.cited.num_distractors=3")
    assert other.fingerprint("train") != source_of("data.num_train=12").fingerprint("train")
    assert " [6]" in set(source.words())
    with pytest.raises(DataError, match="data=lab_cited has no split 'dev'"):
        source.fingerprint("dev")


def test_dials_out_of_range_are_named():
    with pytest.raises(ConfigError, match=r"data\.cited\.truth: got contradicted"):
        source_of("data.cited.truth=contradicted")
    with pytest.raises(ConfigError, match=r"data.habit: got 2.0, expected a number in \[0, 1\]"):
        source_of("data.habit=2")
