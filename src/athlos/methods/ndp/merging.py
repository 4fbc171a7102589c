"""Tables of parts of a corpus -> the table of the whole, a range of keys at a time, in little memory."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from athlos.methods.ndp.building import in_order
from athlos.methods.ndp.counting import count
from athlos.methods.ndp.tables import CountRows, CountTable, Piece, TableIdentity, TableWriter

RANGE_ENTRIES = 1 << 17
"""Entries that are merged at a time, about: they fit the cache, and memory stays below 40 MiB a thread."""


def merge(tables: Sequence[CountTable], folder: Path, *, identity: TableIdentity, threads: int = 1) -> CountTable:
    """The sum of tables, as if their corpora had been counted together. Writes into `folder`."""
    entries = sum(table.num_rows + len(table.token_ids) for table in tables)
    bits = max(0, (entries // RANGE_ENTRIES).bit_length())
    with TableWriter(folder, identity=identity) as writer, ThreadPoolExecutor(threads) as pool:
        for piece in in_order(pool, partial(_merged, tables, bits), range(1 << bits), ahead=2 * threads):
            writer.add(piece)
    return CountTable.open(folder)


def _merged(tables: Sequence[CountTable], bits: int, part: int) -> Piece:
    """The rows whose keys begin with these bits. Keys are random, so each range holds about as many."""
    first, last = part << (64 - bits), (part + 1) << (64 - bits)
    rows = CountRows.joined([between(table, first, last) for table in tables])
    for table in tables:
        table.release()
    return count(rows, shared_bits=bits)


def between(table: CountTable, first: int, last: int) -> CountRows:
    """Entries whose first word lies in [first, last)."""
    start, stop = (
        table.num_rows if bound >> 64 else int(np.searchsorted(table.keys_0, np.uint64(bound)))
        for bound in (first, last)
    )
    return table.rows(start, stop)
