"""Counts of the next token by prefix, as sorted arrays on disk that a reader maps into memory.

Most prefixes of a corpus are seen once. Such a row is 20 bytes: its key and one word that holds the flag and the token.
All others point to a list of tokens and counts. Every key is stored, so that a reader of any text gets the exact
counter or "absent", never a guess.

    keys_0.npy, keys_1.npy  uint64 [N]      the two words of each key; rows are sorted by them
    values.npy              uint32 [N]      SINGLE | token, or the number of the row's list
    offsets.npy             int64  [M + 1]  where the lists begin
    token_ids.npy           int32  [E]      sorted within a list
    counts.npy              uint32 [E]
    meta.json               identity of the table, number of counted positions

N rows, M rows with a list, E entries of lists, Q queries.
"""

import json
import mmap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from athlos.errors import DataError

SINGLE = np.uint32(1 << 31)
"""Flag of a row whose only token was seen once; the token stands in the other 31 bits."""
MAX_COUNT = (1 << 32) - 1
FORMAT = 1
META = "meta.json"
ARRAYS = {
    "keys_0": np.uint64,
    "keys_1": np.uint64,
    "values": np.uint32,
    "offsets": np.int64,
    "token_ids": np.int32,
    "counts": np.uint32,
}


@dataclass(frozen=True, kw_only=True)
class TableIdentity:
    """What a table was counted from. Tables of another identity give other counts or miss on every read."""

    kind: str
    """`sup`, `clm` or `slide`."""
    n: int
    """Shortest counted prefix, in tokens; for `slide` the longest context."""
    vocab_size: int
    """Token ids lie below."""
    tokenizer: str
    """Content hash."""
    template: str
    """Content hash of the chat template and the prompt style."""
    data: str
    """Content hash of the counted rows."""


@dataclass(frozen=True, kw_only=True)
class CountRows:
    """Sorted counted rows in memory: distinct (key, next token) with their counts, in this order. E entries."""

    keys_0: np.ndarray
    keys_1: np.ndarray
    token_ids: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.keys_0)

    @classmethod
    def joined(cls, parts: Sequence["CountRows"]) -> "CountRows":
        """Parts end to end; sorting and adding up is the caller's."""
        all_ones = all(part.is_ones for part in parts)
        return cls(
            keys_0=np.concatenate([part.keys_0 for part in parts]),
            keys_1=np.concatenate([part.keys_1 for part in parts]),
            token_ids=np.concatenate([part.token_ids for part in parts]),
            counts=ones(sum(map(len, parts))) if all_ones else np.concatenate([part.counts for part in parts]),
        )

    @classmethod
    def empty(cls) -> "CountRows":
        keys = np.empty(0, dtype=np.uint64)
        return cls(keys_0=keys, keys_1=keys, token_ids=np.empty(0, dtype=np.int32), counts=ones(0))

    @property
    def is_ones(self) -> bool:
        """Whether the counts are the view of a single 1 that `ones` makes."""
        return self.counts.strides == (0,)

    def span(self, start: int, stop: int) -> "CountRows":
        part = slice(start, stop)
        return CountRows(
            keys_0=self.keys_0[part],
            keys_1=self.keys_1[part],
            token_ids=self.token_ids[part],
            counts=self.counts[part],
        )


def ones(length: int) -> np.ndarray:
    """Counts of entries that are one position each, without the memory: a view of a single 1."""
    return np.broadcast_to(np.uint32(1), length)


class CountTable:
    """A finished table. Build it with `TableWriter`, open it with `open`."""

    def __init__(
        self, folder: Path, *, identity: TableIdentity, num_positions: int, arrays: dict[str, np.ndarray]
    ) -> None:
        self.folder, self.identity, self.num_positions = folder, identity, num_positions
        self.keys_0, self.keys_1, self.values = arrays["keys_0"], arrays["keys_1"], arrays["values"]
        self.offsets, self.token_ids, self.counts = arrays["offsets"], arrays["token_ids"], arrays["counts"]

    @classmethod
    def open(cls, folder: Path, *, expected: TableIdentity | None = None) -> "CountTable":
        """Map a table into memory. `DataError` with both values where it was counted from something else."""
        path = folder / META
        try:
            meta = json.loads(path.read_text(encoding="utf-8"))
            if meta["format"] != FORMAT:
                raise DataError(f"format {meta['format']}, this version reads {FORMAT}", file=path)
            identity = TableIdentity(**meta["identity"])
            arrays = {name: _open_array(folder / f"{name}.npy", dtype) for name, dtype in ARRAYS.items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"not a table: {error}", file=path) from error
        if expected is not None:
            check_identity(identity, expected, folder=folder)
        return cls(folder, identity=identity, num_positions=meta["num_positions"], arrays=arrays)

    @property
    def num_rows(self) -> int:
        """Distinct prefixes."""
        return len(self.values)

    @property
    def num_bytes(self) -> int:
        """Size of all arrays, as on disk without their headers."""
        return sum(array.nbytes for array in self._arrays())

    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.keys_0, self.keys_1, self.values, self.offsets, self.token_ids, self.counts

    def release(self) -> None:
        """Let go of the pages that were read: the next read maps them again."""
        for array in self._arrays():
            release_pages(array)

    def lookup(self, keys_Q2: np.ndarray) -> np.ndarray:
        """Row of each key, int64 [Q]; -1 = absent."""
        rows_Q = np.full(len(keys_Q2), -1, dtype=np.int64)
        if not self.num_rows or not len(keys_Q2):
            return rows_Q
        # Sorted queries walk through the file in one direction: neighbours share the pages they touch.
        order = np.argsort(keys_Q2[:, 0])
        first, second = keys_Q2[order, 0], keys_Q2[order, 1]
        rows = np.searchsorted(self.keys_0, first)
        open_queries = np.arange(len(order))
        while len(open_queries):
            at = rows[open_queries]
            inside = np.minimum(at, self.num_rows - 1)
            same_first = (at < self.num_rows) & (self.keys_0[inside] == first[open_queries])
            hit = same_first & (self.keys_1[inside] == second[open_queries])
            rows_Q[order[open_queries[hit]]] = at[hit]
            # Two keys with one first word are next to each other.
            open_queries = open_queries[same_first & ~hit]
            rows[open_queries] += 1
        return rows_Q

    def gather(self, rows_Q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Counters of rows, ragged: (offsets int64 [Q + 1], token ids int64, counts int64); row -1 is empty.

        Counter q is `token_ids[offsets[q]:offsets[q + 1]]`, sorted by token.
        """
        rows_Q = np.asarray(rows_Q, dtype=np.int64)
        present = rows_Q >= 0
        values = np.where(present, self.values[np.where(present, rows_Q, 0)] if self.num_rows else 0, 0)
        values = values.astype(np.uint32)
        is_single = (values & SINGLE) != 0
        has_list = present & ~is_single
        lists = values[has_list].astype(np.int64)
        starts = self.offsets[lists]
        lengths_Q = is_single.astype(np.int64)
        lengths_Q[has_list] = self.offsets[lists + 1] - starts
        offsets = np.zeros(len(rows_Q) + 1, dtype=np.int64)
        np.cumsum(lengths_Q, out=offsets[1:])
        token_ids, counts = np.empty(offsets[-1], dtype=np.int64), np.ones(offsets[-1], dtype=np.int64)
        token_ids[offsets[:-1][is_single]] = values[is_single] & ~SINGLE
        sizes = lengths_Q[has_list]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        source, target = np.repeat(starts, sizes) + within, np.repeat(offsets[:-1][has_list], sizes) + within
        token_ids[target], counts[target] = self.token_ids[source], self.counts[source]
        return offsets, token_ids, counts

    def rows(self, first: int, last: int) -> CountRows:
        """The entries of rows first .. last - 1 in order."""
        offsets, token_ids, counts = self.gather(np.arange(first, last))
        sizes = np.diff(offsets)
        return CountRows(
            keys_0=np.repeat(self.keys_0[first:last], sizes),
            keys_1=np.repeat(self.keys_1[first:last], sizes),
            token_ids=token_ids.astype(np.int32),
            counts=counts,
        )


def check_identity(actual: TableIdentity, expected: TableIdentity, *, folder: Path) -> None:
    """`DataError` that names each difference with both values."""
    wanted = asdict(expected)
    wrong = [
        f"{name} is {value!r}, expected {wanted[name]!r}"
        for name, value in asdict(actual).items()
        if value != wanted[name]
    ]
    if wrong:
        raise DataError(f"counted from something else: {'; '.join(wrong)}", file=folder)


def _open_array(path: Path, dtype: Any) -> np.ndarray:
    """Map a one-dimensional array, or read it where it is empty and cannot be mapped."""
    is_empty = path.stat().st_size <= HEADER_BYTES
    array: np.ndarray = np.load(path, mmap_mode=None if is_empty else "r", allow_pickle=False)
    if array.dtype != dtype or array.ndim != 1:
        raise ValueError(f"{path.name} holds {array.dtype} in {array.ndim} dimensions, expected {np.dtype(dtype)} in 1")
    return array


HEADER_BYTES = 128
"""Header of an .npy file with one dimension; numpy pads it so that the length can grow in place."""


def release_pages(array: np.ndarray) -> None:
    """Take the pages of a memory-mapped file out of this process, where the array is one."""
    if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap):
        array.base.madvise(mmap.MADV_DONTNEED)


class _GrowingArray:
    """A one-dimensional .npy file that is appended to; its header is written again when its length is known."""

    def __init__(self, path: Path, dtype: Any) -> None:
        self.dtype, self.length = np.dtype(dtype), 0
        self.file: IO[bytes] = path.open("wb")
        self._write_header()

    def _write_header(self) -> None:
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self.file, header)
        assert self.file.tell() == HEADER_BYTES

    def append(self, values: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(values, dtype=self.dtype).data)
        self.length += len(values)

    def close(self) -> None:
        self.file.seek(0)
        self._write_header()
        self.file.close()


class TableWriter:
    """Writes a table a piece at a time: `with TableWriter(...) as writer: writer.add(piece)`; see `counting.count`.

    Pieces come in the order of their keys, and no key stands in two of them.
    """

    def __init__(self, folder: Path, *, identity: TableIdentity) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.identity, self.num_positions = folder, identity, 0
        self._arrays = {name: _GrowingArray(folder / f"{name}.npy", dtype) for name, dtype in ARRAYS.items()}
        self._arrays["offsets"].append(np.zeros(1, dtype=np.int64))

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for array in self._arrays.values():
            array.close()
        if error is None:
            meta = {"format": FORMAT, "identity": asdict(self.identity), "num_positions": self.num_positions}
            (self.folder / META).write_text(json.dumps(meta, indent=1, sort_keys=True), encoding="utf-8")

    def add(self, piece: "Piece") -> None:
        """Append rows; their keys are larger than those before."""
        if piece.largest_token >= self.identity.vocab_size:
            raise DataError(
                f"token id {piece.largest_token}, expected less than the vocabulary's {self.identity.vocab_size}"
            )
        if piece.counts.max(initial=0) > MAX_COUNT:
            raise DataError(f"a count of {piece.counts.max()}, the table holds at most {MAX_COUNT}")
        num_lists = self._arrays["offsets"].length - 1
        if num_lists + len(piece.sizes) >= int(SINGLE):
            raise DataError(f"more than {int(SINGLE)} prefixes were seen more than once: a table holds no more")
        piece.values[piece.values < SINGLE] += np.uint32(num_lists)
        self._arrays["keys_0"].append(piece.keys_0)
        self._arrays["keys_1"].append(piece.keys_1)
        self._arrays["values"].append(piece.values)
        self._arrays["offsets"].append(self._arrays["token_ids"].length + np.cumsum(piece.sizes))
        self._arrays["token_ids"].append(piece.token_ids)
        self._arrays["counts"].append(piece.counts)
        self.num_positions += piece.num_positions


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Rows of a table as they are written: those with a list are numbered from 0, `sizes` holds their lengths."""

    keys_0: np.ndarray
    keys_1: np.ndarray
    values: np.ndarray
    sizes: np.ndarray
    token_ids: np.ndarray
    counts: np.ndarray
    largest_token: int
    num_positions: int


def new_keys(keys_0: np.ndarray, keys_1: np.ndarray) -> np.ndarray:
    """Whether each of the sorted keys differs from the one before it, bool [E]."""
    is_new = np.ones(len(keys_0), dtype=bool)
    is_new[1:] = (keys_0[1:] != keys_0[:-1]) | (keys_1[1:] != keys_1[:-1])
    return is_new
