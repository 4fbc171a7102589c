"""Fusion, recall, equal numbers of passages, and when a second path pays: exact values and loops."""

import math
import random
from pathlib import Path

import pytest
from tests.methods.dapt import reference
from tests.run_record import metrics_of
from tests.tolerances import FLOAT64

from athlos.config.compose import run_config
from athlos.data.records import NAMED_PASSAGES, Passage, QuestionRecord, Step
from athlos.data.sources.questions import QuestionsConfig, QuestionSource
from athlos.errors import ConfigError, DataError
from athlos.methods.dapt.config import Fuse
from athlos.methods.dapt.fusion import fused
from athlos.methods.dapt.measures import bilingual_gain
from athlos.methods.dapt.recall import check_equal_k, crossing, filled_steps, recall, shared_out, step_gold
from athlos.retrieval.config import ContextsCorpusConfig, LexicalIndexConfig
from athlos.retrieval.corpora import ContextsCorpus, gold_ids
from athlos.retrieval.interface import Passage as Hit
from athlos.retrieval.lexical import LexicalIndex
from athlos.runs.execute import execute
from athlos.stages import StageStore


def hits(*names: str, language: str = "en", texts: dict[str, str] | None = None, best: float = 10.0) -> list[Hit]:
    return [
        Hit(identifier=name, text=(texts or {}).get(name, name), language=language, score=best / rank)
        for rank, name in enumerate(names, start=1)
    ]


def names(found: list[Hit]) -> list[str]:
    return [hit.identifier for hit in found]


def merge(kind: Fuse, *lists: list[Hit], k: int = 9, queries: tuple[str, ...] = (), parents: tuple[str, ...] = ()):
    return fused(lists, k=k, kind=kind, queries=queries, parents=parents)


def test_a_document_at_ranks_1_and_3_has_the_sum_of_both():
    found = merge(Fuse.rrf, hits("a", "b"), hits("c", "d", "a", language="de"))
    assert found[0].identifier == "a"
    assert found[0].score == pytest.approx(1 / 61 + 1 / 63, abs=1e-15)
    assert round(found[0].score, 6) == 0.032266
    assert found[0].language == "en"  # where it ranks better
    assert dict((hit.identifier, hit.score) for hit in found) == pytest.approx(
        reference.rrf([["a", "b"], ["c", "d", "a"]])
    )


@pytest.mark.parametrize("kind", list(Fuse))
def test_every_fusion_keeps_an_id_once_and_k_in_all(kind: Fuse):
    left, right = hits("a", "b", "c"), hits("c", "a", "d", language="de")
    assert len(merge(kind, left, right, k=3)) == 3
    assert sorted(names(merge(kind, left, right))) == ["a", "b", "c", "d"]
    assert names(merge(kind, left, k=2)) == ["a", "b"]
    assert merge(kind) == []
    assert merge(kind, [], []) == []


def test_the_orders_of_the_fusions():
    left, right = hits("a", "b", best=9.0), hits("c", "d", "e", best=2.0, language="de")
    assert names(merge(Fuse.interleave, left, right)) == ["a", "c", "b", "d", "e"]
    # Scores over the best of each list: a 1, b 1/2; c 1, d 1/2, e 1/3.
    assert names(merge(Fuse.score, left, right)) == ["a", "c", "b", "d", "e"]
    texts = {"a": "nothing", "b": "river of Bern", "c": "nichts", "d": "Fluss von Bern", "e": "Aare"}
    left, right = hits("a", "b", texts=texts), hits("c", "d", "e", texts=texts, language="de")
    assert names(merge(Fuse.rerank, left, right, queries=("river of Bern",)))[0] == "b"
    assert names(merge(Fuse.rerank, left, right, queries=("nothing",), parents=("river of Bern",)))[0] == "a"
    assert names(merge(Fuse.dependency, left, right, queries=("x",), parents=("Aare",)))[0] == "e"


def test_recall_is_that_of_the_definition():
    rng = random.Random(1)
    for _ in range(50):
        found, gold = rng.sample("abcdefgh", 6), rng.sample("abcdefgh", rng.randint(1, 4))
        values = [recall(found[:k], gold) for k in range(1, 7)]
        assert values == [reference.recall(found, gold, k=k) for k in range(1, 7)]
        assert values == sorted(values)
    assert recall(["a", "a"], ["a", "b"]) == 0.5
    assert bilingual_gain(0.8, 0.5, 0.7) == pytest.approx(0.1)
    assert bilingual_gain(0.6, 0.7, 0.5) == pytest.approx(-0.1)


def test_sub_questions_share_their_passages_in_turn():
    assert shared_out([["a", "b", "c"], ["b", "d"]], k=3) == ["a", "b", "d"]
    assert shared_out([["a"], []], k=3) == ["a"]
    assert shared_out([], k=3) == []


def test_unequal_numbers_of_passages_are_refused():
    check_equal_k({"src": 5, "en": 5, "both": 5}, allow_unequal_k=False)
    check_equal_k({"src": 5, "both": 10}, allow_unequal_k=True)
    with pytest.raises(ConfigError, match="unlike numbers of passages: src 5, both 10"):
        check_equal_k({"src": 5, "both": 10}, allow_unequal_k=False)


def test_where_a_gain_crosses_zero():
    assert crossing([0.0, 0.2, 0.4], [-0.1, -0.05, 0.05]) == pytest.approx(0.3)
    assert crossing([0.0, 0.2], [0.1, 0.2]) == 0.0
    assert math.isnan(crossing([0.0, 0.2], [-0.1, 0.0]))
    assert crossing([0.0, 0.5], [0.0, 0.1]) == 0.0


def stepped() -> QuestionRecord:
    passages = [Passage(title=name, text=name, identifier=name, is_supporting=name != "c") for name in "abc"]
    return QuestionRecord(
        identifier="q",
        question="?",
        answers=["2"],
        passages=passages,
        steps=[Step(question="one", answer="1", supporting="a"), Step(question="two #1", answer="2", supporting="b")],
        meta={NAMED_PASSAGES: True},
    )


def test_gold_steps_are_filled_and_name_their_passages():
    assert filled_steps(stepped()) == ["one", "two 1"]
    assert step_gold(stepped()) == ["a", "b"]
    broken = stepped()
    broken.steps[0].question = "of #3"
    with pytest.raises(DataError, match="refers to #3"):
        filled_steps(broken)


FIGURES = {
    "recall@2": 0.388,
    "recall@2_sub": 0.743,
    "recall@2_hotpotqa": 0.565,
    "recall@5_hotpotqa": 0.782,
    "recall@10_hotpotqa": 0.930,
    "recall@20_hotpotqa": 0.970,
    "all_gold@5_hotpotqa": 0.590,
}
"""Of the specification, to three digits."""


def questions(folder: Path, layout: str, file: str) -> QuestionSource:
    config = QuestionsConfig(_target_="", name=layout, layout=layout, files={"dev": file}, test_split="dev")
    config.dir = str(folder / "multihop_200")
    return QuestionSource(config)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "file", "ending", "size"),
    [("musique", "musique_200.json", "", 3141), ("hotpotqa", "hotpotqa_200.json", "_hotpotqa", 1971)],
)
def test_bm25_of_the_real_questions_is_that_of_an_exhaustive_twin_and_of_the_specification(
    shared_data: Path, tmp_path: Path, layout: str, file: str, ending: str, size: int
):
    source = questions(shared_data, layout, file)
    records = [record for record in source.records("dev") if isinstance(record, QuestionRecord)]
    corpus = ContextsCorpus(ContextsCorpusConfig(_target_=""), source=source)
    stages = StageStore(tmp_path)
    index = LexicalIndex(LexicalIndexConfig(_target_="", k1=1.2, b=0.75), corpus=corpus, stages=stages)
    pool = {passage.identifier: f"{passage.title} {passage.text}" for passage in corpus.passages()}
    assert len(pool) == size
    gold = [gold_ids(record) for record in records]
    queries = [record.question for record in records]
    found = [[hit.identifier for hit in of_query] for of_query in index.search(queries, k=20, language="en")]
    twin = reference.bm25(pool, queries, k=20)
    for k in (2, 5, 10, 20):
        ours = sum(recall(names[:k], of) for names, of in zip(found, gold, strict=True)) / len(gold)
        theirs = sum(reference.recall(names, of, k=k) for names, of in zip(twin, gold, strict=True)) / len(gold)
        assert ours == pytest.approx(theirs, abs=0.001)
        if f"recall@{k}{ending}" in FIGURES:
            assert ours == pytest.approx(FIGURES[f"recall@{k}{ending}"], abs=0.001)


@pytest.mark.shared
@pytest.mark.slow
def test_the_study_of_retrieval_gives_the_figures_of_the_specification(shared_data: Path, tmp_path: Path, cache: Path):
    folder = execute(
        run_config(
            [
                "experiment=dapt/retrieval",
                f"data.dir={shared_data / 'multihop_200'}",
                f"results_dir={tmp_path}",
                "eval.bootstrap=0",
            ]
        )
    )
    metrics = metrics_of(folder)
    for name, figure in FIGURES.items():
        assert metrics[f"test/{name}"] == pytest.approx(figure, abs=0.001)
    for k in (2, 5, 10, 20):
        assert metrics[f"test/recall@{k}_shared"] > metrics[f"test/recall@{k}"]
        assert metrics[f"test/recall@{k}_shared"] > metrics[f"test/recall@{k}_shared_p0.3"]


# -- when the second path pays -----------------------------------------------------------------------------------------


def test_the_simulation_of_independent_and_of_identical_errors():
    """(1 - p_s p_en)^n with a perfect merge, and what a draw of chains gives."""
    assert reference.chain_success(0.3, 0.1, 3) == pytest.approx(0.912673, abs=FLOAT64)
    assert reference.chain_success(1.0, 0.1, 3) == pytest.approx(0.729)
    assert reference.chain_success(0.1, 0.1, 3, are_identical=True) == pytest.approx(0.729)
    rng = random.Random(7)

    def succeeds(*, are_identical: bool) -> bool:
        for _ in range(3):
            english, source = rng.random() < 0.1, rng.random() < 0.3
            if english and (source or are_identical):
                return False
        return True

    number = 20_000
    free = sum(succeeds(are_identical=False) for _ in range(number)) / number
    same = sum(succeeds(are_identical=True) for _ in range(number)) / number
    assert free == pytest.approx(0.912673, abs=0.01)
    assert same == pytest.approx(0.729, abs=0.01)
