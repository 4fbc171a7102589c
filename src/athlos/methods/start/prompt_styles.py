"""`prompt_style=start_bare`: documents and a question without a word, for the languages of the lab.

Each sentence of a document bears the number of its document, where an answer has its citations: the models of the lab
do not learn within minutes to carry a number from the head of a document to its sentences.
"""

from typing import Any

from athlos.config.prompt_style import PromptStyle
from athlos.data.records import LongAnswerRecord
from athlos.text.citations import BY_LANGUAGE, with_citations


def _question(record: LongAnswerRecord) -> str:
    numbered = [
        with_citations(sentence.strip(), [number])
        for number, passage in enumerate(record.passages, start=1)
        for sentence in BY_LANGUAGE.split(passage.text, record.language)
    ]
    return " ".join([*numbered, record.question])


PROMPT_STYLES: list[PromptStyle[Any]] = [
    PromptStyle[LongAnswerRecord](
        record_type=LongAnswerRecord,
        name="start_bare",
        question=_question,
        answer=lambda record: f" {record.answer}",
        stops=lambda record: ("\n",),
    )
]
