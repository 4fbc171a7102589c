"""Reciprocal rank fusion: exact values, the twin, one passage in two languages; and the index of several indexes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.retrieval import reference

from athlos.config.compose import run_config
from athlos.errors import ConfigError
from athlos.retrieval.config import FuzzyIndexConfig, HybridIndexConfig, LexicalIndexConfig, Prefilter
from athlos.retrieval.corpus import GivenCorpus
from athlos.retrieval.hybrid import HybridIndex, reciprocal_rank_fusion
from athlos.retrieval.interface import CorpusPassage, Passage
from athlos.stages import StageStore
from athlos.text.fuzzy import MatchUnit


def passages(ids, *, language="en"):
    return [Passage(identifier=name, text=f"{name} {language}", language=language, score=1.0) for name in ids]


def test_ranks_one_and_three():
    fused = reciprocal_rank_fusion([passages("abc"), passages("xya")], k=2)
    assert fused[0].identifier == "a"
    assert fused[0].score == pytest.approx(1 / 61 + 1 / 63, abs=1e-12) == pytest.approx(0.032266, abs=1e-6)


def test_a_passage_in_two_languages_is_one_in_its_better_wording():
    fused = reciprocal_rank_fusion([passages("ab", language="de"), passages("bca", language="en")], k=9)
    assert [(hit.identifier, hit.language) for hit in fused] == [("b", "en"), ("a", "de"), ("c", "en")]


def test_an_id_twice_in_a_list_counts_once_at_its_better_rank():
    twice = [*passages("a", language="de"), *passages("b"), *passages("a")]
    fused = reciprocal_rank_fusion([twice], k=9)
    assert [(hit.identifier, hit.language, hit.score) for hit in fused] == [
        ("a", "de", pytest.approx(1 / 61)),
        ("b", "en", pytest.approx(1 / 62)),
    ]
    assert reciprocal_rank_fusion([], k=3) == reciprocal_rank_fusion([[], []], k=3) == []


@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=8), max_size=4), st.integers(0, 70))
def test_scores_are_the_twins(lists, constant):
    fused = reciprocal_rank_fusion([passages(ids) for ids in lists], k=99, constant=constant)
    twin = reference.fused_scores(lists, constant=constant)
    assert {hit.identifier: hit.score for hit in fused} == pytest.approx(twin)
    assert [hit.score for hit in fused] == sorted((hit.score for hit in fused), reverse=True)


def hybrid(folder, *, depth=100, candidates=9):
    texts = ["the red house", "a red", "house of the cards", "the the the"]
    corpus = GivenCorpus([CorpusPassage(identifier=f"p{row}", text=text) for row, text in enumerate(texts)])
    parts = {
        "lexical": LexicalIndexConfig(_target_="athlos.retrieval.lexical.LexicalIndex", k1=1.2, b=0.75),
        "fuzzy": FuzzyIndexConfig(
            _target_="athlos.retrieval.fuzzy.FuzzyIndex",
            unit=MatchUnit.char,
            prefilter=Prefilter.all,
            candidates=candidates,
        ),
    }
    config = HybridIndexConfig(parts=parts, depth=depth, constant=60)
    return HybridIndex(config, corpus=corpus, stages=StageStore(folder))


def test_parts_are_searched_to_the_depth_and_fused(tmp_path):
    index = hybrid(tmp_path)
    [hits] = index.search(["red house"], k=2)
    lists = [[hit.identifier for hit in part.search(["red house"], k=100)[0]] for part in index._parts]
    twin = reference.fused_scores(lists, constant=60)
    assert [hit.score for hit in hits] == pytest.approx(sorted(twin.values(), reverse=True)[:2])
    assert hits[0].identifier == "p0"
    assert index.languages == ["en"]
    shallow = hybrid(tmp_path, depth=1)
    assert len({index.key, shallow.key, hybrid(tmp_path, candidates=8).key}) == 3  # every part stands in it
    assert len(shallow.search(["red house"], k=3)[0]) == 3  # the parts are asked for no less than is wanted


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        (["~index.parts.dense"], r"index.parts: got 1, expected at least two"),
        (["+index@index.parts.third=none"], r"index.parts.third: got no index"),
    ],
)
def test_parts_are_checked(overrides, error):
    with pytest.raises(ConfigError, match=error):
        run_config(["index=hybrid", "corpus=passages", "corpus.path=p.jsonl", *overrides])
