"""CLAP-NQ, QuoteSum, ExpertQA and ALCE: invented files in the official formats, and the real ones."""

import importlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from athlos.config.compose import run_config
from athlos.data.records import Claim, LongAnswerRecord, Passage
from athlos.data.source import Source
from athlos.errors import DataError


def source(name: str, folder: Path, *overrides: str) -> Source[Any]:
    """The source as a run would build it, from the shipped YAML."""
    config = run_config([f"data={name}", f"data.dir={folder}", "train.max_steps=0", *overrides]).data
    module, _, cls = config._target_.rpartition(".")
    return getattr(importlib.import_module(module), cls)(config)


def write_lines(path: Path, *rows: Any) -> None:
    """JSON lines; a string is written as it stands."""
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")


def without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}


# CLAP-NQ


def clapnq_output(answer: str, *, selected: list[str], round: int = 1, skip: bool = False) -> dict[str, Any]:
    meta = {"annotator": [7], "has_minimal_answer": False, "non_consecutive": True, "round": round, "skip": skip}
    return {"answer": answer, "selected_sentences": selected, "meta": meta}


def clapnq_row(identifier: str, *outputs: dict[str, Any]) -> dict[str, Any]:
    sentences = ["Herons wade .", "They eat fish .", "Some nest in trees – high up ."]
    passage = {"title": "Héron", "text": " ".join(sentences), "sentences": sentences}
    return {"id": identifier, "input": "how do herons live", "passages": [passage], "output": list(outputs)}


ONE_ROUND = clapnq_row("11", clapnq_output("They wade.", selected=["Herons wade ."]))
TWO_ROUNDS = clapnq_row(
    "12",
    clapnq_output("First try.", selected=["Herons wade ."]),
    clapnq_output("Herons wade and eat fish.", selected=["Herons wade .", "They eat fish ."], round=2),
)
SKIPPED = clapnq_row(
    "13", clapnq_output("They nest.", selected=["They eat fish ."]), clapnq_output("", selected=[], round=2, skip=True)
)
UNANSWERABLE = clapnq_row("14", clapnq_output("", selected=[], round=0))


@pytest.fixture
def clapnq_folder(tmp_path: Path) -> Path:
    write_lines(tmp_path / "clapnq_dev_answerable.jsonl", ONE_ROUND, TWO_ROUNDS, SKIPPED)
    write_lines(tmp_path / "clapnq_dev_unanswerable.jsonl", UNANSWERABLE)
    return tmp_path


def test_clapnq_reads_both_files_of_a_split_in_order(clapnq_folder: Path) -> None:
    records = list(source("clapnq", clapnq_folder).records("dev"))
    assert [record.identifier for record in records] == ["11", "12", "13", "14"]
    assert [record.answer for record in records] == ["They wade.", "Herons wade and eat fish.", "They nest.", ""]
    assert records[0].question == "how do herons live"
    assert records[0].passages[0].title == "Héron"
    assert records[0].passages[0].sentences[2] == "Some nest in trees – high up ."


def test_clapnq_takes_the_latest_round_that_was_not_skipped(clapnq_folder: Path) -> None:
    _, two_rounds, skipped, unanswerable = source("clapnq", clapnq_folder).records("dev")
    assert two_rounds.meta["references"] == ["First try.", "Herons wade and eat fish."]
    assert two_rounds.meta["selected_sentences"] == ["Herons wade .", "They eat fish ."]
    assert two_rounds.meta["round"] == 2
    assert skipped.meta["references"] == ["They nest."]
    assert unanswerable.meta["references"] == []
    assert [record.passages[0].is_supporting for record in (skipped, unanswerable)] == [True, False]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (without(ONE_ROUND, "input"), "input"),
        (ONE_ROUND | {"passages": [{"title": "t", "text": "x", "sentences": [1]}]}, "passages[0].sentences[0]"),
        (ONE_ROUND | {"output": []}, "output"),
        (clapnq_row("15", clapnq_output("", selected=[], skip=True)), "output"),
        (ONE_ROUND | {"output": [without(ONE_ROUND["output"][0], "meta")]}, "output[0].meta"),
        ("{broken", None),
        ("[1]", None),
    ],
)
def test_clapnq_names_the_place_of_a_broken_line(clapnq_folder: Path, row: Any, field: str | None) -> None:
    path = clapnq_folder / "clapnq_dev_answerable.jsonl"
    write_lines(path, ONE_ROUND, row, TWO_ROUNDS)
    with pytest.raises(DataError, match=rf"{path.name}:2") as caught:
        list(source("clapnq", clapnq_folder).records("dev"))
    assert (caught.value.line, caught.value.field) == (2, field)
    skipping = source("clapnq", clapnq_folder, "data.on_bad=skip")
    assert [record.identifier for record in skipping.records("dev")] == ["11", "12", "14"]
    assert skipping.num_bad == 1


@pytest.mark.shared
def test_clapnq_shares_one_file_out_by_a_hash(tmp_path: Path) -> None:
    """No question is trained on and tested."""
    name = "clapnq_dev_answerable.jsonl"
    write_lines(tmp_path / name, *[{**ONE_ROUND, "id": str(number)} for number in range(200)])
    both = f"data.files={{train: [{name}], dev: [{name}]}}"
    shared = source("clapnq", tmp_path, both, "data.test_share=0.3")
    splits = [{record.identifier for record in shared.records(split)} for split in ("train", "dev")]
    assert splits[0].isdisjoint(splits[1])
    assert len(splits[0] | splits[1]) == 200
    assert 40 <= len(splits[1]) <= 80
    assert shared.fingerprint("dev") != source("clapnq", tmp_path, both).fingerprint("dev")


def test_clapnq_with_passages_of_other_questions_is_other_data(clapnq_folder: Path) -> None:
    with_others = source("clapnq", clapnq_folder, "data.num_passages=3")
    assert with_others.fingerprint("dev") != source("clapnq", clapnq_folder).fingerprint("dev")


def test_clapnq_real_files(shared_data: Path) -> None:
    reader = source("clapnq", shared_data / "clapnq")
    records = list(reader.records("dev"))
    assert len(records) == 600
    assert len({record.identifier for record in records}) == 600
    assert Counter(record.answer == "" for record in records) == {False: 300, True: 300}
    # 495 annotations of answerable questions in the file, 10 of them skipped.
    assert sum(len(record.meta["references"]) for record in records) == 485
    assert sum(len(record.passages[0].sentences) for record in records) == 2034 + 2974
    assert all(record.passages[0].is_supporting is bool(record.answer) for record in records)
    assert len(list(reader.records("dev_answerable"))) == 300
    assert reader.num_bad == 0


# QuoteSum


def quotesum_row(summary: str, *, sources: dict[int, tuple[str, str, str]], **other: str) -> dict[str, str]:
    """A line with its 24 numbered columns; `sources` maps number -> (title, text, short answer)."""
    row = {
        "qid": "Q_7",
        "unique_id": "Q_7_0",
        "question": "what do herons eat?",
        "summary": summary,
        "covered_short_answers": "[ 1 fish ]",
        "disambig_questions": "",
    }
    for number in range(1, 9):
        title, text, short = sources.get(number, ("", "", ""))
        row |= {f"title{number}": title, f"source{number}": text, f"short_ans_{number}": short}
    return row | other


HERONS = {1: ("Heron", "Herons eat fish.", "fish"), 2: ("Egret", "Egrets eat frogs.", "frogs"), 4: ("Bird", "Fly.", "")}
QUOTED = quotesum_row("[ 1 Herons eat fish ] and [ 2 frogs ] .", sources=HERONS, disambig_questions="A? | B? |")


def test_quotesum_keeps_marks_and_numbers_of_sources(tmp_path: Path) -> None:
    write_lines(tmp_path / "dev.jsonl", QUOTED)
    [record] = source("quotesum", tmp_path).records("dev")
    assert record.identifier == "Q_7_0"
    assert record.question == "what do herons eat?"
    assert record.answer == "[ 1 Herons eat fish ] and [ 2 frogs ] ."
    assert record.passages == [
        Passage(title="Heron", text="Herons eat fish.", is_supporting=True, identifier="1"),
        Passage(title="Egret", text="Egrets eat frogs.", is_supporting=True, identifier="2"),
        Passage(title="Bird", text="Fly.", is_supporting=False, identifier="4"),
    ]
    assert record.short_answers == [["fish"], ["frogs"]]
    assert record.meta == {
        "qid": "Q_7",
        "covered_short_answers": "[ 1 fish ]",
        "disambig_questions": ["A?", "B?"],
    }


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (without(QUOTED, "unique_id"), "unique_id"),
        (without(QUOTED, "source8"), "source8"),
        (QUOTED | {"short_ans_2": 3}, "short_ans_2"),
        (QUOTED | {"summary": "[ 3 Nothing ] ."}, "summary"),
    ],
)
def test_quotesum_names_the_place_of_a_broken_line(tmp_path: Path, row: dict[str, Any], field: str) -> None:
    write_lines(tmp_path / "dev.jsonl", QUOTED, row, QUOTED)
    with pytest.raises(DataError, match=rf"dev.jsonl:2 field '{field}'"):
        list(source("quotesum", tmp_path).records("dev"))
    skipping = source("quotesum", tmp_path, "data.on_bad=skip")
    assert len(list(skipping.records("dev"))) == 2
    assert skipping.num_bad == 1


# ExpertQA


def expertqa_answer(*supports: str) -> dict[str, Any]:
    claims = [
        {
            "claim_string": f"Claim {number}.",
            "evidence": [f"[{number}] a page\n\ntext"],
            "support": support,
            "informativeness": "Very relevant",
            "worthiness": None,
            "correctness": "Unsure",
            "reliability": "Somewhat",
            "reason_missing_support": "",
        }
        for number, support in enumerate(supports)
    ]
    return {
        "answer_string": "Long answer.",
        "attribution": ["[1] a page"],
        "claims": claims,
        "revised_answer_string": "Better answer.",
        "usefulness": None,
    }


EXPERT = {
    "question": "Why do bridges hum?",
    "annotator_id": "3",
    "answers": {"gpt_x": expertqa_answer("Complete", "N/A"), "search_y": expertqa_answer("Partial")},
    "metadata": {"question_type": "Advice", "field": "Engineering", "specific_field": "Bridges"},
}


def test_expertqa_lfqa(tmp_path: Path) -> None:
    rows = [
        {"example_id": 0, "context": "", "question": "Why?", "answer": "Because."},
        {"example_id": 1, "context": "Given text.", "question": "How?", "answer": "So."},
    ]
    write_lines(tmp_path / "rand_lfqa_val.json", *rows)
    assert list(source("expertqa", tmp_path).records("val")) == [
        LongAnswerRecord(identifier="0", question="Why?", answer="Because."),
        LongAnswerRecord(
            identifier="1", question="How?", answer="So.", passages=[Passage(title="", text="Given text.")]
        ),
    ]


def test_expertqa_claims_gives_one_record_a_system(tmp_path: Path) -> None:
    write_lines(tmp_path / "rand_test.jsonl", EXPERT)
    first, second = source("expertqa", tmp_path, "data.layout=claims").records("test")
    assert [first.identifier, second.identifier] == ["1-gpt_x", "1-search_y"]
    assert first.claims == [
        Claim(text="Claim 0.", evidence=["[0] a page\n\ntext"], support="Complete", is_supported=True),
        Claim(text="Claim 1.", evidence=["[1] a page\n\ntext"], support="N/A"),
    ]
    assert [claim.support for claim in second.claims] == ["Partial"]
    assert first.question == second.question == "Why do bridges hum?"
    assert first.answer == "Long answer."
    assert first.passages == [Passage(title="", text="[1] a page")]
    assert first.meta["system"] == "gpt_x"
    assert first.meta["field"] == "Engineering"
    assert first.meta["revised_answer"] == "Better answer."
    assert first.meta["claim_labels"][0]["informativeness"] == "Very relevant"


def test_expertqa_questions_without_answers_need_their_own_layout(tmp_path: Path) -> None:
    bare = EXPERT | {"answers": {}}
    write_lines(tmp_path / "r1_data_anon.jsonl", bare)
    [record] = source("expertqa", tmp_path, "data.layout=questions").records("test")
    assert (record.identifier, record.question, record.answer) == ("1", "Why do bridges hum?", "")
    write_lines(tmp_path / "rand_test.jsonl", EXPERT, bare)
    with pytest.raises(DataError, match=r"rand_test.jsonl:2 field 'answers': empty; data.layout=questions"):
        list(source("expertqa", tmp_path, "data.layout=claims").records("test"))


def test_expertqa_names_the_place_of_a_broken_line(tmp_path: Path) -> None:
    broken = json.loads(json.dumps(EXPERT))
    # The first answer is whole: no part of a line with a broken answer may come through.
    del broken["answers"]["search_y"]["claims"][0]["support"]
    write_lines(tmp_path / "rand_test.jsonl", EXPERT, "", broken, EXPERT)
    with pytest.raises(DataError, match=r"rand_test.jsonl:3 field 'answers.search_y.claims\[0\].support'"):
        list(source("expertqa", tmp_path, "data.layout=claims").records("test"))
    skipping = source("expertqa", tmp_path, "data.layout=claims", "data.on_bad=skip")
    names = [record.identifier for record in skipping.records("test")]
    assert names == ["1-gpt_x", "1-search_y", "4-gpt_x", "4-search_y"]
    assert skipping.num_bad == 1


@pytest.mark.shared
def test_expertqa_real_files(shared_data: Path) -> None:
    folder = shared_data / "expertqa"
    lfqa = source("expertqa", folder)
    assert [len(list(lfqa.records(split))) for split in ("val", "test")] == [216, 219]
    judged = list(source("expertqa", folder, "data.layout=claims").records("test"))
    assert len(judged) == len({record.identifier for record in judged}) == 219
    labels = Counter(claim.support for record in judged for claim in record.claims)
    assert labels == {"Complete": 733, "Missing": 227, "Incomplete": 200, "Partial": 70, "N/A": 62}
    assert sum(len(claim.evidence) for record in judged for claim in record.claims) == 1294
    systems = Counter(record.meta["system"] for record in judged)
    assert systems["bing_chat"] == 49
    assert len(systems) == 6
    questions = list(source("expertqa", folder, "data.layout=questions").records("test"))
    assert len(questions) == 2507
    assert all(record.question and not record.answer for record in questions)


# ALCE


def alce_doc(title: str, **other: Any) -> dict[str, Any]:
    return {"id": "9", "title": title, "text": f"About {title}.", "score": 1.5} | other


ASQA = {
    "sample_id": "-77",
    "question": "Who won the cup?",
    "qa_pairs": [
        {"question": "Who won in 1990?", "short_answers": ["Reds", "The Reds"], "context": "none", "wikipage": None},
        {"question": "Who won in 1991?", "short_answers": ["Blues"], "context": "none", "wikipage": None},
    ],
    "annotations": [{"long_answer": "Reds, then Blues."}, {"long_answer": "It was the Reds."}],
    "answer": "Reds, then Blues.",
    "docs": [alce_doc("Cup", answers_found=[0, 0]), alce_doc("Łódź", answers_found=[1, 0])],
}
ELI5 = {
    "question": "Why is it dark?",
    "answer": "No sun.",
    "claims": ["The sun is away."],
    "docs": [],
    "qa_pairs": None,
}
QAMPARI = {"id": "5__wiki", "question": "Which books?", "answers": [["Alpha", "A."], ["Beta"]], "docs": [alce_doc("B")]}


def write_list(path: Path, *rows: Any) -> None:
    path.write_text(json.dumps(list(rows), indent=1, ensure_ascii=False), encoding="utf-8")


def test_alce_asqa(tmp_path: Path) -> None:
    write_list(tmp_path / "asqa_eval_gtr_top100.json", ASQA)
    [record] = source("alce", tmp_path).records("asqa")
    assert (record.identifier, record.question, record.answer) == ("-77", "Who won the cup?", "Reds, then Blues.")
    assert record.short_answers == [["Reds", "The Reds"], ["Blues"]]
    assert record.meta["references"] == ["Reds, then Blues.", "It was the Reds."]
    assert record.meta["qa_questions"] == ["Who won in 1990?", "Who won in 1991?"]
    assert record.passages == [
        Passage(title="Cup", text="About Cup.", identifier="1"),
        Passage(title="Łódź", text="About Łódź.", is_supporting=True, identifier="2"),
    ]


def test_alce_eli5_and_qampari(tmp_path: Path) -> None:
    write_list(tmp_path / "eli5_eval_bm25_top100.json", ELI5, ELI5)
    first, second = source("alce", tmp_path).records("eli5")
    assert [first.identifier, second.identifier] == ["0", "1"]
    assert first.claims == [Claim(text="The sun is away.")]
    assert (first.short_answers, first.meta["references"]) == ([], ["No sun."])
    write_list(tmp_path / "qampari_eval_gtr_top100.json", QAMPARI)
    [record] = source("alce", tmp_path).records("qampari")
    assert record.identifier == "5__wiki"
    assert record.answer == "Alpha, Beta"
    assert record.short_answers == [["Alpha", "A."], ["Beta"]]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (without(ASQA, "question"), "[1].question"),
        (without(ELI5, "answer"), "[1].answer"),
        (ASQA | {"docs": [{"title": "t"}]}, "[1].docs[0].text"),
        (ASQA | {"docs": ["text"]}, "[1].docs[0]"),
        (ASQA | {"qa_pairs": [{"question": "q", "short_answers": "Reds"}]}, "[1].qa_pairs[0].short_answers"),
        (ELI5 | {"claims": [3]}, "[1].claims[0]"),
        (QAMPARI | {"answers": [[]]}, "[1].answers"),
        (7, "[1]"),
    ],
)
def test_alce_names_the_place_of_a_broken_record(tmp_path: Path, row: Any, field: str | None) -> None:
    path = tmp_path / "asqa_eval_gtr_top100.json"
    path.write_text(f"[\n{json.dumps(ASQA)},\n\n{json.dumps(row)},\n{json.dumps(ASQA)}\n]\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"{path.name}:4") as caught:
        list(source("alce", tmp_path).records("asqa"))
    assert (caught.value.line, caught.value.field) == (4, field)
    skipping = source("alce", tmp_path, "data.on_bad=skip")
    assert len(list(skipping.records("asqa"))) == 2
    assert skipping.num_bad == 1


def test_alce_demos(tmp_path: Path) -> None:
    demo = {"question": "Who?", "answer": "She [1].", "docs": [{"title": "T", "text": "x"}]}
    path = tmp_path / "asqa_default.json"
    path.write_text(json.dumps({"instruction": "Cite.", "demos": [demo, without(demo, "answer"), demo]}))
    with pytest.raises(DataError, match=r"asqa_default.json field 'demos\[1\].answer': missing"):
        list(source("alce", tmp_path, "data.layout=demos").records("asqa"))
    skipping = source("alce", tmp_path, "data.layout=demos", "data.on_bad=skip")
    first, second = skipping.records("asqa")
    assert skipping.num_bad == 1
    assert [first.identifier, second.identifier] == ["0", "2"]
    assert (first.answer, first.meta["instruction"]) == ("She [1].", "Cite.")
    assert first.passages == [Passage(title="T", text="x", identifier="1")]


def test_alce_utility(tmp_path: Path) -> None:
    row = {
        "id": "4",
        "question": "Who?",
        "output": "She [1].",
        "utility_score": 3,
        "automatic_correctness_scores": [True, False],
    }
    content = {
        "eli5": {},
        "asqa": {"sys.json": {"4": row, "5": without(row, "output"), "overall_results": {"len": 1.0}}},
    }
    path = tmp_path / "human_eval_utility_completed.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"completed.json field 'asqa.sys.json.5.output': missing"):
        list(source("alce", tmp_path, "data.layout=utility").records("asqa"))
    skipping = source("alce", tmp_path, "data.layout=utility", "data.on_bad=skip")
    [record] = skipping.records("asqa")
    assert skipping.num_bad == 1
    assert (record.identifier, record.answer) == ("sys.json/4", "She [1].")
    assert record.meta == {
        "system": "sys.json",
        "utility_score": 3,
        "automatic_correctness_scores": [True, False],
    }


@pytest.mark.shared
def test_alce_real_files(shared_data: Path) -> None:
    folder = shared_data / "alce_human_eval"
    demos = source("alce", folder, "data.layout=demos")
    for split in ("asqa", "asqa_light", "eli5", "eli5_light", "qampari", "qampari_light"):
        records = list(demos.records(split))
        assert [len(record.passages) for record in records] == [5, 5, 5, 5]
        assert all(re.search(r"\[\d\]", record.answer) for record in records)
        assert records[0].meta["instruction"].startswith("Instruction: ")
    utility = source("alce", folder, "data.layout=utility")
    asqa, eli5 = (list(utility.records(split)) for split in ("asqa", "eli5"))
    assert len({record.identifier for record in asqa}) == len({record.identifier for record in eli5}) == 400
    assert len({record.meta["system"] for record in asqa}) == 4
    assert Counter(record.meta["utility_score"] for record in asqa) == {5: 186, 4: 88, 1: 51, 3: 38, 2: 37}
    assert Counter(record.meta["utility_score"] for record in eli5) == {4: 145, 5: 117, 1: 51, 3: 50, 2: 37}


# What all of them share


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("clapnq", "train, dev, dev_answerable, dev_unanswerable"),
        ("quotesum", "train, dev, test"),
        ("expertqa", "train, val, test, domain_train, domain_val, domain_test"),
        ("alce", "asqa, asqa_dpr, asqa_oracle, eli5, eli5_oracle, qampari, qampari_dpr, qampari_oracle"),
    ],
)
def test_an_unknown_split_lists_the_accepted_ones(tmp_path: Path, name: str, accepted: str) -> None:
    reader = source(name, tmp_path)
    with pytest.raises(DataError, match=rf"split 'tset' is unknown.* accepted: {accepted}$"):
        list(reader.records("tset"))
    with pytest.raises(DataError, match="no such file"):
        list(reader.records(reader.config.test_split))


def test_layouts_have_splits_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split 'train' is unknown for data.layout=questions; accepted: test$"):
        source("expertqa", tmp_path, "data.layout=questions").files("train")
    with pytest.raises(DataError, match=r"split 'asqa_dpr' is unknown for data.layout=utility; accepted: asqa, eli5$"):
        source("alce", tmp_path, "data.layout=utility").files("asqa_dpr")


def test_a_limit_counts_from_the_front(clapnq_folder: Path) -> None:
    records = source("clapnq", clapnq_folder).records("dev", limit=2)
    assert [record.identifier for record in records] == ["11", "12"]
