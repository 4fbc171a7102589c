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
from athlos.methods.ndp.hashing import segment_keys, whole_segments
from athlos.methods.ndp.positions import answer_positions, chosen, row_positions
from athlos.methods.ndp.tables import CountRows, CountTable, Piece, TableIdentity, TableWriter, ones

MONO_MARGIN = 5
"""Tokens by which a prefix of a domain document may be longer than the longest training row. The official code keeps
one more, + 6; no training row has such a prefix, so that the targets are the same."""
CHUNK_TOKENS = 1 << 17
"""Tokens hashed and spread at a time by one thread."""
PART_BITS = 8
NUM_PARTS = 1 << PART_BITS
FEW_ENTRIES = 1 << 16
"""Entries that are counted as one part."""

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some rows, whose entries `make` makes, in any order, when a thread gets to it."""

    make: Callable[[], CountRows]
    most: int
    """At least as many as there will be entries."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Rows end to end: `tokens_N`, `is_predicted_N` (bool), `lengths_R`."""

    tokens_N: np.ndarray
    is_predicted_N: np.ndarray
    lengths_R: np.ndarray
    joins_first: bool = False
    """Whether answers that begin at a row's second token begin at its first: running text."""

    @classmethod
    def joined(cls, parts: Sequence["Corpus"]) -> "Corpus":
        """Parts end to end."""
        return cls(
            tokens_N=np.concatenate([part.tokens_N for part in parts]),
            is_predicted_N=np.concatenate([part.is_predicted_N for part in parts]),
            lengths_R=np.concatenate([part.lengths_R for part in parts]),
            joins_first=parts[0].joins_first,
        )

    def chunks(self, make: Callable[["Corpus"], CountRows], *, size: int = CHUNK_TOKENS) -> list[Chunk]:
        """`make` applied to pieces of whole rows, not run yet."""
        return [
            Chunk(make=partial(_of_piece, self, make, tokens, rows), most=tokens.stop - tokens.start)
            for tokens, rows in whole_segments(self.lengths_R, size=size)
        ]


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
    keys = segment_keys(corpus.tokens_N, corpus.lengths_R)
    return entries(chosen(keys, corpus.is_predicted_N), corpus.tokens_N[corpus.is_predicted_N])


def clm_rows(corpus: Corpus, *, n: int) -> CountRows:
    """The same with the key of the answer so far, where that is at least `n` tokens long."""
    positions = answer_positions(
        corpus.tokens_N, corpus.is_predicted_N, corpus.lengths_R, joins_first=corpus.joins_first
    )
    next_tokens, kept = corpus.tokens_N[corpus.is_predicted_N], positions.lengths >= n
    return entries(chosen(positions.keys, kept), next_tokens[kept])


def mono_rows(corpus: Corpus, *, n: int, longest: int) -> CountRows:
    """Documents: every token is predicted from its document so far, n .. longest + 5 tokens."""
    everywhere = np.ones(len(corpus.tokens_N), dtype=bool)
    positions = row_positions(corpus.tokens_N, everywhere, corpus.lengths_R)
    kept = (positions.lengths >= n) & (positions.lengths <= longest + MONO_MARGIN)
    return entries(chosen(positions.keys, kept), corpus.tokens_N[kept])


def entries(keys: np.ndarray, next_tokens: np.ndarray) -> CountRows:
    """One entry a position. Keys uint64 [E, 2]."""
    return CountRows(
        keys_0=keys[:, 0], keys_1=keys[:, 1], token_ids=next_tokens.astype(np.int32), counts=ones(len(next_tokens))
    )


def build(chunks: Sequence[Chunk], folder: Path, *, identity: TableIdentity, threads: int = 1) -> CountTable:
    """Count the entries of all chunks in memory (about 20 bytes each) and write the table."""
    with TableWriter(folder, identity=identity) as writer, ThreadPoolExecutor(threads) as pool:
        for piece in counted(chunks, pool=pool, threads=threads):
            writer.add(piece)
    return CountTable.open(folder)


def counted(chunks: Sequence[Chunk], *, pool: ThreadPoolExecutor, threads: int) -> Iterator[Piece]:
    """Counted parts of all entries, sorted, ready to be written one after the other."""
    if sum(chunk.most for chunk in chunks) <= FEW_ENTRIES:
        yield count(CountRows.joined([CountRows.empty(), *(chunk.make() for chunk in chunks)]))
        return
    spread = Spread(chunks)
    list(in_order(pool, spread.fill, range(len(chunks)), ahead=2 * threads))
    yield from in_order(pool, spread.counted, range(NUM_PARTS), ahead=2 * threads)


class Spread:
    """Entries of chunks, each chunk's ordered by the first byte of the key.

    They lie in arrays made at once: large ones come in huge pages, where small ones cost a page fault every 4 KiB.
    """

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.chunks = chunks
        self.starts = np.cumsum([0, *(chunk.most for chunk in chunks)])
        most = int(self.starts[-1])
        self.keys_0, self.keys_1 = np.empty(most, dtype=np.uint64), np.empty(most, dtype=np.uint64)
        self.token_ids = np.empty(most, dtype=np.int32)
        self.bounds = np.zeros((len(chunks), NUM_PARTS + 1), dtype=np.int64)

    def fill(self, index: int) -> None:
        """Make a chunk's entries and put them in their place."""
        rows = self.chunks[index].make()
        assert rows.is_ones, "a position counts once"
        part = (rows.keys_0 >> np.uint64(64 - PART_BITS)).astype(np.uint8)
        order = np.argsort(part, kind="stable")  # a radix sort for 8 bits
        span = slice(self.starts[index], self.starts[index] + len(rows))
        # Without `clip` numpy would go through a copy.
        np.take(rows.keys_0, order, out=self.keys_0[span], mode="clip")
        np.take(rows.keys_1, order, out=self.keys_1[span], mode="clip")
        np.take(rows.token_ids, order, out=self.token_ids[span], mode="clip")
        self.bounds[index, 1:] = np.cumsum(np.bincount(part, minlength=NUM_PARTS))

    def counted(self, part: int) -> Piece:
        """The rows of the table whose keys begin with this byte."""
        first, last = self.starts[:-1] + self.bounds[:, part], self.starts[:-1] + self.bounds[:, part + 1]
        spans = [slice(start, stop) for start, stop in zip(first, last, strict=True)]
        rows = CountRows(
            keys_0=np.concatenate([self.keys_0[span] for span in spans]),
            keys_1=np.concatenate([self.keys_1[span] for span in spans]),
            token_ids=np.concatenate([self.token_ids[span] for span in spans]),
            counts=ones(int((last - first).sum())),
        )
        return count(rows, shared_bits=PART_BITS)


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
