"""What documents support of an answer, sentence by sentence, as a judge sees it: for metrics and for rewards alike."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from athlos.errors import DataError
from athlos.judging.interface import Judge, Pair
from athlos.text.citations import MAX_CITATIONS, CitedAnswer, CitedSentence


@dataclass(frozen=True, kw_only=True)
class SentenceSupport:
    """How far the documents that a sentence cites support it."""

    sentence: CitedSentence
    score: float
    """Of all that it cites, joined; 0 where it cites nothing, or a document that there is not."""
    is_supported: bool
    num_counted: int = 0
    """Its citations that count in precision: none where the score is 0 by rule, and no more than the first three."""
    num_needed: int = 0
    """Those of them that support it by themselves, or without which the others do not; all or none of a single one."""

    @property
    def num_cited(self) -> int:
        return len(self.sentence.cited)


def scores_of(judge: Judge, pairs: Iterable[Pair]) -> dict[Pair, float]:
    """The score of each different pair, all asked at once. Raises `DataError` for a score outside of [0, 1]."""
    different = list(dict.fromkeys(pairs))
    score_of_pair = dict(zip(different, judge.scores(different), strict=True)) if different else {}
    for pair, score in score_of_pair.items():
        if not 0 <= score <= 1:
            raise DataError(f"judge {judge.id}: got the score {score} of {pair.hypothesis!r}, expected one in [0, 1]")
    return score_of_pair


def cited_support(
    judge: Judge,
    answers: Sequence[CitedAnswer],
    documents: Sequence[Sequence[str]],
    *,
    threshold: float,
    max_citations: int = MAX_CITATIONS,
) -> list[list[SentenceSupport]]:
    """The support of each sentence of each answer by the documents that it cites. Source: ALCE's compute_autoais.

    `documents[i]` are the numbered documents of answer i, as the judge reads them. All answers share two batches: what
    is cited together, then the parts of what supports a sentence together.
    """
    counted = [
        [_counted(sentence, len(texts), max_citations) for sentence in answer.sentences]
        for answer, texts in zip(answers, documents, strict=True)
    ]
    places = [
        (texts, sentence, numbers)
        for answer, texts, of_answer in zip(answers, documents, counted, strict=True)
        for sentence, numbers in zip(answer.sentences, of_answer, strict=True)
    ]
    together = scores_of(judge, (_pair(texts, numbers, sentence) for texts, sentence, numbers in places if numbers))
    several = [
        (texts, sentence, numbers)
        for texts, sentence, numbers in places
        if len(numbers) > 1 and together[_pair(texts, numbers, sentence)] >= threshold
    ]
    apart = scores_of(
        judge,
        (
            _pair(texts, part, sentence)
            for texts, sentence, numbers in several
            for index in range(len(numbers))
            for part in ((numbers[index],), _less(numbers, index))
        ),
    )

    def support(texts: Sequence[str], sentence: CitedSentence, numbers: tuple[int, ...]) -> SentenceSupport:
        if not numbers:
            return SentenceSupport(sentence=sentence, score=0.0, is_supported=False)
        score = together[_pair(texts, numbers, sentence)]
        is_supported = score >= threshold
        num_needed = int(is_supported)
        if is_supported and len(numbers) > 1:
            num_needed = sum(
                apart[_pair(texts, (number,), sentence)] >= threshold
                or apart[_pair(texts, _less(numbers, index), sentence)] < threshold
                for index, number in enumerate(numbers)
            )
        return SentenceSupport(
            sentence=sentence,
            score=score,
            is_supported=is_supported,
            num_counted=len(numbers),
            num_needed=num_needed,
        )

    return [
        [support(texts, *sentence_of) for sentence_of in zip(answer.sentences, of_answer, strict=True)]
        for answer, texts, of_answer in zip(answers, documents, counted, strict=True)
    ]


def joint_scores(judge: Judge, answers: Sequence[CitedAnswer], documents: Sequence[Sequence[str]]) -> list[list[float]]:
    """The score of each sentence of each answer by all of its documents joined, whatever it cites."""
    premises = ["\n".join(texts) for texts in documents]
    score = scores_of(
        judge,
        (
            Pair(premise, sentence.text)
            for answer, premise in zip(answers, premises, strict=True)
            for sentence in answer.sentences
        ),
    )
    return [
        [score[Pair(premise, sentence.text)] for sentence in answer.sentences]
        for answer, premise in zip(answers, premises, strict=True)
    ]


def _counted(sentence: CitedSentence, num_documents: int, max_citations: int) -> tuple[int, ...]:
    """The citations that count. One of no document voids them all, before any is left out for its place."""
    if any(not 1 <= number <= num_documents for number in sentence.cited):
        return ()
    return sentence.cited[:max_citations]


def _pair(texts: Sequence[str], numbers: Sequence[int], sentence: CitedSentence) -> Pair:
    return Pair("\n".join(texts[number - 1] for number in numbers), sentence.text)


def _less(numbers: tuple[int, ...], index: int) -> tuple[int, ...]:
    """Without one citation; of a number that repeats, without its first one, as ALCE's program does."""
    first = numbers.index(numbers[index])
    return numbers[:first] + numbers[first + 1 :]
