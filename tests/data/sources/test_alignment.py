"""Parallel text for SLAM: which lines go where, from files in the official formats and from the lab."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from athlos.config.compose import run_config
from athlos.data.parallel_texts import parallel_texts
from athlos.data.records import MathRecord, ParallelRecord, QuestionRecord, TextRecord
from athlos.data.source import build_source
from athlos.errors import ConfigErrors, DataError
from athlos.text.prompts import build_prompt, completion

NUM_LINES = 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("ntrex", "msvamp", "gsm8k", "mgsm", "xquad", "wikitext2"):
        (tmp_path / name).mkdir()
    for kind, code in (("src", "eng"), ("ref", "deu")):
        lines = [f"{code} line {number}" + " long" * (40 * (number == 2)) for number in range(NUM_LINES)]
        (tmp_path / "ntrex" / f"newstest2019-{kind}.{code}.txt").write_text("\n".join(lines) + "\n")
    problems = [{"query": f"q {n}", "equation": "", "response": f"{n}.0", "m_query": f"Frage {n}"} for n in range(12)]
    (tmp_path / "msvamp" / "test_German.json").write_text("\n".join(map(json.dumps, problems)))
    solved = [{"question": f"g {n}", "answer": f"{'why ' * (1 + 90 * (n == 1))}\n#### {n}"} for n in range(3)]
    (tmp_path / "gsm8k" / "train.jsonl").write_text("\n".join(map(json.dumps, solved)))
    for code in ("en", "de"):
        (tmp_path / "mgsm" / f"mgsm_{code}.tsv").write_text("".join(f"{code} m {n}\t{n}\n" for n in range(5)))
        answers = [{"text": "a", "answer_start": 0}]
        paragraphs = [
            {"context": "a b", "qas": [{"id": f"{n}", "question": f"{code} {n}", "answers": answers}]} for n in range(4)
        ]
        text = json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]})
        (tmp_path / "xquad" / f"xquad.{code}.json").write_text(text)
    (tmp_path / "wikitext2" / "test.txt").write_text(" \n = Title = \n \n Some text . \n")
    return tmp_path


def source_of(folder: Path, *overrides: str) -> Any:
    return build_source(
        run_config(
            [
                "data=alignment",
                f"data.dir={folder}",
                "data.languages=[de]",
                "data.num_train_lines=10",
                "data.num_probe_lines=15",
                "data.num_test_lines=5",
                "train.max_steps=0",
                "data.tests={translation: 3, math: 2, qa: 1, text: 1}",
                *overrides,
            ]
        )
    )


def test_training_mixes_sentences_and_questions_into_english(folder: Path) -> None:
    found = list(source_of(folder).records("train"))
    assert [record.identifier for record in found[:4]] == ["ntrex-0-de", "msvamp-de-1", "ntrex-1-de", "msvamp-de-2"]
    assert (found[0].source, found[0].target, found[0].source_language) == ("deu line 0", "eng line 0", "de")
    assert found[0].language == found[1].language == "en"
    assert "ntrex-2-de" not in {record.identifier for record in found}  # too long
    assert len(found) == 18  # nine short lines, as many questions


@pytest.mark.parametrize(("pairs", "start"), [("sentences", "ntrex"), ("questions", "msvamp")])
def test_one_kind_of_pairs_alone(pairs: str, start: str, folder: Path) -> None:
    found = list(source_of(folder, f"data.pairs={pairs}").records("train"))
    assert all(record.identifier.startswith(start) for record in found)


def test_no_line_is_in_two_splits_and_the_probe_is_parallel(folder: Path) -> None:
    source = source_of(folder)
    lines = {
        split: {record.meta["item"] for record in source.records(split) if record.identifier.startswith("ntrex")}
        for split in ("train", "probe", "test")
    }
    assert lines["probe"] == set(range(10, 25))
    assert lines["test"] == {25, 26, 27}
    assert not lines["train"] & lines["probe"]
    texts = parallel_texts(source.records("probe"), languages=[], num_items=15)
    assert texts["en"][0] == "eng line 10"
    assert texts["de"][0] == "deu line 10"


def test_the_tests_are_records_of_four_kinds(folder: Path) -> None:
    kinds = [type(record) for record in source_of(folder).records("test")]
    assert kinds == [ParallelRecord] * 3 + [MathRecord] * 4 + [QuestionRecord] * 2 + [TextRecord]


def test_the_second_stage_has_short_solutions_only(folder: Path) -> None:
    assert [record.question for record in source_of(folder).records("reason")] == ["g 0", "g 2"]


def test_too_many_lines_and_a_language_without_problems_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="more than the 30 lines"):
        list(source_of(folder, "data.num_train_lines=20").records("train"))
    with pytest.raises(ConfigErrors, match="got 'maths', expected any of translation"):
        source_of(folder, "+data.tests.maths=2")
    with pytest.raises(ConfigErrors, match="expected languages other than en"):
        source_of(folder, "data.languages=[en]")


def lab(*overrides: str) -> Any:
    values = [
        "data=lab_alignment",
        "prompt_style=bare",
        "data.num_pairs=3",
        "data.num_probe_items=4",
        "data.num_probes=2",
    ]
    return build_source(run_config([*values, "train.max_steps=0", *overrides]))


def test_lab_pairs_are_translations_by_the_oracle() -> None:
    from athlos.lab.sums import translate

    source = lab()
    found = list(source.records("train"))
    assert len(found) == 4 * 3 * 2
    for record in found:
        assert record.target == translate(
            record.source, source.world.languages, source=record.source_language, target="latn"
        )
        text = build_prompt(record, shots=(), style="bare") + completion(record, "bare")
        assert text == f"{record.source} = {record.target}"
    assert {record.identifier.split("-")[0] for record in lab("data.pairs=answer").records("train")} == {"answer"}


def test_lab_sums_of_train_probe_and_test_differ() -> None:
    source = lab()
    questions = {
        split: {record.question for record in source.records(split) if isinstance(record, QuestionRecord)}
        for split in ("reason", "probe", "test")
    }
    assert all(questions.values())
    assert not questions["probe"] & questions["test"]
    texts = parallel_texts(source.records("probe"), languages=[], num_items=4)
    assert list(texts) == ["latn", "cyrl", "grek", "thai", "hani"]
    kinds = {type(record) for record in islice(source.records("test"), 200)}
    assert kinds == {QuestionRecord, ParallelRecord}
