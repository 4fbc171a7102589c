"""What a corpus is: a config, and a stream of passages that becomes a stage product once."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from athlos.config.compose import plain
from athlos.config.schema import CorpusConfig
from athlos.data.source import Source
from athlos.retrieval.interface import CorpusPassage
from athlos.retrieval.store import STORE_VERSION, PassageStore, write_store
from athlos.stages import Stage, StageStore, content_hash

ConfigT = TypeVar("ConfigT", bound=CorpusConfig)


class Corpus(ABC, Generic[ConfigT]):
    """Base of all corpora. Subclasses give `fingerprint` and `passages`."""

    def __init__(self, config: ConfigT, *, source: Source[Any] | None = None) -> None:
        self.config, self.source = config, source

    @abstractmethod
    def fingerprint(self) -> str:
        """Content hash of what `passages` reads."""

    @abstractmethod
    def passages(self) -> Iterator[CorpusPassage]:
        """Stream the passages, in an order that depends on the content alone."""

    @cached_property
    def stage(self) -> Stage:
        """The store of the passages; where they lie is in no key."""
        values = {key: value for key, value in plain(self.config).items() if key not in self.config.elsewhere}
        return Stage(
            name="corpus",
            version=STORE_VERSION,
            config=values,
            inputs={"passages": self.fingerprint()},
            build=lambda folder: write_store(folder, self.passages()),
        )

    def store(self, stages: StageStore) -> PassageStore:
        """The passages, written down once."""
        return PassageStore(stages.get(self.stage))


class GivenCorpus(Corpus[CorpusConfig]):
    """Passages that code has in hand: a memory, the passages of one question, a world's documents."""

    def __init__(self, passages: Sequence[CorpusPassage]) -> None:
        super().__init__(CorpusConfig())
        self._passages = passages

    def fingerprint(self) -> str:
        return content_hash([asdict(passage) for passage in self._passages])

    def passages(self) -> Iterator[CorpusPassage]:
        yield from self._passages


def content_id(title: str, text: str) -> str:
    """The id of a passage that its data set does not name: 16 hex digits of the hash of its title and text."""
    return content_hash([title, text])[:16]


def files_below(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files with one of these endings at any depth, sorted by path; none that is hidden or links out of the folder."""
    root = folder.resolve()
    files = [
        path
        for path in sorted(root.rglob("*"))
        if path.suffix.lower() in suffixes
        and path.is_file()
        and path.resolve().is_relative_to(root)
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]
    return files
