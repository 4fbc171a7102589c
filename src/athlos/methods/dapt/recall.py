"""What retrieval studies compute: recall, sub-questions at an equal number of passages, where a gain crosses 0."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise, zip_longest

from athlos.data.records import QuestionRecord
from athlos.errors import ConfigError, DataError
from athlos.methods.dapt.graph import filled
from athlos.retrieval.corpora import passage_id


def recall(retrieved: Sequence[str], gold: Sequence[str]) -> float:
    """Share of the gold passages among those found; each counts once."""
    return len(set(gold) & set(retrieved)) / len(set(gold))


def filled_steps(record: QuestionRecord) -> list[str]:
    """The gold sub-questions with the gold answers of their parents."""
    answers = {number: step.answer for number, step in enumerate(record.steps, start=1)}
    try:
        return [filled(step.question, answers) for step in record.steps]
    except KeyError as error:
        raise DataError(f"question '{record.identifier}': a step refers to #{error}, which is not there") from error


def step_gold(record: QuestionRecord) -> list[str]:
    """The id of the passage that answers each step."""
    passages = {passage.identifier: passage for passage in record.passages}
    return [passage_id(record, passages[step.supporting]) for step in record.steps]


def shared_out(lists: Sequence[Sequence[str]], *, k: int) -> list[str]:
    """k different passages of several lists: the first of each list, then the second of each, and so on."""
    in_turn = [name for row in zip_longest(*lists) for name in row if name is not None]
    return list(dict.fromkeys(in_turn))[:k]


def crossing(shares: Sequence[float], gains: Sequence[float]) -> float:
    """The least noise at which a gain that was 0 or below becomes positive, linear in between; nan where none does."""
    points = list(zip(shares, gains, strict=True))
    for (left, low), (right, high) in pairwise(points):
        if low <= 0 < high:
            return left + (right - left) * -low / (high - low)
    return shares[0] if gains[0] > 0 else math.nan


def check_equal_k(passages_read: Mapping[str, int], *, allow_unequal_k: bool) -> None:
    """`ConfigError` where the arms of a comparison read unlike numbers of passages: reading more can win by itself."""
    if len(set(passages_read.values())) > 1 and not allow_unequal_k:
        told = ", ".join(f"{arm} {number}" for arm, number in passages_read.items())
        raise ConfigError(
            f"allow_unequal_k: got false, but the arms that are compared read unlike numbers of passages: {told}"
        )
