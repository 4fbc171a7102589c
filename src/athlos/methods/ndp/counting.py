"""GROUP BY key and next token, COUNT: the vectorised path.

Keys are random, so their high bits order almost all rows: numpy's radix sort of 16-bit digits takes two passes over 32
of them, and rows that tie there by accident are put in order by exact keys. On parts that fit the cache that is several
times faster than a sort of whole words.

E entries.
"""

import numpy as np

from athlos.methods.ndp.tables import CountRows, new_keys

DIGIT_BITS = 16
SORTED_BITS = 32
"""High bits of the first word that the radix passes sort by."""


def count(rows: CountRows, *, shared_bits: int = 0) -> CountRows:
    """Entries in any order, repeats allowed -> sorted by key and token, each (key, token) once, counts added up.

    `shared_bits`: high bits that all first words have in common.
    """
    if not len(rows):
        return rows
    order = _order_by_key(rows.keys_0, rows.keys_1, shared_bits=shared_bits)
    sorted_rows = rows.taken(order)
    is_new = new_keys(sorted_rows.keys_0, sorted_rows.keys_1)
    return sorted_rows if is_new.all() else _add_up(sorted_rows, is_new)


def radix_order(values: np.ndarray, *, bits: int, order: np.ndarray | None = None) -> np.ndarray:
    """Stable order of rows by the low `bits` of unsigned values, after `order` if given, int64 [E]."""
    for shift in range(0, bits, DIGIT_BITS):
        digits = (values >> values.dtype.type(shift)).astype(np.uint16)
        within = np.argsort(digits if order is None else digits[order], kind="stable")  # a radix sort for 16 bits
        order = within if order is None else order[within]
    assert order is not None
    return order


def _order_by_key(keys_0: np.ndarray, keys_1: np.ndarray, *, shared_bits: int) -> np.ndarray:
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


def _add_up(rows: CountRows, is_new: np.ndarray) -> CountRows:
    """Entries sorted by key: sort tokens within a key, and add the counts of equal ones up."""
    # Only keys with more than one entry need it.
    repeated = np.flatnonzero(~is_new | ~np.append(is_new[1:], True))
    group = np.cumsum(is_new[repeated], dtype=np.uint32)
    tokens = rows.token_ids[repeated].astype(np.uint32)
    within = radix_order(tokens, bits=max(1, int(tokens.max()).bit_length()))
    within = radix_order(group, bits=int(group[-1]).bit_length(), order=within)
    tokens = tokens[within]
    token_ids = rows.token_ids.copy()
    token_ids[repeated] = tokens
    starts_entry = is_new.copy()
    starts_entry[repeated[1:]] |= tokens[1:] != tokens[:-1]
    heads = np.flatnonzero(starts_entry)
    if rows.is_ones:
        times = np.diff(heads, append=len(rows))
    else:
        counts = rows.counts.astype(np.int64)
        counts[repeated] = counts[repeated[within]]
        times = np.add.reduceat(counts, heads)
    return CountRows(keys_0=rows.keys_0[heads], keys_1=rows.keys_1[heads], token_ids=token_ids[heads], counts=times)
