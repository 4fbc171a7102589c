"""Schemas of the corpora and indexes."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from omegaconf import MISSING

from athlos.config.fields import at_least, bounded
from athlos.config.registry import Check, Part
from athlos.config.schema import CorpusConfig, IndexConfig
from athlos.text.fuzzy import MatchUnit

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig


@dataclass(kw_only=True)
class NoCorpusConfig(CorpusConfig):
    """No passages."""


@dataclass(kw_only=True)
class FilesCorpusConfig(CorpusConfig):
    elsewhere: ClassVar[tuple[str, ...]] = ("path",)
    path: str = MISSING
    """Folder whose `.txt`, `.md` and `.jsonl` files are read, at any depth."""
    language: str = "en"
    """Code of the language of the texts; a line of a `.jsonl` file may name its own."""
    max_characters: int = at_least(100)
    """Longest passage; paragraphs are joined up to it, and longer ones cut at sentences."""


@dataclass(kw_only=True)
class PassagesCorpusConfig(CorpusConfig):
    elsewhere: ClassVar[tuple[str, ...]] = ("path",)
    path: str = MISSING
    """File of JSON lines or a JSON array with `text` and, where there are any, `id`, `title`, `language`; or `.tsv`."""
    language: str = "en"
    """Code of the language of passages that name none."""


@dataclass(kw_only=True)
class ContextsCorpusConfig(CorpusConfig):
    elsewhere: ClassVar[tuple[str, ...]] = ("distractors",)
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


class Prefilter(StrEnum):
    """Which passages are compared with a query."""

    bm25 = "bm25"
    setsim = "setsim"
    all = "all"


@dataclass(kw_only=True)
class FuzzyIndexConfig(IndexConfig):
    unit: MatchUnit = MISSING
    """What the score counts; `auto` is a character where words are written together, else a word."""
    lower: bool = True
    """Compare in lower case."""
    strip_punctuation: bool = False
    """Compare without the punctuation of ASCII."""
    prefilter: Prefilter = MISSING
    """Which passages are compared: those of BM25, those that hold most of the query's units, or all."""
    candidates: int = at_least(1)
    """How many passages the prefilter names for a query."""


@dataclass(kw_only=True)
class DenseIndexConfig(IndexConfig):
    encoder: str = MISSING
    """A model of sentence-transformers: `dir:<folder>`, `hub:<repo>@<revision>`, `wheel:<distribution>==<version>`; or
    of a server that speaks OpenAI's API: `server:<model>@<url>`."""
    query_prompt: str = ""
    """Put before every query, as some encoders want it: `query: ` for e5."""
    passage_prompt: str = ""
    """Put before every passage: `passage: ` for e5."""
    batch_size: int = at_least(1)
    """Texts that the encoder reads at once."""


@dataclass(kw_only=True)
class ServedIndexConfig(DenseIndexConfig):
    uri: str = MISSING
    """A file that ends in `.db`, for the embedded engine, or the address of a server: `http://host:19530`."""
    token_variable: str = ""
    """Environment variable with the server's token; empty = none is sent."""


@dataclass(kw_only=True)
class HybridIndexConfig(IndexConfig):
    parts: dict[str, IndexConfig] = MISSING
    """Indexes by a name of one's own; `+index@index.parts.<name>=<index>` adds one on the command line."""
    depth: int = at_least(1)
    """How many passages of each index are fused, at least; never fewer than are asked for."""
    constant: int = at_least(0)
    """Added to every rank: the greater, the less the first ranks count over the later ones."""


def _hybrid_errors(config: "RunConfig") -> Iterable[str]:
    yield from _errors(config)
    assert isinstance(config.index, HybridIndexConfig)
    for name, part in config.index.parts.items():
        if type(part) in (IndexConfig, NoIndexConfig):
            yield f"index.parts.{name}: got no index, expected one: +index@index.parts.{name}=<index>"
    if len(config.index.parts) < 2:
        yield f"index.parts: got {len(config.index.parts)}, expected at least two indexes to fuse"


def _errors(config: "RunConfig") -> Iterable[str]:
    if isinstance(config.corpus, NoCorpusConfig):
        yield "corpus: got none, but the index needs passages to search; choose a corpus, or index=none"


def _corpus(name: str, schema: type, target: str, summary: str) -> Part:
    return Part(group="corpus", name=name, schema=schema, target=f"athlos.retrieval.{target}", summary=summary)


def _index(name: str, schema: type, target: str, summary: str, *, check: Check = _errors) -> Part:
    target = f"athlos.retrieval.{target}"
    return Part(group="index", name=name, schema=schema, target=target, summary=summary, check=check)


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
    _index("dense", DenseIndexConfig, "dense.DenseIndex", "cosine of sentence vectors, exact"),
    _index(
        "hybrid",
        HybridIndexConfig,
        "hybrid.HybridIndex",
        "several indexes by reciprocal rank",
        check=_hybrid_errors,
    ),
    _index("fuzzy", FuzzyIndexConfig, "fuzzy.FuzzyIndex", "the most alike by edit distance: a translation memory"),
    _index("served", ServedIndexConfig, "served.ServedIndex", "sentence vectors in Milvus, embedded or a cluster"),
    _index("lexical", LexicalIndexConfig, "lexical.LexicalIndex", "BM25 over the words of passages"),
]
