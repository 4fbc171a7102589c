"""BM25: the twin, bm25s's own lists, languages, what is kept on disk, and recall on real questions."""

import logging
import random
import re

import bm25s
import numpy as np
import pytest
from tests.retrieval import reference

from athlos.config.compose import run_config
from athlos.data.datamodule import build_source
from athlos.errors import ConfigError
from athlos.retrieval import lexical as lexical_module
from athlos.retrieval.building import build_index
from athlos.retrieval.config import LexicalIndexConfig
from athlos.retrieval.corpora import gold_ids, passage_id
from athlos.retrieval.corpus import GivenCorpus
from athlos.retrieval.interface import CorpusPassage
from athlos.retrieval.lexical import LexicalIndex, WeightedWords, write_bm25
from athlos.retrieval.local import best_rows
from athlos.stages import StageStore

WORDS = [f"w{number}" for number in range(40)]


def made_texts(count, *, seed=0):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, weights=range(40, 0, -1), k=rng.randint(1, 12))) for _ in range(count)]


def lexical(texts, folder, *, language="en", **values):
    values = {"k1": 1.2, "b": 0.75, **values}
    corpus = GivenCorpus(
        [CorpusPassage(identifier=f"p{row}", text=text, language=language) for row, text in enumerate(texts)]
    )
    return LexicalIndex(LexicalIndexConfig(**values), corpus=corpus, stages=StageStore(folder))


@pytest.mark.parametrize(("k1", "b", "counts_repeats"), [(1.2, 0.75, False), (0.5, 0.2, True), (2.0, 0.0, False)])
def test_scores_are_the_twins(tmp_path, k1, b, counts_repeats):
    texts, queries = made_texts(30), ["w1 w5 w5 w30", "w39 unknown", "w0"]
    index = lexical(texts, tmp_path, k1=k1, b=b, counts_repeats=counts_repeats)
    for query, hits in zip(queries, index.search(queries, k=30), strict=True):
        words = query.split() if counts_repeats else sorted(set(query.split()))
        scores = reference.bm25_scores(words, [text.split() for text in texts], k1=k1, b=b)
        wanted = {f"p{row}": score for row, score in enumerate(scores) if score > 0}
        assert {hit.identifier: hit.score for hit in hits} == pytest.approx(wanted, rel=1e-5)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_the_lists_are_those_of_bm25s(tmp_path):
    texts, queries = made_texts(300), made_texts(40, seed=1)
    model = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    model.index([text.split() for text in texts], show_progress=False)
    tokens = [list(dict.fromkeys(query.split())) for query in queries]
    rows, scores = model.retrieve(tokens, k=10, show_progress=False)
    found = lexical(texts, tmp_path).search(queries, k=10)
    for hits, own_rows, own_scores in zip(found, rows, scores, strict=True):
        assert [hit.score for hit in hits] == pytest.approx(own_scores[own_scores > 0].tolist(), rel=1e-6)
        above = [f"p{row}" for row, score in zip(own_rows, own_scores, strict=True) if score > own_scores[-1]]
        assert {hit.identifier for hit in hits} >= set(above)


def test_title_and_text_are_searched_and_passages_without_a_word_are_not_found(tmp_path):
    passages = [
        CorpusPassage(identifier="a", title="Königsberg", text="a city"),
        CorpusPassage(identifier="b", title="x", text="königsberg bridges"),
        CorpusPassage(identifier="c", title="y", text="..."),
    ]
    index = LexicalIndex(LexicalIndexConfig(k1=1.2, b=0.75), corpus=GivenCorpus(passages), stages=StageStore(tmp_path))
    hits, nothing, empty = index.search(["KÖNIGSBERG?", "absent", ""], k=3)
    assert {hit.identifier for hit in hits} == {"a", "b"}
    assert hits[0].title in ("Königsberg", "x")
    assert nothing == empty == []
    assert index.search([], k=3) == []


def test_equal_scores_keep_the_order_of_the_corpus(tmp_path):
    index = lexical(["same text"] * 9, tmp_path)
    assert [hit.identifier for hit in index.search(["text"], k=4)[0]] == ["p0", "p1", "p2", "p3"]


def test_best_rows_against_a_full_sort():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = rng.integers(0, 5, size=20).astype(np.float32)
        rows, k = rng.permutation(20), int(rng.integers(1, 25))
        wanted = sorted(zip(-scores, rows, strict=True))[:k]
        found = best_rows(rows, scores, k=k)
        assert list(zip(-found.scores, found.rows, strict=True)) == wanted


def test_an_index_is_built_once_and_its_key_is_its_content(tmp_path):
    first = lexical(["one", "two"], tmp_path)
    first.search(["one"], k=1)
    again = lexical(["one", "two"], tmp_path)
    again.search(["one"], k=1)
    assert all(product.reused for product in again.stages.history)
    assert first.key == again.key
    others = [lexical(["one", "three"], tmp_path), lexical(["one", "two"], tmp_path, b=0.5)]
    others.append(lexical(["one", "two"], tmp_path, counts_repeats=True))
    assert len({index.key for index in [first, *others]}) == 4
    assert not others[0].stages.history  # a key builds nothing


def test_unspaced_scripts_are_found_and_an_unknown_language_is_refused(tmp_path):
    texts = ["北京是中国的首都", "大阪は日本の都市です", "กรุงเทพเป็นเมืองหลวง"]
    for language, query, row in (("zh", "中国首都", "p0"), ("ja", "日本の", "p1"), ("th", "เมืองหลวง", "p2")):
        assert lexical(texts, tmp_path, language=language).search([query], k=1)[0][0].identifier == row
    with pytest.raises(ConfigError, match="language: got 'qq'"):
        lexical(texts, tmp_path, language="qq").search(["x"], k=1)
    with pytest.raises(ConfigError, match="got k = 0"):
        lexical(texts, tmp_path).search(["x"], k=0)


@pytest.mark.parametrize(("most_postings", "rows"), [(0, {0}), (3, {0}), (4, {0, 1, 2, 3}), (24, set(range(20)))])
def test_the_rarest_words_are_looked_up_alone(tmp_path, most_postings, rows):
    texts = [["rare"], *([["mid", "often"]] * 3), *([["often"]] * 16)]
    write_bm25(tmp_path, texts, k1=1.2, b=0.75)
    searcher = WeightedWords(tmp_path, analyse=str.split, most_postings=most_postings)
    [found] = searcher.search(["often mid unknown rare"], k=20)
    assert set(found.rows.tolist()) == rows


def test_many_queries_are_answered_in_blocks_alike(tmp_path, monkeypatch):
    index, queries = lexical(made_texts(30), tmp_path), made_texts(11, seed=2)
    whole = index.search(queries, k=3)
    monkeypatch.setattr(lexical_module, "QUERIES_AT_ONCE", 4)
    assert index.search(queries, k=3) == whole


def test_one_passage_that_answers_everything_is_told_once(tmp_path, caplog):
    texts = ["trap " + " ".join(f"q{number}" for number in range(20)), *(f"text {number}" for number in range(30))]
    queries = [f"q{number} trap" for number in range(20)]
    index = lexical(texts, tmp_path, b=0.0)
    with caplog.at_level(logging.WARNING, logger="athlos"):
        index.search(queries[:19] * 3, k=2)
        assert not caplog.records  # nineteen different questions say little
        index.search([*queries, "text"], k=2)
        index.search(["trap"], k=2)
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "index: passage 'p0' (en) is the first hit of 20 of 21 queries"
    ]


def test_first_hits_that_differ_say_nothing(tmp_path, caplog):
    texts = [f"text{number}" for number in range(25)]
    with caplog.at_level(logging.WARNING, logger="athlos"):
        lexical(texts, tmp_path).search(texts, k=1)
    assert not caplog.records


def test_an_index_wants_a_corpus():
    with pytest.raises(ConfigError, match="corpus: got none, but the index needs passages to search"):
        run_config(["index=lexical"])
    run = run_config(["index=lexical", "corpus=passages", "corpus.path=p.jsonl", "index.k1=0"])
    assert (run.index.k1, run.index.b) == (0, 0.75)


def multihop(shared_data, tmp_path, *, data, file):
    """(index, records with gold, texts as the twin reads them)."""
    folder = shared_data / "multihop_200"
    run = run_config(
        [f"data={data}", f"data.dir={folder}", f"data.files={{dev: {file}}}", "corpus=contexts", "index=lexical"]
    )
    source = build_source(run)
    index = build_index(run, source=source, stages=StageStore(tmp_path))
    return index, [record for record in source.records("dev") if gold_ids(record)]


def found_ids(index, queries, *, k=20):
    return [[hit.identifier for hit in hits] for hits in index.search(queries, k=k)]


def twin_ids(index, queries, *, k=20):
    passages = list(index.store.passages("en"))
    lists = reference.bm25_lists(queries, [f"{passage.title} {passage.text}" for passage in passages], k=k)
    return [[passages[row].identifier for row in rows] for rows in lists]


@pytest.mark.shared
def test_questions_of_every_script_find_their_paragraph(shared_data, tmp_path):
    overrides = [f"data.dir={shared_data / 'xquad'}", "data.languages=[en,hi,th,zh]", "train.max_steps=0"]
    run = run_config(["data=xquad", *overrides, "corpus=contexts", "index=lexical"])
    source = build_source(run)
    index = build_index(run, source=source, stages=StageStore(tmp_path))
    assert len({name for language in index.languages for name in index.store.identifiers(language)}) == 240
    for language in index.languages:
        records = [record for record in source.records("test") if record.language == language]
        hits = index.search([record.question for record in records], k=5, language=language)
        found = [[hit.identifier for hit in passages] for passages in hits]
        assert reference.recall(found, [gold_ids(record) for record in records], k=5) >= 0.97


@pytest.mark.shared
def test_recall_on_hotpotqa_is_that_of_the_specification(shared_data, tmp_path):
    index, records = multihop(shared_data, tmp_path, data="hotpotqa", file="hotpotqa_200.json")
    gold, found = [gold_ids(record) for record in records], found_ids(index, [record.question for record in records])
    assert index.store.num_passages("en") == 1971
    recalls = {k: reference.recall(found, gold, k=k) for k in (2, 5, 10, 20)}
    assert recalls == pytest.approx({2: 0.565, 5: 0.782, 10: 0.930, 20: 0.970}, abs=0.001)
    all_gold = sum(set(wanted) <= set(ids[:5]) for wanted, ids in zip(gold, found, strict=True)) / len(gold)
    assert all_gold == pytest.approx(0.590, abs=0.001)
    repeated = LexicalIndex(
        LexicalIndexConfig(k1=1.2, b=0.75, counts_repeats=True), corpus=index.corpus, stages=index.stages
    )
    found = found_ids(repeated, [record.question for record in records])
    recalls = {k: reference.recall(found, gold, k=k) for k in (2, 5, 10, 20)}
    assert recalls == pytest.approx({2: 0.568, 5: 0.780, 10: 0.922, 20: 0.970}, abs=0.001)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "file"),
    [
        ("hotpotqa", "hotpotqa_200.json"),
        ("musique", "musique_200.json"),
        ("two_wiki", "2wikimultihopqa_200.json"),
    ],
)
def test_recall_is_that_of_the_exhaustive_twin(shared_data, tmp_path, data, file):
    index, records = multihop(shared_data, tmp_path, data=data, file=file)
    questions, gold = [record.question for record in records], [gold_ids(record) for record in records]
    found, twin = found_ids(index, questions), twin_ids(index, questions)
    for k in (2, 5, 10, 20):
        assert reference.recall(found, gold, k=k) == pytest.approx(reference.recall(twin, gold, k=k), abs=0.001)


@pytest.mark.shared
def test_recall_on_musique_with_whole_questions_and_with_gold_sub_questions(shared_data, tmp_path):
    index, records = multihop(shared_data, tmp_path, data="musique", file="musique_200.json")
    assert index.store.num_passages("en") == 3141
    found = found_ids(index, [record.question for record in records])
    assert reference.recall(found, [gold_ids(r) for r in records], k=2) == pytest.approx(0.388, abs=0.001)
    queries, gold = [], []
    for record in records:
        for step in record.steps:
            filled = re.sub(r"#(\d+)", lambda match, steps=record.steps: steps[int(match[1]) - 1].answer, step.question)
            [passage] = [passage for passage in record.passages if passage.identifier == step.supporting]
            queries.append(filled)
            gold.append([passage_id(record, passage)])
    assert len(queries) == 478
    assert reference.recall(found_ids(index, queries), gold, k=2) == pytest.approx(0.743, abs=0.001)
