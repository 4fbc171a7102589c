"""Answers to questions as pairs for a judge."""

from collections.abc import Sequence
from enum import StrEnum

from athlos.data.records import Passage, QuestionRecord
from athlos.errors import DataError
from athlos.judging.interface import Judge, Pair
from athlos.text.prompt_styles import gold_answers


class Premise(StrEnum):
    """What must support an answer."""

    answers = "answers"
    """One of the gold answers: the answer is right."""
    passages = "passages"
    """The passages of the question, all together: the answer stands on what was to be read."""


def answer_scores(
    judge: Judge, answers: Sequence[str], records: Sequence[QuestionRecord], *, premise: Premise
) -> list[float]:
    """The score of each answer to its question; of several gold answers the best counts.

    Raises `DataError` for a question without passages where these are the premise.
    """
    premises = [_premises(record, premise) for record in records]
    pairs = [Pair(text, answer) for answer, texts in zip(answers, premises, strict=True) for text in texts]
    scores = iter(judge.scores(pairs))
    return [max(next(scores) for _ in texts) for texts in premises]


def _premises(record: QuestionRecord, premise: Premise) -> list[str]:
    if premise is Premise.answers:
        return gold_answers(record)
    if not record.passages:
        raise DataError(f"question {record.identifier} has no passages to judge its answer by; premise=answers")
    return ["\n".join(map(passage_text, record.passages))]


def passage_text(passage: Passage) -> str:
    """As judges read a passage. Source: ALCE's code."""
    return f"Title: {passage.title}\n{passage.text}" if passage.title else passage.text
