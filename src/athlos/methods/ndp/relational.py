"""GROUP BY key and next token, as a relational query: on embedded DuckDB, out of core, and on Spark.

Both engines run the same text, `COUNT_QUERY`, over Parquet files of positions; sums of sums are sums, so it also merges
partial results. SQL engines have no unsigned 64-bit numbers in common: keys travel as signed ones with the top bit
flipped, which keeps their order.
"""

import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from athlos.errors import ConfigError
from athlos.methods.ndp.building import Chunk
from athlos.methods.ndp.counting import count
from athlos.methods.ndp.tables import CountRows, CountTable, TableIdentity, TableWriter

if TYPE_CHECKING:
    import duckdb

COUNT_QUERY = """
    SELECT key_0, key_1, token, CAST(SUM(times) AS BIGINT) AS times
    FROM positions
    GROUP BY key_0, key_1, token
"""
IN_ORDER = "ORDER BY key_0, key_1, token"
TOP_BIT = np.uint64(1 << 63)
DUCKDB_SHARE = 0.6
"""Share of the memory that DuckDB gets; the rest is for positions on their way in and counts on their way out."""
READ_BYTES = 400
"""Memory of one entry while a range is read back: DuckDB's groups, sorted copies, numpy's arrays."""
PART_FILE = "positions-{:05d}.parquet"


def signed(keys: np.ndarray) -> np.ndarray:
    """Unsigned words as signed ones in the same order."""
    return (keys ^ TOP_BIT).view(np.int64)


def unsigned(keys: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(keys, dtype=np.int64).view(np.uint64) ^ TOP_BIT


def connect(*, memory_mb: int, threads: int, temp: Path) -> "duckdb.DuckDBPyConnection":
    """An in-memory DuckDB that spills to `temp` beyond its share of `memory_mb`."""
    import duckdb

    settings = {
        "memory_limit": f"{int(memory_mb * DUCKDB_SHARE)}MB",
        "threads": threads,
        "temp_directory": str(temp),
        "preserve_insertion_order": False,
    }
    return duckdb.connect(":memory:", config=settings)


def write_positions(chunks: Sequence[Chunk], folder: Path, *, connection: "duckdb.DuckDBPyConnection") -> None:
    """One Parquet file a chunk, its entries as they come: what either engine reads."""
    for index, chunk in enumerate(chunks):
        rows = chunk.make()
        columns = {
            "key_0": signed(rows.keys_0),
            "key_1": signed(rows.keys_1),
            "token": rows.token_ids,
            "times": np.array(rows.counts, dtype=np.int64),
        }
        connection.register("chunk", columns)
        target = str(folder / PART_FILE.format(index)).replace("'", "''")
        connection.execute(f"COPY (SELECT * FROM chunk) TO '{target}' (FORMAT parquet)")
        connection.unregister("chunk")


def group_with_duckdb(sources: Sequence[Path], target: Path, *, connection: "duckdb.DuckDBPyConnection") -> None:
    """`COUNT_QUERY` over Parquet files into one sorted Parquet file; DuckDB spills what does not fit."""
    connection.read_parquet([str(path) for path in sources]).create_view("positions", replace=True)
    escaped = str(target).replace("'", "''")
    connection.execute(f"COPY ({COUNT_QUERY} {IN_ORDER}) TO '{escaped}' (FORMAT parquet)")


def group_with_spark(
    sources: Sequence[Path], target: Path, *, memory_mb: int, threads: int, temp: Path, master: str
) -> list[Path]:
    """`COUNT_QUERY` over Parquet files on Spark, at `master` or on this machine; the sorted files that it wrote."""
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise ConfigError("construct.builder: spark needs pyspark; install athlos[spark]") from error
    builder = SparkSession.builder.appName("athlos-ndp")
    builder = builder.master(master or f"local[{threads}]").config("spark.driver.memory", f"{max(memory_mb, 1024)}m")
    builder = builder.config("spark.ui.enabled", "false").config("spark.local.dir", str(temp))
    builder = builder.config("spark.sql.shuffle.partitions", str(4 * threads))
    session = builder.config("spark.sql.warehouse.dir", str(temp / "warehouse")).getOrCreate()
    try:
        session.read.parquet(*[str(path) for path in sources]).createOrReplaceTempView("positions")
        session.sql(f"{COUNT_QUERY} {IN_ORDER}").write.mode("overwrite").parquet(str(target))
    finally:
        session.stop()
    return sorted(target.glob("*.parquet"))


def read_ranges(
    sources: Sequence[Path], *, connection: "duckdb.DuckDBPyConnection", memory_mb: int
) -> Iterator[CountRows]:
    """Sorted entries of sorted Parquet files, a range of keys at a time; files carry the bounds of their parts."""
    relation = connection.read_parquet([str(path) for path in sources])
    relation.create_view("counted", replace=True)
    found = connection.execute("SELECT COUNT(*) FROM counted").fetchone()
    assert found is not None
    num_ranges = max(1, -(-found[0] * READ_BYTES // (memory_mb << 20)))
    bounds = [(1 << 64) * part // num_ranges - (1 << 63) for part in range(num_ranges + 1)]
    for first, last in itertools.pairwise(bounds):
        query = f"SELECT * FROM counted WHERE key_0 >= {first} AND key_0 <= {last - 1} {IN_ORDER}"
        columns = connection.execute(query).fetchnumpy()
        yield CountRows(
            keys_0=unsigned(columns["key_0"]),
            keys_1=unsigned(columns["key_1"]),
            token_ids=np.asarray(columns["token"], dtype=np.int32),
            counts=np.asarray(columns["times"]),
        )


def build_relational(
    chunks: Sequence[Chunk],
    folder: Path,
    *,
    identity: TableIdentity,
    memory_mb: int,
    threads: int,
    spark_master: str | None = None,
) -> CountTable:
    """A table by DuckDB, or by Spark where a master is given (empty = this machine).

    Positions and spilled parts stand below `folder` until it is done.
    """
    temp = folder / "temp"
    positions = temp / "positions"
    positions.mkdir(parents=True)
    connection = connect(memory_mb=memory_mb, threads=threads, temp=temp / "duckdb")
    try:
        write_positions(chunks, positions, connection=connection)
        sources = sorted(positions.glob("*.parquet"))
        grouped = [temp / "counted.parquet"]
        if spark_master is not None:
            grouped = group_with_spark(
                sources, temp / "counted", memory_mb=memory_mb, threads=threads, temp=temp, master=spark_master
            )
        else:
            group_with_duckdb(sources, grouped[0], connection=connection)
        with TableWriter(folder, identity=identity) as writer:
            for rows in read_ranges(grouped, connection=connection, memory_mb=memory_mb):
                writer.add(count(rows))
    finally:
        connection.close()
    shutil.rmtree(temp)
    return CountTable.open(folder)
