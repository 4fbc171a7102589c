"""Tables as stage products, in the memory of the config.

A corpus that does not fit into that memory is counted in shards. Each shard's table is a product of its own: a killed
build finds those that are done, and the tables are merged by ranges of keys.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from athlos.methods.ndp.building import Chunk, Corpus, build
from athlos.methods.ndp.config import NdpConstructConfig
from athlos.methods.ndp.corpora import ShardedRows
from athlos.methods.ndp.merging import merge
from athlos.methods.ndp.relational import build_on_spark
from athlos.methods.ndp.suffixes import suffix_levels
from athlos.methods.ndp.tables import CountRows, CountTable, TableIdentity
from athlos.stages import Product, Stage, StageStore, content_hash

TABLE_VERSION = 1
"""Raised when the same rows give another table: a golden test holds it."""
TOKEN_BYTES = 64
"""Peak memory of a token while a shard is counted: its entry spread and as it came, its part of the result."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Rows that join a table, and how they become entries."""

    rows: ShardedRows
    make: Callable[[Corpus], CountRows]
    settings: dict[str, int]
    """What decides the entries beside the rows."""


def shard_size(config: NdpConstructConfig) -> int:
    """Tokens of a shard."""
    return config.shard_tokens or max(1, (config.memory_mb << 20) // TOKEN_BYTES)


def num_threads(config: NdpConstructConfig) -> int:
    return config.threads or len(os.sched_getaffinity(0))


def data_hash(sources: Sequence[Source]) -> str:
    """Content hash of what a table counts."""
    return content_hash([{"rows": source.rows.fingerprint, **source.settings} for source in sources])


def table_product(
    sources: Sequence[Source], config: NdpConstructConfig, *, identity: TableIdentity, stages: StageStore
) -> Product:
    """The table of all sources together."""

    def build_table(folder: Path) -> None:
        shards = [(source, index) for source in sources for index in range(len(source.rows))]
        if len(shards) == 1:
            [(source, index)] = shards
            count_chunks(source.rows.shard(index).chunks(source.make), folder, config, identity=identity)
            return
        parts = [_shard_table(source, index, config, identity=identity, stages=stages) for source, index in shards]
        merge(parts, folder, identity=identity, threads=num_threads(config))

    return stages.get(Stage(name="ndp_table", version=TABLE_VERSION, config=asdict(identity), build=build_table))


def suffix_product(
    rows: ShardedRows, config: NdpConstructConfig, *, identity: TableIdentity, stages: StageStore
) -> Product:
    """The table of sliding-window contexts, counted in memory: which contexts go on depends on the whole corpus."""

    def build_table(folder: Path) -> None:
        parts = [rows.shard(index) for index in range(len(rows))]
        levels = CountRows.joined(list(suffix_levels(Corpus.joined(parts), window=config.slide.window)))
        chunk = Chunk(make=lambda: levels, most=len(levels))
        count_chunks([chunk], folder, config, identity=identity)

    return stages.get(Stage(name="ndp_table", version=TABLE_VERSION, config=asdict(identity), build=build_table))


def _shard_table(
    source: Source, index: int, config: NdpConstructConfig, *, identity: TableIdentity, stages: StageStore
) -> CountTable:
    """The table of one shard, a product whose identity names its own rows."""
    data = content_hash({"rows": source.rows.fingerprint_of([index]), **source.settings})
    own = replace(identity, data=data)

    def build_table(folder: Path) -> None:
        count_chunks(source.rows.shard(index).chunks(source.make), folder, config, identity=own)
        source.rows.release()

    product = stages.get(Stage(name="ndp_shard", version=TABLE_VERSION, config=asdict(own), build=build_table))
    return CountTable.open(product.path, expected=own)


def count_chunks(
    chunks: Sequence[Chunk], folder: Path, config: NdpConstructConfig, *, identity: TableIdentity
) -> CountTable:
    """A table counted here or on Spark. Both give the same one, so Spark is in no key."""
    memory_mb, threads, master = config.memory_mb, num_threads(config), config.spark_master
    if master:
        return build_on_spark(chunks, folder, identity=identity, memory_mb=memory_mb, threads=threads, master=master)
    return build(chunks, folder, identity=identity, threads=threads)
