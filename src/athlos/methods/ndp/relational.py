"""GROUP BY key and next token as a relational query on Spark: for corpora that outgrow one machine.

On one machine counting in shards (`products.py`) needs no engine: of 10 M tokens it counted 3 to 4 times as many a
second as DuckDB with this query, in a sixth of its memory (README, "Speed and memory"). So DuckDB runs the query in the
tests alone, as its twin.

Chunks travel as Parquet files of positions. SQL engines have no unsigned 64-bit numbers in common: keys travel as
signed ones with the top bit flipped, which keeps their order.
"""

import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from athlos.errors import ConfigError
from athlos.methods.ndp.building import Chunk
from athlos.methods.ndp.counting import count
from athlos.methods.ndp.tables import CountRows, CountTable, TableIdentity, TableWriter

COUNT_QUERY = """
    SELECT key_0, key_1, token, CAST(SUM(times) AS BIGINT) AS times
    FROM positions
    GROUP BY key_0, key_1, token
    ORDER BY key_0
"""
TOP_BIT = np.uint64(1 << 63)
READ_BYTES = 200
"""Memory of one entry while a range is read back: as Parquet has it, sorted copies, numpy's arrays."""


def signed(keys: np.ndarray) -> np.ndarray:
    """Unsigned words as signed ones in the same order."""
    return (keys ^ TOP_BIT).view(np.int64)


def unsigned(keys: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(keys, dtype=np.int64).view(np.uint64) ^ TOP_BIT


def write_positions(chunks: Sequence[Chunk], folder: Path) -> None:
    """One Parquet file a chunk, its entries as they come."""
    import pyarrow
    from pyarrow import parquet

    for index, chunk in enumerate(chunks):
        rows = chunk.make()
        columns = {
            "key_0": signed(rows.keys_0),
            "key_1": signed(rows.keys_1),
            "token": rows.token_ids,
            "times": np.array(rows.counts, dtype=np.int64),
        }
        parquet.write_table(pyarrow.table(columns), folder / f"positions-{index:05d}.parquet")


def group_with_spark(positions: Path, target: Path, *, memory_mb: int, threads: int, master: str) -> None:
    """`COUNT_QUERY` over a folder of Parquet files into another, on Spark at `master`."""
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise ConfigError("construct.spark_master: needs pyspark; install athlos[spark]") from error
    settings = {
        "spark.driver.memory": f"{max(memory_mb, 1024)}m",
        "spark.ui.enabled": "false",
        "spark.local.dir": str(target.parent),
        "spark.sql.shuffle.partitions": str(4 * threads),
        "spark.sql.warehouse.dir": str(target.parent / "warehouse"),
    }
    session = SparkSession.builder.appName("athlos-ndp").master(master).config(map={**settings}).getOrCreate()
    try:
        session.read.parquet(str(positions)).createOrReplaceTempView("positions")
        session.sql(COUNT_QUERY).write.parquet(str(target))
    finally:
        session.stop()


def read_ranges(folder: Path, *, memory_mb: int) -> Iterator[CountRows]:
    """Entries of a folder of Parquet files, a range of keys at a time; files carry the bounds of their parts."""
    from pyarrow import dataset

    counted, key_0 = dataset.dataset(sorted(folder.glob("*.parquet"))), dataset.field("key_0")
    num_ranges = max(1, -(-counted.count_rows() * READ_BYTES // (memory_mb << 20)))
    bounds = [(1 << 64) * part // num_ranges - (1 << 63) for part in range(num_ranges + 1)]
    for first, last in itertools.pairwise(bounds):
        part = counted.to_table(filter=(key_0 >= first) & (key_0 <= last - 1))
        columns = {name: part[name].to_numpy() for name in part.column_names}
        yield CountRows(
            keys_0=unsigned(columns["key_0"]),
            keys_1=unsigned(columns["key_1"]),
            token_ids=columns["token"].astype(np.int32),
            counts=columns["times"],
        )


def build_on_spark(
    chunks: Sequence[Chunk], folder: Path, *, identity: TableIdentity, memory_mb: int, threads: int, master: str
) -> CountTable:
    """A table by Spark at `master`. What is on its way stands below `folder` until then."""
    temp = folder / "temp"
    positions, counted = temp / "positions", temp / "counted"
    positions.mkdir(parents=True)
    write_positions(chunks, positions)
    group_with_spark(positions, counted, memory_mb=memory_mb, threads=threads, master=master)
    with TableWriter(folder, identity=identity) as writer:
        for rows in read_ranges(counted, memory_mb=memory_mb):
            writer.add(count(rows))
    shutil.rmtree(temp)
    return CountTable.open(folder)
