"""The relational query, on DuckDB and on local Spark, gives the numpy path's table, byte for byte."""

import importlib.util
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from athlos.methods.ndp import building, relational
from athlos.methods.ndp.building import Chunk, Corpus
from athlos.methods.ndp.tables import ARRAYS, CountTable, TableIdentity

IDENTITY = TableIdentity(kind="clm", n=0, vocab_size=1 << 18, tokenizer="t", template="c", data="d")


def chunks(n: int = 0) -> list[Chunk]:
    """Rows with much in common, ids beyond 16 bits, and the empty prefix (the smallest key) where n is 0."""
    rng = np.random.default_rng(0)
    tokens = np.where(rng.random(9000) < 0.9, rng.integers(0, 3, 9000), rng.integers(0, 1 << 18, 9000))
    corpus = Corpus(
        tokens_N=tokens.astype(np.int32), is_predicted_N=np.arange(9000) % 30 > 3, lengths_R=np.full(300, 30)
    )
    return corpus.chunks(partial(building.clm_rows, n=n), size=3000)


def group_with_duckdb(positions: Path, target: Path, **settings: Any) -> None:
    """What `group_with_spark` does, in this process: its twin."""
    target.mkdir()
    with duckdb.connect() as connection:
        connection.execute(f"CREATE VIEW positions AS SELECT * FROM '{positions}/*.parquet'")
        connection.execute(f"COPY ({relational.COUNT_QUERY}) TO '{target}/counted.parquet'")


def assert_same(first: CountTable, second: CountTable) -> None:
    for name in ARRAYS:
        assert (first.folder / f"{name}.npy").read_bytes() == (second.folder / f"{name}.npy").read_bytes(), name
    assert first.num_positions == second.num_positions
    assert first.num_rows > 100


def built(folder: Path, *, n: int) -> CountTable:
    return relational.build_on_spark(chunks(n), folder, identity=IDENTITY, memory_mb=64, threads=1, master="local[1]")


def test_signed_keys_keep_their_order() -> None:
    keys = np.array([0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1], dtype=np.uint64)
    assert relational.signed(keys).tolist() == sorted(relational.signed(keys).tolist())
    assert np.array_equal(relational.unsigned(relational.signed(keys)), keys)


@pytest.mark.parametrize(("n", "read_bytes"), [(0, 200), (1, 200), (0, 200_000)])
def test_duckdb_gives_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, read_bytes: int) -> None:
    """The last case reads the result back in many ranges of keys."""
    monkeypatch.setattr(relational, "READ_BYTES", read_bytes)
    expected = building.build(chunks(n), tmp_path / "numpy", identity=IDENTITY)
    monkeypatch.setattr(relational, "group_with_spark", group_with_duckdb)
    found = built(tmp_path / "duckdb", n=n)
    assert_same(expected, found)
    assert not (found.folder / "temp").exists()


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("pyspark"), reason="pyspark is not installed (extra spark)")
@pytest.mark.skipif(not shutil.which("java"), reason="Spark needs Java, and there is none")
def test_local_spark_gives_the_same_table(tmp_path: Path) -> None:
    expected = building.build(chunks(), tmp_path / "numpy", identity=IDENTITY)
    assert_same(expected, built(tmp_path / "spark", n=0))
