"""Questions over documents of the lab: evidence and truth as dialled, distractors that do not help, splits apart."""

import pytest

from athlos.config.compose import run_config
from athlos.data.source import build_source
from athlos.errors import ConfigError, DataError

SMALL = ["data=lab_cases", "eval=qa", "data.num_train=48", "data.num_test=24", "data.num_lessons=48"]


def source_of(*overrides):
    return build_source(run_config([*SMALL, *overrides]))


@pytest.fixture(scope="module")
def train():
    return list(source_of().records("train"))


def test_the_evidence_stands_where_the_record_says(train):
    for record in train:
        passages = {passage.title: passage for passage in record.passages}
        sentences = [passages[title].sentences[place] for title, place in record.supporting_facts]
        assert all(passages[title].is_supporting for title, _ in record.supporting_facts)
        assert record.answers[0] in " ".join(sentences)
        if record.meta["evidence"] == "scattered":
            assert len({title for title, _ in record.supporting_facts}) == 2
        if record.meta["evidence"] in ("direct", "buried"):
            assert len(sentences) == 1
        assert [len(passage.sentences) for passage in record.passages] == [
            6 if record.meta["evidence"] == "buried" else 2
        ] * 8
        assert [passage.is_supporting for passage in record.passages] == [True] * 4 + [False] * 4


def test_kinds_come_in_their_shares_and_stored_answers_by_their_truth(train):
    kinds = {(record.meta["evidence"], record.meta["truth"]) for record in train}
    assert len(kinds) == 12
    for record in train:
        is_stored = record.meta.get("stored") == record.answers[0]
        assert is_stored == (record.meta["truth"] == "world")
        assert ("stored" in record.meta) == (record.meta["truth"] != "fictional")
        if "stored" in record.meta:
            assert record.meta["stored"] in record.meta["stored_statement"]
    truths = [record.meta["truth"] for record in source_of("data.truth_shares=[1.0,0.0,0.0]").records("train")]
    assert set(truths) == {"world"}


def test_no_question_stands_in_two_splits_and_no_document_of_a_lesson_elsewhere(train):
    source = source_of()
    test, lessons = list(source.records("test")), list(source.records("lessons"))
    assert {record.question for record in train}.isdisjoint(record.question for record in test)
    told = {(record.question, passage.text) for record in lessons for passage in record.passages}
    asked = [{(record.question, passage.text) for passage in record.passages} for record in test]
    assert not any(passages <= told for passages in asked)
    assert len({record.identifier for record in [*train, *test, *lessons]}) == 120


def test_the_same_config_gives_the_same_records_and_its_hash_knows_every_dial(train):
    assert list(source_of().records("train", limit=5)) == train[:5]
    plain = source_of().fingerprint("train")
    for dial in ("num_passages=2", "facts_per_document=3", "buried_sentences=5", "depth=0.1", "num_train=47"):
        assert source_of(f"data.{dial}").fingerprint("train") != plain
    assert source_of("data.truth_shares=[1.0,0.0,0.0]").fingerprint("train") != plain
    assert source_of("data.num_test=9").fingerprint("train") == plain
    assert source_of().fingerprint("test") != plain


def test_its_words_hold_the_tags_and_every_text(train):
    words = set(source_of().words())
    assert {" <think>", " </think>", " <answer>", " </answer>", " <clue>", " </clue>"} <= words
    said = {f" {word.strip('.?')}" for record in train for word in record.question.split()}
    assert said <= words


def test_wrong_dials_and_splits_are_named():
    with pytest.raises(DataError, match="data=lab_cases has no split 'dev'"):
        list(source_of().records("dev"))
    with pytest.raises(ConfigError, match=r"data.truth_shares: got \[1.0\], expected 3 numbers"):
        source_of("data.truth_shares=[1.0]")
    with pytest.raises(ConfigError, match=r"data\.num_passages: got 1, expected an integer >= 2"):
        source_of("data.num_passages=1")
