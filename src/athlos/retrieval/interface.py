"""The interface of indexes, and what they find."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A found passage: its id in the corpus, its text, and the index's score, greater is better."""

    identifier: str
    text: str
    score: float


class Index(Protocol):
    """Finds passages of the run's corpus."""

    key: str
    """Content hash of corpus and index."""

    def search(self, queries: Sequence[str], *, k: int) -> list[list[Passage]]:
        """The k best passages of each query, best first; fewer where the corpus has fewer."""
        ...
