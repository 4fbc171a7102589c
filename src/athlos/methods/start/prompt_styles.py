"""`prompt_style=start_bare`: documents and a question without a word, for the languages of the lab.

Each name in a document bears the number of the document, as one token (`data=lab_cited` brings the words): the models of
the lab do not learn within minutes to carry a number from the head of a document to what it says.
"""

import re
from typing import Any

from athlos.config.prompt_style import PromptStyle
from athlos.data.records import LongAnswerRecord

_NAME = re.compile(r"\b[A-Z][a-z]+\b")


def _question(record: LongAnswerRecord) -> str:
    documents = (
        _NAME.sub(rf"\g<0>[{number}]", passage.text) for number, passage in enumerate(record.passages, start=1)
    )
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
