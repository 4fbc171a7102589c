"""Schemas of the corpora and indexes."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from omegaconf import MISSING

from athlos.config.fields import at_least, bounded
from athlos.config.registry import Part
from athlos.config.schema import CorpusConfig, IndexConfig

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig


@dataclass(kw_only=True)
class NoCorpusConfig(CorpusConfig):
    """No passages."""


@dataclass(kw_only=True)
class FilesCorpusConfig(CorpusConfig):
    path: str = MISSING
    """Folder whose `.txt`, `.md` and `.jsonl` files are read, at any depth."""
    language: str = "en"
    """Code of the language of the texts; a line of a `.jsonl` file may name its own."""
    max_characters: int = at_least(100)
    """Longest passage; paragraphs are joined up to it, and longer ones cut at sentences."""


@dataclass(kw_only=True)
class PassagesCorpusConfig(CorpusConfig):
    path: str = MISSING
    """File of JSON lines or a JSON array with `text` and, where there are any, `id`, `title`, `language`; or `.tsv`."""
    language: str = "en"
    """Code of the language of passages that name none."""


@dataclass(kw_only=True)
class ContextsCorpusConfig(CorpusConfig):
    splits: list[str] = field(default_factory=list)
    """Splits of the run's data whose passages are pooled; empty = the test split."""
    distractors: str | None = None
    """File of further passages, as `corpus=passages` reads one."""
    distractor_language: str = "en"
    """Code of the language of distractors that name none."""


@dataclass(kw_only=True)
class NoIndexConfig(IndexConfig):
    """Nothing to search."""


@dataclass(kw_only=True)
class LexicalIndexConfig(IndexConfig):
    k1: float = at_least(0)
    """How much a word that comes again in a passage adds; 0 = nothing."""
    b: float = bounded("[0, 1]")
    """How much long passages are held back; 0 = not at all."""
    counts_repeats: bool = False
    """Count a word of a query as often as it stands there, not once."""


def _errors(config: "RunConfig") -> Iterable[str]:
    if isinstance(config.corpus, NoCorpusConfig):
        yield "corpus: got none, but the index needs passages to search; choose a corpus, or index=none"


def _corpus(name: str, schema: type, target: str, summary: str) -> Part:
    return Part(group="corpus", name=name, schema=schema, target=f"athlos.retrieval.{target}", summary=summary)


def _index(name: str, schema: type, target: str, summary: str) -> Part:
    target = f"athlos.retrieval.{target}"
    return Part(group="index", name=name, schema=schema, target=target, summary=summary, check=_errors)


PARTS = [
    _corpus("none", NoCorpusConfig, "none.NoCorpus", "no passages"),
    _corpus("files", FilesCorpusConfig, "corpora.FilesCorpus", "a folder of one's own text files"),
    _corpus("passages", PassagesCorpusConfig, "corpora.PassagesCorpus", "a file of passages"),
    _corpus("contexts", ContextsCorpusConfig, "corpora.ContextsCorpus", "the passages that the run's data carry"),
    Part(
        group="index",
        name="none",
        schema=NoIndexConfig,
        target="athlos.retrieval.none.NoIndex",
        summary="nothing to search",
    ),
    _index("lexical", LexicalIndexConfig, "lexical.LexicalIndex", "BM25 over the words of passages"),
]
