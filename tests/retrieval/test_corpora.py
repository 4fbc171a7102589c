"""Corpora: one's own files, a file of passages, what a data set carries; and their store on disk."""

import json

import pytest

from athlos.config.compose import run_config
from athlos.data.datamodule import build_source
from athlos.data.records import MathRecord
from athlos.errors import ConfigError, DataError
from athlos.retrieval.building import build_index
from athlos.retrieval.config import ContextsCorpusConfig, FilesCorpusConfig, PassagesCorpusConfig
from athlos.retrieval.corpora import (
    ContextsCorpus,
    FilesCorpus,
    PassagesCorpus,
    content_id,
    cut,
    gold_ids,
    record_passages,
)
from athlos.retrieval.corpus import GivenCorpus
from athlos.retrieval.interface import CorpusPassage
from athlos.stages import StageStore


def files_corpus(folder, *, max_characters=100):
    return FilesCorpus(FilesCorpusConfig(path=str(folder), max_characters=max_characters))


def test_own_files_become_passages_with_titles_and_places(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.md").write_text(
        "Before.\n# One #\nfirst\nline\n\nsecond\n## Two\nthird\n", encoding="utf-8"
    )
    (tmp_path / "a.txt").write_text("# no heading\n\n\nÜber uns 言葉\n", encoding="utf-8")
    (tmp_path / "c.jsonl").write_text('{"text": "x", "title": "T", "language": "de"}\n{"id": 7, "text": "y"}\n')
    (tmp_path / ".hidden.txt").write_text("secret")
    (tmp_path / "d.csv").write_text("not read")
    found = [(p.identifier, p.title, p.text, p.language) for p in files_corpus(tmp_path).passages()]
    assert found == [
        ("a.txt#1", "a", "# no heading\n\nÜber uns 言葉", "en"),
        ("c.jsonl#1", "T", "x", "de"),
        ("c.jsonl#7", "", "y", "en"),
        ("deep/b.md#1", "b", "Before.", "en"),
        ("deep/b.md#2", "One", "first\nline\n\nsecond", "en"),
        ("deep/b.md#3", "Two", "third", "en"),
    ]


def test_a_link_out_of_the_folder_is_not_read(tmp_path):
    (tmp_path / "outside.txt").write_text("secret")
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "a.txt").write_text("mine")
    (folder / "b.txt").symlink_to(tmp_path / "outside.txt")
    assert [passage.text for passage in files_corpus(folder).passages()] == ["mine"]


def test_passages_fit_and_lose_nothing():
    long = "One is short. Two is a little longer. " + "x" * 50 + " end."
    pieces = [text for _, text in cut(iter([("", "aa"), ("", "bb"), ("", long)]), max_characters=20, language="en")]
    assert all(len(piece) <= 20 for piece in pieces)
    assert "".join(pieces).replace("\n", "").replace(" ", "") == f"aabb{long}".replace(" ", "")
    assert pieces[0] == "aa\n\nbb"
    assert "One is short." in pieces


def test_the_fingerprint_of_files_is_their_content_and_names(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    before = files_corpus(tmp_path).fingerprint()
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    renamed = files_corpus(tmp_path).fingerprint()
    (tmp_path / "b.txt").write_text("two")
    assert len({before, renamed, files_corpus(tmp_path).fingerprint()}) == 3


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"corpus.path: .*missing' is not a folder"):
        files_corpus(tmp_path / "missing").fingerprint()
    with pytest.raises(DataError, match=r"no file below it ends in .txt, .md, .jsonl"):
        files_corpus(tmp_path).fingerprint()


def passages_corpus(path):
    return PassagesCorpus(PassagesCorpusConfig(path=str(path)))


def test_a_file_of_passages(tmp_path):
    path = tmp_path / "p.jsonl"
    rows = [
        {"_id": "d1", "title": "T", "text": "x"},
        {"id": 2, "text": "y", "language": "zh"},
        {"title": "U", "text": "z"},
        {"title": "U", "text": "z"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = list(passages_corpus(path).passages())
    assert [(p.identifier, p.language) for p in found] == [("d1", "en"), ("2", "zh"), (content_id("U", "z"), "en")]


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ('{"title": "T"}', r"p.jsonl:1 field 'text': missing"),
        ('{"text": " "}', r"p.jsonl:1 field 'text': empty"),
        ('{"text": "x", "title": 3}', r"p.jsonl:1 field 'title': expected str, got int"),
        ("nonsense", r"p.jsonl:1: not JSON"),
    ],
)
def test_a_bad_passage_is_named(tmp_path, row, error):
    path = tmp_path / "p.jsonl"
    path.write_text(row)
    with pytest.raises(DataError, match=error):
        list(passages_corpus(path).passages())


def test_one_id_twice_in_a_language_is_refused_and_in_two_is_not(tmp_path):
    stages = StageStore(tmp_path)
    german = CorpusPassage(identifier="1", text="drei", language="de")
    english = CorpusPassage(identifier="1", text="three")
    store = GivenCorpus([german, english]).store(stages)
    assert (store.languages, store.identifiers("de"), store.identifiers("en")) == (["de", "en"], ["1"], ["1"])
    with pytest.raises(DataError, match="two passages in 'en' have the id '1'"):
        GivenCorpus([english, english]).store(stages)
    with pytest.raises(DataError, match="it holds no passages"):
        GivenCorpus([]).store(stages)


def test_the_store_gives_back_what_went_in_by_row(tmp_path):
    passages = [CorpusPassage(identifier=str(i), title="T\n", text=f"言\u2028{i}") for i in range(5)]
    store = GivenCorpus(passages).store(StageStore(tmp_path))
    assert list(store.passages("en")) == passages
    assert store.read("en", [3, 0, 4]) == [passages[3], passages[0], passages[4]]
    assert store.num_passages("en") == 5


def test_a_language_of_a_file_names_no_file(tmp_path):
    store = GivenCorpus([CorpusPassage(identifier="1", text="x", language="../../out")]).store(StageStore(tmp_path))
    assert [passage.text for passage in store.passages("../../out")] == ["x"]
    assert not (tmp_path.parent / "out.jsonl").exists()


def xquad_files(folder):
    for language, texts in (("en", ("one text", "two text")), ("de", ("ein Text", "zwei Texte"))):
        paragraphs = [
            {
                "context": text,
                "qas": [
                    {"id": f"q{number}{letter}", "question": "?", "answers": [{"text": text[:3], "answer_start": 0}]}
                    for letter in "ab"
                ],
            }
            for number, text in enumerate(texts)
        ]
        document = {"data": [{"title": "T", "paragraphs": paragraphs}]}
        (folder / f"xquad.{language}.json").write_text(json.dumps(document), encoding="utf-8")


def test_a_paragraph_has_one_id_in_all_languages_and_gold_finds_it(tmp_path):
    xquad_files(tmp_path)
    run = run_config(
        [
            "data=xquad",
            f"data.dir={tmp_path}",
            "data.languages=[de,en]",
            "train.max_steps=0",
            "corpus=contexts",
            "index=lexical",
        ]
    )
    source = build_source(run)
    index = build_index(run, source=source, stages=StageStore(tmp_path / "cache"))
    assert list(index.languages) == ["de", "en"]
    [[german]] = index.search(["zwei"], k=5, language="de")
    [[english]] = index.search(["two"], k=1, language="en")
    assert (german.identifier, german.text) == (english.identifier, "zwei Texte")
    records = {record.identifier: record for record in source.records("test")}
    assert gold_ids(records["de-q1b"]) == gold_ids(records["en-q1a"]) == [german.identifier]
    with pytest.raises(ConfigError, match="no language named; the corpus has: de, en"):
        index.search(["two"], k=1)
    with pytest.raises(ConfigError, match=r"language 'dee' is not in the corpus; did you mean 'de'\?"):
        index.search(["two"], k=1, language="dee")


def test_contexts_are_pooled_once_with_distractors(tmp_path):
    rows = [
        {
            "id": f"2hop__{number}",
            "question": "?",
            "answer": "a",
            "answer_aliases": [],
            "paragraphs": [
                {"idx": 0, "title": "T", "paragraph_text": "same", "is_supporting": False},
                {"idx": 1, "title": "T", "paragraph_text": f"own {number}", "is_supporting": True},
            ],
            "question_decomposition": [],
        }
        for number in range(2)
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "more.jsonl").write_text('{"title": "T", "text": "same"}\n{"title": "D", "text": "far"}\n')
    run = run_config(
        ["data=musique", f"data.dir={tmp_path}", "data.files={dev: q.jsonl}", "corpus=contexts", "index=lexical"]
    )
    source = build_source(run)
    config = ContextsCorpusConfig(distractors=str(tmp_path / "more.jsonl"))
    corpus = ContextsCorpus(config, source=source)
    assert [passage.text for passage in corpus.passages()] == ["same", "own 0", "own 1", "far"]
    assert [gold_ids(record) for record in source.records("dev")] == [[content_id("T", f"own {i}")] for i in range(2)]
    assert corpus.fingerprint() != ContextsCorpus(ContextsCorpusConfig(), source=source).fingerprint()


def test_records_without_passages_are_refused():
    with pytest.raises(DataError, match="a MathRecord carries no passages"):
        list(record_passages(MathRecord(identifier="1", question="?", answer="1")))


def test_a_content_id_tells_titles_and_texts_apart():
    assert len({content_id("T", "x"), content_id("U", "x"), content_id("T", "y"), content_id("Tx", ""), ""}) == 5
    assert content_id("T", "x") == content_id("T", "x")
