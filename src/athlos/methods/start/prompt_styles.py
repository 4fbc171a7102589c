"""`prompt_style=start_bare`: numbered documents and a question without a word, for the languages of the lab."""

from typing import Any

from athlos.config.prompt_style import PromptStyle
from athlos.data.records import LongAnswerRecord


def _question(record: LongAnswerRecord) -> str:
    documents = (f"[{number}] {passage.text}" for number, passage in enumerate(record.passages, start=1))
    return " ".join([*documents, record.question])


PROMPT_STYLES: list[PromptStyle[Any]] = [
    PromptStyle[LongAnswerRecord](
        record_type=LongAnswerRecord,
        name="start_bare",
        question=_question,
        answer=lambda record: f" {record.answer}",
        stops=lambda record: ("\n",),
    )
]
