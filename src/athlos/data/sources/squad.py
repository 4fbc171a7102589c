"""SQuAD and XQuAD: a question, a paragraph, and answers that are spans of it. One JSON document a file."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from athlos.data.records import PARAGRAPH, Passage, QuestionRecord
from athlos.data.rows import LanguagesConfig, LanguageSource, Row, RowSource, SplitFilesConfig
from athlos.data.source import OnError, data_part, read_json
from athlos.errors import DataError


@dataclass(kw_only=True)
class SquadConfig(SplitFilesConfig):
    """Nothing beyond the files: version 1.1 and 2.0 have one format."""


@dataclass(kw_only=True)
class XquadConfig(LanguagesConfig):
    """Nothing beyond the languages."""


def squad_rows(path: Path, on_error: OnError) -> Iterator[Row]:
    """One row a question, with `title` and `context` beside its own fields. The document is read as a whole.

    A paragraph is named by its first question, whose id all languages of XQuAD share.
    """
    document = read_json(path)
    if not isinstance(document, dict):
        raise DataError(f"expected a JSON object with 'data', got {type(document).__name__}", file=path)
    index = 0
    for article in Row(values=document, file=path, index=0).children("data"):
        try:
            title = article.need("title", str)
            paragraphs = list(article.children("paragraphs"))
        except DataError as error:
            on_error(error)
            continue
        for paragraph in paragraphs:
            try:
                shared = {"title": title, "context": paragraph.need("context", str)}
                questions = list(paragraph.children("qas"))
                if questions:
                    shared[PARAGRAPH] = questions[0].need("id", str)
            except DataError as error:
                on_error(error)
                continue
            for question in questions:
                index += 1
                yield replace(question, values={**question.values, **shared}, index=index)


def squad_from_hub(row: Row) -> Row:
    """The hub's answers are two parallel lists, and its version 2 has empty ones instead of `is_impossible`."""
    spans = [{"text": text, "answer_start": start} for text, start in row.pairs("answers", "text", "answer_start")]
    shared = {"title": row.values.get("title", ""), "answers": spans, "is_impossible": not spans}
    return replace(row, values={**row.values, **shared})


def squad_record(row: Row, *, language: str, identifier: str) -> QuestionRecord:
    """The record of a flat row. `meta` holds the start of each answer in `context`, in characters."""
    context = row.need("context", str)
    is_impossible = row.values.get("is_impossible", False)
    starts: dict[str, int] = {}
    for answer in () if is_impossible else row.children("answers"):
        text, start = answer.need("text", str), answer.need("answer_start", int)
        if not text or start < 0 or not context.startswith(text, start):
            at_start = context[max(start, 0) : max(start, 0) + len(text)]
            raise answer.error(f"the context has '{at_start}' at {start}, the answer is '{text}'", field="answer_start")
        starts.setdefault(text, start)
    if not starts and not is_impossible:
        raise row.error("empty, but the question is not marked 'is_impossible'", field="answers")
    passage = Passage(title=row.need("title", str), text=context, is_supporting=bool(starts))
    return QuestionRecord(
        identifier=identifier,
        language=language,
        question=row.need("question", str),
        answers=list(starts),
        passages=[passage],
        meta={"answer_starts": list(starts.values())},
    )


class SquadSource(RowSource[SquadConfig]):
    """Answers without repeats, in order; `is_impossible` gives none. The hub data set is version 1.1."""

    record_type = QuestionRecord
    hub = "rajpurkar/squad"
    hub_config = "plain_text"

    def rows(self, path: Path) -> Iterator[Row]:
        return squad_rows(path, self.bad)

    def from_hub(self, row: Row) -> Row:
        return squad_from_hub(row)

    def parse(self, row: Row, split: str) -> QuestionRecord:
        return squad_record(row, language=self.config.language, identifier=row.need("id", str))


class XquadSource(LanguageSource[XquadConfig]):
    """The same 1,190 questions in each language; the hub calls the one split `validation`."""

    record_type = QuestionRecord
    hub = "google/xquad"
    hub_split = "validation"
    accepted = ("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh")

    def file_name(self, language: str) -> str:
        return f"xquad.{language}.json"

    def hub_config(self, language: str) -> str:
        return f"xquad.{language}"

    def rows(self, path: Path, on_error: OnError) -> Iterator[Row]:
        return squad_rows(path, on_error)

    def from_hub(self, row: Row) -> Row:
        return squad_from_hub(row)

    def parse(self, row: Row, language: str) -> QuestionRecord:
        # One question has one id in all languages, so the code goes before it.
        record = squad_record(row, language=language, identifier=f"{language}-{row.need('id', str)}")
        if PARAGRAPH in row.values:  # not on the hub, whose rows are single questions
            record.meta[PARAGRAPH] = row.values[PARAGRAPH]
        return record


PARTS = [
    data_part("squad", SquadConfig, SquadSource, "questions about a Wikipedia paragraph, English"),
    data_part("xquad", XquadConfig, XquadSource, "questions about a Wikipedia paragraph in twelve languages"),
]
