"""The construction: tables of the training rows as stage products, so that a sweep of smoothings counts once.

A corpus that does not fit into the memory it is given is counted in shards. Each shard's table is a product of its own:
a killed build finds those that are done, and the tables are merged by ranges of keys.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from athlos.config.parts import PartContext, PartReport
from athlos.config.schema import RunConfig
from athlos.data.encoding import tokenizer_hash
from athlos.errors import DataError
from athlos.methods.ndp.building import Chunk, Corpus, build, clm_rows, mono_rows, sup_rows
from athlos.methods.ndp.config import Builder, NdpConstructConfig
from athlos.methods.ndp.corpora import Documents, ShardedRows, domain_documents, training_rows
from athlos.methods.ndp.hashing import num_collisions
from athlos.methods.ndp.merging import merge
from athlos.methods.ndp.relational import build_relational
from athlos.methods.ndp.tables import CountRows, CountTable, TableIdentity
from athlos.stages import Product, Stage, StageStore, content_hash

log = logging.getLogger(__name__)

TABLE_VERSION = 1
"""Raised when the same rows give another table: a golden test holds it."""
TOKEN_BYTES = 64
"""Peak memory of a token while a shard is counted: its entry spread and as it came, its part of the result."""
Make = Callable[[Corpus], CountRows]


@dataclass(kw_only=True)
class NdpTables:
    """What the construction made, for `objective=ndp`."""

    sup: CountTable
    clm: CountTable
    n: int
    """Answer prefixes shorter than this are not in `clm`."""
    joins_first: bool
    """Whether answers begin at a row's first token (`positions.answer_positions`)."""
    sup_key: str
    """Key of the stage product."""
    clm_key: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """Rows that join a table, and how they become entries."""

    rows: ShardedRows
    make: Make
    settings: dict[str, int]
    """What decides the entries beside the rows."""


class NdpConstruct:
    def __init__(self, config: NdpConstructConfig) -> None:
        self.config = config

    def build(self, *, context: PartContext) -> tuple[NdpTables | None, PartReport]:
        if context.data is None:
            return None, PartReport(summary="n-gram tables: not counted in a dry run")
        split = context.config.data.train_split
        assert split is not None
        node = self.config
        rows = training_rows(context.data.rows(split), shard_tokens=self.shard_tokens, dedup=node.dedup)
        documents = None
        if node.mono is not None:
            documents = domain_documents(node.mono, context=context, shard_tokens=self.shard_tokens)
        sources = {
            "sup": [Source(rows=rows, make=sup_rows, settings={})],
            "clm": [Source(rows=rows, make=partial(clm_rows, n=node.n), settings={"n": node.n})],
        }
        if documents is not None:
            make = partial(mono_rows, n=node.n, longest=rows.longest)
            settings = {"n": node.n, "longest": rows.longest}
            sources["clm"].append(Source(rows=documents.rows, make=make, settings=settings))
        identities = {kind: self._identity(kind, found, context=context) for kind, found in sources.items()}
        products = {
            kind: self._product(found, identities[kind], stages=context.stages) for kind, found in sources.items()
        }
        tables = {kind: CountTable.open(product.path, expected=identities[kind]) for kind, product in products.items()}
        made = NdpTables(
            sup=tables["sup"],
            clm=tables["clm"],
            n=node.n,
            joins_first=rows.joins_first,
            sup_key=products["sup"].key,
            clm_key=products["clm"].key,
        )
        return made, self._report(made, rows, documents, list(products.values()))

    @property
    def shard_tokens(self) -> int:
        return self.config.shard_tokens or max(1, (self.config.memory_mb << 20) // TOKEN_BYTES)

    @property
    def threads(self) -> int:
        return self.config.threads or len(os.sched_getaffinity(0))

    def _identity(self, kind: str, sources: Sequence[Source], *, context: PartContext) -> TableIdentity:
        data = [{"rows": source.rows.fingerprint, **source.settings} for source in sources]
        return TableIdentity(
            kind=kind,
            n=0 if kind == "sup" else self.config.n,
            vocab_size=len(context.tokenizer),
            tokenizer=tokenizer_hash(context.tokenizer),
            template=template_hash(context.config, chat_template=context.tokenizer.chat_template),
            data=content_hash(data),
        )

    def _product(self, sources: Sequence[Source], identity: TableIdentity, *, stages: StageStore) -> Product:
        def build_table(folder: Path) -> None:
            shards = [(source, index) for source in sources for index in range(len(source.rows))]
            if len(shards) == 1:
                self._count(folder, *shards[0], identity=identity)
                return
            parts = [self._shard(source, index, identity, stages=stages) for source, index in shards]
            merge(parts, folder, identity=identity, memory_mb=self.config.memory_mb)

        return stages.get(Stage(name="ndp_table", version=TABLE_VERSION, config=asdict(identity), build=build_table))

    def _shard(self, source: Source, index: int, identity: TableIdentity, *, stages: StageStore) -> CountTable:
        """The table of one shard, a product of its own. Its identity names its own rows."""
        data = content_hash({"rows": source.rows.fingerprint_of([index]), **source.settings})
        own = TableIdentity(**{**asdict(identity), "data": data})
        stage = Stage(
            name="ndp_shard",
            version=TABLE_VERSION,
            config=asdict(own),
            build=lambda folder: self._count(folder, source, index, identity=own),
        )
        return CountTable.open(stages.get(stage).path, expected=own)

    def _count(self, folder: Path, source: Source, index: int, *, identity: TableIdentity) -> None:
        chunks = source.rows.shard(index).chunks(source.make)
        count_chunks(chunks, folder, self.config, identity=identity, threads=self.threads)

    def _report(
        self, made: NdpTables, rows: ShardedRows, documents: Documents | None, products: Sequence[Product]
    ) -> PartReport:
        tables = (made.sup, made.clm)
        num_dropped = int((~rows.kept_R).sum())
        tokens = rows.num_tokens + (documents.rows.num_tokens if documents else 0)
        seconds = sum(product.seconds for product in products)
        metrics = {
            "cost/table_tokens_per_s": tokens / max(seconds, 1e-9),
            "cost/table_mb": sum(table.num_bytes for table in tables) / (1 << 20),
            "ndp/sup_prefixes": float(made.sup.num_rows),
            "ndp/clm_prefixes": float(made.clm.num_rows),
            "ndp/repeated_rows": float(num_dropped),
            "ndp/hash_collisions": float(self._collisions(rows)),
        }
        if documents is not None:
            metrics["ndp/mono_documents_left_out"] = float(documents.num_left_out)
        summary = (
            f"n-gram tables: {made.sup.num_rows} prefixes with prompt, {made.clm.num_rows} without (n = {made.n}), "
            f"{metrics['cost/table_mb']:.1f} MiB"
        )
        return PartReport(summary=summary, metrics=metrics)

    def _collisions(self, rows: ShardedRows) -> int:
        """Collisions among a sample of the first shard's prefixes; any is an error."""
        corpus = rows.shard(0)
        found = num_collisions(corpus.tokens_N, corpus.lengths_R, sample=self.config.collision_sample)
        if found:
            raise DataError(f"n-gram tables: {found} different prefixes have the key of another; report this as a bug")
        return found


def count_chunks(
    chunks: Sequence[Chunk], folder: Path, config: NdpConstructConfig, *, identity: TableIdentity, threads: int
) -> CountTable:
    """A table by the builder of the config. All give the same one, so the builder is in no key."""
    if config.builder in (Builder.auto, Builder.numpy):
        return build(chunks, folder, identity=identity, threads=threads)
    return build_relational(
        chunks,
        folder,
        identity=identity,
        memory_mb=config.memory_mb,
        threads=threads,
        spark_master=config.spark_master if config.builder is Builder.spark else None,
    )


def template_hash(config: RunConfig, *, chat_template: object) -> str:
    """Content hash of what stands around questions and answers."""
    return content_hash({"chat_template": chat_template, "style": config.eval.prompt})
