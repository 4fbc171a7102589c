"""Passages of other questions that are lexically close: documents that tell nothing, and those that a prompt lacks.

Words are runs of letters and digits, so that languages written without spaces share few.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from athlos.data.records import LongAnswerRecord, Passage
from athlos.errors import DataError


class OtherPassages:
    """All passages of the questions, to be searched for those of others."""

    def __init__(self, records: Sequence[LongAnswerRecord]) -> None:
        self._passages = [(record.identifier, passage) for record in records for passage in record.passages]
        self._words = [_words(f"{passage.title} {passage.text}") for _, passage in self._passages]
        self._num_with = Counter(word for words in self._words for word in words)

    def near(self, record: LongAnswerRecord, *, text: str) -> Iterator[Passage]:
        """Different passages of other questions, the one that shares most rare words with a text first.

        A passage counts by the sum over shared words of log(passages / passages with the word), the first of equals
        first. Those with the text of one of the record's own are left out; none supports the answer to this question.
        """
        asked = _words(text)
        own = {passage.text for passage in record.passages}

        def shared(place: int) -> float:
            words = self._words[place] & asked
            return sum(math.log(len(self._words) / self._num_with[word]) for word in sorted(words))

        for place in sorted(range(len(self._passages)), key=shared, reverse=True):
            identifier, passage = self._passages[place]
            if identifier != record.identifier and passage.text not in own:
                own.add(passage.text)
                yield replace(passage, is_supporting=False)


def with_documents(records: Sequence[LongAnswerRecord], *, num_documents: int) -> list[LongAnswerRecord]:
    """Each record with as many passages: its first ones, and near ones of other records where it has fewer.

    Raises `DataError` where all records together have too few.
    """
    others = OtherPassages(records)
    complete = []
    for record in records:
        passages = record.passages[:num_documents]
        if len(passages) < num_documents:
            near = itertools.islice(others.near(record, text=record.question), num_documents - len(passages))
            passages = [*passages, *near]
        if len(passages) < num_documents:
            raise DataError(
                f"question '{record.identifier}': {len(passages)} documents with those of all other questions, "
                f"expected {num_documents}"
            )
        complete.append(replace(record, passages=passages))
    return complete


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold()))
