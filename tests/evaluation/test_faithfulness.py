"""Faithfulness by hand, and what stands beside it."""

import math

import pytest

from athlos.evaluation.faithfulness import AnswerClass, class_of, faithfulness, shape
from athlos.text.citations import read_citations


def read(answer: str):
    return read_citations(answer, num_documents=2)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Rome is old [1].", AnswerClass.answered),
        ("I don't know.", AnswerClass.refused),
        ("noanswer", AnswerClass.refused),
        ("The documents do not say who. There is no information on it [1].", AnswerClass.refused),
        ("The documents do not say who. It was Ada.", AnswerClass.answered),
        ("", AnswerClass.empty),
        ("[1]", AnswerClass.empty),
    ],
)
def test_refusals_are_a_class_of_their_own(answer: str, expected: AnswerClass) -> None:
    assert class_of(read(answer), language="en") is expected


def test_faithfulness_is_a_share_of_the_sentences_of_an_answer() -> None:
    assert faithfulness([1.0, 0.5, 0.4, 0.0], AnswerClass.answered, threshold=0.5) == 1 / 2
    assert math.isnan(faithfulness([1.0], AnswerClass.refused, threshold=0.5))
    assert math.isnan(faithfulness([], AnswerClass.empty, threshold=0.5))


def test_length_copying_and_coverage_are_of_the_answer_without_citations() -> None:
    documents = ["the old city of Rome lies on seven hills", "Ostia is a port"]
    found = shape(read("Old city of Rome lies [1] far. Ostia [2]."), documents, "Rome lies far away", language="en")
    assert found == {"answer_tokens": 7.0, "extractiveness": 2 / 4, "coverage": 3 / 4}
    empty = shape(read(""), documents, "", language="en")
    assert empty["answer_tokens"] == 0
    assert math.isnan(empty["extractiveness"])
    assert math.isnan(empty["coverage"])
