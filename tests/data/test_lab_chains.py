"""Questions of several steps about the lab world: the same ones in each language, passages under one id."""

from itertools import groupby

import pytest

from athlos.config.compose import run_config
from athlos.data.datamodule import build_source
from athlos.errors import ConfigError, DataError
from athlos.retrieval.config import ContextsCorpusConfig
from athlos.retrieval.corpora import ContextsCorpus, gold_ids

SMALL = ["data=lab_chains", "eval=qa", "data.chains.num_test=[2,1,1]", "data.chains.num_test_comparisons=2"]


def source_of(*overrides: str):
    return build_source(run_config([*SMALL, *overrides]))


def by_question(records):
    return [list(group) for _, group in groupby(records, key=lambda record: record.identifier.rpartition("-")[0])]


def test_each_question_stands_in_every_language_with_the_same_passages():
    questions = by_question(source_of().records("test"))
    assert [len(group) for group in questions] == [5] * 6
    for group in questions:
        first = group[0]
        assert [record.language for record in group] == ["latn", "cyrl", "grek", "thai", "hani"]
        for record in group:
            assert gold_ids(record) == gold_ids(first)
            assert [one.identifier for one in record.passages] == [one.identifier for one in first.passages]
            assert len(record.passages) == len(gold_ids(record)) + 6
            assert record.meta["parallel"]["question"] == first.question
            assert record.meta["parallel"]["steps"] == [[step.question, step.answer] for step in first.steps]
            assert record.steps[-1].answer == record.answers[0]
            supporting = [step.supporting for step in record.steps if step.supporting]
            assert set(supporting) == set(gold_ids(record))
            assert all(passage.title in passage.text for passage in record.passages)
        assert len({record.question for record in group}) == 5
    assert [group[0].meta["hops"] for group in questions] == [4, 3, 2, 2, 2, 2]
    assert [group[0].meta["form"] for group in questions][-2:] == ["comparison", "comparison"]


def test_the_corpus_has_each_passage_once_in_each_language():
    source = source_of()
    found = list(ContextsCorpus(ContextsCorpusConfig(), source=source).passages())
    places = [(passage.language, passage.identifier) for passage in found]
    assert len(set(places)) == len(places)
    by_language = {code: {name for language, name in places if language == code} for code, _ in places}
    assert len(set(map(frozenset, by_language.values()))) == 1


def test_shares_place_passages_in_one_language_only():
    source = source_of("data.own_share=0.25", "data.first_share=0.5")
    placed = [place.value for place in source._placements.values()]
    assert abs(placed.count("own") - len(placed) / 4) < 1
    assert abs(placed.count("first") - len(placed) / 2) < 1
    for group in by_question(source.records("test")):
        first, *others = ({passage.identifier for passage in record.passages} for record in group)
        assert all(other == others[0] for other in others)
        assert {source._placements[name].value for name in first - others[0]} <= {"first"}
        assert {source._placements[name].value for name in others[0] - first} <= {"own"}
    everything = [passage for group in by_question(source.records("test")) for passage in group[0].passages]
    assert all(source._placements[passage.identifier].value != "own" for passage in everything)


def test_limits_count_by_language_and_the_text_is_in_the_fingerprint():
    source = source_of()
    assert [record.language for record in source.records("test", limit=1)] == ["latn", "cyrl", "grek", "thai", "hani"]
    assert source.fingerprint("test") != source_of("data.num_distractors=7").fingerprint("test")
    assert source.fingerprint("test") != source_of("data.own_share=0.1").fingerprint("test")
    assert source.fingerprint("test") != source.fingerprint("dev")


def test_what_is_wrong_is_told():
    with pytest.raises(ConfigError, match=r"data.own_share \+ data.first_share: got 1.1, expected at most 1"):
        source_of("data.own_share=0.6", "data.first_share=0.5")
    with pytest.raises(ConfigError, match=r"data.chains.num_dev: got \[1\], expected 3 numbers"):
        source_of("data.chains.num_dev=[1]")
    with pytest.raises(DataError, match="no split 'tst'; did you mean 'test'"):
        source_of().files("tst")
