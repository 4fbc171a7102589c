"""Short-answer scores of one item in [0, 1], the same for metrics and for rewards. Best over the gold answers.

An item without gold answers, or with a blank one, raises `DataError`: it cannot be answered rightly.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from athlos.errors import DataError
from athlos.text.normalisation import normalise

CLOSED_ANSWERS = frozenset({"yes", "no", "noanswer"})
"""Answers that share no credit with another one, whatever tokens they have in common."""


def _best(
    score: Callable[[str, str], float], prediction: str, golds: Sequence[str], *, language: str, normaliser: str
) -> float:
    if not golds or not all(gold.strip() for gold in golds):
        raise DataError(f"expected gold answers that are not empty, got {list(golds)!r}", field="gold")
    answer = normalise(prediction, normaliser=normaliser, language=language)
    return max(score(answer, normalise(gold, normaliser=normaliser, language=language)) for gold in golds)


def _equal(answer: str, gold: str) -> float:
    return float(answer == gold)


def _covers(answer: str, gold: str) -> float:
    # The empty string lies in every string: a gold that normalises to nothing is covered by nothing else.
    return float(gold in answer) if gold else float(not answer)


def _token_f1(answer: str, gold: str) -> float:
    if answer != gold and (answer in CLOSED_ANSWERS or gold in CLOSED_ANSWERS):
        return 0.0
    answer_tokens, gold_tokens = answer.split(), gold.split()
    if not answer_tokens and not gold_tokens:
        return 1.0
    num_common = (Counter(answer_tokens) & Counter(gold_tokens)).total()
    if num_common == 0:
        return 0.0
    # 2PR/(P+R) with P = common/answer, R = common/gold, reduced: exactly 1.0 for equal multisets.
    return 2 * num_common / (len(answer_tokens) + len(gold_tokens))


def exact_match(prediction: str, golds: Sequence[str], *, language: str, normaliser: str) -> float:
    """1 if the normalised prediction equals a normalised gold, else 0."""
    return _best(_equal, prediction, golds, language=language, normaliser=normaliser)


def f1(prediction: str, golds: Sequence[str], *, language: str, normaliser: str) -> float:
    """Best F1 of the token multisets; no common token or a differing yes, no, noanswer on either side gives 0.

    Both sides empty after normalising: 1. Under `clue`, which leaves no spaces, it equals `exact_match`.
    """
    return _best(_token_f1, prediction, golds, language=language, normaliser=normaliser)


def cover_em(prediction: str, golds: Sequence[str], *, language: str, normaliser: str) -> float:
    """1 if a normalised gold is a substring (not: a word) of the normalised prediction. Grows with answer length."""
    return _best(_covers, prediction, golds, language=language, normaliser=normaliser)


def contains_not_em(prediction: str, golds: Sequence[str], *, language: str, normaliser: str) -> float:
    """1 if a gold is contained and none is matched exactly: what `cover_em` adds to `exact_match`."""
    covered = cover_em(prediction, golds, language=language, normaliser=normaliser)
    return covered * (1.0 - exact_match(prediction, golds, language=language, normaliser=normaliser))


def clue_acc(prediction: str, gold: str) -> float:
    """`cover_em` under the normaliser `clue` with one gold. Source: ClueAnchor."""
    return cover_em(prediction, [gold], language="en", normaliser="clue")


def answer_length(prediction: str, *, language: str, normaliser: str) -> int:
    """Tokens of the normalised prediction; stands beside every substring metric."""
    return len(normalise(prediction, normaliser=normaliser, language=language).split())
