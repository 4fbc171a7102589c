"""The interface of judges."""

from collections.abc import Sequence
from typing import Protocol


class Judge(Protocol):
    """Says how right answers are."""

    def scores(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        """One score in [0, 1] an answer, beside the references that would be right for it."""
        ...
