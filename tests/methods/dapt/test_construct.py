"""The benchmark builder: what is kept, why the rest is not, and what the source reads back."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.methods.dapt.world import Script, Shelf

from athlos.data.records import PARALLEL, Passage, QuestionRecord, Step
from athlos.data.sources.translated_questions import TranslatedQuestionsConfig, TranslatedQuestionsSource
from athlos.errors import DataError
from athlos.generation.interface import Request
from athlos.generation.pipeline import solve_together
from athlos.methods.dapt.construct import REASONS, english_row, translated

RECORD = QuestionRecord(
    identifier="q1",
    question="When did the author of Ada die?",
    answers=["1990"],
    steps=[Step(question="author of Ada", answer="Vienna Man"), Step(question="when did #1 die?", answer="1990")],
    passages=[Passage(title="Ada", text="Ada is by Vienna Man.", is_supporting=True)],
)
GERMAN = {
    "When did the author of Ada die?": "Wann starb der Autor von Ada?",
    "author of Ada": "Autor von Ada",
    "when did #1 die?": "Wann starb #1?",
    "Vienna Man": "Wiener",
    "Wiener": "The Vienna man!",
}


def row_of(changes: dict[str, str] | None = None, *, record: QuestionRecord = RECORD) -> tuple[dict[str, Any], Script]:
    replies = {**GERMAN, **(changes or {})}
    script = Script(lambda prompt: replies[prompt.rpartition("\n\n")[2]])
    requests = [Request(identifier="q1", prompt=record.question, record=record)]
    [(_, prediction)] = solve_together(
        requests,
        lambda request: translated(request.record, target="de", max_new_tokens=32),
        generator=script,  # type: ignore[arg-type]
        index=Shelf(),  # type: ignore[arg-type]
        in_flight=1,
    )
    return json.loads(prediction.text), script


def test_what_survives_is_a_question_in_the_other_language_with_what_it_was():
    row, script = row_of()
    assert row["question"] == "Wann starb der Autor von Ada?"
    assert row["answers"] == ["1990"]
    assert row["steps"] == [["Autor von Ada", "Wiener"], ["Wann starb #1?", "1990"]]
    assert row[PARALLEL]["steps"] == [["author of Ada", "Vienna Man"], ["when did #1 die?", "1990"]]
    # Everything goes there in one round and the names come back in a second; digits are asked about in neither.
    assert [len(batch) for batch in script.batches] == [4, 1]


def test_a_step_that_names_a_relation_is_translated_piece_by_piece():
    steps = [Step(question="Ada >> author", answer="Vienna Man"), Step(question="#1 >> date of death", answer="1990")]
    changes = {"Ada": "Ada", "author": "Autor", "date of death": "Todestag"}
    row, script = row_of(changes, record=replace(RECORD, steps=steps))
    assert row["steps"] == [["Ada >> Autor", "Wiener"], ["#1 >> Todestag", "1990"]]
    assert [len(batch) for batch in script.batches] == [5, 1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Wiener": "Somebody"}, "answer"),
        ({"when did #1 die?": "Wann starb er?"}, "references"),
        ({"when did #1 die?": "Wann starb #2?"}, "references"),
        ({"author of Ada": "Autor von Ada 2"}, "numbers"),
        ({"When did the author of Ada die?": "When did the author of Ada die?"}, "untranslated"),
        ({"author of Ada": ""}, "untranslated"),
    ],
)
def test_what_does_not_survive_is_left_out_with_the_reason(changes: dict[str, str], reason: str):
    assert reason in REASONS
    assert row_of(changes)[0] == {"rejected": reason}


def source(folder: Path, rows: list[dict[str, Any]], **values: Any) -> TranslatedQuestionsSource:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "translated.jsonl").write_text(text, encoding="utf-8")
    config = TranslatedQuestionsConfig(_target_="", name="t", dir=str(folder), files=["translated.jsonl"], **values)
    return TranslatedQuestionsSource(config)


def test_the_rows_are_read_back(tmp_path: Path):
    rows = [row_of()[0], {"rejected": "answer"}, english_row(RECORD)]
    german, english = source(tmp_path, rows).records("test")
    assert isinstance(german, QuestionRecord)
    assert isinstance(english, QuestionRecord)
    assert (german.language, german.identifier, german.meta["hops"]) == ("de", "de-q1", 2)
    assert german.steps[1] == Step(question="Wann starb #1?", answer="1990")
    assert german.meta[PARALLEL]["question"] == RECORD.question
    assert german.passages == []
    assert english.passages[0].is_supporting
    assert english.language == "en"
    limited = list(source(tmp_path, rows * 1).records("test", limit=1))
    assert [record.language for record in limited] == ["de", "en"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"language": "de", "question": "?", "answers": ["a"], "steps": []}, "id"),
        ({"id": "x", "language": "de", "question": "?", "answers": ["a"], "steps": [["a"]]}, r"steps\[0\]"),
        ({"id": "x", "language": "de", "question": "?", "answers": "a", "steps": []}, "answers"),
    ],
)
def test_a_bad_row_is_refused_or_counted(tmp_path: Path, row: dict[str, Any], message: str):
    with pytest.raises(DataError, match=message):
        list(source(tmp_path, [row]).records("test"))
