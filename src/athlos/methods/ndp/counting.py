"""GROUP BY key and next token, COUNT: the vectorised path.

Keys are random, so their high bits order almost all rows: numpy's radix sort of 16-bit digits takes two passes over 32
of them, and rows that tie there by accident are put in order by exact keys. On parts that fit the cache that is several
times faster than a sort of whole words.

E entries.
"""

import numpy as np

from athlos.methods.ndp.tables import SINGLE, CountRows, Piece, new_keys

DIGIT_BITS = 16
SORTED_BITS = 32
"""High bits of the first word that the radix passes sort by."""


def count(rows: CountRows, *, shared_bits: int = 0) -> Piece:
    """Entries in any order, repeats allowed -> rows of a table, sorted by key, counts of each next token added up.

    `shared_bits`: high bits that all first words have in common.
    """
    order = order_by_key(rows.keys_0, rows.keys_1, shared_bits=shared_bits)
    keys_0, keys_1, token_ids = rows.keys_0[order], rows.keys_1[order], rows.token_ids[order]
    is_new = new_keys(keys_0, keys_1)
    # What is not a key's only entry, seen once, goes to a list: few of all.
    in_list = ~is_new
    in_list[:-1] |= in_list[1:]
    counts = None if rows.is_ones else rows.counts[order]
    if counts is not None:
        in_list |= counts > 1
    listed = np.flatnonzero(in_list)
    values = token_ids.view(np.uint32) | SINGLE
    if not len(listed):
        empty = np.empty(0, dtype=np.int64)
        sizes, list_tokens, times = empty, empty, empty
    else:
        starts_list = is_new[listed]
        sizes, list_tokens, times = _lists(
            np.cumsum(starts_list, dtype=np.uint32), token_ids[listed], None if counts is None else counts[listed]
        )
        values[listed[starts_list]] = np.arange(len(sizes), dtype=np.uint32)
        keys_0, keys_1, values = keys_0[is_new], keys_1[is_new], values[is_new]
    return Piece(
        keys_0=keys_0,
        keys_1=keys_1,
        values=values,
        sizes=sizes,
        token_ids=list_tokens,
        counts=times,
        largest_token=int(rows.token_ids.max(initial=-1)),
        num_positions=int(rows.counts.sum(dtype=np.int64)) if counts is not None else len(rows),
    )


def _lists(
    group: np.ndarray, token_ids: np.ndarray, counts: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries of keys numbered 1, 2, ... in order -> (sizes of the keys' lists, their tokens, their counts).

    Tokens are sorted within a list; the counts of equal ones are added up. No counts: each entry is 1.
    """
    tokens = token_ids.astype(np.uint32)
    order = radix_order(tokens, bits=max(1, int(tokens.max()).bit_length()))
    order = radix_order(group, bits=int(group[-1]).bit_length(), order=order)
    group, tokens = group[order], tokens[order]
    is_new = np.ones(len(tokens), dtype=bool)
    is_new[1:] = (tokens[1:] != tokens[:-1]) | (group[1:] != group[:-1])
    heads = np.flatnonzero(is_new)
    if counts is None:
        times = np.diff(heads, append=len(tokens))
    else:
        times = np.add.reduceat(counts[order].astype(np.int64), heads)
    return np.bincount(group[heads])[1:], tokens[heads], times


def radix_order(values: np.ndarray, *, bits: int, order: np.ndarray | None = None) -> np.ndarray:
    """Stable order of rows by the low `bits` of unsigned values, after `order` if given, int64 [E]."""
    for shift in range(0, bits, DIGIT_BITS):
        digits = (values >> values.dtype.type(shift)).astype(np.uint16)
        within = np.argsort(digits if order is None else digits[order], kind="stable")  # a radix sort for 16 bits
        order = within if order is None else order[within]
    assert order is not None
    return order


def order_by_key(keys_0: np.ndarray, keys_1: np.ndarray, *, shared_bits: int = 0) -> np.ndarray:
    """Order of rows by (word 0, word 1), int64 [E]; rows with one key in any order."""
    high = (keys_0 >> np.uint64(64 - SORTED_BITS - shared_bits)).astype(np.uint32)
    order = radix_order(high, bits=SORTED_BITS)
    high = high[order]
    tied = np.flatnonzero(high[1:] == high[:-1]) + 1
    if not len(tied):
        return order
    # Most ties are one key seen often. Those with different keys share their high bits by accident: a handful.
    here, before = order[tied], order[tied - 1]
    differs = (keys_0[here] != keys_0[before]) | (keys_1[here] != keys_1[before])
    if not differs.any():
        return order
    bounds = np.append(np.flatnonzero(new_keys(high, high)), len(high))
    for group in np.unique(np.searchsorted(bounds, tied[differs], side="right") - 1):
        members = order[bounds[group] : bounds[group + 1]].copy()
        order[bounds[group] : bounds[group + 1]] = members[np.lexsort((keys_1[members], keys_0[members]))]
    return order
