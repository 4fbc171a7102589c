"""Rows of tokens -> tables, by the numpy path: hash, spread over parts by the first byte of the key, count each part.

A part fits the cache, parts are independent, and parts in order are the whole table in order. Both steps run on
threads; numpy lets go of Python's lock while it computes.

N tokens, R rows, E entries.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from athlos.methods.ndp.counting import count
from athlos.methods.ndp.hashing import whole_segments
from athlos.methods.ndp.positions import Positions, answer_positions, row_positions
from athlos.methods.ndp.tables import CountRows, CountTable, Piece, TableIdentity, TableWriter, encode, ones

MONO_MARGIN = 5
"""Tokens by which a prefix of a domain document may be longer than the longest training row (official code)."""
CHUNK_TOKENS = 1 << 17
"""Tokens hashed and spread at a time by one thread."""
PART_BITS = 8
NUM_PARTS = 1 << PART_BITS
FEW_ENTRIES = 1 << 16
"""Entries that are counted as one part."""

Chunk = Callable[[], CountRows]
"""Makes the entries of some rows, in any order, when a thread gets to it."""
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Rows end to end: `tokens_N`, `is_predicted_N` (bool), `lengths_R`."""

    tokens_N: np.ndarray
    is_predicted_N: np.ndarray
    lengths_R: np.ndarray
    joins_first: bool = False
    """Whether answers that begin at a row's second token begin at its first: running text."""

    def chunks(self, make: Callable[["Corpus"], CountRows], *, size: int = CHUNK_TOKENS) -> list[Chunk]:
        """`make` applied to pieces of whole rows, not run yet."""
        return [partial(_of_piece, self, make, *spans) for spans in whole_segments(self.lengths_R, size=size)]


def _of_piece(corpus: Corpus, make: Callable[[Corpus], CountRows], tokens: slice, rows: slice) -> CountRows:
    piece = Corpus(
        tokens_N=np.asarray(corpus.tokens_N[tokens]),
        is_predicted_N=corpus.is_predicted_N[tokens],
        lengths_R=corpus.lengths_R[rows],
        joins_first=corpus.joins_first,
    )
    return make(piece)


def sup_rows(corpus: Corpus) -> CountRows:
    """One entry a predicted token: key of the row so far, the token, 1."""
    positions = row_positions(corpus.tokens_N, corpus.is_predicted_N, corpus.lengths_R)
    return entries(positions, corpus.tokens_N[corpus.is_predicted_N])


def clm_rows(corpus: Corpus, *, n: int) -> CountRows:
    """The same with the key of the answer so far, where that is at least `n` tokens long."""
    positions = answer_positions(
        corpus.tokens_N, corpus.is_predicted_N, corpus.lengths_R, joins_first=corpus.joins_first
    )
    return entries(positions, corpus.tokens_N[corpus.is_predicted_N], shortest=n)


def mono_rows(corpus: Corpus, *, n: int, longest: int) -> CountRows:
    """Documents: every token is predicted from its document so far, n .. longest + 5 tokens."""
    everywhere = np.ones(len(corpus.tokens_N), dtype=bool)
    positions = row_positions(corpus.tokens_N, everywhere, corpus.lengths_R)
    return entries(positions, corpus.tokens_N, shortest=n, longest=longest + MONO_MARGIN)


def entries(
    positions: Positions, next_tokens: np.ndarray, *, shortest: int = 0, longest: int | None = None
) -> CountRows:
    """Entries of the positions whose prefix has shortest .. longest tokens."""
    keys, lengths = positions.keys, positions.lengths
    if shortest > 0 or longest is not None:
        kept = lengths >= shortest
        if longest is not None:
            kept &= lengths <= longest
        keys, next_tokens = keys.T[:, kept].T, next_tokens[kept]
    return CountRows(
        keys_0=keys[:, 0], keys_1=keys[:, 1], token_ids=next_tokens.astype(np.int32), counts=ones(len(next_tokens))
    )


def build(chunks: Sequence[Chunk], folder: Path, *, identity: TableIdentity, threads: int = 1) -> CountTable:
    """Count the entries of all chunks in memory (about 20 bytes each) and write the table."""
    with TableWriter(folder, identity=identity) as writer, ThreadPoolExecutor(threads) as pool:
        for piece in counted(chunks, pool=pool, threads=threads):
            writer.add_piece(piece)
    return CountTable.open(folder)


def counted(chunks: Sequence[Chunk], *, pool: ThreadPoolExecutor, threads: int) -> Iterator[Piece]:
    """Counted parts of all entries, sorted, ready to be written one after the other."""
    spread = list(in_order(pool, _spread, chunks, ahead=2 * threads))
    if sum(len(rows) for rows, _ in spread) <= FEW_ENTRIES:
        yield encode(count(CountRows.joined([rows for rows, _ in spread]))) if spread else encode(CountRows.empty())
        return
    yield from in_order(pool, partial(_count_part, spread), range(NUM_PARTS), ahead=2 * threads)


def _spread(chunk: Chunk) -> tuple[CountRows, np.ndarray]:
    """Entries ordered by the first byte of their key, and where each byte begins, int64 [NUM_PARTS + 1]."""
    rows = chunk()
    part = (rows.keys_0 >> np.uint64(64 - PART_BITS)).astype(np.uint8)
    order = np.argsort(part, kind="stable")  # a radix sort for 8 bits
    bounds = np.zeros(NUM_PARTS + 1, dtype=np.int64)
    np.cumsum(np.bincount(part, minlength=NUM_PARTS), out=bounds[1:])
    return rows.taken(order), bounds


def _count_part(spread: Sequence[tuple[CountRows, np.ndarray]], part: int) -> Piece:
    mine = [rows.span(bounds[part], bounds[part + 1]) for rows, bounds in spread]
    return encode(count(CountRows.joined(mine), shared_bits=PART_BITS))


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, ahead: int
) -> Iterator[ResultT]:
    """Results in the order of items; at most `ahead` are computed before they are asked for."""
    waiting: deque[Future[ResultT]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
