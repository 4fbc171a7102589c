"""Tables of parts of a corpus -> the table of the whole, a range of keys at a time, in bounded memory."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from athlos.methods.ndp.counting import count
from athlos.methods.ndp.tables import CountRows, CountTable, TableIdentity, TableWriter

ENTRY_BYTES = 120
"""Peak memory of one entry while it is merged: its row, the packed word, their sorted copies."""


def merge(tables: Sequence[CountTable], folder: Path, *, identity: TableIdentity, memory_mb: int = 1024) -> CountTable:
    """The sum of tables, as if their corpora had been counted together. Writes into `folder`."""
    with TableWriter(folder, identity=identity) as writer:
        for first, last in key_ranges(tables, memory_mb=memory_mb):
            parts = [between(table, first, last) for table in tables]
            writer.add(parts[0] if len(parts) == 1 else count(CountRows.joined(parts)))
            for table in tables:
                table.release()
    return CountTable.open(folder)


def key_ranges(tables: Sequence[CountTable], *, memory_mb: int) -> Iterator[tuple[int, int]]:
    """Ranges [first, last) of the first word of keys that fit into memory together; keys are evenly spread."""
    entries = sum(table.num_rows + len(table.token_ids) for table in tables)
    num_ranges = max(1, -(-entries * ENTRY_BYTES // (memory_mb << 20)))
    bounds = [(1 << 64) * part // num_ranges for part in range(num_ranges + 1)]
    yield from itertools.pairwise(bounds)


def between(table: CountTable, first: int, last: int) -> CountRows:
    """Entries whose first word lies in [first, last)."""
    start, stop = (
        table.num_rows if bound >> 64 else int(np.searchsorted(table.keys_0, np.uint64(bound)))
        for bound in (first, last)
    )
    return table.rows(start, stop)
