"""MGSM, MSVAMP, GSM8K and MMATH: invented files in the official formats, and the real ones where they are."""

import importlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import pytest

from athlos.config.compose import run_config
from athlos.config.schema import DataConfig
from athlos.data.records import MathRecord
from athlos.data.source import Source
from athlos.data.sources.gsm8k import Gsm8kSource
from athlos.data.sources.mgsm import MgsmSource
from athlos.data.sources.msvamp import MsvampSource
from athlos.errors import DataError


@cache
def composed(name: str, *overrides: str) -> DataConfig:
    return run_config([f"data={name}", "train.max_steps=0", *overrides]).data


def source(name: str, folder: Path | None, *overrides: str) -> Source[Any]:
    """The source as a run would build it, from the shipped YAML; no folder means the hub."""
    config = replace(composed(name, *overrides), dir=str(folder) if folder else None)
    module, _, cls = config._target_.rpartition(".")
    built = getattr(importlib.import_module(module), cls)(config)
    assert isinstance(built, Source)
    return built


def write_lines(path: Path, *lines: str) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def dumps(**values: Any) -> str:
    return json.dumps(values, ensure_ascii=False)


@pytest.fixture
def mgsm(tmp_path: Path) -> Path:
    write_lines(tmp_path / "mgsm_en.tsv", "How many eggs?\t18", "How far is it?\t2,125")
    write_lines(tmp_path / "mgsm_bn.tsv", "কতটি ডিম, ১২টি?\t১৮", "কত দূর?\t2,125")
    write_lines(tmp_path / "mgsm_de.tsv", "Wie viele Eier kosten 1.000 Euro?\t-18", "Wie weit?\t2,125")
    return tmp_path


@pytest.mark.parametrize("name", ["mgsm", "msvamp", "gsm8k", "mmath"])
def test_shipped_values_compose_and_name_no_split_that_is_not_there(name: str) -> None:
    data = run_config([f"data={name}", "train.max_steps=0"]).data
    assert (data.name, data.test_split, data.val_split) == (name, "test", None)
    assert data.train_split == ("train" if name == "gsm8k" else None)


def test_mgsm_keeps_text_digits_and_commas(mgsm: Path) -> None:
    records = list(source("mgsm", mgsm, "data.languages=[bn,de]").records("test"))
    assert records == [
        MathRecord(identifier="bn-1", language="bn", question="কতটি ডিম, ১২টি?", answer="১৮", english="How many eggs?"),
        MathRecord(identifier="bn-2", language="bn", question="কত দূর?", answer="2,125", english="How far is it?"),
        MathRecord(
            identifier="de-1",
            language="de",
            question="Wie viele Eier kosten 1.000 Euro?",
            answer="-18",
            english="How many eggs?",
        ),
        MathRecord(identifier="de-2", language="de", question="Wie weit?", answer="2,125", english="How far is it?"),
    ]


def test_mgsm_without_the_english_file_has_no_english(mgsm: Path) -> None:
    wanted = source("mgsm", mgsm, "data.languages=[de]")
    assert [path.name for path in wanted.files("test")] == ["mgsm_de.tsv", "mgsm_en.tsv"]
    with_english = wanted.fingerprint("test")
    (mgsm / "mgsm_en.tsv").unlink()
    wanted = source("mgsm", mgsm, "data.languages=[de]")
    assert [record.english for record in wanted.records("test")] == ["", ""]
    assert wanted.fingerprint("test") != with_english


def test_limit_is_a_limit_on_each_language(mgsm: Path) -> None:
    limited = source("mgsm", mgsm, "data.languages=[de,bn]").records("test", limit=1)
    assert [record.identifier for record in limited] == ["de-1", "bn-1"]


def test_a_line_without_tab_names_file_line_and_field(mgsm: Path) -> None:
    write_lines(mgsm / "mgsm_de.tsv", *[f"Frage {n}?\t{n}" for n in range(1, 17)], "Frage 17? 17", "Frage 18?\t18")
    with pytest.raises(DataError) as caught:
        list(source("mgsm", mgsm, "data.languages=[de]").records("test"))
    assert str(caught.value).startswith(f"{mgsm / 'mgsm_de.tsv'}:17 field 'answer': missing")
    skipping = source("mgsm", mgsm, "data.languages=[de]", "data.on_bad=skip")
    assert [record.identifier for record in skipping.records("test")][-2:] == ["de-16", "de-18"]
    assert skipping.num_bad == 1


@pytest.mark.parametrize(
    ("line", "field"), [("Q\tten", "answer"), ("Q\t1\t2", "answer"), ("Q\t", "answer"), ("\t3", "question")]
)
def test_other_bad_lines_of_mgsm(tmp_path: Path, line: str, field: str) -> None:
    write_lines(tmp_path / "mgsm_sw.tsv", line)
    with pytest.raises(DataError) as caught:
        list(source("mgsm", tmp_path, "data.languages=[sw]").records("test"))
    assert (caught.value.line, caught.value.field) == (1, field)


@pytest.mark.parametrize("name", ["mgsm", "msvamp", "mmath"])
def test_unknown_languages_and_splits_list_what_is_accepted(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.languages: 'esp' is unknown; did you mean 'es'\? accepted: .*en, es"):
        source(name, tmp_path, "data.languages=[en,esp]")
    with pytest.raises(DataError, match=r"got en, en, expected each language once"):
        source(name, tmp_path, "data.languages=[en,en]")
    with pytest.raises(DataError, match=r"got none, expected each language once"):
        source(name, tmp_path, "data.languages=[]")
    built = source(name, tmp_path, "data.languages=[en]")
    for ask in (
        built.files,
        lambda split: list(built.records(split)),
        lambda split: list(built.records(split, limit=1)),
    ):
        with pytest.raises(DataError, match=r"split 'tset' is unknown; did you mean 'test'\? accepted: test"):
            ask("tset")


def test_a_missing_file_lists_what_is_there(mgsm: Path) -> None:
    with pytest.raises(DataError, match=r"mgsm_th.tsv: no such file.*mgsm_bn.tsv, mgsm_de.tsv"):
        list(source("mgsm", mgsm, "data.languages=[th]").records("test"))


def test_msvamp_answers_lose_only_a_zero_fraction(tmp_path: Path) -> None:
    responses = ("8.0", "7.50", "100", "-2.00", 3.0)
    rows = [dumps(query="a?", equation="+ 1 2", response=response, m_query="กี่ ๓?") for response in responses]
    write_lines(tmp_path / "test_Thai.json", *rows)
    write_lines(tmp_path / "test_English.json", dumps(m_query="how many?", equation="- 2 1", response="1.0"))
    records = list(source("msvamp", tmp_path, "data.languages=[th,en]").records("test"))
    assert [record.answer for record in records] == ["8", "7.50", "100", "-2", "3", "1"]
    assert records[0] == MathRecord(
        identifier="th-1", language="th", question="กี่ ๓?", answer="8", english="a?", meta={"equation": "+ 1 2"}
    )
    assert (records[-1].identifier, records[-1].english) == ("en-1", "how many?")


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"query": "a", "response": "8.0"}, "m_query"),
        ({"query": "a", "m_query": "b"}, "response"),
        ({"query": "a", "m_query": "b", "response": "nan"}, "response"),
        ({"m_query": "b", "response": "1.0"}, "query"),
    ],
)
def test_bad_rows_of_msvamp_name_the_field(tmp_path: Path, values: dict[str, str], field: str) -> None:
    write_lines(tmp_path / "test_Thai.json", dumps(query="a", m_query="b", response="1.0"), dumps(**values))
    with pytest.raises(DataError) as caught:
        list(source("msvamp", tmp_path, "data.languages=[th]").records("test"))
    assert (caught.value.line, caught.value.field) == (2, field)


WORKED = "She lays 16 - 3 = <<16-3=13>>13 eggs.\nThat is $<<13*100=1300>>1,300.\n#### 1,300"


def test_gsm8k_parts_the_worked_text_from_the_answer(tmp_path: Path) -> None:
    write_lines(tmp_path / "test.jsonl", dumps(question="How much?", answer=WORKED))
    [record] = source("gsm8k", tmp_path).records("test")
    assert record == MathRecord(
        identifier="test-1",
        question="How much?",
        english="How much?",
        answer="1300",
        solution="She lays 16 - 3 = 13 eggs.\nThat is $1,300.",
    )
    [kept] = source("gsm8k", tmp_path, "data.keep_calculations=true").records("test")
    assert kept.solution == "She lays 16 - 3 = <<16-3=13>>13 eggs.\nThat is $<<13*100=1300>>1,300."


@pytest.mark.parametrize("answer", ["No mark 7", "Text\n#### seven", "Text\n####", 7])
def test_gsm8k_without_a_final_number_is_refused(tmp_path: Path, answer: Any) -> None:
    good = [dumps(question="q", answer="Text\n#### 7")] * 16
    write_lines(tmp_path / "train.jsonl", *good, dumps(question="q", answer=answer), *good)
    with pytest.raises(DataError) as caught:
        list(source("gsm8k", tmp_path).records("train"))
    assert (caught.value.line, caught.value.field) == (17, "answer")
    skipping = source("gsm8k", tmp_path, "data.on_bad=skip")
    assert (len(list(skipping.records("train"))), skipping.num_bad) == (32, 1)


def test_gsm8k_splits_are_those_of_the_config(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split 'trian' is unknown; did you mean 'train'\? accepted: train, test"):
        list(source("gsm8k", tmp_path).records("trian"))


def mmath_row(number: int, **values: Any) -> dict[str, Any]:
    row = {
        "question": f"Trouver $x_{number}$ é",
        "answer": f"$\\frac{{1}}{{{number}}}$",
        "data_source": "CNMO",
        "data_source_id": number,
        "lang": "fr",
        "gid": number + 30,
    }
    return row | values


@pytest.mark.parametrize(
    "write", [lambda rows: json.dumps(rows, indent=2), lambda rows: "\n".join(map(json.dumps, rows))]
)
def test_mmath_as_array_or_lines(tmp_path: Path, write: Callable[[list[dict[str, Any]]], str]) -> None:
    french = [mmath_row(0), mmath_row(1, answer=204)]
    # The English file is in another order: problems are paired by where they come from.
    english = [mmath_row(1, question="Find one", lang="en"), mmath_row(0, question="Find nought", lang="en")]
    tmp_path.joinpath("fr.json").write_text(write(french), encoding="utf-8")
    tmp_path.joinpath("en.json").write_text(write(english), encoding="utf-8")
    records = list(source("mmath", tmp_path, "data.languages=[fr]").records("test"))
    assert records[0] == MathRecord(
        identifier="fr-CNMO-0",
        language="fr",
        question="Trouver $x_0$ é",
        answer="$\\frac{1}{0}$",
        english="Find nought",
        meta={"source": "CNMO", "source_id": 0, "gid": 30},
    )
    assert (records[1].answer, records[1].english) == ("204", "Find one")


@pytest.mark.parametrize(
    ("broken", "field"),
    [({"lang": "es"}, "lang"), ({"answer": None}, "answer"), ({"data_source": 3}, "data_source")],
)
def test_bad_problems_of_mmath_name_element_and_field(tmp_path: Path, broken: dict[str, Any], field: str) -> None:
    tmp_path.joinpath("fr.json").write_text(json.dumps([mmath_row(0), mmath_row(1, **broken)]), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        list(source("mmath", tmp_path, "data.languages=[fr]").records("test"))
    assert caught.value.field == f"[1].{field}"
    skipping = source("mmath", tmp_path, "data.languages=[fr]", "data.on_bad=skip")
    assert ([record.identifier for record in skipping.records("test")], skipping.num_bad) == (["fr-CNMO-0"], 1)


def test_mmath_has_no_hub_data_set() -> None:
    with pytest.raises(DataError, match=r"data=mmath has no hub data set; set data.dir="):
        list(source("mmath", None).records("test"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Makes a local folder that `datasets` reads like a repository: {configuration: {split: rows}}."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub_cache")

    def make(**configs: dict[str, list[dict[str, Any]]]) -> str:
        folder = tmp_path / "repository"
        folder.mkdir()
        header = "---\nconfigs:\n"
        for config, splits in configs.items():
            header += f"- config_name: {config}\n  data_files:\n"
            for split, rows in splits.items():
                write_lines(folder / f"{config}_{split}.jsonl", *[dumps(**row) for row in rows])
                header += f"  - {{split: {split}, path: {config}_{split}.jsonl}}\n"
        folder.joinpath("README.md").write_text(f"{header}---\n", encoding="utf-8")
        return str(folder)

    return make


def test_mgsm_from_the_hub(hub: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"question": "Wie viele?", "answer": None, "answer_number": 2125, "equation_solution": None}
    repository = hub(de={"test": [row]}, en={"test": [row | {"question": "How many?"}]})
    monkeypatch.setattr(MgsmSource, "hub", repository)
    [record] = source("mgsm", None, "data.languages=[de]").records("test", limit=5)
    assert record == MathRecord(
        identifier="de-1", language="de", question="Wie viele?", answer="2125", english="How many?"
    )


def test_msvamp_and_gsm8k_from_the_hub(hub: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    repository = hub(
        th={"test": [{"query": "a", "equation": "e", "response": "8.0", "m_query": "ก"}]},
        main={"train": [{"question": "Q", "answer": "A <<1+1=2>>2\n#### 2"}, {"question": "Q", "answer": "none"}]},
    )
    monkeypatch.setattr(MsvampSource, "hub", repository)
    monkeypatch.setattr(Gsm8kSource, "hub", repository)
    [record] = source("msvamp", None, "data.languages=[th]").records("test")
    assert (record.question, record.answer, record.english) == ("ก", "8", "a")
    with pytest.raises(DataError, match=r"hub:.*:2 field 'answer'"):
        list(source("gsm8k", None).records("train"))
    skipping = source("gsm8k", None, "data.on_bad=skip")
    assert [record.solution for record in skipping.records("train")] == ["A 2"]
    assert skipping.num_bad == 1


def test_a_run_reads_its_data_from_the_hub(
    hub: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tiny: list[str], run: Callable[..., tuple[int, str, str]]
) -> None:
    rows = [{"question": f"{number} + 1?", "answer": f"So {number + 1}.\n#### {number + 1}"} for number in range(4)]
    monkeypatch.setattr(Gsm8kSource, "hub", hub(main={"train": rows, "test": rows}))
    of_hub = [item for item in tiny if not item.startswith(("data=", "data.dir=", "eval.suites"))]
    code, _, error = run("run", *of_hub, "data=gsm8k", "train.max_steps=1", "decoding.max_new_tokens=2")
    assert code == 0, error


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "split", "languages", "each"),
    [("mgsm", "test", 11, 250), ("msvamp", "test", 10, 1000), ("gsm8k", "train", 1, 7473), ("gsm8k", "test", 1, 1319)],
)
def test_real_files_whole(shared_data: Path, name: str, split: str, languages: int, each: int) -> None:
    records = list(source(name, shared_data / name).records(split))
    assert all(isinstance(record, MathRecord) and record.question and record.english for record in records)
    assert len({record.identifier for record in records}) == len(records)
    counts = Counter(record.language for record in records)
    assert len(counts) == languages
    assert set(counts.values()) == {each}
    assert not any("<<" in record.solution or "####" in record.solution for record in records)
    for record in records:
        float(record.answer.replace(",", ""))


@pytest.mark.shared
def test_real_mgsm_is_parallel(shared_data: Path) -> None:
    records = list(source("mgsm", shared_data / "mgsm").records("test"))
    # A question in English has one answer in all eleven languages: the pairing is right.
    answers = {(record.english, record.answer) for record in records}
    assert len(answers) == len({record.english for record in records}) == 250
    assert sum("," in answer for _, answer in answers) == 4
