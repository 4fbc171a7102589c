"""HAGRID, WebGPT and GroundBench: invented files in the official formats."""

import re
from pathlib import Path
from typing import Any

import pytest
from tests.data.sources.test_long_answers import clapnq_output, source, without, write_lines

from athlos.data.records import LongAnswerRecord, Passage
from athlos.errors import DataError
from athlos.judging.groundbench import unified, with_distractors
from athlos.judging.interface import Pair
from athlos.text.citations import read_citations


def hagrid_row(*, first: int = 1, answers: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    good = {"answer": "Herons wade [1]. They fish [2].", "informative": 1, "attributable": None, "sentences": []}
    return {
        "query_id": "7",
        "query": "how do herons live",
        "quotes": [
            {"idx": first, "docid": "5#0", "text": "Herons wade in ponds."},
            {"idx": first + 1, "docid": "5#1", "text": "They fish."},
        ],
        "answers": answers or [{**good, "answer": "No.", "attributable": 0}, {**good, "informative": 0}, good],
    }


@pytest.mark.parametrize("first", [0, 1])
def test_hagrid_has_the_first_good_answer_and_numbers_quotes_as_they_are_cited(tmp_path: Path, first: int) -> None:
    write_lines(tmp_path / "dev.jsonl", hagrid_row(first=first))
    [record] = source("hagrid", tmp_path).records("dev")
    assert (record.identifier, record.question) == ("7", "how do herons live")
    assert record.answer == "Herons wade [1]. They fish [2]."
    assert [(passage.identifier, passage.text) for passage in record.passages] == [
        ("1", "Herons wade in ponds."),
        ("2", "They fish."),
    ]
    assert record.meta == {"docids": ["5#0", "5#1"]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (without(hagrid_row(), "quotes"), "dev.jsonl:1 field 'quotes': missing"),
        (hagrid_row(answers=[{"answer": "x", "informative": 0, "attributable": 1}]), "no answer in it is informative"),
        ({**hagrid_row(), "quotes": [{"idx": "1"}]}, "quotes[0].idx"),
    ],
)
def test_bad_rows_of_hagrid_name_their_place(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    write_lines(tmp_path / "dev.jsonl", row)
    with pytest.raises(DataError, match=re.escape(message)):
        list(source("hagrid", tmp_path).records("dev"))


def webgpt_row(identifier: str, *, scores: tuple[float, float], dataset: str = "eli5") -> dict[str, Any]:
    row: dict[str, Any] = {"question": {"dataset": dataset, "id": identifier, "full_text": "How do herons live?"}}
    for number, score in enumerate(scores):
        row[f"quotes_{number}"] = {"title": ["Herons (a.org)", "Fish"], "extract": ["Herons wade.", "They fish."]}
        row[f"answer_{number}"] = f"Answer {number} [1, 2]."
        row[f"score_{number}"] = score
        row[f"tokens_{number}"] = {"prefix": [], "completion": []}
    return row


def test_webgpt_has_the_preferred_answer_of_each_question_once(tmp_path: Path) -> None:
    rows = [
        webgpt_row("a", scores=(-0.5, 0.5)),
        webgpt_row("a", scores=(1.0, -1.0)),
        webgpt_row("b", scores=(0.0, 0.0)),
        webgpt_row("c", scores=(0.5, -0.5), dataset="triviaqa"),
    ]
    write_lines(tmp_path / "comparisons.jsonl", *rows)
    every = list(source("webgpt", tmp_path).records("train"))
    assert [(record.identifier, record.answer) for record in every] == [
        ("a", "Answer 1 [1, 2]."),
        ("b", "Answer 0 [1, 2]."),
        ("c", "Answer 0 [1, 2]."),
    ]
    assert [(passage.title, passage.text) for passage in every[0].passages][1] == ("Fish", "They fish.")
    of_eli5 = source("webgpt", tmp_path, "data.dataset=eli5").records("train")
    assert [record.identifier for record in of_eli5] == ["a", "b"]


def test_quotes_of_webgpt_that_are_no_texts_name_their_field(tmp_path: Path) -> None:
    row = webgpt_row("a", scores=(0.0, 0.0))
    row["quotes_0"] = {"title": ["x"], "extract": [3]}
    write_lines(tmp_path / "comparisons.jsonl", row)
    with pytest.raises(DataError, match="field 'quotes_0': expected lists of texts"):
        list(source("webgpt", tmp_path).records("train"))


def clapnq_row(identifier: str, question: str, passage: str, answer: str) -> dict[str, Any]:
    passages = [{"title": "", "text": passage, "sentences": [passage]}]
    return {
        "id": identifier,
        "input": question,
        "passages": passages,
        "output": [clapnq_output(answer, selected=[passage])],
    }


QUOTESUM: dict[str, Any] = {
    "unique_id": "u",
    "qid": "q",
    "question": "which birds wade",
    "summary": "In ponds [ 1 herons wade ] and [ 3 storks wade ]. They sleep.",
    "covered_short_answers": "",
    "disambig_questions": "",
    **{
        f"{name}{number}": text if number in (1, 3) else ""
        for name, text in (
            ("title", "t"),
            ("source", "In ponds herons wade, and storks; they sleep"),
            ("short_ans_", "x"),
        )
        for number in range(1, 9)
    },
}


def expertqa_row() -> dict[str, Any]:
    found = ["[2] https://a.org/x\n\nHerons wade in ponds.", "[4] https://b.org\n\nStorks nest.", "[5] https://c.org"]
    claim = {"claim_string": "Herons wade", "evidence": found, "support": "Complete"}
    answer = {
        "answer_string": "Herons wade.",
        "revised_answer_string": "Herons wade [2]. Storks nest [4].",
        "attribution": found,
        "claims": [claim],
    }
    return {"question": "how do herons live", "metadata": {}, "answers": {"gpt4": answer}}


@pytest.fixture
def folder(tmp_path: Path, cache: Path) -> Path:
    root = tmp_path / "data"
    for name in ("clapnq", "expertqa", "hagrid", "quotesum", "webgpt"):
        (root / name).mkdir(parents=True)
    write_lines(
        root / "clapnq" / "clapnq_dev_answerable.jsonl",
        clapnq_row("1", "how do herons hunt", "Herons hunt fish at night.", "Herons hunt fish."),
        clapnq_row("2", "how do herons sleep", "Herons sleep on trees.", "Herons hunt whales."),
        clapnq_row("3", "how do storks hunt", "Storks hunt mice by day.", "Storks hunt mice."),
        clapnq_row("4", "do herons hunt frogs", "Night herons hunt fish and frogs.", "Herons hunt frogs."),
        clapnq_row("5", "what is rust", "Rust is iron oxide.", "Rust is oxide."),
        clapnq_row("6", "what is it", "Gold is heavy.", "Gold is heavy. Gold is cheap."),
    )
    write_lines(root / "expertqa" / "rand_test.jsonl", expertqa_row())
    write_lines(root / "hagrid" / "dev.jsonl", hagrid_row())
    write_lines(root / "quotesum" / "dev.jsonl", QUOTESUM)
    write_lines(root / "webgpt" / "comparisons.jsonl", webgpt_row("w", scores=(0.0, 0.0)))
    return root


def groundbench(folder: Path, *overrides: str) -> dict[str, Any]:
    judged = ("judge@data.judge=overlap", "data.judge.threshold=1")
    return {record.identifier: record for record in source("groundbench", folder, *judged, *overrides).records("test")}


def test_questions_whose_documents_suffice_in_one_schema(folder: Path) -> None:
    records = groundbench(folder, "data.num_documents=1")
    of_clapnq = ["clapnq/1", "clapnq/3", "clapnq/4", "clapnq/5"]
    assert list(records) == [*of_clapnq, "expertqa/1-gpt4", "hagrid/7", "quotesum/u"]
    expert = records["expertqa/1-gpt4"]
    assert expert.answer == "Herons wade [1]. Storks nest [2]."
    assert [passage.text for passage in expert.passages] == ["Herons wade in ponds.", "Storks nest."]
    quoted = records["quotesum/u"]
    assert quoted.answer == "In ponds herons wade and storks wade [1][2]. They sleep."
    assert [passage.identifier for passage in quoted.passages] == ["1", "2"]
    assert {record.meta["source"] for record in records.values()} == {"clapnq", "expertqa", "hagrid", "quotesum"}
    assert "clapnq/6" in groundbench(folder, "data.num_documents=1", "data.min_supported=0.5")


def test_a_single_document_has_close_ones_beside_it_that_support_nothing(folder: Path) -> None:
    records = groundbench(folder, "data.num_documents=2")
    hunt = records["clapnq/1"].passages
    # The night herons are closer, but they support the reference; rust is farther.
    assert {passage.text for passage in hunt} == {"Herons hunt fish at night.", "Storks hunt mice by day."}
    assert [passage.text for passage in hunt if passage.is_supporting] == ["Herons hunt fish at night."]
    assert [passage.identifier for passage in hunt] == ["1", "2"]
    more = groundbench(folder, "data.num_documents=3")
    single = [record.passages for name, record in more.items() if name.startswith("clapnq")]
    assert {len(passages) for passages in single} == {3}
    assert {passages[0].is_supporting for passages in single} == {True, False}  # the right one has no place of its own
    assert groundbench(folder, "data.num_documents=2") == records


def test_documents_are_cut_before_they_must_suffice(folder: Path) -> None:
    assert "hagrid/7" not in groundbench(folder, "data.max_documents=1", "data.num_documents=1")
    row = clapnq_row("9", "x", "Iron rusts. " * 3 + "Herons hunt.", "Herons hunt.")
    write_lines(folder / "clapnq" / "clapnq_dev_answerable.jsonl", row)
    assert "clapnq/9" in groundbench(folder, "data.max_words=0")
    assert "clapnq/9" not in groundbench(folder, "data.max_words=6")


def test_citations_follow_their_documents(folder: Path) -> None:
    row = hagrid_row(answers=[{"answer": "Herons wade in ponds [1].", "informative": 1, "attributable": 1}])
    row["quotes"] = row["quotes"][:1]
    write_lines(folder / "hagrid" / "dev.jsonl", row)
    record = groundbench(folder, "data.num_documents=4")["hagrid/7"]
    [sentence] = read_citations(record.answer, num_documents=4).sentences
    assert record.passages[sentence.cited[0] - 1].text == "Herons wade in ponds."


def record(identifier: str, answer: str, *texts: str) -> LongAnswerRecord:
    passages = [Passage(title="", text=text, identifier=str(place)) for place, text in enumerate(texts, start=1)]
    return LongAnswerRecord(
        identifier=identifier, language="en", question="how do herons hunt", answer=answer, passages=passages
    )


def test_a_reference_without_documents_is_left_out_and_one_that_cites_none_of_them_cites_nothing() -> None:
    read = unified(
        iter([record("bare", "Herons hunt."), record("far", "Herons hunt [9].", "Herons hunt.")]),
        "clapnq",
        max_documents=5,
    )
    assert [(one.identifier, one.answer) for one in read] == [("clapnq/far", "Herons hunt.")]


class Says:
    """A judge that calls the pairs named supported."""

    identity, id = {"name": "says"}, "says"

    def __init__(self, *supported: tuple[str, str]) -> None:
        self.supported = supported

    def scores(self, pairs: list[Pair]) -> list[float]:
        return [float((pair.premise, pair.hypothesis) in self.supported) for pair in pairs]


def test_a_document_stands_once_and_not_beside_one_that_supports_a_single_sentence() -> None:
    records = [
        record("a", "Herons hunt. Herons sleep.", "Herons hunt fish."),
        record("b", "Storks hunt.", "Herons sleep on trees."),
        record("c", "Storks hunt.", "Storks hunt mice."),
    ]
    judge = Says(("Herons sleep on trees.", "Herons sleep."))
    made = with_distractors(records, num_documents=3, judge=judge, threshold=0.5)
    texts = [sorted(passage.text for passage in one.passages) for one in made]
    assert texts[0] == ["Herons hunt fish.", "Storks hunt mice."]
    assert texts[1] == texts[2] == ["Herons hunt fish.", "Herons sleep on trees.", "Storks hunt mice."]


def test_citations_follow_their_documents_through_every_order() -> None:
    others = [record(f"other{number}", "Storks hunt.", f"Storks hunt {number} mice.") for number in range(6)]
    seen = set()
    for number in range(8):
        asked = record(f"asked{number}", "Herons hunt fish [1].", "Herons hunt fish.")
        one = with_distractors([asked, *others], num_documents=4, judge=Says(), threshold=0.5)[0]
        [sentence] = read_citations(one.answer, num_documents=4).sentences
        assert one.passages[sentence.cited[0] - 1].text == "Herons hunt fish."
        seen.add(sentence.cited[0])
    assert len(seen) > 1


def test_absent_data_sets_are_named_and_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("hagrid/dev.jsonl", "webgpt/comparisons.jsonl"):
        (folder / name).unlink()
    assert "hagrid/7" not in groundbench(folder)
    assert "not in data.dir, so not in the data: eli5_webgpt, hagrid" in caplog.text
    with pytest.raises(DataError, match=r"none of .*dev\.jsonl.* is there"):
        groundbench(folder / "clapnq")
    with pytest.raises(DataError, match="no split 'val'"):
        list(source("groundbench", folder).records("val"))


def test_what_suffices_is_found_out_once_and_anew_for_another_judge(folder: Path, cache: Path) -> None:
    groundbench(folder)
    one = {path.parent.name for path in cache.glob("groundbench/*/stage.json")}
    groundbench(folder)
    assert {path.parent.name for path in cache.glob("groundbench/*/stage.json")} == one
    groundbench(folder, "data.judge.threshold=0.5")
    assert len(list(cache.glob("groundbench/*/stage.json"))) == 2
    list(source("groundbench", folder, "judge@data.judge=lexical", "data.judge.threshold=1").records("test"))
    assert len(list(cache.glob("groundbench/*/stage.json"))) == 3
    with pytest.raises(DataError, match=r"data\.judge: got none"):
        source("groundbench", folder, "judge@data.judge=none")
