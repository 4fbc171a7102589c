"""Long premises in windows of whole sentences: a pair has the score of the best of its windows."""

from collections.abc import Callable, Sequence

from athlos.judging.interface import Pair
from athlos.retrieval.analysers import bigrams
from athlos.text.sentences import sentences

ScorePairs = Callable[[list[Pair]], list[float]]


def windows(text: str, *, num_words: int) -> list[str]:
    """Parts of at most `num_words` words, each from half of the one before on; the text itself where it is short.

    Cut between sentences alone, so a longer sentence is a longer window. A word is what a lexical index counts: where
    words are written together, a pair of neighbouring characters. `num_words` 0 = the text as it is.
    """
    if not num_words or _num_words(text) <= num_words:
        return [text]
    pieces = sentences(text, "en").pieces
    sizes = [_num_words(piece) for piece in pieces]
    joined, first = [], 0
    while True:
        end = first + 1
        while end < len(pieces) and sum(sizes[first : end + 1]) <= num_words:
            end += 1
        joined.append("".join(pieces[first:end]).strip())
        if end == len(pieces):
            return joined
        middle = first + 1
        while middle < end and 2 * sum(sizes[first:middle]) < sum(sizes[first:end]):
            middle += 1
        first = middle


def _num_words(text: str) -> int:
    return len(bigrams(text))


def best_of_windows(pairs: Sequence[Pair], *, num_words: int, score: ScorePairs) -> list[float]:
    """The score of each pair, its best window's; each different window and hypothesis are scored once."""
    cut = [[Pair(window, pair.hypothesis) for window in windows(pair.premise, num_words=num_words)] for pair in pairs]
    different = list(dict.fromkeys(part for parts in cut for part in parts))
    score_of = dict(zip(different, score(different), strict=True))
    return [max(score_of[part] for part in parts) for parts in cut]
