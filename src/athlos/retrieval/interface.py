"""The interface of indexes, what a corpus holds, and what an index finds in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusPassage:
    """One passage of a corpus. Its id is unique within its language; translations of one passage share an id."""

    identifier: str
    text: str
    title: str = ""
    language: str = "en"


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage(CorpusPassage):
    """A found passage with the index's score; greater is better."""

    score: float


class Index(Protocol):
    """Finds passages of the run's corpus."""

    @property
    def key(self) -> str:
        """Content hash of corpus and index; known before either is built."""
        ...

    @property
    def languages(self) -> Sequence[str]:
        """Languages of the corpus, each of which is searched by itself."""
        ...

    def make_ready(self) -> Mapping[str, int]:
        """Build what is not there yet; the number of passages of each language. A search does this by itself."""
        ...

    def search(self, queries: Sequence[str], *, k: int, language: str | None = None) -> list[list[Passage]]:
        """The k best passages of each query in a language of the corpus, best first; fewer where fewer fit at all.

        Without `language` the corpus has one; where it has several, `ConfigError` lists them.
        """
        ...
