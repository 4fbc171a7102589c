"""The prompt style of RHIO's lab study: documents and a question, answered by the sentences that hold the answer."""

import random
from typing import Any

from athlos.config.prompt_style import PromptStyle
from athlos.data.records import QuestionRecord

LAB_STYLE = "rhio_lab"


def evidence(record: QuestionRecord) -> list[str]:
    """The supporting sentences as the documents have them, in the order in which the record names them."""
    sentences = {passage.title: passage.sentences for passage in record.passages}
    return [sentences[title][place] for title, place in record.supporting_facts if title in sentences]


def documents(record: QuestionRecord) -> list[str]:
    """Texts of the passages in an order of the record's own: sources put those with the answer first."""
    texts = [passage.text for passage in record.passages]
    random.Random(record.identifier).shuffle(texts)
    return texts


PROMPT_STYLES: list[PromptStyle[Any]] = [
    PromptStyle[QuestionRecord](
        record_type=QuestionRecord,
        name=LAB_STYLE,
        question=lambda record: " ".join([*documents(record), record.question]),
        answer=lambda record: " " + " ".join(evidence(record)),
        stops=lambda record: ("\n",),
    )
]
