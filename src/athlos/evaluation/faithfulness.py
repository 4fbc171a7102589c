"""How far the documents bear an answer out, and what tells a faithful answer from a short copy of them."""

import math
from collections.abc import Sequence
from enum import StrEnum

from athlos.text.citations import CitedAnswer
from athlos.text.overlap import extractiveness, rouge_l, words
from athlos.text.refusals import is_refusal


class AnswerClass(StrEnum):
    """What an answer is. Faithfulness is defined for the first alone."""

    answered = "answered"
    refused = "refused"
    empty = "empty"
    """It has no sentence."""


def class_of(answer: CitedAnswer, *, language: str) -> AnswerClass:
    texts = [sentence.text for sentence in answer.sentences]
    if not any(texts):
        return AnswerClass.empty
    return AnswerClass.refused if is_refusal(" ".join(texts), language=language) else AnswerClass.answered


def faithfulness(scores: Sequence[float], kind: AnswerClass, *, threshold: float) -> float:
    """Share of an answer's sentences that its documents, all joined, support; nan for a refusal, and for no answer.

    `scores` are the judge's, one a sentence: `judging.support.joint_scores`.
    """
    if kind is not AnswerClass.answered:
        return math.nan
    return sum(score >= threshold for score in scores) / len(scores)


def shape(answer: CitedAnswer, documents: Sequence[str], reference: str, *, language: str) -> dict[str, float]:
    """Of the answer without citations: `answer_tokens`; `extractiveness`, the share of its 4-grams that stand in a
    document; `coverage`, its ROUGE-L recall of the reference. The last two are nan where there is nothing to compare.
    """
    text = " ".join(sentence.text for sentence in answer.sentences)
    return {
        "answer_tokens": float(len(words(text, language=language))),
        "extractiveness": extractiveness(text, documents, language=language),
        "coverage": rouge_l(text, reference, language=language).recall,
    }
