"""Questions with short answers, and passages: invented files in the official formats, and the real ones."""

import importlib
import json
import logging
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
from athlos.data.records import Passage, QuestionRecord, Step, TextRecord
from athlos.data.source import Source
from athlos.data.sources.questions import LAYOUTS
from athlos.data.sources.squad import SquadSource, XquadSource
from athlos.errors import ConfigErrors, DataError


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


def as_lines(rows: list[Any]) -> str:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


def as_array(rows: list[Any]) -> str:
    return json.dumps(rows, ensure_ascii=False)


BOTH_FORMS = pytest.mark.parametrize("form", [as_lines, as_array])
Form = Callable[[list[Any]], str]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path.parent


def refused(name: str, folder: Path, split: str, *overrides: str) -> DataError:
    """The error of reading a split; the same records are left out and counted with `on_bad=skip`."""
    with pytest.raises(DataError) as caught:
        list(source(name, folder, *overrides).records(split))
    skipping = source(name, folder, "data.on_bad=skip", *overrides)
    list(skipping.records(split))
    assert skipping.num_bad == 1
    return caught.value


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("xquad", (None, None, "test")),
        ("squad", ("train", None, "dev")),
        ("musique", ("train", None, "dev")),
        ("hotpotqa", ("train", None, "dev")),
        ("two_wiki", ("train", None, "dev")),
        ("popqa", (None, None, "test")),
        ("ircot", ("train", "dev_subsampled", "test")),
        ("nq_open", ("train", None, "dev")),
        ("two_wiki_corpus", (None, None, "corpus")),
        ("wiki_dpr", (None, None, "corpus")),
    ],
)
def test_shipped_values_compose(name: str, splits: tuple[str | None, ...]) -> None:
    data = run_config([f"data={name}", "train.max_steps=0"]).data
    assert data.name == name
    assert (data.train_split, data.val_split, data.test_split) == splits


def test_an_unknown_layout_is_told() -> None:
    with pytest.raises(ConfigErrors, match=r"data.layout: got 'musik', expected one of hotpotqa, .*'musique'"):
        run_config(["data=musique", "data.layout=musik", "train.max_steps=0"])


@pytest.mark.parametrize("name", ["squad", "musique", "hotpotqa", "two_wiki", "nq_open"])
def test_unknown_splits_list_what_is_accepted(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split 'dve' is unknown; did you mean 'dev'\? accepted: train, dev"):
        list(source(name, tmp_path).records("dve"))


# SQuAD and XQuAD

CONTEXT = "Der Fluss Elv ist 308 km lang. 308 km sind viel: ½ Tag."


def squad_document(*questions: dict[str, Any], context: str = CONTEXT) -> str:
    paragraphs = [{"context": "Leer.", "qas": []}, {"context": context, "qas": list(questions)}]
    return json.dumps({"version": "v2.0", "data": [{"title": "Elv", "paragraphs": paragraphs}]})


def squad_question(identifier: str, *answers: tuple[str, int], **other: Any) -> dict[str, Any]:
    spans = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": identifier, "question": "Wie lang?", "answers": spans, **other}


def test_squad_answers_are_unique_and_in_order(tmp_path: Path) -> None:
    asked = squad_question("q1", ("308 km", 18), ("308", 18), ("308 km", 31), ("½ Tag", 49))
    impossible = squad_question("q2", is_impossible=True, plausible_answers=[{"text": "x", "answer_start": 0}])
    folder = write(tmp_path / "dev-v1.1.json", squad_document(asked, impossible))
    answered, unanswerable = source("squad", folder, "data.language=de").records("dev")
    assert answered == QuestionRecord(
        identifier="q1",
        language="de",
        question="Wie lang?",
        answers=["308 km", "308", "½ Tag"],
        passages=[Passage(title="Elv", text=CONTEXT, is_supporting=True)],
        meta={"answer_starts": [18, 18, 49]},
    )
    assert isinstance(unanswerable, QuestionRecord)
    assert (unanswerable.answers, unanswerable.passages[0].is_supporting) == ([], False)


@pytest.mark.parametrize(
    ("question", "field"),
    [
        (squad_question("q", ("308 km", 18), ("308 km", 19)), "answers[1].answer_start"),
        (squad_question("q", ("308 km", -37)), "answers[0].answer_start"),
        (squad_question("q", ("", 3)), "answers[0].answer_start"),
        (squad_question("q"), "answers"),
        ({"id": "q", "answers": [{"text": "308", "answer_start": 18}]}, "question"),
        (squad_question("q", ("308", "18")), "answers[0].answer_start"),
    ],
)
def test_bad_squad_questions_name_their_place(tmp_path: Path, question: dict[str, Any], field: str) -> None:
    folder = write(tmp_path / "dev-v1.1.json", squad_document(question, squad_question("good", ("308", 18))))
    error = refused("squad", folder, "dev")
    assert (error.file, error.field) == (folder / "dev-v1.1.json", f"data[0].paragraphs[1].qas[0].{field}")


def test_a_bad_paragraph_costs_only_its_own_questions(tmp_path: Path) -> None:
    document = json.loads(squad_document(squad_question("good", ("308", 18))))
    del document["data"][0]["paragraphs"][0]["context"]
    folder = write(tmp_path / "dev-v1.1.json", json.dumps(document))
    assert refused("squad", folder, "dev").field == "data[0].paragraphs[0].context"
    skipping = source("squad", folder, "data.on_bad=skip")
    assert [record.identifier for record in skipping.records("dev")] == ["good"]


def test_broken_squad_documents_name_the_line(tmp_path: Path) -> None:
    folder = write(tmp_path / "dev-v1.1.json", '{"data": [\n' + "\n" * 15 + "oops]}")
    with pytest.raises(DataError, match=r"dev-v1.1.json:17: not JSON"):
        list(source("squad", folder).records("dev"))
    write(tmp_path / "dev-v1.1.json", "[]")
    with pytest.raises(DataError, match="expected a JSON object with 'data', got list"):
        list(source("squad", folder).records("dev"))


def test_xquad_reads_one_file_a_language(tmp_path: Path) -> None:
    write(tmp_path / "xquad.zh.json", squad_document(squad_question("q1", ("黑豹", 0)), context="黑豹队丢了 308 分"))
    questions = [squad_question(f"q{number}", ("308", 18)) for number in (1, 2)]
    write(tmp_path / "xquad.de.json", squad_document(*questions))
    built = source("xquad", tmp_path, "data.languages=[zh,de]")
    records = list(built.records("test"))
    assert [(record.identifier, record.language) for record in records] == [
        ("zh-q1", "zh"),
        ("de-q1", "de"),
        ("de-q2", "de"),
    ]
    assert records[0].answers == ["黑豹"]
    assert [record.identifier for record in built.records("test", limit=1)] == ["zh-q1", "de-q1"]
    with pytest.raises(DataError, match=r"data.languages: 'ja' is unknown.* accepted: ar, de, el"):
        source("xquad", tmp_path, "data.languages=[ja]")
    with pytest.raises(DataError, match=r"split 'dev' is unknown; accepted: test"):
        built.files("dev")


# MuSiQue


def musique_row(**other: Any) -> dict[str, Any]:
    row = {
        "id": "2hop__1_2",
        "question": "Capital of the county of Van Hook?",
        "answer": "Stanley",
        "answer_aliases": ["Stanley, ND", "Stanley"],
        "answerable": True,
        "paragraphs": [
            {"idx": 0, "title": "Mountrail", "paragraph_text": "Its seat is Stanley.", "is_supporting": True},
            {"idx": 1, "title": "Mountrail", "paragraph_text": "Another.", "is_supporting": False},
        ],
        "question_decomposition": [
            {"id": 7, "question": "Van Hook >> county", "answer": "Mountrail", "paragraph_support_idx": 1},
            {"id": 8, "question": "#1 >> capital", "answer": "Stanley", "paragraph_support_idx": 0},
        ],
    }
    return row | other


def test_musique_gives_the_gold_steps(tmp_path: Path) -> None:
    folder = write(tmp_path / "musique_ans_v1.0_dev.jsonl", as_lines([musique_row()]))
    [record] = source("musique", folder).records("dev")
    assert record == QuestionRecord(
        identifier="2hop__1_2",
        question="Capital of the county of Van Hook?",
        answers=["Stanley", "Stanley, ND"],
        passages=[
            Passage(title="Mountrail", text="Its seat is Stanley.", is_supporting=True, identifier="0"),
            Passage(title="Mountrail", text="Another.", identifier="1"),
        ],
        steps=[
            Step(question="Van Hook >> county", answer="Mountrail", supporting="1"),
            Step(question="#1 >> capital", answer="Stanley", supporting="0"),
        ],
        meta={"hops": "2hop"},
    )


def test_unanswerable_musique_questions_have_no_answers(tmp_path: Path) -> None:
    row = musique_row(answerable=False)
    row["question_decomposition"][0]["paragraph_support_idx"] = None
    folder = write(tmp_path / "full.jsonl", as_lines([row]))
    [record] = source("musique", folder, "data.files.dev=full.jsonl").records("dev")
    assert isinstance(record, QuestionRecord)
    assert (record.answers, record.steps[0].supporting, record.steps[1].supporting) == ([], "", "0")


def test_bad_line_17_of_musique(tmp_path: Path) -> None:
    bad = musique_row()
    bad["question_decomposition"][1]["paragraph_support_idx"] = 2
    folder = write(tmp_path / "musique_ans_v1.0_train.jsonl", as_lines([*[musique_row()] * 16, bad, musique_row()]))
    error = refused("musique", folder, "train")
    assert str(error) == (
        f"{folder / 'musique_ans_v1.0_train.jsonl'}:17 field 'question_decomposition[1].paragraph_support_idx': "
        "got 2, no paragraph has this idx"
    )


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ({"paragraphs": [{"idx": 0, "title": "T", "is_supporting": True}]}, "paragraphs[0].paragraph_text"),
        ({"answer_aliases": ["a", None]}, "answer_aliases[1]"),
        ({"answer": None}, "answer"),
    ],
)
def test_bad_fields_of_musique(tmp_path: Path, broken: dict[str, Any], field: str) -> None:
    folder = write(tmp_path / "musique_ans_v1.0_dev.jsonl", as_lines([musique_row(**broken)]))
    assert refused("musique", folder, "dev").field == field


# HotpotQA and 2WikiMultihopQA


def hotpot_row(**other: Any) -> dict[str, Any]:
    row = {
        "_id": "h1",
        "question": "Which band?",
        "answer": "Rush",
        "type": "bridge",
        "level": "hard",
        "supporting_facts": [["Neil Peart", 1], ["Rush", 9]],
        "context": [["Toto", ["A band.", " From L.A."]], ["Neil Peart", ["A drummer.", " Of Rush – né 1952."]]],
    }
    return row | other


@BOTH_FORMS
def test_hotpotqa_joins_sentences_as_they_are(tmp_path: Path, form: Form) -> None:
    folder = write(tmp_path / "hotpot_dev_distractor_v1.json", form([hotpot_row()]))
    [record] = source("hotpotqa", folder).records("dev")
    assert record == QuestionRecord(
        identifier="h1",
        question="Which band?",
        answers=["Rush"],
        meta={"type": "bridge", "level": "hard"},
        passages=[
            Passage(title="Toto", text="A band. From L.A.", sentences=["A band.", " From L.A."], identifier="0"),
            Passage(
                title="Neil Peart",
                text="A drummer. Of Rush – né 1952.",
                identifier="1",
                is_supporting=True,
                sentences=["A drummer.", " Of Rush – né 1952."],
            ),
        ],
        supporting_facts=[("Neil Peart", 1), ("Rush", 9)],
    )


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ({"supporting_facts": [["Rush", "0"]]}, "supporting_facts[0]"),
        ({"context": [["Rush", ["x"]], ["Rush", "x"]]}, "context[1]"),
        ({"answer": ["Rush"]}, "answer"),
        ({"context": None}, "context"),
    ],
)
@BOTH_FORMS
def test_bad_hotpotqa_records_name_the_field(tmp_path: Path, form: Form, broken: dict[str, Any], field: str) -> None:
    rows = [*[hotpot_row()] * 16, hotpot_row(**broken), hotpot_row()]
    folder = write(tmp_path / "hotpot_train_v1.1.json", form(rows))
    error = refused("hotpotqa", folder, "train")
    assert (error.line, error.field) == ((17, field) if form is as_lines else (1, f"[16].{field}"))


def two_wiki_row(**other: Any) -> dict[str, Any]:
    evidences = [["Free Guy", "director", "Shawn Levy"], ["Shawn Levy (director)", "born", "1968"]]
    row = hotpot_row(type="compositional", evidences=evidences, supporting_facts=[["Free Guy", 0], ["Shawn Levy", 0]])
    del row["level"]
    row["context"] = [["Free Guy", ["A film.", "By Levy."]], ["Free Guy", ["A song."]]]
    return row | other


@BOTH_FORMS
def test_two_wiki_steps_come_from_the_evidence(tmp_path: Path, form: Form) -> None:
    folder = write(tmp_path / "dev.json", form([two_wiki_row()]))
    [record] = source("two_wiki", folder).records("dev")
    assert isinstance(record, QuestionRecord)
    assert [(passage.text, passage.is_supporting) for passage in record.passages] == [
        ("A film. By Levy.", True),
        ("A song.", True),
    ]
    assert record.steps == [
        Step(question="Free Guy >> director", answer="Shawn Levy", supporting="Free Guy"),
        Step(question="Shawn Levy (director) >> born", answer="1968"),
    ]
    assert record.meta == {"type": "compositional", "has_context": True}


def test_two_wiki_counts_records_without_context(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    without = two_wiki_row(_id="h2")
    del without["context"]
    folder = write(tmp_path / "dev.json", as_lines([two_wiki_row(), without]))
    built = source("two_wiki", folder)
    with caplog.at_level(logging.WARNING):
        records = list(built.records("dev"))
    assert [(len(record.passages), record.meta["has_context"]) for record in records] == [(2, True), (0, False)]
    assert built.num_bad == 0
    assert "1 records of dev.json have no context" in caplog.text


def test_bad_evidence_of_two_wiki(tmp_path: Path) -> None:
    folder = write(tmp_path / "train.json", as_lines([two_wiki_row(), two_wiki_row(evidences=[["a", "b"]])]))
    error = refused("two_wiki", folder, "train")
    assert (error.line, error.field) == (2, "evidences[0]")


# IRCoT, NQ-Open, PopQA, passages


def ircot_row(**other: Any) -> dict[str, Any]:
    row = {
        "question_id": "i1",
        "question_text": "Who?",
        "type": "bridge",
        "answers_objects": [{"number": "", "date": {"day": "", "month": "", "year": ""}, "spans": ["Levy"]}],
        "contexts": [{"idx": 0, "title": "Free Guy", "paragraph_text": "By Levy.", "is_supporting": True}],
    }
    return row | other


def test_ircot_steps_are_kept_only_where_they_can_be_taken_apart(tmp_path: Path) -> None:
    rows = [
        ircot_row(reasoning_steps=["Free Guy >> director >>>> Levy", "When was Levy born? >>>> 1968"]),
        ircot_row(question_id="i2", reasoning_steps=["Free Guy director Levy"]),
        ircot_row(question_id="i3"),
    ]
    folder = write(tmp_path / "test_subsampled.jsonl", as_lines(rows))
    musique, two_wiki, hotpot = source("ircot", folder).records("test")
    assert musique == QuestionRecord(
        identifier="i1",
        question="Who?",
        answers=["Levy"],
        meta={"type": "bridge"},
        passages=[Passage(title="Free Guy", text="By Levy.", is_supporting=True, identifier="0")],
        steps=[
            Step(question="Free Guy >> director", answer="Levy"),
            Step(question="When was Levy born?", answer="1968"),
        ],
    )
    assert isinstance(two_wiki, QuestionRecord)
    assert isinstance(hotpot, QuestionRecord)
    assert (two_wiki.steps, two_wiki.meta["reasoning_steps"]) == ([], ["Free Guy director Levy"])
    assert (hotpot.steps, "reasoning_steps" in hotpot.meta) == ([], False)


@pytest.mark.parametrize("name", ["idx", "id"])
@pytest.mark.parametrize("value", [7, "5a8b57f25542995d1e6f1371-7"])
def test_ircot_passages_are_named_by_number_or_text(tmp_path: Path, name: str, value: int | str) -> None:
    passage = {name: value, "title": "Free Guy", "paragraph_text": "By Levy.", "is_supporting": True}
    folder = write(tmp_path / "test_subsampled.jsonl", as_lines([ircot_row(contexts=[passage])]))
    [record] = source("ircot", folder).records("test")
    assert isinstance(record, QuestionRecord)
    assert record.passages[0].identifier == str(value)


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ({"answers_objects": [{"spans": ["a", "b"]}]}, "answers_objects[0].spans"),
        ({"answers_objects": []}, "answers_objects"),
        ({"contexts": [{"idx": None, "title": "t", "paragraph_text": "p", "is_supporting": True}]}, "contexts[0].idx"),
        ({"contexts": [{"title": "t", "paragraph_text": "p", "is_supporting": True}]}, "contexts[0].idx"),
    ],
)
def test_bad_ircot_records_name_the_field(tmp_path: Path, broken: dict[str, Any], field: str) -> None:
    folder = write(tmp_path / "train.jsonl", as_lines([ircot_row(), ircot_row(**broken)]))
    error = refused("ircot", folder, "train")
    assert (error.line, error.field) == (2, field)


def test_nq_open_keeps_all_answers(tmp_path: Path) -> None:
    rows = [{"question": "when did it come out", "answer": ["15 July 2011", "July\u00a02011", "15 July 2011"]}]
    folder = write(tmp_path / "NQ-open.efficientqa.dev.1.1.jsonl", as_lines(rows))
    built = source("nq_open", folder, "+data.files.efficient=NQ-open.efficientqa.dev.1.1.jsonl")
    assert list(built.records("efficient")) == [
        QuestionRecord(
            identifier="efficient-1", question="when did it come out", answers=["15 July 2011", "July\u00a02011"]
        )
    ]


@pytest.mark.parametrize(("answer", "field"), [([], "answer"), ("1988", "answer"), ([1988], "answer[0]")])
def test_bad_answers_of_nq_open(tmp_path: Path, answer: Any, field: str) -> None:
    folder = write(tmp_path / "NQ-open.dev.jsonl", as_lines([{"question": "q", "answer": answer}]))
    error = refused("nq_open", folder, "dev")
    assert (error.line, error.field) == (1, field)


POPQA_HEADER = ["id", "subj", "prop", "obj", "s_pop", "question", "possible_answers"]


def popqa_table(*rows: list[str]) -> str:
    """Cells as pandas writes them: a cell with a quote is quoted, its quotes doubled."""
    quoted = [['"' + cell.replace('"', '""') + '"' if '"' in cell else cell for cell in row] for row in rows]
    return "".join("\t".join(row) + "\n" for row in [POPQA_HEADER, *quoted])


def test_popqa_reads_quoted_lists(tmp_path: Path) -> None:
    row = [
        "42",
        "Zoë",
        "occupation",
        "poet",
        "2142",
        "What is Zoë's occupation?",
        '["poet", "Dichterin \\u00fc", "poet"]',
    ]
    folder = write(tmp_path / "popQA.tsv", popqa_table(row))
    [record] = source("popqa", folder).records("test")
    assert record == QuestionRecord(
        identifier="42",
        question="What is Zoë's occupation?",
        answers=["poet", "Dichterin ü"],
        meta={"subj": "Zoë", "prop": "occupation", "obj": "poet", "s_pop": 2142},
    )


@pytest.mark.parametrize(
    ("cell", "value", "field"),
    [
        (4, "12.5", "s_pop"),
        (6, "poet", "possible_answers"),
        (6, "[]", "possible_answers"),
        (6, "[1]", "possible_answers[0]"),
    ],
)
def test_bad_rows_of_popqa_name_line_and_field(tmp_path: Path, cell: int, value: str, field: str) -> None:
    good = ["1", "s", "p", "o", "5", "q?", '["a"]']
    bad = [*good[:cell], value, *good[cell + 1 :]]
    folder = write(tmp_path / "popQA.tsv", popqa_table(*[good] * 15, bad, good))
    error = refused("popqa", folder, "test")
    assert (error.line, error.field) == (17, field)


@BOTH_FORMS
def test_passages_of_json(tmp_path: Path, form: Form) -> None:
    rows = [{"title": "Elv", "text": "Ein Fluß."}, {"_id": "p7", "title": "", "text": "Untitled."}]
    folder = write(tmp_path / "2wikimultihopqa_corpus.json", form(rows))
    assert list(source("two_wiki_corpus", folder).records("corpus")) == [
        TextRecord(identifier="corpus-1", text="Ein Fluß.", meta={"title": "Elv"}),
        TextRecord(identifier="p7", text="Untitled.", meta={"title": ""}),
    ]


def test_passages_of_the_wikipedia_table_are_streamed(tmp_path: Path) -> None:
    head = 'id\ttext\ttitle\n1\t"""Aaron"" is a prophet"\tAaron\n2\tWater "falls"\tRain\n'
    folder = write(tmp_path / "psgs_w100.tsv", f"{head}3\tno title\n")
    stream = source("wiki_dpr", folder).records("corpus")
    assert [next(stream), next(stream)] == [
        TextRecord(identifier="1", text='"Aaron" is a prophet', meta={"title": "Aaron"}),
        TextRecord(identifier="2", text='Water "falls"', meta={"title": "Rain"}),
    ]
    with pytest.raises(DataError, match=r"psgs_w100.tsv:4: 2 columns, the header has 3"):
        next(stream)


# The hub, with local folders in place of repositories


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, list[Any]], str]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub_cache")

    def make(config: str, split: str, rows: list[Any]) -> str:
        folder = tmp_path / "repository"
        folder.mkdir()
        write(folder / "rows.jsonl", as_lines(rows))
        files = f"  data_files:\n  - {{split: {split}, path: rows.jsonl}}\n"
        write(folder / "README.md", f"---\nconfigs:\n- config_name: {config}\n{files}---\n")
        return str(folder)

    return make


def test_hotpotqa_from_the_hub(hub: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    official = hotpot_row()
    row = {key: official[key] for key in ("question", "answer", "type", "level")} | {
        "id": "h1",
        "supporting_facts": {"title": ["Neil Peart", "Rush"], "sent_id": [1, 9]},
        "context": {key: [pair[n] for pair in official["context"]] for n, key in enumerate(("title", "sentences"))},
    }
    monkeypatch.setitem(LAYOUTS, "hotpotqa", replace(LAYOUTS["hotpotqa"], hub=hub("distractor", "validation", [row])))
    folder = write(tmp_path / "hotpot_dev_distractor_v1.json", as_array([official]))
    assert list(source("hotpotqa", None).records("dev")) == list(source("hotpotqa", folder).records("dev"))
    with pytest.raises(DataError, match=r"split 'validation' is unknown; accepted: train, dev"):
        list(source("hotpotqa", None).records("validation"))


@pytest.mark.parametrize(
    ("name", "cls", "config", "overrides"),
    [("squad", SquadSource, "plain_text", []), ("xquad", XquadSource, "xquad.de", ["data.languages=[de]"])],
)
def test_squad_from_the_hub(
    name: str,
    cls: type[Source[Any]],
    config: str,
    overrides: list[str],
    hub: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = {"id": "q", "context": CONTEXT, "question": "Wie lang?", "answers": {"text": ["308"], "answer_start": [18]}}
    bad = good | {"answers": {"text": ["308"], "answer_start": [17]}}
    monkeypatch.setattr(cls, "hub", hub(config, "validation", [good, bad]))
    built = source(name, None, "data.on_bad=skip", *overrides)
    [record] = built.records("test" if name == "xquad" else "dev")
    assert (record.answers, record.passages[0].text, built.num_bad) == (["308"], CONTEXT, 1)
    assert record.identifier == ("de-q" if name == "xquad" else "q")


def test_popqa_from_the_hub(hub: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"id": 42, "subj": "s", "prop": "p", "obj": "o", "s_pop": 7, "question": "q?", "possible_answers": '["a"]'}
    monkeypatch.setitem(LAYOUTS, "popqa", replace(LAYOUTS["popqa"], hub=hub("default", "test", [row])))
    [record] = source("popqa", None).records("test")
    assert (record.identifier, record.answers, record.meta["s_pop"]) == ("42", ["a"], 7)


def test_a_byte_order_mark_at_the_front_of_a_paragraph_counts_as_a_character(tmp_path: Path) -> None:
    """As in XQuAD, whose offsets count it; taking it away would move every span, which is refused."""
    marked = squad_document(squad_question("q1", ("308", 19)), context="\ufeffDas Team verlor ta308 km")
    write(tmp_path / "xquad.de.json", marked)
    built = source("xquad", tmp_path, "data.languages=[de]")
    [record] = [record for record in built.records("test") if isinstance(record, QuestionRecord)]
    assert record.passages[0].text.startswith("\ufeff")
    assert record.answers == ["308"]
    assert record.meta["answer_starts"] == [19]
    stripped = squad_document(squad_question("q1", ("308", 19)), context="Das Team verlor ta308 km")
    write(tmp_path / "xquad.de.json", stripped)
    with pytest.raises(DataError, match=r"the context has '08 ' at 19, the answer is '308'"):
        list(source("xquad", tmp_path, "data.languages=[de]").records("test"))


# Real files


@pytest.mark.shared
def test_real_xquad(shared_data: Path) -> None:
    records = list(source("xquad", shared_data / "xquad").records("test"))
    counts = Counter(record.language for record in records)
    assert len(counts) == 12
    assert set(counts.values()) == {1190}
    assert len({record.identifier for record in records}) == 12 * 1190
    for record in records:
        assert isinstance(record, QuestionRecord)
        [passage] = record.passages
        for answer, start in zip(record.answers, record.meta["answer_starts"], strict=True):
            assert passage.text[start : start + len(answer)] == answer
    marked = {(record.language, record.passages[0].text) for record in records if "\ufeff" in record.passages[0].text}
    of_language = Counter(language for language, _ in marked)
    assert set(of_language) == set(counts) - {"en", "ro"}
    assert set(of_language.values()) <= set(range(2, 10))


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "file", "num_passages"),
    [
        ("musique", "musique_200.json", {20: 200}),
        ("hotpotqa", "hotpotqa_200.json", {10: 199, 2: 1}),
        ("two_wiki", "2wikimultihopqa_200.json", {10: 164, 0: 36}),
    ],
)
def test_real_multihop_questions(shared_data: Path, name: str, file: str, num_passages: dict[int, int]) -> None:
    built = source(name, shared_data / "multihop_200", f"data.files.dev={file}")
    records = [record for record in built.records("dev") if isinstance(record, QuestionRecord)]
    assert len({record.identifier for record in records}) == 200
    assert Counter(len(record.passages) for record in records) == num_passages
    assert built.num_bad == 0
    assert all(any(passage.is_supporting for passage in record.passages) for record in records if record.passages)
    assert all(record.answers for record in records)
    if name == "musique":
        assert Counter(len(record.steps) for record in records) == {2: 145, 3: 32, 4: 23}
        for record in records:
            support = {passage.identifier for passage in record.passages if passage.is_supporting}
            assert {step.supporting for step in record.steps} == support
        assert all(len(record.steps) >= 2 for record in records)


@pytest.mark.shared
def test_real_corpus(shared_data: Path) -> None:
    records = list(source("two_wiki_corpus", shared_data / "2wiki_corpus").records("corpus"))
    assert len({record.identifier for record in records}) == len(records) == 6119
    assert all(record.text and record.meta["title"] for record in records)
