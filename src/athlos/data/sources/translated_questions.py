"""Questions of several steps in several languages, in the JSON lines that `method=dapt_translate` leaves behind.

`{"id", "language", "question", "answers", "steps": [[question, answer]], "passages", "parallel"}`; a row without an id
or a question is a DataError, a rejected translation (`{"rejected": reason}`) is passed over. Passages stand in the
language of their row, so those of the English rows are the corpus of all.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from athlos.config.schema import DataConfig
from athlos.data.records import PARALLEL, Passage, QuestionRecord, Record, Step
from athlos.data.rows import Row, check_split, json_rows, parse_rows
from athlos.data.source import Source, data_part

SPLIT = "test"


@dataclass(kw_only=True)
class TranslatedQuestionsConfig(DataConfig):
    files: list[str] = MISSING
    """File names below `data.dir`."""


class TranslatedQuestionsSource(Source[TranslatedQuestionsConfig]):
    record_type = QuestionRecord

    def files(self, split: str) -> list[Path]:
        check_split(split, (SPLIT,))
        return [self.file(name) for name in self.config.files]

    def read(self, split: str) -> Iterator[Record]:
        for path in self.files(split):
            rows = (row for row in json_rows(path, self.bad) if "rejected" not in row.values)
            yield from parse_rows(self, rows, parse_row)

    def languages_of(self, split: str) -> Iterable[str]:
        return dict.fromkeys(record.language for record in self.read(split))


def parse_row(row: Row) -> QuestionRecord:
    """The record of a row; `DataError` names the field that is missing or of another type."""
    steps = [Step(question=question, answer=answer) for question, answer in _pairs(row, "steps")]
    meta: dict[str, Any] = {"hops": len(steps)} if steps else {}
    if PARALLEL in row.values:
        meta[PARALLEL] = row.need(PARALLEL, dict)
    return QuestionRecord(
        identifier=row.need("id", str),
        language=row.need("language", str),
        question=row.need("question", str),
        answers=row.texts("answers"),
        steps=steps,
        passages=[
            Passage(
                title=passage.need("title", str),
                text=passage.need("text", str),
                is_supporting=passage.need("is_supporting", bool),
            )
            for passage in (row.children("passages") if "passages" in row.values else ())
        ],
        meta=meta,
    )


def _pairs(row: Row, key: str) -> Iterator[tuple[str, str]]:
    for place, pair in enumerate(row.need(key, list)):
        match pair:
            case [str() as question, str() as answer]:
                yield question, answer
            case _:
                raise row.error("expected [question, answer]", field=f"{key}[{place}]")


PARTS = [
    data_part(
        "translated_questions",
        TranslatedQuestionsConfig,
        TranslatedQuestionsSource,
        "questions of several steps that a model translated, with what they were in English",
    )
]
